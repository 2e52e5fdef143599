"""What the kernel offers to keep a family of processes together, and to tell how one of them ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, argument: int | bytes) -> None:
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent ends. ``parent_pid`` is checked: it may be gone already."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def become_subreaper() -> None:
    """Orphans below this process become its children, so that none escapes."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_process_name(kind: str) -> None:
    """What ``ps`` shows: a fork would go by its parent's name. At most six letters."""
    _prctl(PR_SET_NAME, f"actorlib:{kind}".encode())


def process_name(pid: int) -> str:
    """What was set by ``set_process_name``, with its "actorlib:" before; "" if it is gone."""
    try:
        with open(f"/proc/{pid}/comm") as source:
            return source.read().strip()
    except OSError:
        return ""


def raise_fd_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):  # a container may forbid it; then the old limit holds
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def children_of(pid: int) -> list[int]:
    """Process ids of the children of all threads of ``pid``."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as source:
                found.extend(map(int, source.read().split()))
    except OSError:
        return found  # it ended meanwhile, or there is no /proc
    return found


def describe_exit(status: int) -> tuple[int | None, int | None, str]:
    """A wait status as (exit code, signal, words)."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return None, number, f"was killed by {name}"
    code = os.waitstatus_to_exitcode(status)
    return code, None, f"exited with status {code}"


def oom_kills() -> int:
    """How often the kernel has killed for memory so far, in this control group or on this machine."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            with open(path) as source:
                for line in source:
                    name, _, value = line.partition(" ")
                    if name == "oom_kill":
                        return int(value)
        except OSError:
            continue
    return 0


def memory_limit_bytes() -> int:
    """Memory that this process may use: the machine's, or the control group's if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max") as source:
            text = source.read().strip()
        return total if text == "max" else min(total, int(text))
    except (OSError, ValueError):
        return total
