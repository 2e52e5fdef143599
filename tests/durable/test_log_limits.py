"""What a call log costs and how large it gets: one write for many calls, segments that go, and calls that must wait."""

from __future__ import annotations

import errno

import numpy as np
import pytest

import actorlib
from actorlib import Checkpoint
from actorlib.exceptions import CheckpointError, GetTimeoutError
from actorlib.runtime.drivers.call_log_file import CallLogFile
from actorlib.runtime.drivers.checkpoint_store import DirectoryStore
from actorlib.testing import simulate
from actorlib.transport import limits

T = 600


@actorlib.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.value = 0
        self.arrays = [np.zeros(10_000)]

    def add(self, _padding=b""):
        self.value += 1
        return self.value

    def save(self):
        actorlib.checkpoint_now()
        return self.value


def counter(**options):
    return Counter.options(checkpoint=Checkpoint(**{"every_calls": None, **options})).remote()


def log_bytes(world, handle):
    node = world.nodes[0]
    files = node.disk.paths(f"{node.directory}/calls/{handle._actor_id.hex()}/")
    return sum(len(node.disk.read(path)) for path in files)


def test_what_leaves_together_is_written_together(monkeypatch):
    written = []
    append = CallLogFile.append
    monkeypatch.setattr(
        CallLogFile, "append", lambda self, records: written.append(len(records)) or append(self, records)
    )
    with simulate(seed=1):
        actor = counter()
        assert actorlib.get(actor.add.remote(), timeout=T) == 1
        written.clear()
        assert actorlib.get([actor.add.remote() for _ in range(300)], timeout=T)[-1] == 301
        in_flight, calls = len(written), sum(written)
        written.clear()
        for _ in range(20):
            actorlib.get(actor.add.remote(), timeout=T)
        assert calls >= 300 and in_flight <= 6
        assert len(written) >= 20, "one at a time each has its own"
        del actor


def test_a_log_that_checkpoints_cover_does_not_grow(monkeypatch):
    monkeypatch.setattr(limits, "call_log_segment_bytes_max", 2_000)
    with simulate(seed=1) as world:
        actor = counter(every_calls=20, keep=2)
        sizes = []
        for _ in range(30):
            actorlib.get([actor.add.remote(bytes(50)) for _ in range(20)], timeout=T)
            sizes.append(log_bytes(world, actor))
        assert max(sizes[10:]) < 4 * 2_000 + 60 * 300
        assert max(sizes[20:]) <= max(sizes[:20]) * 1.2
        del actor


def gcs_is_away(world):
    world.crash_gcs(30.0)
    return lambda: None


def gcs_has_no_room(world):
    world.journal.is_full = True
    return lambda: setattr(world.journal, "is_full", False)


@pytest.mark.parametrize("trouble", [gcs_is_away, gcs_has_no_room])
def test_a_full_log_asks_for_a_checkpoint_and_then_lets_calls_wait(trouble, monkeypatch, capfd):
    monkeypatch.setattr(limits, "call_log_bytes_max", 20_000)
    with simulate(seed=2, own_gcs=True) as world:
        actor = counter()
        assert actorlib.get([actor.add.remote(bytes(1000)) for _ in range(30)], timeout=T)[-1] == 30
        assert len(actor.checkpoints()) == 2, "twice half of the limit was reached"
        before, over = log_bytes(world, actor), trouble(world)
        refs = [actor.add.remote(bytes(1000)) for _ in range(100)]
        with pytest.raises(GetTimeoutError):
            actorlib.get(refs[-1], timeout=20)
        ready, waiting = actorlib.wait(refs, num_returns=len(refs), timeout=0)
        assert 10 <= len(ready) <= 45, "the log takes that many, and what a checkpoint under way is to cover"
        assert log_bytes(world, actor) - before < 2 * limits.call_log_bytes_max
        over()
        assert actorlib.get(waiting, timeout=T)[-1] == 130
        del actor, refs, ready, waiting
    said = capfd.readouterr().err
    assert ("no checkpoint could be kept" in said) == (trouble is gcs_has_no_room)


def test_a_store_without_room_is_told_and_tried_again(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(limits, "call_log_bytes_max", 20_000)

    def full(self, name, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with simulate(seed=3) as world:
        actor = counter(store=str(tmp_path))
        assert actorlib.get(actor.save.remote(), timeout=T) == 0
        with monkeypatch.context() as patch:
            patch.setattr(DirectoryStore, "write", full)
            with pytest.raises(CheckpointError, match=r"No space left.*make room there or name another one"):
                actorlib.get(actor.save.remote(), timeout=T)
            refs = [actor.add.remote(bytes(1000)) for _ in range(60)]
            with pytest.raises(GetTimeoutError):
                actorlib.get(refs[-1], timeout=30)
        assert actorlib.get(refs, timeout=T)[-1] == 60, "it is tried again by itself"
        world.crash_actor(actor)
        assert actorlib.get(actor.add.remote(), timeout=T) == 61
        del actor, refs
    assert "no checkpoint could be kept" in capfd.readouterr().err
