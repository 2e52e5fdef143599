"""Actors: latency, calls in flight, several callers, and making many of them."""

from __future__ import annotations

import statistics
from typing import Any

from harness import QUICK, Figure, latency_us, main, rate, row, seconds


class Echo:
    """Does nothing, in a process of its own."""

    def no_op(self) -> None:
        return None


class Caller:
    """Calls another actor many times."""

    def __init__(self, library: str, target: Any) -> None:
        import importlib

        self.library = importlib.import_module(library)
        self.target = target

    def burst(self, count: int) -> int:
        return len(self.library.get([self.target.no_op.remote() for _ in range(count)]))


def echo_of(lib: Any) -> Any:
    return lib.remote(num_cpus=0)(Echo)


@row("actor call, one at a time", "us", target="1.5 x ping_pong_us", more_is_better=False)
def one_at_a_time(lib: Any) -> Figure:
    actor = echo_of(lib).remote()
    return latency_us(lambda: lib.get(actor.no_op.remote()))


@row("10 000 actor calls in flight, 1 caller : 1 actor", "/s", target=50_000, turns=5, beside={"ray": 20})
def in_flight(lib: Any) -> Figure:
    actor = echo_of(lib).remote()
    lib.get([actor.no_op.remote() for _ in range(1000)])
    return rate(10_000, lambda: lib.get([actor.no_op.remote() for _ in range(10_000)]))


@row(
    "10 000 actor calls, 2 callers x 2 actors",
    "/s",
    target="above 10 000 actor calls in flight, 1 caller : 1 actor",
    turns=5,
)
def two_by_two(lib: Any) -> Figure:
    echo, caller = echo_of(lib), lib.remote(num_cpus=0)(Caller)
    callers = [caller.remote(lib.__name__, echo.remote()) for _ in range(2)]
    lib.get([c.burst.remote(500) for c in callers])
    return rate(10_000, lambda: lib.get([c.burst.remote(5000) for c in callers]))


@row("create an actor and get its first answer", "ms", target=10, more_is_better=False)
def create(lib: Any) -> Figure:
    echo = echo_of(lib)
    kept = []

    def once() -> None:
        actor = echo.remote()
        lib.get(actor.no_op.remote())
        kept.append(actor)

    return statistics.median(seconds(once) * 1e3 for _ in range(5 if lib.__name__ == "ray" else 30))


@row("1 000 actors, each with an answer", "s", target=10, more_is_better=False, turns=1, on_ray=False)
def thousand(lib: Any) -> Figure:
    echo = echo_of(lib)
    count = 100 if QUICK else 1000

    def work() -> None:
        actors = [echo.remote() for _ in range(count)]
        lib.get([actor.no_op.remote() for actor in actors])
        kept.extend(actors)

    kept: list[Any] = []
    return {"value": seconds(work), "actors": count}


if __name__ == "__main__":
    main(__file__)
