"""Level ``disk`` from the caller to the platters.

The disk of the actor's host keeps what was synced; of the rest each write may be there, torn or lost. No call whose
reply was seen may be missing afterwards. At level ``worker``, which syncs nothing, some are, and their caller is told.
"""

from __future__ import annotations

import random
import time

import pytest

import actorlib
from actorlib import Checkpoint, exceptions
from actorlib.testing import simulate
from actorlib.transport import limits

T = 3000


@actorlib.remote(num_cpus=1)
class Ledger:
    def __init__(self):
        self.entries = []

    def add(self, entry):
        self.entries.append((entry, actorlib.record(time.time)))
        return len(self.entries)

    def all(self):
        return list(self.entries)


def cut_power(world):
    """The actor's process ends, and its host's disk has what it has."""
    for node, worker in list(world.workers.values()):
        if worker.spec is not None:
            world.process_ended(worker.address.process_id, 9)
            node.disk.lose_power()
            return True
    return False


def run(seed, durability, checkpoints):
    """Calls, some in flight, while the power is cut a few times. Gives what was acknowledged and what is there."""
    rng = random.Random(seed)
    with simulate(seed=seed, nodes=1, num_cpus=2) as world:
        ledger = Ledger.options(checkpoint=Checkpoint(every_calls=checkpoints, durability=durability)).remote()
        acknowledged, sent, cuts = 0, 0, 0
        for _ in range(6):
            refs = [ledger.add.remote(sent + i) for i in range(rng.randrange(1, 12))]
            sent += len(refs)
            if rng.random() < 0.7:
                enough = rng.randrange(1, len(refs) + 1)
                acknowledged = actorlib.get(refs[:enough], timeout=T)[-1]
            time.sleep(rng.choice([0.0, 0.0002, 0.001]))
            cuts += cut_power(world)
            values = actorlib.get(refs, timeout=T)
            assert values == list(range(sent - len(refs) + 1, sent + 1)), f"{acknowledged} were acknowledged"
        entries = actorlib.get(ledger.all.remote(), timeout=T)
        del ledger, refs
    return sent, cuts, [entry for entry, _ in entries]


@pytest.mark.parametrize("checkpoints", [3, 1000])
@pytest.mark.parametrize("seed", range(6))
def test_no_call_that_was_acknowledged_is_lost_at_level_disk(seed, checkpoints, monkeypatch):
    monkeypatch.setattr(limits, "call_log_segment_bytes_max", 500)  # so that new segments begin as well
    sent, cuts, entries = run(seed, "disk", checkpoints)
    assert cuts >= 3 and entries == list(range(sent))


def test_without_the_sync_calls_are_lost_and_their_caller_is_told():
    """The control: what the level promises is what makes the difference."""
    told = 0
    for seed in range(12):
        try:
            run(seed, "worker", 1000)
        except exceptions.StateRolledBackError:
            told += 1
    assert told >= 3
