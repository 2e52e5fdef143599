"""A mixed workload with named points at which somebody may be killed, and what must be true of it however that went.

A point is a generator: it yields once its work is on its way, and then waits for it and looks at what came.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np

import actorlib
from actorlib.util.placement_group import placement_group, remove_placement_group
from actorlib.util.scheduling_strategies import PlacementGroupSchedulingStrategy

PATIENCE_S = 60.0
LARGE = 1 << 18  # of floats: two megabytes, so it lies in a slab


@actorlib.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, checkpoint=5)
class Account:
    def __init__(self) -> None:
        self.balance = 0

    def deposit(self, amount):
        self.balance += amount
        return self.balance

    def pid(self):
        return os.getpid()


@actorlib.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Plain:
    def answer(self, value):
        return value


@actorlib.remote(num_cpus=0.2, max_retries=-1, scheduling_strategy="SPREAD")
def square(x):
    return x * x


@actorlib.remote(num_cpus=0.1, max_retries=-1, scheduling_strategy="SPREAD")
def make(value):
    return np.full(LARGE, float(value))


@actorlib.remote(num_cpus=0.1, max_retries=-1, scheduling_strategy="SPREAD")
def mean(array):
    return float(array.mean())


@actorlib.remote(num_cpus=0.1, max_retries=-1)
def nested(count):
    return sum(actorlib.get([square.remote(i) for i in range(count)]))


class Load:
    """The points, and what was acknowledged so far."""

    def __init__(self) -> None:
        options = {"lifetime": "detached", "max_restarts": -1}
        self.accounts = [Account.options(name=f"account-{i}", **options).remote() for i in range(2)]
        self.acknowledged = [0] * len(self.accounts)
        self.kept = actorlib.put(np.arange(LARGE))
        self._made = 0
        self.points: dict[str, Callable[[], Iterator[None]]] = {
            "calls of durable actors": self._deposits,
            "tasks": self._tasks,
            "large objects": self._objects,
            "an actor is created": self._actor,
            "a placement group is made": self._group,
            "tasks that start tasks": self._nested,
        }

    def _deposits(self) -> Iterator[None]:
        refs = [account.deposit.remote(1) for account in self.accounts]
        yield
        for i, balance in enumerate(actorlib.get(refs, timeout=PATIENCE_S)):
            self.acknowledged[i] += 1
            assert balance == self.acknowledged[i], (
                f"{self.acknowledged[i]} deposits were made, the balance is {balance}"
            )

    def _tasks(self) -> Iterator[None]:
        refs = [square.remote(i) for i in range(8)]
        yield
        assert actorlib.get(refs, timeout=PATIENCE_S) == [i * i for i in range(8)]

    def _objects(self) -> Iterator[None]:
        made = [make.remote(i) for i in range(3)]
        actorlib.wait(made, num_returns=1, fetch_local=False, timeout=PATIENCE_S)
        means = [mean.remote(ref) for ref in (*made, self.kept)]
        yield
        assert actorlib.get(means, timeout=PATIENCE_S) == [0.0, 1.0, 2.0, (LARGE - 1) / 2]
        assert actorlib.get(made[2], timeout=PATIENCE_S)[-1] == 2.0

    def _actor(self) -> Iterator[None]:
        self._made += 1
        name = f"plain-{self._made}"
        actor = Plain.options(name=name).remote()
        ref = actor.answer.remote(self._made)
        yield
        assert actorlib.get(ref, timeout=PATIENCE_S) == self._made
        assert actorlib.get(actorlib.get_actor(name).answer.remote(7), timeout=PATIENCE_S) == 7
        actorlib.kill(actor)

    def _group(self) -> Iterator[None]:
        group = placement_group([{"CPU": 0.1}] * 2, strategy="SPREAD")
        yield
        assert group.wait(PATIENCE_S)
        inside = PlacementGroupSchedulingStrategy(group, 1)
        assert actorlib.get(mean.options(scheduling_strategy=inside).remote(np.ones(3)), timeout=PATIENCE_S) == 1.0
        remove_placement_group(group)

    def _nested(self) -> Iterator[None]:
        refs = [nested.remote(count) for count in (3, 4)]
        yield
        assert actorlib.get(refs, timeout=PATIENCE_S) == [5, 14]

    def through(self, point: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Do the work of a point; ``meanwhile`` is called when it is on its way."""
        work = self.points[point]()
        next(work)
        meanwhile()
        for _ in work:
            raise AssertionError("a point is at work once")

    def end(self) -> None:
        for account in self.accounts:
            actorlib.kill(account)
        del self.kept
