"""Testing what is built on actors: clusters in one thread, decided by a seed, with faults.

Needs the extra ``actorlib[testing]`` (greenlet, Hypothesis). Everything is loaded when first used, since pytest loads
this package wherever actorlib is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorlib.testing.fault_plans import Deviation, Fault, faults, one_fault, schedules
    from actorlib.testing.histories import History, Operation, Verdict, history
    from actorlib.testing.machine import ActorMachine
    from actorlib.testing.refusals import NotSimulated
    from actorlib.testing.schedule_file import dump_schedule, load_schedule
    from actorlib.testing.simulation import Simulation, Stuck, simulate

_HOME = {
    "ActorMachine": "machine",
    "Deviation": "fault_plans",
    "Fault": "fault_plans",
    "History": "histories",
    "Operation": "histories",
    "Simulation": "simulation",
    "Stuck": "simulation",
    "NotSimulated": "refusals",
    "Verdict": "histories",
    "dump_schedule": "schedule_file",
    "faults": "fault_plans",
    "history": "histories",
    "load_schedule": "schedule_file",
    "one_fault": "fault_plans",
    "schedules": "fault_plans",
    "simulate": "simulation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


__all__ = [
    "ActorMachine",
    "Deviation",
    "Fault",
    "History",
    "NotSimulated",
    "Operation",
    "Simulation",
    "Stuck",
    "Verdict",
    "dump_schedule",
    "faults",
    "history",
    "load_schedule",
    "one_fault",
    "schedules",
    "simulate",
]
