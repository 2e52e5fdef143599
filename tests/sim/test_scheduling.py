"""Scheduling across simulated nodes: where tasks go, and what it costs in messages."""

from __future__ import annotations

import collections
import time

import numpy as np

import actorlib
from actorlib.testing import simulate
from actorlib.transport import limits
from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ITEMS = 1 << 18  # 2 MiB


@actorlib.remote(num_cpus=1)
def nap(seconds):
    time.sleep(seconds)
    return actorlib.get_runtime_context().get_node_id()


@actorlib.remote(num_cpus=0)
def make(value):
    return np.full(ITEMS, float(value))


@actorlib.remote(num_cpus=1)
def read(array):
    time.sleep(0.1)
    return actorlib.get_runtime_context().get_node_id()


def on(node):
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.node_id.hex(), soft=True)}


def batches_per_task(nodes, tasks_per_node=40):
    with simulate(seed=1, nodes=nodes, num_cpus=2) as world:
        time.sleep(1.0)
        before = world.network.sent
        places = actorlib.get([nap.remote(0.1) for _ in range(tasks_per_node * nodes)], timeout=1000)
        sent = world.network.sent - before
        shares = collections.Counter(places)
        assert len(shares) == nodes and max(shares.values()) <= 2 * tasks_per_node, shares
        return sent / (tasks_per_node * nodes)


def test_the_messages_per_task_dont_grow_with_the_number_of_nodes():
    cost = {nodes: batches_per_task(nodes) for nodes in (2, 4, 8)}
    assert cost[8] <= 1.3 * cost[2], cost
    assert cost[8] < 10, cost


def run_where_arguments_lie(seed):
    """How many of 24 tasks ran where their argument is."""
    with simulate(seed=seed, nodes=3, num_cpus=2) as world:
        time.sleep(1.0)
        homes = world.nodes[1:]
        refs = [make.options(**on(homes[i % 2])).remote(i) for i in range(24)]
        actorlib.wait(refs, num_returns=24, fetch_local=False)
        places = actorlib.get([read.remote(ref) for ref in refs], timeout=100)
        del refs
        return sum(place == homes[i % 2].node_id.hex() for i, place in enumerate(places))


def test_tasks_go_where_their_arguments_lie(monkeypatch):
    # No node is left idle for that: the third one, which has none of the arguments, takes its share.
    aware = [run_where_arguments_lie(seed) for seed in range(3)]
    monkeypatch.setattr(limits, "locality_bytes_min", 1 << 60)
    unaware = [run_where_arguments_lie(seed) for seed in range(3)]
    assert min(aware) >= 14, (aware, unaware)
    assert sum(aware) >= 1.5 * sum(unaware), (aware, unaware)


def test_a_full_node_does_not_hold_up_what_others_have_room_for():
    with simulate(seed=3, nodes=2, num_cpus=2) as world:
        time.sleep(1.0)
        ref = make.options(**on(world.nodes[1])).remote(1)
        actorlib.wait([ref], fetch_local=False)
        busy = [nap.options(**on(world.nodes[1])).remote(50.0) for _ in range(2)]
        time.sleep(1.0)
        began = time.monotonic()
        assert actorlib.get(read.remote(ref), timeout=100) == world.nodes[0].node_id.hex()
        assert time.monotonic() - began < 5.0
        actorlib.get(busy, timeout=100)
        del ref, busy


def test_work_is_packed_until_a_node_is_half_full_and_then_spread():
    with simulate(seed=4, nodes=3, num_cpus=8) as world:
        time.sleep(1.0)
        first = [nap.remote(20.0) for _ in range(4)]
        time.sleep(2.0)
        rest = []
        for _ in range(8):
            rest.append(nap.remote(20.0))
            time.sleep(1.0)  # so that each sees what the one before took
        here = world.nodes[0].node_id.hex()
        assert set(actorlib.get(first, timeout=100)) == {here}
        counts = collections.Counter(actorlib.get(rest, timeout=100))
        assert counts[here] == 0 and sorted(counts.values()) == [4, 4], counts
        del first, rest
