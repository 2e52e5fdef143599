"""A node that leaves in good order, on real processes: by SIGTERM, by a program, and by the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import actorlib
from actorlib.util import drain_node
from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tests.conftest import eventually

WHY = "the spot machine goes"


@actorlib.remote(num_cpus=0)
class Counter:
    def __init__(self, size=0) -> None:
        self.total = 0
        self.payload = np.zeros(size, dtype=np.uint8)

    def add(self, amount, seconds=0.0):
        time.sleep(seconds)
        self.total += amount
        if self.payload.size:
            self.payload[self.total % self.payload.size] = self.total % 251
        return self.total

    def checksum(self):
        return int(self.payload.sum())

    def where(self):
        return actorlib.get_runtime_context().get_node_id()


@actorlib.remote(num_cpus=1, max_retries=0)
def work(seconds, size=0, started=""):
    if started:
        Path(started).touch()
    time.sleep(seconds)
    return np.full(size, 7.0) if size else actorlib.get_runtime_context().get_node_id()


def on(node):
    return NodeAffinitySchedulingStrategy(node.address.node_id.hex(), soft=True)


def second_node(machines):
    """A cluster of two, and the one that is to leave, known to the other."""
    machines.start_head()
    leaving = machines.add(num_cpus=1, resources={"there": 1})
    machines.join()
    actorlib.get(work.options(resources={"there": 0.1}).remote(0), timeout=60)
    return leaving


def row(node):
    node_id = node.address.node_id.hex()
    return next(row for row in actorlib.nodes() if row["NodeID"] == node_id)


def test_a_node_that_gets_sigterm_leaves_and_nothing_is_lost(machines, tmp_path):
    leaving = second_node(machines)
    durable = Counter.options(checkpoint=100, scheduling_strategy=on(leaving)).remote()
    large = Counter.options(checkpoint=100, scheduling_strategy=on(leaving)).remote(24 << 20)  # kept apart from the GCS
    plain = Counter.options(max_restarts=1, scheduling_strategy=on(leaving)).remote()
    here = leaving.address.node_id.hex()
    assert actorlib.get([a.where.remote() for a in (durable, large, plain)], timeout=60) == [here] * 3
    kept = work.options(scheduling_strategy=on(leaving)).remote(0, 300_000)
    actorlib.wait([kept], fetch_local=False, timeout=60)
    running = work.options(resources={"there": 0.5}).remote(3.0, started=str(tmp_path / "started"))
    assert eventually((tmp_path / "started").exists)
    actorlib.get([a.add.remote(0) for a in (durable, large, plain)], timeout=60)
    refs = [durable.add.remote(1, 0.005) for _ in range(40)]
    of_large = [large.add.remote(1) for _ in range(5)]
    of_plain = [plain.add.remote(1) for _ in range(5)]
    os.kill(leaving.pid, signal.SIGTERM)
    refs += [durable.add.remote(1) for _ in range(20)]
    assert actorlib.get(refs, timeout=60) == list(range(1, 61))
    assert actorlib.get(of_large, timeout=60) == [1, 2, 3, 4, 5]
    assert actorlib.get(large.checksum.remote(), timeout=60) == 15
    actorlib.get(of_plain, timeout=60)  # without max_task_retries
    assert actorlib.get(running, timeout=60) == here
    assert here not in actorlib.get([a.where.remote() for a in (durable, large, plain)], timeout=60)
    assert leaving.process.wait(60) == 0
    assert eventually(lambda: row(leaving)["State"] == "DRAINED"), row(leaving)
    assert row(leaving)["DeathReason"] == "it was drained (it was asked to end by SIGTERM)"
    assert actorlib.get(kept, timeout=60).sum() == 7.0 * 300_000  # max_retries=0: it was not made again


def test_two_nodes_that_get_sigterm_at_once_take_nothing_with_them(machines):
    machines.start_head(num_cpus=2)
    leaving = {name: machines.add(resources={name: 1}) for name in ("one", "two")}
    machines.join()
    actorlib.get([work.options(resources={name: 0.1}).remote(0) for name in leaving], timeout=60)
    here = machines.head.address.node_id.hex()
    there = [node.address.node_id.hex() for node in leaving.values()]
    actors = [Counter.options(checkpoint=100, scheduling_strategy=on(node)).remote() for node in leaving.values()]
    assert actorlib.get([actor.where.remote() for actor in actors], timeout=60) == there
    kept = [work.options(resources={name: 0.1}).remote(0, 300_000) for name in leaving]
    actorlib.wait(kept, num_returns=2, fetch_local=False, timeout=60)
    refs = [[actor.add.remote(1, 0.005) for _ in range(40)] for actor in actors]
    for node in leaving.values():
        os.kill(node.pid, signal.SIGTERM)
    for more, actor in zip(refs, actors, strict=True):
        more += [actor.add.remote(1) for _ in range(20)]
        assert actorlib.get(more, timeout=60) == list(range(1, 61))
    assert actorlib.get([actor.where.remote() for actor in actors], timeout=60) == [here, here]
    assert [node.process.wait(60) for node in leaving.values()] == [0, 0]
    assert eventually(lambda: [row(node)["State"] for node in leaving.values()] == ["DRAINED"] * 2)
    assert [actorlib.get(ref, timeout=60).sum() for ref in kept] == [7.0 * 300_000] * 2  # max_retries=0: not made again


def test_what_can_not_leave_is_lost_at_the_deadline_and_the_errors_name_the_drain(machines, tmp_path):
    leaving = second_node(machines)
    plain = Counter.options(scheduling_strategy=on(leaving)).remote()
    endless = work.options(resources={"there": 0.5}).remote(600.0, started=str(tmp_path / "started"))
    assert eventually((tmp_path / "started").exists)
    assert actorlib.get(plain.add.remote(1), timeout=60) == 1
    drain_node(leaving.address.node_id.hex(), deadline_s=2.0, reason=WHY)
    assert eventually(lambda: row(leaving)["State"] == "DRAINING")
    assert actorlib.get(plain.add.remote(1), timeout=60) == 2
    with pytest.raises(
        actorlib.exceptions.ActorDiedError, match=f"{WHY}.*at the deadline it still had the actor Counter"
    ):
        actorlib.get(plain.add.remote(1, 30.0), timeout=60)
    with pytest.raises(actorlib.exceptions.WorkerCrashedError, match=WHY):
        actorlib.get(endless, timeout=60)
    assert row(leaving)["State"] == "DEAD"
    with pytest.raises(ValueError, match="is not alive"):
        drain_node(leaving.address.node_id.hex())


def test_the_command_line_drains_a_node_and_waits(machines):
    pytest.importorskip("click")
    leaving = second_node(machines)
    durable = Counter.options(checkpoint=100, scheduling_strategy=on(leaving)).remote()
    assert actorlib.get([durable.add.remote(1) for _ in range(3)], timeout=60) == [1, 2, 3]

    wide = {**os.environ, "COLUMNS": "250"}

    def command(*words):
        line = [sys.executable, "-m", "actorlib.cli", *words, "--address", machines.head.head]
        return subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, env=wide)

    unknown = command("drain", "ffffff")
    assert unknown.returncode == 1 and "is no living node" in unknown.stdout
    done = command("drain", leaving.address.node_id.hex(), "--deadline", "60", "--reason", WHY)
    assert done.returncode == 0 and f"drained: it was drained ({WHY})" in done.stdout, done.stdout
    assert f"drained: it was drained ({WHY})" in command("status").stdout
    assert actorlib.get(durable.add.remote(1), timeout=60) == 4


def test_the_only_node_saves_what_it_can_before_its_deadline_and_has_it_when_it_is_started_again(machines):
    head = machines.start_head(drain_deadline_s=3.0)
    actorlib.init(address=head.head, namespace="kept")
    options = {"lifetime": "detached", "checkpoint": 1000}
    durable = Counter.options(name="durable", **options).remote()
    assert actorlib.get([durable.add.remote(1) for _ in range(3)], timeout=60) == [1, 2, 3]
    os.kill(head.pid, signal.SIGTERM)
    assert eventually(lambda: row(head)["State"] == "DRAINING")
    assert actorlib.get(durable.add.remote(1), timeout=60) == 4  # nobody else can take it, so it serves on
    actorlib.shutdown()
    assert head.process.wait(60) == 0
    machines.start_head()
    actorlib.init(address=machines.head.head, namespace="kept")

    def found():
        try:
            return actorlib.get_actor("durable")
        except ValueError:
            return None

    assert eventually(lambda: found() is not None, 60)
    assert actorlib.get(found().add.remote(1), timeout=60) == 5
