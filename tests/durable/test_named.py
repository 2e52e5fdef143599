"""A durable actor with a name comes back after everything was stopped, or killed, and started on the same directory."""

from __future__ import annotations

import os
import sys

import pytest

import actorlib
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


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_named_actor_comes_back_after_all_was_ended(tmp_path, how):
    options = {"checkpoint": 5, "name": "counter", "lifetime": "detached", "num_cpus": 0, "get_if_exists": True}
    total = 0
    for _ in range(2):
        node = head(str(tmp_path))
        try:
            with actorlib.init(address=address_of(node), namespace="mine"):
                counter = actorlib.remote(**options)(Counter).remote()
                for _ in range(7):
                    total += 1
                    assert actorlib.get(counter.add.remote(), timeout=T) == total
                del counter
        finally:
            node.stop() if how == "stop" else node.kill()
