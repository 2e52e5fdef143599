"""Durable actors on hosts that share nothing: they move when a node drains, and outlive the loss of a host."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import hosts as made

WHY_NOT = made.can_make_hosts()

PROGRAM = """
from actorlib import Checkpoint
from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy

@actorlib.remote(num_cpus=0)
class Counter:
    def __init__(self, size):
        self.total = 0
        self.payload = np.zeros(size, dtype=np.uint8)

    def add(self, amount):
        self.total += amount
        self.payload[self.total] += 1
        return self.total, int(self.payload.sum()), place()

def place():
    node_id = actorlib.get_runtime_context().get_node_id()
    (row,) = [row for row in actorlib.nodes() if row["NodeID"] == node_id]
    return next(name for name in NAMES if name in row["Resources"])

@actorlib.remote(num_cpus=0, max_retries=-1)
def nothing():
    return None

NAMES = ("one", "two", "three", "four")
wait_until(lambda: alive() == 4)
actorlib.get([on(name, nothing).remote() for name in NAMES], timeout=60)  # until each knows of the others
there = {name: row["NodeID"] for row in actorlib.nodes() for name in NAMES if name in row["Resources"]}

def counter_at(name, size):
    strategy = NodeAffinitySchedulingStrategy(there[name], soft=True)
    options = Checkpoint(every_calls=40, durability="replicated")
    return Counter.options(checkpoint=options, scheduling_strategy=strategy).remote(size)

large, small = counter_at("three", 24 << 20), counter_at("four", 1000)
say(*(row[2] for row in actorlib.get([large.add.remote(1), small.add.remote(1)], timeout=60)))

refs = [large.add.remote(1) for _ in range(20)]
say(there["three"])
hear()  # it drains
refs += [large.add.remote(1) for _ in range(19)]
wait_until(lambda: alive() == 3)
rows = actorlib.get(refs + [large.add.remote(1)], timeout=120)
say([row[:2] for row in rows] == [(i, i) for i in range(2, 42)], rows[-1][2] != "three")

refs = [small.add.remote(1) for _ in range(100)]
seen = actorlib.get(refs[30], timeout=60)
say(seen[0])
hear()  # the host of it loses power
rows = actorlib.get(refs + [small.add.remote(1)], timeout=120)
say([row[:2] for row in rows] == [(i, i) for i in range(2, 103)], rows[-1][2] != "four")
"""


@pytest.fixture
def cluster(tmp_path):
    if WHY_NOT:
        print(f"{WHY_NOT}; the nodes run on loopback instead", file=sys.__stderr__)
    cluster = (made.LoopbackHosts if WHY_NOT else made.Hosts)(tmp_path / "head")
    try:
        for name in ("one", "two", "three", "four"):
            cluster.start(name)
        yield cluster
    finally:
        cluster.close()


def test_state_that_lies_on_one_host_moves_and_a_log_that_lies_on_two_outlives_one(cluster):
    driver = cluster.driver(PROGRAM)
    try:
        assert driver.hear() == "three four"
        three = driver.hear()
        head = cluster.address
        command = [*made.CLI, "drain", three, "--deadline", "90", "--address", head]
        driver.say()
        done = made.checked(cluster.hosts[1].inside(*command))  # neither the head nor the one that goes
        assert "drained: it was drained (asked for on the command line)" in done
        assert driver.hear() == "True True"
        shown = made.checked(cluster.hosts[1].inside(*made.CLI, "status", "--address", head))
        assert shown.count("alive") == 3, shown
        assert driver.hear() == "32"
        cluster.power_off(cluster.hosts[3])
        driver.say()
        assert driver.hear() == "True True"
        assert driver.hear() == "done"
    finally:
        driver.close()
