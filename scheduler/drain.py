"""A node that leaves: what it still waits for, who is to go now, and when it is over.

Theory of operation
-------------------
SERVING -> DRAINING -> CLOSING -> OVER. From the first moment on the node grants no lease (``lease.py``). What runs has
until the deadline.

An actor that can go on elsewhere *leaves*: it starts no call any more, its state is saved if it is kept, and it ends
between two calls; its callers' calls wait for it. That is so for actors with checkpoints, and for those that may be
restarted, whose state starts anew as it does whenever they are. It is told to leave as soon as another node has room
for it, so that it is not away for longer than it takes to start. In the end (CLOSING, ``closing_s`` before the
deadline) all of them leave, room or not: they are saved, and wait for a node that can take them. An actor that may not
be restarted stays, and dies with the node.

Objects that others own are kept by other nodes (their owners see to that). If none has gone for
``limits.drain_object_patience_s``, nobody will take the rest: they are not waited for any longer.

The node is OVER when nothing is left, or at the deadline; what is left then is lost with it.

Who may be wrong: an actor that was told to leave may not be able to (its running call does not end, its checkpoint
can't be kept); the deadline ends that.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from actorlib.transport import limits
from actorlib.transport.ids import ActorId


class DrainState(enum.Enum):
    SERVING = "serving"
    DRAINING = "draining"
    CLOSING = "closing"
    OVER = "over"


MOVES = {
    DrainState.SERVING: {DrainState.DRAINING},
    DrainState.DRAINING: {DrainState.CLOSING, DrainState.OVER},
    DrainState.CLOSING: {DrainState.OVER},
    DrainState.OVER: set(),
}


@dataclass(frozen=True, slots=True)
class Resident:
    """An actor that lives on the node."""

    actor_id: ActorId
    incarnation: int
    label: str
    can_leave: bool  # its state is kept, or it may be restarted
    has_room: bool  # another node could take it at once


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is on the node, as it finds by looking."""

    actors: Sequence[Resident] = ()
    tasks: int = 0  # leases in use
    drivers: int = 0
    objects: int = 0  # that others own and no other node keeps
    underway: int = 0  # actors that have left, and fetch their state from here


@dataclass(frozen=True, slots=True)
class Leave:
    """Tell that actor to leave."""

    actor_id: ActorId
    incarnation: int


@dataclass(frozen=True, slots=True)
class End:
    """The node is to end now."""

    is_empty: bool
    text: str


class Drain:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.state = DrainState.SERVING
        self.reason = ""
        self.deadline = 0.0
        self._closing_at = 0.0
        self._told: dict[tuple[ActorId, int], None] = {}
        self._objects = -1
        self._objects_changed_at = 0.0

    def _move(self, state: DrainState) -> None:
        assert state in MOVES[self.state], f"a drain: {self.state.value} -> {state.value} ({self.reason})"
        self.state = state

    @property
    def is_on(self) -> bool:
        return self.state in (DrainState.DRAINING, DrainState.CLOSING)

    def begin(self, now: float, deadline_s: float, reason: str) -> bool:
        """Leave within ``deadline_s``. Again: an earlier deadline counts, a later one doesn't. True the first time."""
        is_first = self.state is DrainState.SERVING
        if is_first:
            self._move(DrainState.DRAINING)
            self.reason = reason
            self._objects_changed_at = now
        elif now + deadline_s >= self.deadline:
            return False
        self.deadline = now + deadline_s
        self._closing_at = self.deadline - min(limits.drain_closing_s, deadline_s / 2)
        return is_first

    def look(self, now: float, left: Remaining) -> list[Leave | End]:
        """What is to be done, given what is left on the node now."""
        if not self.is_on:
            return []
        if now >= self._closing_at and self.state is DrainState.DRAINING:
            self._move(DrainState.CLOSING)
            self._told.clear()  # who could not leave is told once more
        if not self._is_anything(now, left):
            self._move(DrainState.OVER)
            return [End(True, f"it was drained ({self.reason})")]
        if now >= self.deadline:
            self._move(DrainState.OVER)
            return [End(False, f"it was drained ({self.reason}), and at the deadline it still had {show(left)}")]
        return [effect for actor in left.actors for effect in self._send_off(actor)]

    def _send_off(self, actor: Resident) -> list[Leave | End]:
        key = (actor.actor_id, actor.incarnation)
        if key in self._told or not actor.can_leave or not (actor.has_room or self.state is DrainState.CLOSING):
            return []
        self._told[key] = None
        return [Leave(*key)]

    def _is_anything(self, now: float, left: Remaining) -> bool:
        if left.objects != self._objects:
            self._objects, self._objects_changed_at = left.objects, now
        waits = left.objects > 0 and now - self._objects_changed_at < limits.drain_object_patience_s
        return bool(left.actors or left.tasks or left.drivers or left.underway or waits)

    def check(self) -> None:
        assert self.state is DrainState.SERVING or self._closing_at <= self.deadline, "it closes after its deadline"


def show(left: Remaining) -> str:
    """What is left, for people."""
    parts = [f"the actor {actor.label}" for actor in left.actors[:5]]
    if len(left.actors) > 5:
        parts.append(f"{len(left.actors) - 5} more actors")
    counted = (
        (left.tasks, "running task"),
        (left.drivers, "driver"),
        (left.objects, "object"),
        (left.underway, "actor on its way"),
    )
    parts += [f"{count} {name}{'s' if count > 1 and name[-1] != 'y' else ''}" for count, name in counted if count]
    return ", ".join(parts) or "nothing"
