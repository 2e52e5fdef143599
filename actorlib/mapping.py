"""``f.map(iterable)``: ordered results of many small calls, in chunks that find their own size."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

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


def run_chunk(function: Callable[..., Any], items: list[Any]) -> tuple[float, list[Any]]:
    """In the worker: the results of one chunk (an error in its place) and the seconds it took."""
    started = time.perf_counter()
    try:
        results = [function(item) for item in items]
    except Exception:
        results = [_run_one(function, item) for item in items] if len(items) == 1 else _run_each(function, items)
    return time.perf_counter() - started, results


def _run_each(function: Callable[..., Any], items: list[Any]) -> list[Any]:
    """Item by item from the start: the chunk has an error somewhere."""
    return [_run_one(function, item) for item in items]


def _run_one(function: Callable[..., Any], item: Any) -> Any:
    try:
        return function(item)
    except Exception as error:
        import traceback

        error.add_note("".join(traceback.format_exception(error)))
        return _ItemError(error)


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
    return tqdm(total=total)
