"""Bundles of placement groups: each strategy keeps its word, and finds a place where there is one."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.scheduler.placement import place_bundles
from actorlib.scheduler.resources import UNIT
from actorlib.transport.link import Address
from actorlib.transport.messages import NodeView


def view(number, cpus, labels=None):
    node = bytes([number]) * 8
    total = {"CPU": cpus * UNIT}
    return NodeView(Address(node, node, ""), 1, True, total, dict(total), labels or {}, "", 1, (), "")


def bundles_of(*cpus):
    return [{"CPU": amount * UNIT} for amount in cpus]


def test_pack_uses_few_nodes_and_spread_many():
    nodes = [view(1, 4), view(2, 4)]
    assert len(set(place_bundles(bundles_of(1, 1, 1), "PACK", nodes))) == 1
    assert len(set(place_bundles(bundles_of(1, 1, 1), "SPREAD", nodes))) == 2
    assert len(set(place_bundles(bundles_of(3, 3), "PACK", nodes))) == 2


def test_the_strict_ones_refuse_with_the_reason():
    nodes = [view(1, 4), view(2, 4)]
    assert "infeasible" in place_bundles(bundles_of(3, 3), "STRICT_PACK", nodes)
    assert "infeasible" in place_bundles(bundles_of(1, 1, 1), "STRICT_SPREAD", nodes)
    busy = [nodes[0]._replace(available={"CPU": 0}), nodes[1]]
    assert "waiting for room" in place_bundles(bundles_of(1, 1), "STRICT_SPREAD", busy)


def test_labels_of_bundles():
    nodes = [view(1, 4), view(2, 4, {"zone": "x"})]
    placed = place_bundles(bundles_of(1, 1), "SPREAD", nodes, [{"zone": "x"}, {}])
    assert placed[0] == bytes([2]) * 8
    assert "infeasible" in place_bundles(bundles_of(1), "PACK", nodes, [{"zone": "y"}])


@settings(max_examples=400, deadline=None, database=None)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.sampled_from(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_every_placement_fits_and_the_strict_ones_miss_none(cpus, strategy, sizes):
    nodes = [view(number, size) for number, size in enumerate(sizes)]
    placed = place_bundles(bundles_of(*cpus), strategy, nodes)

    def is_good(choice):
        use = dict.fromkeys(range(len(sizes)), 0)
        for node, amount in zip(choice, cpus, strict=True):
            use[node] += amount
        if any(used > sizes[node] for node, used in use.items()):
            return False
        distinct = len(set(choice))
        return {"STRICT_PACK": distinct == 1, "STRICT_SPREAD": distinct == len(choice)}.get(strategy, True)

    if isinstance(placed, tuple):
        assert is_good([node[0] for node in placed])
    elif strategy.startswith("STRICT"):
        choices = itertools.product(range(len(sizes)), repeat=len(cpus))
        assert not any(map(is_good, choices)), "there was a place"


@settings(max_examples=400, deadline=None, database=None)
@given(
    st.lists(st.integers(1, 3), min_size=2, max_size=4),
    st.sampled_from(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]),
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.data(),
)
def test_after_a_loss_what_is_held_stays_and_the_whole_still_keeps_its_word(cpus, strategy, sizes, data):
    nodes = [view(number, size) for number, size in enumerate(sizes)]
    before = place_bundles(bundles_of(*cpus), strategy, nodes)
    if isinstance(before, str):
        return
    lost = data.draw(st.sampled_from(sorted(set(before))))
    held = [b"" if node == lost else node for node in before]
    living = []
    for node in nodes:
        used = sum(amount for where, amount in zip(held, cpus, strict=True) if where == node.address.node_id)
        free = node.total["CPU"] - used * UNIT
        if node.address.node_id != lost:
            living.append(node._replace(available={"CPU": free}))
    after = place_bundles(bundles_of(*cpus), strategy, living, (), held)
    if isinstance(after, str):
        assert after.startswith("infeasible: "), "all that is not held is free"
        if strategy == "STRICT_SPREAD":
            room = [node.available["CPU"] for node in living if node.address.node_id not in held]
            waits = [amount * UNIT for where, amount in zip(held, cpus, strict=True) if not where]
            rooms = itertools.permutations(room, len(waits))
            assert not any(all(map(int.__ge__, some, waits)) for some in rooms)
        return
    assert all(there == was for there, was in zip(after, held, strict=True) if was) and lost not in after
    for node in living:
        used = sum(a for where, a in zip(after, cpus, strict=True) if where == node.address.node_id)
        assert used * UNIT <= node.total["CPU"]
    distinct = len(set(after))
    assert {"STRICT_PACK": distinct == 1, "STRICT_SPREAD": distinct == len(cpus)}.get(strategy, True)


def test_spread_puts_what_was_lost_where_nothing_of_the_group_is():
    nodes = [view(1, 4), view(2, 4), view(3, 4)]
    one, two, three = (node.address.node_id for node in nodes)
    assert place_bundles(bundles_of(1, 1, 1), "SPREAD", nodes, (), [one, b"", two]) == (one, three, two)
    assert place_bundles(bundles_of(1, 1, 1), "PACK", nodes, (), [two, b"", two]) == (two, two, two)
