"""Placement groups: making, waiting, finding, using and removing them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import actorlib
from actorlib import util
from actorlib.util.placement_group import PlacementGroup
from actorlib.util.scheduling_strategies import PlacementGroupSchedulingStrategy

pytestmark = pytest.mark.usefixtures("local")


@actorlib.remote
def current_group() -> Any:
    return util.get_current_placement_group()


@actorlib.remote
class Asked:
    def group(self) -> Any:
        return util.get_current_placement_group()


@actorlib.remote
def specs(group: PlacementGroup) -> list[dict[str, float]]:
    return group.bundle_specs


def test_ready_and_wait() -> None:
    group = util.placement_group([{"CPU": 1}, {"CPU": 0.5}])
    actorlib.get(group.ready(), timeout=30)
    assert group.wait(timeout_seconds=30)
    assert group.wait(0)
    assert group.bundle_specs == [{"CPU": 1}, {"CPU": 0.5}]
    assert group.bundle_count == 2
    util.remove_placement_group(group)


def test_what_does_not_fit_waits_with_a_reason() -> None:
    group = util.placement_group([{"CPU": 64}])
    assert not group.wait(0.05)
    row = util.placement_group_table(group)
    assert row["state"] == "PENDING"
    assert "64 CPU" in row["reason"]
    util.remove_placement_group(group)


def test_removal() -> None:
    group = util.placement_group([{"CPU": 64}])
    ready = group.ready()
    util.remove_placement_group(group)
    with pytest.raises(actorlib.exceptions.PlacementGroupError):
        actorlib.get(ready, timeout=30)
    assert not group.wait(30)
    row = util.placement_group_table(group)
    assert row["state"] == "REMOVED"
    assert row["bundles"] == {0: {"CPU": 64}}
    assert group.id.hex() not in util.placement_group_table()
    util.remove_placement_group(group)


def test_removal_gives_resources_back() -> None:
    for _ in range(3):
        group = util.placement_group([{"CPU": 2}], strategy="STRICT_PACK")
        assert group.wait(30)
        util.remove_placement_group(group)


def test_names() -> None:
    group = util.placement_group([{"CPU": 1}, {"CPU": 1}], name="pair")
    found = util.get_placement_group("pair")
    assert found == group
    assert found.bundle_specs == group.bundle_specs
    with pytest.raises(ValueError, match="pair"):
        util.placement_group([{"CPU": 1}], name="pair")
    util.remove_placement_group(group)
    with pytest.raises(ValueError, match="pair"):
        util.get_placement_group("pair")
    with pytest.raises(ValueError, match="non-empty"):
        util.get_placement_group("")


def test_table() -> None:
    group = util.placement_group([{"CPU": 1}], strategy="SPREAD", name="one")
    assert group.wait(30)
    table = util.placement_group_table()
    row = table[group.id.hex()]
    assert row == util.placement_group_table(group)
    assert (row["name"], row["strategy"], row["state"]) == ("one", "SPREAD", "CREATED")
    assert row["bundles"] == {0: {"CPU": 1.0}}
    assert row["bundles_to_node_id"] == {0: actorlib.nodes()[0]["NodeID"]}
    util.remove_placement_group(group)


def test_actors_run_in_a_group() -> None:
    group = util.placement_group([{"CPU": 1}, {"CPU": 1}])
    assert util.get_current_placement_group() is None
    actor = Asked.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, 1)).remote()
    assert actorlib.get(actor.group.remote(), timeout=30) == group
    util.remove_placement_group(group)


def test_tasks_know_their_group() -> None:
    group = util.placement_group([{"CPU": 1}, {"CPU": 1}])
    strategy = PlacementGroupSchedulingStrategy(group, 0)
    assert actorlib.get(current_group.options(scheduling_strategy=strategy).remote(), timeout=30) == group
    util.remove_placement_group(group)


def test_tasks_run_in_a_group() -> None:
    group = util.placement_group([{"CPU": 2}])
    strategy = PlacementGroupSchedulingStrategy(group)
    assert group.wait(30)
    assert actorlib.available_resources().get("CPU", 0) == 0
    refs = [specs.options(scheduling_strategy=strategy).remote(group) for _ in range(4)]
    assert actorlib.get(refs, timeout=30) == [[{"CPU": 2}]] * 4
    util.remove_placement_group(group)


def test_a_task_outside_is_in_no_group() -> None:
    assert actorlib.get(current_group.remote(), timeout=30) is None


def test_handles_travel() -> None:
    group = util.placement_group([{"CPU": 1}])
    again = pickle.loads(pickle.dumps(group))
    assert again == group
    assert hash(again) == hash(group)
    assert actorlib.get(specs.remote(group), timeout=30) == [{"CPU": 1}]
    assert PlacementGroup(group._group_id).bundle_specs == [{"CPU": 1.0}]
    util.remove_placement_group(group)


def test_an_empty_handle() -> None:
    empty = PlacementGroup.empty()
    assert empty.is_empty
    assert empty.bundle_count == 0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"bundles": []}, ValueError, "at least one"),
        ({"bundles": {"CPU": 1}}, TypeError, "list"),
        ({"bundles": [["CPU", 1]]}, TypeError, "bundle 0"),
        ({"bundles": [{"CPU": 1}, {}]}, ValueError, "bundle 1"),
        ({"bundles": [{"CPU": 0}]}, ValueError, "asks for nothing"),
        ({"bundles": [{"CPU": -1}]}, ValueError, "CPU"),
        ({"bundles": [{"CPU": 0.00001}]}, ValueError, "finer"),
        ({"bundles": [{"CPU": "1"}]}, TypeError, "number"),
        ({"bundles": [{1: 1}]}, TypeError, "bundle 0"),
        ({"bundles": [{"CPU": 1}], "strategy": "LOOSE"}, ValueError, "STRICT_SPREAD"),
        ({"bundles": [{"CPU": 1}], "lifetime": "long"}, ValueError, "detached"),
        ({"bundles": [{"CPU": 1}], "name": 3}, TypeError, "name"),
        ({"bundles": [{"CPU": 1}], "bundle_label_selector": [{}, {}]}, ValueError, "one for each"),
        ({"bundles": [{"CPU": 1}], "bundle_label_selector": [{"a": 1}]}, TypeError, "strings"),
        ({"bundles": [{"CPU": 1}], "bundle_label_selector": {"a": "b"}}, TypeError, "list"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        util.placement_group(**arguments)


def test_what_is_no_group_is_refused() -> None:
    with pytest.raises(TypeError, match="PlacementGroup"):
        util.remove_placement_group("group")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="PlacementGroup"):
        util.placement_group_table("group")  # type: ignore[arg-type]
    group = util.placement_group([{"CPU": 1}])
    with pytest.raises(ValueError, match="non-negative"):
        group.wait(-1)
    util.remove_placement_group(group)


def test_label_selectors() -> None:
    group = util.placement_group([{"CPU": 1}], bundle_label_selector=[{"zone": "moon"}])
    assert not group.wait(0.05)
    util.remove_placement_group(group)
    group = util.placement_group([{"CPU": 1}], bundle_label_selector=[{"zone": "!moon"}])
    assert group.wait(30)
    util.remove_placement_group(group)


def test_what_can_never_be_placed_says_so_where_no_node_can_join() -> None:
    group = util.placement_group([{"CPU": 50}])
    with pytest.raises(actorlib.exceptions.PlacementGroupError, match=r"infeasible.*50 CPU"):
        actorlib.get(group.ready(), timeout=10)
    assert group.wait(60) is False
    strategy = PlacementGroupSchedulingStrategy(group)
    with pytest.raises(actorlib.exceptions.TaskUnschedulableError, match="50 CPU"):
        actorlib.get(current_group.options(scheduling_strategy=strategy).remote(), timeout=10)
    util.remove_placement_group(group)
