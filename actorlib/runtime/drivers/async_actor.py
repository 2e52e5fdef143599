"""Actors whose methods are coroutines on one event loop.

In a module of its own, since asyncio takes longer to import than the rest of a worker: who has no such actor does not
wait for it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from typing import TYPE_CHECKING, Any

from actorlib.engine import STREAMING
from actorlib.runtime.drivers.calls import CURRENT
from actorlib.runtime.drivers.concurrency import nothing
from actorlib.runtime.drivers.execution import ExitActor
from actorlib.runtime.mailbox import Item
from actorlib.serialization import serialize
from actorlib.transport.messages import ResultStatus

if TYPE_CHECKING:
    from actorlib.runtime.drivers.worker import Worker


class AsyncRunner:
    """Calls as tasks of one event loop in a thread of its own; sync methods of the class run there too."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="actor-asyncio", daemon=True)
        self._thread.start()
        self._ready.wait()

    def _serve(self) -> None:
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._ready.set)
        self._loop.run_forever()

    async def aside(self, function: Any, *args: Any) -> Any:
        """Off the event loop, where blocking is allowed."""
        return await asyncio.to_thread(function, *args)

    def owns_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def start(self, item: Item) -> None:
        self._loop.call_soon_threadsafe(self._begin, item)

    def _begin(self, item: Item) -> None:
        task = self._loop.create_task(self._run(item))
        self._tasks[item.call.task_id] = task

    async def _run(self, item: Item) -> None:
        worker = self._worker
        context = worker.context_for(item)
        CURRENT.set(context)
        references: list[Any] = []
        started = time.perf_counter()
        status: int = ResultStatus.OK
        try:
            values = await self._user_code(item, references)
        except ExitActor:
            worker.leave_soon("exit_actor() was called")
            return
        except SystemExit as end:
            worker._exit_with(end)
        except BaseException as error:
            status, value = worker.failure(item, error, context.name)
            values = (value,) * max(1, item.call.num_returns)
        self._tasks.pop(item.call.task_id, None)
        worker.finish(item, context, status, values, references, time.perf_counter() - started)
        with worker.mailbox_lock:
            worker.mailbox.done(item)
        worker.loop.call_soon(nothing)

    async def _user_code(self, item: Item, references: list[Any]) -> tuple[Any, ...]:
        worker, call = self._worker, item.call
        function = worker.function_of(call.target)
        if any(value is None for _, _, value in call.dependencies):
            args, kwargs = await self.aside(worker.load_arguments, call)
        else:
            args, kwargs = worker.load_arguments(call)
        result = function(*args, **kwargs)
        if inspect.isawaitable(result):
            result = await result
        if call.num_returns == STREAMING:
            return await self._stream(item, result)
        return worker.values_of(call, result, references)

    async def _stream(self, item: Item, result: Any) -> tuple[Any, ...]:
        worker, index = self._worker, 0
        try:
            async for produced in _as_async(result):
                worker.send_item(item, index, produced)
                index += 1
                while worker.is_throttled(item, index):
                    await asyncio.sleep(0.001)
                if worker.lost_interest(item):
                    break
        finally:
            worker._consumed.pop(item.call.task_id, None)
        return (serialize(index).data,)

    def interrupt(self, item: Item) -> None:
        def cancel() -> None:
            task = self._tasks.get(item.call.task_id)
            if task is not None:
                task.cancel()

        self._loop.call_soon_threadsafe(cancel)


async def _as_async(result: Any) -> Any:
    if hasattr(result, "__aiter__"):
        async for item in result:
            yield item
    else:
        for item in result:
            yield item
            await asyncio.sleep(0)
