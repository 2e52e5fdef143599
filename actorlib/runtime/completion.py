"""What happens to a call's result, whichever way the call went: shared by tasks and actor calls.

``Completion`` resolves the objects that a call makes, lets go of what it held, and feeds generators. It runs on the
thread that drives the loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from actorlib.engine import DYNAMIC
from actorlib.runtime.task import Task, TaskState
from actorlib.store.owner import Entry, OwnerTable, is_error
from actorlib.transport import limits
from actorlib.transport.ids import ObjectId, ProcessId, TaskId, object_id
from actorlib.transport.link import Address
from actorlib.transport.messages import GeneratorItem, ResultStatus, Value


class Stream:
    """The caller's side of a streaming call: items that have come and were not yet taken."""

    __slots__ = ("consumer_told", "ended", "error", "items", "next_index", "received", "taken", "waiters", "where")

    def __init__(self) -> None:
        self.items: dict[int, ObjectId] = {}
        self.next_index = 0
        self.received = 0
        self.taken = 0
        self.consumer_told = 0
        self.ended: int | None = None  # how many items there are in all
        self.error: Value = None
        self.waiters: list[Any] = []
        self.where: Any = None

    def is_drained(self) -> bool:
        """It has ended and all was taken. The end may be known before the last items have come."""
        return self.ended is not None and self.next_index >= self.ended


class ErrorPort(Protocol):
    def error_value(self, kind: str, text: str) -> Value: ...

    def matches(self, error: Value, classes: Any) -> bool:
        """Whether the error that a value carries is one that a user wants retried."""

    def list_of(self, ids: list[ObjectId]) -> Value:
        """The value of a list of references to objects of ours."""

    def count_of(self, value: Value) -> int:
        """The number of items that a streaming call's result tells."""

    def record(self, task: Task, state: str, error: str, worker: ProcessId, duration_us: int) -> None:
        """Note it for the state API."""

    def free_stored(self, object_id: ObjectId, value: Value, recipe: Any) -> None:
        """What lies in shared memory under that id is not wanted any more: on all nodes, if it may lie on several."""

    def deadline_met(self, task: Task) -> None:
        """A call with a deadline is settled."""


