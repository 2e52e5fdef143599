"""Where the bundles of a placement group go: PACK, SPREAD, STRICT_PACK, STRICT_SPREAD."""

from __future__ import annotations

from collections.abc import Sequence

from actorlib.scheduler.policy import matches_labels
from actorlib.scheduler.resources import fits, show
from actorlib.transport import messages
from actorlib.transport.ids import NodeId
from actorlib.transport.messages import NodeView, Resources


def place_bundles(
    bundles: Sequence[Resources],
    strategy: str,
    nodes: Sequence[NodeView],
    label_selectors: Sequence[dict[str, str]] = (),
    held: Sequence[NodeId] = (),
) -> tuple[NodeId, ...] | str:
    """A node for each bundle, or the reason why there is none now.

    Args:
        held: Where bundles lie already, in the order of ``bundles``; ``b""`` for those that lie nowhere. They stay.
    """
    selectors = list(label_selectors) or [{}] * len(bundles)
    stay = {index: node for index, node in enumerate(held) if node}
    free = {view.address.node_id: dict(view.available) for view in nodes if view.alive}
    placed = _place(bundles, strategy, nodes, selectors, free, stay)
    if placed is not None:
        return placed
    total = {view.address.node_id: dict(view.total) for view in nodes if view.alive}
    for index, node in stay.items():
        _take(total.get(node, {}), bundles[index])
    asked = " + ".join(f"[{show(bundle)}]" for index, bundle in enumerate(bundles) if index not in stay)
    if _place(bundles, strategy, nodes, selectors, total, stay) is None:
        have = "; ".join(f"{node.hex()[:8]} has {show(amounts)}" for node, amounts in total.items())
        where = have or "there is no node"
        return f"{messages.INFEASIBLE}{strategy} {asked} can't be placed even on empty nodes: {where}"
    have = "; ".join(f"{node.hex()[:8]} has {show(amounts)} free" for node, amounts in free.items())
    return f"waiting for room for {strategy} {asked}: {have}"


def _place(
    bundles: Sequence[Resources],
    strategy: str,
    nodes: Sequence[NodeView],
    selectors: Sequence[dict[str, str]],
    free: dict[NodeId, Resources],
    stay: dict[int, NodeId],
) -> tuple[NodeId, ...] | None:
    left = {node: dict(amounts) for node, amounts in free.items()}
    labels = {view.address.node_id: view.labels for view in nodes}
    if strategy == "STRICT_PACK" and not stay:
        return _all_on_one(bundles, selectors, left, labels)
    if strategy == "STRICT_PACK":
        left = {node: room for node, room in left.items() if node in stay.values()}
    if strategy == "STRICT_SPREAD":
        left = {node: room for node, room in left.items() if node not in stay.values()}
    places = [
        [stay[index]]
        if index in stay
        else [node for node, room in left.items() if fits(bundle, room) and matches_labels(labels[node], selector)]
        for index, (bundle, selector) in enumerate(zip(bundles, selectors, strict=True))
    ]
    # The hardest bundles first: they have the fewest places to go.
    order = sorted(range(len(bundles)), key=lambda index: (len(places[index]), -sum(bundles[index].values())))
    if strategy == "STRICT_SPREAD":
        return _each_on_its_own(places, order)
    chosen = dict(stay)
    for index in order:
        if index in stay:
            continue
        allowed = [
            node
            for node, room in left.items()
            if fits(bundles[index], room) and matches_labels(labels[node], selectors[index])
        ]
        node = _pick(strategy, allowed, list(chosen.values()))
        if node is None:
            return None
        chosen[index] = node
        _take(left[node], bundles[index])
    return tuple(chosen[index] for index in range(len(bundles)))


def _take(room: Resources, bundle: Resources) -> None:
    for name, amount in bundle.items():
        room[name] = room.get(name, 0) - amount


def _pick(strategy: str, allowed: list[NodeId], used: list[NodeId]) -> NodeId | None:
    if strategy == "SPREAD":
        return min(allowed, key=used.count, default=None)
    return max(allowed, key=used.count, default=None)


def _each_on_its_own(places: Sequence[Sequence[NodeId]], order: Sequence[int]) -> tuple[NodeId, ...] | None:
    """A matching: whoever finds all its places taken has one of them moved elsewhere, if that can be."""
    holder: dict[NodeId, int] = {}

    def seat(index: int, tried: set[NodeId]) -> bool:
        for node in [*(n for n in places[index] if n not in holder), *(n for n in places[index] if n in holder)]:
            if node not in tried:
                tried.add(node)
                if node not in holder or seat(holder[node], tried):
                    holder[node] = index
                    return True
        return False

    if not all(seat(index, set()) for index in order):
        return None
    chosen = {index: node for node, index in holder.items()}
    return tuple(chosen[index] for index in range(len(places)))


def _all_on_one(
    bundles: Sequence[Resources],
    selectors: Sequence[dict[str, str]],
    left: dict[NodeId, Resources],
    labels: dict[NodeId, dict[str, str]],
) -> tuple[NodeId, ...] | None:
    together: Resources = {}
    for bundle in bundles:
        for name, amount in bundle.items():
            together[name] = together.get(name, 0) + amount
    for node, room in left.items():
        if fits(together, room) and all(matches_labels(labels[node], selector) for selector in selectors):
            return (node,) * len(bundles)
    return None
