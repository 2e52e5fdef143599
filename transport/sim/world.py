"""A world in one thread: a clock that jumps from event to event, and code that waits on greenlets.

Events lie in a heap by (time, order of scheduling). The *hub* greenlet takes them one by one; user code runs on
greenlets of its own and switches to the hub whenever it waits. Only the seed decides what happens: all randomness of
the world comes from ``rng``, every draw and every event goes into ``digest``.

After FoundationDB's simulator (Zhou et al. 2021) and TigerBeetle's VOPR.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import greenlet

START_S = 1_000.0  # small, so that a float still tells nanoseconds apart
EPOCH_S = 1_700_000_000.0  # what the wall clock adds
CLOCK_READ_COSTS_S = 1e-6
TRACE_LINES_MAX = 20_000


class Stuck(AssertionError):
    """Somebody waits and nothing will ever happen."""


class Timer:
    """An event that can be called off."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class World:
    """See the module's docstring."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)  # the world's own decisions: nothing else may draw from it
        self._ids_rng = random.Random(f"ids {seed}")
        self._bytes_rng = random.Random(f"bytes {seed}")  # for whatever asks the system for random bytes
        self.time = START_S
        self.events = 0
        self.is_over = False
        self.trace: deque[str] = deque(maxlen=TRACE_LINES_MAX)
        self.on_switch: Callable[[Any], None] = lambda owner: None  # whose code runs now (None: the hub's)
        self.main = greenlet.getcurrent()
        self._heap: list[tuple[float, int, Timer]] = []
        self._scheduled = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._hub = greenlet.greenlet(self._serve, parent=self.main)
        self._owners: dict[Any, Any] = {}

    # -- time ----------------------------------------------------------------------------------------------------------
    def now(self) -> float:
        return self.time

    def read_clock(self) -> float:
        """The time as user code sees it: looking costs a moment, so that a loop that only looks comes to an end."""
        self.time += CLOCK_READ_COSTS_S
        return self.time

    def schedule(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return self.schedule_at(self.time + max(0.0, delay_s), callback)

    def schedule_at(self, at: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        self._scheduled += 1
        heapq.heappush(self._heap, (at, self._scheduled, timer))
        return timer

    # -- what happened -------------------------------------------------------------------------------------------------
    def note(self, line: str) -> None:
        """One line of the story; part of the digest."""
        text = f"{self.time - START_S:.6f} {line}"
        self.trace.append(text)
        self._digest.update(text.encode())

    def faults_noted(self) -> list[tuple[float, str]]:
        """When what went wrong, as far back as the story goes."""
        found = []
        for line in self.trace:
            at, _, what = line.partition(" ")
            if what.startswith("fault ") or " ended with " in what or " loses power" in what:
                found.append((START_S + float(at), what))
        return found

    def digest(self) -> str:
        return self._digest.hexdigest()

    def random_bytes(self, count: int) -> bytes:
        """For ids of the machinery."""
        return self._ids_rng.randbytes(count)

    def urandom(self, count: int) -> bytes:
        """``os.urandom`` of the world."""
        return self._bytes_rng.randbytes(count)

    # -- greenlets -----------------------------------------------------------------------------------------------------
    def spawn(self, owner: Any, function: Callable[[], None]) -> Any:
        """Run ``function`` on a greenlet of its own, soon."""
        made = greenlet.greenlet(function, parent=self._hub)
        self._owners[made] = owner
        self.schedule(0.0, lambda: self.resume(made))
        return made

    def adopt_main(self, owner: Any) -> None:
        """The greenlet that made the world is ``owner``'s from now on."""
        self._owners[self.main] = owner

    def owner(self) -> Any:
        """Whose code runs now; None in the hub and outside."""
        return self._owners.get(greenlet.getcurrent())

    def resume(self, waiting: Any, *thrown: Any) -> None:
        """Let a greenlet go on until it waits again (from the hub). ``thrown``: an exception to raise there."""
        if waiting.dead:
            return
        self.on_switch(self._owners.get(waiting))
        if thrown:
            waiting.throw(*thrown)
        else:
            waiting.switch()
        self.on_switch(None)
        if waiting.dead:
            self._owners.pop(waiting, None)

    def wait(self) -> None:
        """Give way to the hub until somebody resumes this greenlet."""
        if greenlet.getcurrent() is self._hub:
            raise RuntimeError("a handler must not wait; this is a bug in actorlib")
        if self.is_over:
            raise greenlet.GreenletExit
        self._hub.switch()

    def sleep(self, seconds: float) -> None:
        me = greenlet.getcurrent()
        timer = self.schedule(seconds, lambda: self.resume(me))
        try:
            self.wait()
        finally:
            timer.cancel()

    def forget(self, owner: Any) -> list[Any]:
        """The greenlets of an owner that is gone; they will not be resumed."""
        mine = [one for one, whose in self._owners.items() if whose is owner and one is not self.main]
        for one in mine:
            del self._owners[one]
        return mine

    def end(self, left: list[Any]) -> None:
        """The world is over: greenlets that are left unwind, and whoever of them would wait ends there."""
        self.is_over = True
        self._heap.clear()
        # The collector can't look into a greenlet that is suspended: the hub has to end, or all of it would stay.
        for one in [*left, self._hub]:
            if one.dead or not one:
                continue
            one.parent = greenlet.getcurrent()
            try:
                one.throw()
            except BaseException as error:
                self.note(f"unwinding: {type(error).__name__}")
        self._owners.clear()

    def _serve(self) -> None:
        while True:
            callback = None
            while callback is None:
                if not self._heap:
                    raise Stuck("nothing is left to happen, and somebody still waits")
                at, _, timer = heapq.heappop(self._heap)
                callback = timer.callback
            self.time = max(self.time, at)
            self.events += 1
            callback()
