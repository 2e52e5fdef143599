"""The simulator: events a second of a busy cluster of five nodes with all oracles on, and how soon a world is there.

Seconds here are those of the processor, since a simulated cluster is one thread that never waits.
"""

from __future__ import annotations

import time
from typing import Any

from harness import QUICK, Figure, main, row

import actorlib
from actorlib.testing import simulate

ROUNDS = 3 if QUICK else 12
WORLDS = 20


def _busy() -> None:
    @actorlib.remote
    def add(left: int, right: int) -> int:
        return left + right

    @actorlib.remote
    def tree(depth: int) -> int:
        return 1 if depth == 0 else 1 + sum(actorlib.get([tree.remote(depth - 1), tree.remote(depth - 1)]))

    @actorlib.remote
    class Counter:
        def __init__(self) -> None:
            self.value = 0

        def add(self, amount: int) -> int:
            self.value += amount
            return self.value

    counters = [Counter.remote() for _ in range(4)]
    for i in range(ROUNDS):
        refs = [add.remote(i, j) for j in range(30)] + [one.add.remote(1) for one in counters for _ in range(5)]
        actorlib.get(refs)
        assert actorlib.get(tree.remote(4)) == 31


@row("simulated events, 5 nodes", "events/s", target=20_000.0, on_ray=False)
def events(_: Any) -> Figure:
    began = time.process_time()
    with simulate(seed=3, nodes=5, num_cpus=2) as world:
        _busy()
    return {"value": world.world.events / (time.process_time() - began), "events": float(world.world.events)}


@row("a simulated world starts", "s", target=0.010, more_is_better=False, on_ray=False)
def world_start(_: Any) -> Figure:
    began = time.process_time()
    for seed in range(WORLDS):
        with simulate(seed=seed, nodes=5, check=False):
            pass
    return (time.process_time() - began) / WORLDS


if __name__ == "__main__":
    main(__file__, needs_session=False)
