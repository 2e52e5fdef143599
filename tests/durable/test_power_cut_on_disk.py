"""Level ``disk`` on real processes: what was written to the log is recorded, and cut off at any moment.

A named actor of a cluster with a directory of its own is called; its process keeps a tape of what it writes and syncs.
From the tape come the disks that a power cut at some moment could leave. On each of them must be all calls that were
acknowledged by then; from some of them the cluster is started, and the actor asked.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import sys
import time
from pathlib import Path

import pytest

import actorlib
from actorlib import Checkpoint
from actorlib.runtime.call_log import Recovery
from actorlib.runtime.drivers.call_log_file import CallLogFile, RealFiles
from actorlib.runtime.drivers.driver import address_of
from actorlib.runtime.drivers.node_process import NodeConfig, launch_node
from actorlib.transport.ids import ActorId

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("durable_power_cut", HERE / "power_cut.py")
power_cut = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(power_cut)

T = 90
CUTS = 150
RECOVERIES = 2
BURSTS, BURST_CALLS_MAX = 40, 9
SEGMENT_BYTES = 2_000


class Ledger:
    def __init__(self):
        self.entries = []

    def add(self, entry):
        self.entries.append((entry, actorlib.record(time.time)))
        return len(self.entries)

    @actorlib.method(readonly=True)
    def all(self):
        return [entry for entry, _ in self.entries]


def head(directory):
    path = [path or os.getcwd() for path in sys.path]
    return launch_node(NodeConfig(num_cpus=1, directory=str(directory), durable=True, sys_path=path, cwd=os.getcwd()))


class Run:
    """Calls of a driver, one burst after the other: when each was acknowledged, and what was written meanwhile."""

    def __init__(self, level, directory, tape):
        self.directory = directory
        directory.mkdir()
        variables = {"TAPE_BELOW": str(directory), "TAPE_FILE": str(tape), "TAPE_SEGMENT_BYTES": str(SEGMENT_BYTES)}
        environment = {"env_vars": variables, "py_modules": [str(HERE / "on_workers")], "preload": ["write_tape"]}
        options = {"name": "ledger", "lifetime": "detached", "num_cpus": 0, "runtime_env": environment}
        log = Checkpoint(every_calls=None, durability=level)
        rng = random.Random(level)
        self.acknowledged: list[int] = []  # when, of each call
        node = head(directory)
        try:
            with actorlib.init(address=address_of(node), namespace="mine"):
                ledger = actorlib.remote(checkpoint=log, **options)(Ledger).remote()
                self.actor_id = ActorId(ledger._actor_id)
                for _ in range(BURSTS):
                    sent = len(self.acknowledged)
                    refs = [ledger.add.remote(sent + i) for i in range(rng.randint(1, BURST_CALLS_MAX))]
                    for ref in refs:
                        actorlib.get(ref, timeout=T)
                        self.acknowledged.append(time.monotonic_ns())
        finally:
            node.kill()
        self.tape = power_cut.read_tape(tape)
        assert sum(kind == "make" and "segment-" in path for _, kind, path, *_ in self.tape) > 3, "new segments begin"

    def cut(self, rng):
        """A moment, and how many calls were acknowledged by then."""
        moments = [entry[0] for entry in self.tape] + self.acknowledged
        moment = rng.choice([moment for moment in moments if moment >= self.acknowledged[0]])
        return moment, sum(at <= moment for at in self.acknowledged)

    def write_disk(self, moment, rng, target):
        """The logs as a disk may have them after a power cut at that moment."""
        power_cut.DiskImage(self.tape, moment, str(self.directory), rng).write_to(target)

    def found(self, disk):
        """The calls in the log of that disk, as the actor's next life finds them, and whether some are torn."""
        log = CallLogFile(RealFiles(), str(disk / "calls" / self.actor_id.hex()), self.actor_id)
        recovery = Recovery(log.read(), -1)
        return sum(call.target == "add" for call in recovery.calls), log.torn_bytes > 0

    def lost(self, seed, directory):
        """Of each cut: how many acknowledged calls are not there. And which disks have a torn log."""
        rng = random.Random(seed)
        losses, torn = [], []
        for number in range(CUTS):
            disk = directory / str(number)
            moment, acknowledged = self.cut(rng)
            self.write_disk(moment, rng, disk)
            found, is_torn = self.found(disk)
            losses.append(max(0, acknowledged - found))
            torn += [(disk, acknowledged)] if is_torn else []
        return losses, torn


@pytest.mark.timeout(300)
def test_no_acknowledged_call_is_lost_whenever_the_power_fails(tmp_path):
    run = Run("disk", tmp_path / "run", tmp_path / "tape")
    losses, torn = run.lost(1, tmp_path / "disks")
    assert not any(losses), f"acknowledged calls are lost at {sum(map(bool, losses))} of {CUTS} cuts"
    assert len(torn) >= RECOVERIES, "some cuts leave half a batch"
    for number, (disk, acknowledged) in enumerate(torn[:: max(1, len(torn) // RECOVERIES)][:RECOVERIES]):
        cluster = tmp_path / f"again-{number}"
        shutil.copytree(run.directory, cluster, ignore=shutil.ignore_patterns("calls"))
        shutil.copytree(disk / "calls", cluster / "calls")
        node = head(cluster)
        try:
            with actorlib.init(address=address_of(node), namespace="mine"):
                ledger = actorlib.get_actor("ledger")
                entries = actorlib.get(ledger.all.remote(), timeout=T)
                assert len(entries) >= acknowledged and entries == list(range(len(entries)))
                assert actorlib.get(ledger.add.remote(-1), timeout=T) == len(entries) + 1
        finally:
            node.kill()


@pytest.mark.timeout(120)
def test_without_the_sync_the_same_cuts_lose_some(tmp_path):
    """That it can fail: level ``worker`` writes the same and syncs nothing."""
    run = Run("worker", tmp_path / "run", tmp_path / "tape")
    losses, _ = run.lost(1, tmp_path / "disks")
    assert sum(map(bool, losses)) > CUTS // 4
