"""A world in one thread: a clock that jumps from event to event, and code that waits on greenlets.

Events lie in a heap by (time, order of scheduling). The *hub* greenlet takes them one by one; user code runs on
greenlets of its own and switches to the hub whenever it waits. Only the seed decides what happens: all randomness of
the world comes from ``rng``; every draw and every message that is handled goes into ``digest`` and, as long as there is
room, into ``trace``. Two clocks: ``time`` only goes on; the wall clock of a host may jump (``wall_jumps``).

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
TASK_ID_BYTES = 16
NO_PROGRESS_S = 3_600.0  # simulated; who waits for longer without anybody getting on waits for what never comes
WAIT_MAX_S = 100_000.0  # simulated; even where others go round and round meanwhile
LOOK_EVERY_EVENTS = 256


class Stuck(AssertionError):
    """Somebody waits and nothing will ever happen."""


class Together:
    """Stands in for what else a greenlet may carry along: nothing."""

    def take(self) -> Any:
        return None

    def put(self, kept: Any) -> None:
        return


class RecordedRandom(random.Random):
    """A random source that remembers what was drawn from it since somebody looked."""

    def __init__(self, seed: int) -> None:
        self.drawn: list[float | int] = []
        super().__init__(seed)

    def random(self) -> float:
        value = super().random()
        self.drawn.append(value)
        return value

    def getrandbits(self, k: int, /) -> int:
        value = super().getrandbits(k)
        self.drawn.append(value)
        return value


class Timer:
    """An event that can be called off."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


Record = tuple[float, str, Any, tuple[float | int, ...]]  # when, who, what (text or a message), what was drawn before


