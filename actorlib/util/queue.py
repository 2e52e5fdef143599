"""A first-in, first-out queue that tasks, actors and drivers share. It lives in an async actor.

Blocked ``put`` and ``get`` calls have limits of their own in the actor, so that any number of waiting consumers can't
keep producers out. An item that is an ObjectRef is replaced by its value on the way, as any argument is; wrap it in a
container to pass the reference itself.
"""

from __future__ import annotations

import asyncio
import functools
import queue
from collections.abc import Iterable
from typing import Any

import actorlib

BLOCKED_CALLS_MAX = 10_000


class Empty(queue.Empty):
    """There is no item (in time)."""


class Full(queue.Full):
    """There is no room (in time)."""


class _QueueActor:
    """Holds the items. Calls say whether they succeeded, so that the caller raises a plain Empty or Full."""

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def qsize(self) -> int:
        return self.queue.qsize()

    @actorlib.method(concurrency_group="put")
    async def put(self, item: Any, timeout: float | None = None) -> bool:
        try:
            await asyncio.wait_for(self.queue.put(item), timeout)
        except TimeoutError:
            return False
        return True

    @actorlib.method(concurrency_group="get")
    async def get(self, timeout: float | None = None) -> tuple[Any, ...]:
        try:
            return (await asyncio.wait_for(self.queue.get(), timeout),)
        except TimeoutError:
            return ()

    async def put_nowait(self, item: Any) -> bool:
        return await self.put_nowait_batch([item]) is None

    async def put_nowait_batch(self, items: list[Any]) -> int | None:
        """None, or the number of items that were in the way; all are put or none."""
        size = self.queue.qsize()
        if self.maxsize > 0 and size + len(items) > self.maxsize:
            return size
        for item in items:
            self.queue.put_nowait(item)
        return None

    async def get_nowait_batch(self, num_items: int) -> tuple[list[Any], int]:
        """``num_items`` items or none, and the number of items that were there."""
        size = self.queue.qsize()
        if num_items > size:
            return [], size
        return [self.queue.get_nowait() for _ in range(num_items)], size

    async def leave(self) -> None:
        actorlib.actor.exit_actor()


@functools.cache
def _actor_class() -> Any:
    limits = {"put": BLOCKED_CALLS_MAX, "get": BLOCKED_CALLS_MAX}
    return actorlib.remote(concurrency_groups=limits)(_QueueActor)


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and timeout < 0:
        raise ValueError(f"'timeout' must be a non-negative number, not {timeout}")


class Queue:
    """A queue of at most ``maxsize`` items (0: any number). Pass it to tasks and actors as an argument.

    ``actor_options`` are options of the actor that holds it, such as ``{"num_cpus": 0, "name": "jobs"}``.

    Example::

        queue = Queue(maxsize=100)
        produce.remote(queue)
        item = queue.get(timeout=5)
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        self.maxsize = maxsize
        self.actor: Any = _actor_class().options(**(actor_options or {})).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def __repr__(self) -> str:
        return f"Queue(maxsize={self.maxsize})"

    def _alive(self) -> Any:
        if self.actor is None:
            raise RuntimeError("the queue was shut down")
        return self.actor

    # -- how much ------------------------------------------------------------------------------------------------------
    def size(self) -> int:
        """The number of items."""
        size: int = actorlib.get(self._alive().qsize.remote())
        return size

    def qsize(self) -> int:
        """The number of items."""
        return self.size()

    def empty(self) -> bool:
        """Whether there is no item."""
        return self.size() == 0

    def full(self) -> bool:
        """Whether there are ``maxsize`` items."""
        return 0 < self.maxsize <= self.size()

    # -- one item ------------------------------------------------------------------------------------------------------
    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item; wait for room unless ``block`` is False. Raises Full after ``timeout`` seconds."""
        if not block:
            self._put_outcome(actorlib.get(self._alive().put_nowait.remote(item)))
            return
        _check_timeout(timeout)
        self._put_outcome(actorlib.get(self._alive().put.remote(item, timeout)))

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """``put`` for coroutines."""
        if not block:
            self._put_outcome(await self._alive().put_nowait.remote(item))
            return
        _check_timeout(timeout)
        self._put_outcome(await self._alive().put.remote(item, timeout))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Remove and return the oldest item; wait for one unless ``block`` is False. Raises Empty after ``timeout``."""
        if not block:
            return self._batch_outcome(actorlib.get(self._alive().get_nowait_batch.remote(1)), 1)[0]
        _check_timeout(timeout)
        return self._get_outcome(actorlib.get(self._alive().get.remote(timeout)))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """``get`` for coroutines."""
        if not block:
            return self._batch_outcome(await self._alive().get_nowait_batch.remote(1), 1)[0]
        _check_timeout(timeout)
        return self._get_outcome(await self._alive().get.remote(timeout))

    def put_nowait(self, item: Any) -> None:
        """Add an item. Raises Full if there is no room."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Remove and return the oldest item. Raises Empty if there is none."""
        return self.get(block=False)

    # -- several items -------------------------------------------------------------------------------------------------
    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all of ``items`` at once, or raise Full and add none."""
        if not isinstance(items, Iterable):
            raise TypeError(f"'items' must be an iterable, not {type(items).__name__}")
        batch = list(items)
        size = actorlib.get(self._alive().put_nowait_batch.remote(batch))
        if size is not None:
            raise Full(f"can't add {len(batch)} items to a queue of size {size} and maxsize {self.maxsize}")

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Remove and return the ``num_items`` oldest items, or raise Empty and remove none."""
        if not isinstance(num_items, int):
            raise TypeError(f"'num_items' must be an int, not {type(num_items).__name__}")
        if num_items < 0:
            raise ValueError(f"'num_items' must be non-negative, not {num_items}")
        return self._batch_outcome(actorlib.get(self._alive().get_nowait_batch.remote(num_items)), num_items)

    # -- the end -------------------------------------------------------------------------------------------------------
    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the queue's actor and drop what it holds: at once if ``force``, else when its calls so far are done.

        After ``grace_period_s`` seconds it is ended in any case.
        """
        if self.actor is None:
            return
        actor, self.actor = self.actor, None
        if not force:
            actorlib.wait([actor.leave.remote()], timeout=grace_period_s)
        actorlib.kill(actor, no_restart=True)

    # -- what came back ------------------------------------------------------------------------------------------------
    def _put_outcome(self, done: bool) -> None:
        if not done:
            raise Full(f"the queue has its {self.maxsize} items")

    @staticmethod
    def _get_outcome(found: tuple[Any, ...]) -> Any:
        if not found:
            raise Empty("no item in time")
        return found[0]

    @staticmethod
    def _batch_outcome(found: tuple[list[Any], int], wanted: int) -> list[Any]:
        items, size = found
        if len(items) < wanted:
            raise Empty(f"can't get {wanted} items from a queue of size {size}")
        return items
