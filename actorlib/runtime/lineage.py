"""Objects that outlive their owner: what is told to the GCS of them, and how a borrower takes them over.

An owner tells, in batches, of each object that another process refers to: its value once that is there and small,
whatever made it (a task, an actor, a generator, ``put``); else, if a task makes it, its recipe (function, arguments,
options) and those of what it was made from; else why it can't be made again. Arguments that lie in shared memory, which
goes with the owner, are copied into the recipe up to ``limits.lineage_row_bytes_max``. When the owner dies,
a borrower that needs the value asks the GCS: it becomes the new owner and runs the task again, or is sent to the
process that already did. What can't be made again resolves to ``OwnerDiedError``, which says why.

Who may be wrong: an owner may die before its batch has left (then nothing is known); a new owner may die as well (the
next one takes over from it); two results of one task may be taken over by two processes (the task runs twice, as it
may after any loss).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from actorlib.runtime.submitter import Submitter
from actorlib.runtime.task import Task
from actorlib.store.owner import Entry, OwnerTable, is_error, is_stored
from actorlib.transport import limits, messages
from actorlib.transport.ids import ARGUMENTS, JobId, ObjectId, ProcessId, TaskId, task_of
from actorlib.transport.ids import object_id as id_of_object
from actorlib.transport.link import Address
from actorlib.transport.messages import Payload, Value

VALUE = "value"
RECIPE = "recipe"
BY_ACTOR, BY_GENERATOR, TOO_LARGE, BY_PUT, HOLDS_OTHERS = b"a", b"g", b"l", b"p", b"r"  # of messages.NOT_MADE_AGAIN


class Port(Protocol):
    """What this needs of its process."""

    job_id: JobId

    def to_gcs(self, message: tuple[Any, ...]) -> None: ...

    def ask_gcs(self, message: Callable[[int], tuple[Any, ...]], then: Callable[[Any], None]) -> None:
        """Send a question; ``then`` takes its answer, which may be a Failure."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any: ...

    def ask_registration(
        self, owner: Address, ids: tuple[ObjectId, ...], who: Address, then: Callable[[], None]
    ) -> None: ...

    def error_value(self, kind: str, text: str) -> Value: ...

    def pack(self, recipe: tuple[Any, ...]) -> bytes:
        """As bytes that another process can turn back. Raises where that can't be done."""

    def unpack(self, payload: Payload) -> Any: ...

    def in_memory(self, object_id: ObjectId, value: Value) -> Value:
        """A stored value of this machine with all of its bytes; None if it can't be read now."""


