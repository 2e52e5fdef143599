"""What one run of the swarm is made of, all drawn from its seed: a cluster, workloads, and a list of faults."""

from __future__ import annotations

import collections
import random
from dataclasses import dataclass
from typing import Any

from actorlib.testing.fault_kinds import KINDS
from actorlib.testing.fault_plans import Fault, schedule

WORKLOADS = (
    "trees",
    "chains",
    "counters",
    "checkpointed",
    "objects",
    "hoard",
    "fairness",
    "generators",
    "cancels",
    "second_thoughts",
    "named",
    "groups",
    "async_actors",
    "borrowers",
    "lodgers",
)
FAULTY_FOR_S = 20.0
FAULT_EVERY_S = 1.0
NODE_CRASHES = ("crash_node", "reborn_host")
NODE_CRASHES_MAX = 3
SMALL_MEMORY_BYTES = 64 << 20
TINY_MEMORY_BYTES = 24 << 20
SPILL_FAULTS = ("spills_lost", "spills_torn")


@dataclass
class Plan:
    """``begin`` schedules the faults; after ``FAULTY_FOR_S``, or when the work is done, all is calm."""

    seed: int
    rng: random.Random
    nodes: int
    cpus: int
    memory_bytes: int
    own_gcs: bool
    workloads: list[str]
    faults: list[Fault]

    def begin(self, world: Any) -> None:
        schedule(world, self.faults)
        world.after(FAULTY_FOR_S, lambda: self.end(world))

    @staticmethod
    def end(world: Any) -> None:
        if not world.faults_are_over:
            world.calm()

    def count(self, world: Any, counts: collections.Counter[str]) -> None:
        for name in self.workloads:
            counts[f"workload {name}"] += 1
        for kind, times in world.fired.items():
            counts[f"fault {kind}"] += times


def draw_faults(rng: random.Random, kinds: list[str]) -> list[Fault]:
    drawn, crashes = [], 0
    for kind in kinds:
        at = rng.expovariate(1.0) * FAULT_EVERY_S
        while at < FAULTY_FOR_S:
            crashes += kind in NODE_CRASHES
            if kind not in NODE_CRASHES or crashes <= NODE_CRASHES_MAX:
                drawn.append(Fault(kind, at, rng.randrange(100), rng.uniform(0.1, 4.0), draw_amount(rng)))
            at += rng.expovariate(1.0) * FAULT_EVERY_S
    return sorted(drawn, key=lambda fault: fault.at_s)


def draw_amount(rng: random.Random) -> float:
    """Small amounts as often as large ones."""
    return float(rng.choice([0.001, 0.01, 0.1, 0.5]) * rng.random())


def draw(seed: int) -> Plan:
    rng = random.Random(f"plan {seed}")
    workloads = rng.sample(WORKLOADS, rng.randint(1, 4))
    kinds = rng.sample(list(KINDS), rng.choice([0, 1, 2, 3, 4, 6]))
    memory_bytes = rng.choice([256 << 20, 256 << 20, SMALL_MEMORY_BYTES])
    if any(kind in SPILL_FAULTS for kind in kinds):  # they hit where much is spilled, and nowhere else
        memory_bytes = TINY_MEMORY_BYTES
        workloads = list(dict.fromkeys([*workloads, "hoard"]))
    return Plan(
        seed,
        rng,
        rng.choice([1, 2, 3, 4, 5]),
        rng.choice([1, 2, 4]),
        memory_bytes,
        rng.random() < 0.5,
        workloads,
        draw_faults(rng, kinds),
    )
