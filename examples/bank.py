"""A bank whose accounts are actors, a bug that only a crash shows, and the version without it.

The bank's invariant: transfers move money, they neither make it nor lose it. ``careless_transfer`` takes the money from
one account and brings it to the other. If its worker dies in between, the task is tried again, from the beginning, and
takes the money twice. No test without faults sees that. Here Hypothesis draws schedules of faults for a simulated
cluster, finds one that loses money, and shrinks it to the faults that matter. ``careful_transfer`` numbers its
transfers; an account that has seen a number does nothing for it a second time.

Run it: ``python examples/bank.py`` (needs ``pip install actorlib[testing]``).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, find, given, settings

import actorlib
from actorlib.testing import Fault, dump_schedule, faults, simulate

START = 100
ACCOUNTS = 3
KINDS = ("crash_busy_worker", "crash_actor", "pause_worker", "loss", "jitter")


@actorlib.remote(checkpoint=1)
class Account:
    """Money of one customer. ``checkpoint`` makes it durable: a crash of its process changes nothing."""

    def __init__(self, balance: int) -> None:
        self.balance = balance
        self.seen: set[str] = set()

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def add_once(self, number: str, amount: int) -> int:
        if number not in self.seen:
            self.seen.add(number)
            self.balance += amount
        return self.balance

    def read(self) -> int:
        return self.balance


@actorlib.remote(max_retries=-1)
def careless_transfer(number: str, source: Any, target: Any, amount: int) -> None:
    actorlib.get(source.add.remote(-amount))
    time.sleep(0.05)  # it asks somebody, it writes a receipt
    actorlib.get(target.add.remote(amount))


@actorlib.remote(max_retries=-1)
def careful_transfer(number: str, source: Any, target: Any, amount: int) -> None:
    actorlib.get(source.add_once.remote(f"{number} out", -amount))
    time.sleep(0.05)
    actorlib.get(target.add_once.remote(f"{number} in", amount))


def money_after(transfer: Any, plan: list[Fault]) -> int:
    """What all accounts hold in the end, in a simulated cluster in which ``plan`` goes wrong."""
    with simulate(seed=7, nodes=2, faults=plan, check=False):
        accounts = [Account.remote(START) for _ in range(ACCOUNTS)]
        pairs = [(one, (one + 1) % ACCOUNTS) for one in range(ACCOUNTS)]
        moves = [transfer.remote(str(n), accounts[a], accounts[b], 10 + n) for n, (a, b) in enumerate(pairs)]
        actorlib.get(moves, timeout=600)
        return sum(actorlib.get([account.read.remote() for account in accounts], timeout=600))


def find_the_bug(transfer: Any = careless_transfer) -> list[Fault]:
    """The smallest schedule that Hypothesis finds after which money is missing or too much.

    Shrinking ends where no single fault can be left out, and that depends on where it began: so it begins three times.
    """
    plans = faults(kinds=KINDS, max_size=6, within_s=0.2)
    limits = settings(max_examples=1000, deadline=None, database=None, phases=[Phase.generate, Phase.shrink])

    def is_bad(plan: list[Fault]) -> bool:
        return money_after(transfer, plan) != ACCOUNTS * START

    # The random sources are given so that you see what this text says; leave them out to search anew each time.
    return min((find(plans, is_bad, settings=limits, random=random.Random(n)) for n in range(3)), key=len)


def check_for_any_schedule(transfer: Any = careful_transfer, examples: int = 30) -> None:
    """No schedule that Hypothesis tries makes or loses money. Raises AssertionError with one that does."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(faults(kinds=KINDS, max_size=6, within_s=0.2))
    def money_stays(plan: list[Fault]) -> None:
        assert money_after(transfer, plan) == ACCOUNTS * START

    money_stays()


def main(say: Callable[[str], None] = print) -> None:
    began = time.perf_counter()
    say(f"without faults, careless: {money_after(careless_transfer, [])} of {ACCOUNTS * START}")
    plan = find_the_bug()
    say(f"Hypothesis found that these faults lose money, {money_after(careless_transfer, plan)} are left:")
    say(dump_schedule(plan))
    say(f"the same faults, careful: {money_after(careful_transfer, plan)} of {ACCOUNTS * START}")
    check_for_any_schedule()
    say(f"no schedule was found that harms the careful bank; all of it took {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
