"""The same test in simulation and on real processes, with the faults that can be done there."""

from __future__ import annotations

import os
import time

import pytest

import actorlib
from actorlib.testing import Deviation, Fault, history, simulate
from actorlib.testing.fault_plans import fire
from actorlib.testing.histories import PlainModel


@actorlib.remote(max_restarts=-1, max_task_retries=-1, checkpoint=1)
class Account:
    def __init__(self):
        self.balance = 0

    def deposit(self, amount):
        self.balance += amount
        return self.balance

    def pid(self):
        return os.getpid()


@actorlib.remote(max_retries=-1, scheduling_strategy="SPREAD")
def nap(value, seconds=0.05):
    time.sleep(seconds)
    return value


@pytest.mark.parametrize("mode", ["simulation", "process"])
def test_one_test_two_worlds(mode):
    plan = [Fault("crash_worker", 0.3), Fault("pause_worker", 0.5, 1, 0.3), Fault("crash_worker", 0.8)]
    with simulate(seed=3, nodes=2, faults=plan, mode=mode) as world, history() as recorded:
        account = recorded.watch(Account.remote())
        balances = []
        for i in range(12):
            balances.append(actorlib.get(account.deposit.remote(1), timeout=60))
            assert actorlib.get(nap.remote(i), timeout=60) == i
            time.sleep(0.05)
        assert balances == list(range(1, 13))
        recorded.assert_linearizable(PlainModel(Account))
        assert world.fired["crash_worker"] >= 1
        del account


def test_actors_are_killed_nodes_vanish_and_freeze():
    with simulate(seed=1, nodes=3, mode="process") as world:
        account = Account.remote()
        before = actorlib.get(account.pid.remote(), timeout=60)
        assert world.pid_of_actor(account) == before
        assert world.crash_actor(account)
        assert actorlib.get(account.pid.remote(), timeout=60) != before
        refs = [nap.remote(i) for i in range(20)]
        fire(world, Fault("freeze_host", for_s=0.5))
        world.crash_node(world.nodes[2])
        assert actorlib.get(refs, timeout=60) == list(range(20))
        assert fire(world, Fault("add_node")) and world.fired["freeze_host"] == 1
        del account, refs


def test_links_between_nodes_are_late_and_cut():
    with simulate(seed=1, nodes=2, num_cpus=1, mode="process") as world:
        actorlib.get([nap.remote(i) for i in range(4)], timeout=60)
        assert fire(world, Fault("slow_link", for_s=1.0, amount=0.1))
        assert actorlib.get([nap.remote(i) for i in range(6)], timeout=60) == list(range(6))
        assert fire(world, Fault("loss"))
        assert fire(world, Fault("jitter", for_s=0.5, amount=0.02))
        assert actorlib.get([nap.remote(i) for i in range(6)], timeout=60) == list(range(6))
        fire(world, Fault("partition", for_s=0.5))
        assert actorlib.get([nap.remote(i) for i in range(6)], timeout=60) == list(range(6))


def test_what_can_not_be_done_is_said():
    with pytest.raises(ValueError, match="'disk_full' can't be done to real processes, only in a simulation"):
        with simulate(mode="process", faults=[Fault("disk_full")]):
            pass
    with pytest.raises(ValueError, match="order of single messages"):
        with simulate(mode="process", faults=[Deviation(1, 0.5)]):
            pass
    with pytest.raises(ValueError, match="mode must be 'simulation' or 'process', not 'real'"):
        simulate(mode="real")
