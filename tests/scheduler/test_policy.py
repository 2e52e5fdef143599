"""Which node: the strategies, and what holds for every choice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.scheduler import policy
from actorlib.scheduler.resources import UNIT, fits
from actorlib.transport.link import Address
from actorlib.transport.messages import NodeView


def view(name, cpus, free=None, labels=None, alive=True, **other):
    node = name.encode().ljust(8, b".")
    total = {"CPU": cpus * UNIT, **{kind: amount * UNIT for kind, amount in other.items()}}
    available = dict(total) if free is None else {**total, "CPU": free * UNIT}
    return NodeView(Address(node, node, ""), 1, alive, total, available, labels or {}, name, 1, (), "")


def name_of(node):
    return None if node is None else node.rstrip(b".").decode()


MIB = 1 << 20
A, B, C = (name.encode().ljust(8, b".") for name in "abc")
ONE = {"CPU": UNIT}


def choose(views, strategy=("default",), demand=ONE, locality=(), turn=0):
    return name_of(policy.choose(views, A, demand, strategy, locality, turn))


def test_default_packs_until_nodes_are_half_full_and_spreads_from_then_on():
    assert choose([view("a", 4, free=3), view("b", 4)]) == "a"
    assert choose([view("a", 4, free=2), view("b", 4)]) == "b"
    assert choose([view("a", 4, free=2), view("b", 4, free=3), view("c", 4)]) == "b"  # filled before c is touched
    assert choose([view("a", 8, free=3), view("b", 8, free=2), view("c", 8, free=1)]) == "a"
    assert choose([view("a", 8, free=2), view("b", 8, free=3), view("c", 8, free=1)]) == "b"
    assert choose([view("a", 4, free=0), view("b", 4, free=1)]) == "b"
    assert choose([view("a", 4, free=2), view("b", 4, free=2)]) == "a"


def test_what_is_scarcest_of_what_is_asked_for_counts():
    lamps = view("a", 8, lamp=2)
    used = lamps._replace(available={**lamps.available, "lamp": UNIT})
    both = {"CPU": UNIT, "lamp": UNIT}
    assert [policy.used_fraction(used, demand) for demand in (both, ONE, {"CPU": 0})] == [0.5, 0.0, 0.0]
    assert choose([used, view("b", 8, lamp=2)], demand=both) == "b"
    assert choose([used, view("b", 8, lamp=2)]) == "a"


def test_default_goes_where_the_bytes_are_if_they_are_many():
    views = [view("a", 4), view("b", 4, free=1), view("c", 4)]
    assert choose(views, locality=((B, 5 * MIB), (C, 2 * MIB))) == "b"
    assert choose(views, locality=((B, 1000), (C, 10))) == "a"
    full = [view("a", 4, free=0), view("b", 4, free=0), view("c", 4, free=0)]
    assert choose(full, locality=((B, 5 * MIB),)) == "b"  # nobody has room: wait where the bytes are
    assert choose([view("a", 4), view("b", 4, free=0)], locality=((B, 5 * MIB),)) == "a"  # room is not left idle


def test_default_waits_here_when_nobody_has_room_and_goes_where_it_could_run_otherwise():
    assert choose([view("a", 4, free=0), view("b", 4, free=0)]) == "a"
    assert choose([view("a", 4), view("b", 4, lamp=1)], demand={"lamp": UNIT}) == "b"
    assert choose([view("a", 4)], demand={"lamp": UNIT}) is None


def test_spread_takes_nodes_in_turn_and_only_feasible_ones():
    views = [view("a", 4), view("b", 4, alive=False), view("c", 4)]
    assert [choose(views, ("spread",), turn=turn) for turn in range(4)] == ["a", "c", "a", "c"]


def test_affinity():
    views = [view("a", 4), view("b", 4, free=0)]
    assert choose(views, ("node", B, False)) == "b"
    assert choose(views, ("node", C, False)) is None
    assert choose(views, ("node", C, True)) == "a"


def test_labels():
    views = [view("a", 4), view("b", 4, labels={"zone": "x"}), view("c", 4, labels={"zone": "y", "disk": "ssd"})]
    assert choose(views, ("labels", {"zone": "x"}, {})) == "b"
    assert choose(views, ("labels", {"zone": "in(x, y)"}, {"disk": "ssd"})) == "c"
    assert choose(views, ("labels", {"zone": "z"}, {})) is None


@pytest.mark.parametrize(
    ("value", "wanted", "matches"),
    [
        ("x", "x", True),
        (None, "x", False),
        ("x", "!x", False),
        (None, "!x", True),
        ("b", "in(a,b)", True),
        (None, "in(a,b)", False),
        ("c", "!in(a, b)", True),
        ("a", "!in(a, b)", False),
    ],
)
def test_conditions_on_labels(value, wanted, matches):
    assert policy.matches_label(value, wanted) is matches


def test_why_infeasible_names_demand_and_totals():
    text = policy.why_infeasible([view("a", 4), view("b", 2, alive=False)], {"CPU": 8 * UNIT}, ("default",))
    assert "8 CPU" in text and "4 CPU" in text and "2 CPU" not in text


strategies = st.one_of(
    st.just(("default",)),
    st.just(("spread",)),
    st.tuples(st.just("node"), st.sampled_from([A, B, C]), st.booleans()),
    st.just(("labels", {"zone": "x"}, {})),
)
nodes = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans(), st.sampled_from(["x", "y"])), min_size=1, max_size=3
)


@settings(max_examples=500, deadline=None, database=None)
@given(nodes, strategies, st.integers(0, 4), st.integers(0, 10))
def test_a_chosen_node_could_always_run_it_and_one_is_chosen_if_any_could(rows, strategy, cpus, turn):
    views = [
        view(name, total, min(free, total), {"zone": zone}, alive)
        for name, (total, free, alive, zone) in zip("abc", rows, strict=False)
    ]
    demand = {"CPU": cpus * UNIT}
    chosen = policy.choose(views, A, demand, strategy, (), turn)
    feasible = [v.address.node_id for v in views if policy.is_feasible(v, demand, strategy)]
    assert (chosen is None) == (not feasible) or strategy[0] == "node"
    assert chosen is None or chosen in feasible
    roomy = [v for v in views if v.address.node_id in feasible and fits(demand, v.available)]
    if strategy[0] in ("default", "labels") and roomy:
        assert any(v.address.node_id == chosen for v in roomy)
