"""The call log of one actor as files of its node: segments of batches, written once, removed when covered.

Written but not synced, a batch survives the death of the worker, the node's process and the driver, since the kernel
has it; synced, a power cut. The *marker* says which call runs just now. It is shared memory backed by a file, so that
noting a call costs no system call and is still there when the process was killed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from actorlib.runtime.call_log_format import CALL, FORMAT_VERSION, HEAD, Record, decode, encode
from actorlib.transport import limits
from actorlib.transport.ids import ActorId

MARK = struct.Struct("<B8sqqI")  # runs, caller, sequence, position, how often it has crashed in a row
NO_CALLER = bytes(8)
NAMES = 3
"""On the way to a file, made by us: its own, that of its actor's folder, and that of the folder of all actors."""


class Files(Protocol):
    """What the log asks of a disk; a simulated one has the same methods."""

    def append(self, path: str, data: bytes) -> None: ...

    def read(self, path: str) -> bytes: ...

    def sync(self, path: str) -> None:
        """What was appended outlives a power cut from now on, and so does the file's name."""

    def remove(self, path: str) -> None: ...

    def remove_folder(self, path: str) -> None: ...

    def paths(self, prefix: str) -> list[str]: ...


class Mark(NamedTuple):
    """A call that was running when its process ended."""

    caller: bytes
    sequence: int
    position: int
    crashes: int


class Marker(Protocol):
    def read(self) -> Mark | None:
        """The call that was running; None if none was."""

    def note(self, caller: bytes, sequence: int, position: int, crashes: int) -> None: ...

    def clear(self) -> None: ...


class RealFiles:
    """``Files`` on the file system. Descriptors of files that are appended to stay open."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._unnamed: dict[str, None] = {}  # open ones whose names may be lost with the power

    def append(self, path: str, data: bytes) -> None:
        fd = self._open.get(path)
        if fd is None:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            fd = self._open[path] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._unnamed[path] = None
        size = os.fstat(fd).st_size if len(data) > limits.own_frame_bytes_min else -1
        written = os.write(fd, data)
        while written < len(data):
            try:
                written += os.write(fd, data[written:])
            except OSError:
                if size >= 0:
                    os.ftruncate(fd, size)  # all or nothing: half a batch would hide those after it
                raise

    def read(self, path: str) -> bytes:
        with open(path, "rb") as source:
            return source.read()

    def sync(self, path: str) -> None:
        fd = self._open.get(path)
        if fd is None:
            return
        os.fdatasync(fd)
        if path in self._unnamed:
            directory = path
            for _ in range(NAMES):
                directory = os.path.dirname(directory)
                sync_directory(directory)
            del self._unnamed[path]

    def remove(self, path: str) -> None:
        self.close(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def remove_folder(self, path: str) -> None:
        """If it is empty."""
        with contextlib.suppress(OSError):
            os.rmdir(path)

    def close(self, path: str) -> None:
        self._unnamed.pop(path, None)
        fd = self._open.pop(path, None)
        if fd is not None:
            os.close(fd)

    def paths(self, prefix: str) -> list[str]:
        directory, _, start = prefix.rpartition("/")
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            return []
        return sorted(f"{directory}/{name}" for name in names if name.startswith(start))


class FileMarker:
    """A mapped file of one page."""

    def __init__(self, path: str) -> None:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, mmap.PAGESIZE)
            self._map = mmap.mmap(fd, mmap.PAGESIZE)
        finally:
            os.close(fd)

    def read(self) -> Mark | None:
        runs, caller, sequence, position, crashes = MARK.unpack_from(self._map)
        return Mark(caller, sequence, position, crashes) if runs else None

    def note(self, caller: bytes, sequence: int, position: int, crashes: int) -> None:
        MARK.pack_into(self._map, 0, 1, caller, sequence, position, crashes)

    def clear(self) -> None:
        self._map[0] = 0


class CallLogFile:
    """See the module's docstring. ``path`` is a directory of this actor alone."""

    def __init__(self, files: Files, path: str, actor_id: ActorId) -> None:
        self.path = path
        self.torn_bytes = 0
        self.head: Record = (HEAD, FORMAT_VERSION, actor_id, 0, "", "", "worker")
        self.is_synced = False
        self._files = files
        self._actor_id = actor_id
        self._number = 0
        self._size = 0
        self._last_position = -1
        self._segments: dict[str, int] = {}  # path to the last position in it
        self._current: str | None = None

    # -- after a crash -------------------------------------------------------------------------------------------------
    def read(self) -> list[Record]:
        """All records that are whole, in order. What is torn is passed over: if others had seen it, positions lack.

        Nothing is appended to an old segment, so no torn end has to be cut off (and none can come back).
        """
        records: list[Record] = []
        for path in self._files.paths(f"{self.path}/segment-"):
            number = self._number = int(path.rpartition("-")[2], 16)
            data = self._files.read(path)
            found, end = decode(data, number)
            if found and (found[0][0] != HEAD or bytes(found[0][2]) != self._actor_id):
                found, end = [], 0
            records.extend(found)
            last = max((record[1] for record in found if record[0] == CALL), default=self._last_position)
            self._segments[path] = self._last_position = last
            self.torn_bytes += len(data) - end
        return records

    def whole(self) -> list[Record]:
        """What the files have now, without what was written before them."""
        records: list[Record] = []
        for path in self._segments:
            records.extend(decode(self._files.read(path), int(path.rpartition("-")[2], 16))[0])
        return records

    # -- at work -------------------------------------------------------------------------------------------------------
    def append(self, records: Sequence[Record]) -> None:
        """Write a batch, and sync it where the level asks for that. Raises OSError; nothing is written then."""
        if self._current is None or self._size >= limits.call_log_segment_bytes_max:
            self._begin_segment()
        assert self._current is not None
        data = encode(records, self._number)
        self._files.append(self._current, data)
        self._size += len(data)
        if self.is_synced:
            self._files.sync(self._current)
        for record in reversed(records):
            if record[0] == CALL:
                self._last_position = self._segments[self._current] = record[1]
                break

    def _begin_segment(self) -> None:
        """A new segment, so that those before it can be removed as a whole."""
        if self._current is not None and isinstance(self._files, RealFiles):
            self._files.close(self._current)
        path = f"{self.path}/segment-{self._number + 1:016x}"
        head = encode([self.head], self._number + 1)
        self._files.append(path, head)
        self._number += 1
        self._current = path
        self._segments[path] = self._last_position
        self._size = len(head)
        if self.is_synced:
            self._files.sync(path)

    def cut(self, position: int) -> None:
        """A checkpoint covers all up to ``position``: segments that tell of nothing else go."""
        for path, last in list(self._segments.items()):
            if path != self._current and last <= position:
                del self._segments[path]
                self._files.remove(path)
        if self._size >= limits.call_log_segment_bytes_max // 4:
            self._size = limits.call_log_segment_bytes_max  # the next batch begins a new one

    def size_bytes(self) -> int:
        return self._size

    def forget(self) -> None:
        """The actor is gone for good, or a better copy takes the place of what is here."""
        self._segments.clear()
        self._current = None
        for path in self._files.paths(f"{self.path}/"):
            self._files.remove(path)
        self._files.remove_folder(self.path)


def sync_directory(path: str) -> None:
    """The names in a directory outlive a power cut from now on."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def boot_id() -> str:
    """Names this start of the machine's kernel."""
    with open("/proc/sys/kernel/random/boot_id") as source:
        return source.read().strip()


__all__ = ["CallLogFile", "FileMarker", "Files", "Mark", "Marker", "RealFiles", "boot_id", "sync_directory"]
