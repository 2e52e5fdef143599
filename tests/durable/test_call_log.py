"""The core of durable actors: positions, what is known of callers, what a log tells after a crash."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.runtime.call_log import CallLog, Known, Recovery, Reply
from actorlib.runtime.call_log_format import ANSWERED, CALL, GONE, HEAD, LEARNED, SETTLED, SKIPPED, decode, encode
from actorlib.transport import limits

A, B = b"caller-a", b"caller-b"
NO_ARGS = (b"", (), 1, None)
DONE = Reply(0, (b"value",), ())


def run(log, caller, sequence):
    position = log.begin(caller, sequence, "add", NO_ARGS, 0)
    log.finish(caller, sequence, DONE)
    return position


def test_calls_get_positions_and_their_replies_are_kept_until_settled():
    log = CallLog()
    log.position = 0
    assert [run(log, A, 0), run(log, B, 5), run(log, A, 1)] == [1, 2, 3]
    assert log.known(A, 0) is Known.ANSWERED
    assert log.known(A, 2) is Known.NEW
    assert log.reply_to(B, 5) == DONE
    log.settled(A, 0)
    assert log.known(A, 0) is Known.SETTLED
    assert log.known(A, 1) is Known.ANSWERED
    log.callers[A].waiting[2] = "queued"
    assert log.known(A, 2) is Known.WAITS
    assert [record[0] for record in log.take()] == [CALL, CALL, CALL, SETTLED]
    assert log.take() == []
    log.check()


def test_a_caller_that_has_seen_more_is_behind_unless_that_call_is_being_run_again():
    log = CallLog()
    run(log, A, 3)
    log.seen(A, 3)
    assert not log.callers[A].is_behind
    log.callers[A].waiting[4] = "unfinished"
    log.seen(A, 4)
    assert not log.callers[A].is_behind
    log.seen(A, 5)
    assert log.callers[A].is_behind


def test_what_could_not_be_written_stays_in_front():
    log = CallLog()
    run(log, A, 0)
    records = log.take()
    run(log, A, 1)
    log.put_back(records)
    assert [record[3] for record in log.take()] == [0, 1]


def test_the_table_comes_back_as_it_was():
    log = CallLog()
    run(log, A, 7)
    log.settled(A, 6)
    log.gone(B)
    other = CallLog()
    other.load_table(log.table())
    assert other.known(A, 6) is Known.SETTLED
    assert other.reply_to(A, 7) == DONE


def test_limits_ask_for_a_checkpoint_and_then_push_back(monkeypatch):
    monkeypatch.setattr(limits, "call_log_bytes_max", 1000)
    log = CallLog()
    assert not log.wants_checkpoint()
    log.begin(A, 0, "add", NO_ARGS, 500)
    assert log.wants_checkpoint() and not log.is_full()
    log.learn("get", b"", b"", 500)
    assert log.is_full()


def test_recovery_gives_calls_after_the_checkpoint_with_what_they_learned():
    records = [
        (HEAD, 1, b"actor", 2, "code", "boot", "worker"),
        (CALL, 0, A, 0, "zero", *NO_ARGS),
        (LEARNED, "get", b"old", b"0"),
        (CALL, 1, A, 1, "one", *NO_ARGS),
        (LEARNED, "get", b"oid", b"1"),
        (LEARNED, "wait", 2, (0,)),
        (CALL, 2, B, 0, "two", *NO_ARGS),
        (SKIPPED, 2, "it crashed"),
        (SETTLED, A, 0),
        (ANSWERED, B, 1, 3, (b"no",)),
        (GONE, B),
    ]
    recovery = Recovery(records, 0)
    assert [(c.position, c.target, list(c.inputs)) for c in recovery.calls] == [
        (1, "one", [("get", b"oid", b"1"), ("wait", 2, (0,))]),
        (2, "two", []),
    ]
    assert recovery.calls[1].skipped == "it crashed"
    assert recovery.answered == [(B, 1, Reply(3, (b"no",), ()))]
    assert recovery.is_settled(A, 0) and not recovery.is_settled(A, 1) and recovery.is_settled(B, 9)
    assert recovery.head is not None and recovery.head[3] == 2 and recovery.hole is None


def test_a_hole_ends_recovery_and_what_was_written_twice_counts_once():
    calls = [(CALL, n, A, n, "add", *NO_ARGS) for n in (1, 2, 2, 3, 5, 6)]
    recovery = Recovery(calls, 0)
    assert [call.position for call in recovery.calls] == [1, 2, 3]
    assert recovery.hole == 4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.binary(max_size=30), min_size=1, max_size=4), max_size=6),
    st.integers(0, 1000),
    st.randoms(use_true_random=False),
)
def test_a_torn_segment_gives_whole_batches_and_nothing_else(batches, number, rng: random.Random):
    written = [[(LEARNED, "get", b"k", data) for data in batch] for batch in batches]
    parts = [encode(batch, number) for batch in written]
    data = b"".join(parts)
    cut = rng.randrange(len(data) + 1)
    torn = data[:cut] + rng.randbytes(rng.randrange(20))
    found, end = decode(torn, number)
    whole = 0
    while whole < len(parts) and sum(map(len, parts[: whole + 1])) <= cut:
        whole += 1
    assert found == [record for batch in written[:whole] for record in batch]
    assert end == sum(map(len, parts[:whole]))
    if data:
        assert decode(data, number + 1) == ([], 0)  # of another segment, in a file that is used again
