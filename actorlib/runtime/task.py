"""One call, from ``.remote()`` until its result is there: the state that its caller keeps.

A million of these may wait at once, so the class has slots only, and what is rare hangs off ``extra``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

from actorlib.engine import DYNAMIC, STREAMING
from actorlib.runtime.portions import weight
from actorlib.store.owner import OwnerTable
from actorlib.transport import limits
from actorlib.transport.ids import ActorId, ObjectId, TaskId, object_id
from actorlib.transport.link import Address
from actorlib.transport.messages import Call, Value


class TaskState(enum.IntEnum):
    WAITING = 0  # for its arguments
    READY = 1  # for a worker
    IN_FLIGHT = 2  # sent to a worker
    FINISHED = 3


class Task:
    """A task or an actor call. ``target`` is the function's id or the method's name."""

    __slots__ = (
        "actor_id",
        "args",
        "cancelled",
        "dependencies",
        "depth",
        "extra",
        "followers",
        "generator",
        "holds",
        "label",
        "made",
        "missing",
        "num_returns",
        "options",
        "overdue",
        "recipe_kept",
        "retries_left",
        "sequence",
        "state",
        "suspect",
        "target",
        "task_id",
        "where",
    )

    def __init__(
        self, task_id: TaskId, target: Any, args: Value, options: Any, num_returns: int, retries: int, label: str
    ) -> None:
        self.task_id = task_id
        self.label = label
        self.target = target
        self.args = args
        self.options = options
        self.num_returns = num_returns
        self.retries_left = retries  # -1: without end
        self.dependencies: tuple[tuple[ObjectId, Address], ...] = ()
        self.holds: tuple[ObjectId, ...] = ()
        self.state = TaskState.WAITING
        self.missing: list[int] | None = None  # how many arguments are not there yet
        self.where: Any = None  # the lease or actor client that it is in flight to, or queued at
        self.extra: dict[str, Any] | None = None
        self.followers: list[Task] | None = None  # tasks that wait for what this one makes
        self.generator: Any = None
        self.depth = 1
        self.suspect = False  # was in flight when a worker died: runs alone next time, so that blame is exact
        self.cancelled = False
        self.overdue = ""  # it was cancelled because its deadline was over, in words
        self.actor_id: ActorId | None = None  # an actor's call that may be made again
        self.sequence = -1  # the number of a call to a durable actor, the same each time that it is sent
        self.made = 0  # items, of a call with dynamic returns that has ended
        self.recipe_kept = 0  # living values in shared memory that this task made

    def inputs(self) -> Iterable[ObjectId]:
        """What must be kept so that it can be run again; of an actor's call, not the actor: it may end meanwhile."""
        if isinstance(self.target, bytes):
            return self.holds
        return [oid for oid, _ in self.dependencies] if self.actor_id is not None else ()

    def is_repeatable(self) -> bool:
        """Whether it may be run again for the sake of a result that was lost."""
        return isinstance(self.target, bytes) or self.actor_id is not None

    def may_have_run_before(self) -> bool:
        """Whether an earlier attempt may have left results where nobody has heard of."""
        return self.suspect or (self.extra is not None and "attempt" in self.extra)

    def is_waiting(self) -> bool:
        return self.missing is not None and self.missing[0] > 0

    def is_finished(self) -> bool:
        return self.state is TaskState.FINISHED

    def return_ids(self) -> list[ObjectId]:
        """The object ids of what it returns; of a stream, the object that tells of its end;
        with dynamic returns, the list and its items."""
        if self.num_returns in (STREAMING, DYNAMIC):
            return [object_id(self.task_id, i) for i in range(1 + self.made)]
        return [object_id(self.task_id, i) for i in range(self.num_returns)]

    def take_again(self, table: OwnerTable) -> None:
        """It is to run once more: hold its arguments again, and void what it gave."""
        for oid in self.holds:
            table.adopt(oid, table.address)
        for oid in self.return_ids():
            entry = table.entries.get(oid)
            if entry is not None and type(entry.value) is tuple:
                table.void(oid)

    def to_call(self, values: tuple[Any, ...], sequence: int) -> Call:
        return Call(self.task_id, self.target, self.args, values, self.num_returns, sequence, self.extra)

    def name(self) -> str:
        return self.label


class Target:
    """A worker that calls are in flight to, in the order they were sent."""

    __slots__ = ("in_flight", "replies_seen")

    def __init__(self) -> None:
        self.in_flight: dict[TaskId, Task] = {}
        self.replies_seen = 0


def dependency_values(task: Task, values: Any, target: Target) -> tuple[Any, ...] | None:
    """The values of a call's arguments for the wire, ``None`` for one that an earlier call in flight to ``target``
    will have made by then, and for those that would make the message too large: the worker asks for these. Gives None
    if an argument is neither there nor on its way to be made at ``target``.
    """
    out: list[tuple[ObjectId, Address, Value]] = []
    room = limits.message_bytes_max
    for oid, owner in task.dependencies:
        entry = values.get(oid)
        if entry is None:
            return None
        if entry.value is not None:
            value = entry.value
            if entry.rare is not None and entry.rare.contained:
                value = (4, value, entry.rare.contained)
            room -= weight(value)
            out.append((oid, owner, value if room >= 0 else None))
            continue
        maker = entry.task
        if maker is None or maker.where is not target or maker.state is not TaskState.IN_FLIGHT:
            return None
        if maker.generator is not None or maker.num_returns < 0:
            return None
        out.append((oid, owner, None))
    return tuple(out)
