"""A node that leaves in good order: what ran there ends or goes on elsewhere, and nothing is lost that need not be."""

from __future__ import annotations

import time

import numpy as np
import pytest

import actorlib
from actorlib.testing import simulate
from actorlib.testing.fault_plans import Fault
from actorlib.util import drain_node
from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from actorlib.util.state import actor_log

WHY = "the spot machine goes"


@actorlib.remote(num_cpus=1)
class Counter:
    def __init__(self) -> None:
        self.total = 0

    def add(self, amount, seconds=0.0):
        time.sleep(seconds)
        self.total += amount
        return self.total

    def where(self):
        return actorlib.get_runtime_context().get_node_id()


@actorlib.remote(max_retries=0)
def work(seconds):
    time.sleep(seconds)
    return actorlib.get_runtime_context().get_node_id()


@actorlib.remote(max_retries=0)
def make_array(number):
    return np.full(30_000, float(number))


def on(node, soft=True):
    return NodeAffinitySchedulingStrategy(node.node_id.hex(), soft=soft)


def seen(world):
    """Once every node knows of every other."""
    nodes = world.living_nodes()
    wait_until(lambda: all(len(node.service.node_addresses()) == len(nodes) for node in nodes))
    return world.nodes[1]


def row(node):
    return next(row for row in actorlib.nodes() if row["NodeID"] == node.node_id.hex())


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("own_gcs", [False, True])
def test_a_durable_actor_goes_on_elsewhere_and_no_call_is_lost_or_out_of_order(seed, own_gcs):
    with simulate(seed=seed, nodes=3, own_gcs=own_gcs) as world:
        node = seen(world)
        counter = Counter.options(checkpoint=100, max_restarts=0, scheduling_strategy=on(node)).remote()
        assert actorlib.get(counter.where.remote()) == node.node_id.hex()
        refs = [counter.add.remote(1, 0.01) for _ in range(30)]
        drain_node(node.node_id.hex(), deadline_s=20, reason=WHY)
        refs += [counter.add.remote(1) for _ in range(30)]
        assert actorlib.get(refs, timeout=60) == list(range(1, 61))
        assert actorlib.get(counter.where.remote()) != node.node_id.hex()
        wait_until(lambda: row(node)["State"] == "DRAINED")
        assert row(node)["DeathReason"] == f"it was drained ({WHY})"
        (actor,) = world.gcs.actors.actors.values()
        assert actor.restarts == 0 and actor.incarnation >= 1
        rows = actor_log(counter)  # 62 is the call after the move
        assert [row.position for row in rows] == list(range(62, 0, -1))
        assert rows[-1].method == "where" and {row.outcome for row in rows} == {"OK"}
        del counter, refs


def test_an_actor_that_may_be_restarted_starts_anew_and_its_callers_calls_wait_for_it():
    with simulate(seed=1, nodes=3) as world:
        node = seen(world)
        counter = Counter.options(max_restarts=1, scheduling_strategy=on(node)).remote()
        refs = [counter.add.remote(1, 0.2) for _ in range(4)]
        actorlib.get(refs[0])
        drain_node(node.node_id.hex(), deadline_s=20, reason=WHY)
        refs += [counter.add.remote(1) for _ in range(3)]
        values = actorlib.get(refs, timeout=60)  # without max_task_retries: what had not started has gone on
        anew = values.index(1, 1)
        assert values == [*range(1, anew + 1), *range(1, len(refs) - anew + 1)]
        assert world.gcs.actors.actors[counter._actor_id].restarts == 0
        del counter, refs


def test_an_actor_that_may_not_be_restarted_serves_until_the_deadline_and_its_end_names_the_drain():
    with simulate(seed=1, nodes=3) as world:
        node = seen(world)
        counter = Counter.options(scheduling_strategy=on(node)).remote()
        assert actorlib.get(counter.add.remote(1)) == 1
        drain_node(node.node_id.hex(), deadline_s=5, reason=WHY)
        began = time.monotonic()
        while time.monotonic() - began < 4:
            assert actorlib.get(counter.add.remote(1)) > 1
            time.sleep(0.2)
        assert row(node)["State"] == "DRAINING"
        with pytest.raises(
            actorlib.exceptions.ActorDiedError, match=r"drained .the spot machine goes., and at the dead"
        ):
            while True:
                actorlib.get(counter.add.remote(1), timeout=30)
                time.sleep(0.2)
        assert row(node)["State"] == "DEAD"
        del counter


def test_running_tasks_are_let_end_and_queued_ones_go_elsewhere_without_a_retry():
    with simulate(seed=2, nodes=3, num_cpus=1) as world:
        node = seen(world)
        running = work.options(scheduling_strategy=on(node)).remote(3.0)
        queued = [work.options(scheduling_strategy=on(node)).remote(0.1) for _ in range(3)]
        time.sleep(0.5)
        drain_node(node.node_id.hex(), deadline_s=30, reason=WHY)
        assert node.node_id.hex() not in actorlib.get(queued, timeout=60)
        assert row(node)["State"] == "DRAINING"
        assert actorlib.get(running) == node.node_id.hex()
        wait_until(lambda: row(node)["State"] == "DRAINED")
        del running, queued


