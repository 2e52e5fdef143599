"""What a durable actor's method learns from outside on Ray: kept with its call, and given again when it is run again.

What ``record``, ``get`` and ``wait`` gave comes from the log in a replay. Calls are made again: each durable callee
knows them by the call that makes them and their count in it, the same each time, and answers what it has answered.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

from actorlib import exceptions

COUNT_BITS = 24  # of the calls that one call makes


class Call:
    """The running call: who made it, what it learned so far, or is to learn again."""

    def __init__(self, caller: bytes, sequence: int, inputs: list[Any] | None = None) -> None:
        self.caller, self.sequence = caller, sequence
        self.given: list[Any] = []
        self.again = inputs
        self.is_copy = False  # run again in a copy of the actor: what it sends is not sent
        self._made = 0

    def next_voice(self) -> tuple[bytes, int]:
        """Caller and number of the next call that this one makes."""
        self._made += 1
        return self.caller, self.sequence << COUNT_BITS | self._made

    def learn(self, kind: str, ask: Callable[[], Any]) -> Any:
        """What was learned in this place before, or is learned now. Exceptions are learned, too."""
        if self.again is not None:
            return self._learn_again(kind)
        try:
            value = ask()
        except Exception as error:
            self.given.append((kind, False, error))
            raise
        self.given.append((kind, True, value))
        return value

    async def learn_later(self, kind: str, asked: Awaitable[Any]) -> Any:
        """The same for what is awaited. Its place among what was learned is where the waiting began."""
        if self.again is not None:
            return self._learn_again(kind)
        place = len(self.given)
        self.given.append((kind, True, None))
        try:
            value = await asked
        except Exception as error:
            self.given[place] = (kind, False, error)
            raise
        self.given[place] = (kind, True, value)
        return value

    def _learn_again(self, kind: str) -> Any:
        if not self.again or self.again[0][0] != kind:
            had = self.again[0][0] if self.again else "nothing more"
            raise exceptions.ReplayDivergedError(
                f"a method asked for {kind} when it was run again, and had asked for {had} before"
            )
        _, good, value = self.again.pop(0)
        if not good:
            raise value
        return value


class Running(threading.local):
    call: Call | None = None


RUNNING = Running()
