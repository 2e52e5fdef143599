"""What a run is made of: machines, workloads, and the faults that come with it."""

from __future__ import annotations

import collections
import random
from dataclasses import dataclass, field
from typing import Any

WORKLOADS = (
    "trees",
    "chains",
    "counters",
    "checkpointed",
    "objects",
    "generators",
    "cancels",
    "named",
    "groups",
    "async_actors",
    "borrowers",
)
FAULTS = ("worker_crash", "node_crash", "loss", "jitter", "partition", "slow_link", "pause")
FAULTY_FOR_S = 20.0


@dataclass
class Plan:
    """Drawn from a seed; ``begin`` schedules the faults, ``end`` stops them."""

    seed: int
    rng: random.Random
    nodes: int
    cpus: int
    workloads: list[str]
    faults: list[str]
    over: bool = False
    crashed: list[Any] = field(default_factory=list)

    def begin(self, world: Any, counts: collections.Counter[str]) -> None:
        for name in self.workloads:
            counts[f"workload {name}"] += 1
        for name in self.faults:
            self._again(world, name, counts)
        world.after(FAULTY_FOR_S, lambda: self.end(world))

    def _again(self, world: Any, name: str, counts: collections.Counter[str]) -> None:
        def fire() -> None:
            if not self.over:
                if getattr(self, f"_{name}")(world):
                    counts[f"fault {name}"] += 1
                self._again(world, name, counts)

        world.after(self.rng.expovariate(1.0) * 2.0, fire)

    def end(self, world: Any) -> None:
        if not self.over:
            self.over = True
            weather = world.network.weather
            weather.loss = weather.duplication = 0.0
            weather.jitter_s = 0.0002
            world.network.heal()

    # -- faults --------------------------------------------------------------------------------------------------------
    def _worker_crash(self, world: Any) -> bool:
        return bool(world.crash_worker())

    def _node_crash(self, world: Any) -> bool:
        alive = [node for node in world.nodes[1:] if node.is_alive]
        if not alive or len(self.crashed) >= 3:
            return False
        node = self.rng.choice(alive)
        self.crashed.append(node)
        world.crash_node(node)
        world.after(self.rng.uniform(0.1, 3.0), lambda: world.add_node())
        return True

    def _loss(self, world: Any) -> bool:
        world.network.weather.loss = self.rng.choice([0.0, 0.01, 0.1, 0.3])
        world.network.weather.duplication = self.rng.choice([0.0, 0.1])
        return True

    def _jitter(self, world: Any) -> bool:
        world.network.weather.jitter_s = self.rng.choice([0.0, 0.0002, 0.01, 0.2])
        return True

    def _partition(self, world: Any) -> bool:
        if len(world.nodes) < 2:
            return False
        one, other = self.rng.sample(world.nodes, 2)
        world.network.partition(one.node_id, other.node_id, self.rng.random() < 0.7)
        world.after(self.rng.uniform(0.1, 4.0), world.network.heal)
        return True

    def _slow_link(self, world: Any) -> bool:
        one, other = self.rng.choice(world.nodes), self.rng.choice(world.nodes)
        world.network.slow[one.node_id, other.node_id] = self.rng.uniform(0.0, 1.0)
        return True

    def _pause(self, world: Any) -> bool:
        workers = sorted(world.workers)
        if not workers:
            return False
        _, worker = world.workers[self.rng.choice(workers)]
        worker.loop.pause()
        world.after(self.rng.uniform(0.0, 3.0), worker.loop.go_on)
        return True


def draw(seed: int) -> Plan:
    rng = random.Random(f"plan {seed}")
    workloads = rng.sample(WORKLOADS, rng.randint(1, 4))
    faults = rng.sample(FAULTS, rng.choice([0, 1, 1, 2, 3, 4]))
    return Plan(seed, rng, rng.choice([1, 1, 2, 3, 4]), rng.choice([1, 2, 4]), workloads, faults)