class World:
    """See the module's docstring."""

    trace_lines_max: int | None = TRACE_LINES_MAX

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = RecordedRandom(seed)  # the world's own decisions: nothing else may draw from it
        self._ids_rng = random.Random(f"ids {seed}")
        self._bytes_rng = random.Random(f"bytes {seed}")  # for whatever asks the system for random bytes
        self.time = START_S
        self.events = 0
        self.is_over = False
        self.record: deque[Record] = deque(maxlen=self.trace_lines_max)
        self.on_switch: Callable[[Any], None] = lambda owner: None  # whose code runs now (None: the hub's)
        self.holds: Callable[[Any, Callable[[], None]], bool] = lambda owner, go_on: False  # an owner that is stopped
        self.on_turn: list[Callable[[Any], None]] = []  # told of each loop that has turned
        self.on_message: list[Callable[[Any, Any, Any], None]] = []  # told of each message, before it is handled
        self.failure: BaseException | None = None  # what ended the hub
        self.turning: Any = None  # the loop whose handlers run now
        self.wall_jumps: dict[bytes, float] = {}  # seconds that a host's wall clock is wrong by
        self.main = greenlet.getcurrent()
        self._heap: list[tuple[float, int, Timer]] = []
        self._scheduled = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._hub = greenlet.greenlet(self._serve, parent=self.main)
        self._owners: dict[Any, Any] = {}
        self.locals: Any = Together()  # takes out, and puts back, what belongs to whoever runs
        self.threads: Any = None  # the virtual threads of user code
        self.event_loops: list[Any] = []  # of user code; closed when the world ends
        self.waits: dict[Any, tuple[Any, bool, float]] = {}  # who waits: for what, whether with a limit, since when
        self.tell_waits: Callable[[], str] = lambda: ""  # the wait-for graph, in words
        self.progress_at = START_S

    # -- time ----------------------------------------------------------------------------------------------------------
    def now(self) -> float:
        return self.time

    def read_clock(self) -> float:
        """The time as user code sees it: looking costs a moment, so that a loop that only looks comes to an end."""
        self.time += CLOCK_READ_COSTS_S
        return self.time

    def read_wall_clock(self) -> float:
        """The wall clock of whoever looks; unlike the other one it may go back."""
        owner = self.owner()
        loop = self.turning if owner is None else owner.loop
        jump = self.wall_jumps.get(loop.address.node_id, 0.0) if self.wall_jumps and loop is not None else 0.0
        return EPOCH_S + self.read_clock() + jump

    def schedule(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return self.schedule_at(self.time + delay_s if delay_s > 0.0 else self.time, callback)

    def schedule_at(self, at: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        self._scheduled += 1
        heapq.heappush(self._heap, (at, self._scheduled, timer))
        return timer

    # -- what happened -------------------------------------------------------------------------------------------------
    def note(self, who: str, what: Any = "") -> None:
        """One line of the story; part of the digest. ``what``: more text, or a message."""
        drawn = self.rng.drawn
        since = self.time - START_S
        kind = what if type(what) is str else type(what).__name__
        self._digest.update(f"{since:.6f} {who} {kind} {drawn or ''}".encode())
        self.record.append((since, who, what, tuple(drawn)))
        drawn.clear()

    @property
    def trace(self) -> list[str]:
        """What happened last, a line each."""
        return [tell(record) for record in self.record]

    def trace_of(self, some_id: bytes, lines_max: int = 40) -> list[str]:
        """The last messages that speak of an id, whole: its story as the network saw it."""
        of_it = [record for record in self.record if type(record[2]) is not str and _names(record[2], some_id)]
        return [f"{since:.6f} {who} < {shorten(what)}" for since, who, what, _ in of_it[-lines_max:]]

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
        owner = self._owners.get(waiting)
        if self.holds(owner, lambda: self.resume(waiting, *thrown)):
            return
        self.progress_at = self.time
        ours = self.locals.take()
        self.on_switch(owner)
        if thrown:
            waiting.throw(*thrown)
        else:
            waiting.switch()
        self.on_switch(None)
        self.locals.take()  # of one that has ended
        self.locals.put(ours)
        if waiting.dead:
            self._owners.pop(waiting, None)

    def wait(self, why: str = "", timed: bool = False) -> None:
        """Give way to the hub until somebody resumes this greenlet.

        Args:
            why: what it waits for, in words; empty where that is nobody's concern.
            timed: whether it will be resumed when some time has passed, whatever happens.
        """
        me = greenlet.getcurrent()
        if me is self._hub:
            raise RuntimeError("a handler must not wait; this is a bug in actorlib")
        if self.is_over:
            raise greenlet.GreenletExit
        self.waits[me] = (why, timed, self.time)
        mine = self.locals.take()
        try:
            self._hub.switch()
        finally:
            self.locals.put(mine)
            self.waits.pop(me, None)
        if self.failure is not None and not self.is_over:
            raise self.failure

    def sleep(self, seconds: float) -> None:
        me = greenlet.getcurrent()
        timer = self.schedule(seconds, lambda: self.resume(me))
        try:
            self.wait("sleeps", timed=True)
        finally:
            timer.cancel()

    def take_time(self, seconds: float) -> None:
        """Whoever runs now waits, for a disk, say: a handler with all of its process, user code on its own."""
        if self.turning is not None:
            self.turning.stall(seconds)
        elif greenlet.getcurrent() is not self._hub and not self.is_over:
            self.sleep(seconds)

    def forget(self, owner: Any) -> list[Any]:
        """The greenlets of an owner that is gone; they will not be resumed."""
        mine = [one for one, whose in self._owners.items() if whose is owner and one is not self.main]
        for one in mine:
            del self._owners[one]
            self.waits.pop(one, None)
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
        try:
            self._take_events()
        except BaseException as failure:
            self.failure = failure
            raise

    def _take_events(self) -> None:
        while True:
            callback = None
            while callback is None:
                if not self._heap:
                    raise Stuck(f"nothing is left to happen, and somebody still waits{self.tell_waits()}")
                at, _, timer = heapq.heappop(self._heap)
                callback = timer.callback
            self.time = max(self.time, at)
            self.events += 1
            if not self.events % LOOK_EVERY_EVENTS:
                self._look_for_progress()
            callback()

    def _look_for_progress(self) -> None:
        """Timers of the machinery go on for ever; user code that has not moved for so long never will."""
        still_s = self.time - self.progress_at
        if still_s > NO_PROGRESS_S and not any(timed for _, timed, _ in self.waits.values()):
            raise Stuck(f"nobody has got on for {still_s:.0f} simulated seconds{self.tell_waits()}")
        _, timed, since = self.waits.get(self.main, ("", True, 0.0))
        if not timed and self.time - since > WAIT_MAX_S:
            raise Stuck(f"the driver has waited for {self.time - since:.0f} simulated seconds{self.tell_waits()}")


def tell(record: Record) -> str:
    since, who, what, drawn = record
    shown = what if type(what) is str else type(what).__name__
    drew = f"   drew {', '.join(map(str, drawn))}" if drawn else ""
    return f"{since:.6f} {who} {shown}{drew}"


def shorten(message: Any, characters: int = 300) -> str:
    text = repr(message)
    return text if len(text) <= characters else text[:characters] + "..."


def _names(value: Any, some_id: bytes) -> bool:
    """Whether an id is among the fields of a message, or that of its task, or of what it made: those begin alike."""
    if isinstance(value, bytes):
        return value.startswith(some_id) or (len(value) >= TASK_ID_BYTES and some_id.startswith(value))
    if isinstance(value, dict):
        return any(_names(item, some_id) for pair in value.items() for item in pair)
    return isinstance(value, (tuple, list)) and any(_names(item, some_id) for item in value)