class Completion:
    """Settles calls. See the module's docstring."""

    def __init__(self, table: OwnerTable, port: ErrorPort) -> None:
        self.table = table
        self.port = port
        self.streams: dict[TaskId, Stream] = {}
        self.records_room = limits.task_events_finished_max

    def succeed(
        self, task: Task, values: tuple[Value, ...], retained: Iterable[ObjectId], worker: Address, duration_us: int
    ) -> None:
        task.state = TaskState.FINISHED
        task.where = None
        table = self.table
        for oid in retained:
            table.register(oid, worker)
        if task.num_returns == 1:
            table.resolve(ObjectId(task.task_id + b"\0\0\0\0"), values[0])
        elif task.generator is not None:
            self._end_stream(task, values)
        elif task.num_returns == DYNAMIC:
            self._resolve_items(task, values)
        else:
            for index, value in enumerate(values):
                table.resolve(object_id(task.task_id, index), value)
        if self.records_room:  # the others are counted, not kept
            self.port.record(task, "FINISHED", "", worker.process_id, duration_us)
        if task.may_have_run_before():
            self._sweep_up(task)
        self.let_go(task)

    def _resolve_items(self, task: Task, values: tuple[Value, ...]) -> None:
        """Of dynamic returns each item is an object of its own, which the caller owns as it owns what others return.

        The call's own object is a list of references to them. It is made once: where the task has run again for the
        sake of lost items, those that are still referred to get their values.
        """
        table, whole = self.table, object_id(task.task_id, 0)
        entry = table.entries.get(whole)
        ids = [object_id(task.task_id, index + 1) for index in range(len(values))]
        is_new = entry is not None and entry.value is None
        if is_new:
            task.made = len(ids)
            table.entries.update((oid, Entry(task)) for oid in ids)
        for oid, value in zip(ids, values, strict=True):
            table.resolve(oid, value)
        if is_new:
            table.resolve_made_here(whole, self.port.list_of(ids), tuple((oid, table.address) for oid in ids))
            for oid in ids:
                table.release(oid)

    def fail(self, task: Task, error: Value, state: str = "FAILED") -> None:
        """Every object that the call would have made becomes ``error``."""
        task.state = TaskState.FINISHED
        task.where = None
        if task.overdue:
            state, error = "FAILED", self.port.error_value("DeadlineExceededError", task.overdue)
        self.port.record(task, state, error[2] if is_error(error) else "", ProcessId(b""), 0)
        if task.generator is not None:
            self._break_stream(task, error)
        for oid in task.return_ids():
            self.table.resolve(oid, error)
        if task.may_have_run_before():
            self._sweep_up(task)
        self.let_go(task)

    def _sweep_up(self, task: Task) -> None:
        """An attempt that nobody heard of may have left what nobody wants, or what is an error by now."""
        for oid in task.return_ids():
            entry = self.table.entries.get(oid)
            if entry is None or is_error(entry.value):
                self.port.free_stored(oid, None, task)

    def fail_with(self, task: Task, kind: str, text: str) -> None:
        self.fail(task, self.port.error_value(kind, text), "CANCELLED" if kind == "TaskCancelledError" else "FAILED")

    def let_go(self, task: Task) -> None:
        if task.extra is not None and "timeout_s" in task.extra:
            self.port.deadline_met(task)
        if not task.holds:
            return
        release = self.table.release
        for oid in task.holds:
            release(oid)

    def wants_retry(self, task: Task, status: int, error: Value) -> bool:
        """Whether a call that raised is to be run again, by its options."""
        if status != ResultStatus.EXCEPTION or task.retries_left == 0 or task.cancelled or task.generator is not None:
            return False
        classes = task.options.retry_exceptions
        if classes is False:
            return False
        return classes is True or self.port.matches(error, classes)

    # -- streams -------------------------------------------------------------------------------------------------------
    def open_stream(self, task: Task) -> Stream:
        stream = Stream()
        self.streams[task.task_id] = stream
        task.generator = stream
        return stream

    def item(self, message: GeneratorItem) -> Stream | None:
        """An item has come. None if nobody wants it any more."""
        stream = self.streams.get(message.task_id)
        oid = object_id(message.task_id, message.index + 1)
        if stream is None:
            self.table.resolve(oid, message.value)
            return None
        if message.index < stream.received:
            self.table.resolve(oid, message.value)  # made again by a retry: what was seen stays
            return stream
        self.table.entries[oid] = Entry(None, 1)
        self.table.resolve(oid, message.value)
        stream.items[message.index] = oid
        stream.received = message.index + 1
        self._wake(stream)
        return stream

    def _end_stream(self, task: Task, values: tuple[Value, ...]) -> None:
        stream: Stream = task.generator
        stream.ended = max(stream.received, self.port.count_of(values[0]))
        self.table.resolve(object_id(task.task_id, 0), values[0])
        self._wake(stream)
        self._forget_if_drained(task.task_id, stream)

    def _break_stream(self, task: Task, error: Value) -> None:
        """The error takes the place of the next item, as it would in a generator."""
        stream: Stream = task.generator
        oid = object_id(task.task_id, stream.received + 1)
        self.table.entries[oid] = Entry(None, 1)
        self.table.resolve(oid, error)
        stream.items[stream.received] = oid
        stream.received += 1
        stream.ended = stream.received
        stream.error = error
        self._wake(stream)

    def _wake(self, stream: Stream) -> None:
        waiters, stream.waiters = stream.waiters, []
        for waiter in waiters:
            waiter()

    def close_stream(self, task_id: TaskId) -> None:
        """The consumer is gone: let go of what it did not take."""
        stream = self.streams.pop(task_id, None)
        if stream is not None:
            for oid in stream.items.values():
                self.table.release(oid)
            stream.items.clear()

    def take(self, task_id: TaskId, stream: Stream) -> ObjectId | None:
        """The next item, whose hold passes to the taker; None if there is none yet or no more."""
        oid = stream.items.pop(stream.next_index, None)
        if oid is None:
            return None
        stream.next_index += 1
        stream.taken += 1
        self._forget_if_drained(task_id, stream)
        return oid

    def _forget_if_drained(self, task_id: TaskId, stream: Stream) -> None:
        if stream.is_drained():
            self.streams.pop(task_id, None)
