"""Sessions over a network that loses, repeats and reorders."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.transport import limits
from actorlib.transport.session import HEADER_BYTES, NewSession, Session


def body_of(frames):
    return frames[0][HEADER_BYTES:]


def test_in_the_good_case_each_batch_is_delivered_at_once_and_acknowledged_with_the_next():
    a, b = Session(7), Session()
    first = a.outgoing(0.0, [b"one"], 3)
    assert [body_of(f) for f in b.incoming(0.0, first[0], first)] == [b"one"]
    back = b.outgoing(0.0, [b"two"], 3)
    assert [body_of(f) for f in a.incoming(0.0, back[0], back)] == [b"two"]
    assert a.next_deadline() == limits.session_ack_delay_s  # nothing left to resend, one acknowledgement owed
    a.check()
    b.check()


def test_a_repeated_batch_and_one_of_an_earlier_session_are_dropped_a_later_session_is_told():
    a, b = Session(7), Session()
    frames = a.outgoing(0.0, [b"x"], 1)
    assert b.incoming(0.0, frames[0], frames)
    assert b.incoming(0.0, frames[0], frames) == []
    earlier = Session(6).outgoing(0.0, [b"y"], 1)
    assert b.incoming(0.0, earlier[0], earlier) == []
    later = Session(8).outgoing(0.0, [b"y"], 1)
    with pytest.raises(NewSession):
        b.incoming(0.0, later[0], later)


def test_batches_wait_for_their_turn():
    a, b = Session(7), Session()
    one, two, three = (a.outgoing(0.0, [name], 1) for name in (b"1", b"2", b"3"))
    assert b.incoming(0.0, three[0], three) == []
    assert b.incoming(0.0, two[0], two) == []
    assert [body_of(f) for f in b.incoming(0.0, one[0], one)] == [b"1", b"2", b"3"]


def test_what_is_not_acknowledged_is_sent_again_ever_more_rarely():
    a = Session(7)
    frames = a.outgoing(0.0, [b"x"], 1)
    assert a.on_timer(limits.session_resend_after_s - 0.1) == []
    assert a.on_timer(limits.session_resend_after_s) == [frames]
    assert a.next_deadline() == limits.session_resend_after_s * 3


def test_credit():
    a = Session(7)
    for _ in range(limits.session_batches_in_flight_max):
        assert a.has_credit()
        a.outgoing(0.0, [b"x"], 1)
    assert not a.has_credit()
    b = Session(7)
    b.outgoing(0.0, [b"x"], limits.session_bytes_in_flight_max)
    assert not b.has_credit()


@settings(max_examples=60, deadline=None, database=None)
@given(st.integers(0, 1 << 32), st.integers(1, 60), st.floats(0, 0.5), st.floats(0, 0.5))
def test_everything_arrives_once_and_in_order(seed, count, loss, duplication):
    rng = random.Random(seed)  # not Hypothesis' own, which would find the network that loses everything for ever
    ends = {"a": Session(99), "b": Session()}
    delivered = {"a": [], "b": []}
    sent = {"a": 0, "b": 0}
    wire: list[tuple[str, list[bytes]]] = []

    def put(to, frames):
        if rng.random() >= loss:
            wire.insert(rng.randrange(len(wire) + 1), (to, frames))
            if rng.random() < duplication:
                wire.insert(rng.randrange(len(wire) + 1), (to, frames))

    now = 0.0
    for _ in range(20_000):
        for name, other in (("a", "b"), ("b", "a")):
            may_speak = name == "a" or ends["b"].nonce
            if may_speak and sent[name] < count and ends[name].has_credit() and rng.random() < 0.3:
                put(other, ends[name].outgoing(now, [b"%d" % sent[name]], 1))
                sent[name] += 1
            for frames in ends[name].on_timer(now):
                put(other, frames)
        if wire and rng.random() < 0.7:
            to, frames = wire.pop(0)
            for batch in ends[to].incoming(now, frames[0], frames):
                delivered[to].append(int(body_of(batch)))
        for end in ends.values():
            end.check()
        now += 0.05
        if all(len(got) == count for got in delivered.values()):
            break
    assert delivered == {"a": list(range(count)), "b": list(range(count))}
