"""A durable actor with a name comes back after everything was stopped, or killed, and started on the same directory."""

from __future__ import annotations

import os
import shutil
import sys
import time

import pytest

import actorlib
from actorlib import Checkpoint
from actorlib.runtime.drivers.driver import address_of
from actorlib.runtime.drivers.node_process import NodeConfig, launch_node

T = 90


class Counter:
    def __init__(self):
        self.value = 0

    def add(self, amount=1):
        self.value += amount
        return self.value


def head(directory):
    path = [path or os.getcwd() for path in sys.path]
    return launch_node(NodeConfig(num_cpus=2, directory=directory, durable=True, sys_path=path, cwd=os.getcwd()))


class Changed(Counter):
    """What the program has made of it meanwhile."""

    def add(self, amount=1):
        self.value += 1000 * amount
        return self.value


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_named_actor_comes_back_after_all_was_ended_with_the_code_that_it_had(tmp_path, how):
    options = {"name": "counter", "lifetime": "detached", "num_cpus": 0, "get_if_exists": True}
    if how == "kill":  # the kernel has what was written, though nothing was synced
        options["checkpoint"] = Checkpoint(every_calls=5, durability="worker")
    else:
        options["checkpoint"] = 5
    total = 0
    for cls in (Counter, Changed):  # pickled by value: the cluster has kept the first, and runs its log again with it
        node = head(str(tmp_path))
        try:
            with actorlib.init(address=address_of(node), namespace="mine"):
                counter = actorlib.remote(**options)(cls).remote()
                for _ in range(7):
                    total += 1
                    assert actorlib.get(counter.add.remote(), timeout=T) == total
                if cls is Changed:
                    counter.upgrade(actorlib.remote(checkpoint=5)(Changed))
                    assert actorlib.get(counter.add.remote(), timeout=T) == total + 1000
                del counter
        finally:
            node.stop() if how == "stop" else node.kill()


def wait_until(condition):
    deadline = time.monotonic() + T
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_left_of_an_actor_that_ended_while_its_node_was_away_goes_when_the_node_is_back(tmp_path):
    directory, aside = tmp_path / "cluster", tmp_path / "aside"
    counter = actorlib.remote(checkpoint=1000, lifetime="detached", num_cpus=0)(Counter)
    node = head(str(directory))
    try:
        with actorlib.init(address=address_of(node), namespace="mine"):
            kept, ended = (counter.options(name=name).remote() for name in ("kept", "ended"))
            assert actorlib.get([kept.add.remote(3), ended.add.remote()], timeout=T) == [3, 1]
            left = directory / "calls" / ended._actor_id.hex()
            shutil.copytree(left, aside)
            actorlib.kill(ended)
            wait_until(lambda: not left.exists())
    finally:
        node.kill()
    shutil.copytree(aside, left)  # as if it had not been told
    node = head(str(directory))
    try:
        wait_until(lambda: not left.exists())
        with actorlib.init(address=address_of(node), namespace="mine"):
            assert actorlib.get(actorlib.get_actor("kept").add.remote(), timeout=T) == 4
    finally:
        node.stop()
