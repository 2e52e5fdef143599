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
import subprocess
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

RESULTS = Path(os.environ.get("ACTORLIB_BENCH_RESULTS") or Path(__file__).parent / "results")
WORKERS = 2
TURN_OF_PEER_S = 20.0
Figure = float | dict[str, float]


@dataclass
class Row:
    """One claim: how it is measured and what it should reach."""

    name: str
    unit: str
    more_is_better: bool
    target: float | str  # a number, "2 x ping_pong_us" (a floor), or "above NAME" (another row's figure)
    measure: Callable[[Any], Figure]
    pool: Callable[[concurrent.futures.ProcessPoolExecutor], Figure] | None
    turns: int
    on_ray: bool
    beside: dict[str, float]  # how many times better than "pool" or "ray" it has to be, where they took part
    most: dict[str, float]  # details that must not be above these
    least: dict[str, float]  # details that must not be below these


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
    missed: list[str] = field(default_factory=list)  # what of the claim does not hold
    details: dict[str, dict[str, float]] = field(default_factory=dict)
    turns: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    claim: str = ""  # what is to be reached, in words

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
    beside: dict[str, float] | None = None,
    most: dict[str, float] | None = None,
    least: dict[str, float] | None = None,
) -> Callable[[Callable[[Any], Figure]], Callable[[Any], Figure]]:
    """Declare a row; the decorated function measures it on a library with Ray's names."""

    def declare(measure: Callable[[Any], Figure]) -> Callable[[Any], Figure]:
        ROWS.append(
            Row(name, unit, more_is_better, target, measure, pool, turns, on_ray, beside or {}, most or {}, least or {})
        )
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
    return {"value": statistics.median(took), "p99_us": took[int(count * 0.99)]}


