"""Threads, locks and queues of user code in a simulation: greenlets that wait for each other in virtual time.

``threading`` is Python over a few things written in C. Those are replaced: a thread starts as a greenlet of the
simulated process that starts it, and a lock that is taken makes its taker wait in the world. All that is built on them
(Condition, Event, Semaphore, Barrier, Timer, ``queue.Queue``, ``concurrent.futures``) is virtual with it.

Each simulated process sees locks of its own, although module globals are shared: as with real processes, what one
holds doesn't stop another. Who waits for a lock gets it in the order of asking.
"""

from __future__ import annotations

import _queue
import _thread
import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import greenlet

from actorlib.testing.patches import Here, Patch, real_get_ident

FIRST_IDENT = 1 << 60  # no real thread has such a number

_Lock = _thread.LockType
_RLock: Any = _thread.RLock
_SimpleQueue: Any = _queue.SimpleQueue
_acquire, _release = _Lock.acquire, _Lock.release
_acquire_again, _release_again = _RLock.acquire, _RLock.release
_put, _take = _SimpleQueue.put, _SimpleQueue.get_nowait
_join, _is_alive = threading.Thread.join, threading.Thread.is_alive


class Held:
    """A lock that is taken in one simulated process."""

    __slots__ = ("count", "lock", "taker", "waiting")

    def __init__(self, lock: Any, taker: Any) -> None:
        self.lock = lock
        self.taker = taker
        self.count = 1
        self.waiting: deque[Waiting] = deque()


class Waiting:
    """A greenlet that waits for a lock, a queue's item or a thread's end."""

    __slots__ = ("count", "greenlet", "is_served")

    def __init__(self) -> None:
        self.greenlet = greenlet.getcurrent()
        self.is_served = False
        self.count = 1


