"""Pulls: given what sources say, exactly what is asked of whom."""

from __future__ import annotations

import pytest

from actorlib.store.pull import Pulls, Urgency
from actorlib.transport import limits
from actorlib.transport.ids import ObjectId
from actorlib.transport.link import Address
from actorlib.transport.messages import (
    Chunk,
    ChunkWanted,
    PullAccepted,
    PullClosed,
    PullOpen,
    PullRedirected,
    PullRefused,
)

A, B, C = (Address(name * 8, name * 8, f"ipc://{name.decode()}") for name in (b"a", b"b", b"c"))
STEP = limits.pull_chunk_bytes
STAMP = 7


class Port:
    """Notes what is asked for."""

    def __init__(self):
        self.log = []
        self.full = ""

    def send(self, node, message):
        self.log.append((node.node_id[:1].decode(), message))

    def begin(self, object_id, size):
        self.log.append(("begin", object_id, size))
        return self.full

    def write(self, object_id, offset, data):
        self.log.append(("write", offset, len(data)))

    def abandon(self, object_id):
        self.log.append(("abandon", object_id))

    def complete(self, object_id):
        self.log.append(("complete", object_id))

    def failed(self, object_id, reason, is_full):
        self.log.append(("failed", object_id, reason, is_full))

    def take(self):
        log, self.log = self.log, []
        return log


@pytest.fixture
def port():
    return Port()


@pytest.fixture
def pulls(port):
    made = Pulls(b"h" * 8, port)
    yield made
    made.check()


def oid(n):
    return ObjectId(b"owner..." + n.to_bytes(12, "big"))


def accept(pulls, node, size, holders=(), object_id=None, stamp=STAMP, now=0.0):
    pulls.accepted(now, node.node_id, PullAccepted(object_id or oid(1), size, stamp, holders))


def send_chunk(pulls, node, offset, length, now=0.0, stamp=STAMP, object_id=None):
    pulls.chunk(now, node.node_id, Chunk(object_id or oid(1), stamp, offset, bytes(length)))
    pulls.check()


def wanted(log):
    return [(entry[0], entry[1].offset) for entry in log if type(entry[1]) is ChunkWanted]


def test_an_object_is_asked_for_taken_in_chunks_and_complete(pulls, port):
    pulls.want(0.0, oid(1), [A], Urgency.GET)
    pulls.want(0.0, oid(1), [A], Urgency.GET)
    assert port.take() == [("a", PullOpen(oid(1), (), None))]
    accept(pulls, A, STEP + 10)
    assert port.take() == [
        ("begin", oid(1), STEP + 10),
        ("a", ChunkWanted(oid(1), 0, STEP)),
        ("a", ChunkWanted(oid(1), STEP, 10)),
    ]
    send_chunk(pulls, A, STEP, 10)
    send_chunk(pulls, A, STEP, 10)  # repeated: ignored
    assert port.take() == [("write", STEP, 10)]
    send_chunk(pulls, A, 0, STEP)
    assert port.take() == [("write", 0, STEP), ("a", PullClosed(oid(1), True)), ("complete", oid(1))]
    assert not pulls.pulls


def test_the_window_grows_while_chunks_come_fast_and_shrinks_when_they_are_late(pulls, port):
    pulls.want(0.0, oid(1), [A], Urgency.GET)
    accept(pulls, A, 100 * STEP)
    assert len(wanted(port.take())) == limits.pull_window_chunks_min
    for number in range(limits.pull_window_chunks_max):
        send_chunk(pulls, A, number * STEP, STEP)
    source = pulls.pulls[oid(1)].sources[A.node_id]
    assert source.window == len(source.outstanding) == limits.pull_window_chunks_max
    late = 2 * limits.pull_slow_s
    for offset in list(source.outstanding):
        send_chunk(pulls, A, offset, STEP, now=late)
    assert source.window == limits.pull_window_chunks_min


def test_credit_goes_to_what_a_get_waits_for_first(pulls, port, monkeypatch):
    monkeypatch.setattr(limits, "pull_bytes_in_flight_max", 3 * STEP)
    for n, urgency in ((1, Urgency.PREFETCH), (2, Urgency.GET)):
        pulls.want(0.0, oid(n), [A], urgency)
    accept(pulls, A, 50 * STEP)
    assert len(wanted(port.take())) == 2
    accept(pulls, A, 50 * STEP, object_id=oid(2))
    assert len(wanted(port.take())) == 1  # what is in flight stays; all that is free is for the get
    send_chunk(pulls, A, 0, STEP)
    (message,) = [entry[1] for entry in port.take() if type(entry[1]) is ChunkWanted]
    assert message.object_id == oid(2)
    pulls.want(0.0, oid(1), [A], Urgency.GET)  # now somebody waits for the first as well, and it came first
    send_chunk(pulls, A, STEP, STEP)
    (message,) = [entry[1] for entry in port.take() if type(entry[1]) is ChunkWanted]
    assert message.object_id == oid(1)


