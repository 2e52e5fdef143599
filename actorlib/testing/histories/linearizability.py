"""Is there one order of all calls, in keeping with their times, that explains every result?

The search of Wing and Gong (1993): take calls that nobody ended before, one at a time; when the model refuses all of
them, take the last one back. With the memory of Lowe (2017): a set of calls done that led to a state seen before leads
nowhere new. With what Porcupine (Athalye 2017) adds: objects that consist of parts are judged part by part, and a
search that takes too long ends with the answer "unknown". A call without an answer may be placed anywhere after its
beginning, or nowhere.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from actorlib.testing.histories.models import Model
from actorlib.testing.histories.operation import IMPOSSIBLE, Operation
from actorlib.testing.real_time import real_monotonic

TIME_LIMIT_S = 10.0
STEPS_BETWEEN_LOOKS = 256


class Verdict(enum.Enum):
    """What the search found out."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer, and what it rests on.

    Args:
        verdict: the answer.
        order: an order that explains the operations; where there is none, the longest part of one that was found.
        stuck: completed operations that no such order explains, in that attempt; empty if all is well.
        steps: how often the model was asked.
        key: the part of the object in which it went wrong.
    """

    verdict: Verdict
    order: tuple[Operation, ...] = ()
    stuck: tuple[Operation, ...] = ()
    steps: int = 0
    key: Hashable = None


def check(operations: Iterable[Operation], model: Model, time_limit_s: float = TIME_LIMIT_S) -> Outcome:
    """Look for an order of the operations that explains them.

    Args:
        operations: of one object, in any order.
        model: how that object behaves when calls come one at a time.
        time_limit_s: real seconds after which the answer is ``Verdict.UNKNOWN``.

    Raises:
        ValueError: an operation ended before it began, or the model doesn't know it.

    Example:
        >>> check([Operation("write", (1,), None, 0.0, 1.0), Operation("read", (), 1, 2.0, 3.0)], Register()).verdict
        <Verdict.LINEARIZABLE: 'linearizable'>
    """
    deadline = real_monotonic() + time_limit_s
    orders: list[Operation] = []
    steps, unknown = 0, False
    for key, part in _parts(operations, model).items():
        outcome = Search(part, model, deadline, key).run()
        steps += outcome.steps
        if outcome.verdict is Verdict.NOT_LINEARIZABLE:
            return outcome
        unknown = unknown or outcome.verdict is Verdict.UNKNOWN
        orders.extend(outcome.order)
    return Outcome(Verdict.UNKNOWN if unknown else Verdict.LINEARIZABLE, tuple(orders), (), steps)


def _parts(operations: Iterable[Operation], model: Model) -> dict[Hashable, list[Operation]]:
    parts: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        if operation.ended_s < operation.began_s:
            raise ValueError(f"{operation} ended before it began")
        parts.setdefault(model.key(operation), []).append(operation)
    return parts


@dataclass(slots=True)
class Search:
    """The search in one part. Entries are a linked list in order of time: call ``i`` is ``i``, its return ``n + i``.

    ``done`` has bit ``i`` set when operation ``i`` has its place.
    """

    operations: Sequence[Operation]
    model: Model
    deadline: float
    key: Hashable = None
    steps: int = 0
    _next: list[int] = field(default_factory=list)
    _before: list[int] = field(default_factory=list)
    _best: list[int] = field(default_factory=list)

    def run(self) -> Outcome:
        """Search until there is an answer, or no time."""
        count = len(self.operations)
        self._link(count)
        head = 2 * count
        left = sum(not operation.is_pending for operation in self.operations)
        state, done = self.model.initial(), 0
        seen: set[tuple[int, Hashable]] = set()
        placed: list[tuple[int, Any]] = []
        entry = self._next[head]
        while left:
            if self.steps % STEPS_BETWEEN_LOOKS == 0 and real_monotonic() > self.deadline:
                return self._failed(Verdict.UNKNOWN)
            if entry < count:
                after = self._step(state, entry)
                if after is not IMPOSSIBLE:
                    mark = (done | 1 << entry, self.model.fingerprint(after))
                    if mark not in seen:
                        seen.add(mark)
                        placed.append((entry, state))
                        state, done = after, mark[0]
                        left -= self._take(entry)
                        entry = self._next[head]
                        continue
                entry = self._next[entry]
            elif not placed:
                return self._failed(Verdict.NOT_LINEARIZABLE)
            else:
                if len(placed) > len(self._best):
                    self._best = [number for number, _ in placed]
                entry, state = placed.pop()
                done &= ~(1 << entry)
                left += self._put_back(entry)
                entry = self._next[entry]
        order = tuple(self.operations[number] for number, _ in placed)
        return Outcome(Verdict.LINEARIZABLE, order, (), self.steps, self.key)

    def _step(self, state: Any, number: int) -> Any:
        self.steps += 1
        return self.model.step(state, self.operations[number])

    def _link(self, count: int) -> None:
        moments: list[tuple[float, int, int]] = []
        for number, operation in enumerate(self.operations):
            moments.append((operation.began_s, 0, number))
            if not operation.is_pending:
                moments.append((operation.ended_s, 1, count + number))
        head, end = 2 * count, 2 * count + 1
        chain = [head, *(entry for _, _, entry in sorted(moments)), end]
        self._next, self._before = [end] * (end + 1), [head] * (end + 1)
        for here, there in itertools.pairwise(chain):
            self._next[here], self._before[there] = there, here

    def _take(self, number: int) -> int:
        """Out of the list with an operation. Gives 1 if it had ended."""
        self._unlink(number)
        if self.operations[number].is_pending:
            return 0
        self._unlink(len(self.operations) + number)
        return 1

    def _put_back(self, number: int) -> int:
        """Into the list again, in the opposite order of ``_take``: what it stood between is there still."""
        ended = not self.operations[number].is_pending
        if ended:
            self._relink(len(self.operations) + number)
        self._relink(number)
        return int(ended)

    def _unlink(self, entry: int) -> None:
        before, after = self._before[entry], self._next[entry]
        self._next[before], self._before[after] = after, before

    def _relink(self, entry: int) -> None:
        self._next[self._before[entry]] = self._before[self._next[entry]] = entry

    def _failed(self, verdict: Verdict) -> Outcome:
        in_order = set(self._best)
        order = tuple(self.operations[number] for number in self._best)
        stuck = tuple(o for i, o in enumerate(self.operations) if i not in in_order and not o.is_pending)
        return Outcome(verdict, order, stuck, self.steps, self.key)
