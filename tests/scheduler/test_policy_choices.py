"""The choice of a node, against what each strategy promises, on random clusters."""

from __future__ import annotations

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from actorlib.scheduler import policy
from actorlib.scheduler.resources import UNIT, fits
from actorlib.transport import limits
from actorlib.transport.link import Address
from actorlib.transport.messages import NodeView

NAMES = [name * 8 for name in (b"a", b"b", b"c", b"d")]
HERE = NAMES[0]


def view(name, total, free, labels, alive=True):
    total = {kind: amount * UNIT for kind, amount in total.items()}
    free = {kind: min(total[kind], amount * UNIT) for kind, amount in free.items() if kind in total}
    return NodeView(Address(name, name, ""), 1, alive, total, free, labels, "", 0, (), "")


AMOUNTS = st.fixed_dictionaries({"CPU": st.integers(0, 4), "GPU": st.integers(0, 2)})
NODE = st.tuples(
    AMOUNTS, AMOUNTS, st.fixed_dictionaries({"zone": st.sampled_from("xy")}), st.sampled_from([True] * 4 + [False])
)
CLUSTERS = st.lists(NODE, min_size=1, max_size=4).map(
    lambda rows: [view(name, *row) for name, row in zip(NAMES, rows, strict=False)]
)
DEMANDS = st.fixed_dictionaries({"CPU": st.integers(0, 4 * UNIT)}, optional={"GPU": st.integers(0, 2 * UNIT)})
LABELS = st.one_of(
    st.just({}), st.fixed_dictionaries({"zone": st.sampled_from(["x", "!x", "in(x,y)", "!in(x,y)", "z"])})
)
STRATEGIES = st.one_of(
    st.sampled_from([(), ("default",), ("spread",)]),
    st.tuples(st.just("node"), st.sampled_from([*NAMES, b"gone...."]), st.booleans()),
    st.tuples(st.just("labels"), LABELS, LABELS),
)
LOCALITY = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 9).map(lambda mib: mib << 20)), max_size=3)


@settings(deadline=None, database=None, max_examples=500)
@given(CLUSTERS, DEMANDS, STRATEGIES, LOCALITY, st.integers(0, 9))
def test_a_choice_keeps_the_promise_of_its_strategy(views, demand, strategy, locality, turn):
    chosen = policy.choose(views, HERE, demand, strategy, locality, turn)
    kind = strategy[0] if strategy else "default"
    event(f"{kind}: {'none' if chosen is None else 'here' if chosen == HERE else 'elsewhere'}")
    feasible = [v for v in views if policy.is_feasible(v, demand, strategy)]
    assert (chosen is None) == (not feasible)
    if chosen is None:
        return
    by_id = {v.address.node_id: v for v in views}
    assert by_id[chosen] in feasible
    roomy = [v.address.node_id for v in feasible if fits(demand, v.available)]
    if kind == "node" and strategy[1] in [v.address.node_id for v in feasible]:
        assert chosen == strategy[1]
        return
    if kind == "spread":
        assert chosen == feasible[turn % len(feasible)].address.node_id
        return
    if kind == "labels":
        assert policy.matches_labels(by_id[chosen].labels, strategy[1])
        preferred = [name for name in roomy if policy.matches_labels(by_id[name].labels, strategy[2])]
        roomy = preferred or roomy
    candidates = roomy or [v.address.node_id for v in feasible]
    assert chosen in candidates, "sent where there is no room though there is room"
    near = policy.preferred(locality)
    if near in candidates:
        assert chosen == near
    elif roomy:
        used = {name: policy.used_fraction(by_id[name], demand) for name in roomy}
        least = min(used.values())
        assert used[chosen] == least or used[chosen] < limits.pack_until_fraction
        if used.get(HERE, 1.0) < limits.pack_until_fraction or used.get(HERE) == least:
            assert chosen == HERE, "it was sent away for nothing"
    elif HERE in candidates:
        assert chosen == HERE


@settings(deadline=None, database=None, max_examples=200)
@given(CLUSTERS, DEMANDS)
def test_spread_visits_every_feasible_node_equally_often(views, demand):
    feasible = [v.address.node_id for v in views if policy.is_feasible(v, demand, ("spread",))]
    visits = [policy.choose(views, HERE, demand, ("spread",), (), turn) for turn in range(3 * len(feasible))]
    assert sorted(visits) == sorted(feasible * 3)


@settings(deadline=None, database=None, max_examples=200)
@given(CLUSTERS, DEMANDS, STRATEGIES)
def test_why_something_is_infeasible_names_every_living_node_and_the_demand(views, demand, strategy):
    text = policy.why_infeasible(views, demand, strategy)
    for v in views:
        assert (v.address.node_id.hex()[:8] + " has" in text) == v.alive
    assert ("there is no node" in text) == (not any(v.alive for v in views))


@pytest.mark.parametrize("strategy", [("default",), ("spread",), ("labels", {}, {}), ("node", NAMES[1], True)])
def test_a_dead_node_is_never_chosen(strategy):
    dead = view(NAMES[1], {"CPU": 9}, {"CPU": 9}, {}, alive=False)
    assert policy.choose([dead], HERE, {"CPU": UNIT}, strategy, (), 0) is None
    alive = view(NAMES[2], {"CPU": 1}, {"CPU": 0}, {})
    assert policy.choose([dead, alive], HERE, {"CPU": UNIT}, strategy, (), 0) == NAMES[2]


def test_zero_of_something_that_no_node_has_is_no_demand():
    bare = view(HERE, {"CPU": 1}, {"CPU": 1}, {})
    assert policy.choose([bare], HERE, {"CPU": UNIT, "GPU": 0}, (), (), 0) == HERE
