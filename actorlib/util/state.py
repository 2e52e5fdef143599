"""What is there and what it does: nodes, jobs, actors, tasks, placement groups, objects.

Rows are dicts whose items are attributes too. ``filters`` are triples such as ``("state", "=", "ALIVE")``; the operator
is ``=`` or ``!=``, text is compared without regard to case. At most ``limit`` rows are given, the newest first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from actorlib import engine

Filters = Sequence[tuple[str, str, Any]]

LIMIT_DEFAULT = 100
LIMIT_MAX = 10_000


class Row(dict[str, Any]):
    """A row of a table: ``row["state"]`` or ``row.state``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r}; the row has {', '.join(self)}") from None


def list_actors(filters: Filters | None = None, limit: int = LIMIT_DEFAULT) -> list[Row]:
    """Actors, living and lately dead."""
    return _rows("actors", filters, limit)


def list_tasks(filters: Filters | None = None, limit: int = LIMIT_DEFAULT) -> list[Row]:
    """Tasks and actors' calls of late."""
    return _rows("tasks", filters, limit)


def list_nodes(filters: Filters | None = None, limit: int = LIMIT_DEFAULT) -> list[Row]:
    """Nodes, dead ones included."""
    return _rows("nodes", filters, limit)


def list_jobs(filters: Filters | None = None, limit: int = LIMIT_DEFAULT) -> list[Row]:
    """Running jobs."""
    return _rows("jobs", filters, limit)


def list_placement_groups(filters: Filters | None = None, limit: int = LIMIT_DEFAULT) -> list[Row]:
    """Placement groups that are not removed."""
    return _rows("groups", filters, limit)


def list_objects(filters: Filters | None = None, limit: int = LIMIT_DEFAULT) -> list[Row]:
    """Objects that the cluster's tables know of."""
    return _rows("objects", filters, limit)


def get_actor(id: str) -> Row | None:
    """The row of the actor with this id (hex); None if it isn't known."""
    found = list_actors(filters=[("actor_id", "=", id)], limit=1)
    return found[0] if found else None


def actor_log(handle: Any, limit: int = LIMIT_DEFAULT) -> list[Row]:
    """The last calls of a durable actor, the newest first: position, method, caller, sequence and outcome."""
    return [Row(row) for row in engine.current().durable().log(handle, limit)]


def summarize_tasks() -> dict[str, Any]:
    """How many of the tasks of late are in which state, by function."""
    rows = _rows("tasks", None, LIMIT_MAX)
    states: dict[str, Counter[str]] = {}
    for row in rows:
        states.setdefault(row["name"], Counter())[row["state"]] += 1
    summary = {
        name: {"func_or_class_name": name, "state_counts": dict(counts)} for name, counts in sorted(states.items())
    }
    return {"cluster": {"summary": summary, "summary_by": "func_name", "total_tasks": len(rows)}}


def _rows(table: str, filters: Filters | None, limit: int) -> list[Row]:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LIMIT_MAX:
        raise ValueError(f"limit={limit!r}: must be an int from 1 to {LIMIT_MAX}")
    checked = [_check(given) for given in filters or ()]
    rows = engine.current().query_state(table, LIMIT_MAX if checked else limit)
    shown = [Row(_for_people(table, row)) for row in rows]
    return [row for row in shown if all(_matches(row, condition) for condition in checked)][:limit]


def _for_people(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """Nodes are kept in units of 0.0001; people want numbers and a state."""
    if table != "nodes":
        return row
    kept = {key: value for key, value in row.items() if key not in ("alive", "total", "available")}
    return {
        **kept,
        "state": "ALIVE" if row["alive"] else "DEAD",
        "resources_total": engine.resource_map(row["total"].items()),
        "resources_available": engine.resource_map(row["available"].items()),
    }


def _check(given: tuple[str, str, Any]) -> tuple[str, str, Any]:
    if not isinstance(given, tuple | list) or len(given) != 3:
        raise ValueError(f"a filter is a triple such as ('state', '=', 'ALIVE'), not {given!r}")
    key, operator, value = given
    if operator not in ("=", "!="):
        raise ValueError(f"the operator of a filter is '=' or '!=', not {operator!r}")
    return key, operator, value


def _matches(row: Row, condition: tuple[str, str, Any]) -> bool:
    key, operator, value = condition
    if key not in row:
        raise ValueError(f"can't filter by {key!r}; the rows have {', '.join(row)}")
    return (str(row[key]).lower() == str(value).lower()) == (operator == "=")


__all__ = [
    "Row",
    "actor_log",
    "get_actor",
    "list_actors",
    "list_jobs",
    "list_nodes",
    "list_objects",
    "list_placement_groups",
    "list_tasks",
    "summarize_tasks",
]
