"""``multiprocessing.Pool`` on actors, so that a pool reaches over all nodes of a cluster.

The processes are actors that take chunks of work. A chunk goes to the process with the least to do; how many chunks lie
queued at one process follows from how long they took so far, so that short ones travel in batches and long ones never
wait behind another. A process that dies takes only the chunks it had with it: they fail, a new one takes its place.
"""

from __future__ import annotations

import functools
import itertools
import queue
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from multiprocessing import TimeoutError
from typing import Any, Self

import actorlib
from actorlib import exceptions

QUEUED_WORK_S = 0.01  # of work that may lie at a process beside what it runs
QUEUED_CHUNKS_MAX = 64
IMAP_CHUNKS_PER_PROCESS_MAX = 8


def _call(how: str, func: Callable[..., Any], item: Any) -> Any:
    if how == "map":
        return func(item)
    if how == "starmap":
        return func(*item)
    args, kwds = item
    return func(*args, **kwds)


class _Failed:
    """Takes the place of a result: what the call raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[type[_Failed], tuple[BaseException]]:
        return _Failed, (self.error,)


class _PoolProcess:
    """One process of the pool."""

    def __init__(self, initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]) -> None:
        if initializer is not None:
            initializer(*initargs)

    def ping(self) -> bool:
        return True

    def run(self, func: Callable[..., Any], items: list[Any], how: str, stop_at_error: bool) -> tuple[list[Any], float]:
        """The results of a chunk (what was raised in its place) and the seconds it took."""
        started = time.perf_counter()
        results: list[Any] = []
        for item in items:
            try:
                results.append(_call(how, func, item))
            except Exception as error:  # whatever it is, the caller gets it
                results.append(_Failed(_travelling(error, func)))
                if stop_at_error:
                    break
        return results, time.perf_counter() - started


def _travelling(error: Exception, func: Callable[..., Any]) -> BaseException:
    """The error as a task's error, which can be pickled and has the traceback as text."""
    context = actorlib.get_runtime_context()
    name = getattr(func, "__qualname__", type(func).__name__)
    pid = actorlib.engine.current().context()["pid"]
    text = "".join(traceback.format_exception(error))
    return exceptions.task_error(error, name, text, pid, bytes.fromhex(context.get_node_id()))


class _Chunk:
    """Items for one process. ``done`` is called with the results, or with the error that befell the whole chunk.

    ``ref`` is the reference of its call while that is out.
    """

    __slots__ = ("done", "func", "how", "items", "ref", "stop_at_error")

    def __init__(
        self,
        func: Any,
        items: list[Any],
        how: str,
        stop_at_error: bool,
        done: Callable[[list[Any]], None],
    ) -> None:
        self.func = func
        self.items = items
        self.how = how
        self.stop_at_error = stop_at_error
        self.done = done
        self.ref: Any = None

    def fail(self, error: BaseException) -> None:
        self.done([_Failed(error)] * (1 if self.stop_at_error else len(self.items)))


class _Seat:
    """The place of one process: its actor, which may be replaced, and what it has to do."""

    __slots__ = ("actor", "in_flight", "started")

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.in_flight = 0
        self.started = 0


