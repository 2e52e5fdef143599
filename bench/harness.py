"""How the rows of the benchmark are measured, printed and kept.

A file of ``bench/`` declares rows with ``@row`` and ends with ``main(__file__)``. A row is a function of a library
(``actorlib`` or ``ray``: their names are the same) that gives one figure, or a dict whose item "value" is the figure
and whose other items are details. ``pool`` is the same work on ``concurrent.futures.ProcessPoolExecutor``. All sides of
a row are measured in turns, and the median of the turns is reported: absolute figures move with the machine, ratios
less so. The floors (a bare ZeroMQ ping-pong, memcpy) are measured in the same run.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zmq

RESULTS = Path(__file__).parent / "results"
WORKERS = 2
Figure = float | dict[str, float]


@dataclass
class Row:
    """One claim: how it is measured and what it should reach."""

    name: str
    unit: str
    more_is_better: bool
    target: float | str  # a number, or "2 x ping_pong_us": a multiple of a floor
    measure: Callable[[Any], Figure]
    pool: Callable[[concurrent.futures.ProcessPoolExecutor], Figure] | None
    turns: int
    on_ray: bool


@dataclass
class Result:
    """What came out of a row."""

    name: str
    unit: str
    more_is_better: bool
    target: float
    actorlib: float | None = None
    pool: float | None = None
    ray: float | None = None
    reached: bool | None = None
    details: dict[str, dict[str, float]] = field(default_factory=dict)
    turns: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def ratio(self, side: str) -> float | None:
        """How many times better we are than that side."""
        other = getattr(self, side)
        if not self.actorlib or not other:
            return None
        return float(self.actorlib / other if self.more_is_better else other / self.actorlib)


ROWS: list[Row] = []
QUICK = "--quick" in sys.argv


def row(
    name: str,
    unit: str,
    *,
    target: float | str,
    more_is_better: bool = True,
    pool: Callable[[Any], Figure] | None = None,
    turns: int = 3,
    on_ray: bool = True,
) -> Callable[[Callable[[Any], Figure]], Callable[[Any], Figure]]:
    """Declare a row; the decorated function measures it on a library with Ray's names."""

    def declare(measure: Callable[[Any], Figure]) -> Callable[[Any], Figure]:
        ROWS.append(Row(name, unit, more_is_better, target, measure, pool, turns, on_ray))
        return measure

    return declare


