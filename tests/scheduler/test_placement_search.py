"""Placement of bundles against all possible placements of small clusters, with several resources and labels."""

from __future__ import annotations

import collections
import itertools

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from actorlib.scheduler.placement import place_bundles
from actorlib.scheduler.policy import matches_labels
from actorlib.scheduler.resources import UNIT, fits
from actorlib.transport.link import Address
from actorlib.transport.messages import NodeView


def node(name, free, total=None, labels=None, alive=True):
    address = Address(name.encode(), name.encode(), "")
    return NodeView(address, 1, alive, in_units(total or free), in_units(free), labels or {}, name, 0, (), "")


def in_units(amounts):
    return {name: amount * UNIT for name, amount in amounts.items()}


def place(strategy, bundles, nodes, selectors=()):
    placed = place_bundles([in_units(bundle) for bundle in bundles], strategy, nodes, selectors)
    return placed if isinstance(placed, str) else tuple(name.decode() for name in placed)


def fits_all(chosen, bundles, nodes, selectors):
    """Whether this assignment keeps within what every node has free, and to the labels."""
    used = collections.defaultdict(collections.Counter)
    for index, (view, bundle) in enumerate(zip(chosen, bundles, strict=True)):
        used[view.hostname].update(bundle)
        if not view.alive or (selectors and not matches_labels(view.labels, selectors[index])):
            return False
    return all(fits(used[view.hostname], view.available) for view in nodes)


def obeys(strategy, chosen):
    count = len({view.hostname for view in chosen})
    return {"STRICT_PACK": count == 1, "STRICT_SPREAD": count == len(chosen)}.get(strategy, True)


AMOUNTS = st.fixed_dictionaries({"CPU": st.integers(0, 3)}, optional={"GPU": st.integers(0, 2)})
NODES = st.lists(st.tuples(AMOUNTS, st.sampled_from(["a", "b"]), st.sampled_from([True] * 5 + [False])), max_size=4)
BUNDLES = st.lists(
    st.tuples(
        st.fixed_dictionaries({"CPU": st.integers(0, 2)}, optional={"GPU": st.integers(1, 2)}),
        st.sampled_from([{}, {}, {"zone": "a"}, {"zone": "!a"}]),
    ),
    min_size=1,
    max_size=4,
)
STRATEGIES = ["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(deadline=None, database=None, max_examples=300)
@given(NODES, BUNDLES)
def test_a_placement_fits_and_obeys_and_the_strict_ones_miss_none(strategy, rows, asked):
    nodes = [node(f"n{i}", free, None, {"zone": zone}, alive) for i, (free, zone, alive) in enumerate(rows)]
    bundles, selectors = [in_units(bundle) for bundle, _ in asked], [selector for _, selector in asked]
    placed = place_bundles(bundles, strategy, nodes, selectors)
    event("placed" if not isinstance(placed, str) else "not placed")
    if not isinstance(placed, str):
        by_id = {view.address.node_id: view for view in nodes}
        chosen = [by_id[node_id] for node_id in placed]
        assert len(chosen) == len(bundles) and fits_all(chosen, bundles, nodes, selectors) and obeys(strategy, chosen)
        return
    assert placed.startswith("infeasible:"), "there was room as on empty nodes"
    if strategy.startswith("STRICT"):
        for chosen in itertools.product(nodes, repeat=len(bundles)):
            assert not (fits_all(chosen, bundles, nodes, selectors) and obeys(strategy, chosen))


def test_a_bundle_that_fits_anywhere_leaves_the_only_gpu_to_the_one_that_needs_it():
    nodes = [node("gpu", {"CPU": 8, "GPU": 1}), node("cpu", {"CPU": 8})]
    for strategy in ("PACK", "SPREAD", "STRICT_SPREAD"):
        assert place(strategy, [{"CPU": 8}, {"CPU": 1, "GPU": 1}], nodes) == ("cpu", "gpu")


def test_strict_spread_moves_a_bundle_that_sits_where_another_must():
    nodes = [node("ab", {"a": 1, "b": 1}), node("bc", {"b": 1, "c": 1}), node("ac", {"a": 1, "c": 1})]
    for bundles in itertools.permutations([{"a": 1}, {"b": 1}, {"c": 1}]):
        placed = place("STRICT_SPREAD", bundles, nodes)
        assert sorted(placed) == ["ab", "ac", "bc"]
        assert all(next(iter(bundle)) in name for bundle, name in zip(bundles, placed, strict=True))


@pytest.mark.parametrize(
    ("strategy", "nodes_used"), [("PACK", 1), ("SPREAD", 3), ("STRICT_PACK", 1), ("STRICT_SPREAD", 3)]
)
def test_with_room_everywhere_packing_takes_one_node_and_spreading_all(strategy, nodes_used):
    nodes = [node(name, {"CPU": 9}) for name in "abc"]
    assert len(set(place(strategy, [{"CPU": 1}] * 3, nodes))) == nodes_used


def test_spread_uses_every_node_before_any_twice_and_evenly_after_that():
    nodes = [node(name, {"CPU": 9}) for name in "abc"]
    counts = collections.Counter(place("SPREAD", [{"CPU": 1}] * 7, nodes))
    assert sorted(counts.values()) == [2, 2, 3]


def test_what_is_infeasible_and_what_waits_for_room_are_told_apart():
    busy = node("a", {"CPU": 1}, {"CPU": 4})
    for strategy in STRATEGIES:
        assert place(strategy, [{"CPU": 3}], [busy]).startswith(f"waiting for room for {strategy} [3 CPU]: ")
        assert place(strategy, [{"CPU": 5}], [busy]).startswith(f"infeasible: {strategy} [5 CPU]")
    assert "1 CPU free" in place("PACK", [{"CPU": 3}], [busy])
    assert place("PACK", [{"CPU": 1}], []).endswith("there is no node")


def test_dead_nodes_hold_no_bundles():
    assert place("PACK", [{"CPU": 1}], [node("a", {"CPU": 4}, alive=False), node("b", {"CPU": 1})]) == ("b",)
