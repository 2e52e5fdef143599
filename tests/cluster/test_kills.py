"""kill -9 of each kind of process at named points of a mixed workload: what was acknowledged is kept, nothing leaks.

Ten seconds after each kill every resource is free again, no object, process or connection is there that should not be,
every value that a caller has seen is there, and new work runs. Each kind is killed six times, twenty times in
``.ci/run``; ``make chaos SECONDS=600`` does it for so long with each, after longer random delays.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

import actorlib
from actorlib.transport import messages
from actorlib.transport.drivers.processes import children_of, process_name
from tests.cluster.mixed_load import PATIENCE_S, Load
from tests.conftest import eventually

KINDS = ("gcs", "worker", "zygote", "node", "driver")
KILLS = int(os.environ.get("ACTORLIB_KILLS", "6"))  # of each, and more where there is time
RECOVERY_S = 10.0
SECONDS = float(os.environ.get("ACTORLIB_CHAOS_SECONDS", "0"))
DESCRIPTORS_MORE_MAX = 24

DRIVER = textwrap.dedent("""
    import sys, actorlib
    actorlib.init(address=sys.argv[1])
    from tests.cluster.mixed_load import LARGE, make, mean
    import numpy as np
    @actorlib.remote(num_cpus=0.1)
    class Mine:
        def hold(self, refs): self.refs = refs; return 1
    mine = Mine.remote()
    actorlib.get(mine.hold.remote([actorlib.put(np.ones(LARGE)), make.remote(3)]))
    print("at work", flush=True)
    while True:
        actorlib.get([mean.remote(make.remote(i)) for i in range(3)])
""")


class Victims:
    """Who is to be killed next, of one kind."""

    def __init__(self, machines, kind, rng):
        self.machines, self.kind, self.rng = machines, kind, rng
        self._driver = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end_driver()

    def prepare(self):
        """Before the work of a point: a driver is there that can be killed."""
        if self.kind == "driver":
            command = [sys.executable, "-c", DRIVER, self.machines.head.head]
            self._driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert self._driver.stdout.readline() == "at work\n"

    def kill_one(self):
        os.kill(self._choose(), signal.SIGKILL)

    def _choose(self):
        if self.kind == "driver":
            return self._driver.pid
        if self.kind == "node":
            return self.machines.others[0].pid
        assert eventually(lambda: of_kind(self.machines, self.kind))  # the one before may have no successor yet
        return self.rng.choice(of_kind(self.machines, self.kind))

    def replace(self):
        """After the work of a point: another one for the one that is gone, where nobody else does that."""
        self._end_driver()
        if self.kind == "node":
            gone = self.machines.others.pop(0)
            gone.process.wait(PATIENCE_S)
            gone.kill()
            self.machines.wait_for(1)
            self.machines.add()
            self.machines.wait_for(2)

    def _end_driver(self):
        if self._driver is not None:
            self._driver.kill()
            self._driver.wait()
            self._driver.stdout.close()
            self._driver = None


def of_kind(machines, kind):
    nodes = [machines.head, *machines.others]
    return [pid for node in nodes for pid in children_of(node.pid) if process_name(pid) == f"actorlib:{kind}"]


def descriptors(machines):
    """Open files and connections of those who live through it all."""
    return {node.pid: len(os.listdir(f"/proc/{node.pid}/fd")) for node in (machines.head, *machines.others)}


def leaks(machines):
    """What is there that should not be, in words; "" if all is well."""
    engine = actorlib.engine.Slot.engine
    found = []
    objects = 0
    for node in (machines.head, *machines.others):
        status = engine.ask(node.address, messages.NodeStatus, timeout_s=PATIENCE_S).status
        short = {name: total - status["available"].get(name, 0) for name, total in status["total"].items()}
        found += [f"{amount} of {name} is not free" for name, amount in short.items() if amount]
        known = {row["pid"] for row in status["workers"]}
        strangers = [pid for pid in children_of(node.pid) if process_name(pid) not in HELPERS and pid not in known]
        found += [f"{process_name(pid)} {pid} is nobody's" for pid in strangers]
        found += [f"{count} wait: {reason}" for reason, count in status["waiting"].items()]
        objects += status["store"][0]["objects"]
    if objects > 2:  # what this driver keeps, and a copy of it
        found.append(f"{objects} objects are stored")
    return "; ".join(found)


HELPERS = ("actorlib:zygote", "actorlib:gcs")


def wait_until_nothing_is_leaked(machines):
    deadline = time.monotonic() + RECOVERY_S
    while found := leaks(machines):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_acknowledged_is_lost_and_nothing_is_leaked(machines, kind):
    rng = random.Random(SECONDS)
    machines.start_head()
    machines.add()
    machines.join(namespace="chaos")
    load = Load()
    for point in load.points:
        load.through(point)
    before = descriptors(machines)
    points = itertools.islice(itertools.cycle(load.points), KINDS.index(kind), None)
    ends_at = time.monotonic() + SECONDS
    recovered_s = []
    with Victims(machines, kind, rng) as victims:
        for kills, point in enumerate(points):
            if kills >= KILLS and time.monotonic() > ends_at:
                break
            victims.prepare()
            delay_s = rng.random() * (0.2 if SECONDS else 0.02)

            def kill(delay_s=delay_s):
                time.sleep(delay_s)
                victims.kill_one()

            load.through(point, kill)
            load.through("calls of durable actors")
            began = time.monotonic()
            victims.replace()
            wait_until_nothing_is_leaked(machines)
            recovered_s.append(time.monotonic() - began)
    for pid, count in descriptors(machines).items():
        assert count <= before.get(pid, count) + DESCRIPTORS_MORE_MAX, (
            f"process {pid} has {count} open, {before} before"
        )
    print(f"{len(recovered_s)} kills of {kind}; the longest until nothing was left of it: {max(recovered_s):.1f} s")
    load.end()
