"""Testing what is built on actors: clusters in one thread, decided by a seed, with faults.

Needs the extra ``actorlib[testing]`` (greenlet, Hypothesis). ``ActorMachine`` is loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorlib.testing.faults import Deviation, Fault, faults, one_fault, schedules
from actorlib.testing.simulation import Simulation, Stuck, simulate

if TYPE_CHECKING:
    from actorlib.testing.machine import ActorMachine


def __getattr__(name: str) -> Any:
    if name == "ActorMachine":
        from actorlib.testing.machine import ActorMachine

        return ActorMachine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ActorMachine",
    "Deviation",
    "Fault",
    "Simulation",
    "Stuck",
    "faults",
    "one_fault",
    "schedules",
    "simulate",
]
