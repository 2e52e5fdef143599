"""What the seam costs: the engine on Ray over plain Ray, and our own engine through the API over the engine alone.

``python bench/engines.py`` measures our own engine: a task and a call through ``.remote()`` and ``get``, and the same
by the engine's methods, as the API layer calls them. Where Ray is installed, ``.venv-ray/bin/python bench/engines.py``
(``make test-ray`` makes that environment) measures the other one as well: tasks in bulk, and calls of an actor one by
one, in plain Ray and through actorlib. The two sides alternate, and take turns in being first, so that what else the
machine does falls on both; medians of the rounds are compared.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import actorlib
from actorlib.engine import MethodOptions, current

ROUNDS = 15
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


def in_turns(pairs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Medians of each, in rounds whose order alternates; the first warms up."""
    measured: dict[str, list[float]] = {name: [] for name in pairs}
    for round_ in range(rounds + 1):
        for name in pairs if round_ % 2 else reversed(pairs):
            seconds = pairs[name]()
            if round_:
                measured[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in measured.items()}
    for name, seconds in medians.items():
        print(f"{name:28} {seconds * 1e6:8.1f} us each, {1 / seconds:8,.0f}/s")
    return medians


def seam() -> None:
    """Our own engine, through the API and directly."""
    with actorlib.init(num_cpus=2):
        task, actor = actorlib.remote(add_one), actorlib.remote(num_cpus=0)(Adder).remote()
        engine, options = current(), MethodOptions()
        bare: Any = task
        medians = in_turns(
            {
                "tasks, by the engine": lambda: in_bulk(
                    lambda x: engine.submit(bare._record, (x,), {}, bare._options), lambda refs: engine.get(refs, None)
                ),
                "tasks, by the API": lambda: in_bulk(task.remote, actorlib.get),
                "calls, by the engine": lambda: one_by_one(
                    lambda x: engine.call(actor, "add_one", (x,), {}, options), lambda ref: engine.get([ref], None)
                ),
                "calls, by the API": lambda: one_by_one(actor.add_one.remote, actorlib.get),
            },
            ROUNDS,
        )
    for what in ("tasks", "calls"):
        more = medians[f"{what}, by the API"] / medians[f"{what}, by the engine"] - 1
        print(f"{what}: the API takes {more:.1%} more than the engine alone")


def on_ray() -> None:
    """The engine on Ray and plain Ray."""
    import ray

    actorlib.init(engine="ray", num_cpus=2, include_dashboard=False, log_to_driver=False)
    theirs, ours = ray.remote(add_one), actorlib.remote(add_one)
    their_actor = ray.remote(num_cpus=0)(Adder).remote()
    our_actor = actorlib.remote(num_cpus=0)(Adder).remote()
    medians = in_turns(
        {
            "tasks, plain Ray": lambda: in_bulk(theirs.remote, ray.get),
            "tasks, actorlib on Ray": lambda: in_bulk(ours.remote, actorlib.get),
            "calls, plain Ray": lambda: one_by_one(their_actor.add_one.remote, ray.get),
            "calls, actorlib on Ray": lambda: one_by_one(our_actor.add_one.remote, actorlib.get),
        },
        ROUNDS,
    )
    actorlib.shutdown()
    lost = 1 - medians["tasks, plain Ray"] / medians["tasks, actorlib on Ray"]
    more_us = (medians["calls, actorlib on Ray"] - medians["calls, plain Ray"]) * 1e6
    print(f"task throughput lost: {lost:.1%} (at most 5%); a call costs {more_us:.1f} us more (at most 50)")


def main() -> None:
    seam()
    if importlib.util.find_spec("ray"):
        on_ray()


if __name__ == "__main__":
    main()
