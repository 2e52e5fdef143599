"""A Hypothesis state machine whose rules run in a simulated cluster while faults fire."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from actorlib.testing.fault_plans import Fault, fire, one_fault
from actorlib.testing.simulation import Simulation, simulate


class ActorMachine(RuleBasedStateMachine):
    """Derive from it, make actors in ``begin``, call them in rules, check what holds in invariants.

    Two rules are there already: something goes wrong (``fault_kinds`` says what may), and time passes. The cluster has
    ``nodes`` machines with ``num_cpus`` each; it ends with the example, and the oracles look.

    Example:
        class Bank(ActorMachine):
            def begin(self):
                self.account = Account.options(checkpoint=1, max_task_retries=-1).remote()

            @rule(amount=st.integers(1, 9))
            def deposit(self, amount):
                actorlib.get(self.account.deposit.remote(amount))

        TestBank = Bank.TestCase
    """

    nodes = 2
    num_cpus = 2
    fault_kinds: tuple[str, ...] | None = None  # None: all
    seed = 0
    mode = "simulation"  # or "process"

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self.world: Simulation = self._stack.enter_context(
            simulate(self.seed, self.nodes, self.num_cpus, check=False, mode=self.mode)
        )
        try:
            self.begin()
        except BaseException:
            self._stack.close()
            raise

    def begin(self) -> None:
        """What every example starts with."""

    @rule(data=st.data())
    def something_goes_wrong(self, data: Any) -> None:
        fault: Fault = data.draw(one_fault(self.fault_kinds))
        if fault.kind in (self.fault_kinds or (fault.kind,)):
            fire(self.world, fault)

    @rule(seconds=st.floats(0.0, 5.0))
    def time_passes(self, seconds: float) -> None:
        time.sleep(seconds)

    def teardown(self) -> None:
        try:
            self.world.check()
        finally:
            self._stack.close()
