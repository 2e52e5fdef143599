"""What can't be simulated says so, by name and with the way out, instead of leaving the world or blocking it."""

from __future__ import annotations

import functools
import multiprocessing.connection
import multiprocessing.process
import os
import select
import selectors
import signal
import socket
import subprocess
from typing import Any, NoReturn

from actorlib.testing.patches import Patch


class NotSimulated(RuntimeError):
    """User code asked a simulated world for something that only a real one has."""


def refuse(call: str, what: str, *_: Any, **__: Any) -> NoReturn:
    raise NotSimulated(
        f"{call} {what}, which a simulation does not have. Replace it in the test, or run the same test on real "
        'processes: simulate(..., mode="process")'
    )


SOCKETS = "opens a real connection"
PROCESSES = "makes or awaits a real process"
WAITS = "waits for real files or signals"

REFUSED: list[tuple[Any, str, str, str]] = [
    (socket.socket, "__init__", "socket.socket()", SOCKETS),
    (socket, "getaddrinfo", "socket.getaddrinfo()", SOCKETS),
    (socket, "gethostbyname", "socket.gethostbyname()", SOCKETS),
    (subprocess.Popen, "__init__", "subprocess.Popen()", PROCESSES),
    (multiprocessing.process.BaseProcess, "start", "multiprocessing.Process.start()", PROCESSES),
    (multiprocessing.connection, "wait", "multiprocessing.connection.wait()", WAITS),
    *((os, name, f"os.{name}()", PROCESSES) for name in (
        "fork", "forkpty", "system", "posix_spawn", "posix_spawnp", "wait", "waitpid", "wait3", "wait4", "waitid",
        "execv", "execve",
    )),
    *((select, name, f"select.{name}()", WAITS) for name in ("select", "poll", "epoll")),
    *((selector, "select", f"selectors.{selector.__name__}.select()", WAITS) for selector in (
        selectors.SelectSelector, selectors.PollSelector.__mro__[1], selectors.EpollSelector,
    )),
    *((signal, name, f"signal.{name}()", WAITS) for name in ("pause", "sigwait", "sigwaitinfo", "sigtimedwait")),
]  # fmt: skip


def refusals() -> list[Patch]:
    """The patches that refuse."""
    return [Patch(holder, name, functools.partial(refuse, call, what)) for holder, name, call, what in REFUSED]
