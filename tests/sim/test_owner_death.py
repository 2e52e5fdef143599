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


@actorlib.remote(num_cpus=0)
class Borrower:
    def keep(self, box):
        self.ref = box[0]

    def read(self):
        value = actorlib.get(self.ref)
        return float(value[0]) if hasattr(value, "shape") else value


def orphan(world, method, node=1):
    """A reference whose owner has died with its node, its lineage told."""
    place = NodeAffinitySchedulingStrategy(world.nodes[node].node_id.hex(), soft=True)
    owner = Owner.options(scheduling_strategy=place).remote()
    (ref,) = actorlib.get(getattr(owner, method).remote(), timeout=100)
    if method != "pending":
        actorlib.wait([ref], fetch_local=False)
    time.sleep(1.0)
    world.crash_node(world.nodes[node])
    time.sleep(3.0)
    return ref


def read(ref):
    value = actorlib.get(ref, timeout=200)
    return float(value[0]) if hasattr(value, "shape") else value


@pytest.mark.parametrize(("method", "value"), [("small", 42), ("chain", 4.0), ("pending", 8)])
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


def test_what_cant_be_made_again_says_why():
    with simulate(seed=3, nodes=3) as world:
        time.sleep(1.0)
        ref = orphan(world, "put")
        with pytest.raises(actorlib.exceptions.OwnerDiedError, match=r"owned.*put\(\)"):
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
