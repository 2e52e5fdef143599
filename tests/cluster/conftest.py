"""Clusters of machines on one machine: each node on TCP at loopback, with a key of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorlib
from actorlib.runtime.drivers.node_process import NodeConfig, NodeHandle, launch_node
from actorlib.transport.drivers.keys import KeyStore
from tests.conftest import eventually


class Machines:
    """A head and others, as ``actorlib start`` makes them; they end with the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keys = KeyStore(directory / "keys")
        self.head: NodeHandle | None = None
        self.others: list[NodeHandle] = []

    def launch(self, **given: Any) -> NodeHandle:
        paths = list(dict.fromkeys(path or os.getcwd() for path in sys.path))
        config = NodeConfig(ip="127.0.0.1", durable=True, sys_path=paths, cwd=os.getcwd(), **given)
        return launch_node(config)

    def start_head(self, **given: Any) -> NodeHandle:
        self.head = self.launch(directory=str(self.directory), **{"num_cpus": 1, **given})
        return self.head

    def add(self, name: str | None = None, **given: Any) -> NodeHandle:
        assert self.head is not None
        name = name or f"machine-{len(self.keys.list())}"
        key = self.keys.new(name, "node").path
        node = self.launch(join=self.head.head, key_file=str(key), **{"num_cpus": 1, **given})
        self.others.append(node)
        return node

    def join(self, **given: Any) -> None:
        """Make this process a driver, and wait until it sees all nodes."""
        assert self.head is not None
        actorlib.init(address=self.head.head, **given)
        self.wait_for(1 + len(self.others))

    def wait_for(self, alive: int) -> None:
        assert eventually(lambda: sum(row["Alive"] for row in actorlib.nodes()) == alive), actorlib.nodes()

    def gcs_pid(self) -> int:
        assert self.head is not None
        return next(pid for pid in family(self.head.pid) if Path(f"/proc/{pid}/comm").exists() and is_gcs(pid))

    def close(self) -> None:
        actorlib.shutdown()
        for node in (*self.others, self.head):
            if node is not None:
                node.stop()


def family(pid: int) -> list[int]:
    """Everything below a process."""
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def is_gcs(pid: int) -> bool:
    """The one that has LMDB's lock open."""
    try:
        return any("/gcs/lock.mdb" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path / "head")
    try:
        yield made
    finally:
        made.close()
