"""Methods that would not do the same when they are run again are found in debug mode and in simulation, and named."""

from __future__ import annotations

import os
import random
import time

import numpy as np
import pytest

import actorlib
from actorlib.exceptions import ReplayDivergedError
from actorlib.runtime.drivers.divergence import difference, shift_sets
from actorlib.testing import simulate

counted = 0


@actorlib.remote(checkpoint=3)
class Suspicious:
    def __init__(self):
        self.values = []
        self.array = np.zeros(3)
        self.names = {f"name{number}" for number in range(20)}

    def honest(self, x):
        self.values.append((x, actorlib.record(random.random), actorlib.record(time.time)))
        self.array += x
        return len(self.values)

    def draws(self):
        self.values.append(random.random())

    def reads_the_clock(self):
        self.values.append(time.time())

    def answers_with_the_clock(self):
        return time.time()

    def uses_a_global(self):
        global counted
        counted += 1
        self.values.append(counted)

    def goes_by_the_order_of_a_set(self):
        self.values.append(list(self.names))

    def sorts_a_set(self):
        self.values.append(sorted(self.names))
        self.names.add(f"name{len(self.names)}")
        return len(self.names)

    def raises(self):
        raise KeyError("always the same")

    @actorlib.method(readonly=True)
    def looks(self):
        return len(self.values)

    @actorlib.method(readonly=True)
    def only_seems_to_look(self):
        self.values.append("touched")


PLANTED = [
    "goes_by_the_order_of_a_set",
    "draws",
    "reads_the_clock",
    "answers_with_the_clock",
    "uses_a_global",
    "only_seems_to_look",
]


@pytest.mark.parametrize("method", PLANTED)
def test_planted_divergence_is_found_and_named_in_simulation(method):
    with simulate(seed=1):
        actor = Suspicious.remote()
        assert actorlib.get([actor.honest.remote(i) for i in range(5)]) == [1, 2, 3, 4, 5]
        with pytest.raises(ReplayDivergedError, match=f"Suspicious.{method}"):
            actorlib.get(getattr(actor, method).remote())
        with pytest.raises(KeyError):
            actorlib.get(actor.raises.remote())
        assert actorlib.get([actor.sorts_a_set.remote() for _ in range(3)]) == [21, 22, 23]
        assert actorlib.get(actor.looks.remote()) >= 5
        del actor


def test_it_is_found_in_debug_mode(monkeypatch):
    monkeypatch.setenv("ACTORLIB_DEBUG", "1")
    with actorlib.init(num_cpus=1):
        actor = Suspicious.remote()
        assert actorlib.get(actor.honest.remote(1), timeout=60) == 1
        with pytest.raises(ReplayDivergedError, match=r"Suspicious.draws \(position 2\)"):
            actorlib.get(actor.draws.remote(), timeout=60)


class Point:
    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize(
    ("one", "other", "text"),
    [
        ({"a": [1, 2]}, {"a": [1, 2]}, ""),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a[1] is 2 here and 3 there"),
        ({"a": 1}, {"b": 1}, "has the keys"),
        ([1], [1, 1], "1 items here and 2 there"),
        ({"p": Point(1)}, {"p": Point(2)}, "p.x is 1 here and 2 there"),
        ({"p": Point({1, 2})}, {"p": Point({2, 1})}, ""),
        (np.zeros(2), np.ones(2), "the array"),
        (float("nan"), float("nan"), ""),
        (1, 1.0, "is a int here and a float there"),
    ],
)
def test_differences_in_words(one, other, text):
    found = difference(one, other)
    assert text in found and bool(found) == bool(text)


def test_a_set_with_another_order_is_still_the_same_set():
    names = {f"name{number}" for number in range(50)}
    numbers = set(range(8))
    state = {"deep": [Point(names)], "numbers": numbers, "frozen": frozenset("ab")}
    order, state["again"] = list(names), state
    shift_sets(state, {})
    assert list(names) != order and sorted(names) == sorted(order)
    assert list(numbers) == list(range(8))


@actorlib.remote(num_cpus=1)
def order_of_a_set():
    return list({f"name{number}" for number in range(50)}), os.environ.get("PYTHONHASHSEED")


def test_a_set_of_strings_that_is_made_the_same_way_has_the_same_order_on_all_nodes():
    from actorlib.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for name in ("left", "right"):
            cluster.add_node(num_cpus=1, resources={name: 1})
        cluster.connect()
        refs = [order_of_a_set.options(resources={name: 1}).remote() for name in ("left", "right")]
        (left, seed), (right, _) = actorlib.get(refs, timeout=90)
        assert left == right and seed == os.environ.get("PYTHONHASHSEED")
    finally:
        cluster.shutdown()
