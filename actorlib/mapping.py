"""``f.map(iterable)``: ordered results of many small calls, in chunks that find their own size."""

from __future__ import annotations

import inspect
import itertools
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from actorlib import engine, exceptions

CHUNK_WORK_S = 0.01
CHUNK_ITEMS_MAX = 10_000
FIRST_CHUNK_ITEMS = 8


class _ItemError:
    """An error that took the place of one item's result."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return _ItemError, (self.error,)


def run_chunk(function: Callable[..., Any], items: list[Any]) -> Any:
    """In the worker: (seconds that it took, the results of one chunk, an error in its place). Each item runs once.

    Of a coroutine function it gives a coroutine with that result.
    """
    if inspect.iscoroutinefunction(function):
        return _run_chunk_async(function, items)
    started = time.perf_counter()
    results: list[Any] = []
    source = iter(items)
    while len(results) < len(items):
        try:
            results.extend(map(function, source))  # what came before an error stays in the list
            if len(results) < len(items):
                raise RuntimeError("the function raised StopIteration, which would end the results")
        except Exception as error:
            results.append(_ItemError(_as_task_error(function, error)))
    return time.perf_counter() - started, results


async def _run_chunk_async(function: Callable[..., Any], items: list[Any]) -> tuple[float, list[Any]]:
    started = time.perf_counter()
    results: list[Any] = []
    for item in items:
        try:
            results.append(await function(item))
        except Exception as error:
            results.append(_ItemError(_as_task_error(function, error)))
    return time.perf_counter() - started, results


def _as_task_error(function: Callable[..., Any], error: BaseException) -> BaseException:
    """What a task that raised would give: also of the user's class, with the remote traceback, always picklable."""
    here = engine.current().context()
    trace = error.__traceback__
    text = "".join(traceback.format_exception(type(error), error, trace.tb_next if trace else None))
    name = getattr(function, "__qualname__", repr(function))
    return exceptions.task_error(error, name, text, here["pid"], here["node_id"])


def ordered_results(
    submit: Callable[[list[Any]], Any],
    get: Callable[[Any], tuple[float, list[Any]]],
    iterable: Iterable[Any],
    chunksize: int | str,
    in_flight: int,
    progress: bool,
    total: int | None,
) -> Iterator[Any]:
    """Results in order; at most ``in_flight`` chunks are out at once."""
    if chunksize != "auto" and (isinstance(chunksize, bool) or not isinstance(chunksize, int) or chunksize < 1):
        raise ValueError(f'chunksize={chunksize!r}: must be a positive int or "auto"')
    return _results(submit, get, iter(iterable), chunksize, in_flight, _bar(progress, total))


def _results(
    submit: Callable[[list[Any]], Any],
    get: Callable[[Any], tuple[float, list[Any]]],
    source: Iterator[Any],
    chunksize: int | str,
    in_flight: int,
    bar: Any,
) -> Iterator[Any]:
    size = FIRST_CHUNK_ITEMS if chunksize == "auto" else int(chunksize)
    pending: deque[tuple[Any, int]] = deque()
    exhausted = False
    while True:
        while not exhausted and len(pending) < in_flight:
            items = list(itertools.islice(source, size))
            if not items:
                exhausted = True
                break
            pending.append((submit(items), len(items)))
        if not pending:
            break
        ref, count = pending.popleft()
        took_s, results = get(ref)
        if chunksize == "auto":
            size = max(1, min(CHUNK_ITEMS_MAX, size * 8, int(CHUNK_WORK_S / max(took_s / count, 1e-9))))
        if bar is not None:
            bar.update(count)
        for result in results:
            if type(result) is _ItemError:
                raise result.error
            yield result
    if bar is not None:
        bar.close()


def _bar(progress: bool, total: int | None) -> Any:
    if not progress:
        return None
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install 'actorlib[progress]'") from error

    class Bar(tqdm):  # type: ignore[misc]
        """Without the thread that tqdm would start, and leave, to watch its bars: ours moves with each chunk."""

        monitor_interval = 0

    return Bar(total=total)
