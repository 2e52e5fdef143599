"""What a lease gives to the code that runs on it: devices, resources, and the placement group."""

from __future__ import annotations

import os

import pytest

import actorlib
from actorlib.util import placement_group, remove_placement_group
from actorlib.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@pytest.fixture(scope="module")
def with_devices():
    actorlib.init(num_cpus=2, num_gpus=2, resources={"TPU": 4})
    yield
    actorlib.shutdown()


@actorlib.remote
def devices():
    return actorlib.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")


@actorlib.remote
def assigned():
    return actorlib.get_runtime_context().get_assigned_resources()


@actorlib.remote
def group_of_a_child():
    return actorlib.get(group_here.remote())


@actorlib.remote
def group_here():
    return actorlib.get_runtime_context().get_placement_group_id()


def test_a_task_sees_the_devices_that_it_was_given_and_the_next_does_not(with_devices):
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    indices, variable = actorlib.get(devices.options(num_gpus=1).remote(), timeout=10)
    assert len(indices) == 1 and variable == str(indices[0])
    both, variable = actorlib.get(devices.options(num_gpus=2).remote(), timeout=10)
    assert both == [0, 1] and variable == "0,1"
    assert actorlib.get([devices.remote() for _ in range(4)], timeout=10) == [([], before)] * 4


def test_halves_of_one_device_are_shared(with_devices):
    @actorlib.remote(num_gpus=0.5)
    class Half:
        def devices(self):
            return actorlib.get_gpu_ids()

    halves = [Half.remote() for _ in range(4)]
    assert sorted(actorlib.get([half.devices.remote() for half in halves], timeout=10)) == [[0], [0], [1], [1]]


def test_assigned_resources_of_tasks(with_devices):
    demand = {"num_cpus": 0.5, "num_gpus": 0.25, "resources": {"TPU": 2}}
    assert actorlib.get(assigned.options(**demand).remote(), timeout=10) == {"CPU": 0.5, "GPU": 0.25, "TPU": 2.0}
    assert actorlib.get(assigned.remote(), timeout=10) == {"CPU": 1.0}


@pytest.mark.parametrize("captures", [True, False])
def test_children_stay_in_the_group_if_asked_to(with_devices, captures):
    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    assert group.wait(10)
    strategy = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=captures)
    ref = group_of_a_child.options(scheduling_strategy=strategy).remote()
    if captures:
        assert actorlib.get(ref, timeout=10) == group.id.hex()
    else:
        # The group holds all CPUs, so a child outside of it has to wait until the group is gone.
        assert actorlib.wait([ref], timeout=0.5) == ([], [ref])
    remove_placement_group(group)
