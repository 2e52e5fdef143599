"""A node that leaves: whom it tells to go and when, what it waits for, and how it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorlib.scheduler.drain import MOVES, Drain, DrainState, End, Leave, Remaining, Resident, show
from actorlib.transport import limits

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


def resident(actor_id=A, can_leave=True, has_room=True, incarnation=0):
    return Resident(actor_id, incarnation, f"Actor-{actor_id[:1].decode()}", can_leave, has_room)


@pytest.fixture
def drain():
    made = Drain()
    assert made.begin(100.0, 40.0, "spot preemption")
    return made


def test_before_it_begins_nothing_is_done():
    drain = Drain()
    assert not drain.is_on and drain.look(1.0, Remaining()) == []


def test_an_empty_node_ends_at_once_and_says_why(drain):
    assert drain.look(100.0, Remaining()) == [End(True, "it was drained (spot preemption)")]
    assert drain.state is DrainState.OVER and drain.look(100.0, Remaining()) == []


@pytest.mark.parametrize("what", ["tasks", "drivers", "underway", "objects"])
def test_it_waits_for_whatever_is_left(drain, what):
    assert drain.look(100.0, Remaining(**{what: 1})) == []
    assert drain.look(101.0, Remaining()) == [End(True, "it was drained (spot preemption)")]


def test_an_actor_leaves_as_soon_as_there_is_room_and_is_told_once(drain):
    assert drain.look(100.0, Remaining([resident(A), resident(B, has_room=False)])) == [Leave(A, 0)]
    assert drain.look(100.1, Remaining([resident(A), resident(B, has_room=False)])) == []
    assert drain.look(100.2, Remaining([resident(B)])) == [Leave(B, 0)]
    assert drain.look(100.3, Remaining([resident(B, incarnation=1)])) == [Leave(B, 1)]  # it came back here


def test_near_the_deadline_all_that_can_leave_do_room_or_not_and_once_more(drain):
    left = Remaining([resident(A), resident(B, has_room=False), resident(C, can_leave=False)])
    assert drain.look(100.0, left) == [Leave(A, 0)]
    assert drain.look(140.0 - limits.drain_closing_s - 0.01, left) == []
    assert drain.look(140.0 - limits.drain_closing_s, left) == [Leave(A, 0), Leave(B, 0)]
    assert drain.look(139.0, left) == []


def test_at_the_deadline_it_ends_and_names_what_it_had(drain):
    left = Remaining([resident(C, can_leave=False)], tasks=2, objects=1)
    had = "the actor Actor-c, 2 running tasks, 1 object"
    text = f"it was drained (spot preemption), and at the deadline it still had {had}"
    assert drain.look(139.9, left) == []
    assert drain.look(140.0, left) == [End(False, text)]


def test_objects_that_nobody_takes_are_not_waited_for_longer_than_others_are_taken(drain):
    patience_s = limits.drain_object_patience_s
    assert drain.look(100.0, Remaining(objects=3)) == []
    assert drain.look(100.0 + patience_s - 1, Remaining(objects=2)) == []  # one has gone
    assert drain.look(100.0 + patience_s + 1, Remaining(objects=2)) == []
    assert drain.look(100.0 + 2 * patience_s, Remaining(objects=2)) == [End(True, "it was drained (spot preemption)")]


def test_of_several_deadlines_the_earliest_counts(drain):
    assert not drain.begin(101.0, 3600.0, "maintenance")
    assert drain.deadline == 140.0
    assert not drain.begin(102.0, 2.0, "now really")
    assert drain.reason == "spot preemption"
    left = Remaining([resident(A, has_room=False)])
    assert drain.look(103.0, left) == [Leave(A, 0)]  # half of a short time is for closing
    assert type(drain.look(104.0, left)[0]) is End


def test_a_deadline_of_zero_ends_it_at_once(drain):
    drain.begin(101.0, 0.0, "now")
    assert drain.look(101.0, Remaining(tasks=1))[0].is_empty is False


def test_what_is_left_is_shown_in_a_sentence():
    actors = [resident(letter * 16) for letter in (b"a", b"b", b"c", b"d", b"e", b"f", b"g")]
    assert show(Remaining(actors)).endswith("the actor Actor-e, 2 more actors")
    assert show(Remaining(drivers=1)) == "1 driver" and show(Remaining()) == "nothing"


@given(
    looks=st.lists(
        st.tuples(
            st.floats(0.0, 5.0),
            st.lists(st.tuples(st.sampled_from([A, B, C]), st.booleans(), st.booleans()), max_size=3),
            st.integers(0, 2),
        ),
        max_size=30,
    ),
    deadline_s=st.floats(0.0, 20.0),
)
def test_it_always_ends_by_its_deadline_and_sends_nobody_off_who_can_not_leave(looks, deadline_s):
    drain, now, ended = Drain(), 0.0, []
    drain.begin(now, deadline_s, "why")
    for wait_s, actors, tasks in looks:
        now += wait_s
        left = Remaining([resident(*actor) for actor in actors], tasks)
        before = drain.state
        effects = drain.look(now, left)
        drain.check()
        assert drain.state is before or drain.state in MOVES[before] or DrainState.CLOSING in MOVES[before]
        ended += [effect for effect in effects if type(effect) is End]
        movable = {(actor.actor_id, 0) for actor in left.actors if actor.can_leave}
        assert {(e.actor_id, e.incarnation) for e in effects if type(e) is Leave} <= movable
        if now >= deadline_s:
            assert ended
    assert len(ended) <= 1
