"""What a disk may hold of what was written to it when the power fails: by a tape of ``on_workers/write_tape.py``.

What was synced is there. Of what came after that, each write may be there, or not, or in part; and a name that was made
or removed is so for certain only once its directory was synced.
"""

from __future__ import annotations

import os
import pickle
import random
import struct
from pathlib import Path
from typing import Any

LENGTH = struct.Struct("<I")
SECTOR_BYTES = 512


def read_tape(path: Path) -> list[tuple[Any, ...]]:
    data, at, entries = path.read_bytes(), 0, []
    while at < len(data):
        (size,) = LENGTH.unpack_from(data, at)
        at += LENGTH.size + size
        entries.append(pickle.loads(data[at - size : at]))
    return entries


class DiskImage:
    """The files below a directory as a disk may have them that lost its power at a moment."""

    def __init__(self, tape: list[tuple[Any, ...]], moment: int, below: str, rng: random.Random) -> None:
        self._rng = rng
        self._folders: dict[str, None] = {}  # whose names are on the disk
        self._files: dict[str, None] = {}
        self._content: dict[str, bytearray] = {}
        self._unsynced: dict[str, list[tuple[int, bytes]]] = {}
        self._names: list[tuple[str, str]] = []  # made and removed, and not known to be so after the cut
        self._below = below
        for at, kind, path, *more in tape:
            if at <= moment:
                self._apply(kind, path, *more)
        for kind, path in self._names:
            if rng.random() < 0.5:
                self._rename(kind, path)

    def _apply(self, kind: str, path: str, *more: Any) -> None:
        if kind == "write":
            self._unsynced[path].append(tuple(more))
        elif kind == "sync" and path in self._content:
            for offset, data in self._unsynced[path]:
                self._put(path, offset, data)
            self._unsynced[path].clear()
        elif kind == "sync":
            here = [(kind, name) for kind, name in self._names if os.path.dirname(name) == path]
            for kind, name in here:
                self._rename(kind, name)
                self._names.remove((kind, name))
        else:
            if kind == "make":
                self._content[path], self._unsynced[path] = bytearray(), []
            self._names.append((kind, path))

    def _rename(self, kind: str, path: str) -> None:
        if kind == "remove":
            self._files.pop(path, None)
            self._folders.pop(path, None)
        else:
            (self._files if kind == "make" else self._folders)[path] = None

    def _put(self, path: str, offset: int, data: bytes) -> None:
        content = self._content[path]
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data

    def write_to(self, directory: Path) -> None:
        """As files below ``directory``."""
        for path in self._files:
            if not self._is_reached(path):
                continue
            unsynced = self._unsynced[path]
            for offset, data in self._rng.sample(unsynced, self._rng.randint(0, len(unsynced))):
                sectors = range(0, len(data), SECTOR_BYTES)
                kept = sectors if self._rng.random() < 0.7 else self._rng.sample(sectors, len(sectors) // 2)
                for start in kept:
                    self._put(path, offset + start, data[start : start + SECTOR_BYTES])
            target = directory / os.path.relpath(path, self._below)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._content[path])

    def _is_reached(self, path: str) -> bool:
        above = os.path.dirname(path)
        while above != self._below:
            if above not in self._folders:
                return False
            above = os.path.dirname(above)
        return True
