"""Placement groups: bundles of resources that are had all together or not at all.

A task or an actor runs in a bundle by ``PlacementGroupSchedulingStrategy``. Strategies: ``PACK`` (as few nodes as
possible), ``SPREAD`` (as many as possible), ``STRICT_PACK`` (one node), ``STRICT_SPREAD`` (a node for each bundle).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actorlib import engine
from actorlib.object_ref import ObjectRef
from actorlib.scheduler.resources import to_units
from actorlib.transport.ids import GroupId, PlacementGroupID

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


class PlacementGroup:
    """A handle of a placement group; can be passed to tasks and actors. Made by ``placement_group()``."""

    def __init__(self, group_id: bytes, bundles: Sequence[Mapping[str, float]] | None = None) -> None:
        self._group_id = GroupId(group_id)
        self._bundles = None if bundles is None else [dict(bundle) for bundle in bundles]

    @staticmethod
    def empty() -> PlacementGroup:
        """A handle that stands for no group."""
        return PlacementGroup(b"", [])

    @property
    def is_empty(self) -> bool:
        return not self._group_id

    @property
    def id(self) -> PlacementGroupID:
        return PlacementGroupID(self._group_id)

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """The bundles, as they were asked for."""
        if self._bundles is None:
            bundles = _row(self._group_id)["bundles"]
            self._bundles = [dict(bundles[index]) for index in sorted(bundles)]
        return [dict(bundle) for bundle in self._bundles]

    @property
    def bundle_count(self) -> int:
        return len(self.bundle_specs)

    def ready(self) -> ObjectRef[Any]:
        """A reference that is resolved when all bundles are placed; to an error if the group is removed before."""
        return engine.current().group_ready_ref(self._group_id)

    def wait(self, timeout_seconds: float | None = 30) -> bool:
        """Wait until all bundles are placed; False after ``timeout_seconds`` (None: no limit) or if it was removed."""
        if timeout_seconds is not None and timeout_seconds < 0:
            raise ValueError(f"timeout_seconds must be non-negative, not {timeout_seconds}")
        if timeout_seconds == 0:  # only look: the engine's way to wait takes a round trip
            state: str = _row(self._group_id)["state"]
            return state == "CREATED"
        return engine.current().wait_group(self._group_id, timeout_seconds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self._group_id == other._group_id

    def __hash__(self) -> int:
        return hash(self._group_id)

    def __repr__(self) -> str:
        return f"PlacementGroup({self._group_id.hex()})"

    def __reduce__(self) -> tuple[type[PlacementGroup], tuple[bytes, list[dict[str, float]] | None]]:
        return PlacementGroup, (self._group_id, self._bundles)


def placement_group(
    bundles: Sequence[Mapping[str, float]],
    strategy: str = "PACK",
    name: str = "",
    lifetime: str | None = None,
    bundle_label_selector: Sequence[Mapping[str, str]] | None = None,
) -> PlacementGroup:
    """Ask for a placement group; it is placed in the background, see ``PlacementGroup.wait``.

    ``bundles`` are dicts of resources, such as ``[{"CPU": 1}, {"CPU": 1, "GPU": 0.5}]``, in amounts of 0.0001 at the
    finest. ``name`` is unique in the namespace. ``lifetime="detached"`` lets it outlive this driver.
    ``bundle_label_selector`` has the label conditions of each bundle's node. Raises ValueError or TypeError.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"the strategy {strategy!r} is not one of {', '.join(STRATEGIES)}")
    if not isinstance(name, str):
        raise TypeError(f"name is a string, not {type(name).__name__}")
    if lifetime not in (None, "detached"):
        raise ValueError(f"lifetime is None or 'detached', not {lifetime!r}")
    units = _bundle_units(bundles)
    selectors = _selectors(bundle_label_selector, len(units))
    group_id = engine.current().create_group(units, strategy, name, lifetime == "detached", selectors)
    return PlacementGroup(group_id, bundles)


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give all bundles back. What still runs in them is ended."""
    _check_group(placement_group)
    engine.current().remove_group(placement_group._group_id)


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The placement group of that name in this namespace. Raises ValueError if there is none."""
    if not placement_group_name or not isinstance(placement_group_name, str):
        raise ValueError(f"the name of a placement group is a non-empty string, not {placement_group_name!r}")
    rows = engine.current().group_table(None, placement_group_name)
    if not rows:
        raise ValueError(f"there is no placement group named {placement_group_name!r}")
    bundles = rows[0]["bundles"]
    return PlacementGroup(bytes.fromhex(rows[0]["placement_group_id"]), [bundles[index] for index in sorted(bundles)])


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """What is known of a placement group: state, bundles, their nodes, and the reason while it is pending.

    Without an argument a dict of all of them by id (hex).
    """
    if placement_group is None:
        rows = engine.current().group_table(None, None)
        return {row["placement_group_id"]: row for row in rows}
    _check_group(placement_group)
    return _row(placement_group._group_id, placement_group._bundles)


def get_current_placement_group() -> PlacementGroup | None:
    """The placement group that the calling task or actor runs in; None outside of any."""
    group_id = engine.current().context()["group_id"]
    return PlacementGroup(group_id) if group_id else None


def _row(group_id: GroupId, bundles: Sequence[dict[str, float]] | None = None) -> dict[str, Any]:
    """The row of a group. One that is gone from the table was removed."""
    rows = engine.current().group_table(group_id, None)
    if rows:
        return rows[0]
    return {
        "placement_group_id": group_id.hex(),
        "name": "",
        "strategy": "",
        "state": "REMOVED",
        "bundles": dict(enumerate(bundles or ())),
        "bundles_to_node_id": {},
        "reason": "removed, or there never was such a placement group",
    }


def _check_group(group: object) -> None:
    if not isinstance(group, PlacementGroup):
        raise TypeError(f"a PlacementGroup is needed, not {type(group).__name__}")


def _bundle_units(bundles: Sequence[Mapping[str, float]]) -> list[dict[str, int]]:
    if not isinstance(bundles, list | tuple):
        raise TypeError(f"bundles is a list of dicts of resources, not {type(bundles).__name__}")
    if not bundles:
        raise ValueError("bundles is empty; a placement group has at least one bundle, such as {'CPU': 1}")
    units: list[dict[str, int]] = []
    for index, bundle in enumerate(bundles):
        if not isinstance(bundle, Mapping):
            raise TypeError(f"bundle {index} is a dict of resources, not {type(bundle).__name__}")
        if not all(isinstance(resource, str) and resource for resource in bundle):
            raise TypeError(f"bundle {index} has a name of a resource that is not a non-empty string: {dict(bundle)}")
        amounts = {resource: to_units(resource, amount) for resource, amount in bundle.items()}
        if not any(amounts.values()):
            raise ValueError(f"bundle {index} asks for nothing: {dict(bundle)}")
        units.append({resource: amount for resource, amount in amounts.items() if amount})
    return units


def _selectors(given: Sequence[Mapping[str, str]] | None, count: int) -> list[dict[str, str]]:
    """One selector for each bundle, or none at all."""
    if not given:
        return []
    if not isinstance(given, list | tuple) or not all(isinstance(selector, Mapping) for selector in given):
        raise TypeError("bundle_label_selector is a list of dicts of label conditions, one for each bundle")
    if len(given) != count:
        raise ValueError(f"bundle_label_selector has {len(given)} entries for {count} bundles; give one for each")
    for selector in given:
        for label, condition in selector.items():
            if not isinstance(label, str) or not isinstance(condition, str):
                raise TypeError(f"a label condition is a pair of strings, not {label!r}: {condition!r}")
    return [dict(selector) for selector in given]
