"""Durable actors when whole processes of the machinery are killed."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import actorlib
from actorlib.cluster_utils import Cluster

T = 90
DRIVERS = f"/tmp/actorlib-{os.getuid()}/s-d*"
PROGRAM = """
import sys
import actorlib

actorlib.init(address=sys.argv[1], namespace="mine")
counter = actorlib.get_actor("counter")
for i in range(1_000_000):
    print(actorlib.get(counter.add.remote()), flush=True)
"""


class Counter:
    def __init__(self):
        self.value = 0

    def add(self, amount=1):
        self.value += amount
        return self.value

    @actorlib.method(readonly=True)
    def peek(self):
        return self.value

    @actorlib.method(readonly=True)
    def node(self):
        return actorlib.get_runtime_context().get_node_id()


@pytest.fixture
def cluster():
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.add_node(num_cpus=1)
    made.add_node(num_cpus=1)
    made.connect(namespace="mine")
    made.wait_for_nodes()
    yield made
    made.shutdown()


def test_the_kill_of_a_node_process_loses_nothing(cluster):
    counter = actorlib.remote(num_cpus=1, checkpoint=20)(Counter).remote()
    values = actorlib.get([counter.add.remote() for _ in range(50)], timeout=T)
    home = actorlib.get(counter.node.remote(), timeout=T)
    (host,) = [node for node in cluster.worker_nodes if node.address.node_id.hex() == home]
    refs = [counter.add.remote() for _ in range(50)]
    cluster.remove_node(host, allow_graceful=False)
    values += actorlib.get(refs, timeout=T)
    assert values == list(range(1, 101))
    assert actorlib.get(counter.node.remote(), timeout=T) != home


def test_the_kill_of_a_driver_leaves_what_it_was_told(cluster):
    options = {"name": "counter", "lifetime": "detached", "num_cpus": 1, "checkpoint": 20}
    counter = actorlib.remote(**options)(Counter).remote()
    command = [sys.executable, "-c", PROGRAM, cluster.address]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    mine = set(glob.glob(DRIVERS))
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        told = [int(driver.stdout.readline()) for _ in range(30)]
        driver.send_signal(signal.SIGKILL)
        told += [int(line) for line in driver.stdout if line.endswith("\n")]
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()
        for left in set(glob.glob(DRIVERS)) - mine:  # a driver that is killed can't clean up
            shutil.rmtree(left, ignore_errors=True)  # its node may be at it as well
    assert told == list(range(1, len(told) + 1))
    deadline = time.monotonic() + T
    before = -1
    while (now := actorlib.get(counter.peek.remote(), timeout=T)) != before:  # what was on its way arrives
        before = now
        time.sleep(0.1)
        assert time.monotonic() < deadline
    assert len(told) <= now <= len(told) + 1
    assert actorlib.get(counter.add.remote(), timeout=T) == now + 1
    actorlib.kill(counter)
