"""What the last worlds of this process were, and which ones shall be had again: the pytest plugin's memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

WORLDS_MAX = 1_000


@dataclass(slots=True)
class PastWorld:
    """What is left of a world: its seed and schedule, what really went wrong, and what happened.

    ``plan`` is what was asked for, ``fired`` the faults that rules or tests let happen besides.
    """

    seed: int
    plan: list[Any]
    fired: list[Any] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    drawing: str = ""
    story: str = ""
    events: int = 0


class Recent:
    """Worlds since a test began, and those that ``--actorlib-replay`` asks for instead of what tests ask for."""

    listens = False
    worlds: list[PastWorld] = []
    replayed: list[PastWorld] = []
    begun = 0
    seed: int | None = None  # of every world, where one is given

    @classmethod
    def start_over(cls, listens: bool) -> None:
        cls.listens, cls.worlds, cls.begun, cls.seed = listens, [], 0, None

    @classmethod
    def next_replayed(cls) -> PastWorld | None:
        """The world to have now, by its number in the test; the last one from then on."""
        cls.begun += 1
        return cls.replayed[min(cls.begun, len(cls.replayed)) - 1] if cls.replayed else None

    @classmethod
    def ended(cls, world: PastWorld) -> None:
        """Only the last world keeps its traces."""
        if cls.worlds:
            last = cls.worlds[-1]
            last.trace, last.drawing, last.story = [], "", ""
        cls.worlds.append(world)
        del cls.worlds[:-WORLDS_MAX]
