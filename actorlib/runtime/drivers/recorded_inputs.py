"""What a durable actor's methods learn from outside: recorded when it is learned, taken from the log when run again.

Each operation of the engine that gives something from outside (``get``, ``wait``, ``record``, ...) leaves one input in
the log. When a call is run again, its inputs are handed out in the same order; once they are used up, the call is in
full view and asks the world again.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from actorlib import exceptions, serialization
from actorlib.object_ref import ObjectRef, ObjectRefGenerator
from actorlib.runtime.completion import Stream
from actorlib.runtime.drivers.calls import CURRENT
from actorlib.runtime.drivers.checkpointing import Checkpointing, pickled
from actorlib.runtime.task import Task
from actorlib.store.owner import Entry, is_error, is_stored
from actorlib.transport import limits, messages
from actorlib.transport.ids import GroupId, IdFactory, ObjectId, TaskId, object_id
from actorlib.transport.messages import VALUE_PARTS, VALUE_REFS, Value

INDEX_BITS = 24
NOTHING: deque[tuple[str, Any, Any]] = deque()
_SEQUENCE = struct.Struct(">Q")


class Run:
    """A call of a durable actor that runs now, for the first time or again."""

    __slots__ = ("index", "inputs", "is_replay", "items", "learned", "position", "waiting")

    def __init__(self, position: int, inputs: deque[tuple[str, Any, Any]] | None, is_replay: bool) -> None:
        self.position = position
        self.index = 0  # of what it has made
        self.inputs = inputs or NOTHING
        self.learned: tuple[tuple[str, Any, Any], ...] = ()  # kept where it is to be run twice
        self.is_replay = is_replay  # nobody sees it: what it sends is held back
        self.items: list[Value] | None = None  # of a generator
        self.waiting: dict[bytes, Callable[[], None]] | None = None  # coroutines that wait for what the log has

    def next_sequence(self) -> int:
        """The identity of the next call, task or object that it makes."""
        self.index += 1
        if self.index >> INDEX_BITS:
            raise exceptions.ActorlibError(f"one call of a durable actor makes at most {1 << INDEX_BITS} calls")
        return self.position << INDEX_BITS | self.index


def current_run() -> Run | None:
    context = CURRENT.get()
    return None if context is None else context.run


class VoiceIds(IdFactory):
    """Ids of what a durable actor makes: the same in every incarnation, from its voice, the position and a count."""

    __slots__ = ("_voice",)

    def __init__(self, other: IdFactory, voice: bytes) -> None:
        self._prefix = other._prefix
        self._next = other._next
        self._voice = voice

    def task_id(self) -> TaskId:
        run = current_run()
        return super().task_id() if run is None else TaskId(self._voice + _SEQUENCE.pack(run.next_sequence()))

    def actor_id(self) -> Any:
        return self.task_id()

    def group_id(self) -> GroupId:
        return GroupId(self.task_id())


class RecordedInputs(Checkpointing):
    """The engine's operations as the methods of a durable actor see them."""

    is_replaying = False
    looks_for_divergence = False
    held: dict[TaskId, tuple[Callable[[Any], None], Any, Task]]

    # -- inputs --------------------------------------------------------------------------------------------------------
    def _known(self, run: Run, kind: str, key: Any) -> tuple[Any] | None:
        """What the log has for this operation; None once the call is in full view."""
        if not run.inputs:
            if run.is_replay:
                raise self.diverged(run, f"it calls {kind}() where it did not when it ran first")
            return None
        had_kind, had_key, value = run.inputs[0]
        if had_kind != kind or had_key != key:
            raise self.diverged(run, f"it calls {kind}() where it called {had_kind}() when it ran first")
        run.inputs.popleft()
        if self.looks_for_divergence and not run.is_replay:  # in the middle when its process ended: it goes on in view
            run.learned = (*run.learned, (kind, key, value))
        self._wake_next(run)
        return (value,)

    def diverged(self, run: Run, text: str) -> Exception:
        context = CURRENT.get()
        name = context.name if context is not None else "a method"
        return exceptions.ReplayDivergedError(
            f"{self.class_name}.{name} (position {run.position}) did not do the same when it was run again: {text}. "
            "What it takes from outside (time, randomness, files, module globals) must come through actorlib.record(fn)"
        )

    def _learn(self, kind: str, key: Any, value: Any, size: int) -> None:
        assert self.log is not None
        self.log.learn(kind, key, value, size)
        run = current_run()
        if self.looks_for_divergence and run is not None:
            run.learned = (*run.learned, (kind, key, value))

    def _once(self, kind: str, key: Any, function: Callable[[], Any]) -> Any:
        """Call ``function`` and record what it gives or raises; when run again, give or raise that."""
        run = current_run()
        if run is None:
            return function()
        known = self._known(run, kind, key)
        if known is None:
            outcome = self._outcome(function)
            known = (pickled(outcome),)
            self._learn(kind, key, known[0], len(known[0]))
        raised, value = serialization.deserialize(known[0])
        if raised:
            raise value
        return value

    @staticmethod
    def _outcome(function: Callable[[], Any]) -> tuple[bool, Any]:
        try:
            return False, function()
        except Exception as error:
            error.__traceback__ = None
            return True, error

    def record_once(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function once, whatever happens; see ``actorlib.record``."""
        name = getattr(function, "__qualname__", type(function).__name__)
        return self._once("record", name, lambda: function(*args, **kwargs))

    # -- values --------------------------------------------------------------------------------------------------------
    def whole(self, oid: ObjectId, value: Value) -> Value:
        """A value with all of its bytes: what lies in shared memory may be gone when it is needed again."""
        if is_stored(value):
            data, buffers = self._read_stored(oid, self.address, value)
            return (VALUE_PARTS, bytes(data), tuple(bytes(buffer) for buffer in buffers))
        if type(value) is tuple and value[0] == VALUE_REFS:
            return (VALUE_REFS, self.whole(oid, value[1]), value[2])
        return value

    def make_value(
        self, oid: ObjectId, serialized: serialization.Serialized, inline_bytes_max: int = limits.inline_bytes_max
    ) -> Value:
        run = current_run()
        if run is None or not run.is_replay:
            return super().make_value(oid, serialized, inline_bytes_max)
        if serialized.buffers:
            return (VALUE_PARTS, serialized.data, tuple(bytes(buffer) for buffer in serialized.buffers))
        return serialized.data

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        run = current_run()
        if run is None:
            return super().get(refs, timeout)
        key = refs[0]._id if len(refs) == 1 else b"".join(ref._id for ref in refs)
        known = self._known(run, "get", key)
        if known is not None:
            return self._get_known(refs, known[0])
        entries = self.table.entries
        missing = [ref for ref in refs if (entry := entries.get(ref._id)) is None or entry.value is None]  # type: ignore[call-overload]
        if missing and not self._await(missing, len(missing), timeout):
            text = self._timeout_text(missing, timeout)
            self._learn("get", key, text, len(text))
            raise exceptions.GetTimeoutError(text)
        values = tuple(self.whole(ObjectId(ref._id), self._value_of_ref(ref)) for ref in refs)
        self._learn("get", key, values, sum(map(size_of, values)))
        return [self.load_value(ObjectId(ref._id), ref._owner, v) for ref, v in zip(refs, values, strict=True)]

    def _value_of_ref(self, ref: ObjectRef[Any]) -> Value:
        entry = self.table.entries.get(ObjectId(ref._id))
        while entry is None or entry.value is None:  # lost between its arrival and now; it is being recovered
            self._await([ref], 1, None)
            entry = self.table.entries.get(ObjectId(ref._id))
        return entry.value

    def _get_known(self, refs: Sequence[ObjectRef[Any]], values: Any) -> list[Any]:
        if isinstance(values, str):
            raise exceptions.GetTimeoutError(values)
        pairs = [(ObjectId(ref._id), value) for ref, value in zip(refs, values, strict=True)]
        self.loop.post(self._resolve_known, pairs)
        return [self.load_value(oid, ref._owner, value) for ref, (oid, value) in zip(refs, pairs, strict=True)]

    def _resolve_known(self, pairs: list[tuple[ObjectId, Value]]) -> None:
        """Calls whose results the log has need not be made again."""
        for oid, value in pairs:
            held = self.held.get(TaskId(oid[:16]))
            if held is not None and held[2].num_returns == 1:
                del self.held[held[2].task_id]
                self._settle_known(held[2], value)
            elif self.table.entries.get(oid) is not None and self.table.entries[oid].value is None:
                self.table.resolve(oid, value)

    def _settle_known(self, task: Task, value: Value) -> None:
        client = self.actors.clients.get((task.extra or {}).get("to"))  # type: ignore[arg-type]
        if client is not None and client.is_durable:
            self.actors.note_seen(client, task)
        if is_error(value):
            self.completion.fail(task, value)
        else:
            self.completion.succeed(task, (value,), (), self.address, 0)

    def wait(
        self, refs: Sequence[ObjectRef[Any]], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        run = current_run()
        if run is None:
            return super().wait(refs, num_returns, timeout, fetch_local)
        known = self._known(run, "wait", len(refs))
        if known is None:
            ready, rest = super().wait(refs, num_returns, timeout, fetch_local)
            chosen = dict.fromkeys(ready)
            known = (tuple(index for index, ref in enumerate(refs) if ref in chosen),)
            self._learn("wait", len(refs), known[0], 8 * len(known[0]))
            return ready, rest
        picked = dict.fromkeys(known[0])
        return [refs[i] for i in known[0]], [ref for i, ref in enumerate(refs) if i not in picked]

    def when_ready(self, ref: ObjectRef[Any], callback: Callable[[], None]) -> None:
        run = current_run()
        if run is None or not run.inputs:
            super().when_ready(ref, callback)
            return
        if run.waiting is None:
            run.waiting = {}
        run.waiting[ref._id] = callback
        self._wake_next(run)

    def _wake_next(self, run: Run) -> None:
        """Let the coroutine go on that went on next when the call ran first; all of them once it is in full view."""
        if not run.waiting:
            return
        if run.inputs:
            callback = run.waiting.pop(run.inputs[0][1], None) if run.inputs[0][0] == "get" else None
            if callback is not None:
                callback()
            return
        for oid, callback in list(run.waiting.items()):
            super().when_ready(self.new_waiting_ref(oid), callback)
        run.waiting.clear()

    def new_waiting_ref(self, oid: bytes) -> ObjectRef[Any]:
        self.loop.run(lambda: self.table.entries.setdefault(ObjectId(oid), Entry(None, 0)))
        self.loop.run(lambda: self.table.hold(ObjectId(oid)))
        return self.new_ref(oid)

    # -- generators ----------------------------------------------------------------------------------------------------
    def next_item(self, generator: ObjectRefGenerator[Any], timeout: float | None) -> ObjectRef[Any] | None:
        run = current_run()
        if run is None:
            return super().next_item(generator, timeout)
        known = self._known(run, "item", generator._task_id)
        if known is None:
            ref = super().next_item(generator, timeout)
            oid = b"" if ref is None else ref._id
            self._learn("item", generator._task_id, oid, len(oid))
            return ref
        if not known[0]:
            return None
        oid, stream = ObjectId(known[0]), generator._state[0]
        self.loop.run(lambda: self._item_known(oid, stream))
        return self.new_ref(oid)

    def _item_known(self, oid: ObjectId, stream: Stream) -> None:
        if stream.items.pop(stream.next_index, None) is None:
            self.table.entries[oid] = Entry(None, 1)
            stream.received = max(stream.received, stream.next_index + 1)
        stream.next_index += 1
        stream.taken += 1

    # -- what else is asked of the cluster -----------------------------------------------------------------------------
    def find_actor(self, name: str, namespace: str | None) -> Any:
        return self._once("find_actor", name, lambda: super(RecordedInputs, self).find_actor(name, namespace))

    def list_named_actors(self, all_namespaces: bool) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = self._once(
            "list_named_actors", "", lambda: super(RecordedInputs, self).list_named_actors(all_namespaces)
        )
        return found

    def nodes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._once("nodes", "", super().nodes)
        return found

    def cluster_resources(self) -> dict[str, float]:
        found: dict[str, float] = self._once("cluster_resources", "", super().cluster_resources)
        return found

    def available_resources(self) -> dict[str, float]:
        found: dict[str, float] = self._once("available_resources", "", super().available_resources)
        return found

    def query_state(self, table: str, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._once(
            "query_state", table, lambda: super(RecordedInputs, self).query_state(table, limit)
        )
        return found

    def kill(self, handle: Any, no_restart: bool) -> None:
        self._once("kill", handle._actor_id, lambda: super(RecordedInputs, self).kill(handle, no_restart))

    def wait_group(self, group_id: GroupId, timeout: float | None) -> bool:
        return bool(
            self._once("wait_group", group_id, lambda: super(RecordedInputs, self).wait_group(group_id, timeout))
        )

    # -- what is held back while calls are run again -------------------------------------------------------------------
    def _enqueue(self, task: Task) -> None:
        if self.is_replaying:
            self.held[task.task_id] = (super()._enqueue, task, task)
        else:
            super()._enqueue(task)

    def _enqueue_call(self, item: Any) -> None:
        if self.is_replaying:
            handle, task = item
            task.extra = {**(task.extra or {}), "to": handle._actor_id}
            client = self.actors.client(handle._actor_id, handle._class_name)
            client.is_durable = bool(handle._extra.get("durable"))
            self.held[task.task_id] = (super()._enqueue_call, item, task)
        else:
            super()._enqueue_call(item)

    def _release_held(self, _: None) -> None:
        """Calls whose results the log does not have are made now: durable actors know those that they had."""
        self.is_replaying = False
        held, self.held = self.held, {}
        for submit, item, _task in held.values():
            submit(item)

    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        run = current_run()
        if run is None or not run.is_replay:
            super().cancel(ref, force, recursive)


def size_of(value: Value) -> int:
    """About how many bytes a value takes in the log."""
    if type(value) is bytes:
        return len(value)
    if type(value) is tuple and value[0] == VALUE_PARTS:
        return len(value[1]) + sum(len(buffer) for buffer in value[2])
    return limits.own_frame_bytes_min


def no_longer_kept(task_id: TaskId) -> messages.CallResult:
    """The answer to a call whose reply its caller had acknowledged."""
    text = "the reply to this call was acknowledged before, and is not kept any more"
    error = exceptions.ActorlibError(text)
    value = (messages.VALUE_ERROR, pickled(error), f"ActorlibError: {text}")
    return messages.CallResult(task_id, messages.ResultStatus.SYSTEM_ERROR, (value,), (), 0)


__all__ = ["RecordedInputs", "Run", "VoiceIds", "current_run", "no_longer_kept", "object_id", "size_of"]
