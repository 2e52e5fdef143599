"""The GCS's tables on a fake host: what is sent, and when, is seen exactly."""

from __future__ import annotations

import heapq
import itertools

import pytest

from actorlib.gcs.drivers.service import GcsService
from actorlib.scheduler.placement import place_bundles
from actorlib.scheduler.resources import UNIT
from actorlib.transport import messages
from actorlib.transport.link import Address


class DiskFull(Exception):
    pass


class MemoryJournal:
    def __init__(self):
        self.tables = {}
        self.commits = 0
        self.full = False

    def commit(self, writes):
        if self.full:
            raise DiskFull("no room")
        self.commits += 1
        for table, key, value in writes:
            rows = self.tables.setdefault(table, {})
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value

    def read(self, table, key):
        return self.tables.get(table, {}).get(key)

    def rows(self, table):
        return list(self.tables.get(table, {}).items())


class FakeLink:
    def __init__(self, name):
        process_id = name.encode().ljust(8, b".")
        self.peer = Address(process_id, process_id, f"ipc:///{name}")
        self.is_down = False
        self.sent = []

    def send(self, message):
        self.sent.append(message)

    def take(self, kind=None):
        """What was sent since the last time, of one kind or all."""
        taken = [message for message in self.sent if kind is None or type(message) is kind]
        self.sent = [message for message in self.sent if message not in taken]
        return taken


class FakeHost:
    def __init__(self):
        self.soon = []
        self.timers = []
        self.count = itertools.count()
        self.time = 0.0

    def now(self):
        return self.time

    def call_soon(self, callback):
        self.soon.append(callback)

    def call_later(self, delay_s, callback):
        heapq.heappush(self.timers, (self.time + delay_s, next(self.count), callback))


class House:
    """A GCS, its journal, and whoever talks to it."""

    def __init__(self, journal=None):
        self.journal = journal or MemoryJournal()
        self.host = FakeHost()
        self.gcs = GcsService(self.host, self.journal, place_bundles, DiskFull)
        self.links = {}

    def link(self, name):
        if name not in self.links:
            self.links[name] = FakeLink(name)
        return self.links[name]

    def tell(self, name, message, turn=True):
        """One message from somebody; with ``turn``, up to the commit and what goes out after it."""
        self.gcs.handlers[type(message)](self.link(name), message)
        if turn:
            self.turn()

    def turn(self):
        while self.host.soon:
            callbacks, self.host.soon = self.host.soon, []
            for callback in callbacks:
                callback()
        self.gcs.check()

    def pass_time(self, seconds):
        self.host.time += seconds
        while self.host.timers and self.host.timers[0][0] <= self.host.time:
            heapq.heappop(self.host.timers)[2]()
        self.turn()

    def add_node(self, name, cpus=4, **other):
        total = {"CPU": cpus * UNIT, **other}
        self.tell(name, messages.NodeRegister(1, self.link(name).peer, 1, total, {}, name, 1))
        self.link(name).take()
        return self.link(name)

    def node_lost(self, name):
        self.gcs.nodes.lost(self.link(name).peer.node_id, "it was pulled out")
        self.turn()

    def restarted(self):
        """The same journal under a new GCS, as after a crash."""
        return House(self.journal)

    def spec(self, number=1, owner="driver", **changes):
        spec = messages.ActorSpec(
            actor_id=number.to_bytes(16, "big"),
            job_id=b"job.....",
            owner=self.link(owner).peer._replace(node_id=b"node1..."),
            class_id=b"class",
            class_name="Thing",
            name="",
            namespace="space",
            detached=False,
            args=b"",
            dependencies=(),
            methods=(),
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=1,
            concurrency_groups={},
            resources_to_place={"CPU": UNIT},
            resources_to_run={},
            strategy=("default",),
            runtime_env="",
            checkpoint=None,
            extra=None,
        )
        return spec._replace(**changes)


@pytest.fixture
def house():
    return House()


@pytest.fixture
def make_house():
    return House
