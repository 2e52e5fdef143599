"""A node that holds bundles of a placement group is lost: the others stay, and what runs in them goes on."""

from __future__ import annotations

import time

import pytest

import actorlib
from actorlib.testing import simulate
from actorlib.util.placement_group import placement_group, placement_group_table, remove_placement_group
from actorlib.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@actorlib.remote(num_cpus=1)
class Member:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count

    def node(self):
        return actorlib.get_runtime_context().get_node_id()


def members_of(group, **options):
    return [
        Member.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, index), **options).remote()
        for index in range(group.bundle_count)
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("strategy", ["SPREAD", "STRICT_SPREAD", "PACK"])
def test_bundles_on_other_nodes_stay_and_the_lost_ones_are_placed_anew(seed, strategy):
    def work(world):
        group = placement_group([{"CPU": 1}] * 3, strategy=strategy)
        assert group.wait(10)
        last = members_of(group, max_restarts=1, max_task_retries=-1)
        places = actorlib.get([member.node.remote() for member in last], timeout=10)
        assert actorlib.get([member.add.remote() for member in last], timeout=10) == [1, 1, 1]
        lost = next(node for node in world.nodes[1:] if node.node_id.hex() in places)
        world.crash_node(lost)
        if strategy == "STRICT_SPREAD":
            world.add_node()
        is_lost = [place == lost.node_id.hex() for place in places]
        counts = actorlib.get([member.add.remote() for member in last], timeout=60)
        assert counts == [1 if gone else 2 for gone in is_lost]
        assert group.wait(60) and placement_group_table(group)["state"] == "CREATED"
        after = actorlib.get([member.node.remote() for member in last], timeout=10)
        assert all((there == was) != gone for there, was, gone in zip(after, places, is_lost, strict=True))
        if strategy == "STRICT_SPREAD":
            assert len(set(after)) == 3
        remove_placement_group(group)

    with simulate(seed=seed, nodes=3, num_cpus=2, own_gcs=seed % 2 == 1) as world:
        work(world)


def test_the_gcs_begins_anew_while_a_bundle_has_no_place():
    def work(world):
        group = placement_group([{"CPU": 1}] * 3, strategy="STRICT_SPREAD")
        assert group.wait(10)
        members = members_of(group, max_restarts=1, max_task_retries=-1)
        assert actorlib.get([member.add.remote() for member in members], timeout=10) == [1, 1, 1]
        world.crash_node(world.nodes[2])
        until(group, "RESCHEDULING")  # there is no third node
        world.crash_gcs(0.05)
        row = placement_group_table(group)
        assert row["state"] == "RESCHEDULING" and sorted(len(node) > 0 for node in nodes_of(row)) == [False, True, True]
        world.add_node()
        until(group, "CREATED")
        assert sorted(actorlib.get([member.add.remote() for member in members], timeout=30)) == [1, 2, 2]
        remove_placement_group(group)

    with simulate(seed=3, nodes=3, num_cpus=1, own_gcs=True) as world:
        work(world)


def until(group, state):
    deadline = time.monotonic() + 30
    while placement_group_table(group)["state"] != state:
        assert time.monotonic() < deadline, placement_group_table(group)
        time.sleep(0.2)


def nodes_of(row):
    return list(row["bundles_to_node_id"].values())