# -- measuring ---------------------------------------------------------------------------------------------------------
def rate(count: int, work: Callable[[], Any]) -> float:
    """Count per second of one run."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def latency_us(once: Callable[[], Any], count: int = 1000, warm_up: int = 100) -> dict[str, float]:
    """Median and 99th percentile of single calls, in microseconds."""
    for _ in range(warm_up):
        once()
    took = sorted(seconds(once) * 1e6 for _ in range(count))
    return {"value": took[count // 2], "p99_us": took[int(count * 0.99)]}


def settle(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


# -- floors ------------------------------------------------------------------------------------------------------------
def _echo(endpoint: str) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(endpoint)
        socket.send(b"ready")
        while (message := socket.recv()) != b"end":
            socket.send(message)


def ping_pong_us() -> float:
    """Median round trip of a bare ROUTER/DEALER pair over ipc, in microseconds."""
    with tempfile.TemporaryDirectory() as directory:
        endpoint = f"ipc://{directory}/echo"
        child = multiprocessing.get_context("spawn").Process(target=_echo, args=(endpoint,))
        with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
            socket.bind(endpoint)
            child.start()
            peer, _ = socket.recv_multipart()

            def once() -> None:
                socket.send_multipart([peer, b"x" * 100])
                socket.recv_multipart()

            median = latency_us(once, 3000, 300)["value"]
            socket.send_multipart([peer, b"end"])
            child.join()
        return median


def memcpy_gb_s() -> float:
    """Best of copying 100 MB between warm buffers, in GB/s."""
    source, target = np.ones(100_000_000, np.uint8), np.zeros(100_000_000, np.uint8)
    np.copyto(target, source)
    return float(0.1 / min(seconds(lambda: np.copyto(target, source)) for _ in range(7)))


def fresh_tmpfs_gb_s() -> float:
    """Copying 100 MB into pages of shared memory that nobody has touched, in GB/s."""
    source = np.ones(100_000_000, np.uint8)
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(len(source))
        target = np.memmap(file, np.uint8, "r+", shape=source.shape)
        took = seconds(lambda: np.copyto(target, source))
        del target
    return 0.1 / took


def floors() -> dict[str, float]:
    return {"ping_pong_us": ping_pong_us(), "memcpy_gb_s": memcpy_gb_s(), "fresh_tmpfs_gb_s": fresh_tmpfs_gb_s()}


# -- running -----------------------------------------------------------------------------------------------------------
def _target(row: Row, floor: dict[str, float]) -> float:
    if not isinstance(row.target, str):
        return row.target
    factor, name = row.target.split(" x ")
    return float(factor) * floor[name]


def _one_turn(result: Result, side: str, measure: Callable[[Any], Figure], subject: Any) -> None:
    try:
        figure = measure(subject)
    except Exception as error:
        result.errors[side] = f"{type(error).__name__}: {error}"[:500]
        traceback.print_exc()
        return
    details = figure if isinstance(figure, dict) else {"value": figure}
    result.turns.setdefault(side, []).append(float(details["value"]))
    for name, value in details.items():
        if name != "value":
            result.details.setdefault(side, {})[name] = float(value)


def measure(row: Row, libraries: dict[str, Any], pool: Any, floor: dict[str, float]) -> Result:
    """All sides of one row, in turns."""
    result = Result(row.name, row.unit, row.more_is_better, _target(row, floor))
    for _ in range(1 if QUICK else row.turns):
        for side, library in libraries.items():
            if (side != "ray" or row.on_ray) and side not in result.errors:
                _one_turn(result, side, row.measure, library)
        if row.pool is not None and "pool" not in result.errors:
            _one_turn(result, "pool", row.pool, pool)
    for side, figures in result.turns.items():
        setattr(result, side, statistics.median(figures))
    if result.actorlib is not None:
        good = result.actorlib >= result.target if row.more_is_better else result.actorlib <= result.target
        result.reached = good
    return result


def number(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(results: list[Result]) -> str:
    """The results as a table of text."""
    lines = [("work", "unit", "actorlib", "to reach", "", "pool", "x pool", "ray", "x ray")]
    for r in results:
        ratios = {side: r.ratio(side) for side in ("pool", "ray")}
        lines.append(
            (
                r.name,
                r.unit,
                "failed" if "actorlib" in r.errors else number(r.actorlib),
                ("" if r.more_is_better else "<= ") + number(r.target),
                {True: "yes", False: "NO", None: "?"}[r.reached],
                number(r.pool),
                number(ratios["pool"]),
                number(r.ray),
                number(ratios["ray"]),
            )
        )
        for side, details in r.details.items():
            text = ", ".join(f"{name} {number(value)}" for name, value in details.items())
            lines.append((f"    {side}: {text}",) + ("",) * 8)
    full = [line for line in lines if line[1]]
    widths = [max(len(line[i]) for line in full) for i in range(9)]

    def show(line: tuple[str, ...]) -> str:
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        return "  ".join(cells).rstrip() if line[1] else line[0]

    return "\n".join(show(line) for line in lines)


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
    }


def _open(names: list[str]) -> dict[str, Any]:
    """The libraries that are there, each with a session of two workers."""
    libraries: dict[str, Any] = {}
    for name in names:
        try:
            library = importlib.import_module(name)
        except ImportError:
            continue
        options = {"log_to_driver": False} if name == "actorlib" else {"log_to_driver": False, "logging_level": "error"}
        library.init(num_cpus=WORKERS, **options)
        libraries[name] = library
    return libraries


def main(file: str, needs_session: bool = True) -> None:
    """Measure the rows that this file declared, print the table, write ``results/NAME.json``."""
    name = Path(file).stem
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--quick", action="store_true", help="one turn, smaller counts")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out even if it is installed")
    arguments = parser.parse_args()
    about = machine()
    floor = floors()
    names = ["actorlib"] if arguments.no_ray else ["actorlib", "ray"]
    results = []
    with concurrent.futures.ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(abs, range(100)))  # its processes are forked before anybody has threads
        libraries = _open(names) if needs_session else {n: n for n in names if importlib.util.find_spec(n)}
        try:
            for row in ROWS:
                if arguments.only in row.name:
                    print(f"... {row.name}", file=sys.stderr, flush=True)
                    results.append(measure(row, libraries, pool, floor))
        finally:
            if needs_session:
                for library in libraries.values():
                    library.shutdown()
    RESULTS.mkdir(exist_ok=True)
    if not arguments.only:
        content = {"machine": about, "floors": floor, "quick": QUICK, "rows": [asdict(result) for result in results]}
        (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"floors: {', '.join(f'{key} {number(value)}' for key, value in floor.items())}")
    print(table(results), flush=True)