class Threads:
    """The virtual threads and locks of one world."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.idents: dict[Any, int] = {}
        self.threads: list[threading.Thread] = []
        self._numbers = itertools.count(FIRST_IDENT)
        self._held: dict[tuple[int, int], Held] = {}
        self._takers: dict[int, int] = {}  # in how many processes a lock is taken; the real one is held meanwhile
        self._empty: dict[tuple[int, int], deque[Waiting]] = {}
        self._joining: dict[int, list[Waiting]] = {}

    # -- waiting -------------------------------------------------------------------------------------------------------
    def _park(self, waiting: Waiting, timeout: float | None, why: str) -> bool:
        """Wait until somebody serves it. False when the time was over first."""
        timer = None
        if timeout is not None:
            timer = self.world.schedule(timeout, lambda: self.world.resume(waiting.greenlet))
        try:
            while not waiting.is_served:
                self.world.wait(why, timed=timer is not None)
                if timer is not None:
                    break
        finally:
            if timer is not None:
                timer.cancel()
        return waiting.is_served

    def _serve(self, waiting: Waiting) -> None:
        waiting.is_served = True
        self.world.schedule(0.0, lambda: self.world.resume(waiting.greenlet))

    def _key(self, thing: Any) -> tuple[int, int]:
        return id(self.world.owner()), id(thing)

    # -- locks ---------------------------------------------------------------------------------------------------------
    def acquire(self, lock: Any, blocking: bool = True, timeout: float = -1) -> bool:
        _check(blocking, timeout)
        key = self._key(lock)
        held = self._held.get(key)
        if held is None:
            return self._take_real(key, lock, _acquire, blocking, timeout)
        return self._wait_for(held, 1, blocking, timeout)

    def _wait_for(self, held: Held, count: int, blocking: bool, timeout: float) -> bool:
        if not blocking or timeout == 0:
            return False
        waiting = Waiting()
        waiting.count = count
        held.waiting.append(waiting)
        try:
            got = self._park(waiting, None if timeout < 0 else timeout, self._why(held))
        finally:
            if not waiting.is_served:
                held.waiting.remove(waiting)
        return got

    def _why(self, held: Held) -> str:
        taker = "nobody alive" if held.taker is None or held.taker.dead else self.name_of(held.taker)
        return f"waits for {held.lock!r}, which {taker} holds"

    def _take_real(self, key: tuple[int, int], lock: Any, acquire: Any, blocking: bool, timeout: float) -> bool:
        """The first taker holds the real lock as well, so that threads outside of the world respect it."""
        if not self._takers.get(key[1]) and not acquire(lock, False) and not acquire(lock, blocking, timeout):
            return False
        self._takers[key[1]] = self._takers.get(key[1], 0) + 1
        self._held[key] = Held(lock, greenlet.getcurrent())
        return True

    def release(self, lock: Any) -> None:
        key = self._key(lock)
        held = self._held.get(key)
        if held is None:
            _release(lock)  # taken before the simulation began, or not at all
        else:
            self._hand_on(key, held, _release)

    def _hand_on(self, key: tuple[int, int], held: Held, release: Any) -> None:
        while held.waiting:
            waiting = held.waiting.popleft()
            if not waiting.greenlet.dead:
                held.taker, held.count = waiting.greenlet, waiting.count
                self._serve(waiting)
                return
        del self._held[key]
        self._takers[key[1]] -= 1
        if not self._takers[key[1]]:
            del self._takers[key[1]]
            release(held.lock)

    def locked(self, lock: Any) -> bool:
        return self._key(lock) in self._held or (id(lock) not in self._takers and _locked(lock))

    # -- reentrant locks -----------------------------------------------------------------------------------------------
    def acquire_again(self, lock: Any, blocking: bool = True, timeout: float = -1) -> bool:
        _check(blocking, timeout)
        key = self._key(lock)
        held = self._held.get(key)
        if held is None:
            return self._take_real(key, lock, _acquire_again, blocking, timeout)
        if held.taker is greenlet.getcurrent():
            held.count += 1
            return True
        return self._wait_for(held, 1, blocking, timeout)

    def release_again(self, lock: Any) -> None:
        key = self._key(lock)
        held = self._held.get(key)
        if held is None:
            _release_again(lock)
        elif held.taker is not greenlet.getcurrent():
            raise RuntimeError("cannot release un-acquired lock")
        else:
            held.count -= 1
            if not held.count:
                self._hand_on(key, held, _release_again)

    def is_owned(self, lock: Any) -> bool:
        held = self._held.get(self._key(lock))
        return held is not None and held.taker is greenlet.getcurrent()

    def release_save(self, lock: Any) -> Any:
        key = self._key(lock)
        held = self._held.get(key)
        if held is None or held.taker is not greenlet.getcurrent():
            raise RuntimeError("cannot release un-acquired lock")
        count, held.count = held.count, 0
        self._hand_on(key, held, _release_again)
        return count

    def acquire_restore(self, lock: Any, count: Any) -> None:
        key = self._key(lock)
        held = self._held.get(key)
        if held is None:
            self._take_real(key, lock, _acquire_again, True, -1)
            self._held[key].count = count
        else:
            self._wait_for(held, count, True, -1)

    # -- queues --------------------------------------------------------------------------------------------------------
    def put(self, into: Any, item: Any, block: bool = True, timeout: float | None = None) -> None:
        _put(into, item)
        takers = self._empty.get(self._key(into))
        while takers:
            waiting = takers.popleft()
            if not waiting.greenlet.dead:
                self._serve(waiting)
                return

    def take(self, source: Any, block: bool = True, timeout: float | None = None) -> Any:
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        until = None if timeout is None else self.world.now() + timeout
        while True:
            try:
                return _take(source)
            except _queue.Empty:
                left = None if until is None else until - self.world.now()
                if not block or (left is not None and left <= 0):
                    raise
            waiting, takers = Waiting(), self._empty.setdefault(self._key(source), deque())
            takers.append(waiting)
            self._park(waiting, left, f"waits for an item in {source!r}")
            if not waiting.is_served:
                takers.remove(waiting)

    # -- threads -------------------------------------------------------------------------------------------------------
    def get_ident(self) -> int:
        return self.idents.get(greenlet.getcurrent()) or real_get_ident()

    def name_of(self, running: Any) -> str:
        """Who that is, in words."""
        thread = threading._active.get(self.idents.get(running, 0))  # type: ignore[attr-defined]
        owner = self.world._owners.get(running)
        label = owner.running_label() if owner is not None else "the world"
        return f"thread {thread.name} of {label}" if thread is not None else label

    def start_new_thread(self, function: Any, args: Any, kwargs: Any = None) -> int:
        """``_thread.start_new_thread``."""
        ident = next(self._numbers)

        def run() -> None:
            try:
                function(*args, **(kwargs or {}))
            except SystemExit:
                return

        self._spawn(ident, run)
        return ident

    def _spawn(self, ident: int, function: Any) -> None:
        def whole_life() -> None:
            try:
                function()
            except greenlet.GreenletExit:
                return
            finally:
                self.idents.pop(greenlet.getcurrent(), None)

        self.idents[self.world.spawn(self.world.owner(), whole_life)] = ident

    def start(self, thread: Any) -> None:
        """``Thread.start``."""
        if not thread._initialized:
            raise RuntimeError("thread.__init__() not called")
        if thread._started.is_set():
            raise RuntimeError("threads can only be started once")
        ident = thread._ident = next(self._numbers)
        self.threads.append(thread)
        threading._active[ident] = thread  # type: ignore[attr-defined]
        thread._started.set()
        self._spawn(ident, lambda: self._live(thread))

    def _live(self, thread: Any) -> None:
        try:
            thread.run()
        except SystemExit:
            return
        except Exception as error:
            given = (type(error), error, error.__traceback__, thread)
            threading.excepthook(threading.ExceptHookArgs(given))
        finally:
            self._ended(thread)

    def _ended(self, thread: Any) -> None:
        _mark_ended(thread)
        for waiting in self._joining.pop(id(thread), []):
            self._serve(waiting)

    def join(self, thread: Any, timeout: float | None = None) -> None:
        if thread not in self.threads:
            return _join(thread, timeout)
        if thread._ident == self.get_ident():
            raise RuntimeError("cannot join current thread")
        if self.is_alive(thread):
            waiting = Waiting()
            joining = self._joining.setdefault(id(thread), [])
            joining.append(waiting)
            wait_s = None if timeout is None else max(0.0, timeout)
            if not self._park(waiting, wait_s, f"waits for the end of thread {thread.name}"):
                joining.remove(waiting)
        return None

    def is_alive(self, thread: Any) -> bool:
        if thread in self.threads:
            return thread._ident in threading._active  # type: ignore[attr-defined]
        return _is_alive(thread)

    # -- the end -------------------------------------------------------------------------------------------------------
    def end(self) -> None:
        """The world is over: real locks that were held for it are let go, its threads have ended."""
        held, self._held = self._held, {}
        for one in {id(one.lock): one for one in held.values()}.values():
            (_release if type(one.lock) is _Lock else _release_again)(one.lock)
        for thread in self.threads:
            _mark_ended(thread)
        for ident in [ident for ident in threading._active if ident >= FIRST_IDENT]:  # type: ignore[attr-defined]
            del threading._active[ident]  # type: ignore[attr-defined]


def _check(blocking: bool, timeout: float) -> None:
    if not blocking and timeout != -1:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0 and timeout != -1:
        raise ValueError("timeout value must be a non-negative number")


def _mark_ended(thread: Any) -> None:
    """As the interpreter sees a thread that has come to its end (other names from Python 3.13 on)."""
    threading._active.pop(thread._ident, None)  # type: ignore[attr-defined]
    if hasattr(thread, "_handle"):
        thread._handle._set_done()
    else:
        thread._is_stopped = True


_locked = _Lock.locked


def _threads() -> Threads:
    return Here.world.threads  # type: ignore[no-any-return]


def _on(method: str) -> Callable[..., Any]:
    """A function that calls the method of the world's threads."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(Here.world.threads, method)(*args, **kwargs)

    return call


