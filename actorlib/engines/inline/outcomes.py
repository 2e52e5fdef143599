"""What a reference of the inline engine stands for: a value in its serialized form, an error, or neither yet.

Outcomes are found by the id of their object while anybody refers to them; nothing is counted, Python's own reference
counts do it. A value that contains references holds their outcomes.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from actorlib import engine, serialization
from actorlib.actor import ActorHandle
from actorlib.object_ref import ObjectRef
from actorlib.transport.ids import ObjectId
from actorlib.transport.link import NOWHERE

if TYPE_CHECKING:
    from actorlib.engines.inline.engine import InlineEngine


class Outcome:
    """One object. Written once, by the thread that runs what makes it."""

    __slots__ = ("__weakref__", "_buffers", "_data", "call", "callbacks", "contained", "engine", "is_error", "oid")

    def __init__(self, engine: InlineEngine, oid: ObjectId, call: Any = None) -> None:
        self.engine = engine
        self.oid = oid
        self.call = call  # what will make it, until it is there
        self.callbacks: list[Callable[[], None]] = []
        self.contained: tuple[Outcome, ...] = ()
        self.is_error = False
        self._data: bytes | None = None
        self._buffers: tuple[bytes, ...] = ()

    @property
    def is_done(self) -> bool:
        return self._data is not None

    def resolve(self, value: Any) -> None:
        """Keep a copy. Raises SerializationError if there can be none."""
        self._write(*self.engine.pack(value))

    def fail(self, error: BaseException) -> None:
        self.is_error = True
        self._write(*self.engine.pack(error))

    def take_over(self, other: Outcome) -> None:
        """Become the same error as another outcome."""
        assert other._data is not None
        self.is_error = other.is_error
        self._write(other._data, other._buffers, other.contained)

    def _write(self, data: bytes, buffers: tuple[bytes, ...], contained: tuple[Outcome, ...]) -> None:
        if self._data is not None:
            return
        self._data, self._buffers, self.contained = data, buffers, contained
        self.call = None
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()
        self.engine.something_happened()

    def read(self) -> Any:
        """A fresh copy of the value; raises if it is an error. Arrays are read-only."""
        assert self._data is not None
        value = serialization.deserialize(self._data, self._buffers)
        if self.is_error:
            raise value
        return value

    def when_done(self, callback: Callable[[], None]) -> None:
        if self.is_done:
            callback()
        else:
            self.callbacks.append(callback)


def _nothing(_: bytes) -> None:
    """Nobody counts."""


class InlineRef(ObjectRef[Any]):
    """A reference of the inline engine."""

    __slots__ = ("outcome",)
    engine_name: ClassVar[str] = "inline"

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.oid, NOWHERE, _nothing)
        self.outcome = outcome

    def future(self) -> concurrent.futures.Future[Any]:
        engine.check_ref(self, engine.current())
        return DrivenFuture(self)


class DrivenFuture(concurrent.futures.Future[Any]):
    """A future whose waiting thread does the work: nobody else would."""

    def __init__(self, ref: InlineRef) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self._ref = ref
        ref.outcome.when_done(self._settle)

    def _settle(self) -> None:
        try:
            value = self._ref.outcome.read()
        except BaseException as error:
            self.set_exception(error)
        else:
            self.set_result(value)

    def _drive(self, timeout: float | None) -> None:
        if not self.done():
            self._ref.outcome.engine.drive(self.done, timeout, "the value of a future")

    def result(self, timeout: float | None = None) -> Any:
        self._drive(timeout)
        return super().result(0 if timeout is not None else None)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._drive(timeout)
        return super().exception(0 if timeout is not None else None)


class InlineHandle(ActorHandle[Any]):
    """A handle of the inline engine."""

    engine_name: ClassVar[str] = "inline"
