"""Debug mode's look at the loop: a warning, with the stack of whoever holds it, when one turn takes too long.

While a turn of the loop runs nothing else of the process is served: no reply, no heartbeat, no cancel. The watchdog is
a thread that samples; so it also sees what blocks in C code, and names the very line.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable

from actorlib.transport import limits
from actorlib.transport.drivers.notice import notice

LOOK_EVERY_S = 0.01
QUIET_S = 1.0
FRAMES_SHOWN = 12


class Watchdog:
    """Watches one loop. ``held`` gives the thread that holds it now and when its turn began; 0.0: nobody does."""

    def __init__(self, held: Callable[[], tuple[int | None, float]]) -> None:
        self._held = held
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="actorlib-watchdog", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        told = 0.0
        while not self._end.wait(LOOK_EVERY_S):
            owner, began = self._held()
            if not began or began == told or owner is None:
                continue
            held_s = time.monotonic() - began
            if held_s > limits.loop_held_s_max:
                told = began
                self._warn(owner, held_s)
                self._end.wait(QUIET_S)

    def _warn(self, owner: int, held_s: float) -> None:
        frame = sys._current_frames().get(owner)
        stack = (
            "".join(traceback.format_stack(frame, FRAMES_SHOWN)) if frame is not None else "  (that thread has ended)"
        )
        notice(f"the loop has been held for {held_s:.3f} s by:\n{stack}")

    def close(self) -> None:
        self._end.set()
        self._thread.join(2.0)
