"""What a simulated disk keeps, and what it loses with the power."""

from __future__ import annotations

import errno
import random

import pytest

from actorlib.transport.sim.disk import Disk


def disk(seed=0, **options):
    return Disk(random.Random(seed), **options)


def after_power_cuts(write, seeds=200):
    """What ``read`` gives after a power cut, over many seeds."""
    left = set()
    for seed in range(seeds):
        one = disk(seed)
        write(one)
        one.lose_power()
        left.add(one.read("log") if one.exists("log") else None)
    return left


def test_what_was_synced_stays():
    def write(one):
        one.append("log", b"kept")
        one.sync("log")

    assert after_power_cuts(write) == {b"kept"}


def test_what_was_not_synced_is_kept_lost_or_torn():
    def write(one):
        one.append("log", b"safe ")
        one.sync("log")
        one.append("log", b"gone?")

    left = after_power_cuts(write)
    assert {b"safe ", b"safe gone?", b"safe go"} <= left
    assert all(data.startswith(b"safe ") and b"safe gone?".startswith(data) for data in left)


def test_writes_are_lost_each_on_its_own():
    def write(one):
        one.append("log", b"")
        one.sync("log")
        one.append("log", b"11")
        one.append("log", b"22")

    assert b"\0\x0022" in after_power_cuts(write)


def test_a_process_that_dies_loses_nothing():
    one = disk()
    one.append("log", b"written")
    assert one.read("log") == b"written" and one.paths("l") == ["log"]


def test_a_rename_is_all_or_nothing():
    def write(one):
        one.append("log", b"old")
        one.sync("log")
        one.append("log.new", b"new")
        one.sync("log.new")
        one.rename("log.new", "log")

    assert after_power_cuts(write) == {b"old", b"new"}


def test_synced_names_stay():
    def write(one):
        one.append("log.new", b"new")
        one.sync("log.new")
        one.rename("log.new", "log")
        one.sync_names()

    assert after_power_cuts(write) == {b"new"}


def test_a_removal_may_come_undone():
    def write(one):
        one.append("log", b"old")
        one.sync("log")
        one.remove("log")

    assert after_power_cuts(write) == {b"old", None}


def test_a_full_disk_says_so_and_keeps_what_it_has():
    one = disk(room_bytes=4)
    one.append("log", b"1234")
    with pytest.raises(OSError, match="No space left") as full:
        one.append("log", b"5")
    assert full.value.errno == errno.ENOSPC and one.read("log") == b"1234"
    one.is_full = True
    with pytest.raises(OSError, match="No space left"):
        one.write("log", 0, b"x")


def test_a_slow_disk_takes_its_time_for_writes_and_syncs():
    waited = []
    one = disk(wait=waited.append)
    one.append("log", b"1")
    one.slow_s = 0.5
    one.append("log", b"2")
    one.sync("log")
    assert waited == [0.5, 0.5]


def test_what_is_not_there_is_told():
    with pytest.raises(FileNotFoundError):
        disk().read("nothing")


def test_a_cut_file_is_shorter_and_torn_ends_are_found_by_their_readers():
    one = disk()
    one.append("log", b"12345678")
    one.truncate("log", 4)
    assert one.read("log") == b"1234"
    one.tear("log")
    assert b"1234".startswith(one.read("log"))
