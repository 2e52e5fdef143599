"""Where durable actors on Ray keep their log and checkpoints. Nothing here needs Ray."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from actorlib import exceptions
from actorlib.engines.on_ray.journal import Journal, open_journal

Opener = Callable[[], Journal]


@pytest.fixture(params=["", "file://", "local://"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same folder again each time; local:// goes through fsspec, as any URL does."""
    return lambda: open_journal({"store": f"{request.param}{tmp_path}"}, "00ff")


def begun(opened: Opener) -> Journal:
    journal = opened()
    journal.begin(0)
    journal.open_log(0, len(journal.records(0)))
    return journal


def test_records_come_back_in_their_order(opened: Opener) -> None:
    first = begun(opened)
    for number in range(12):
        first.append(b"%d" % number)
    second = begun(opened)
    second.append(b"12")
    assert opened().records(0) == [b"%d" % number for number in range(13)]
    assert opened().records(1) == []


def test_one_incarnation_at_a_time(opened: Opener) -> None:
    first = begun(opened)
    first.check()
    second = begun(opened)
    second.check()
    with pytest.raises(exceptions.CheckpointError):
        first.check()


def test_checkpoints_are_listed_and_the_old_ones_dropped_with_their_logs(opened: Opener) -> None:
    journal = begun(opened)
    journal.append(b"before any checkpoint")
    for number in (1, 2, 3):
        journal.write(f"checkpoint-{number:010}", b"state %d" % number)
        journal.open_log(number, 0)
        journal.append(b"after %d" % number)
    journal.write("constructor", b"kept")
    journal.drop_before(2)
    assert journal.checkpoints() == [2, 3]
    assert [journal.records(number) for number in range(4)] == [[], [], [b"after 2"], [b"after 3"]]
    assert journal.read("checkpoint-0000000001") is None and journal.read("constructor") == b"kept"


def test_a_torn_record_is_a_call_that_nobody_saw(tmp_path: Path) -> None:
    def again() -> Journal:
        return open_journal({"store": str(tmp_path)}, "00ff")

    first = begun(again)
    for record in (b"one", b"two", b"three"):
        first.append(record)
    log = tmp_path / "00ff" / "log-0000000000"
    whole = log.read_bytes()
    for cut in range(len(whole)):
        log.write_bytes(whole[:cut])
        records = again().records(0)
        assert records == [b"one", b"two", b"three"][: len(records)]
        after = begun(again)
        after.append(b"new")
        assert again().records(0) == [*records, b"new"], "what is torn was cut off first"


def test_a_torn_checkpoint_is_none(opened: Opener, tmp_path: Path) -> None:
    journal = begun(opened)
    journal.write("checkpoint-0000000001", b"the whole state")
    path = tmp_path / "00ff" / "checkpoint-0000000001"
    whole = path.read_bytes()
    for torn in (b"", whole[:5], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(torn)
        assert opened().read("checkpoint-0000000001") is None


@pytest.mark.parametrize("durability, syncs", [("auto", 0), ("worker", 0), ("disk", 3)])
def test_only_the_level_disk_syncs_each_call(
    durability: str, syncs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal({"store": str(tmp_path), "durability": durability}, "00ff")
    journal.begin(0)
    journal.open_log(0, 0)
    seen: list[str] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        seen.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    for _ in range(3):
        journal.append(b"a call")
    assert seen == [str(tmp_path / "00ff" / "log-0000000000")] * syncs


def test_another_node_is_not_held_to_have_the_log() -> None:
    with pytest.raises(exceptions.NotSupportedByEngineError, match="store="):
        open_journal({"durability": "replicated"}, "00ff")
