"""How long a durable actor with much state is away when its node drains.

Two nodes on loopback TCP, as ``actorlib start`` makes them, and a third that holds the driver and the tables. The actor
keeps numpy arrays of 100 MB in all and each call changes a part of one of them. A caller sends a call as soon as the
one before is answered; the longest time without an answer around the drain is the time out of service, beside the
longest one before. At the end the count, the order and the state must be those of an actor that was never moved.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS

import actorlib
from actorlib.runtime.drivers.node_process import NodeConfig, NodeHandle, launch_node
from actorlib.transport.drivers.keys import KeyStore
from actorlib.util import drain_node
from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ARRAYS = 10
SETTLES_S = 1.0  # of calls before the drain, and after it


@actorlib.remote(num_cpus=0.5)
class Model:
    def __init__(self, megabytes: float) -> None:
        size = int(megabytes * 1e6 / 8 / ARRAYS)
        self.arrays = [np.arange(size, dtype=np.float64) + number for number in range(ARRAYS)]
        self.calls = 0

    def step(self, number: int) -> int:
        array = self.arrays[number % ARRAYS]
        array[number % array.size] += 1.0
        self.calls += 1
        return self.calls

    def looks(self) -> tuple[float, str]:
        return float(sum(array.sum() for array in self.arrays)), actorlib.get_runtime_context().get_node_id()


class Nodes:
    """The head, and two nodes that take turns."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.head = self._launch(directory=directory, num_cpus=0)
        self.keys = KeyStore(Path(directory, "keys"))
        self.others = [self.add(), self.add()]

    def _launch(self, **given: Any) -> NodeHandle:
        paths = list(dict.fromkeys(path or os.getcwd() for path in sys.path))
        return launch_node(NodeConfig(ip="127.0.0.1", durable=True, sys_path=paths, cwd=os.getcwd(), **given))

    def add(self) -> NodeHandle:
        key = self.keys.new(f"node-{len(self.keys.list())}", "node").path
        return self._launch(join=self.head.head, key_file=str(key), num_cpus=1)

    def close(self) -> None:
        for node in (*self.others, self.head):
            node.stop()


class Caller(threading.Thread):
    """One call after the other, with the time of each answer."""

    def __init__(self, actor: Any) -> None:
        super().__init__()
        self.actor = actor
        self.answered: list[float] = []
        self.values: list[int] = []
        self.is_over = False

    def run(self) -> None:
        while not self.is_over:
            self.values.append(actorlib.get(self.actor.step.remote(len(self.values)), timeout=60))
            self.answered.append(time.monotonic())

    def longest_s(self, after: float, until: float) -> float:
        times = [after, *(at for at in self.answered if after < at < until), until]
        return max(later - earlier for earlier, later in itertools.pairwise(times))


def once(nodes: Nodes, megabytes: float) -> dict[str, float]:
    leaving = nodes.others[0].address.node_id.hex()
    strategy = NodeAffinitySchedulingStrategy(leaving, soft=True)
    actor = Model.options(checkpoint=1_000_000, scheduling_strategy=strategy).remote(megabytes)
    before, where = actorlib.get(actor.looks.remote(), timeout=60)
    assert where == leaving, "it is not where it is to be moved from"
    caller = Caller(actor)
    caller.start()
    began = time.monotonic()
    time.sleep(SETTLES_S)
    drained = time.monotonic()
    drain_node(leaving, deadline_s=60, reason="bench")
    assert nodes.others[0].process.wait(60) == 0
    gone = time.monotonic()
    time.sleep(SETTLES_S)
    caller.is_over = True
    caller.join()
    after, where = actorlib.get(actor.looks.remote(), timeout=60)
    assert where == nodes.others[1].address.node_id.hex(), "it did not go to the other node"
    assert caller.values == list(range(1, len(caller.values) + 1)), "a call was lost, or ran twice, or out of order"
    assert after == before + len(caller.values), "its state is not what it was"
    actorlib.kill(actor)
    return {
        "away_s": caller.longest_s(drained, gone + SETTLES_S),
        "longest_before_s": caller.longest_s(began + SETTLES_S / 2, drained),
        "node_gone_after_s": gone - drained,
        "calls": len(caller.values),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.megabytes, arguments.rounds = 20.0, 1
    rounds = []
    with tempfile.TemporaryDirectory() as directory:
        nodes = Nodes(directory)
        try:
            actorlib.init(address=nodes.head.head)
            for _ in range(arguments.rounds):
                while sum(row["Alive"] for row in actorlib.nodes()) < 3:
                    time.sleep(0.05)
                time.sleep(0.5)  # until the nodes know of each other
                rounds.append(once(nodes, arguments.megabytes))
                print({name: round(value, 3) for name, value in rounds[-1].items()}, flush=True)
                nodes.others = [nodes.others[1], nodes.add()]
        finally:
            actorlib.shutdown()
            nodes.close()
    away = [one["away_s"] for one in rounds]
    print(
        f"{arguments.megabytes:.0f} MB: away for {statistics.median(away):.2f} s (median), {max(away):.2f} s (longest)"
    )
    result = {"megabytes": arguments.megabytes, "rounds": rounds}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "migration.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
