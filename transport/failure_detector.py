"""Who is alive: silence makes a peer suspected and then lost, and what was lost never acts again under its old epoch.

**Theory of operation.** Every peer lives one life at a time, and a life has an *epoch*: a number that whoever admits
the peer (the GCS, for nodes) raises with each admission. A sign of life is ``heard``. Silence of ``suspect_after_s``
makes the peer SUSPECTED, which a sign of life undoes; a suspicion that has lasted ``lost_after_s - suspect_after_s``
makes it LOST, which nothing undoes. Whatever comes later under that epoch, or an older one, is FENCED: the observer
has given the peer's work to others, so the peer must not act on it. It may come back under a higher epoch, as a new
life that has inherited nothing.

**Who may be wrong.** A suspicion may: that is why it can be undone and costs nobody anything. A loss may be wrong as
well, because a partition looks like a death from outside. The fence makes that harmless: right or wrong, the old life
is over for everybody who asks ``is_current``.

**Local pause.** Silence is evidence against a peer only if the observer was listening. The observer has to call
``tick`` once in ``heartbeat_period_s``; when a tick comes more than ``local_pause_s`` after the one before, it was the
observer that slept (a stopped process, a suspended machine, a long collection of garbage). Then that tick moves
nobody and gives everybody a fresh period: the living the whole of ``suspect_after_s``, the suspected the whole of what
remains between suspicion and loss. An observer that sleeps all the time would never notice anything so, so one peer is
excused ``limits.local_pause_graces_max`` times in a row. Even then no tick moves a peer by two steps.

**Limits.** Fences outlive their peers, also those that were forgotten. Of more than ``limits.fences_kept_max`` the
oldest are merged into one floor: a peer that nobody remembers is fenced up to the highest epoch among them. That errs
on the safe side; the peer has itself admitted again under a higher epoch.

Pure: no clock, no I/O, no randomness. One ``tick`` costs a look at each watched peer.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import NamedTuple

from actorlib.transport import limits

NEVER = float("inf")


class PeerState(enum.Enum):
    ALIVE = "alive"
    SUSPECTED = "suspected"
    LOST = "lost"


MOVES: dict[PeerState, set[PeerState]] = {
    PeerState.ALIVE: {PeerState.SUSPECTED, PeerState.LOST},  # lost at once: somebody knows that it died
    PeerState.SUSPECTED: {PeerState.ALIVE, PeerState.LOST},
    PeerState.LOST: set(),
}


class Verdict(enum.Enum):
    """What a sign of life meant."""

    NEW = "new"
    """The first of this peer, or the first since its last life ended."""
    REPLACED = "replaced"
    """A higher epoch than that of a life which had not ended: that one is over now, let go of what was held for it."""
    HEARD = "heard"
    RECOVERED = "recovered"
    """It was suspected, wrongly."""
    FENCED = "fenced"
    """Of a life that is over: refuse what it asks, and tell it."""


class Change(NamedTuple):
    peer: bytes
    old: PeerState
    new: PeerState


class IllegalMove(Exception):
    """A peer went where it must not; the story tells how."""


class Peer:
    """One life of one peer."""

    __slots__ = ("epoch", "graces", "name", "since", "state", "story")

    def __init__(self, name: bytes, epoch: int, now: float) -> None:
        self.name = name
        self.epoch = epoch
        self.state = PeerState.ALIVE
        self.since = now  # silence (ALIVE) or suspicion (SUSPECTED) counts from here
        self.graces = 0  # pauses that excused it since it was heard
        self.story: deque[str] = deque([f"{now:.3f} alive, epoch {epoch}"], maxlen=limits.peer_story_max)

    def move(self, now: float, state: PeerState, cause: str) -> Change:
        if state not in MOVES[self.state]:
            told = "; ".join(self.story)
            raise IllegalMove(f"peer {self.name.hex()}: {self.state.value} -> {state.value} ({cause}); story: {told}")
        change = Change(self.name, self.state, state)
        self.state = state
        self.since = now
        self.story.append(f"{now:.3f} {state.value}: {cause}")
        return change


class FailureDetector:
    """All peers that one process watches. See the module's docstring.

    Args:
        suspect_after_s: Silence that makes a peer suspected.
        lost_after_s: Silence that makes it lost; longer than ``suspect_after_s``.
        heartbeat_period_s: The observer promises to tick this often while it watches anybody.
        local_pause_s: A gap between ticks above which the observer itself was asleep.

    Example:
        >>> detector = FailureDetector(suspect_after_s=3.0, lost_after_s=8.0)
        >>> detector.heard(0.0, b"node", epoch=1)
        <Verdict.NEW: 'new'>
    """

    def __init__(
        self,
        suspect_after_s: float = limits.node_suspected_after_s,
        lost_after_s: float = limits.node_lost_after_s,
        heartbeat_period_s: float = limits.heartbeat_period_s,
        local_pause_s: float = limits.local_pause_s,
    ) -> None:
        if not 0 < heartbeat_period_s < local_pause_s or not heartbeat_period_s < suspect_after_s < lost_after_s:
            raise ValueError("needed: heartbeat_period_s < local_pause_s, heartbeat_period_s < suspect_after_s < lost")
        self._suspect_after_s = suspect_after_s
        self._suspicion_s = lost_after_s - suspect_after_s
        self._period_s = heartbeat_period_s
        self._pause_s = local_pause_s
        self._watched: dict[bytes, Peer] = {}  # ALIVE or SUSPECTED
        self._lost: dict[bytes, Peer] = {}  # until forgotten or back
        self._fences: dict[bytes, int] = {}  # the highest epoch of a peer that is over, oldest fence first
        self._floor: int | None = None  # the same for peers whose fences were merged
        self._ticked_at = 0.0

    # -- events --------------------------------------------------------------------------------------------------------
    def heard(self, now: float, peer: bytes, epoch: int) -> Verdict:
        """A sign of life of ``peer`` under ``epoch``."""
        known = self._watched.get(peer)
        if known is None:
            if self._is_fenced(peer, epoch):
                return Verdict.FENCED
            return self._admit(now, peer, epoch, Verdict.NEW)
        if epoch < known.epoch:
            return Verdict.FENCED
        if epoch > known.epoch:
            return self._admit(now, peer, epoch, Verdict.REPLACED)  # whose epoch is fence enough for the older ones
        known.graces = 0
        if known.state is PeerState.SUSPECTED:
            known.move(now, PeerState.ALIVE, "heard again")
            return Verdict.RECOVERED
        known.since = max(known.since, now)
        return Verdict.HEARD

    def tick(self, now: float) -> list[Change]:
        """Draw the conclusions that are due, in the order in which the peers were admitted."""
        asleep = now - self._ticked_at > self._pause_s
        self._ticked_at = max(self._ticked_at, now)
        changes: list[Change] = []
        for peer in list(self._watched.values()):
            if asleep and peer.graces < limits.local_pause_graces_max:
                peer.graces += 1
                peer.since = max(peer.since, now)
            elif now >= self._due_at(peer):
                changes.append(self._conclude(now, peer))
        return changes

    def declare_lost(self, now: float, peer: bytes, epoch: int, cause: str) -> Change | None:
        """Somebody knows that this life is over (its process died, it was drained): end it without waiting.

        None if it was over already.
        """
        known = self._watched.get(peer)
        if known is None or known.epoch != epoch:
            return None
        return self._lose(now, known, cause)

    def forget(self, peer: bytes) -> None:
        """Watch it no longer, and report nothing about it. The epochs that it has lived under stay over."""
        known = self._watched.pop(peer, None) or self._lost.pop(peer, None)
        if known is not None:
            self._fence(peer, known.epoch)

    # -- questions -----------------------------------------------------------------------------------------------------
    def next_deadline(self) -> float:
        """When ``tick`` has to be called next; infinity when nobody is watched."""
        if not self._watched:
            return NEVER
        return min(self._ticked_at + self._period_s, min(self._due_at(peer) for peer in self._watched.values()))

    def is_current(self, peer: bytes, epoch: int) -> bool:
        """True while that life goes on: only then may what it asks be done."""
        known = self._watched.get(peer)
        return known is not None and known.epoch == epoch

    def state(self, peer: bytes) -> PeerState | None:
        """None for a peer that was never heard or was forgotten."""
        known = self._watched.get(peer) or self._lost.get(peer)
        return known.state if known is not None else None

    def story(self, peer: bytes) -> list[str]:
        """What happened to its present or last life, oldest first."""
        known = self._watched.get(peer) or self._lost.get(peer)
        return list(known.story) if known is not None else []

    # -- conclusions ---------------------------------------------------------------------------------------------------
    def _due_at(self, peer: Peer) -> float:
        return peer.since + (self._suspect_after_s if peer.state is PeerState.ALIVE else self._suspicion_s)

    def _conclude(self, now: float, peer: Peer) -> Change:
        if peer.state is PeerState.ALIVE:
            return peer.move(now, PeerState.SUSPECTED, f"silent since {peer.since:.3f}")
        return self._lose(now, peer, f"suspected since {peer.since:.3f}")

    def _lose(self, now: float, peer: Peer, cause: str) -> Change:
        change = peer.move(now, PeerState.LOST, cause)
        del self._watched[peer.name]
        self._lost[peer.name] = peer
        self._fence(peer.name, peer.epoch)
        return change

    def _admit(self, now: float, peer: bytes, epoch: int, verdict: Verdict) -> Verdict:
        if not self._watched:
            self._ticked_at = now  # nobody was watched, so nobody had to tick: that was no pause
        self._watched.pop(peer, None)
        self._lost.pop(peer, None)
        self._watched[peer] = Peer(peer, epoch, now)
        return verdict

    # -- fences --------------------------------------------------------------------------------------------------------
    def _is_fenced(self, peer: bytes, epoch: int) -> bool:
        fence = self._fences.get(peer, self._floor)
        return fence is not None and epoch <= fence

    def _fence(self, peer: bytes, epoch: int) -> None:
        before = self._fences.pop(peer, epoch)
        self._fences[peer] = max(before, epoch)
        while len(self._fences) > limits.fences_kept_max:
            oldest = next(iter(self._fences))
            merged = self._fences.pop(oldest)
            self._floor = merged if self._floor is None else max(self._floor, merged)
            self._lost.pop(oldest, None)

    # -- invariants ----------------------------------------------------------------------------------------------------
    def check(self, now: float | None = None) -> None:
        """Assert what always holds; with ``now``, also that no time lies in the future."""
        assert len(self._fences) <= limits.fences_kept_max
        assert not self._watched.keys() & self._lost.keys()
        for name, peer in self._watched.items():
            assert peer.name == name and peer.state is not PeerState.LOST, self.story(name)
            assert 0 <= peer.graces <= limits.local_pause_graces_max, self.story(name)
            assert self._fences.get(name, peer.epoch - 1) < peer.epoch, self.story(name)
            assert now is None or peer.since <= now, self.story(name)
        for name, peer in self._lost.items():
            assert peer.name == name and peer.state is PeerState.LOST, self.story(name)
            assert self._fences[name] >= peer.epoch, self.story(name)
