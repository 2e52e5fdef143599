"""Faults as data, and state machines over them."""

from __future__ import annotations

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

import actorlib
from actorlib import testing
from actorlib.testing import ActorMachine, Deviation, Fault, faults, schedules, simulate
from actorlib.testing.fault_kinds import KINDS

LOST = (actorlib.exceptions.ActorUnavailableError, actorlib.exceptions.ActorDiedError)


@actorlib.remote
class Account:
    def __init__(self):
        self.balance = 0

    def deposit(self, amount):
        self.balance += amount
        return self.balance


@actorlib.remote(max_retries=-1)
def double(value):
    return 2 * value


@settings(max_examples=15, deadline=None, database=None)
@given(faults(), schedules(), st.integers(0, 1000))
def test_retried_tasks_survive_any_schedule(plan, order, seed):
    with simulate(seed=seed, nodes=3, faults=[*plan, *order]):
        assert actorlib.get([double.remote(i) for i in range(20)], timeout=300) == [2 * i for i in range(20)]


@settings(max_examples=15, deadline=None, database=None)
@given(faults(kinds=["crash_worker", "pause_worker", "jitter"]))
def test_a_checkpointed_actor_loses_no_acknowledged_deposit(plan):
    with simulate(seed=1, faults=plan):
        account, acknowledged = Account.options(checkpoint=1).remote(), 0
        for _ in range(8):
            try:
                balance = actorlib.get(account.deposit.remote(1), timeout=300)
            except LOST:
                continue
            assert balance > acknowledged
            acknowledged = balance
        del account


def loses_a_deposit(plan):
    """Whether a plain actor, which keeps nothing, forgets a deposit under these faults."""
    with simulate(seed=1, faults=plan, check=False):
        account = Account.options(max_restarts=-1, max_task_retries=-1).remote()
        balances = [actorlib.get(account.deposit.remote(1), timeout=300) for _ in range(5)]
        return balances != [1, 2, 3, 4, 5]


def test_a_failing_schedule_shrinks_to_the_faults_that_matter():
    kinds = [kind for kind in KINDS if kind != "journal_full"]  # which refuses the account, and says so
    plan = find(
        faults(kinds, max_size=6, within_s=0.02),
        loses_a_deposit,
        settings=settings(
            max_examples=2000,
            database=None,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate, Phase.shrink],
        ),
    )
    # Of up to six of forty kinds; others may stay where they move the moment that the one hits.
    assert 1 <= len(plan) <= 3
    assert {fault.kind for fault in plan} <= {"crash_worker", "crash_busy_worker", "crash_actor", "kill_for_memory"}


def test_deviations_change_the_order():
    def arrival(plan):
        with simulate(seed=3, faults=plan) as world:
            began = world.world.time
            actorlib.get(double.remote(1))
            return world.world.time - began

    assert arrival([Deviation(5, 0.5)]) > 0.4 > arrival([])


def test_unknown_faults_are_refused():
    with pytest.raises(ValueError, match="crash_worker"), simulate(seed=1, faults=[Fault("earthquake")]):
        pass
    with pytest.raises(ValueError, match="crash_worker"):
        faults(kinds=["earthquake"])


class Bank(ActorMachine):
    """A bank whose accounts are checkpointed after each deposit."""

    checkpoint = 1
    fault_kinds = tuple(kind for kind in KINDS if kind != "journal_full")  # which refuses the account, and says so

    def begin(self):
        self.account = Account.options(checkpoint=self.checkpoint, max_restarts=-1).remote()
        self.acknowledged = 0
        self.last = 0

    @rule(amount=st.integers(1, 9))
    def deposit(self, amount):
        try:
            self.last = actorlib.get(self.account.deposit.remote(amount), timeout=300)
        except LOST:
            return
        assert self.last >= self.acknowledged + amount, "an acknowledged deposit is gone"
        self.acknowledged = self.last

    @invariant()
    def not_negative(self):
        assert self.last >= 0


class CarelessBank(Bank):
    checkpoint = None
    fault_kinds = ("crash_actor", "pause_worker")


def test_a_state_machine_over_a_simulated_cluster():
    run_state_machine_as_test(Bank, settings=settings(max_examples=12, stateful_step_count=12, deadline=None))


def test_a_state_machine_finds_the_bank_that_forgets():
    with pytest.raises(AssertionError, match="acknowledged deposit is gone"):
        run_state_machine_as_test(
            CarelessBank,
            settings=settings(
                max_examples=300, stateful_step_count=15, deadline=None, derandomize=True, phases=[Phase.generate]
            ),
        )


def test_names():
    assert testing.ActorMachine is ActorMachine
    with pytest.raises(AttributeError):
        _ = testing.nonsense
