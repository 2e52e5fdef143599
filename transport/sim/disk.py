"""A simulated disk: what was written is there, what was synced stays, and the rest is up to the power.

Files by path. A write is seen by readers at once, as with a real kernel; ``sync`` makes it stay. When the machine loses
power, each write that was not synced is kept, lost, or torn (a part of it is kept), as the seed decides; so is each
rename and removal, unless the disk was synced after it. A process that dies loses nothing. A disk may be full
(``OSError`` with ENOSPC, as from a real one), and slow: then whoever writes or syncs waits.

What writes files in production takes an object with these methods, and its real twin is the file system; see
``Files`` for what both have in common.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Protocol

ROOM_BYTES = 1 << 40
KEPT, TORN = 0.5, 0.75  # below the first a write is kept, below the second torn, else lost


class Files(Protocol):
    """Files as logs and checkpoints need them."""

    def append(self, path: str, data: bytes) -> None:
        """Add to the end of a file, which is made if it is not there. Raises OSError."""

    def read(self, path: str) -> bytes:
        """All of a file. Raises FileNotFoundError."""

    def sync(self, path: str) -> None:
        """What was written to the file so far, and its name, outlive a power cut from now on. Raises OSError."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what has it. All or nothing."""

    def truncate(self, path: str, size: int) -> None:
        """Cut a file to its first ``size`` bytes."""

    def remove(self, path: str) -> None:
        """Nothing happens where it is not there."""

    def remove_folder(self, path: str) -> None:
        """A folder that is empty."""

    def paths(self, prefix: str) -> list[str]:
        """Files whose path begins so, sorted."""


class _File:
    """``synced`` is what the platters have; ``writes`` came since: (offset, data), or (size, None) for a cut."""

    __slots__ = ("data", "synced", "writes")

    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = b""
        self.writes: list[tuple[int, bytes | None]] = []


class Disk:
    """See the module's docstring.

    Args:
        rng: decides what a power cut leaves.
        wait: called with the seconds that a write or a sync takes while the disk is slow.
        room_bytes: how much fits.
    """

    def __init__(
        self, rng: random.Random, wait: Callable[[float], None] = lambda _: None, room_bytes: int = ROOM_BYTES
    ) -> None:
        self.room_bytes = room_bytes
        self.is_full = False
        self.slow_s = 0.0  # what each write and each sync takes
        self.lost_writes = self.torn_writes = 0
        self._rng = rng
        self._wait = wait
        self._files: dict[str, _File] = {}
        self._names: dict[str, _File] = {}  # as the platters have them

    # -- Files ---------------------------------------------------------------------------------------------------------
    def append(self, path: str, data: bytes) -> None:
        file = self._files.get(path)
        self.write(path, 0 if file is None else len(file.data), data)

    def write(self, path: str, offset: int, data: bytes) -> None:
        """Write into a file, which is made if it is not there. Raises OSError (ENOSPC)."""
        self._take_time()
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = _File()  # which takes no room yet, so a full disk has it as well
        if self.is_full or self.used_bytes() + len(data) > self.room_bytes:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        _put(file.data, offset, data)
        file.writes.append((offset, bytes(data)))

    def read(self, path: str) -> bytes:
        return bytes(self._file(path).data)

    def truncate(self, path: str, size: int) -> None:
        file = self._file(path)
        del file.data[size:]
        file.writes.append((size, None))

    def sync(self, path: str) -> None:
        self._take_time()
        file = self._file(path)
        file.synced = bytes(file.data)
        file.writes.clear()
        for name in [name for name, held in self._names.items() if held is file and name != path]:
            del self._names[name]
        self._names[path] = file

    def rename(self, old: str, new: str) -> None:
        self._files[new] = self._files.pop(old) if old in self._files else self._file(old)

    def remove(self, path: str) -> None:
        self._files.pop(path, None)

    def remove_folder(self, path: str) -> None:
        """There are none."""

    def paths(self, prefix: str) -> list[str]:
        return sorted(path for path in self._files if path.startswith(prefix))

    def exists(self, path: str) -> bool:
        return path in self._files

    def sync_names(self) -> None:
        """Renames and removals so far outlive a power cut (``fsync`` of a directory)."""
        self._take_time()
        self._names = dict(self._files)

    def used_bytes(self) -> int:
        return sum(len(file.data) for file in self._files.values())

    def _file(self, path: str) -> _File:
        file = self._files.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return file

    def _take_time(self) -> None:
        if self.slow_s:
            self._wait(self.slow_s)

    # -- faults --------------------------------------------------------------------------------------------------------
    def lose_power(self) -> None:
        """What was not synced is kept, torn or lost, each write and each name on its own."""
        names = {}
        for name in sorted({*self._files, *self._names}):
            now, before = self._files.get(name), self._names.get(name)
            chosen = now if now is before or self._rng.random() < KEPT else before
            if chosen is not None:
                names[name] = chosen
        for file in {id(file): file for file in names.values()}.values():
            self._settle(file)
        self._files, self._names = names, dict(names)

    def _settle(self, file: _File) -> None:
        data = bytearray(file.synced)
        for at, written in file.writes:
            fate = self._rng.random()
            if written is None:
                if fate < KEPT:
                    del data[at:]
            elif fate < KEPT:
                _put(data, at, written)
            elif fate < TORN:
                self.torn_writes += 1
                _put(data, at, written[: self._rng.randrange(len(written) + 1)])
            else:
                self.lost_writes += 1
        file.data, file.synced = data, bytes(data)
        file.writes.clear()

    def lose(self, prefix: str) -> int:
        """Files whose path begins so are gone, as with a disk that died. Gives how many."""
        gone = self.paths(prefix)
        for path in gone:
            self._files.pop(path, None)
            self._names.pop(path, None)
        return len(gone)

    def tear(self, path: str) -> None:
        """The end of a file is not what was written, as after a power cut that nobody noticed."""
        file = self._file(path)
        del file.data[self._rng.randrange(max(1, len(file.data))) :]


def _put(data: bytearray, offset: int, written: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(written)] = written
