"""A fixed set of actors that share a stream of work.

Each piece of work goes to an actor that is idle, or waits until one is. Results are taken in the order of submission
(``get_next``, ``map``) or as they come (``get_next_unordered``, ``map_unordered``); both may be mixed. An actor that is
done gets its next piece even while its last result waits to be taken.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import actorlib

V = TypeVar("V")
Work = Callable[[Any, Any], Any]


class _Running:
    """One piece of work that an actor has. ``actor`` is None once the actor went on to other work."""

    __slots__ = ("actor", "refs", "result")

    def __init__(self, actor: Any, result: Any) -> None:
        self.actor = actor
        self.result = result
        self.refs: list[Any] = list(result) if isinstance(result, list | tuple) else [result]
        if not self.refs or not all(isinstance(ref, actorlib.ObjectRef) for ref in self.refs):
            raise TypeError(
                "the function given to an ActorPool returns what actor.method.remote(...) returned, "
                f"not {type(result).__name__}"
            )


class ActorPool:
    """Distribute work over ``actors``.

    Example::

        pool = ActorPool([Actor.remote(), Actor.remote()])
        print(list(pool.map(lambda actor, value: actor.double.remote(value), [1, 2, 3, 4])))
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        self._idle: list[Any] = list(actors)
        self._running: dict[int, _Running] = {}  # by number, in order of submission
        self._pending: deque[tuple[int, Work, Any]] = deque()
        self._submitted = 0

    # -- all at once ---------------------------------------------------------------------------------------------------
    def map(self, fn: Callable[[Any, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """Results of ``fn(actor, value)`` in the order of ``values``. Results not yet taken are dropped."""
        self._submit_afresh(fn, values)
        return self._drain(self.get_next)

    def map_unordered(self, fn: Callable[[Any, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """As ``map``, with results in the order in which they arrive."""
        self._submit_afresh(fn, values)
        return self._drain(self.get_next_unordered)

    def _submit_afresh(self, fn: Callable[[Any, V], Any], values: Iterable[V]) -> None:
        self._pending.clear()
        for number in list(self._running):
            self._take(number)
        for value in values:
            self.submit(fn, value)

    def _drain(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    # -- one by one ----------------------------------------------------------------------------------------------------
    def submit(self, fn: Callable[[Any, V], Any], value: V) -> None:
        """Run ``fn(actor, value)``, which returns a reference, on the next actor that is idle."""
        number = self._submitted
        if self._idle:
            actor = self._idle.pop()
            try:
                self._running[number] = _Running(actor, fn(actor, value))
            except BaseException:
                self._idle.append(actor)
                raise
        else:
            self._pending.append((number, fn, value))
        self._submitted += 1

    def has_next(self) -> bool:
        """Whether there are results still to be taken."""
        return bool(self._running or self._pending)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of submission.

        Raises StopIteration if there is none, TimeoutError after ``timeout`` seconds; the piece of work is then dropped
        if ``ignore_if_timedout``. What the work raised is raised here.
        """
        self._need_next()
        number = min(self._running)
        if not self._wait_for([number], timeout):
            if ignore_if_timedout:
                dropped = self._take(number)
                raise TimeoutError(f"timed out waiting for the result; {dropped} has been ignored")
            raise TimeoutError("timed out waiting for the result")
        return actorlib.get(self._take(number))

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result to arrive; errors as in ``get_next``."""
        self._need_next()
        number = self._wait_for(None, timeout)
        if number is None:
            if ignore_if_timedout:
                dropped = self._take(min(self._running))
                raise TimeoutError(f"timed out waiting for the result; {dropped} has been ignored")
            raise TimeoutError("timed out waiting for the result")
        return actorlib.get(self._take(number[0]))

    def _need_next(self) -> None:
        if not self.has_next():
            raise StopIteration("no more results to get")
        if not self._running:
            raise RuntimeError("work waits, but the pool has no actor: push() one")

    # -- the actors ----------------------------------------------------------------------------------------------------
    def has_free(self) -> bool:
        """Whether an actor is idle and nothing waits for one."""
        return bool(self._idle) and not self._pending

    def pop_idle(self) -> Any | None:
        """Take an idle actor out of the pool; None if there is none."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Add an actor. Raises ValueError if the pool has it."""
        busy = [running.actor for running in self._running.values() if running.actor is not None]
        if actor in self._idle or actor in busy:
            raise ValueError("the actor is in this ActorPool already")
        self._return_actor(actor)

    def _return_actor(self, actor: Any) -> None:
        """The actor takes what waits, or is idle."""
        if not self._pending:
            self._idle.append(actor)
            return
        number, fn, value = self._pending.popleft()
        try:
            self._running[number] = _Running(actor, fn(actor, value))
        except BaseException:
            self._idle.append(actor)
            raise

    def _take(self, number: int) -> Any:
        """Remove a piece of work; its actor goes on. Gives its reference, or list of them."""
        running = self._running.pop(number)
        if running.actor is not None:
            self._return_actor(running.actor)
        return running.result

    # -- waiting -------------------------------------------------------------------------------------------------------
    def _wait_for(self, wanted: list[int] | None, timeout: float | None) -> list[int] | None:
        """Wait until one of ``wanted`` (None: any) is done; keep actors busy meanwhile. None after ``timeout``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            done = self._done()
            found = [number for number in done if wanted is None or number in wanted]
            if found:
                return found
            if self._pending and self._hand_on(done):
                continue
            among = self._running if wanted is None or self._pending else wanted
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            unready = self._unready(number for number in among if number not in done)
            actorlib.wait(unready, num_returns=1, timeout=left)

    def _done(self) -> list[int]:
        refs = list(dict.fromkeys(ref for running in self._running.values() for ref in running.refs))
        ready, _ = actorlib.wait(refs, num_returns=len(refs), timeout=0)
        there = set(ready)
        return [number for number, running in self._running.items() if there.issuperset(running.refs)]

    def _unready(self, numbers: Iterable[int]) -> list[Any]:
        refs = list(dict.fromkeys(ref for number in numbers for ref in self._running[number].refs))
        _, unready = actorlib.wait(refs, num_returns=len(refs), timeout=0)
        return unready or refs

    def _hand_on(self, done: list[int]) -> bool:
        """Give waiting work to actors whose result is there but not yet taken. Whether there were any."""
        handed = False
        for number in done:
            running = self._running[number]
            if self._pending and running.actor is not None:
                actor, running.actor = running.actor, None
                self._return_actor(actor)
                handed = True
        return handed
