"""Throughput while nodes are removed and added back: Fig. 11a of the OSDI 2018 paper of Ray, at this machine's size.

Chains of tasks that each take 0.1 s and give a large result, on a few hosts. Nodes are lost at three moments and added
back later; what was lost with them is made again from its lineage. At the end every chain must have its right value.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from figure import plot
from harness import RESULTS

import actorlib
from actorlib.cluster_utils import Cluster

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "reconstruction.svg"
BYTES = 200_000
TASK_S = 0.1


@actorlib.remote(num_cpus=1, max_retries=-1)
def step(array: Any) -> Any:
    time.sleep(TASK_S)
    return array + 1


@actorlib.remote(num_cpus=0, max_retries=-1)
def start() -> Any:
    return np.zeros(BYTES // 8)


class Nodes:
    """The hosts that work; the driver's own has no CPUs."""

    def __init__(self, count: int, cpus: int) -> None:
        self.cpus = cpus
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(count):
            self.add()
        self.cluster.connect()
        self.cluster.wait_for_nodes()

    def add(self) -> None:
        self.cluster.add_node(wait=False, num_cpus=self.cpus, separate_host=True, object_store_memory=1 << 30)

    def lose(self) -> None:
        self.cluster.remove_node(self.cluster.worker_nodes[0], allow_graceful=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=24.0)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.nodes, arguments.chains = 8.0, 2, 4
    nodes = Nodes(arguments.nodes, 2)
    total = arguments.seconds
    plan: list[tuple[float, str]] = [(total * part, "lost") for part in (0.2, 0.35, 0.5)]
    plan += [(total * part, "added") for part in (0.65, 0.75, 0.85)]
    if arguments.nodes < 4:
        plan = [(total * 0.3, "lost"), (total * 0.6, "added")]
    chains: list[Any] = [start.remote() for _ in range(arguments.chains)]
    lengths = [0] * arguments.chains
    done: list[float] = []
    marks: dict[str, float] = {}
    pending: dict[Any, int] = {}
    began = time.monotonic()

    def extend(chain: int) -> None:
        chains[chain] = step.remote(chains[chain])
        lengths[chain] += 1
        pending[chains[chain]] = chain

    try:
        for chain in range(arguments.chains):
            extend(chain)
        while (now := time.monotonic() - began) < total:
            if plan and now >= plan[0][0]:
                what = plan.pop(0)[1]
                (nodes.lose if what == "lost" else nodes.add)()
                marks[f"{what} {len(marks) + 1}"] = now
            ready, _ = actorlib.wait(list(pending), num_returns=1, timeout=0.1, fetch_local=False)
            for ref in ready:
                done.append(time.monotonic() - began)
                extend(pending.pop(ref))
        values = [float(array[0]) for array in actorlib.get(chains, timeout=120)]
        wrong = [chain for chain, value in enumerate(values) if value != lengths[chain]]
    finally:
        nodes.cluster.shutdown()
    per_second = [(second + 0.5, float(sum(second <= at < second + 1 for at in done))) for second in range(int(total))]
    print(f"{len(done)} tasks in {total:.0f} s, {len(marks)} changes of nodes, {len(wrong)} chains with a wrong value")
    print("tasks/s:", *(f"{rate:.0f}" for _, rate in per_second))
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = {"tasks_per_s": per_second, "marks": marks, "wrong": len(wrong), "tasks": len(done)}
    (RESULTS / "reconstruction.json").write_text(json.dumps(result, indent=1) + "\n")
    if not arguments.quick:  # the picture is of a whole run
        plot(FIGURE, "Chains of tasks while nodes come and go", "s", "tasks per s", {"tasks": per_second}, marks)
    if wrong:
        raise SystemExit(f"chains {wrong} have wrong values")


if __name__ == "__main__":
    main()
