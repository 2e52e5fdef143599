"""Where a task or an actor shall run: values of the option ``scheduling_strategy``.

``to_strategy()`` gives the tuple that the scheduler understands: ``("node", node_id, soft)``,
``("group", group_id, bundle_index, capture_child_tasks)`` or ``("labels", hard, soft)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from actorlib.transport.ids import NodeID

if TYPE_CHECKING:
    from actorlib.util.placement_group import PlacementGroup


class PlacementGroupSchedulingStrategy:
    """Run in a bundle of a placement group: the one with ``placement_group_bundle_index``, or any (-1).

    With ``placement_group_capture_child_tasks`` what it starts runs in the group too. A ``placement_group`` of None
    means outside of any group, also for what a captured task starts.
    """

    def __init__(
        self,
        placement_group: PlacementGroup | None,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = False,
    ) -> None:
        from actorlib.util.placement_group import PlacementGroup

        if placement_group is not None and not isinstance(placement_group, PlacementGroup):
            raise TypeError(f"placement_group is a PlacementGroup or None, not {type(placement_group).__name__}")
        if not isinstance(placement_group_bundle_index, int) or placement_group_bundle_index < -1:
            raise ValueError(
                f"placement_group_bundle_index is -1 (any bundle) or an index, not {placement_group_bundle_index!r}"
            )
        if placement_group is not None and placement_group_bundle_index >= placement_group.bundle_count:
            raise ValueError(
                f"placement_group_bundle_index {placement_group_bundle_index} is too large: "
                f"the group has {placement_group.bundle_count} bundles"
            )
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = bool(placement_group_capture_child_tasks)

    def to_strategy(self) -> tuple[Any, ...]:
        if self.placement_group is None:
            return ("default",)
        index, capture = self.placement_group_bundle_index, self.placement_group_capture_child_tasks
        return ("group", self.placement_group._group_id, index, capture)


class NodeAffinitySchedulingStrategy:
    """Run on the node ``node_id`` (hex, as ``nodes()`` lists it); with ``soft``, elsewhere if that can't be."""

    def __init__(self, node_id: str | NodeID, soft: bool = False) -> None:
        text = node_id.hex() if isinstance(node_id, NodeID) else node_id
        if not isinstance(text, str):
            raise TypeError(f"node_id is a hex string or a NodeID, not {type(node_id).__name__}")
        if not isinstance(soft, bool):
            raise TypeError(f"soft is a bool, not {type(soft).__name__}")
        try:
            self._node_id = NodeID.from_hex(text).binary()
        except ValueError as error:
            raise ValueError(f"{text!r} is not the id of a node: {error}") from None
        if not self._node_id:
            raise ValueError("node_id is empty; actorlib.nodes() lists the ids of nodes")
        self.node_id = text
        self.soft = soft

    def to_strategy(self) -> tuple[Any, ...]:
        return ("node", self._node_id, self.soft)


class _Operator:
    """A condition on one label. ``to_text`` gives it in the form of label selectors."""

    def to_text(self) -> str:
        raise NotImplementedError


def _listed(values: tuple[str, ...]) -> str:
    if not values:
        raise ValueError("at least one label value is needed")
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"a label value is a string, not {type(value).__name__}")
        if "," in value or ")" in value or value != value.strip():
            raise ValueError(f"the label value {value!r} may not have commas, brackets or blanks at its ends")
    return ",".join(values)


class In(_Operator):
    """The label has one of these values."""

    def __init__(self, *values: str) -> None:
        self._listed = _listed(values)
        self.values = list(values)

    def to_text(self) -> str:
        return f"in({self._listed})"


class NotIn(_Operator):
    """The label has none of these values, or is not there."""

    def __init__(self, *values: str) -> None:
        self._listed = _listed(values)
        self.values = list(values)

    def to_text(self) -> str:
        return f"!in({self._listed})"


class Exists(_Operator):
    """The label is there."""

    def to_text(self) -> str:
        return "exists()"


class DoesNotExist(_Operator):
    """The label is not there."""

    def to_text(self) -> str:
        return "!exists()"


class NodeLabelSchedulingStrategy:
    """Run on a node whose labels meet all ``hard`` conditions, rather on one that meets the ``soft`` ones too.

    Example: ``NodeLabelSchedulingStrategy(hard={"zone": In("a", "b")}, soft={"disk": Exists()})``. A condition is an
    operator or a string: ``"v"``, ``"!v"``, ``"in(a,b)"``, ``"!in(a,b)"``, ``"exists()"``, ``"!exists()"``.
    """

    def __init__(
        self, hard: Mapping[str, _Operator | str] | None = None, soft: Mapping[str, _Operator | str] | None = None
    ) -> None:
        self.hard = _conditions("hard", hard)
        self.soft = _conditions("soft", soft)
        if not self.hard and not self.soft:
            raise ValueError("hard or soft must have a condition, such as hard={'zone': In('a')}")

    def to_strategy(self) -> tuple[Any, ...]:
        return ("labels", dict(self.hard), dict(self.soft))


def _conditions(which: str, given: Mapping[str, _Operator | str] | None) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{which} is a dict of label names to conditions, not {type(given).__name__}")
    texts: dict[str, str] = {}
    for name, condition in given.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"the label name {name!r} in {which} must be a non-empty string")
        if not isinstance(condition, _Operator | str):
            raise TypeError(
                f"the condition on {name!r} in {which} is In, NotIn, Exists, DoesNotExist or a string, "
                f"not {type(condition).__name__}"
            )
        texts[name] = condition if isinstance(condition, str) else condition.to_text()
    return texts
