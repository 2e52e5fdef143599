"""Values: put, get, wait, and the ways in which they lie in messages and in shared memory."""

from __future__ import annotations

import contextvars
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from actorlib import exceptions, serialization
from actorlib.object_ref import ObjectRef
from actorlib.runtime.drivers.process import Process
from actorlib.runtime.task import Task, TaskState
from actorlib.store.drivers.shared_memory import ObjectMissing
from actorlib.store.owner import Entry, References, is_stored
from actorlib.transport import limits, messages
from actorlib.transport.ids import ObjectId, object_id
from actorlib.transport.link import Address
from actorlib.transport.messages import VALUE_PARTS, VALUE_STORED, Value

GET_DEADLINE: contextvars.ContextVar[float | None] = contextvars.ContextVar("actorlib_get_deadline", default=None)
"""Until when the ``get`` that is at work may take: what it finds may turn out to be lost while it is read."""
LOCATED_WITHIN_S = 1.0
RECOVERIES_MAX = 20


class Waiting:
    """A thread that waits for some of several objects."""

    __slots__ = ("remaining",)

    def __init__(self, remaining: int) -> None:
        self.remaining = remaining

    def arrived(self, _: ObjectId) -> None:
        self.remaining -= 1

    def is_over(self) -> bool:
        return self.remaining <= 0


