"""What a program writes to a file, in order, and what a disk may hold of it when the power fails.

``record`` runs a program under ptrace and keeps each write to the file that it is after, each sync, and each commit
that the program has acknowledged (a line on its output). ``image`` is the file as a disk could hold it that lost power
after so many of these: what was synced is there; of what came after that, each write may be there, or not, or in part.
"""

from __future__ import annotations

import ctypes
import os
import platform
import random
import signal
import struct
import subprocess
import sys
from typing import NamedTuple

TRACEME, CONT_SYSCALL, SETOPTIONS, SYSCALL_INFO = 0, 24, 0x4200, 0x420E
OPTIONS = 1 | 0x100000  # mark stops at syscalls; the program ends with us
ENTRY = 1
NUMBERS = {
    "x86_64": {18: "pwrite", 296: "pwritev", 75: "sync", 74: "sync", 1: "write", 8: "lseek", 20: "writev"},
    "aarch64": {68: "pwrite", 70: "pwritev", 83: "sync", 82: "sync", 64: "write", 62: "lseek", 66: "writev"},
}
SYNCED_AT_ONCE = os.O_DSYNC | os.O_SYNC
SECTOR_BYTES = 512
BEGIN = "import ctypes, os, signal; ctypes.CDLL(None).ptrace(0, 0, 0, 0); os.kill(os.getpid(), signal.SIGSTOP)\n"


class Write(NamedTuple):
    offset: int
    data: bytes
    is_durable: bool  # when it returns


class Sync(NamedTuple):
    pass


class Acknowledged(NamedTuple):
    number: int


def _ptrace(request: int, pid: int, address: int, data: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    done: int = libc.ptrace(request, pid, address, data)
    if done < 0:
        raise OSError(ctypes.get_errno(), f"ptrace: {os.strerror(ctypes.get_errno())}")
    return done


def record(code: str, file_name: str, *arguments: str) -> list[Write | Sync | Acknowledged]:
    """Run Python code that writes ``file_name`` and prints the number of each commit when it is done.

    Raises OSError where the kernel lets nobody trace, NotImplementedError on a machine whose calls are not known here.
    """
    if platform.machine() not in NUMBERS:
        raise NotImplementedError(f"the system calls of {platform.machine()} are not known")
    traced = subprocess.Popen([sys.executable, "-c", BEGIN + code, *arguments], stdout=subprocess.PIPE)
    pid, log = traced.pid, []
    try:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            raise OSError("the program could not be traced")
        _ptrace(SETOPTIONS, pid, 0, OPTIONS)
        number, positions = 0, {}
        while True:
            _ptrace(CONT_SYSCALL, pid, 0, number)
            _, status = os.waitpid(pid, 0)
            if not os.WIFSTOPPED(status):
                break
            stopped_by = os.WSTOPSIG(status)
            number = 0 if stopped_by in (signal.SIGTRAP, signal.SIGTRAP | 0x80, signal.SIGSTOP) else stopped_by
            if stopped_by == signal.SIGTRAP | 0x80:
                log.extend(_look(pid, file_name, positions))
    finally:
        traced.stdout.close()
        if traced.poll() is None:
            traced.kill()
            traced.wait()
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, f"the program ended with {status}"
    return log


def _look(pid: int, file_name: str, positions: dict[int, int]) -> list[Write | Sync | Acknowledged]:
    info = ctypes.create_string_buffer(88)
    _ptrace(SYSCALL_INFO, pid, len(info), ctypes.cast(info, ctypes.c_void_p))
    if info.raw[0] != ENTRY:
        return []
    number, *arguments = struct.unpack_from("<7Q", info.raw, 24)
    kind = NUMBERS[platform.machine()].get(number)
    if kind is None:
        return []
    fd = arguments[0]
    if kind == "write":
        return [Acknowledged(int(line)) for line in _read(pid, *arguments[1:3]).split()] if fd == 1 else []
    if not os.readlink(f"/proc/{pid}/fd/{fd}").endswith(file_name):
        return []
    if kind == "sync":
        return [Sync()]
    if kind == "lseek":
        assert arguments[2] == os.SEEK_SET, "a position that is not told"
        positions[fd] = arguments[1]
        return []
    is_durable = bool(_flags(pid, fd) & SYNCED_AT_ONCE)
    if kind == "pwrite":
        return [Write(arguments[3], _read(pid, *arguments[1:3]), is_durable)]
    parts = struct.iter_unpack("<QQ", _read(pid, arguments[1], 16 * arguments[2]))
    offset = arguments[3] if kind == "pwritev" else positions.pop(fd)
    return [Write(offset, b"".join(_read(pid, *part) for part in parts), is_durable)]


def _read(pid: int, address: int, count: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(count)


def _flags(pid: int, fd: int) -> int:
    with open(f"/proc/{pid}/fdinfo/{fd}") as source:
        return next(int(line.split()[1], 8) for line in source if line.startswith("flags:"))


def image(log: list[Write | Sync | Acknowledged], cut: int, rng: random.Random) -> bytes:
    """The file on a disk that lost power after the first ``cut`` entries of ``log``."""
    content = bytearray()
    unsynced: list[Write] = []
    for entry in log[:cut]:
        if isinstance(entry, Sync):
            for write in unsynced:
                _put(content, write)
            unsynced.clear()
        elif isinstance(entry, Write) and entry.is_durable:
            _put(content, entry)
        elif isinstance(entry, Write):
            unsynced.append(entry)
    for write in rng.sample(unsynced, rng.randint(0, len(unsynced))):
        sectors = range(0, len(write.data), SECTOR_BYTES)
        kept = sectors if rng.random() < 0.7 else rng.sample(sectors, rng.randint(0, len(sectors)))
        for start in kept:
            _put(content, Write(write.offset + start, write.data[start : start + SECTOR_BYTES], False))
    return bytes(content)


def _put(content: bytearray, write: Write) -> None:
    end = write.offset + len(write.data)
    content.extend(bytes(max(0, end - len(content))))
    content[write.offset : end] = write.data
