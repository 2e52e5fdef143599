"""Objects: put and get, small and large, and reading in place."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
from harness import Figure, fresh, latency_us, main, rate, row, seconds

LARGE_BYTES = 100_000_000


def first_element(array: Any) -> float:
    return float(array[0])


FIRST_PUT = """
import json, time
import numpy as np
import LIBRARY as lib
array = np.ones(100_000_000 // 8)
lib.init(num_cpus=2, log_to_driver=False)
lib.put(bytes(1000))
started = time.perf_counter()
ref = lib.put(array)
print(json.dumps({"seconds": time.perf_counter() - started}))
lib.shutdown()
"""


@row("put of 100 MB, memory warm", "GB/s", target="0.8 x memcpy_gb_s")
def put_large(lib: Any) -> Figure:
    array = np.ones(LARGE_BYTES // 8)
    took = [seconds(lambda: lib.put(array)) for _ in range(12)]
    return 0.1 / statistics.median(took[2:])


@row("put of 100 MB, first touch", "GB/s", target="1 x fresh_tmpfs_gb_s")
def put_first(lib: Any) -> Figure:
    return 0.1 / fresh(lib, FIRST_PUT)["seconds"]


def pool_read(pool: Any) -> Figure:
    array = np.ones(LARGE_BYTES // 8)
    return seconds(lambda: pool.submit(first_element, array).result()) * 1e3


@row("a worker reads one element of 100 MB", "ms", target=0.5, more_is_better=False, pool=pool_read)
def read_one(lib: Any) -> Figure:
    ref = lib.put(np.ones(LARGE_BYTES // 8))
    f = lib.remote(first_element)
    figure = latency_us(lambda: lib.get(f.remote(ref)), 100, 10)
    return {"value": figure["value"] / 1e3, "p99_ms": figure["p99_us"] / 1e3}


@row("20 tasks take 100 MB by ref", "ms", target=20, more_is_better=False)
def read_by_twenty(lib: Any) -> Figure:
    ref = lib.put(np.ones(LARGE_BYTES // 8))
    f = lib.remote(first_element)
    lib.get([f.remote(ref) for _ in range(4)])
    return seconds(lambda: lib.get([f.remote(ref) for _ in range(20)])) * 1e3


@row("put of 1 KiB", "/s", target=100_000, turns=5)
def put_small(lib: Any) -> Figure:
    value = bytes(1024)
    return rate(10_000, lambda: [lib.put(value) for _ in range(10_000)])


@row("get of 1 KiB", "/s", target=100_000, turns=5)
def get_small(lib: Any) -> Figure:
    refs = [lib.put(bytes(1024)) for _ in range(10_000)]
    return rate(10_000, lambda: [lib.get(ref) for ref in refs])


if __name__ == "__main__":
    main(__file__)
