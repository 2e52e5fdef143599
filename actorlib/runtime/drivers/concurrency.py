"""Actors that run several calls at once on threads. (Those on an event loop: ``async_actor.py``.)"""

from __future__ import annotations

import ctypes
import queue
import threading
from typing import TYPE_CHECKING

from actorlib.runtime.drivers.execution import ExitActor
from actorlib.runtime.mailbox import Item

if TYPE_CHECKING:
    from actorlib.runtime.drivers.worker import Worker


class ThreadRunner:
    """Calls on threads, at most as many as the lane's limit; made when first needed, then kept."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._queues: dict[str, queue.SimpleQueue[Item]] = {}
        self._threads: dict[str, int] = {}
        self._idle: dict[str, int] = {}
        self._of_call: dict[bytes, int] = {}

    def owns_thread(self) -> bool:
        """Whether the calling thread runs an event loop of the actor's: no."""
        return False

    def start(self, item: Item) -> None:
        lane = item.lane
        if lane not in self._queues:
            self._queues[lane] = queue.SimpleQueue()
            self._threads[lane] = 0
        self._queues[lane].put(item)
        running = self._worker.mailbox.lanes[lane].running
        if self._threads[lane] < running:
            self._threads[lane] += 1
            name = f"actor-{lane or 'main'}-{self._threads[lane]}"
            threading.Thread(target=self._work, args=(self._queues[lane],), name=name, daemon=True).start()

    def _work(self, source: queue.SimpleQueue[Item]) -> None:
        worker = self._worker
        while True:
            item = source.get()
            self._of_call[item.call.task_id] = threading.get_ident()
            try:
                worker.run_call(item)
            except ExitActor:
                worker.leave_soon("exit_actor() was called")
                return
            except SystemExit as end:
                worker._exit_with(end)
            self._of_call.pop(item.call.task_id, None)
            with worker.mailbox_lock:
                worker.mailbox.done(item)
            worker.loop.call_soon(nothing)

    def interrupt(self, item: Item) -> None:
        thread = self._of_call.get(item.call.task_id)
        if thread is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))


def nothing() -> None:
    """Posted only to wake the loop, which then sees that another call may start."""
