"""Objects in shared memory, as a process sees them: write once, read without a copy.

Writing: the node grants slab files; this process maps them and fills them. The mapping is kept, so that a slab that is
granted to the same process again has its pages mapped already: that is what makes the second ``put`` fast.

Reading: each object is mapped read-only on its own. As long as any view of it lives, this process holds a shared
``flock`` on the slab; the node uses a slab again only after taking the exclusive lock, and then gives it a new path. So
a reader opens, locks, and *then* looks whether the path still means the same file: if not, the object is missing. The
kernel lets go of the lock when the process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from actorlib.store import slab
from actorlib.transport.ids import NodeId, ObjectId
from actorlib.transport.messages import VALUE_STORED, Value

MAPPINGS_KEPT_MAX = 16


class ObjectMissing(Exception):
    """The object is not in the place that its value names."""


class _Mapping(mmap.mmap):
    """The pages of one object. Its end is the end of the last view of them, and lets go of the slab."""

    fd = -1

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)  # the shared lock goes with it
            self.fd = -1


class _Granted:
    """A slab that this process fills."""

    __slots__ = ("filler", "path", "shared", "view")

    def __init__(self, path: str, size: int, view: memoryview) -> None:
        self.path = path
        self.view = view
        self.filler = slab.Filler(size)
        self.shared = slab.is_shared(size)


def slab_file(path: str) -> str:
    """The part of a slab's path that stays when it is granted again (its generation is the suffix)."""
    return path.rpartition(".")[0]


class StoreClient:
    """Writes and reads objects of the node's store. One a process, for all of its threads."""

    def __init__(self, node_id: NodeId, host_id: str) -> None:
        self._node_id = node_id
        self._host_id = host_id
        self._placing = threading.Lock()
        self._granted: list[_Granted] = []
        self._mappings: dict[str, tuple[mmap.mmap, int]] = {}
        # Filled by the thread that writes, emptied by the one that drives the loop: deques, since those are atomic.
        self._sealed: deque[tuple[ObjectId, str, int, int]] = deque()
        self._returned: deque[str] = deque()
        self._stamps = itertools.count(self._first_stamp())

    def _first_stamp(self) -> int:
        """Where this process's stamps begin: no two processes' meet."""
        return int.from_bytes(os.urandom(6), "little") << 16

    # -- writing -------------------------------------------------------------------------------------------------------
    @staticmethod
    def size_needed(data: Any, buffers: Sequence[memoryview]) -> int:
        return slab.object_bytes([len(data), *(buffer.nbytes for buffer in buffers)])

    def add_slab(self, path: str, size: int) -> None:
        """The node has granted this slab."""
        key = slab_file(path)
        kept = self._mappings.pop(key, None)
        if kept is None or kept[1] != size:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                kept = (mmap.mmap(fd, size), size)
            finally:
                os.close(fd)
        self._mappings[key] = kept
        while len(self._mappings) > MAPPINGS_KEPT_MAX:
            del self._mappings[next(iter(self._mappings))]
        with self._placing:
            self._granted.append(_Granted(path, size, memoryview(kept[0])))

    def write_parts(self, object_id: ObjectId, data: Any, buffers: Sequence[memoryview]) -> Value:
        """Copy an object into shared memory; gives its value, or None if a slab must be granted first."""
        sizes = [len(data), *(buffer.nbytes for buffer in buffers)]
        need = slab.object_bytes(sizes)
        with self._placing:
            found = self._place(need)
        if found is None:
            return None
        granted, offset = found
        target = granted.view[offset : offset + need]
        offsets = slab.write_header(target, object_id, sizes, next(self._stamps))
        for part, at, size in zip((data, *buffers), offsets, sizes, strict=True):
            if size:
                target[at : at + size] = memoryview(part).cast("B")
        self._sealed.append((object_id, granted.path, offset, need))
        return (VALUE_STORED, self._node_id, granted.path, offset, need, self._host_id)

    def _place(self, need: int) -> tuple[_Granted, int] | None:
        small = slab.is_shared(slab.slab_bytes(need))
        for granted in list(self._granted):
            if granted.shared != small:
                continue
            offset = granted.filler.take(need)
            if offset is not None:
                if not small:
                    self._granted.remove(granted)
                return granted, offset
            if small:
                self._granted.remove(granted)
                self._returned.append(granted.path)
        return None

    def pending_sealed(self) -> list[tuple[ObjectId, str, int, int]]:
        """What was written since the last call, for the node."""
        return [self._sealed.popleft() for _ in range(len(self._sealed))]

    def take_returned(self) -> list[str]:
        """Slabs that are full, for the node."""
        return [self._returned.popleft() for _ in range(len(self._returned))]

    # -- reading -------------------------------------------------------------------------------------------------------
    def is_near(self, value: Value) -> bool:
        """Whether a stored value lies in memory that this process shares."""
        return bool(value[5] == self._host_id)

    def read(self, value: Value, object_id: ObjectId) -> tuple[memoryview, list[memoryview]]:
        """The pickle and the buffers of a stored object, read-only and without a copy. Raises ObjectMissing."""
        _, _, path, offset, size, host_id = value
        if host_id != self._host_id:
            raise ObjectMissing("it lies on another machine")
        try:
            parts = slab.read_parts(map_object(path, offset, size), object_id)
        except slab.CorruptObject as error:
            raise ObjectMissing(str(error)) from error
        return parts[0], parts[1:]

    def close(self) -> None:
        self._granted.clear()
        self._mappings.clear()


def map_object(path: str, offset: int, size: int) -> memoryview:
    """The bytes of an object, read-only. As long as a view of them lives, its slab is not used again.

    Raises:
        ObjectMissing: there is no such file (any more).
        CorruptObject: the slab was given away meanwhile.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ObjectMissing(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        mine, there = os.fstat(fd), os.stat(path)
        if mine.st_ino != there.st_ino or mine.st_size < offset + size:
            raise slab.CorruptObject("the slab was given away")
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        mapping = _Mapping(fd, offset + size - start, prot=mmap.PROT_READ, offset=start)
    except FileNotFoundError as error:
        os.close(fd)
        raise slab.CorruptObject("the slab was given away") from error
    except BaseException:
        os.close(fd)
        raise
    mapping.fd = fd
    return memoryview(mapping)[offset - start :]
