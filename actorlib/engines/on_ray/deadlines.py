"""One thread that looks after the deadlines of a process's calls: Ray itself knows none."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any


class Deadlines:
    """Calls ``overdue(ref)`` for each reference that is still there when its time is over."""

    def __init__(self, overdue: Callable[[Any], None]) -> None:
        self._overdue = overdue
        self._heap: list[tuple[float, int, Any]] = []
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def add(self, expires_at: float, ref: Any) -> None:
        with self._changed:
            heapq.heappush(self._heap, (expires_at, next(self._numbers), ref))
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="actorlib-deadlines", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(5)

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._is_closed and not (self._heap and self._heap[0][0] <= time.monotonic()):
                    self._changed.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                if self._is_closed:
                    return
                _, _, weak = heapq.heappop(self._heap)
            ref = weak()
            if ref is not None:
                self._overdue(ref)
            del ref
