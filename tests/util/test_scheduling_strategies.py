"""Scheduling strategies: what they accept, and what the scheduler is told."""

from __future__ import annotations

from typing import Any

import pytest

import actorlib
from actorlib.scheduler.policy import matches_label
from actorlib.util.placement_group import PlacementGroup
from actorlib.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)

GROUP = PlacementGroup(b"g" * 16, [{"CPU": 1}, {"CPU": 2}])


def test_group() -> None:
    assert PlacementGroupSchedulingStrategy(GROUP).to_strategy() == ("group", b"g" * 16, -1, False)
    chosen = PlacementGroupSchedulingStrategy(
        placement_group=GROUP, placement_group_bundle_index=1, placement_group_capture_child_tasks=True
    )
    assert chosen.to_strategy() == ("group", b"g" * 16, 1, True)
    assert PlacementGroupSchedulingStrategy(None).to_strategy() == ("default",)


def test_group_refusals() -> None:
    with pytest.raises(ValueError, match="2 bundles"):
        PlacementGroupSchedulingStrategy(GROUP, 2)
    with pytest.raises(ValueError, match="-1"):
        PlacementGroupSchedulingStrategy(GROUP, -2)
    with pytest.raises(TypeError, match="PlacementGroup"):
        PlacementGroupSchedulingStrategy("group")  # type: ignore[arg-type]


def test_node() -> None:
    node_id = actorlib.NodeID(b"n" * 8)
    assert NodeAffinitySchedulingStrategy(node_id.hex()).to_strategy() == ("node", b"n" * 8, False)
    assert NodeAffinitySchedulingStrategy(node_id, soft=True).to_strategy() == ("node", b"n" * 8, True)


@pytest.mark.parametrize("wrong", ["", "xyz", "00", "0" * 40])
def test_node_ids_that_are_none(wrong: str) -> None:
    with pytest.raises(ValueError):
        NodeAffinitySchedulingStrategy(wrong)


def test_node_refusals() -> None:
    with pytest.raises(TypeError, match="node_id"):
        NodeAffinitySchedulingStrategy(b"n" * 8)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="soft"):
        NodeAffinitySchedulingStrategy("00" * 8, soft=1)  # type: ignore[arg-type]


def test_labels() -> None:
    strategy = NodeLabelSchedulingStrategy(
        hard={"zone": In("a", "b"), "disk": NotIn("hdd"), "arch": "arm", "os": "!win"}, soft={"rack": In("r1")}
    )
    assert strategy.to_strategy() == (
        "labels",
        {"zone": "in(a,b)", "disk": "!in(hdd)", "arch": "arm", "os": "!win"},
        {"rack": "in(r1)"},
    )


@pytest.mark.parametrize(
    ("operator", "matching", "others"),
    [
        (In("a", "!b"), ["a", "!b"], ["b", "", None]),
        (NotIn("a", "b"), ["c", "", None], ["a", "b"]),
    ],
)
def test_the_scheduler_understands(operator: Any, matching: list[str | None], others: list[str | None]) -> None:
    text = operator.to_text()
    assert [matches_label(value, text) for value in matching] == [True] * len(matching)
    assert [matches_label(value, text) for value in others] == [False] * len(others)


def test_whether_a_label_is_there_at_all() -> None:
    texts = Exists().to_text(), DoesNotExist().to_text()
    assert [matches_label(value, texts[0]) for value in ("a", "", None)] == [True, True, False]
    assert [matches_label(value, texts[1]) for value in ("a", "", None)] == [False, False, True]


def test_label_refusals() -> None:
    with pytest.raises(ValueError, match="condition"):
        NodeLabelSchedulingStrategy()
    with pytest.raises(TypeError, match="dict"):
        NodeLabelSchedulingStrategy([In("a")])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'zone'"):
        NodeLabelSchedulingStrategy({"zone": 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="non-empty"):
        NodeLabelSchedulingStrategy({"": In("a")})
    with pytest.raises(ValueError, match="at least one"):
        In()
    with pytest.raises(TypeError, match="string"):
        NotIn(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="commas"):
        In("a,b")


@actorlib.remote
def here() -> str:
    return actorlib.get_runtime_context().get_node_id()


def test_a_task_runs_where_it_is_told(local: Any) -> None:
    node_id = actorlib.nodes()[0]["NodeID"]
    for soft in (False, True):
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=soft)
        assert actorlib.get(here.options(scheduling_strategy=strategy).remote(), timeout=30) == node_id
    elsewhere = NodeAffinitySchedulingStrategy("00" * 8, soft=True)
    assert actorlib.get(here.options(scheduling_strategy=elsewhere).remote(), timeout=30) == node_id
    labels = NodeLabelSchedulingStrategy(hard={"zone": NotIn("moon")})
    assert actorlib.get(here.options(scheduling_strategy=labels).remote(), timeout=30) == node_id