class AsyncResult:
    """The result of ``apply_async``, ``map_async`` or ``starmap_async``."""

    def __init__(
        self,
        chunks: int,
        is_single: bool,
        callback: Callable[[Any], Any] | None,
        error_callback: Callable[[BaseException], Any] | None,
    ) -> None:
        self._chunks: list[_Chunk] = []
        self._parts: list[list[Any]] = [[] for _ in range(chunks)]
        self._missing = chunks
        self._is_single = is_single
        self._callback = callback
        self._error_callback = error_callback
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._value: Any = []
        self._error: BaseException | None = None
        if not chunks:
            self._finish()

    def _chunk_done(self, index: int, results: list[Any]) -> None:
        with self._lock:
            self._parts[index] = results
            self._missing -= 1
            is_last = not self._missing
        if is_last:
            self._finish()

    def _finish(self) -> None:
        values = list(itertools.chain.from_iterable(self._parts))
        self._error = next((value.error for value in values if type(value) is _Failed), None)
        if self._error is None:
            self._value = values[0] if self._is_single else values
        callback = self._callback if self._error is None else self._error_callback
        try:
            if callback is not None:
                callback(self._value if self._error is None else self._error)
        finally:
            self._parts, self._chunks = [], []
            self._over.set()

    def _wait_until_over(self, timeout: float | None) -> bool:
        """Wait as ``actorlib.wait`` does for what is out, which is quicker than to be told, then for the rest."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for chunk in self._chunks:
            ref = chunk.ref
            if ref is not None and not self._over.is_set():
                actorlib.wait([ref], timeout=_left(deadline))
        return self._over.wait(_left(deadline))

    def ready(self) -> bool:
        """Whether the call has ended."""
        return self._over.is_set()

    def successful(self) -> bool:
        """Whether it ended without an exception. Raises ValueError while it runs."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call has ended, ``timeout`` seconds at most."""
        self._wait_until_over(timeout)

    def get(self, timeout: float | None = None) -> Any:
        """The result. Raises what the call raised, or multiprocessing.TimeoutError after ``timeout`` seconds."""
        if not self._wait_until_over(timeout):
            raise TimeoutError(f"no result within {timeout} s")
        if self._error is not None:
            raise self._error
        return self._value


class IMapIterator(Iterator[Any]):
    """Results of ``imap`` and ``imap_unordered``. The input is read as results are taken, a bounded way ahead."""

    def __init__(
        self, pool: Pool, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int, is_ordered: bool
    ) -> None:
        self._pool = pool
        self._func = actorlib.put(func)
        self._source = iter(iterable)
        self._chunksize = chunksize
        self._is_ordered = is_ordered
        self._arrived: queue.SimpleQueue[tuple[int, list[Any]]] = queue.SimpleQueue()
        self._early: dict[int, list[Any]] = {}  # results of chunks that overtook others
        self._results: deque[Any] = deque()
        self._submitted = 0
        self._delivered = 0
        self._is_exhausted = False
        self._feeding = threading.RLock()
        self._feed(self._pool._imap_chunks_max)

    def _feed(self, chunks_max: float) -> None:
        """Submit chunks until ``chunks_max`` are under way."""
        with self._feeding:
            while not self._is_exhausted and self._submitted - self._delivered < chunks_max:
                items = list(itertools.islice(self._source, self._chunksize))
                if not items:
                    self._is_exhausted = True
                    break
                index, self._submitted = self._submitted, self._submitted + 1
                self._pool._start([_Chunk(self._func, items, "map", False, functools.partial(self._put, index))])

    def _put(self, index: int, results: list[Any]) -> None:
        self._arrived.put((index, results))

    def __iter__(self) -> IMapIterator:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result. Raises what its call raised, or multiprocessing.TimeoutError after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._results:
            if self._is_exhausted and self._delivered == self._submitted:
                raise StopIteration
            try:
                self._deliver(*self._arrived.get(timeout=_left(deadline)))
            except queue.Empty:
                raise TimeoutError(f"no result within {timeout} s") from None
            self._feed(self._pool._imap_chunks_max)
        result = self._results.popleft()
        if type(result) is _Failed:
            raise result.error
        return result

    def _deliver(self, index: int, results: list[Any]) -> None:
        if not self._is_ordered:
            self._results.extend(results)
            self._delivered += 1
            return
        self._early[index] = results
        while self._delivered in self._early:
            self._results.extend(self._early.pop(self._delivered))
            self._delivered += 1