def test_objects_that_lie_there_are_kept_by_others_and_not_made_again():
    with simulate(seed=3, nodes=3) as world:
        node = seen(world)
        refs = [make_array.options(scheduling_strategy=on(node)).remote(i) for i in range(5)]
        actorlib.wait(refs, num_returns=5, fetch_local=False)
        assert len(node.store.catalog.objects) == 5
        drain_node(node.node_id.hex(), deadline_s=30, reason=WHY)
        wait_until(lambda: row(node)["State"] == "DRAINED")
        assert [array[0] for array in actorlib.get(refs, timeout=60)] == [0, 1, 2, 3, 4]  # max_retries=0
        del refs


def test_a_durable_actor_without_room_elsewhere_is_saved_before_the_deadline_and_comes_back_when_there_is():
    with simulate(seed=4, nodes=2, num_cpus=1) as world:
        node = seen(world)
        counter = Counter.options(
            checkpoint=100, resources={"node:1": 0.001}, scheduling_strategy=on(node)
        ).remote()  # nobody else has that
        assert actorlib.get([counter.add.remote(1) for _ in range(3)]) == [1, 2, 3]
        drain_node(node.node_id.hex(), deadline_s=8, reason=WHY)
        began = time.monotonic()
        while time.monotonic() - began < 2:
            actorlib.get(counter.add.remote(0))
        wait_until(lambda: not row(node)["Alive"])
        (actor,) = world.gcs.actors.actors.values()
        assert actor.state.value == "RESTARTING" and actor.restarts == 0
        actorlib.kill(counter)
        del counter


def test_a_node_that_drains_gets_nothing_to_do_and_the_last_one_says_so():
    with simulate(seed=5, nodes=1, num_cpus=1) as world:
        world.nodes[0].service.drain(600, WHY)
        ref = work.remote(0.1)
        with pytest.raises(actorlib.exceptions.TaskUnschedulableError, match=r"but drains .the spot machine goes"):
            actorlib.get(ref, timeout=30)
        del ref
        wait_until(lambda: not world.nodes[0].service.leases.has_waiting())


def test_a_gcs_that_begins_anew_meanwhile_changes_nothing():
    with simulate(seed=6, nodes=3, own_gcs=True) as world:
        node = seen(world)
        counter = Counter.options(checkpoint=100, scheduling_strategy=on(node)).remote()
        refs = [counter.add.remote(1, 0.05) for _ in range(20)]
        actorlib.get(refs[0])
        world.crash_gcs(1.0)
        node.service.drain(30, WHY)  # as on SIGTERM, which asks nobody
        refs += [counter.add.remote(1) for _ in range(5)]
        assert actorlib.get(refs, timeout=60) == list(range(1, 26))
        wait_until(lambda: row(node)["State"] == "DRAINED")
        del counter, refs


@pytest.mark.parametrize("seed", range(6))
def test_work_goes_on_while_one_node_after_the_other_is_taken_away(seed):
    plan = [Fault("drain_node", at_s=at / 2, target=at, for_s=2.0 + at) for at in range(6)]
    with simulate(seed=seed, nodes=4, num_cpus=2, faults=plan) as world:
        counter = Counter.options(checkpoint=7, num_cpus=0.5).remote()
        arrays = [make_array.options(max_retries=-1).remote(i) for i in range(6)]
        values = []
        for _ in range(40):
            values.append(actorlib.get(counter.add.remote(1), timeout=120))
            time.sleep(0.1)
        assert values == list(range(1, 41))
        assert [array[0] for array in actorlib.get(arrays, timeout=120)] == list(range(6))
        assert world.fired["drain_node"] >= 3
        del counter, arrays


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("own_gcs", [False, True])
def test_several_nodes_that_leave_at_once_take_nothing_with_them(seed, own_gcs):
    """What one of them gives away must not end up with another one that leaves as well."""
    with simulate(seed=seed, nodes=5, num_cpus=4, own_gcs=own_gcs) as world:
        seen(world)
        leaving, staying = world.nodes[1:4], [world.nodes[0], world.nodes[4]]
        options = {"checkpoint": 100, "max_restarts": 0}
        counters = [Counter.options(scheduling_strategy=on(node), **options).remote() for node in leaving]
        arrays = [make_array.options(scheduling_strategy=on(node)).remote(i) for i, node in enumerate(leaving)]
        actorlib.wait(arrays, num_returns=len(arrays), fetch_local=False)
        there = [node.node_id.hex() for node in leaving]
        assert actorlib.get([counter.where.remote() for counter in counters]) == there
        refs = [[counter.add.remote(1, 0.01) for _ in range(20)] for counter in counters]
        for node_id in there:
            drain_node(node_id, deadline_s=20, reason=WHY)
        for more, counter in zip(refs, counters, strict=True):
            more += [counter.add.remote(1) for _ in range(20)]
            assert actorlib.get(more, timeout=60) == list(range(1, 41))
        wait_until(lambda: [row(node)["State"] for node in leaving] == ["DRAINED"] * 3)
        stayed = {node.node_id.hex() for node in staying}
        assert set(actorlib.get([counter.where.remote() for counter in counters], timeout=60)) <= stayed
        assert [array[0] for array in actorlib.get(arrays, timeout=60)] == [0, 1, 2]  # max_retries=0: not made again
        del counters, arrays, refs, more, counter
