"""Durable actors: what the call log costs beside a plain actor, and how fast a log is run again."""

from __future__ import annotations

import os
import signal
import statistics
import time
from typing import Any

from harness import QUICK, Figure, latency_us, main, rate, row, seconds


class Echo:
    """Does nothing, and can be looked at without being logged."""

    def no_op(self, argument: Any = None) -> None:
        return None

    def pid(self) -> int:
        return os.getpid()


def plain(lib: Any) -> Any:
    return lib.remote(num_cpus=0)(Echo).remote()


def durable(lib: Any, every_calls: int = 1000, level: str = "worker") -> Any:
    option = lib.Checkpoint(every_calls=every_calls, durability=level)
    return lib.remote(num_cpus=0, checkpoint=option)(Echo).remote()


def burst(lib: Any, actor: Any, count: int) -> float:
    return rate(count, lambda: lib.get([actor.no_op.remote(i) for i in range(count)]))


@row("10 000 durable calls in flight, of a plain actor's rate", "x", target=0.8, turns=3, on_ray=False)
def in_flight(lib: Any) -> Figure:
    actors = plain(lib), durable(lib)
    rates: tuple[list[float], list[float]] = ([], [])
    for actor in actors:
        burst(lib, actor, 1000)
    for _ in range(2 if QUICK else 7):
        for actor, found in zip(actors, rates, strict=True):
            found.append(burst(lib, actor, 10_000))
    one, other = map(statistics.median, rates)
    return {"value": other / one, "plain_per_s": one, "durable_per_s": other}


@row("a durable call one at a time takes longer by", "us", target=20, more_is_better=False, turns=3, on_ray=False)
def one_at_a_time(lib: Any) -> Figure:
    actors = plain(lib), durable(lib)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(2 if QUICK else 5):
        for actor, found in zip(actors, times, strict=True):
            latency = latency_us(lambda actor=actor: lib.get(actor.no_op.remote(1)))
            found.append(latency["value"] if isinstance(latency, dict) else latency)
    one, other = map(statistics.median, times)
    return {"value": other - one, "plain_us": one, "durable_us": other}


@row("10 000 calls in flight at level disk", "/s", target=20_000, turns=3, on_ray=False)
def on_disk(lib: Any) -> Figure:
    actor = durable(lib, level="disk")
    burst(lib, actor, 1000)
    return burst(lib, actor, 10_000)


@row("logged calls run again after a crash", "/s", target=50_000, turns=1, on_ray=False)
def recovery(lib: Any) -> Figure:
    """The time until the first answer, less what a restart without a log takes."""
    count = 20_000 if QUICK else 100_000

    def crash(actor: Any) -> float:
        os.kill(lib.get(actor.pid.options(readonly=True).remote()), signal.SIGKILL)
        return seconds(lambda: lib.get(actor.no_op.remote()))

    empty, full = durable(lib, 10**9), durable(lib, 10**9)
    lib.get(empty.no_op.remote())
    for _ in range(count // 10_000):
        burst(lib, full, 10_000)
    time.sleep(0.2)
    restart_s = statistics.median(crash(empty) for _ in range(3))
    replay_s = statistics.median(crash(full) for _ in range(3)) - restart_s
    return {"value": count / replay_s, "restart_ms": restart_s * 1e3, "replay_ms": replay_s * 1e3}


if __name__ == "__main__":
    main(__file__)
