"""Placement groups on Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actorlib import exceptions
from actorlib.transport.ids import GroupId


def rays_group(group_id: bytes) -> Any:
    """Ray's handle of a group, from its id."""
    import ray
    from ray.util.placement_group import PlacementGroup

    return PlacementGroup(ray.PlacementGroupID(bytes(group_id)))


def create(
    bundles: Sequence[dict[str, int]],
    strategy: str,
    name: str,
    detached: bool,
    label_selectors: Sequence[dict[str, str]],
) -> GroupId:
    from ray.util import placement_group

    amounts = [{resource: units / 10_000 for resource, units in bundle.items()} for bundle in bundles]
    more: dict[str, Any] = {"bundle_label_selector": list(label_selectors)} if label_selectors else {}
    lifetime = "detached" if detached else None
    return GroupId(placement_group(amounts, strategy, name=name, lifetime=lifetime, **more).id.binary())


def rows(group_id: GroupId | None, name: str | None) -> list[dict[str, Any]]:
    import ray
    from ray.util import placement_group_table

    namespace = ray.get_runtime_context().namespace
    if group_id is not None:
        row = placement_group_table(rays_group(group_id))
        found = [row] if row else []
    else:
        found = list(placement_group_table().values())
    chosen = [row for row in found if name is None or row["name"] == name]
    return [_row(row, namespace) for row in chosen if row["state"] != "REMOVED"]


def _row(row: dict[str, Any], namespace: str) -> dict[str, Any]:
    bundles = {int(index): dict(bundle) for index, bundle in row["bundles"].items()}
    nodes = {int(index): node for index, node in row.get("bundles_to_node_id", {}).items() if node}
    state = row["state"]
    reason = ""
    if state == "PENDING":
        waits = row.get("stats", {}).get("scheduling_state", "waiting")
        reason = f"{waits}: {row['strategy']} of {list(bundles.values())} is not placed yet"
    return {
        "placement_group_id": row["placement_group_id"],
        "name": row["name"],
        "namespace": namespace,
        "strategy": row["strategy"],
        "state": state,
        "bundles": bundles,
        "bundles_to_node_id": nodes,
        "reason": reason,
    }


def wait(group_id: GroupId, timeout: float | None) -> bool:
    """Whether it is placed within ``timeout`` seconds."""
    import time

    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        found = rows(group_id, None)
        if not found:
            return False
        if found[0]["state"] == "CREATED":
            return True
        left = 1.0 if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return False
        rays_group(group_id).wait(min(left, 1.0))


def ready(group_id: GroupId) -> Any:
    """Ray's reference that resolves when it is placed."""
    if not rows(group_id, None):
        raise exceptions.PlacementGroupError(f"placement group {group_id.hex()} was removed")
    return rays_group(group_id).ready()


def remove(group_id: GroupId) -> None:
    from ray.util import remove_placement_group

    remove_placement_group(rays_group(group_id))
