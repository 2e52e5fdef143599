"""What the engine on Ray costs over plain Ray, both in one run: tasks in bulk, and calls of an actor one by one.

Run it where Ray is installed: ``.venv-ray/bin/python bench/engines.py`` (``make test-ray`` makes that environment).
The rounds of the two alternate, so that what else the machine does falls on both; medians are compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import ray

import actorlib

ROUNDS = 7
TASKS = 1000
CALLS = 300


def add_one(x: int) -> int:
    return x + 1


class Adder:
    def add_one(self, x: int) -> int:
        return x + 1


def in_bulk(submit: Callable[[int], Any], get: Callable[[list[Any]], Any]) -> float:
    """Seconds for each of many tasks."""
    started = time.perf_counter()
    get([submit(i) for i in range(TASKS)])
    return (time.perf_counter() - started) / TASKS


def one_by_one(submit: Callable[[int], Any], get: Callable[[Any], Any]) -> float:
    """Seconds for a call and its answer."""
    started = time.perf_counter()
    for i in range(CALLS):
        get(submit(i))
    return (time.perf_counter() - started) / CALLS


def main() -> None:
    actorlib.init(engine="ray", num_cpus=2, include_dashboard=False, log_to_driver=False)
    theirs, ours = ray.remote(add_one), actorlib.remote(add_one)
    their_actor = ray.remote(num_cpus=0)(Adder).remote()
    our_actor = actorlib.remote(num_cpus=0)(Adder).remote()
    measured: dict[str, list[float]] = {}
    for round_ in range(ROUNDS + 1):
        times = {
            "tasks, plain Ray": in_bulk(theirs.remote, ray.get),
            "tasks, actorlib on Ray": in_bulk(ours.remote, actorlib.get),
            "calls, plain Ray": one_by_one(their_actor.add_one.remote, ray.get),
            "calls, actorlib on Ray": one_by_one(our_actor.add_one.remote, actorlib.get),
        }
        if round_:  # the first warms up
            for name, seconds in times.items():
                measured.setdefault(name, []).append(seconds)
    actorlib.shutdown()
    medians = {name: statistics.median(values) for name, values in measured.items()}
    for name, seconds in medians.items():
        print(f"{name:24} {seconds * 1e6:8.1f} us each, {1 / seconds:8,.0f}/s")
    lost = 1 - medians["tasks, plain Ray"] / medians["tasks, actorlib on Ray"]
    more_us = (medians["calls, actorlib on Ray"] - medians["calls, plain Ray"]) * 1e6
    print(f"task throughput lost: {lost:.1%} (at most 5%); a call costs {more_us:.1f} us more (at most 50)")


if __name__ == "__main__":
    main()
