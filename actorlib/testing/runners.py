"""Threaded and async actors of a simulated worker: greenlets instead of threads, an event loop in virtual time."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import greenlet

from actorlib.runtime.drivers.async_actor import AsyncRunner
from actorlib.runtime.drivers.execution import ExitActor
from actorlib.runtime.mailbox import Item
from actorlib.testing.refusals import WAITS, refuse


class GreenletRunner:
    """Each call on a greenlet of its own; the mailbox bounds how many there are."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._of_call: dict[bytes, Any] = {}

    def start(self, item: Item) -> None:
        self._of_call[item.call.task_id] = self._worker.simulation.world.spawn(self._worker, lambda: self._work(item))

    def _work(self, item: Item) -> None:
        worker = self._worker
        worker.simulation.guarded(worker, lambda: self._run(item))

    def _run(self, item: Item) -> None:
        worker = self._worker
        try:
            worker.run_call(item)
        except ExitActor:
            worker.leave_soon("exit_actor() was called")
            return
        except SystemExit as end:
            worker._exit_with(end)
        self._of_call.pop(item.call.task_id, None)
        worker.mailbox.done(item)
        worker.loop.call_soon(lambda: None)

    def interrupt(self, item: Item) -> None:
        at = self._of_call.get(item.call.task_id)
        if at is not None:
            self._worker.simulation.world.schedule(0.0, lambda: self._raise(item, at))

    def _raise(self, item: Item, at: Any) -> None:
        if self._of_call.get(item.call.task_id) is at:
            self._worker.simulation.world.resume(at, KeyboardInterrupt())


class VirtualSelector(selectors.BaseSelector):
    """Waits in virtual time; the only thing that can become ready is work handed over from outside."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._waiting: Any = None
        self._woken = False

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        refuse("asyncio's add_reader() or add_writer()", WAITS)

    def unregister(self, fileobj: Any) -> Any:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_map(self) -> Any:
        return {}

    def wake(self) -> None:
        self._woken = True
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._world.schedule(0.0, lambda: self._world.resume(waiting))

    def select(self, timeout: float | None = None) -> list[Any]:
        if self._woken or (timeout is not None and timeout <= 0):
            self._woken = False
            return []
        self._waiting = greenlet.getcurrent()
        timer = self._world.schedule(timeout, self.wake) if timeout is not None else None
        self._world.wait(timed=timer is not None)
        if timer is not None:
            timer.cancel()
        self._woken = False
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio in virtual time, without sockets of its own."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._virtual = VirtualSelector(world)
        super().__init__(self._virtual)

    def _make_self_pipe(self) -> None:
        self._ssock = self._csock = None
        self._internal_fds = 0

    def _close_self_pipe(self) -> None:
        return

    def _write_to_self(self) -> None:
        self._virtual.wake()

    def time(self) -> float:
        now: float = self._world.now()
        return now


class VirtualAsyncRunner(AsyncRunner):
    """The calls of an async actor as tasks of a virtual event loop, on one greenlet."""

    _worker: Any

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._tasks = {}
        self._loop = VirtualLoop(worker.simulation.world)
        worker.simulation.world.event_loops.append(self._loop)
        self._greenlet = worker.simulation.world.spawn(worker, self._serve)

    def _serve(self) -> None:
        self._worker.simulation.guarded(self._worker, self._loop.run_forever)

    def owns_thread(self) -> bool:
        return greenlet.getcurrent() is self._greenlet

    async def aside(self, function: Any, *args: Any) -> Any:
        """On a greenlet of its own, where blocking is allowed."""
        done = self._loop.create_future()

        def run() -> None:
            try:
                result = function(*args)
            except BaseException as error:
                self._loop.call_soon_threadsafe(done.set_exception, error)
            else:
                self._loop.call_soon_threadsafe(done.set_result, result)

        self._worker.simulation.world.spawn(self._worker, run)
        return await done
