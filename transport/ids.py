"""Identifiers: fixed-length byte strings that are unique without asking anybody.

Inside the machinery an id is plain ``bytes`` under a NewType, because ids are dictionary keys on the path of every
call. What the user sees (``TaskID``, ``ObjectID``, ...) wraps those bytes and lives in this file too.

* A **process id** (8 bytes) is drawn at random for each incarnation of a process, so a process that comes back is
  never taken for the one that was declared dead.
* A **task id** (16 bytes) is the process id of the caller followed by a counter. The first 8 bytes of any task or
  object id therefore name the process that owns it.
* An **object id** (20 bytes) is the id of the task that makes it followed by the index of the return value. ``put``
  takes a task id of its own from the same counter.
* An **actor id** (16 bytes) is made like a task id by the process that creates the actor.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable
from typing import NewType, Self

ProcessId = NewType("ProcessId", bytes)
NodeId = NewType("NodeId", bytes)
TaskId = NewType("TaskId", bytes)
ObjectId = NewType("ObjectId", bytes)
ActorId = NewType("ActorId", bytes)
JobId = NewType("JobId", bytes)
GroupId = NewType("GroupId", bytes)
LeaseId = NewType("LeaseId", bytes)

PROCESS_ID_BYTES = 8
TASK_ID_BYTES = 16
OBJECT_ID_BYTES = 20

NO_ACTOR = ActorId(b"")

_COUNTER = struct.Struct(">Q")
_INDEX = struct.Struct(">I")


def new_process_id(random_bytes: Callable[[int], bytes] | None = None) -> ProcessId:
    """Draw the id of a new incarnation of a process; simulations hand in their own ``random_bytes``."""
    return ProcessId((random_bytes or os.urandom)(PROCESS_ID_BYTES))


class IdFactory:
    """Makes task, object, actor, lease and request ids for one process, without locks or I/O.

    ``itertools.count`` is atomic under the GIL, so any thread may call any method.
    """

    __slots__ = ("_next", "_prefix")

    def __init__(self, process_id: ProcessId) -> None:
        self._prefix: bytes = process_id
        self._next = itertools.count(1).__next__

    def task_id(self) -> TaskId:
        return TaskId(self._prefix + _COUNTER.pack(self._next()))

    def actor_id(self) -> ActorId:
        return ActorId(self._prefix + _COUNTER.pack(self._next()))

    def lease_id(self) -> LeaseId:
        return LeaseId(self._prefix + _COUNTER.pack(self._next()))

    def group_id(self) -> GroupId:
        return GroupId(self._prefix + _COUNTER.pack(self._next()))

    def request_id(self) -> int:
        return self._next()


def object_id(task_id: TaskId, index: int) -> ObjectId:
    """The id of return value ``index`` (from 0) of ``task_id``."""
    return ObjectId(task_id + _INDEX.pack(index))


ARGUMENTS = 0xFFFFFFFF
"""In the place of an index: the arguments of a task, where they are an object of their own."""


def task_of(oid: ObjectId) -> TaskId:
    """The id of the task (or ``put``) that made ``oid``."""
    return TaskId(oid[:TASK_ID_BYTES])


def index_of(oid: ObjectId) -> int:
    """The position of ``oid`` among the return values of its task."""
    index: int = _INDEX.unpack_from(oid, TASK_ID_BYTES)[0]
    return index


def owner_of(some_id: bytes) -> ProcessId:
    """The process that made a task, object or actor id, which is the owner of what it names."""
    return ProcessId(some_id[:PROCESS_ID_BYTES])


class BaseID:
    """An id as the user sees it: immutable, hashable, comparable by value within its class."""

    __slots__ = ("_bytes",)
    size = TASK_ID_BYTES
    sizes_elsewhere: tuple[int, ...] = (16, 18, 24)  # of ids that come from a Ray cluster

    def __init__(self, value: bytes) -> None:
        if not isinstance(value, bytes):
            raise TypeError(f"{type(self).__name__} is made of bytes, not {type(value).__name__}")
        if value and len(value) != self.size and len(value) not in self.sizes_elsewhere:
            raise ValueError(f"{type(self).__name__} has {self.size} bytes, not {len(value)}")
        self._bytes = value

    @classmethod
    def from_hex(cls, text: str) -> Self:
        return cls(bytes.fromhex(text))

    @classmethod
    def nil(cls) -> Self:
        return cls(b"")

    def is_nil(self) -> bool:
        return not self._bytes

    def binary(self) -> bytes:
        return self._bytes

    def hex(self) -> str:
        return self._bytes.hex()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BaseID) and type(self) is type(other) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._bytes.hex()})"

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self._bytes,)


class TaskID(BaseID):
    __slots__ = ()


class ActorID(BaseID):
    __slots__ = ()


class PlacementGroupID(BaseID):
    __slots__ = ()


class ObjectID(BaseID):
    __slots__ = ()
    size = OBJECT_ID_BYTES
    sizes_elsewhere = (28,)


class NodeID(BaseID):
    __slots__ = ()
    size = PROCESS_ID_BYTES
    sizes_elsewhere = (28,)


class WorkerID(BaseID):
    __slots__ = ()
    size = PROCESS_ID_BYTES
    sizes_elsewhere = (28,)


class JobID(BaseID):
    __slots__ = ()
    size = PROCESS_ID_BYTES
    sizes_elsewhere = (4,)
