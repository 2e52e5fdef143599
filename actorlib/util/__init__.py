"""Tools built on tasks and actors: pools, queues, placement groups, metrics, and adapters for the standard library.

Submodules and most names are loaded when first used, so that ``import actorlib`` stays quick. Placement groups are the
exception: ``placement_group`` is a function and a submodule, and importing it here, first, makes the function win.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from actorlib import engine as _engine
from actorlib.util.placement_group import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

if TYPE_CHECKING:
    from actorlib.inspection import inspect_serializability
    from actorlib.serialization import deregister_serializer, register_serializer
    from actorlib.util import (
        actor_pool,
        futures,
        joblib,
        metrics,
        multiprocessing,
        queue,
        scheduling_strategies,
        state,
    )
    from actorlib.util.actor_pool import ActorPool

_SUBMODULES = (
    "actor_pool",
    "futures",
    "joblib",
    "metrics",
    "multiprocessing",
    "queue",
    "scheduling_strategies",
    "state",
)
_NAMES = {
    "ActorPool": "actorlib.util.actor_pool",
    "deregister_serializer": "actorlib.serialization",
    "inspect_serializability": "actorlib.inspection",
    "register_serializer": "actorlib.serialization",
}


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """The names of the living named actors of this namespace.

    With ``all_namespaces`` a list of ``{"namespace": ..., "name": ...}`` of all namespaces.
    """
    pairs = _engine.current().list_named_actors(all_namespaces)
    if all_namespaces:
        return [{"namespace": namespace, "name": name} for namespace, name in pairs]
    return [name for _, name in pairs]


def drain_node(node_id: str, deadline_s: float | None = None, reason: str = "") -> None:
    """Have a node leave the cluster, as before maintenance or when a spot machine is about to be taken away.

    From now on it takes no work. What runs there has until the deadline; actors with checkpoints are saved and go on
    elsewhere without losing a call, others that may be restarted start anew; objects that lie there are kept by other
    nodes. Then the node ends. Returns once the node has been told: ``actorlib.nodes()`` shows how it goes ("State":
    DRAINING, then DRAINED, or DEAD where the deadline ended what was left).

    Args:
        node_id: as in ``actorlib.nodes()`` ("NodeID").
        deadline_s: seconds until it ends, whatever is left (30 by default). Of several calls the earliest counts.
        reason: shown to everybody whom it concerns.

    Raises:
        ValueError: no such node is alive.

    Example:
        >>> drain_node(actorlib.nodes()[1]["NodeID"], deadline_s=110, reason="spot preemption")  # doctest: +SKIP
    """
    if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float | None) or (deadline_s or 0) < 0:
        raise ValueError(f"deadline_s={deadline_s!r}: must be a number of seconds, 0 or more")
    try:
        raw = bytes.fromhex(node_id)
    except (TypeError, ValueError):
        raise ValueError(f'node_id={node_id!r}: must be the "NodeID" of a row of actorlib.nodes()') from None
    _engine.current().drain_node(raw, deadline_s, reason or "asked for by a program")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "ActorPool",
    "actor_pool",
    "deregister_serializer",
    "drain_node",
    "futures",
    "get_current_placement_group",
    "get_placement_group",
    "inspect_serializability",
    "joblib",
    "list_named_actors",
    "metrics",
    "multiprocessing",
    "placement_group",
    "placement_group_table",
    "queue",
    "register_serializer",
    "remove_placement_group",
    "scheduling_strategies",
    "state",
]
