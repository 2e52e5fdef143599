"""Objects that outlive their owner, in simulated clusters."""

from __future__ import annotations

import time

import numpy as np
import pytest

import actorlib
from actorlib.testing import simulate
from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@actorlib.remote(num_cpus=0)
def double(value):
    return value * 2


@actorlib.remote(num_cpus=0)
def array(value):
    return np.full(100_000, float(value))


@actorlib.remote(num_cpus=0)
def slow(value):
    time.sleep(20.0)
    return value


@actorlib.remote(num_cpus=0)
def mean(values):
    return np.full(100_000, values.mean())


@actorlib.remote(num_cpus=0)
def array_of(values):
    return values + 0


@actorlib.remote(num_cpus=0)
def some():
    yield from (7, 8, 9)


@actorlib.remote(num_cpus=0)
def much():
    yield from (np.full(100_000, float(i)) for i in range(3))


@actorlib.remote(num_cpus=0)
class Owner:
    """Makes references that it owns, and hands them out."""

    def small(self):
        return [double.remote(21)]

    def chain(self):
        first = array.remote(1)
        second = double.remote(first)
        return [double.remote(second)]

    def pending(self):
        return [double.remote(slow.remote(4))]

    def put(self):
        return [actorlib.put(np.ones(100_000))]

    def small_put(self):
        return [actorlib.put(17)]

    def put_of_a_reference(self):
        return [actorlib.put([double.remote(1)])]

    def of_put(self):
        return [double.remote(actorlib.put(np.ones(100_000)))]

    def much_item(self):
        return [list(much.remote())[1]]

    def by_actor(self):
        return [Borrower.remote().add.remote(20, 3)]

    def much_by_actor(self):
        return [Borrower.remote().much.remote()]

    def item(self):
        return [list(some.remote())[1]]

    def of_large_argument(self):
        return [mean.remote(np.full(100_000, 5.0))]

    def of_larger_argument(self):
        return [array_of.remote(np.full(400_000, 5.0))]


@actorlib.remote(num_cpus=0)
class Borrower:
    def keep(self, box):
        self.ref = box[0]

    def add(self, one, other):
        return one + other

    def much(self):
        return np.ones(100_000)

    def read(self):
        value = actorlib.get(self.ref)
        return float(value[0]) if hasattr(value, "shape") else value


def orphan(world, method, node=1):
    """A reference whose owner has died with its node, its lineage told."""
    place = NodeAffinitySchedulingStrategy(world.nodes[node].node_id.hex(), soft=True)
    owner = Owner.options(scheduling_strategy=place).remote()
    (ref,) = actorlib.get(getattr(owner, method).remote(), timeout=100)
    time.sleep(1.0)  # what makes it is done, but for what takes long, and nobody here has asked for its value
    world.crash_node(world.nodes[node])
    time.sleep(3.0)
    return ref


def read(ref):
    value = actorlib.get(ref, timeout=200)
    return float(value[0]) if hasattr(value, "shape") else value


OUTLIVES = {
    "small": 42,
    "chain": 4.0,
    "pending": 8,
    "small_put": 17,
    "by_actor": 23,
    "item": 8,
    "of_large_argument": 5.0,
}


@pytest.mark.parametrize(("method", "value"), OUTLIVES.items())
def test_a_borrower_goes_on_after_the_owner_died(method, value):
    with simulate(seed=1, nodes=3) as world:
        time.sleep(1.0)
        ref = orphan(world, method)
        assert read(ref) == value
        assert read(ref) == value
        del ref


def test_two_borrowers_agree_on_the_new_owner():
    with simulate(seed=2, nodes=3) as world:
        time.sleep(1.0)
        borrower = Borrower.remote()
        ref = orphan(world, "chain")
        actorlib.get(borrower.keep.remote([ref]), timeout=100)
        time.sleep(1.0)
        assert actorlib.get(borrower.read.remote(), timeout=200) == read(ref) == 4.0
        del ref, borrower


ENDS = {
    "put": r"made by put\(\) and lay in shared memory",
    "of_put": r"made by put\(\) and lay in shared memory",
    "put_of_a_reference": r"made by put\(\) and holds references",
    "much_item": "made by a generator",
    "much_by_actor": "made by an actor's method",
    "of_larger_argument": "arguments of the task .* are too large",
}


@pytest.mark.parametrize(("method", "reason"), ENDS.items())
def test_what_cant_be_made_again_says_why(method, reason):
    with simulate(seed=3, nodes=3) as world:
        time.sleep(1.0)
        ref = orphan(world, method)
        with pytest.raises(actorlib.exceptions.OwnerDiedError, match=reason):
            actorlib.get(ref, timeout=100)
        del ref


def test_the_gcs_forgets_lineage_that_nobody_needs():
    with simulate(seed=4, nodes=2) as world:
        time.sleep(1.0)
        owner, borrower = Owner.remote(), Borrower.remote()
        ref = actorlib.get(owner.chain.remote(), timeout=100)[0]
        actorlib.wait([ref])
        time.sleep(1.0)
        rows = world.nodes[0].gcs.lineages.rows
        assert len(rows) == 3  # the object, and what it was made from
        del ref
        time.sleep(2.0)
        assert not rows
        del owner, borrower
