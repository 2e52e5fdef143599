"""Tasks: throughput, latency, chains, trees, waiting, and a million of them pending."""

from __future__ import annotations

import concurrent.futures
import functools
import os
import statistics
import tempfile
import time
from typing import Any

import psutil
from harness import QUICK, Figure, latency_us, main, rate, row, seconds

MANY = 10_000


def no_op(_: Any = None) -> None:
    return None


def increment(x: int) -> int:
    return x + 1


def ten_kilobytes(_: Any = None) -> bytes:
    return bytes(10_000)


@functools.cache
def remote(lib: Any, function: Any) -> Any:
    """The remote function of one library, made once."""
    return lib.remote(function)


# -- throughput --------------------------------------------------------------------------------------------------------
def pool_one_by_one(pool: Any) -> Figure:
    return rate(MANY, lambda: [f.result() for f in [pool.submit(no_op) for _ in range(MANY)]])


@row(
    "10 000 no-op tasks, one by one", "/s", target=30_000, pool=pool_one_by_one, turns=5, beside={"pool": 3, "ray": 20}
)
def one_by_one(lib: Any) -> Figure:
    f = remote(lib, no_op)
    lib.get([f.remote() for _ in range(100)])
    return rate(MANY, lambda: lib.get([f.remote() for _ in range(MANY)]))


def pool_map(pool: Any) -> Figure:
    count = 100_000
    sizes = (1000, 4000, 12_500, 25_000)
    return max(rate(count, lambda size=size: list(pool.map(no_op, range(count), chunksize=size))) for size in sizes)


@row("f.map over 100 000 no-ops", "/s", target=0, pool=pool_map, on_ray=False, turns=5, beside={"pool": 1})
def map_no_ops(lib: Any) -> Figure:
    f = remote(lib, no_op)
    return rate(100_000, lambda: list(f.map(range(100_000))))


# -- latency -----------------------------------------------------------------------------------------------------------
def pool_one_at_a_time(pool: Any) -> Figure:
    return latency_us(lambda: pool.submit(no_op).result())


@row(
    "task, one at a time",
    "us",
    target="2 x ping_pong_us",
    more_is_better=False,
    pool=pool_one_at_a_time,
    most={"p99_of_median": 4},
)
def one_at_a_time(lib: Any) -> Figure:
    f = remote(lib, no_op)
    figure = latency_us(lambda: lib.get(f.remote()))
    return {**figure, "p99_of_median": figure["p99_us"] / figure["value"]}


# -- shapes ------------------------------------------------------------------------------------------------------------
@row("chain of 2 000 dependent tasks", "/s", target=15_000)
def chain(lib: Any) -> Figure:
    f = remote(lib, increment)

    def work() -> None:
        ref = f.remote(0)
        for _ in range(1999):
            ref = f.remote(ref)
        assert lib.get(ref) == 2000

    return rate(2000, work)


def tree_of(lib: Any) -> Any:
    """A remote function that starts its two children and waits for them."""
    name = lib.__name__

    def node(depth: int) -> int:
        import importlib

        library = importlib.import_module(name)
        if depth == 1:
            return 1
        child = library.remote(node)
        return 1 + sum(library.get([child.remote(depth - 1), child.remote(depth - 1)]))

    return lib.remote(node)


@row("tree of 1 023 tasks, parents waiting", "s", target=0.4, more_is_better=False)
def tree(lib: Any) -> Figure:
    node = tree_of(lib)

    def work() -> None:
        assert lib.get(node.remote(10)) == 1023

    first = seconds(work)
    return {"value": seconds(work), "first_s": first}


def pool_wait(pool: Any) -> Figure:
    def work() -> None:
        left = {pool.submit(no_op) for _ in range(1000)}
        while left:
            _, left = concurrent.futures.wait(left, return_when=concurrent.futures.FIRST_COMPLETED)

    return seconds(work)


@row("wait, drained one by one over 1 000 refs", "s", target=0.05, more_is_better=False, pool=pool_wait)
def wait_one_by_one(lib: Any) -> Figure:
    f = remote(lib, no_op)

    def work() -> None:
        left = [f.remote() for _ in range(1000)]
        while left:
            _, left = lib.wait(left, num_returns=1)

    work()
    return seconds(work)


def pool_results(pool: Any) -> Figure:
    return rate(5000, lambda: [f.result() for f in [pool.submit(ten_kilobytes) for _ in range(5000)]])


@row("5 000 results of 10 KB", "/s", target=15_000, pool=pool_results)
def results(lib: Any) -> Figure:
    f = remote(lib, ten_kilobytes)
    lib.get([f.remote() for _ in range(10)])
    return rate(5000, lambda: lib.get([f.remote() for _ in range(5000)]))


# -- a million pending -------------------------------------------------------------------------------------------------
def hold_until(path: str) -> None:
    """Occupy a CPU until that file is there."""
    while not os.path.exists(path):
        time.sleep(0.01)


@row(
    "1 000 000 tasks pending: bytes each",
    "B",
    target=1024,
    more_is_better=False,
    turns=1,
    on_ray=False,
    least={"drained_of_rate": 0.9},
)
def million_pending(lib: Any) -> Figure:
    count = 100_000 if QUICK else 1_000_000
    f, hold = remote(lib, no_op), remote(lib, hold_until)
    lib.get(f.remote())
    with tempfile.TemporaryDirectory() as directory:
        gate = os.path.join(directory, "open")
        holders = [hold.remote(gate) for _ in range(2)]
        time.sleep(0.5)
        process = psutil.Process()
        before = process.memory_info().rss
        started = time.perf_counter()
        refs = [f.remote() for _ in range(count)]
        submitted_s = time.perf_counter() - started
        each = (process.memory_info().rss - before) / count
        ready, _ = lib.wait([*refs[:100], *refs[-100:]], num_returns=200, timeout=0)
        assert not ready, "some of them have run: they were not pending"
        with open(gate, "w"):
            pass
        started = time.perf_counter()
        lib.get(refs)
        drained_s = time.perf_counter() - started
        lib.get(holders)
    del refs
    few = statistics.median(rate(MANY, lambda: lib.get([f.remote() for _ in range(MANY)])) for _ in range(5))
    return {
        "value": each,
        "submitted_per_s": count / submitted_s,
        "drained_per_s": count / drained_s,
        "rate_of_10000_per_s": few,
        "drained_of_rate": count / drained_s / few,
    }


if __name__ == "__main__":
    main(__file__)
