"""The private event loop of the inline engine: whoever waits turns it, also from inside one of its own tasks.

asyncio's loops can't be entered twice, but inline everything happens on one stack: an async method starts a task, the
task runs at once and waits for another async method. So ``turn`` may be called again while it is running. It does what
``BaseEventLoop._run_once`` does, but survives that a nested turn has taken what it was about to run.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
import selectors
import threading
from collections.abc import Iterator
from typing import Any


class PrivateLoop(asyncio.SelectorEventLoop):
    """An event loop that is turned by hand. Wakes itself through a pipe: there are no sockets inline."""

    _ready: Any
    _scheduled: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self._turning = threading.RLock()

    def _make_self_pipe(self) -> None:
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._internal_fds = 1
        self._add_reader(self._wake_read, self._drain)  # type: ignore[attr-defined]

    def _close_self_pipe(self) -> None:
        self._remove_reader(self._wake_read)  # type: ignore[attr-defined]
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._internal_fds = 0

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _write_to_self(self) -> None:
        with contextlib.suppress(OSError):  # closed: nobody turns it any more
            os.write(self._wake_write, b"\0")

    def is_idle(self) -> bool:
        """Nothing is ready and no timer runs."""
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
        return not self._ready and not self._scheduled

    def watches(self) -> bool:
        """Whether something outside (a file, a pipe) may still wake it."""
        return len(self._selector.get_map()) > 1  # type: ignore[attr-defined]

    def turn(self, wait_s: float) -> bool:
        """Run what is ready; if nothing is, wait at most ``wait_s`` seconds for something.

        One thread at a time: False at once if another one is at it. Turns may be nested within a thread.
        """
        if not self._turning.acquire(blocking=False):
            return False
        try:
            self._turn(wait_s)
        finally:
            self._turning.release()
        return True

    def _turn(self, wait_s: float) -> None:
        idle = self.is_idle()
        if self._ready:
            wait_s = 0.0
        elif not idle:
            wait_s = min(wait_s, max(0.0, self._scheduled[0]._when - self.time()))
        selector: selectors.BaseSelector = self._selector  # type: ignore[attr-defined]
        self._process_events(selector.select(wait_s))  # type: ignore[attr-defined]
        end = self.time() + self._clock_resolution  # type: ignore[attr-defined]
        while self._scheduled and self._scheduled[0]._when < end:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            self._ready.append(timer)
        with self._entered():
            for _ in range(len(self._ready)):
                if not self._ready:
                    break  # a nested turn ran it
                handle = self._ready.popleft()
                if not handle._cancelled:
                    handle._run()

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """This loop is the running one, and no task of it is: also where one of them is below us on the stack."""
        outer = asyncio._get_running_loop()
        task = asyncio.current_task(self) if outer is self else None
        if task is not None:
            asyncio.tasks._leave_task(self, task)
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(outer)
            if task is not None:
                asyncio.tasks._enter_task(self, task)