def fresh(lib: Any, program: str, *arguments: str) -> dict[str, float]:
    """What a program prints as JSON on its last line, in a process of its own. ``LIBRARY`` in it is the library."""
    name = lib if isinstance(lib, str) else lib.__name__
    command = [sys.executable, "-c", program.replace("LIBRARY", name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


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

    def once() -> float:
        with tempfile.TemporaryFile(dir="/dev/shm") as file:
            file.truncate(len(source))
            target = np.memmap(file, np.uint8, "r+", shape=source.shape)
            return seconds(lambda: np.copyto(target, source))

    return 0.1 / statistics.median(once() for _ in range(3))


FLOORS: dict[str, Callable[[], float]] = {
    "ping_pong_us": ping_pong_us,
    "memcpy_gb_s": memcpy_gb_s,
    "fresh_tmpfs_gb_s": fresh_tmpfs_gb_s,
}


def floors() -> dict[str, float]:
    return {name: measure() for name, measure in FLOORS.items()}


# -- running -----------------------------------------------------------------------------------------------------------
def _target(row: Row, earlier: list[Result]) -> tuple[float, str]:
    """What to reach, and the floor that it is a multiple of, if it is."""
    if not isinstance(row.target, str):
        return row.target, ""
    if row.target.startswith("above "):
        figures = [r.actorlib for r in earlier if r.name == row.target.removeprefix("above ")]
        return figures[0] if figures and figures[0] is not None else float("nan"), ""
    factor, name = row.target.split(" x ")
    return float(factor), name


def _claim(row: Row) -> str:
    """The target in words, with the ratios and details that belong to it."""
    if not isinstance(row.target, str):
        parts = [f"{'' if row.more_is_better else 'at most '}{number(row.target)} {row.unit}"] if row.target else []
    else:
        parts = [row.target.replace("_us", "").replace("_gb_s", "").replace("_", " ")]
    parts += [f"{number(factor)} x {'Ray' if side == 'ray' else side}" for side, factor in row.beside.items()]
    parts += [f"{name.replace('_', ' ')} at most {number(value)}" for name, value in row.most.items()]
    parts += [f"{name.replace('_', ' ')} at least {number(value)}" for name, value in row.least.items()]
    return ", ".join(parts)


def _one_turn(result: Result, details: dict[str, Any], side: str, measure: Callable[[Any], Figure], on: Any) -> None:
    try:
        figure = measure(on)
    except Exception as error:
        last_line = (
            str(error).strip().rpartition("\n")[2]
        )  # of a traceback what was raised, without this machine's paths
        result.errors[side] = f"{type(error).__name__}: {last_line}"[:200]
        traceback.print_exc()
        return
    for name, value in (figure if isinstance(figure, dict) else {"value": figure}).items():
        if name == "value":
            result.turns.setdefault(side, []).append(float(value))
        else:
            details.setdefault(side, {}).setdefault(name, []).append(float(value))


def measure(row: Row, libraries: dict[str, Any], pool: Any, earlier: list[Result]) -> Result:
    """All sides of one row, in turns; the median of each figure and detail.

    The floor that a target is a multiple of takes its turn as well: a machine that others use, too, is not the same
    from one minute to the next.
    """
    target, floor = _target(row, earlier)
    result = Result(row.name, row.unit, row.more_is_better, target, claim=_claim(row))
    details: dict[str, dict[str, list[float]]] = {}
    at_the_floor: list[float] = []
    slow: set[str] = set()  # peers of which one turn is enough
    for _ in range(1 if QUICK else row.turns):
        if floor:
            at_the_floor.append(FLOORS[floor]())
        sides = [(side, row.measure, library) for side, library in libraries.items() if side != "ray" or row.on_ray]
        if row.pool is not None:
            sides.append(("pool", row.pool, pool))
        for side, work, on in sides:
            if side in result.errors or side in slow:
                continue
            began = time.perf_counter()
            _one_turn(result, details, side, work, on)
            if side != "actorlib" and time.perf_counter() - began > TURN_OF_PEER_S:
                slow.add(side)
    if floor:
        result.target = target * statistics.median(at_the_floor)
        result.details["floor"] = {floor: statistics.median(at_the_floor)}
    for side, figures in result.turns.items():
        setattr(result, side, statistics.median(figures))
    for side, of_side in details.items():
        result.details[side] = {name: statistics.median(values) for name, values in of_side.items()}
    _judge(row, result)
    return result


def _judge(row: Row, result: Result) -> None:
    """Whether the whole claim holds: its figure, its ratios, its details."""
    ours = result.actorlib
    if ours is None or "actorlib" in result.errors:
        return
    if not (ours >= result.target if row.more_is_better else ours <= result.target):
        result.missed.append(f"to reach {number(result.target)}")
    for side, factor in row.beside.items():
        ratio = result.ratio(side)
        if ratio is not None and ratio < factor:
            result.missed.append(f"{number(factor)} x {side}")
    of_ours = result.details.get("actorlib", {})
    result.missed += [f"{name} <= {number(v)}" for name, v in row.most.items() if of_ours[name] > v]
    result.missed += [f"{name} >= {number(v)}" for name, v in row.least.items() if of_ours[name] < v]
    result.reached = not result.missed


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
        if r.missed:
            lines.append((f"    missed: {', '.join(r.missed)}",) + ("",) * 8)
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
        "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
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
    results: list[Result] = []
    with concurrent.futures.ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(abs, range(100)))  # its processes are forked before anybody has threads
        libraries = _open(names) if needs_session else {n: n for n in names if importlib.util.find_spec(n)}
        try:
            for row in ROWS:
                if arguments.only in row.name:
                    print(f"... {row.name}", file=sys.stderr, flush=True)
                    results.append(measure(row, libraries, pool, results))
        finally:
            if needs_session:
                for library in libraries.values():
                    library.shutdown()
    after = floors()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not arguments.only:
        content = {
            "machine": about,
            "floors": floor,
            "floors_after": after,
            "quick": QUICK,
            "ray": getattr(sys.modules.get("ray"), "__version__", None),
            "rows": [asdict(result) for result in results],
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    shown = ", ".join(f"{key} {number(value)} ({number(after[key])} at the end)" for key, value in floor.items())
    print(f"floors: {shown}; load average before: {about['load_before']:.2f} on {about['cores']} cores")
    print(table(results), flush=True)
