"""Schedules as JSON: what went wrong in a run, kept so that it can go wrong again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from actorlib.testing.fault_kinds import KINDS
from actorlib.testing.fault_plans import Deviation, Fault

SCHEDULE_VERSION = 1
SCHEDULE_ITEMS_MAX = 10_000
NUMBERS = {"at_s", "for_s", "amount", "delay_s"}
WHOLE = {"target", "nth"}


def schedule_to_data(plan: Iterable[Fault | Deviation]) -> dict[str, Any]:
    """A schedule as plain data, with the version of its format."""
    items = list(plan)
    return {
        "version": SCHEDULE_VERSION,
        "faults": [dataclasses.asdict(item) for item in items if isinstance(item, Fault)],
        "deviations": [dataclasses.asdict(item) for item in items if isinstance(item, Deviation)],
    }


def schedule_from_data(data: Any) -> list[Fault | Deviation]:
    """The schedule that ``schedule_to_data`` gave.

    Raises:
        ValueError: it is of another version, names a fault that there is not, or is no schedule at all.
    """
    if not isinstance(data, dict) or "version" not in data:
        raise ValueError("not a schedule: it has no version")
    if data["version"] != SCHEDULE_VERSION:
        raise ValueError(
            f"a schedule of version {data['version']!r}, but this actorlib reads version {SCHEDULE_VERSION}: "
            "draw it again, or use the actorlib that wrote it"
        )
    faults, deviations = data.get("faults", []), data.get("deviations", [])
    if not isinstance(faults, list) or not isinstance(deviations, list):
        raise ValueError("not a schedule: faults and deviations must be lists")
    if len(faults) + len(deviations) > SCHEDULE_ITEMS_MAX:
        raise ValueError(f"a schedule of {len(faults) + len(deviations)} items; at most {SCHEDULE_ITEMS_MAX} are read")
    made = [*(_item(Fault, item) for item in faults), *(_item(Deviation, item) for item in deviations)]
    for item in made:
        if isinstance(item, Fault) and item.kind not in KINDS:
            raise ValueError(f"there is no fault {item.kind!r}; there are {', '.join(KINDS)}")
    return made


def _item(kind: type[Fault] | type[Deviation], data: Any) -> Fault | Deviation:
    fields = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(data, dict) or not set(data) <= fields:
        raise ValueError(f"not a {kind.__name__}: {data!r}; it has {', '.join(sorted(fields))}")
    for name, value in data.items():
        right = type(value) is int if name in WHOLE else type(value) in (int, float) if name in NUMBERS else True
        if not right:
            raise ValueError(f"not a {kind.__name__}: {name} can't be {value!r}")
    try:
        return kind(**data)
    except TypeError as error:
        raise ValueError(f"not a {kind.__name__}: {data!r}: {error}") from error


def dump_schedule(plan: Iterable[Fault | Deviation]) -> str:
    """A schedule as JSON.

    Example:
        >>> Path("failing.json").write_text(dump_schedule(world.plan))
    """
    return json.dumps(schedule_to_data(plan), indent=1) + "\n"


def load_schedule(text: str) -> list[Fault | Deviation]:
    """What ``dump_schedule`` wrote. Raises ValueError as ``schedule_from_data`` does, and for what is no JSON."""
    return schedule_from_data(json.loads(text))
