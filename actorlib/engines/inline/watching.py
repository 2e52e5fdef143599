"""Who is told of an actor's end, inline: monitors, links, and those who listen for calls that never arrived."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from actorlib.engine import DeadLetter, Down
from actorlib.engines.inline.outcomes import InlineRef, Outcome
from actorlib.transport.ids import ActorId, object_id

if TYPE_CHECKING:
    from actorlib.engines.inline.actors import InlineActor
    from actorlib.engines.inline.engine import InlineEngine

NORMAL = ("exited", "released")


class Watching:
    """Told of each end by the engine."""

    def __init__(self, engine: InlineEngine) -> None:
        self._engine = engine
        self._monitors: dict[ActorId, list[Outcome]] = {}
        self._links: dict[ActorId, dict[ActorId, None]] = {}
        self._downs: dict[ActorId, Down] = {}
        self._listeners: list[Callable[[DeadLetter], None]] = []

    def monitor(self, actor_id: ActorId) -> InlineRef:
        outcome = self._engine.new_outcome(object_id(self._engine.ids.task_id(), 0))
        if actor_id in self._downs:
            outcome.resolve(self._downs[actor_id])
        else:
            self._monitors.setdefault(actor_id, []).append(outcome)
        return InlineRef(outcome)

    def link(self, first: ActorId, second: ActorId) -> None:
        for one, other in ((first, second), (second, first)):
            if one not in self._engine.actors and one not in self._downs:
                raise ValueError(f"actor {one.hex()} is not known: it belonged to another session")
            self._links.setdefault(one, {})[other] = None
        for one, other in ((first, second), (second, first)):
            if one in self._downs:
                self._pull_down(other, self._downs[one])

    def ended(self, actor: InlineActor) -> None:
        pid = os.getpid()
        name, kind = actor.class_name, actor.kind
        down = Down(actor.actor_id.hex(), name, kind, actor.reason, kind in NORMAL, pid, None, None)
        self._downs[actor.actor_id] = down
        for outcome in self._monitors.pop(actor.actor_id, []):
            outcome.resolve(down)
        for other in self._links.pop(actor.actor_id, {}):
            self._pull_down(other, down)

    def _pull_down(self, actor_id: ActorId, down: Down) -> None:
        actor = self._engine.actors.get(actor_id)
        if actor is not None and not down.normal:
            actor.die(f"{down.class_name}, to which it was linked, ended: {down.reason}", kind="linked")

    def listen(self, listener: Callable[[DeadLetter], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def never_arrived(self, letter: DeadLetter) -> None:
        for listener in list(self._listeners):
            listener(letter)
