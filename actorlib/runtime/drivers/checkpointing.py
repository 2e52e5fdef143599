"""Checkpoints of actors in their plain form: the state of the last one comes back when the actor is restarted."""

from __future__ import annotations

import sys
import time
from typing import Any

from actorlib import serialization
from actorlib.runtime.drivers.calls import CURRENT
from actorlib.runtime.drivers.execution import Execution
from actorlib.runtime.mailbox import Item
from actorlib.transport import messages
from actorlib.transport.drivers.notice import notice
from actorlib.transport.messages import ActorSpec


class Checkpointing(Execution):
    """How an actor's instance comes to be, and how its state is kept."""

    is_checkpointed = False
    spec: ActorSpec | None
    incarnation: int

    def construct(self, item: Item, spec: ActorSpec) -> None:
        """Make the instance: from its newest checkpoint if it has one, else by its constructor."""
        cls: Any = self.function_of(spec.class_id)
        number, state = self._newest_checkpoint(spec)
        token = CURRENT.set(self.context_for(item))
        try:
            if number >= 0:
                self.instance = restore(cls, state)
            else:
                args, kwargs = self.load_arguments(item.call)
                self.instance = self.interruptible(item, cls, args, kwargs)
        finally:
            CURRENT.reset(token)
        options = spec.checkpoint
        if options:
            self.is_checkpointed = True
            self._number = number
            self._calls_since = 0
            self._saved_at = time.monotonic()
            self._options = options
            if options.get("every_s"):
                self._tick()

    def _newest_checkpoint(self, spec: ActorSpec) -> tuple[int, Any]:
        if not spec.checkpoint:
            return -1, None
        answer = self.ask(self.gcs, lambda rid: messages.CheckpointGet(rid, spec.actor_id, -1))
        return answer.number, answer.state

    def after_call(self) -> None:
        """Between a call and its reply, on the thread that runs calls: save if it is time.

        The reply waits until the checkpoint is kept, so whoever has seen it can count on the state coming back.
        """
        if not self.is_checkpointed:
            return
        self._calls_since += 1
        every_calls, every_s = self._options.get("every_calls"), self._options.get("every_s")
        due = every_calls is not None and self._calls_since >= every_calls
        if not due and every_s:
            due = time.monotonic() - self._saved_at >= every_s
        if due:
            try:
                self._save(wait=True)
            except Exception as error:
                print(
                    f"actorlib: no checkpoint of {self.class_name} could be made: {error!r}",
                    file=sys.stderr,
                    flush=True,
                )
                self._calls_since = 0

    def _tick(self) -> None:
        """Wake the main thread from time to time, so that an idle actor's last calls are saved as well."""
        period_s = self._options["every_s"]
        if self._calls_since and time.monotonic() - self._saved_at >= period_s and self.mailbox_is_idle():
            self._save(wait=False)
        self.loop.call_later(period_s, self._tick)

    def mailbox_is_idle(self) -> bool:
        return False

    def _save(self, wait: bool) -> None:
        assert self.spec is not None
        state = dump(self.instance)
        self._number += 1
        self._calls_since = 0
        self._saved_at = time.monotonic()
        number, keep, spec, incarnation = self._number, self._options.get("keep", 2), self.spec, self.incarnation

        def put(request_id: int) -> messages.CheckpointPut:
            return messages.CheckpointPut(request_id, spec.actor_id, incarnation, number, state, keep)

        if wait:
            self.ask(self.gcs, put)
        else:
            request_id = self.ids.request_id()
            self._answers[request_id] = self._saved
            self.loop.post(self.to_gcs, put(request_id))

    def _saved(self, answer: Any) -> None:
        if type(answer) is messages.Failure:
            notice(f"checkpoint of {self.class_name} was not kept: {answer.text}")

    def checkpoint_now(self) -> None:
        if not self.is_checkpointed:
            raise ValueError("checkpoint_now() is for actors with the option checkpoint=...; this one has none")
        self._save(wait=True)


def dump(instance: Any) -> bytes:
    """The state of an actor: what ``__checkpoint__`` gives, else its attributes."""
    custom = getattr(instance, "__checkpoint__", None)
    state = custom() if custom is not None else instance.__dict__
    serialized = serialization.serialize((custom is not None, state), in_band=True)
    return serialized.data


def restore(cls: Any, data: Any) -> Any:
    """An instance in the state that ``dump`` saw; ``__init__`` is not run."""
    was_custom, state = serialization.deserialize(data)
    instance = cls.__new__(cls)
    if hasattr(instance, "__restore__"):
        instance.__restore__(state)
    elif was_custom:
        raise TypeError(f"{cls.__name__} has __checkpoint__ but no __restore__(self, state) to take it back")
    else:
        instance.__dict__.update(state)
    return instance
