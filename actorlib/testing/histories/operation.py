"""One call of a history: what was asked, what came back, and between which two moments it took effect."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any

NEVER = math.inf


class Unknown(enum.Enum):
    """Marks that are no values of a user."""

    MAYBE = "maybe"
    IMPOSSIBLE = "impossible"

    def __repr__(self) -> str:
        return self.value


MAYBE = Unknown.MAYBE
"""The result of a call whose answer was lost: it may have taken effect, at any time after it began, or never."""

IMPOSSIBLE = Unknown.IMPOSSIBLE
"""What a model's ``step`` gives where the operation can't have had that result in that state."""


@dataclass(frozen=True, slots=True)
class Raised:
    """The result of a call that raised an exception of the user's code."""

    kind: str
    args: tuple[Any, ...] = ()

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        """What is kept of an exception: the name of its class, and its arguments."""
        return cls(type(error).__name__, tuple(error.args))

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(map(repr, self.args))})"


@dataclass(frozen=True, slots=True)
class Operation:
    """A call on an object that several clients share.

    Args:
        name: the method.
        args, kwargs: what it was called with.
        result: what it returned; ``Raised`` where it raised; ``MAYBE`` where nobody knows.
        began_s, ended_s: the moments between which it took effect; ``NEVER`` as the end of what was not answered.
            Operations that only touch (one ends at the moment at which the other begins) count as concurrent.
        client: who called; for the drawing.
        target: what was called, where a history has several targets.
    """

    name: str
    args: tuple[Any, ...] = ()
    result: Any = None
    began_s: float = 0.0
    ended_s: float = NEVER
    client: str = ""
    target: str = ""
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_pending(self) -> bool:
        """Whether it is unknown if it took effect."""
        return self.ended_s == NEVER

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells it from the others of its history, whatever its arguments are."""
        return (self.began_s, self.ended_s, self.client, self.target, self.name)

    def __str__(self) -> str:
        named = [f"{name}={value!r}" for name, value in self.kwargs.items()]
        call = f"{self.name}({', '.join([*map(repr, self.args), *named])})"
        return f"{call} -> ?" if self.is_pending else f"{call} -> {self.result!r}"
