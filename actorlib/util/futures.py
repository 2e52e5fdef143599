"""``concurrent.futures`` on tasks: an Executor whose work runs anywhere in the cluster.

A future of this executor can be cancelled until its result is there: a waiting task then never runs, a running one is
interrupted, and the future is cancelled at once whatever the task still does.
"""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
import itertools
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import actorlib
from actorlib.object_ref import ObjectRef

T = TypeVar("T")

SETTLE_S = 1.0  # for a value that is there to reach its future


class TaskFuture(concurrent.futures.Future[T]):
    """The future of a task. ``ref`` is the task's reference once it was submitted."""

    def __init__(self) -> None:
        super().__init__()
        self.ref: ObjectRef[T] | None = None
        self._once = threading.Lock()
        self._is_settled = False

    def _settle(self) -> bool:
        """True for the one who may set the outcome."""
        with self._once:
            first, self._is_settled = not self._is_settled, True
        return first

    def cancel(self) -> bool:
        """Cancel the task unless its result is there. Whether it is cancelled."""
        if not self._settle():
            return self.cancelled()
        super().cancel()
        self.set_running_or_notify_cancel()
        if self.ref is not None:
            actorlib.cancel(self.ref)
        return True

    def _take(self, outcome: concurrent.futures.Future[T]) -> None:
        error = outcome.exception()
        if not self._settle():
            return
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(outcome.result())

    def result(self, timeout: float | None = None) -> T:
        return super().result(self._lend_cpu(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return super().exception(self._lend_cpu(timeout))

    def _lend_cpu(self, timeout: float | None) -> float | None:
        """Wait as ``actorlib.wait`` does, so that a task that waits lends its CPU to what it waits for.

        Gives the seconds that are left to wait for the outcome to be set.
        """
        if self.ref is None or self.done():
            return timeout
        if timeout is None:
            actorlib.wait([self.ref])
            return None
        deadline = time.monotonic() + timeout
        ready, _ = actorlib.wait([self.ref], timeout=max(0.0, timeout))
        left = deadline - time.monotonic()
        return max(left, SETTLE_S) if ready else left


class Executor(concurrent.futures.Executor):
    """Runs calls as tasks.

    Args:
        max_workers: how many calls may be out at once; None: as many as the cluster takes.
        options: options of the tasks, such as ``num_cpus=1, max_retries=0, resources={...}``.

    Example::

        with Executor() as executor:
            print(list(executor.map(work, range(100), chunksize=10)))
    """

    def __init__(self, max_workers: int | None = None, **options: Any) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError("max_workers must be at least 1, or None")
        if "num_returns" in options:
            raise ValueError("num_returns is not for an Executor: each future has the one value that its call returns")
        self._max_workers = max_workers
        self._options = options
        self._any_callable = actorlib.remote(_call).options(**options)
        self._functions: dict[Callable[..., Any], Any] = {}
        self._lock = threading.Lock()
        self._waiting: deque[tuple[TaskFuture[Any], Any, tuple[Any, ...], dict[str, Any]]] = deque()
        self._out = 0
        self._futures: dict[int, TaskFuture[Any]] = {}  # unsettled ones, by id
        self._is_shut_down = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskFuture[T]:
        """Start ``fn(*args, **kwargs)`` as a task. Raises RuntimeError after ``shutdown``."""
        remote, args = self._remote(fn, args)
        future: TaskFuture[T] = TaskFuture()
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._futures[id(future)] = future
            self._waiting.append((future, remote, args, kwargs))
        future.add_done_callback(self._forget)
        self._pump()
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """``map(fn, *iterables)`` as tasks of ``chunksize`` calls each; results in order.

        Raises TimeoutError if a result isn't there ``timeout`` seconds after this call; the rest is cancelled then, as
        it is when a call raised.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        chunks = _chunks(zip(*iterables, strict=False), chunksize)
        return itertools.chain.from_iterable(super().map(functools.partial(_run_chunk, fn), chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; cancel what is not done if ``cancel_futures``; wait for the rest if ``wait``."""
        with self._lock:
            self._is_shut_down = True
            left = list(self._futures.values())
        if cancel_futures:
            for future in left:
                future.cancel()
        if wait:
            for future in left:
                future._lend_cpu(None)
            concurrent.futures.wait(left)

    # -- inside --------------------------------------------------------------------------------------------------------
    def _remote(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """A module's function is sent once; any other callable, of which there may be many, is sent along."""
        if not callable(fn):
            raise TypeError(f"submit() takes a callable, not {type(fn).__name__}")
        if not _is_of_module(fn):
            return self._any_callable, (fn, *args)
        remote = self._functions.get(fn)
        if remote is None:
            remote = self._functions[fn] = actorlib.remote(fn).options(**self._options)
        return remote, args

    def _pump(self) -> None:
        """Submit what waits, up to ``max_workers``."""
        while True:
            with self._lock:
                if not self._waiting or (self._max_workers is not None and self._out >= self._max_workers):
                    return
                future, remote, args, kwargs = self._waiting.popleft()
                if future.cancelled():
                    continue
                self._out += 1
            self._launch(future, remote, args, kwargs)

    def _launch(self, future: TaskFuture[Any], remote: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            future.ref = remote.remote(*args, **kwargs)
            outcome: concurrent.futures.Future[Any] = future.ref.future()
        except Exception as error:  # what can't be sent fails its future
            outcome = concurrent.futures.Future()
            outcome.set_exception(error)
        if future.cancelled() and future.ref is not None:
            actorlib.cancel(future.ref)
        outcome.add_done_callback(functools.partial(self._over, future))

    def _over(self, future: TaskFuture[Any], outcome: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._out -= 1
        try:
            future._take(outcome)
        finally:
            self._pump()

    def _forget(self, future: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._futures.pop(id(future), None)


def _is_of_module(fn: Callable[..., Any]) -> bool:
    """Whether ``fn`` is a plain function that its module knows by name (generators are left to fail as results)."""
    if not isinstance(fn, types.FunctionType) or inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        return False
    return getattr(sys.modules.get(fn.__module__), fn.__qualname__, None) is fn


def _call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return fn(*args, **kwargs)


def _run_chunk(fn: Callable[..., T], chunk: list[tuple[Any, ...]]) -> list[T]:
    return [fn(*args) for args in chunk]


def _chunks(rows: Iterable[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    source = iter(rows)
    while chunk := list(itertools.islice(source, size)):
        yield chunk


__all__ = ["Executor", "TaskFuture"]
