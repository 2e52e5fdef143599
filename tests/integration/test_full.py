"""Shared memory and disks that are full, too small, or torn."""

from __future__ import annotations

import os
import signal
import subprocess

import numpy as np
import pytest

import actorlib

MIB = 1 << 20


@pytest.fixture
def small_filesystem(tmp_path):
    """Makes file systems in memory of a given size, which go with the test."""
    mounted = []

    def make(name, size_mib):
        path = tmp_path / name
        path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", path], capture_output=True)
        if done.returncode:
            pytest.skip(f"a file system of its own can't be mounted here: {done.stderr.decode().strip()}")
        mounted.append(path)
        return path

    yield make
    actorlib.shutdown()
    for path in mounted:
        left = os.listdir(path)
        subprocess.run(["umount", path], check=True)
        assert [name for name in left if name.startswith("actorlib")] == []


def array_of(mib, value):
    return np.full(mib * MIB // 8, float(value))


def test_memory_that_others_have_filled_makes_room_by_spilling_then_says_so(small_filesystem, monkeypatch):
    shared, disk = small_filesystem("shared", 320), small_filesystem("disk", 100)
    monkeypatch.setenv("ACTORLIB_SHARED_MEMORY_DIR", str(shared))
    monkeypatch.setenv("ACTORLIB_SPILL_DIR", str(disk))
    actorlib.init(num_cpus=1, object_store_memory=280 * MIB)
    first = actorlib.put(array_of(40, 1))
    (shared / "of_others").write_bytes(bytes(240 * MIB))
    second = actorlib.put(array_of(40, 2))  # no page is left for it: the first is spilled
    assert actorlib.engine.Slot.engine.node_status()["store"][0]["spilled_bytes"] >= 40 * MIB
    os.truncate(shared / "of_others", 280 * MIB - 4096)
    with open(shared / "of_others", "ab") as target:
        with pytest.raises(OSError, match="space"):
            target.write(bytes(100 * MIB))
            target.flush()
    with pytest.raises(actorlib.exceptions.ObjectStoreFullError, match="drop references"):
        refs = [actorlib.put(array_of(40, i)) for i in range(3)]
        del refs
    os.unlink(shared / "of_others")
    assert actorlib.get(first, timeout=20)[0] == 1.0
    assert actorlib.get(second, timeout=20)[0] == 2.0


def test_a_full_disk_while_spilling_is_told_and_nothing_is_lost(small_filesystem, monkeypatch):
    monkeypatch.setenv("ACTORLIB_SPILL_DIR", str(small_filesystem("disk", 30)))
    actorlib.init(num_cpus=1, object_store_memory=64 * MIB)
    refs = []
    with pytest.raises(actorlib.exceptions.ObjectStoreFullError, match=r"full|failed"):
        for i in range(20):
            refs.append(actorlib.put(array_of(8, i)))
    assert len(refs) >= 7
    for i, ref in enumerate(refs):
        assert actorlib.get(ref, timeout=20)[-1] == float(i)
    refs.clear()
    assert actorlib.get(actorlib.put(array_of(8, 5)), timeout=20)[0] == 5.0


def test_a_container_with_little_shared_memory_uses_files(small_filesystem, monkeypatch, capfd):
    monkeypatch.setenv("ACTORLIB_SHARED_MEMORY_DIR", str(small_filesystem("shared", 64)))
    actorlib.init(num_cpus=1, object_store_memory=500 * MIB)
    assert "64 MiB free" in capfd.readouterr().err

    @actorlib.remote
    def total(array):
        return float(array.sum())

    assert actorlib.get(total.remote(array_of(100, 1)), timeout=20) == 100 * MIB / 8


def test_a_torn_spill_file_is_noticed(small_filesystem, monkeypatch):
    disk = small_filesystem("disk", 200)
    monkeypatch.setenv("ACTORLIB_SPILL_DIR", str(disk))
    actorlib.init(num_cpus=1, object_store_memory=64 * MIB)

    @actorlib.remote
    def make(value):
        return array_of(20, value)

    put, made = actorlib.put(array_of(20, 1)), make.remote(2)
    actorlib.wait([made], timeout=20)
    others = [actorlib.put(array_of(20, i)) for i in range(4)]
    spilled = [file for folder in disk.iterdir() for file in folder.iterdir()]
    assert len(spilled) >= 2
    for file in spilled:
        with open(file, "r+b") as target:
            target.seek(1000)
            target.write(b"torn")
    del others
    assert actorlib.get(made, timeout=20)[0] == 2.0  # its task makes it again
    with pytest.raises(actorlib.exceptions.ObjectLostError, match="put"):
        actorlib.get(put, timeout=20)


def test_a_full_checkpoint_store_is_told_and_the_log_goes_on(small_filesystem):
    store = small_filesystem("store", 4)
    actorlib.init(num_cpus=1)

    @actorlib.remote(num_cpus=0, checkpoint=actorlib.Checkpoint(every_calls=None, store=str(store)))
    class Large:
        def __init__(self):
            self.arrays = []

        def grow(self, mib):
            self.arrays.append(array_of(mib, len(self.arrays)))
            actorlib.checkpoint_now()
            return len(self.arrays)

        def pid(self):
            return os.getpid()

    actor = Large.remote()
    assert actorlib.get(actor.grow.remote(1), timeout=30) == 1
    with pytest.raises(
        actorlib.exceptions.CheckpointError, match=r"No space left.*make room there or name another one"
    ):
        actorlib.get(actor.grow.remote(10), timeout=30)
    pid = actorlib.get(actor.pid.options(readonly=True).remote(), timeout=30)
    os.kill(pid, signal.SIGKILL)
    subprocess.run(["mount", "-o", "remount,size=32m", store], check=True)
    assert actorlib.get(actor.grow.remote(1), timeout=30) == 3, "the one that was not saved is in the log"
    assert len(actor.checkpoints()) == 2
    del actor
