"""Tasks that go where their arguments lie, against tasks that don't care: Fig. 8a of the OSDI 2018 paper of Ray.

Many tasks on two hosts, each with one large argument that lies on one of them, chosen at random. Unaware, half of the
arguments have to travel first. The mean time per task is plotted over the size of the argument.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from figure import plot
from harness import RESULTS

import actorlib
from actorlib.cluster_utils import Cluster
from actorlib.transport import limits

MIB = 1 << 20
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "locality.svg"
OBJECTS = 4  # on each host


@actorlib.remote(num_cpus=0)
def make(size: int) -> Any:
    return np.ones(size, np.uint8)


@actorlib.remote(num_cpus=1)
def first(array: Any) -> int:
    return int(array[0])


def forget_copies(engine: Any, refs: list[Any]) -> None:
    """Drop what was copied, so that each task pays for its own argument, as where each has another one."""
    for ref in refs:
        entry = engine.table.entries[ref._id]
        engine.loop.run(lambda entry=entry, oid=ref._id: engine.table._forget_copies(oid, entry))


def seconds_per_task(size: int, tasks: int, aware: bool, seed: int) -> float:
    rng = random.Random(seed)
    limits.locality_bytes_min = MIB if aware else 1 << 60
    refs: list[Any] = [make.options(resources={side: 1}).remote(size) for side in "ab" for _ in range(OBJECTS)]
    actorlib.wait(refs, num_returns=len(refs), fetch_local=False)
    engine: Any = actorlib.engine.Slot.engine
    took = 0.0
    for _ in range(tasks // (2 * OBJECTS)):  # each object once: no task finds another one's copy
        rng.shuffle(refs)
        began = time.perf_counter()
        actorlib.get([first.remote(ref) for ref in refs])
        took += time.perf_counter() - began
        forget_copies(engine, refs)
    return took / (tasks // (2 * OBJECTS) * 2 * OBJECTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=48, help="for each size (1000 takes some minutes)")
    parser.add_argument("--mib", type=int, nargs="+", default=[1, 4, 10, 32, 64])
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.tasks, arguments.mib = 16, [1, 16]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    lines: dict[str, list[tuple[float, float]]] = {"aware": [], "unaware": []}
    try:
        for side in "ab":
            cluster.add_node(num_cpus=1, resources={side: 100}, separate_host=True, object_store_memory=2 << 30)
        cluster.connect()
        cluster.wait_for_nodes()
        actorlib.get([first.remote(np.ones(1)) for _ in range(20)])
        for mib in arguments.mib:
            for name in lines:
                spent = seconds_per_task(mib * MIB, arguments.tasks, name == "aware", mib)
                lines[name].append((mib, spent * 1e3))
                print(f"{name:8} {mib:4} MiB: {spent * 1e3:8.2f} ms a task", flush=True)
    finally:
        cluster.shutdown()
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "locality.json").write_text(
        json.dumps({"tasks": arguments.tasks, "ms_per_task": lines}, indent=1) + "\n"
    )
    if not arguments.quick:  # the picture is of a whole run
        plot(FIGURE, "Tasks and where their arguments lie", "argument, MiB", "ms per task", lines)


if __name__ == "__main__":
    main()
