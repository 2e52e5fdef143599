"""Objects between simulated hosts: broadcast, losses, and nothing left behind."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

import actorlib
from actorlib.testing import simulate
from actorlib.transport import limits, messages
from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ITEMS = 1 << 20  # 8 MiB: four chunks


@actorlib.remote(num_cpus=0)
def total(array):
    return float(array.sum())


@actorlib.remote(num_cpus=0)
def make(value):
    return np.full(ITEMS, float(value))


@actorlib.remote(num_cpus=0)
def add_one(array):
    return array + 1


@contextlib.contextmanager
def joined(seed, nodes):
    """A cluster whose nodes know each other."""
    with simulate(seed=seed, nodes=nodes) as world:
        time.sleep(1.0)
        yield world


def on(node, task, soft=False, **options):
    strategy = NodeAffinitySchedulingStrategy(node.node_id.hex(), soft=soft)
    return task.options(scheduling_strategy=strategy, **options)


def chunks_sent(world):
    """Chunks that left each node. Counted at the nodes' way out."""
    counts = [0] * len(world.nodes)
    for index, node in enumerate(world.nodes):
        transfers = node.store.transfers

        def payload(object_id, offset, length, index=index, original=transfers.payload):
            counts[index] += 1
            return original(object_id, offset, length)

        transfers.serving._port.payload = payload
    return counts


def test_a_broadcast_spreads_over_the_receivers():
    with joined(seed=1, nodes=9) as world:
        sent = chunks_sent(world)
        ref = actorlib.put(np.ones(ITEMS))
        totals = actorlib.get([on(node, total).remote(ref) for node in world.nodes[1:]], timeout=100)
        assert totals == [float(ITEMS)] * 8
        chunks = -(-world.nodes[0].store.catalog.objects[ref._id].size // limits.pull_chunk_bytes)
        assert sum(sent) == 8 * chunks
        assert max(sent) <= 4 * chunks, sent
        del ref


@pytest.mark.parametrize("seed", range(6))
def test_a_broadcast_survives_a_lossy_network_and_a_lost_node(seed):
    with joined(seed=seed, nodes=6) as world:
        world.network.weather.loss = world.network.weather.duplication = 0.1
        ref = on(world.nodes[1], make, soft=True, max_retries=-1).remote(2)
        actorlib.wait([ref], fetch_local=False)
        world.after(0.002 + 0.004 * seed, lambda: world.crash_node(world.nodes[1]))
        refs = [on(node, total, soft=True, max_retries=-1).remote(ref) for node in world.nodes[2:]]
        assert actorlib.get(refs, timeout=1000) == [2.0 * ITEMS] * 4
        world.network.weather.loss = world.network.weather.duplication = 0.0
        del ref, refs


def test_a_chain_of_lost_objects_is_made_again():
    with joined(seed=3, nodes=3) as world:
        ref = on(world.nodes[1], make, soft=True).remote(1)
        for _ in range(4):
            ref = on(world.nodes[1], add_one, soft=True).remote(ref)
        actorlib.wait([ref], fetch_local=False)
        world.crash_node(world.nodes[1])
        assert actorlib.get(ref, timeout=100)[0] == 5.0
        del ref


def test_arguments_are_on_their_way_before_the_task_before_is_done():
    @actorlib.remote
    class Reader:
        def nap(self):
            time.sleep(10.0)

        def read(self, array):
            return time.monotonic()

    with joined(seed=4, nodes=2) as world:
        reader = on(world.nodes[1], Reader).remote()
        refs = [actorlib.put(np.ones(ITEMS)) for _ in range(3)]
        reader.nap.remote()
        done = [reader.read.remote(ref) for ref in refs]
        time.sleep(5.0)
        assert len(world.nodes[1].store.catalog.objects) == 3
        actorlib.get(done, timeout=100)
        del reader, refs, done


def test_an_object_is_found_before_its_writer_has_told_of_it():
    with joined(seed=5, nodes=2) as world:
        told = world.nodes[0].loop.handlers[messages.ObjectsSealed]
        world.nodes[0].loop.handlers[messages.ObjectsSealed] = lambda *args: world.after(1.0, lambda: told(*args))
        ref = actorlib.put(np.ones(ITEMS))
        assert actorlib.get(on(world.nodes[1], total).remote(ref), timeout=100) == ITEMS
        time.sleep(2.0)
        del ref


def test_wait_brings_objects_here_unless_it_is_told_not_to():
    with joined(seed=6, nodes=2) as world:
        refs = [on(world.nodes[1], make).remote(n) for n in range(3)]
        here = world.nodes[0].store.catalog.objects
        assert len(actorlib.wait(refs, num_returns=3, timeout=100, fetch_local=False)[0]) == 3
        assert not here
        assert actorlib.wait(refs, num_returns=3, timeout=0)[0] == []  # they are there, but not here yet
        assert actorlib.wait(refs, num_returns=3, timeout=100)[0] == refs
        assert len(here) == 3
        world.crash_node(world.nodes[1])
        time.sleep(3.0)
        assert actorlib.wait(refs, num_returns=3, timeout=0)[0] == refs
        del refs


def test_wait_for_what_is_lost_leaves_it_to_get_to_say_so():
    with joined(seed=7, nodes=2) as world:
        ref = on(world.nodes[1], make, soft=True).remote(1)
        actorlib.wait([ref], fetch_local=False)
        world.crash_node(world.nodes[1])
        assert actorlib.wait([ref], timeout=100)[0] == [ref]
        assert actorlib.get(ref, timeout=100)[0] == 1.0
        del ref


def test_a_get_with_a_timeout_ends_in_time_also_when_what_it_reads_is_lost_meanwhile():
    @actorlib.remote(num_cpus=0)
    def slow_array():
        time.sleep(30.0)
        return np.ones(100_000)

    def work(world):
        time.sleep(1.0)  # until the nodes have heard of each other
        there = NodeAffinitySchedulingStrategy(world.nodes[1].node_id.hex(), soft=True)
        ref = slow_array.options(scheduling_strategy=there).remote()
        actorlib.wait([ref], fetch_local=False, timeout=60)
        world.crash_node(world.nodes[1])
        for timeout in (3.0, 12.0):  # before its loss is noticed, and while it is made again
            began = world.world.time
            with pytest.raises(actorlib.exceptions.GetTimeoutError):
                actorlib.get(ref, timeout=timeout)
            assert world.world.time - began < timeout + 1.5
        assert actorlib.get(ref, timeout=60).sum() == 100_000
        del ref

    with simulate(seed=5, nodes=3) as world:
        work(world)
