"""Checkpoints in files: what a store holds after a crash, what a node hands out, and how files change hands."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from actorlib.runtime import checkpoint
from actorlib.runtime.checkpoint import Meta, Saved, TornCheckpoint
from actorlib.runtime.drivers import checkpoint_store
from actorlib.runtime.drivers.checkpoint_store import DirectoryStore
from actorlib.runtime.drivers.stored_files import StoredFiles
from actorlib.transport import limits, messages


class Link:
    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)


def ask(files, name, offset=0):
    link = Link()
    files.handlers[messages.StoredRead](link, messages.StoredRead(7, name, offset))
    (part,) = link.sent
    return part.request_id, part.size, bytes(part.data.view) if part.size >= 0 else part.data


def test_a_file_is_handed_out_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "stored_part_bytes", 4)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "chunk").write_bytes(b"0123456789")
    files = StoredFiles(str(tmp_path))
    assert [ask(files, "a/chunk", at) for at in (0, 4, 8, 10)] == [
        (7, 10, b"0123"),
        (7, 10, b"4567"),
        (7, 10, b"89"),
        (7, 10, b""),
    ]
    assert ask(files, "a/other") == (7, -1, b"")


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/passwd", "a/./chunk", "..", "", "a"])
def test_nothing_outside_of_the_store_is_handed_out(tmp_path, name):
    (tmp_path / "store" / "a").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    assert ask(StoredFiles(str(tmp_path / "store")), name) == (7, -1, b"")


LAST_CALLS = ((5, "add", b"caller-a", 4, 0),)


def saved(buffers):
    return Saved(Meta(5, 0, "v", "Counter", 0.0, 1, 3), (), (), b"state", tuple(buffers), LAST_CALLS)


def test_a_checkpoint_names_the_node_whose_disk_it_is_on_and_reads_the_same_where_it_was_brought(tmp_path):
    buffers = [np.arange(20_000.0), np.ones(10), np.arange(30_000.0)]
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    record, written = checkpoint_store.write_apart(
        DirectoryStore(first), first, "actor", 1, saved(buffers), b"node...."
    )
    place = checkpoint.place_of(record)
    assert (place.url, place.node_id) == (first, b"node....") and written > 400_000
    store = DirectoryStore(second, is_synced=False)
    for name in DirectoryStore(first).names("actor"):
        store.take(os.path.join(first, "actor", name), f"actor/{name}")
        store.take(os.path.join(first, "actor", name), f"actor/{name}")  # again: it is there
    store.sync()
    here = checkpoint.moved(record, second, b"other...")
    assert checkpoint.place_of(here).node_id == b"other..." and checkpoint.meta_of(here) == checkpoint.meta_of(record)
    found = checkpoint_store.read_apart(here)
    assert found.meta.last_of == 3 and found.last_calls == LAST_CALLS
    assert [bytes(b) for b in found.buffers] == [b.tobytes() for b in buffers]
    (tmp_path / "second" / "actor" / DirectoryStore(second).names("actor")[0]).write_bytes(b"torn")
    with pytest.raises(TornCheckpoint):
        checkpoint_store.read_apart(here)


def test_what_it_did_last_is_part_of_a_checkpoint_and_may_lack_in_one_of_before():
    import msgpack

    assert checkpoint.unpack(checkpoint.pack(saved([]))) == saved([])
    before = msgpack.packb((checkpoint.INLINE, (5, 0, "v", "Counter", 0.0, 1, 3), (), (), b"state", ()))
    assert checkpoint.unpack(before) == saved([])._replace(last_calls=())


def test_a_record_of_before_is_read_as_one_of_no_single_node(tmp_path):
    import msgpack

    record = msgpack.packb((checkpoint.STORED, (5, 0, "v", "Counter", 0.0, 1), "/dir", "actor/file", b"sum"))
    assert checkpoint.place_of(record).node_id == b"" and checkpoint.meta_of(record).last_of == -1


# -- what a crash or a power cut leaves of a store ---------------------------------------------------------------------
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_checkpoint_that_could_not_be_written_leaves_the_one_before_and_no_rest(tmp_path, monkeypatch, step):
    def fails(*_):
        raise OSError(errno.ENOSPC, "no space left")

    url = str(tmp_path / "store")
    kept, _ = checkpoint_store.write_apart(DirectoryStore(url), url, "actor", 1, saved([np.arange(20_000.0)]))
    before = DirectoryStore(url).names("actor")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fails)
        with pytest.raises(OSError, match="no space"):
            checkpoint_store.write_apart(DirectoryStore(url), url, "actor", 2, saved([np.arange(30_000.0)]))
    assert DirectoryStore(url).names("actor") == before and len(before) == 2
    assert [bytes(b) for b in checkpoint_store.read_apart(kept).buffers] == [np.arange(20_000.0).tobytes()]


@pytest.mark.parametrize("is_synced", [True, False])
def test_what_was_written_and_its_name_outlive_a_power_cut(tmp_path, monkeypatch, is_synced):
    synced = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda one, other: synced.append((one, other)) or replace(one, other))
    url = str(tmp_path / "made" / "store")
    store = DirectoryStore(url, is_synced)
    checkpoint_store.write_apart(store, url, "actor", 1, saved([np.arange(20_000.0)]))
    if not is_synced:
        assert all(type(step) is tuple for step in synced), "it can't wait for the disk now"
        store.sync()
    renamed = [step for step in synced if type(step) is tuple]
    assert len(renamed) == 2, "a chunk, and what refers to it"
    for aside, name in renamed:
        assert synced.index(aside) < synced.index((aside, name)) if is_synced else name in synced
    for directory in (f"{url}/actor", url, str(tmp_path / "made"), str(tmp_path)):
        assert synced.index(directory) > max(map(synced.index, renamed)), f"the names in {directory}"