class Lineage:
    """What this process tells and asks of lineage. See the module's docstring."""

    def __init__(self, address: Address, table: OwnerTable, submitter: Submitter, port: Port) -> None:
        self._address = address
        self._table = table
        self._submitter = submitter
        self._port = port
        self._left: dict[ObjectId, None] = {}  # to be told
        self._told: dict[ObjectId, None] = {}
        self._dropped: dict[ObjectId, None] = {}
        self._asked: dict[ObjectId, None] = {}
        self._scheduled = False

    # -- as an owner ---------------------------------------------------------------------------------------------------
    def left(self, object_id: ObjectId) -> None:
        """Another process refers to an object of ours, or the value of such a one is there now."""
        self._left[object_id] = None
        self._dropped.pop(object_id, None)
        self._schedule()

    def freed(self, object_id: ObjectId) -> None:
        self._left.pop(object_id, None)
        if self._told.pop(object_id, 0) is None:
            self._dropped[object_id] = None
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._port.call_later(limits.lineage_batch_s, self.flush)

    def flush(self) -> None:
        """Tell the GCS what has gathered."""
        self._scheduled = False
        rows: dict[ObjectId, bytes] = {}
        left, self._left = self._left, {}
        dropped, self._dropped = self._dropped, {}
        for object_id in left:
            self._add(object_id, rows)
        self._told.update(dict.fromkeys(rows))
        if rows or dropped:
            self._port.to_gcs(messages.LineageKept(self._port.job_id, tuple(rows.items()), tuple(dropped)))

    def _add(self, object_id: ObjectId, rows: dict[ObjectId, bytes]) -> None:
        """The row of an object, and those of what it was made from."""
        waiting = [object_id]
        while waiting:
            next_id = waiting.pop()
            entry = self._table.entries.get(next_id)
            if entry is None or next_id in rows or not self._table.publish(next_id):
                continue
            if self._travels(entry):
                payload = self._port.pack((VALUE, entry.value))
                rows[next_id] = payload if len(payload) <= limits.lineage_row_bytes_max else TOO_LARGE
            elif isinstance(entry.task, Task):
                rows[next_id] = self._recipe(entry.task)
                if rows[next_id] not in messages.NOT_MADE_AGAIN:
                    waiting.extend(entry.task.holds)
            elif not is_error(entry.value):
                rows[next_id] = self._why_not(next_id, entry)

    @staticmethod
    def _why_not(object_id: ObjectId, entry: Entry) -> bytes:
        """No task is known that would make it again."""
        if object_id != id_of_object(task_of(object_id), 0):
            return BY_GENERATOR  # whose items are counted from 1
        return BY_PUT if entry.value is None or is_stored(entry.value) else HOLDS_OTHERS

    def _recipe(self, task: Task) -> bytes:
        """What others make the results of ``task`` again from, or the byte that says why there is nothing."""
        if task.num_returns < 0:
            return BY_GENERATOR
        if not isinstance(task.target, bytes):
            return BY_ACTOR
        args = task.args
        if is_stored(args):
            args = None
            if task.args[4] <= limits.lineage_row_bytes_max:
                args = self._port.in_memory(id_of_object(task.task_id, ARGUMENTS), task.args)
            if args is None:
                return TOO_LARGE
        payload = self._port.pack(self._row(task, args))
        return payload if len(payload) <= limits.lineage_row_bytes_max else TOO_LARGE

    def _row(self, task: Task, args: Value) -> tuple[Any, ...]:
        values = {}
        for oid, _ in task.dependencies:
            held = self._table.entries.get(oid)
            if held is not None and self._travels(held):
                values[oid] = held.value
        retries = task.options.max_retries
        return (
            RECIPE,
            task.target,
            args,
            task.options,
            task.dependencies,
            task.num_returns,
            retries,
            task.label,
            values,
        )

    @staticmethod
    def _travels(entry: Entry) -> bool:
        """Whether the value itself can be kept: it is there, small, and refers to nothing."""
        contained = entry.rare is not None and entry.rare.contained
        return not (entry.value is None or is_stored(entry.value) or is_error(entry.value) or contained)

    # -- as a borrower -------------------------------------------------------------------------------------------------
    def orphaned(self, object_id: ObjectId, dead: ProcessId, text: str) -> None:
        """The owner of an object that is needed here is dead: take it over, or find out who has."""
        if object_id in self._asked:
            return
        self._asked[object_id] = None
        self._port.ask_gcs(
            lambda request_id: messages.LineageFind(request_id, object_id, self._address, dead),
            lambda answer: self._found(object_id, text, answer),
        )

    def _found(self, object_id: ObjectId, text: str, answer: Any) -> None:
        del self._asked[object_id]
        entry = self._table.entries.get(object_id)
        if entry is None or entry.value is not None or not self._table.is_borrowed(entry):
            return
        if type(answer) is messages.Failure or (not answer.payload and not answer.owner.process_id):
            reason = answer.text if type(answer) is messages.Failure else answer.reason
            self._table.resolve(object_id, self._port.error_value("OwnerDiedError", f"{text}; {reason}"))
        elif answer.owner.process_id != self._address.process_id:
            self._table.redirect(object_id, answer.owner)
        else:
            self._take_over(object_id, self._port.unpack(answer.payload))

    def _take_over(self, object_id: ObjectId, row: tuple[Any, ...]) -> None:
        if row[0] == VALUE:
            self._table.take_over(object_id, None)
            self._table.resolve(object_id, row[1])
            return
        _, target, args, options, dependencies, num_returns, retries, label, values = row
        task = Task(TaskId(object_id[:16]), target, args, options, num_returns, retries, label)
        task.dependencies = tuple((oid, Address(*owner)) for oid, owner in dependencies)
        task.holds = tuple(oid for oid, _ in task.dependencies)
        for oid, owner in task.dependencies:
            held = self._table.adopt(oid, owner)
            if held.value is None and oid in values:
                held.value = values[oid]
            elif self._table.is_borrowed(held):
                self._table.borrow(oid, owner)
        for oid in task.return_ids():
            self._table.take_over(oid, task)
        self._submitter.submit(task)