class Objects(Process):
    """The engine's operations on objects."""

    name = "local"
    ref_type = ObjectRef

    # -- references ----------------------------------------------------------------------------------------------------
    def drop_ref(self, oid: bytes) -> None:
        """A Python reference is gone (called by ``ObjectRef.__del__`` on any thread)."""
        if not self.closed:
            self.loop.post(self.table.release, oid)

    def new_ref(self, oid: bytes, owner: Address | None = None) -> ObjectRef[Any]:
        """A reference whose count is there already."""
        return ObjectRef(oid, owner or self.address, self.drop_ref)

    def adopt_ref(self, oid: ObjectId, owner: Address) -> ObjectRef[Any]:
        owner = Address(*owner)
        self.loop.post(self._adopt, (oid, owner))
        return ObjectRef(oid, owner, self.drop_ref)

    def _adopt(self, pair: tuple[ObjectId, Address]) -> None:
        self.table.adopt(*pair)

    def pin_forever(self, ref: ObjectRef[Any]) -> None:
        """A reference was pickled outside of our own serialization: nobody can count that copy, so it stays."""
        self.loop.post(self._adopt, (ObjectId(ref._id), ref._owner))

    # -- values --------------------------------------------------------------------------------------------------------
    def make_value(
        self, oid: ObjectId, serialized: serialization.Serialized, inline_bytes_max: int = limits.inline_bytes_max
    ) -> Value:
        """How a value travels: inside messages if it is small, in shared memory if it is large."""
        data, buffers, _ = serialized
        size = len(data)
        for buffer in buffers:
            size += buffer.nbytes
        if size > inline_bytes_max:
            return self._store_value(oid, data, buffers)
        if buffers:
            return (VALUE_PARTS, data, tuple(bytes(buffer) for buffer in buffers))
        return data

    def _store_value(self, oid: ObjectId, data: bytes, buffers: Sequence[memoryview]) -> Value:
        while True:
            value = self.store.write_parts(oid, data, buffers)
            if value is not None:
                break
            self._request_slab(self.store.size_needed(data, buffers))
        self.loop.post(self._send_sealed, None)
        return value

    def _request_slab(self, size: int) -> None:
        def request(request_id: int) -> tuple[Any, ...]:
            self._send_freed(None)  # the room that we have just given up is there for us
            return messages.SlabRequest(request_id, size)

        grant = self.ask(self.node, request)
        self.store.add_slab(grant.path, grant.size)

    def _send_sealed(self, _: None) -> None:
        entries = self.store.pending_sealed()
        if entries:
            self.node_link.send(messages.ObjectsSealed(tuple(entries), self.address))
        for path in self.store.take_returned():
            self.node_link.send(messages.SlabReturned(path))

    def load_value(self, oid: ObjectId, owner: Address, value: Value) -> Any:
        """The Python object that a value stands for; raises what a VALUE_ERROR carries."""
        if type(value) is not tuple:
            return serialization.deserialize(value)
        kind = value[0]
        if kind == VALUE_PARTS:
            return serialization.deserialize(value[1], value[2])
        if kind == VALUE_STORED:
            data, buffers = self._read_stored(oid, owner, value)
            return serialization.deserialize(data, buffers)
        if kind == messages.VALUE_REFS:
            return self.load_value(oid, owner, value[1])
        raise self.load_error(value)

    @staticmethod
    def load_error(value: Value) -> BaseException:
        try:
            error = serialization.deserialize(value[1])
        except Exception as unreadable:
            return exceptions.ActorlibError(
                f"{value[2]} (the exception itself can't be unpickled here: {unreadable!r})"
            )
        return error if isinstance(error, BaseException) else exceptions.ActorlibError(str(error))

    def _read_stored(self, oid: ObjectId, owner: Address, value: Value) -> tuple[Any, Any]:
        """Map an object; where it is gone from its place, have the node find it or its owner make it again."""
        for _ in range(RECOVERIES_MAX):
            near = self._near(oid)
            try:
                return self.store.read(near or value, oid)
            except ObjectMissing:
                if near is not None:
                    self.loop.run(lambda: self.table.not_near(oid))
                    continue
                value = self._find_again(oid, owner, value)
                if not is_stored(value):
                    break
        else:
            raise exceptions.ObjectLostError(f"object {oid.hex()} was lost again each time that it was recovered")
        if type(value) is tuple and value[0] == messages.VALUE_ERROR:
            raise self.load_error(value)
        if type(value) is tuple:
            return value[1], value[2]
        return value, ()

    def _near(self, oid: ObjectId) -> Value:
        """Where this host has a copy of an object that another one keeps, if it has and we know."""
        entry = self.table.entries.get(oid)
        return entry.rare.near if entry is not None and entry.rare is not None and entry.value is not None else None

    def _find_again(self, oid: ObjectId, owner: Address, place: Value) -> Value:
        """The value of an object that was not where ``place`` says."""
        owner = self._owner_of(oid, Address(*owner))
        question = lambda request_id: messages.ObjectLocate(request_id, oid, place, owner, True)  # noqa: E731
        answer = self.ask(self.node, question, self._time_left())
        if answer.value is not None:
            self.loop.post(self._moved, (oid, answer.value))
            return answer.value
        ref = self.adopt_ref(oid, owner)
        self.loop.run(lambda: self._report_lost(oid, place))
        self._await_again(ref)
        entry = self.table.entries.get(oid)
        if entry is None or entry.value is None:
            raise exceptions.ObjectLostError(f"object {oid.hex()} was lost, and the session ended before it came back")
        return entry.value

    def _owner_of(self, oid: ObjectId, owner: Address) -> Address:
        """Who owns an object now: it may have been taken over from the owner that its reference names."""
        entry = self.table.entries.get(oid)
        if entry is None:
            return owner
        return entry.rare.owner if entry.rare is not None and entry.rare.owner is not None else self.address

    def prefetch(self, dependencies: Sequence[tuple[ObjectId, Any, Value]]) -> None:
        """Arguments that lie on other hosts: all of them are fetched at once, while what came before still runs."""
        for oid, owner, value in dependencies:
            if type(value) is tuple and value[0] == messages.VALUE_REFS:
                value = value[1]
            if is_stored(value) and not self.store.is_near(value):
                self.node_link.send(messages.ObjectLocate(0, oid, value, Address(*owner), False))

    def _report_lost(self, oid: ObjectId, place: Value) -> None:
        """Tell the owner (it may be us), also where the value came with a call and this process never asked for it."""
        entry = self.table.entries[oid]
        owner = entry.rare.owner if entry.rare is not None else None
        if entry.value is None and owner is not None and entry.rare is not None and not entry.rare.asked:
            entry.rare.asked = True
            self.watch(owner)
            self.send_to(owner, messages.ObjectMissing(oid, place))
        else:
            self.table.lost(oid, place, "it is not in the store any more")

    def _moved(self, pair: tuple[ObjectId, Value]) -> None:
        self.table.moved(*pair)

    # -- put and get ---------------------------------------------------------------------------------------------------
    def put(self, value: Any) -> ObjectRef[Any]:
        oid = object_id(self.ids.task_id(), 0)
        serialized = serialization.serialize(value)
        entry = Entry()
        self.table.entries[oid] = entry
        try:
            stored = self.make_value(oid, serialized)
        except BaseException:
            del self.table.entries[oid]
            raise
        if serialized.refs:
            self.loop.post(self._add_put, (oid, stored, tuple(serialized.refs)))
        else:
            entry.value = stored
        return ObjectRef(oid, self.address, self.drop_ref)

    def _add_put(self, item: tuple[ObjectId, Value, References]) -> None:
        self.table.add_put(*item)

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        began = 0.0 if timeout is None else time.monotonic()
        entries = self.table.entries
        missing = [ref for ref in refs if (entry := entries.get(ref._id)) is None or entry.value is None]  # type: ignore[call-overload]
        if missing and not self._await(missing, len(missing), timeout):
            raise exceptions.GetTimeoutError(self._timeout_text(missing, timeout))
        if timeout is None:
            return [self._load(ref) for ref in refs]
        token = GET_DEADLINE.set(began + timeout)
        try:
            return [self._load(ref) for ref in refs]
        finally:
            GET_DEADLINE.reset(token)

    @staticmethod
    def _time_left() -> float | None:
        """Of the ``get`` that is at work; a moment at least, since what it needs is known to have been there."""
        deadline = GET_DEADLINE.get()
        return None if deadline is None else max(LOCATED_WITHIN_S, deadline - time.monotonic())

    def _await_again(self, ref: ObjectRef[Any]) -> None:
        """What was there and got lost is being made again."""
        left = self._time_left()
        if not self._await([ref], 1, left) and not self.closed:
            raise exceptions.GetTimeoutError(f"it was lost and is being made again: {self._timeout_text([ref], left)}")

    def _load(self, ref: ObjectRef[Any]) -> Any:
        oid = ObjectId(ref._id)
        entry = self.table.entries.get(oid)
        value = entry.value if entry is not None else None
        while value is None:  # lost between its arrival and now; it is being recovered
            self._await_again(ref)
            entry = self.table.entries.get(oid)
            value = entry.value if entry is not None else None
        return self.load_value(oid, ref._owner, value)

    def _timeout_text(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> str:
        pending = [ref for ref in refs if not self._is_ready(ref)]
        shown = "; ".join(self.why_pending(ref) for ref in pending[:3])
        more = f" (and {len(pending) - 3} more)" if len(pending) > 3 else ""
        return f"{len(pending)} of the objects were not there within {timeout} s: {shown}{more}"

    def _is_ready(self, ref: ObjectRef[Any]) -> bool:
        entry = self.table.entries.get(ObjectId(ref._id))
        return entry is not None and entry.value is not None

    def wait(
        self, refs: Sequence[ObjectRef[Any]], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        began = time.monotonic()
        ready = self._ready_among(refs, num_returns)
        if len(ready) < num_returns:
            pending = [ref for ref in refs if not self._is_ready(ref)]
            self._await(pending, num_returns - (len(refs) - len(pending)), timeout)
            ready = self._ready_among(refs, num_returns)
        if fetch_local:
            far = [refs[position] for position in ready if self._is_far(refs[position])]
            if far:
                left = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
                self._fetch(far, left)
                ready = [position for position in ready if refs[position]._id not in self._fetching]
        if len(ready) == 1:
            position = ready[0]
            return [refs[position]], [*refs[:position], *refs[position + 1 :]]
        chosen = dict.fromkeys(ready)
        return [refs[i] for i in ready], [ref for i, ref in enumerate(refs) if i not in chosen]

    def _is_far(self, ref: ObjectRef[Any]) -> bool:
        """Whether the value lies on another host, and no copy of it here that we know of."""
        entry = self.table.entries.get(ObjectId(ref._id))
        if entry is None or not is_stored(entry.value) or self.store.is_near(entry.value):
            return False
        return entry.rare is None or entry.rare.near is None

    def _fetch(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> None:
        """Have the node copy objects here, and wait until it has. What it can't find is left for get() to recover."""

        def begin() -> None:
            for ref in refs:
                oid = ObjectId(ref._id)
                entry = self.table.entries.get(oid)
                if entry is not None and is_stored(entry.value) and oid not in self._fetching:
                    self._ask_for_copy(oid, self._owner_of(oid, ref._owner), entry.value)

        self.loop.run(begin)
        if timeout is None or timeout > 0:
            self.refuse_blocking()
            self.drive(lambda: not any(ref._id in self._fetching for ref in refs), timeout, ())

    def _ask_for_copy(self, oid: ObjectId, owner: Address, value: Value) -> None:
        self._fetching[oid] = None
        request_id = self.ids.request_id()

        def answered(answer: Any) -> None:
            self._fetching.pop(oid, None)
            if type(answer) is messages.ObjectLocated and answer.value is not None:
                self.table.moved(oid, answer.value)

        self._answers[request_id] = answered
        self.node_link.send(messages.ObjectLocate(request_id, oid, value, owner, True))

    def _ready_among(self, refs: Sequence[ObjectRef[Any]], enough: int) -> list[int]:
        """Positions of the first ``enough`` refs that are ready, in order."""
        entries, found = self.table.entries, []
        for position, ref in enumerate(refs):
            entry = entries.get(ref._id)  # type: ignore[call-overload]
            if entry is not None and entry.value is not None:
                found.append(position)
                if len(found) >= enough:
                    break
        return found

    def _await(self, refs: Sequence[ObjectRef[Any]], needed: int, timeout: float | None) -> bool:
        """Block until ``needed`` of ``refs`` are there; False if the time is over."""
        self.refuse_blocking()
        if timeout is not None and timeout <= 0:
            self.loop.run(lambda: self._want_all(refs))
            return sum(map(self._is_ready, refs)) >= needed
        waiting = Waiting(needed)
        self.loop.post(self._begin_wait, (refs, waiting))
        if self.drive(waiting.is_over, timeout, refs):
            return not self.closed or sum(map(self._is_ready, refs)) >= needed
        self.loop.post(self._end_wait, (refs, waiting))
        return False

    def _want_all(self, refs: Sequence[ObjectRef[Any]]) -> None:
        for ref in refs:
            entry = self.table.entries.get(ObjectId(ref._id))
            if entry is not None and entry.value is None:
                self.table.want(ObjectId(ref._id), entry)

    def _begin_wait(self, item: tuple[Sequence[ObjectRef[Any]], Waiting]) -> None:
        refs, waiting = item
        when_ready, arrived = self.table.when_ready, waiting.arrived
        for ref in refs:
            if when_ready(ObjectId(ref._id), arrived):
                waiting.remaining -= 1

    def _end_wait(self, item: tuple[Sequence[ObjectRef[Any]], Waiting]) -> None:
        refs, waiting = item
        for ref in refs:
            entry = self.table.entries.get(ObjectId(ref._id))
            if entry is not None and entry.waiters:
                entry.waiters = [waiter for waiter in entry.waiters if waiter != waiting.arrived]

    def drive(self, until: Callable[[], bool], timeout: float | None, refs: Sequence[ObjectRef[Any]]) -> bool:
        """Block this thread until ``until()``; workers tell their node meanwhile that they are blocked."""
        return self.loop.drive(until, timeout)

    def refuse_blocking(self) -> None:
        """In an event loop a blocking wait would stop everything, what it waits for included."""
        asyncio = sys.modules.get("asyncio")  # nothing runs in an event loop before it is imported
        if asyncio is not None and asyncio._get_running_loop() is not None and self.in_async_actor():
            raise RuntimeError(
                "a blocking get() or wait() inside an async method would stop the actor's event loop; "
                "use 'await ref' or 'await asyncio.wait(refs)' instead"
            )

    def in_async_actor(self) -> bool:
        return False

    def when_ready(self, ref: ObjectRef[Any], callback: Callable[[], None]) -> None:
        def begin(_: None) -> None:
            if self.table.when_ready(ObjectId(ref._id), lambda _: callback()):
                callback()

        self.loop.post(begin, None)

    def why_pending(self, ref: ObjectRef[Any]) -> str:
        entry = self.table.entries.get(ObjectId(ref._id))
        if entry is None or entry.value is not None:
            return f"{ref._id.hex()[:16]} is ready"
        task = entry.task
        if task is None:
            return f"object {ref._id.hex()[:16]} is awaited from its owner {ref._owner.process_id.hex()[:8]}"
        return self.why_task_pending(task)

    def why_task_pending(self, task: Task) -> str:
        """What a call of this process waits for."""
        if task.state is TaskState.FINISHED:
            return f"{task.name()} is done and its result is being recovered"
        if isinstance(task.target, str):
            return self.actors.why_pending(task) if task.where is not None else f"{task.name()} is being submitted"
        return self.submitter.why_pending(task)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Drive the loop until ``condition()``; for shutdown and tests."""
        deadline = time.monotonic() + timeout_s
        return self.loop.drive(condition, max(0.0, deadline - time.monotonic()))
