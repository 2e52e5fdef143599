"""Which node: strategies, labels, packing. Pure functions over the views of the nodes.

Strategies travel as tuples: ``("default",)``, ``("spread",)``, ``("node", node_id, soft)``,
``("group", group_id, bundle_index or -1, capture_child_tasks)``, ``("labels", hard, soft)`` with dicts of labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actorlib.scheduler.resources import fits, show
from actorlib.transport import limits
from actorlib.transport.ids import NodeId
from actorlib.transport.messages import NodeView, Resources


def matches_label(value: str | None, wanted: str) -> bool:
    """One label against ``v``, ``!v``, ``in(a,b)``, ``!in(a,b)``, ``exists()`` or ``!exists()``."""
    if wanted in ("exists()", "!exists()"):
        return (value is not None) == (wanted == "exists()")
    if wanted.startswith("!in(") and wanted.endswith(")"):
        return value not in [item.strip() for item in wanted[4:-1].split(",")]
    if wanted.startswith("in(") and wanted.endswith(")"):
        return value in [item.strip() for item in wanted[3:-1].split(",")]
    if wanted.startswith("!"):
        return value != wanted[1:]
    return value == wanted


def matches_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(matches_label(labels.get(name), value) for name, value in wanted.items())


def may_run_on(view: NodeView, strategy: tuple[Any, ...]) -> bool:
    """Whether the strategy allows a node at all."""
    kind = strategy[0] if strategy else "default"
    if kind == "node":
        return bool(strategy[2]) or view.address.node_id == strategy[1]
    if kind == "labels":
        return matches_labels(view.labels, strategy[1])
    return True


def is_feasible(view: NodeView, demand: Resources, strategy: tuple[Any, ...]) -> bool:
    """Whether the node could run it if it were empty. One that drains takes nothing any more."""
    return view.takes_work() and may_run_on(view, strategy) and fits(demand, view.total)


def has_room_elsewhere(
    views: Sequence[NodeView], here: NodeId, demand: Resources, strategy: tuple[Any, ...]
) -> NodeId | None:
    """Another node that could begin with it at once, if there is one: the one that is used least."""
    others = [v for v in views if v.address.node_id != here and is_feasible(v, demand, strategy)]
    roomy = [view for view in others if fits(demand, view.available)]
    return min(roomy, key=lambda view: _rank(view, demand, here)).address.node_id if roomy else None


def used_fraction(view: NodeView, demand: Resources) -> float:
    """How much is taken, from 0 to 1, of what the node has least of left among the resources that are asked for."""
    total, available, most = view.total, view.available, 0.0
    for name, amount in demand.items():
        if amount and total.get(name):
            most = max(most, 1 - available.get(name, 0) / total[name])
    return most


def preferred(locality: Iterable[tuple[NodeId, int]]) -> NodeId | None:
    """The node where so many more bytes of the arguments lie than elsewhere that it is worth going there, if any."""
    ranked = sorted(locality, key=lambda item: -item[1])
    if not ranked or ranked[0][1] < limits.locality_bytes_min:
        return None
    return ranked[0][0]


def choose(
    views: Sequence[NodeView],
    here: NodeId,
    demand: Resources,
    strategy: tuple[Any, ...],
    locality: Iterable[tuple[NodeId, int]],
    turn: int,
) -> NodeId | None:
    """The node for a demand, or None to wait where it is.

    DEFAULT goes where most of its arguments' bytes lie, unless that node is full while others have room. Else it packs
    until nodes are half full and spreads from then on, as Ray's hybrid policy does: here while this node is used to
    less than ``limits.pack_until_fraction``, then on the node with room that is used least (all that are used to less
    count as equal, and the first of them is taken, so that few nodes fill up before the next one is touched). SPREAD
    takes feasible nodes in turn. Affinity and labels narrow the choice first.
    """
    kind = strategy[0] if strategy else "default"
    near = preferred(locality)
    if kind == "default" and near is None:
        at_once = roomiest(views, here, demand)
        if at_once is not None:
            return at_once
    feasible = [view for view in views if is_feasible(view, demand, strategy)]
    if kind == "node":
        exact = [view for view in feasible if view.address.node_id == strategy[1]]
        if exact or not strategy[2]:
            return exact[0].address.node_id if exact else None
    if not feasible:
        return None
    roomy = [view for view in feasible if fits(demand, view.available)]
    if kind == "spread":
        return feasible[turn % len(feasible)].address.node_id
    if kind == "labels" and strategy[2]:
        matching = [view for view in roomy if matches_labels(view.labels, strategy[2])]
        roomy = matching or roomy
    if any(view.address.node_id == near for view in (roomy or feasible)):
        return near
    if not roomy:
        return here if any(view.address.node_id == here for view in feasible) else feasible[0].address.node_id
    return min(roomy, key=lambda view: _rank(view, demand, here)).address.node_id


def has_room(view: NodeView, demand: Resources) -> bool:
    """Whether a demand could run there at once."""
    return view.takes_work() and fits(demand, view.available)


def roomiest(views: Sequence[NodeView], here: NodeId, demand: Resources) -> NodeId | None:
    """The choice of DEFAULT where nothing pulls elsewhere, None if no node has room: most requests go this way.

    Nothing ranks before this node while it is used little, so the others need not be looked at; with a thousand of
    them that is the difference between some microseconds and some milliseconds.
    """
    for view in views:
        if view.address.node_id == here:
            if has_room(view, demand) and not _rank(view, demand, here)[0]:
                return here
            break
    roomy = [view for view in views if has_room(view, demand)]
    return min(roomy, key=lambda view: _rank(view, demand, here)).address.node_id if roomy else None


def _rank(view: NodeView, demand: Resources, here: NodeId) -> tuple[float, bool]:
    """Lower is better: how full the node is, once it is so full that work is spread; then this one before others."""
    used = used_fraction(view, demand)
    return (used if used >= limits.pack_until_fraction else 0.0, view.address.node_id != here)


def why_infeasible(views: Sequence[NodeView], demand: Resources, strategy: tuple[Any, ...]) -> str:
    """One sentence: what is asked for and what each node has in all."""
    kind = strategy[0] if strategy else "default"
    extra = ""
    if kind == "node":
        extra = f" on node {strategy[1].hex()[:8]}"
    elif kind == "labels":
        extra = f" on a node with labels {dict(strategy[1])}"
    totals = "; ".join(
        f"node {view.address.node_id.hex()[:8]} has {show(view.total)}"
        + (f" and labels {view.labels}" if extra else "")
        + (f", but drains ({view.drain})" if view.drain else "")
        for view in views
        if view.alive
    )
    return f"no node can ever satisfy a demand of {show(demand)}{extra}: {totals or 'there is no node'}"