def _leave(lock: Any, *_: Any) -> None:
    _threads().release(lock)


def _leave_again(lock: Any, *_: Any) -> None:
    _threads().release_again(lock)


_condition_wait = threading.Condition.wait


def _wait_on(condition: Any, timeout: float | None = None) -> bool:
    """A condition that was made outside took its lock's methods along: they are looked up anew."""
    lock = condition._lock
    kept = {name: vars(condition)[name] for name in ("_release_save", "_acquire_restore") if name in vars(condition)}
    for name in kept:
        setattr(condition, name, getattr(lock, name))
    try:
        return _condition_wait(condition, timeout)
    finally:
        vars(condition).update(kept)


def thread_patches() -> list[Patch]:
    """All that makes threads virtual."""
    lock = {"acquire": _on("acquire"), "release": _on("release"), "locked": _on("locked"), "__enter__": _on("acquire")}
    again = {
        "acquire": _on("acquire_again"),
        "release": _on("release_again"),
        "_is_owned": _on("is_owned"),
        "_release_save": _on("release_save"),
        "_acquire_restore": _on("acquire_restore"),
        "__enter__": _on("acquire_again"),
    }
    simple = {"put": _on("put"), "put_nowait": _on("put"), "get": _on("take")}
    thread = {"start": _on("start"), "join": _on("join"), "is_alive": _on("is_alive")}
    classes: tuple[tuple[Any, dict[str, Any]], ...] = (
        (_Lock, {**lock, "__exit__": _leave}),
        (_RLock, {**again, "__exit__": _leave_again}),
        (_SimpleQueue, simple),
        (threading.Thread, thread),
        (threading.Condition, {"wait": _wait_on}),
    )
    patches = [Patch(cls, name, virtual) for cls, methods in classes for name, virtual in methods.items()]
    patches += [Patch(module, "get_ident", _on("get_ident")) for module in (threading, _thread)]
    patches.append(Patch(_thread, "start_new_thread", _on("start_new_thread")))
    return patches
