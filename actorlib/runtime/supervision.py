"""What a supervisor does when its children come and go: a core. Terms and rules are those of Erlang/OTP's supervisors.

Children start one after the other, in their order, each when the one before is up; they stop one after the other in
the reverse order. A child that goes down by itself is started again if it is *permanent*, or *transient* and did not
end normally; a *temporary* one is not. The strategy says who else is stopped and started again with it: nobody
(``one_for_one``), all others (``one_for_all``), or those after it (``rest_for_one``); temporary ones among those are
only stopped.

More than ``restarts`` restarts within ``period_s`` seconds (the *intensity*) mean that starting again does not help:
the supervisor stops all children and gives up with the reason, which is then its own supervisor's affair. A child that
can't be started at all ends the first start at once; later it counts as one more restart.

One thing happens at a time: after a ``Start`` or ``Stop`` nothing else is ordered until its outcome is told. Whoever
carries out the orders must tell of each end exactly once.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE = "one_for_one", "one_for_all", "rest_for_one"
STRATEGIES = (ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE)
PERMANENT, TRANSIENT, TEMPORARY = "permanent", "transient", "temporary"
RESTARTS = (PERMANENT, TRANSIENT, TEMPORARY)
REASONS_KEPT_MAX = 20


class ChildState(enum.Enum):
    ABSENT = "absent"
    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"


MOVES = {
    ChildState.ABSENT: {ChildState.STARTING},
    ChildState.STARTING: {ChildState.UP, ChildState.ABSENT},
    ChildState.UP: {ChildState.STOPPING, ChildState.ABSENT},
    ChildState.STOPPING: {ChildState.ABSENT},
}


class IllegalMove(Exception):
    """A child's life went where it must not."""


# -- events ------------------------------------------------------------------------------------------------------------
@dataclass(slots=True, frozen=True)
class Began:
    """The supervisor is there."""


@dataclass(slots=True, frozen=True)
class Started:
    child: str


@dataclass(slots=True, frozen=True)
class StartFailed:
    child: str
    reason: str


@dataclass(slots=True, frozen=True)
class WentDown:
    child: str
    normal: bool
    reason: str


@dataclass(slots=True, frozen=True)
class StopAsked:
    """Somebody wants the supervisor to end in good order."""


Event = Began | Started | StartFailed | WentDown | StopAsked


# -- effects -----------------------------------------------------------------------------------------------------------
@dataclass(slots=True, frozen=True)
class Start:
    child: str


@dataclass(slots=True, frozen=True)
class Stop:
    child: str


@dataclass(slots=True, frozen=True)
class GiveUp:
    """All children are stopped; the supervisor fails with this reason."""

    reason: str


@dataclass(slots=True, frozen=True)
class End:
    """All children are stopped, as was asked."""


Effect = Start | Stop | GiveUp | End


class Child:
    __slots__ = ("must_stop", "name", "reason", "restart", "restarts", "state", "wanted")

    def __init__(self, name: str, restart: str) -> None:
        self.name = name
        self.restart = restart
        self.state = ChildState.ABSENT
        self.wanted = True  # it shall be up once everything has settled
        self.must_stop = False
        self.restarts = 0
        self.reason = ""  # of its last end


