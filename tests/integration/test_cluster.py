"""Two node processes on one machine, placement groups and strategies."""

from __future__ import annotations

import time

import numpy as np
import pytest

import actorlib
from actorlib.cluster_utils import Cluster
from actorlib.util.placement_group import placement_group, placement_group_table, remove_placement_group
from actorlib.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)
from tests.conftest import eventually


@pytest.fixture
def cluster():
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1, resources={"special": 1}, labels={"zone": "b"})
    made.connect()
    made.wait_for_nodes()
    try:
        yield made
    finally:
        made.shutdown()


@actorlib.remote
def where():
    return actorlib.get_runtime_context().get_node_id()


def other(cluster):
    return cluster.worker_nodes[0].address.node_id.hex()


def test_nodes_see_each_other_and_tasks_go_where_their_demand_is(cluster):
    assert len(actorlib.nodes()) == 2 and actorlib.cluster_resources()["CPU"] == 2
    assert actorlib.get(where.options(resources={"special": 1}).remote(), timeout=10) == other(cluster)
    assert actorlib.get(where.options(label_selector={"zone": "b"}).remote(), timeout=10) == other(cluster)
    affinity = NodeAffinitySchedulingStrategy(other(cluster), soft=False)
    assert actorlib.get(where.options(scheduling_strategy=affinity).remote(), timeout=10) == other(cluster)
    spread = [where.options(scheduling_strategy="SPREAD").remote() for _ in range(6)]
    assert len(set(actorlib.get(spread, timeout=10))) == 2


def test_large_objects_cross_between_nodes(cluster):
    @actorlib.remote
    def make():
        return np.ones(1_000_000)

    @actorlib.remote
    def total(array):
        return array.sum()

    ref = make.options(resources={"special": 1}).remote()
    assert actorlib.get(total.remote(ref), timeout=10) == 1_000_000
    assert actorlib.get(ref, timeout=10).sum() == 1_000_000


def test_a_lost_node_takes_its_tasks_elsewhere_and_its_actors_are_told(cluster):
    @actorlib.remote(resources={"special": 1})
    class Pinned:
        def ping(self):
            return 1

    pinned = Pinned.remote()
    assert actorlib.get(pinned.ping.remote(), timeout=10) == 1
    node = cluster.worker_nodes[0]
    cluster.remove_node(node, allow_graceful=False)
    with pytest.raises(actorlib.exceptions.ActorDiedError, match="node"):
        actorlib.get(pinned.ping.remote(), timeout=10)
    assert [row["Alive"] for row in actorlib.nodes()].count(True) == 1
    assert actorlib.get(where.remote(), timeout=10) != node.address.node_id.hex()


def test_a_node_that_joins_later_serves_what_waits(cluster, capfd):
    ref = where.options(resources={"late": 1}).remote()
    with pytest.raises(actorlib.exceptions.GetTimeoutError, match="late"):
        actorlib.get(ref, timeout=4)
    node = cluster.add_node(num_cpus=1, resources={"late": 1})
    assert actorlib.get(ref, timeout=10) == node.address.node_id.hex()
    assert "can't be scheduled now" in capfd.readouterr().err


def test_strict_spread_and_use_of_bundles(cluster):
    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    assert actorlib.get(group.ready(), timeout=10)
    places = [
        actorlib.get(where.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, i)).remote(), timeout=10)
        for i in range(2)
    ]
    assert len(set(places)) == 2
    remove_placement_group(group)
    deadline = time.monotonic() + 10
    while actorlib.available_resources().get("CPU") != 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert actorlib.available_resources()["CPU"] == 2


def test_a_group_that_cant_be_placed_says_why(cluster):
    group = placement_group([{"CPU": 2}], strategy="STRICT_PACK")
    assert not group.wait(1)
    rows = placement_group_table()
    reasons = [row["reason"] for row in (rows.values() if isinstance(rows, dict) else rows)]
    assert any("infeasible" in reason for reason in reasons)
    remove_placement_group(group)


def test_actors_in_a_group(cluster):
    @actorlib.remote(num_cpus=1)
    class Member:
        def where(self):
            return actorlib.get_runtime_context().get_node_id()

    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="SPREAD")
    assert group.wait(10)
    members = [
        Member.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, i)).remote() for i in range(2)
    ]
    assert len(set(actorlib.get([member.where.remote() for member in members], timeout=10))) == 2
    remove_placement_group(group)

    def is_dead():  # the order to end it is on its way when the group is removed, and so may a call be
        try:
            return not actorlib.get(members[0].where.remote(), timeout=10)
        except actorlib.exceptions.ActorDiedError:
            return True

    assert eventually(is_dead, 20)


def test_the_loss_of_a_node_leaves_the_other_bundles_and_their_work_alone(cluster):
    @actorlib.remote(num_cpus=1, max_restarts=1, max_task_retries=-1)
    class Member:
        def __init__(self):
            self.count = 0

        def add(self):
            self.count += 1
            return self.count

    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    assert group.wait(10)
    members = [
        Member.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, i)).remote() for i in range(2)
    ]
    assert actorlib.get([member.add.remote() for member in members], timeout=30) == [1, 1]
    before = placement_group_table(group)["bundles_to_node_id"]
    lost = next(index for index, node in before.items() if node == other(cluster))
    cluster.remove_node(cluster.worker_nodes[0])
    assert actorlib.get(members[1 - lost].add.remote(), timeout=30) == 2
    assert not group.wait(0.5)
    cluster.add_node(num_cpus=1)
    assert group.wait(30)
    counts = actorlib.get([member.add.remote() for member in members], timeout=30)
    assert counts[lost] == 1 and counts[1 - lost] == 3
    after = placement_group_table(group)["bundles_to_node_id"]
    assert after[1 - lost] == before[1 - lost] and after[lost] == other(cluster) != before[lost]
    remove_placement_group(group)
