"""A simulation that is blocked by something real ends with an error that names it, instead of hanging.

An alarm rings now and then. Where since the last time no event of the world happened and the thread used no CPU, it
stands still in some call into the system; the alarm raises there. It is set only in the main thread, and only where
nobody else uses the alarm (pytest-timeout does, and guards the test itself).
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from actorlib.testing.refusals import NotSimulated

EVERY_S = 5.0
IDLE_CPU_S = 0.05
DEBUGGERS = ("bdb", "pdb", "cmd", "code")
real_thread_time = time.thread_time


@contextlib.contextmanager
def watching(world: Any) -> Iterator[None]:
    """Look after the world for as long as the block runs."""
    free = (
        threading.current_thread() is threading.main_thread()
        and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    )
    if not free:
        yield
        return
    every_s = EVERY_S
    seen = (-1, 0.0)

    def ring(_signal: int, frame: Any) -> None:
        nonlocal seen
        now = (world.events, real_thread_time())
        stands = now[0] == seen[0] and now[1] - seen[1] < IDLE_CPU_S
        seen = now
        if stands and not _debugs(frame):
            raise NotSimulated(
                f"the simulation has stood still for {every_s} s in {_place(frame)}: a call that blocks and can't be "
                "simulated. Replace it in the test, or run the same test on real processes: "
                'simulate(..., mode="process")'
            )

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, every_s, every_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _place(frame: Any) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})"


def _debugs(frame: Any) -> bool:
    """Whether somebody sits before a debugger, and has all the time of the world."""
    while frame is not None:
        if frame.f_globals.get("__name__") in DEBUGGERS:
            return True
        frame = frame.f_back
    return False
