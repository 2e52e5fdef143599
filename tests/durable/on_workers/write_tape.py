"""Imported by a worker before anything else: keeps a tape of what it writes below a directory, in order.

Each entry has the moment before which nothing of a write was done, or after which a sync was. ``power_cut.py`` reads
it.
"""

from __future__ import annotations

import os
import pickle
import struct
import time
from typing import Any

from actorlib.transport import limits

BELOW, TAPE = os.environ["TAPE_BELOW"], os.environ["TAPE_FILE"]
LENGTH = struct.Struct("<I")
limits.call_log_segment_bytes_max = int(os.environ["TAPE_SEGMENT_BYTES"])

_real: dict[str, Any] = {
    name: getattr(os, name) for name in ("open", "close", "write", "fsync", "fdatasync", "mkdir", "unlink", "rmdir")
}
_paths: dict[int, str] = {}
_tape: list[int] = []


def note(at: int, kind: str, path: str, *more: Any) -> None:
    if not _tape:
        try:
            _tape.append(_real["open"](TAPE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:  # the one that was to be recorded has been
            _tape.append(-1)
    if _tape[0] >= 0:
        data = pickle.dumps((at, kind, path, *more))
        _real["write"](_tape[0], LENGTH.pack(len(data)) + data)


def is_below(path: Any) -> bool:
    return isinstance(path, str) and (path == BELOW or path.startswith(f"{BELOW}/"))


def opened(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
    is_new = is_below(path) and bool(flags & os.O_CREAT) and not os.path.exists(path)
    at = time.monotonic_ns()
    fd: int = _real["open"](path, flags, mode, **more)
    if is_below(path):
        _paths[fd] = path
        if is_new:
            note(at, "make", path)
    return fd


def closed(fd: int) -> None:
    _paths.pop(fd, None)
    _real["close"](fd)


def written(fd: int, data: Any) -> int:
    path = _paths.get(fd)
    if path is None:
        return int(_real["write"](fd, data))
    at, offset = time.monotonic_ns(), os.fstat(fd).st_size
    done: int = _real["write"](fd, data)
    note(at, "write", path, offset, bytes(data[:done]))
    return done


def syncing(name: str) -> Any:
    def synced(fd: int) -> None:
        _real[name](fd)
        if fd in _paths:
            note(time.monotonic_ns(), "sync", _paths[fd])

    return synced


def changing(name: str, kind: str) -> Any:
    def changed(path: Any, *args: Any, **more: Any) -> None:
        at = time.monotonic_ns()
        _real[name](path, *args, **more)
        if is_below(path):
            note(at, kind, path)

    return changed


os.open, os.close, os.write = opened, closed, written
os.fsync, os.fdatasync = syncing("fsync"), syncing("fdatasync")
os.mkdir = changing("mkdir", "make folder")
os.unlink, os.rmdir = changing("unlink", "remove"), changing("rmdir", "remove")
