"""What the GCS's tables talk to, as fakes that record."""

from __future__ import annotations

import pytest

from actorlib.gcs.drivers.service import GcsService
from actorlib.scheduler.placement import place_bundles
from actorlib.transport.link import Address
from actorlib.transport.messages import ActorSpec, GroupCreate, JobStarted, NodeRegister

CPU = 10_000


class Link:
    """One end of a session; ``got`` is what was sent to the peer."""

    is_down = False
    hello = None

    def __init__(self, peer):
        self.peer = peer
        self.got = []

    def send(self, message):
        self.got.append(message)

    def take(self):
        got, self.got = self.got, []
        return got


class Port:
    """A table's way out: ``effects`` in order, ``rows`` as the disk would hold them, ``nodes`` that are alive."""

    def __init__(self):
        self.effects = []
        self.rows = {}
        self.nodes = {}
        self.timers = []

    def persist(self, table, key, value):
        self.effects.append(("persist", table, key))
        if value is None:
            del self.rows[table, key]
        else:
            self.rows[table, key] = value

    def send(self, link, message):
        self.effects.append(("send", type(message).__name__))
        link.send(message)

    def to_node(self, node_id, message):
        if node_id not in self.nodes:
            return False
        self.nodes[node_id].append(message)
        return True

    def call_later(self, delay_s, callback):
        self.timers.append((delay_s, callback))

    def fire(self):
        timers, self.timers = self.timers, []
        for _, callback in timers:
            callback()


class Host:
    """A loop that turns when told to."""

    def __init__(self):
        self.soon = []
        self.later = []
        self.time = 0.0
        self.dialled = []  # links to nodes of before

    def now(self):
        return self.time

    def link(self, address):
        self.dialled.append(Link(address))
        return self.dialled[-1]

    def call_soon(self, callback):
        self.soon.append(callback)

    def call_later(self, delay_s, callback):
        self.later.append(callback)

    def settle(self):
        while self.soon:
            self.soon.pop(0)()


class Full(Exception):
    """The journal fake's disk is full."""


class Journal:
    """In memory; ``full`` refuses."""

    def __init__(self):
        self.tables = {}
        self.commits = 0
        self.full = False

    def commit(self, writes):
        if self.full:
            raise Full("no space left")
        self.commits += 1
        for table, key, value in writes:
            if value is None:
                self.tables.get(table, {}).pop(key, None)
            else:
                self.tables.setdefault(table, {})[key] = value

    def read(self, table, key):
        return self.tables.get(table, {}).get(key)

    def rows(self, table):
        return list(self.tables.get(table, {}).items())


class Make:
    """Makes what tests are about, with short names for ids."""

    Port, Link, Host, Journal, Full = Port, Link, Host, Journal, Full

    @staticmethod
    def address(name, node="n"):
        return Address(name.encode().ljust(8, b"."), node.encode().ljust(8, b"."), f"ipc://{name}")

    def link(self, name, node="n"):
        return Link(self.address(name, node))

    @staticmethod
    def id(name):
        return name.encode().ljust(16, b".")

    @staticmethod
    def node_id(name):
        return name.encode().ljust(8, b".")

    @staticmethod
    def job_id(name):
        return name.encode().ljust(8, b".")

    def spec(self, name="", **changes):
        spec = ActorSpec(
            actor_id=self.id(changes.pop("id", "actor")),
            job_id=self.job_id(changes.pop("job", "job")),
            owner=changes.pop("owner", self.address("owner")),
            class_id=b"class...........",
            class_name="Counter",
            name=name,
            namespace="space",
            detached=False,
            args=b"arguments",
            dependencies=(),
            methods=(("add", {"num_returns": 1}),),
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=1,
            concurrency_groups={"io": 2},
            resources_to_place={"CPU": CPU},
            resources_to_run={"CPU": 0},
            strategy=(),
            runtime_env="",
            checkpoint=None,
            extra=None,
        )
        return spec._replace(**changes)

    def group(self, name="", **changes):
        group = GroupCreate(
            request_id=7,
            group_id=self.id(changes.pop("id", "group")),
            job_id=self.job_id(changes.pop("job", "job")),
            bundles=({"CPU": CPU}, {"CPU": CPU}),
            strategy="PACK",
            name=name,
            namespace="space",
            detached=False,
            creator=b"",
            label_selectors=(),
        )
        return group._replace(**changes)

    def job(self, name="job", request_id=1):
        return JobStarted(request_id, self.job_id(name), self.address(f"d-{name}"), "space", f"python {name}.py")

    def register_node(self, name, cpus=2, epoch=1, request_id=1, labels=None):
        return NodeRegister(
            request_id, self.address(name, name), epoch, {"CPU": cpus * CPU}, labels or {}, f"host-{name}", 42
        )

    @staticmethod
    def service(host, journal):
        return GcsService(host, journal, place_bundles, Full)


@pytest.fixture
def make():
    return Make()


@pytest.fixture
def port():
    return Port()
