"""Suspicion, loss and fences: the exact effects, the observer's own pauses, and a simpler model on random histories."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actorlib.transport import limits
from actorlib.transport.failure_detector import (
    MOVES,
    NEVER,
    Change,
    FailureDetector,
    IllegalMove,
    Peer,
    PeerState,
    Verdict,
)

ALIVE, SUSPECTED, LOST = PeerState.ALIVE, PeerState.SUSPECTED, PeerState.LOST
A, B = b"a", b"b"


def detector() -> FailureDetector:
    return FailureDetector(suspect_after_s=3.0, lost_after_s=8.0, heartbeat_period_s=0.5, local_pause_s=1.5)


def watch(subject: FailureDetector, start: float, stop: float) -> list[tuple[float, Change]]:
    """Tick as an observer does that is awake; what changed, and when."""
    changes, now = [], start
    while now <= stop:
        changes += [(now, change) for change in subject.tick(now)]
        subject.check(now)
        now += 0.5
    return changes


# -- the table ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("old", "new"), [*itertools.product(PeerState, PeerState)])
def test_only_listed_moves_are_made_and_others_raise_with_the_story(old, new):
    peer = Peer(A, 1, 0.0)
    peer.state = old
    if new in MOVES[old]:
        assert peer.move(1.0, new, "a test") == Change(A, old, new)
        assert peer.state is new
    else:
        with pytest.raises(IllegalMove, match=r"alive, epoch 1"):
            peer.move(1.0, new, "a test")
        assert peer.state is old


def test_loss_is_final():
    assert MOVES[LOST] == set()
    assert set(MOVES) == set(PeerState)


def test_the_defaults_are_the_limits():
    subject = FailureDetector()
    subject.heard(0.0, A, 1)
    changes = watch(subject, 0.0, 20.0)
    suspected_at = limits.node_suspected_after_s
    assert changes == [(suspected_at, (A, ALIVE, SUSPECTED)), (limits.node_lost_after_s, (A, SUSPECTED, LOST))]
    assert limits.node_lost_after_s + limits.heartbeat_period_s <= 10.0  # what a silent partition may take


@pytest.mark.parametrize("times", [(3.0, 3.0, 0.5, 1.5), (0.5, 8.0, 0.5, 1.5), (3.0, 8.0, 0.5, 0.5), (3, 8, 0, 1)])
def test_times_that_make_no_sense_are_refused(times):
    with pytest.raises(ValueError, match="needed"):
        FailureDetector(*times)


# -- one life ----------------------------------------------------------------------------------------------------------
def test_silence_makes_suspected_and_then_lost():
    subject = detector()
    assert subject.heard(0.0, A, 1) is Verdict.NEW
    assert watch(subject, 0.5, 20.0) == [(3.0, (A, ALIVE, SUSPECTED)), (8.0, (A, SUSPECTED, LOST))]
    assert subject.state(A) is LOST
    assert not subject.is_current(A, 1)
    assert subject.next_deadline() == NEVER


def test_who_is_heard_stays_alive():
    subject = detector()
    for beat in range(100):
        now = beat * 0.5
        assert subject.heard(now, A, 1) is (Verdict.HEARD if beat else Verdict.NEW)
        assert subject.tick(now) == []
    assert subject.is_current(A, 1)


def test_a_suspicion_is_undone_by_a_sign_of_life_and_silence_counts_from_there():
    subject = detector()
    subject.heard(0.0, A, 1)
    assert watch(subject, 0.5, 7.5) == [(3.0, (A, ALIVE, SUSPECTED))]
    assert subject.is_current(A, 1)  # a suspicion takes nothing away
    assert subject.heard(7.9, A, 1) is Verdict.RECOVERED
    assert watch(subject, 8.0, 10.5) == []
    assert watch(subject, 11.0, 20.0) == [(11.0, (A, ALIVE, SUSPECTED)), (16.0, (A, SUSPECTED, LOST))]


def test_changes_come_in_the_order_of_admission():
    subject = detector()
    for name in (b"z", b"y", b"x"):
        subject.heard(0.0, name, 1)
    assert [change.peer for _, change in watch(subject, 0.5, 3.0)] == [b"z", b"y", b"x"]


def test_a_sign_of_life_that_is_handed_in_late_does_not_shorten_the_silence_allowed():
    subject = detector()
    subject.heard(5.0, A, 1)
    assert subject.heard(4.0, A, 1) is Verdict.HEARD
    assert watch(subject, 5.5, 7.5) == []


def test_known_deaths_need_no_silence():
    subject = detector()
    subject.heard(0.0, A, 4)
    assert subject.declare_lost(0.1, A, 3, "an older life") is None
    assert subject.declare_lost(0.1, A, 4, "its process died") == (A, ALIVE, LOST)
    assert subject.declare_lost(0.1, A, 4, "its process died") is None
    assert subject.declare_lost(0.1, B, 1, "never seen") is None
    assert subject.heard(0.2, A, 4) is Verdict.FENCED
    assert "its process died" in subject.story(A)[-1]


# -- fences ------------------------------------------------------------------------------------------------------------
def test_what_was_lost_is_fenced_under_its_epoch_and_older_ones_and_may_come_back_under_a_higher_one():
    subject = detector()
    subject.heard(0.0, A, 5)
    watch(subject, 0.5, 8.0)
    for epoch in (5, 4, 0):
        assert subject.heard(9.0, A, epoch) is Verdict.FENCED
        assert not subject.is_current(A, epoch)
    assert subject.state(A) is LOST
    assert subject.heard(9.0, A, 6) is Verdict.NEW
    assert subject.is_current(A, 6)
    assert not subject.is_current(A, 5)
    assert subject.heard(9.1, A, 5) is Verdict.FENCED  # and costs the new life nothing
    assert subject.state(A) is ALIVE
    subject.check(9.1)


def test_a_higher_epoch_replaces_a_life_that_goes_on():
    subject = detector()
    subject.heard(0.0, A, 1)
    assert subject.heard(1.0, A, 2) is Verdict.REPLACED
    assert subject.heard(1.1, A, 1) is Verdict.FENCED
    assert not subject.is_current(A, 1)
    assert watch(subject, 1.5, 9.0) == [(4.0, (A, ALIVE, SUSPECTED)), (9.0, (A, SUSPECTED, LOST))]


@pytest.mark.parametrize("until", [0.5, 4.0, 9.0], ids=["alive", "suspected", "lost"])
def test_to_forget_a_peer_is_to_remember_its_fence(until):
    subject = detector()
    subject.heard(0.0, A, 3)
    watch(subject, 0.5, until)
    subject.forget(A)
    assert subject.state(A) is None
    assert subject.next_deadline() == NEVER
    assert watch(subject, until, until + 20) == []
    assert subject.heard(until, A, 3) is Verdict.FENCED
    assert subject.heard(until, A, 4) is Verdict.NEW
    subject.forget(b"never seen")
    subject.check()


def test_fences_are_bounded_and_what_is_merged_stays_fenced(monkeypatch):
    monkeypatch.setattr(limits, "fences_kept_max", 3)
    subject = detector()
    names = [bytes([number]) for number in range(10)]
    for epoch, name in enumerate(names, start=1):
        subject.heard(0.0, name, epoch)
        subject.declare_lost(0.0, name, epoch, "a test")
        subject.check()
    for epoch, name in enumerate(names, start=1):
        assert subject.heard(1.0, name, epoch) is Verdict.FENCED
    assert subject.heard(1.0, b"a stranger", 7) is Verdict.FENCED  # errs on the safe side: it asks for a higher epoch
    assert subject.heard(1.0, b"a stranger", 11) is Verdict.NEW
    assert subject.heard(1.0, names[0], 11) is Verdict.NEW


# -- the observer's own pauses -----------------------------------------------------------------------------------------
def test_after_a_pause_of_the_observer_nobody_is_lost_and_everybody_has_a_fresh_period():
    subject = detector()
    subject.heard(0.0, A, 1)
    assert watch(subject, 0.5, 2.5) == []
    assert subject.tick(60.0) == []
    assert watch(subject, 60.5, 100.0) == [(63.0, (A, ALIVE, SUSPECTED)), (68.0, (A, SUSPECTED, LOST))]


def test_a_suspected_peer_is_suspected_after_the_pause_as_well_and_has_the_rest_of_its_time():
    subject = detector()
    subject.heard(0.0, A, 1)
    watch(subject, 0.5, 7.5)
    assert subject.state(A) is SUSPECTED
    assert subject.tick(60.0) == []
    assert subject.state(A) is SUSPECTED
    assert watch(subject, 60.5, 100.0) == [(65.0, (A, SUSPECTED, LOST))]


def test_what_is_heard_before_the_first_tick_after_a_pause_does_not_hide_the_pause_from_the_others():
    subject = detector()
    subject.heard(0.0, A, 1)
    subject.heard(0.0, B, 1)
    watch(subject, 0.5, 1.0)
    subject.heard(60.0, A, 1)
    assert subject.tick(60.0) == []
    assert subject.state(B) is ALIVE


def test_a_delay_within_the_allowance_is_no_pause():
    subject = detector()
    subject.heard(0.0, A, 1)
    watch(subject, 0.5, 2.0)
    assert subject.tick(3.5) == [(A, ALIVE, SUSPECTED)]


def test_to_have_watched_nobody_is_no_pause():
    subject = detector()
    subject.heard(0.0, A, 1)
    watch(subject, 0.5, 1.0)
    subject.forget(A)
    subject.heard(1000.0, B, 1)
    assert watch(subject, 1000.5, 1010.0) == [(1003.0, (B, ALIVE, SUSPECTED)), (1008.0, (B, SUSPECTED, LOST))]


def test_an_observer_that_always_sleeps_notices_all_the_same_and_a_sign_of_life_renews_the_excuses():
    subject = detector()
    subject.heard(0.0, A, 1)
    for number in range(1, limits.local_pause_graces_max + 1):
        assert subject.tick(number * 100.0) == []
    subject.heard(301.0, A, 1)
    for number in range(4, 4 + limits.local_pause_graces_max):
        assert subject.tick(number * 100.0) == []
    assert subject.tick(700.0) == [(A, ALIVE, SUSPECTED)]  # by one step
    assert subject.tick(800.0) == [(A, SUSPECTED, LOST)]


def test_next_deadline_is_a_heartbeat_away_or_what_is_due_before():
    subject = detector()
    assert subject.next_deadline() == NEVER
    subject.heard(0.0, A, 1)
    assert subject.next_deadline() == 0.5
    subject.tick(0.5)
    assert subject.next_deadline() == 1.0
    for now in (1.0, 1.5, 2.0, 2.5, 2.8):
        subject.tick(now)
    assert subject.next_deadline() == 3.0  # the suspicion of A, not 3.3


# -- a simpler model on random histories -------------------------------------------------------------------------------
class Model:
    """The same promise, by looking through the whole history each time instead of keeping states."""

    def __init__(self) -> None:
        self.over: dict[bytes, int] = {}  # highest epoch that is over
        self.lives: dict[bytes, int] = {}
        self.state: dict[bytes, tuple[PeerState, float, int]] = {}  # with since when, and graces
        self.last_tick = 0.0

    def heard(self, now, peer, epoch):
        if peer in self.lives and epoch == self.lives[peer]:
            was = self.state[peer][0]
            self.state[peer] = (ALIVE, now, 0)
            return Verdict.RECOVERED if was is SUSPECTED else Verdict.HEARD
        if epoch <= max(self.over.get(peer, -1), self.lives.get(peer, -1)):
            return Verdict.FENCED
        verdict = Verdict.REPLACED if peer in self.lives else Verdict.NEW
        if not self.lives:
            self.last_tick = now
        self.end(peer)
        self.lives[peer] = epoch
        self.state[peer] = (ALIVE, now, 0)
        return verdict

    def end(self, peer):
        if peer in self.lives:
            self.over[peer] = max(self.over.get(peer, -1), self.lives.pop(peer))
            del self.state[peer]

    def tick(self, now):
        asleep = now - self.last_tick > 1.5
        self.last_tick = now
        changes = set()
        for peer, (state, since, graces) in list(self.state.items()):
            if asleep and graces < limits.local_pause_graces_max:
                self.state[peer] = (state, now, graces + 1)
            elif state is ALIVE and now - since >= 3.0:
                self.state[peer] = (SUSPECTED, now, graces)
                changes.add((peer, ALIVE, SUSPECTED))
            elif state is SUSPECTED and now - since >= 5.0:
                self.end(peer)
                changes.add((peer, SUSPECTED, LOST))
        return changes


PEERS = st.sampled_from([A, B, b"c"])
STEPS = st.one_of(
    st.tuples(st.just("heard"), PEERS, st.integers(0, 3)),
    st.tuples(st.just("ticks"), st.integers(1, 24), st.none()),
    st.tuples(st.just("pause"), st.integers(4, 200), st.none()),
    st.tuples(st.just("forget"), PEERS, st.none()),
    st.tuples(st.just("lost"), PEERS, st.integers(0, 3)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_random_histories_agree_with_the_model_and_no_life_ends_twice(steps):
    subject, model, now = detector(), Model(), 0.0
    ended: set[tuple[bytes, int]] = set()
    for kind, first, second in steps:
        if kind == "heard":
            verdict = subject.heard(now, first, second)
            assert verdict is model.heard(now, first, second)
            assert verdict is Verdict.FENCED or (first, second) not in ended
        elif kind == "forget":
            ended |= {(first, epoch) for epoch in range(model.lives.get(first, -1) + 1)}
            subject.forget(first)
            model.end(first)
        elif kind == "lost":
            change = subject.declare_lost(now, first, second, "told")
            assert (change is not None) == (model.lives.get(first) == second)
            if change is not None:
                model.end(first)
                ended.add((first, second))
        for _ in range(first if kind == "ticks" else 1):
            now += first * 0.5 if kind == "pause" else 0.5
            lives = dict(model.lives)
            changes = subject.tick(now)
            assert set(changes) == model.tick(now)
            ended |= {(change.peer, lives[change.peer]) for change in changes if change.new is LOST}
            subject.check(now)
        for peer, epoch in itertools.product((A, B, b"c"), range(4)):
            assert subject.is_current(peer, epoch) == (model.lives.get(peer) == epoch)
            assert not (subject.is_current(peer, epoch) and (peer, epoch) in ended)


@settings(max_examples=200, deadline=None)
@example([1.4, 2.0, 2.0, 2.0, 2.0, 2.0, 0.1, 0.1, 1.4, 1.4, 2.0])  # sums that are no exact numbers
@given(st.lists(st.sampled_from([0.1, 0.5, 1.4, 2.0, 30.0]), min_size=1, max_size=80))
def test_whatever_the_gaps_between_ticks_nobody_is_lost_without_a_suspicion_that_lasted(gaps):
    subject, now, suspected_at = detector(), 0.0, None
    subject.heard(0.0, A, 1)
    for gap in gaps:
        now += gap
        changes = subject.tick(now)
        assert len(changes) <= 1
        if changes == [(A, ALIVE, SUSPECTED)]:
            assert now >= 3.0
            suspected_at = now
        elif changes:
            assert suspected_at is not None and now - suspected_at >= 5.0 - 1e-9
        subject.check(now)
