"""Nodes of one machine that behave as on machines of their own: objects cross, survive, and are freed everywhere."""

from __future__ import annotations

import numpy as np
import pytest

import actorlib
from actorlib.cluster_utils import Cluster
from actorlib.transport import messages
from tests.conftest import eventually

MIB = 1 << 20


@pytest.fixture
def cluster():
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for name in ("b", "c"):
        made.add_node(num_cpus=1, resources={name: 10}, separate_host=True)
    made.connect()
    made.wait_for_nodes()
    try:
        yield made
    finally:
        made.shutdown()


def stored(cluster):
    """How many objects lie on each node."""
    engine = actorlib.engine.Slot.engine
    counts = []
    for node in (cluster.head_node, *cluster.worker_nodes):
        reply = engine.ask(node.address, messages.NodeStatus, timeout_s=30)
        counts.append(reply.status["store"][0]["objects"])
    return counts


@actorlib.remote(num_cpus=0)
def make(value, path=None):
    if path is not None:
        with open(path, "a") as log:
            log.write(f"{value}\n")
    return np.full(3 * MIB // 8, float(value))


@actorlib.remote(num_cpus=0)
def total(*arrays):
    return float(sum(array.sum() for array in arrays))


@actorlib.remote(num_cpus=0)
def plus_one(array, path):
    with open(path, "a") as log:
        log.write("plus_one\n")
    return array + 1


ON_B, ON_C = {"resources": {"b": 1}}, {"resources": {"c": 1}}
ITEMS = 3 * MIB // 8


def test_a_separate_host_shares_no_memory_with_the_others(cluster):
    beside = cluster.add_node(num_cpus=1)
    assert beside.host_id == cluster.head_node.host_id
    assert len({cluster.head_node.host_id, *(node.host_id for node in cluster.worker_nodes)}) == 3


def test_objects_go_from_host_to_host_and_are_freed_on_all(cluster):
    ref = make.options(**ON_B).remote(2)
    assert actorlib.get(total.options(**ON_C).remote(ref, ref), timeout=60) == 4.0 * ITEMS
    assert not actorlib.get(ref, timeout=60).flags.writeable
    assert eventually(lambda: stored(cluster) == [1, 1, 1])
    from_driver = actorlib.put(np.ones(ITEMS))
    small = [make.options(**ON_B).remote(n) for n in range(3)]
    assert actorlib.get(total.options(**ON_C).remote(from_driver, *small), timeout=60) == 4.0 * ITEMS
    del ref, from_driver, small
    assert eventually(lambda: stored(cluster) == [0, 0, 0])


def test_a_copy_serves_when_the_node_that_kept_the_object_is_lost(cluster, tmp_path):
    path = str(tmp_path / "log")
    ref = make.options(**ON_B).remote(1, path)
    assert actorlib.get(total.options(**ON_C).remote(ref), timeout=60) == ITEMS
    assert eventually(lambda: stored(cluster) == [0, 1, 1])
    cluster.remove_node(cluster.worker_nodes[0], allow_graceful=False)
    assert actorlib.get(ref, timeout=60).sum() == ITEMS
    assert (tmp_path / "log").read_text() == "1\n"  # it was not made again


def test_a_put_object_is_lost_with_its_only_node_and_says_so(cluster):
    @actorlib.remote(num_cpus=0, resources={"b": 1})
    class Maker:
        def make(self):
            return np.ones(ITEMS)

    maker = Maker.remote()
    ref = maker.make.remote()
    actorlib.wait([ref], timeout=60, fetch_local=False)
    cluster.remove_node(cluster.worker_nodes[0], allow_graceful=False)
    with pytest.raises(actorlib.exceptions.ObjectLostError, match="max_task_retries"):
        actorlib.get(ref, timeout=60)


def test_a_chain_is_made_again_when_all_of_it_is_lost(cluster, tmp_path):
    path = str(tmp_path / "log")
    cluster.add_node(num_cpus=1, resources={"b": 10}, separate_host=True)
    cluster.wait_for_nodes()
    ref = make.options(**ON_B).remote(1, path)
    for _ in range(3):
        ref = plus_one.options(**ON_B).remote(ref, path)  # what is between is freed by now: only its recipe is kept
    actorlib.wait([ref], timeout=60, fetch_local=False)
    value = actorlib.engine.Slot.engine.table.entries[ref._id].value
    (holder,) = [node for node in cluster.worker_nodes if node.address.node_id == value[1]]
    cluster.remove_node(holder, allow_graceful=False)
    assert actorlib.get(ref, timeout=60).sum() == 4.0 * ITEMS
    assert (tmp_path / "log").read_text().count("plus_one") >= 4


def test_what_an_actor_made_is_made_again_at_its_next_life(cluster):
    @actorlib.remote(num_cpus=0, resources={"b": 1}, max_restarts=-1, max_task_retries=-1)
    class Maker:
        def make(self, value):
            return np.full(ITEMS, float(value))

    maker = Maker.remote()
    refs = [maker.make.remote(value) for value in range(3)]
    actorlib.wait(refs, num_returns=3, timeout=60, fetch_local=False)
    cluster.remove_node(cluster.worker_nodes[0], allow_graceful=False)
    cluster.add_node(num_cpus=1, resources={"b": 10}, separate_host=True)
    assert [array[0] for array in actorlib.get(refs, timeout=60)] == [0.0, 1.0, 2.0]


def test_a_full_store_drops_copies_and_says_when_there_is_no_room(cluster):
    tight = cluster.add_node(num_cpus=1, resources={"d": 1}, separate_host=True, object_store_memory=64 * MIB)
    cluster.wait_for_nodes()
    on_tight = {"resources": {"d": 1}}
    refs = [actorlib.put(np.full(16 * MIB // 8, float(n))) for n in range(8)]
    for n, ref in enumerate(refs):  # 128 MiB through a store of 64
        assert actorlib.get(total.options(**on_tight).remote(ref), timeout=60) == n * 2.0 * MIB
    engine = actorlib.engine.Slot.engine
    usage = engine.ask(tight.address, messages.NodeStatus, timeout_s=30).status["store"][0]
    assert usage["spilled_bytes"] == 0 and 1 <= usage["objects"] <= 4
    large = actorlib.put(np.ones(80 * MIB // 8))
    with pytest.raises(actorlib.exceptions.ObjectStoreFullError):
        actorlib.get(total.options(**on_tight, max_retries=0).remote(large), timeout=60)