class Supervision:
    """See the module's docstring. ``children`` are (name, restart) in the order of their start."""

    def __init__(self, children: Sequence[tuple[str, str]], strategy: str, restarts: int, period_s: float) -> None:
        self.children = {name: Child(name, restart) for name, restart in children}
        self.strategy = strategy
        self.restarts = restarts
        self.period_s = period_s
        self.is_up = False  # everything has been started once
        self.ending: Effect | None = None
        self.is_over = False
        self.story: deque[str] = deque(maxlen=REASONS_KEPT_MAX)
        self._times: deque[float] = deque()

    def handle(self, now: float, event: Event) -> list[Effect]:
        """What is to be done because of ``event``."""
        if isinstance(event, Started):
            self._move(self.children[event.child], ChildState.UP)
        elif isinstance(event, StartFailed):
            self._start_failed(now, self.children[event.child], event.reason)
        elif isinstance(event, WentDown):
            self._went_down(now, self.children[event.child], event)
        elif isinstance(event, StopAsked):
            self._end(End())
        return self._next()

    def _move(self, child: Child, state: ChildState) -> None:
        if state not in MOVES[child.state]:
            raise IllegalMove(f"child {child.name!r}: {child.state.value} -> {state.value}; {'; '.join(self.story)}")
        child.state = state

    # -- what happens --------------------------------------------------------------------------------------------------
    def _start_failed(self, now: float, child: Child, reason: str) -> None:
        self._move(child, ChildState.ABSENT)
        child.reason = reason
        if child.must_stop:  # it was to go down anyway
            child.must_stop = False
        elif not self.is_up:
            self._end(GiveUp(f"child {child.name!r} can't be started: {reason}"))
        elif child.restart == TEMPORARY:
            child.wanted = False
        else:
            self._count(now, child, reason)

    def _went_down(self, now: float, child: Child, event: WentDown) -> None:
        asked = child.state is ChildState.STOPPING or child.must_stop
        self._move(child, ChildState.ABSENT)
        child.must_stop = False
        child.reason = event.reason
        if asked or self.ending is not None:
            return
        if child.restart == TEMPORARY or (child.restart == TRANSIENT and event.normal):
            child.wanted = False
            return
        if self._count(now, child, event.reason):
            self._stop_with(child)

    def _count(self, now: float, child: Child, reason: str) -> bool:
        """One more restart. False if that is one too many."""
        child.restarts += 1
        self.story.append(f"{child.name!r} went down: {reason}")
        self._times.append(now)
        while self._times and now - self._times[0] > self.period_s:
            self._times.popleft()
        if len(self._times) <= self.restarts:
            return True
        allowed = f"intensity=({self.restarts}, {self.period_s:g})"
        count, period = len(self._times), f"{self.period_s:g} s"
        ends = "; ".join(self.story)
        self._end(GiveUp(f"{count} restarts within {period} are more than {allowed} allows; the last ends: {ends}"))
        return False

    def _stop_with(self, failed: Child) -> None:
        """Who goes down, and comes up again, with a child that failed."""
        names = list(self.children)
        if self.strategy == ONE_FOR_ONE:
            return
        affected = names if self.strategy == ONE_FOR_ALL else names[names.index(failed.name) + 1 :]
        for name in affected:
            child = self.children[name]
            if child is failed or not child.wanted:
                continue
            child.must_stop = child.state in (ChildState.STARTING, ChildState.UP)
            child.wanted = child.restart != TEMPORARY

    def _end(self, how: Effect) -> None:
        if self.ending is None:
            self.ending = how
            for child in self.children.values():
                child.wanted = False
                child.must_stop = child.state in (ChildState.STARTING, ChildState.UP)

    # -- what is to be done --------------------------------------------------------------------------------------------
    def _next(self) -> list[Effect]:
        children = list(self.children.values())
        if self.is_over or any(child.state in (ChildState.STARTING, ChildState.STOPPING) for child in children):
            return []
        for child in reversed(children):
            if child.state is ChildState.UP and (child.must_stop or self.ending is not None):
                self._move(child, ChildState.STOPPING)
                return [Stop(child.name)]
        if self.ending is not None:
            self.is_over = True
            return [self.ending]
        for child in children:
            if child.wanted and child.state is ChildState.ABSENT:
                self._move(child, ChildState.STARTING)
                return [Start(child.name)]
        self.is_up = True
        return []

    def check(self) -> None:
        children = self.children.values()
        moving = [child for child in children if child.state in (ChildState.STARTING, ChildState.STOPPING)]
        assert len(moving) <= 1, "more than one child is on its way"
        assert not self.is_over or all(child.state is ChildState.ABSENT for child in children), (
            "over, but children live"
        )
        assert all(not child.must_stop or child.state is not ChildState.ABSENT for child in children), (
            "stop what is not there"
        )
        if not moving and not self.is_over:
            assert all(child.wanted == (child.state is ChildState.UP) for child in children), "not settled"
