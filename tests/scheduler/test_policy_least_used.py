"""The quick way of the DEFAULT policy chooses what the whole search would."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.scheduler import policy
from actorlib.transport.link import Address
from actorlib.transport.messages import NodeView


def by_definition(views, here, demand):
    """Of all nodes that have room, the one that ranks lowest; where none has, wait here, or where it could ever run."""
    feasible = [view for view in views if policy.is_feasible(view, demand, ("default",))]
    roomy = [view for view in feasible if policy.fits(demand, view.available)]
    if roomy:
        return min(roomy, key=lambda view: policy._rank(view, demand, here)).address.node_id
    ids = [view.address.node_id for view in feasible]
    return (here if here in ids else ids[0]) if ids else None


@st.composite
def clusters(draw):
    views = []
    for number in range(draw(st.integers(0, 6))):
        total = draw(st.integers(0, 4)) * 10_000
        free = draw(st.integers(0, total))
        address = Address(bytes([number]), bytes([number]), "")
        views.append(NodeView(address, 1, draw(st.booleans()), {"CPU": total}, {"CPU": free}, {}, "", 0, (), ""))
    return views


@settings(max_examples=300, deadline=None, database=None)
@given(clusters(), st.integers(0, 6), st.integers(0, 8))
def test_it_agrees_with_the_definition(views, here, halves):
    demand = {"CPU": halves * 5_000}
    expected = by_definition(views, bytes([here]), demand)
    assert policy.choose(views, bytes([here]), demand, ("default",), (), 0) == expected
