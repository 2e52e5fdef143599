"""The log's files: segments, torn ends, power cuts, the marker; on the real disk and on a simulated one."""

from __future__ import annotations

import random

import pytest

from actorlib.runtime.call_log import Recovery
from actorlib.runtime.call_log_format import CALL
from actorlib.runtime.drivers.call_log_file import CallLogFile, FileMarker, Mark, RealFiles
from actorlib.transport import limits
from actorlib.transport.ids import ActorId
from actorlib.transport.sim.disk import Disk

ACTOR = ActorId(b"0123456789abcdef")
NO_ARGS = (b"", (), 1, None)


def call(position):
    return (CALL, position, b"caller-a", position, "add", *NO_ARGS)


@pytest.fixture(params=["real", "simulated"])
def files(request):
    return RealFiles() if request.param == "real" else Disk(random.Random(1))


def positions(log):
    return [record[1] for record in log.read() if record[0] == CALL]


def test_what_was_appended_is_read_by_the_next_incarnation(files, tmp_path):
    path = f"{tmp_path}/calls"
    log = CallLogFile(files, path, ACTOR)
    assert log.read() == []
    log.append([call(1), call(2)])
    log.append([call(3)])
    again = CallLogFile(files, path, ACTOR)
    assert positions(again) == [1, 2, 3]
    again.append([call(4)])
    assert positions(CallLogFile(files, path, ACTOR)) == [1, 2, 3, 4]


def test_segments_that_a_checkpoint_covers_are_removed(files, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "call_log_segment_bytes_max", 200)
    log = CallLogFile(files, f"{tmp_path}/calls", ACTOR)
    for position in range(1, 40):
        log.append([call(position)])
    before = len(files.paths(f"{tmp_path}/calls/segment-"))
    log.cut(30)
    after = files.paths(f"{tmp_path}/calls/segment-")
    assert before > 5 > len(after)
    found = positions(CallLogFile(files, f"{tmp_path}/calls", ACTOR))
    assert found[-1] == 39 and found[0] <= 31 and found == list(range(found[0], 40))
    log.forget()
    assert files.paths(f"{tmp_path}/calls/") == []


def test_a_torn_end_is_passed_over_and_the_log_goes_on_behind_it(files, tmp_path):
    path = f"{tmp_path}/calls"
    log = CallLogFile(files, path, ACTOR)
    log.append([call(1)])
    log.append([call(2)])
    segment = files.paths(f"{path}/segment-")[0]
    whole = files.read(segment)
    files.remove(segment)
    files.append(segment, whole[:-3])
    again = CallLogFile(files, path, ACTOR)
    assert positions(again) == [1]
    assert again.torn_bytes > 0
    again.append([call(2)])
    assert positions(CallLogFile(files, path, ACTOR)) == [1, 2]


def test_the_log_of_another_actor_is_not_read(files, tmp_path):
    CallLogFile(files, f"{tmp_path}/calls", ACTOR).append([call(1)])
    assert CallLogFile(files, f"{tmp_path}/calls", ActorId(b"x" * 16)).read() == []


@pytest.mark.parametrize("seed", range(40))
def test_a_power_cut_loses_nothing_that_was_synced(seed, monkeypatch):
    monkeypatch.setattr(limits, "call_log_segment_bytes_max", 400)
    rng = random.Random(seed)
    disk = Disk(random.Random(seed))
    synced = done = 0
    for _ in range(4):
        log = CallLogFile(disk, "node/calls", ACTOR)
        log.is_synced = True
        found = positions(log)
        recovery = Recovery([call(n) for n in found], 0)
        assert recovery.hole is None and len(recovery.calls) >= synced
        done = len(recovery.calls)
        for _ in range(rng.randrange(12)):
            log.append([call(done + 1)])
            done = synced = done + 1
        log.is_synced = False
        if rng.random() < 0.5:
            log.append([call(done + 1)])  # written, and the power goes before the sync
        disk.lose_power()


def test_the_marker_tells_what_was_running(tmp_path):
    marker = FileMarker(f"{tmp_path}/calls/running")
    assert marker.read() is None
    marker.note(b"caller-a", 7, 3, 1)
    assert FileMarker(f"{tmp_path}/calls/running").read() == Mark(b"caller-a", 7, 3, 1)
    marker.clear()
    assert FileMarker(f"{tmp_path}/calls/running").read() is None


def test_a_log_that_was_forgotten_begins_anew(files, tmp_path):
    """A better copy takes its place: what is read back is that copy, and nothing asks for files that are gone."""
    path = f"{tmp_path}/calls"
    CallLogFile(files, path, ACTOR).append([call(1)])
    log = CallLogFile(files, path, ACTOR)
    log.read()
    log.forget()
    log.append([call(5), call(6)])
    assert [record[1] for record in log.whole() if record[0] == CALL] == [5, 6]
    assert positions(CallLogFile(files, path, ACTOR)) == [5, 6]