def test_only_so_many_are_open_and_the_urgent_ones_first(pulls, port, monkeypatch):
    monkeypatch.setattr(limits, "pulls_open_max", 1)
    for n, urgency in ((1, Urgency.PREFETCH), (2, Urgency.PREFETCH), (3, Urgency.GET)):
        pulls.want(0.0, oid(n), [A], urgency)
    assert port.take() == [("a", PullOpen(oid(1), (), None))]
    accept(pulls, A, 10)
    send_chunk(pulls, A, 0, 10)
    assert ("a", PullOpen(oid(3), (), None)) in port.take()


def test_a_lost_source_is_replaced_and_what_has_come_stays(pulls, port):
    pulls.want(0.0, oid(1), [A], Urgency.GET)
    accept(pulls, A, 4 * STEP, holders=(B,))
    send_chunk(pulls, A, STEP, STEP)
    port.take()
    pulls.node_lost(1.0, A.node_id)
    assert port.take() == [("b", PullOpen(oid(1), (A.node_id,), None))]
    accept(pulls, B, 4 * STEP)
    assert sorted(offset for _, offset in wanted(port.take()))[:2] == [0, 2 * STEP]  # not what is here
    for offset in (0, 2 * STEP, 3 * STEP):
        send_chunk(pulls, B, offset, STEP)
    assert port.take()[-1] == ("complete", oid(1))


def test_a_source_with_other_bytes_is_not_mixed_in(pulls, port):
    pulls.want(0.0, oid(1), [A], Urgency.GET)
    accept(pulls, A, 2 * STEP, holders=(B,))
    send_chunk(pulls, A, 0, STEP)
    pulls.refused(0.0, A.node_id, PullRefused(oid(1), "freed"))
    port.take()
    accept(pulls, B, 2 * STEP, stamp=STAMP + 1)
    assert port.take() == [
        ("abandon", oid(1)),
        ("begin", oid(1), 2 * STEP),
        ("b", ChunkWanted(oid(1), 0, STEP)),
        ("b", ChunkWanted(oid(1), STEP, STEP)),
    ]
    send_chunk(pulls, B, 0, STEP, stamp=STAMP)  # late, of the other version
    assert port.take() == []


def test_large_objects_come_from_two_nodes_at_once(pulls, port, monkeypatch):
    monkeypatch.setattr(limits, "pull_second_source_bytes_min", 4 * STEP)
    pulls.want(0.0, oid(1), [A], Urgency.GET)
    accept(pulls, A, 8 * STEP, holders=(B,))
    assert ("b", PullOpen(oid(1), (), None)) in port.take()
    accept(pulls, B, 8 * STEP)
    assert {node for node, _ in wanted(port.take())} == {"b"}
    sources = pulls.pulls[oid(1)].sources
    assert len(sources[A.node_id].outstanding) == len(sources[B.node_id].outstanding) == 2
    pulls.node_lost(0.0, B.node_id)
    for offset in range(0, 8 * STEP, STEP):
        send_chunk(pulls, A, offset, STEP)
    assert port.take()[-1] == ("complete", oid(1))


def test_a_redirect_is_followed_and_the_first_is_asked_again_if_that_fails(pulls, port):
    pulls.want(0.0, oid(1), [A], Urgency.GET)
    pulls.redirected(0.0, A.node_id, PullRedirected(oid(1), (B, C)))
    pulls.refused(0.0, B.node_id, PullRefused(oid(1), "gone"))
    pulls.refused(0.0, C.node_id, PullRefused(oid(1), "gone"))
    opened = [(node, message.avoid) for node, message in port.take()]
    assert opened == [("a", ()), ("b", ()), ("c", (B.node_id,)), ("a", (B.node_id, C.node_id))]
    pulls.refused(0.0, A.node_id, PullRefused(oid(1), "freed"))
    assert port.take()[-1] == ("failed", oid(1), "freed", False)


def test_silence_makes_it_look_elsewhere_but_never_fail(pulls, port):
    pulls.want(0.0, oid(1), [A], Urgency.GET)
    late = limits.pull_answer_timeout_s + 1
    pulls.tick(late)
    pulls.tick(2 * late)
    assert port.take() == [("a", PullOpen(oid(1), (), None))] * 3
    accept(pulls, A, 2 * STEP, holders=(B,), now=2 * late)
    port.take()
    pulls.tick(4 * late)
    assert port.take() == [("b", PullOpen(oid(1), (A.node_id,), None))]


def test_no_room_is_told_as_such(pulls, port):
    port.full = "no room"
    pulls.want(0.0, oid(1), [A], Urgency.GET)
    accept(pulls, A, STEP)
    assert port.take()[-1] == ("failed", oid(1), "no room", True)


def test_a_chunk_of_another_length_is_not_believed(pulls, port):
    pulls.want(0.0, oid(1), [A], Urgency.GET)
    accept(pulls, A, STEP, holders=(B,))
    send_chunk(pulls, A, 0, STEP - 1)
    log = port.take()
    assert ("b", PullOpen(oid(1), (A.node_id,), None)) in log and not any(entry[0] == "write" for entry in log)


def test_an_object_freed_meanwhile_is_given_up(pulls, port):
    pulls.want(0.0, oid(1), [A], Urgency.GET)
    accept(pulls, A, STEP)
    port.take()
    pulls.drop(oid(1), "it was freed")
    assert port.take() == [
        ("abandon", oid(1)),
        ("a", PullClosed(oid(1), False)),
        ("failed", oid(1), "it was freed", False),
    ]
