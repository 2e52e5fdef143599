"""What processes learn of the ends of actors: monitors, links, dead letters, and an actor that gives up by itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from actorlib import exceptions, serialization
from actorlib.actor import ActorHandle
from actorlib.engine import DeadLetter, Down
from actorlib.object_ref import ObjectRef
from actorlib.runtime.drivers.calls import Calls
from actorlib.runtime.task import Task
from actorlib.store.owner import Entry
from actorlib.transport import messages
from actorlib.transport.ids import ActorId, object_id
from actorlib.transport.messages import ActorEnd, ActorUpdate


class Supervising(Calls):
    """See the module's docstring."""

    actor_id = b""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._letter_listeners: list[Callable[[DeadLetter], None]] = []

    def monitor(self, handle: ActorHandle[Any]) -> ObjectRef[Down]:
        oid = object_id(self.ids.task_id(), 0)
        self.table.entries[oid] = Entry()
        ref = self.new_ref(oid)
        actor_id, class_name = ActorId(handle._actor_id), handle._class_name  # not the handle: it would live on

        def ended(update: ActorUpdate) -> None:
            self.table.resolve(oid, serialization.serialize(self._down(update, class_name)).data)

        def begin(_: None) -> None:
            self.actors.when_dead(self.actors.client(actor_id, class_name), ended)

        self.loop.post(begin, None)
        return ref

    def _down(self, update: ActorUpdate, class_name: str) -> Down:
        reason, death = update.reason, update.death
        if death is not None and death.text and death.text not in reason:
            reason = f"{reason + ': ' if reason else ''}{exceptions.explain(death)}"
        if update.error is not None:
            reason = f"{reason}: {update.error[2]}" if update.error[2] not in reason else reason
        return Down(
            update.actor_id.hex(),
            class_name,
            update.end or ActorEnd.FAILED,
            reason,
            update.end in ActorEnd.NORMAL,
            None if death is None else death.os_pid or None,
            None if death is None else death.exit_code,
            None if death is None else death.signal,
        )

    def link_actors(self, first: ActorHandle[Any], second: ActorHandle[Any]) -> None:
        ids = ActorId(first._actor_id), ActorId(second._actor_id)
        self.ask(self.gcs, lambda request_id: messages.ActorLink(request_id, *ids))

    # -- dead letters --------------------------------------------------------------------------------------------------
    def listen_to_dead_letters(self, listener: Callable[[DeadLetter], None]) -> Callable[[], None]:
        self._letter_listeners = [*self._letter_listeners, listener]

        def stop() -> None:
            self._letter_listeners = [each for each in self._letter_listeners if each is not listener]

        return stop

    def dead_letter(self, update: ActorUpdate, label: str, task: Task) -> None:
        for listener in self._letter_listeners:
            try:
                listener(DeadLetter(update.actor_id.hex(), label, task.name(), update.reason))
            except Exception as error:
                print(f"actorlib: a listener of dead letters raised {error!r}", file=sys.stderr, flush=True)

    # -- giving up -----------------------------------------------------------------------------------------------------
    def fail_actor(self, error: Exception) -> NoReturn:
        incarnation = getattr(self, "incarnation", 0)
        if not self.actor_id:
            raise ValueError("only an actor can fail for good, from inside one of its methods")
        actor_id, text = ActorId(self.actor_id), f"it gave up: {error}"
        value = self.exception_value(error)
        self.ask(self.gcs, lambda rid: messages.ActorGivesUp(rid, actor_id, incarnation, text, value))
        self.exit_actor()

    def exit_actor(self) -> NoReturn:
        raise ValueError("exit_actor() is for the methods of an actor; this is not one")