class Pool:
    """A drop-in for ``multiprocessing.Pool``.

    Args:
        processes: their number; None: as many as the session has CPUs.
        initializer, initargs: called once in each new process.
        maxtasksperchild: chunks after which a process is replaced by a fresh one.
        context: accepted and ignored.
        ray_address: the session to join if none runs yet.
        ray_remote_args: options of the actors, such as ``{"num_cpus": 1, "resources": {...}}``.

    Example::

        with Pool(4) as pool:
            print(pool.map(work, range(100)))
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        if processes is not None and processes < 1:
            raise ValueError("the number of processes must be at least 1")
        if maxtasksperchild is not None and maxtasksperchild < 1:
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if not actorlib.is_initialized():
            _start_session(processes, ray_address)
        self._processes = processes or max(1, int(actorlib.cluster_resources().get("CPU", 1)))
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._maxtasksperchild = maxtasksperchild
        self._actor_class = actorlib.remote(_PoolProcess).options(
            **{"num_cpus": 0, "max_restarts": -1, **(ray_remote_args or {})}
        )
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._pending: deque[_Chunk] = deque()
        self._unfinished = 0
        self._mean_s: float | None = None  # of a chunk, smoothed
        self._state = "running"
        self._iterators: weakref.WeakSet[IMapIterator] = weakref.WeakSet()
        self._seats = [_Seat(self._new_actor()) for _ in range(self._processes)]
        if initializer is not None:
            self._check_started()

    def _new_actor(self) -> Any:
        return self._actor_class.remote(self._initializer, self._initargs)

    def _check_started(self) -> None:
        """Let an initializer that fails fail here, and not in the first result."""
        try:
            actorlib.get([seat.actor.ping.remote() for seat in self._seats])
        except BaseException:
            self.terminate()
            raise

    @property
    def _imap_chunks_max(self) -> int:
        return self._processes * IMAP_CHUNKS_PER_PROCESS_MAX

    # -- one call ------------------------------------------------------------------------------------------------------
    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        """``func(*args, **kwds)`` in one of the processes."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult:
        """As ``apply``, without waiting. ``callback`` gets the result, ``error_callback`` the exception."""
        self._check_running()
        result = AsyncResult(1, True, callback, error_callback)
        item = (tuple(args), dict(kwds or {}))
        result._chunks = [_Chunk(func, [item], "apply", True, functools.partial(result._chunk_done, 0))]
        self._start(list(result._chunks))
        return result

    # -- many calls ----------------------------------------------------------------------------------------------------
    def map(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """``[func(item) for item in iterable]``, spread over the processes. Raises the first exception."""
        results: list[Any] = self.map_async(func, iterable, chunksize).get()
        return results

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult:
        """As ``map``, without waiting."""
        return self._map_async(func, list(iterable), chunksize, "map", callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """``[func(*item) for item in iterable]``, spread over the processes."""
        results: list[Any] = self.starmap_async(func, iterable, chunksize).get()
        return results

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult:
        """As ``starmap``, without waiting."""
        items = [tuple(item) for item in iterable]
        return self._map_async(func, items, chunksize, "starmap", callback, error_callback)

    def _map_async(
        self,
        func: Callable[..., Any],
        items: Sequence[Any],
        chunksize: int | None,
        how: str,
        callback: Callable[[Any], Any] | None,
        error_callback: Callable[[BaseException], Any] | None,
    ) -> AsyncResult:
        self._check_running()
        size = -(-len(items) // (self._processes * 4)) if chunksize is None else _positive(chunksize)
        parts = [list(items[start : start + size]) for start in range(0, len(items), size or 1)]
        result = AsyncResult(len(parts), False, callback, error_callback)
        shared = actorlib.put(func) if len(parts) > 1 else func
        result._chunks = [
            _Chunk(shared, part, how, True, functools.partial(result._chunk_done, index))
            for index, part in enumerate(parts)
        ]
        self._start(list(result._chunks))
        return result

    def imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator:
        """``map`` that gives results one by one, in order, and reads ``iterable`` as it goes."""
        return self._iterator(func, iterable, chunksize, True)

    def imap_unordered(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator:
        """As ``imap``, with results in the order in which they arrive."""
        return self._iterator(func, iterable, chunksize, False)

    def _iterator(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int, is_ordered: bool
    ) -> IMapIterator:
        self._check_running()
        iterator = IMapIterator(self, func, iterable, _positive(chunksize), is_ordered)
        self._iterators.add(iterator)
        return iterator

    # -- handing out chunks --------------------------------------------------------------------------------------------
    def _start(self, chunks: list[_Chunk]) -> None:
        with self._lock:
            if self._state == "terminated":
                raise ValueError("Pool not running")
            self._pending.extend(chunks)
            self._unfinished += len(chunks)
        self._pump()

    def _pump(self) -> None:
        """Give waiting chunks to processes that have room."""
        with self._lock:
            given = self._dispatch()
        for seat, chunk, outcome in given:
            # Outside of the lock: a future that is there already calls back at once.
            outcome.add_done_callback(functools.partial(self._chunk_over, seat, chunk))

    def _dispatch(self) -> list[tuple[_Seat, _Chunk, Future[Any]]]:
        given: list[tuple[_Seat, _Chunk, Future[Any]]] = []
        while self._pending:
            seat = self._seat_with_room()
            if seat is None:
                break
            chunk = self._pending.popleft()
            seat.in_flight += 1
            seat.started += 1
            try:
                chunk.ref = seat.actor.run.remote(chunk.func, chunk.items, chunk.how, chunk.stop_at_error)
                given.append((seat, chunk, chunk.ref.future()))
            except Exception as error:  # what can't be sent fails its chunk
                refused: Future[Any] = Future()
                refused.set_exception(error)
                given.append((seat, chunk, refused))
        return given

    def _seat_with_room(self) -> _Seat | None:
        limit = 1
        if self._mean_s is not None:
            limit = max(1, min(QUEUED_CHUNKS_MAX, int(QUEUED_WORK_S / max(self._mean_s, 1e-6))))
        for seat in sorted(self._seats, key=lambda seat: seat.in_flight):
            if seat.in_flight >= limit:
                return None
            if self._maxtasksperchild is None or seat.started < self._maxtasksperchild:
                return seat
            if not seat.in_flight:
                seat.actor, seat.started = self._new_actor(), 0
                return seat
        return None

    def _chunk_over(self, seat: _Seat, chunk: _Chunk, outcome: Future[Any]) -> None:
        error = outcome.exception()
        chunk.ref = None
        with self._lock:
            seat.in_flight -= 1
            if error is None:
                took_s = outcome.result()[1]
                self._mean_s = took_s if self._mean_s is None else 0.7 * self._mean_s + 0.3 * took_s
        self._pump()
        try:
            if error is None:
                chunk.done(outcome.result()[0])
            else:
                chunk.fail(error)
        finally:
            with self._lock:
                self._unfinished -= 1
                self._changed.notify_all()

    # -- the end -------------------------------------------------------------------------------------------------------
    def _check_running(self) -> None:
        if self._state != "running":
            raise ValueError("Pool not running")

    def close(self) -> None:
        """Take no more work. What was submitted still runs."""
        with self._lock:
            if self._state == "running":
                self._state = "closed"

    def join(self) -> None:
        """Wait until all work is done, then end the processes. Raises ValueError before ``close`` or ``terminate``."""
        if self._state == "running":
            raise ValueError("Pool is still running")
        if self._state == "closed":
            for iterator in list(self._iterators):
                iterator._feed(float("inf"))
        with self._lock:
            self._changed.wait_for(lambda: not self._unfinished)
            self._state = "terminated"
            seats, self._seats = self._seats, []
        _end(seats)

    def terminate(self) -> None:
        """End the processes at once. Work that was not done fails."""
        with self._lock:
            self._state = "terminated"
            seats, self._seats = self._seats, []
            dropped, self._pending = list(self._pending), deque()
            self._unfinished -= len(dropped)
        _end(seats)
        for chunk in dropped:
            chunk.fail(exceptions.TaskCancelledError("the pool was terminated before this ran"))

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def __repr__(self) -> str:
        return f"<Pool state={self._state} processes={self._processes}>"

    def __reduce__(self) -> Any:
        raise NotImplementedError("a Pool can't be passed between processes or pickled")


def _end(seats: list[_Seat]) -> None:
    if actorlib.is_initialized():  # else they are gone with their session
        for seat in seats:
            actorlib.kill(seat.actor)


def _start_session(processes: int | None, address: str | None) -> None:
    if address is not None:
        actorlib.init(address=address)
    else:
        actorlib.init(num_cpus=processes)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _positive(chunksize: int) -> int:
    if not isinstance(chunksize, int) or chunksize < 1:
        raise ValueError(f"chunksize must be a positive int, not {chunksize!r}")
    return chunksize


__all__ = ["AsyncResult", "IMapIterator", "Pool", "TimeoutError"]
