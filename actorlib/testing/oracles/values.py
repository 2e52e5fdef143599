"""``get`` gives the bytes that were put or returned, or raises an error with a type of ours."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from actorlib import exceptions
from actorlib.testing.oracles.oracle import Oracle
from actorlib.transport.ids import ObjectId

if TYPE_CHECKING:
    from actorlib.testing.simulation import Simulation

OBJECTS_KEPT_MAX = 20_000


def digest(parts: tuple[Any, ...]) -> int:
    total = 0
    for part in parts:
        total = zlib.crc32(part, total)
    return total


class Values(Oracle):
    """Remembers a checksum of each value that was made; a task that ran twice may have made two."""

    name = "values"

    def __init__(self, world: Simulation) -> None:
        super().__init__(world)
        self._made: dict[ObjectId, set[int]] = {}

    def made(self, object_id: ObjectId, parts: tuple[Any, ...]) -> None:
        self._made.setdefault(object_id, set()).add(digest(parts))
        if len(self._made) > OBJECTS_KEPT_MAX:
            del self._made[next(iter(self._made))]

    def got(self, object_id: ObjectId, parts: tuple[Any, ...]) -> None:
        made = self._made.get(object_id)
        if made is not None:
            self.see(digest(parts) in made, "a value has other bytes than those that were made", object_id)

    def raised(self, error: BaseException) -> None:
        text = f"{type(error).__name__}: {error}"
        typed = isinstance(error, (exceptions.ActorlibError, KeyboardInterrupt)) or not isinstance(error, Exception)
        typed = typed or "would stop the actor's event loop" in text  # refused, with the way out
        self.see(typed, f"get raised what is no error of ours: {text}")
        freed = isinstance(error, exceptions.ReferenceCountingAssertionError)
        self.see(not freed, f"an object was freed while somebody held a reference to it: {text}")
