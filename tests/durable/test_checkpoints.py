"""Checkpoints of durable actors on real processes: when they are taken, where they lie, what can be done with them."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest

import actorlib
from actorlib import Checkpoint
from actorlib.exceptions import ActorDiedError, CheckpointError, StateRolledBackError
from actorlib.util import state
from tests.conftest import eventually

T = 60


@pytest.fixture(scope="module", autouse=True)
def session():
    with actorlib.init(num_cpus=4) as context:
        yield context


class Base:
    def __init__(self):
        self.value = 0

    def add(self, amount=1):
        self.value += amount
        return self.value

    def save(self):
        actorlib.checkpoint_now()
        return self.value

    @actorlib.method(readonly=True)
    def peek(self):
        return self.value

    @actorlib.method(readonly=True)
    def peek_pid(self):
        return os.getpid()


def durable(cls=Base, **options):
    return actorlib.remote(num_cpus=0, checkpoint=Checkpoint(**{"every_calls": None, **options}))(cls)


def kill_process_of(handle):
    os.kill(actorlib.get(handle.peek_pid.remote(), timeout=T), signal.SIGKILL)


def log_directory(session, handle):
    return f"{session.address_info['session_dir']}/calls/{handle._actor_id.hex()}"


def test_checkpoints_are_taken_by_count_by_time_and_on_demand():
    by_count, by_time, on_demand = (
        durable(every_calls=3).remote(),
        durable(every_s=0.05).remote(),
        durable(keep=1).remote(),
    )
    actorlib.get([by_count.add.remote() for _ in range(7)] + [by_time.add.remote()], timeout=T)
    eventually(lambda: [row["position"] for row in by_time.checkpoints()] == [1])
    eventually(lambda: by_count.checkpoints())
    assert all(row["position"] >= 3 for row in by_count.checkpoints())
    assert on_demand.checkpoints() == []
    actorlib.get([on_demand.add.remote(5), on_demand.save.remote(), on_demand.add.remote(), on_demand.save.remote()])
    (row,) = on_demand.checkpoints()  # keep=1
    assert (row["number"], row["position"], row["class_name"], row["is_good"]) == (2, 4, "Base", True)
    assert abs(row["saved_at"] - time.time()) < 60


def test_a_copy_as_it_was_and_as_it_became():
    actor = durable().remote()
    actorlib.get([actor.add.remote(), actor.save.remote(), *[actor.add.remote(10) for _ in range(3)]], timeout=T)
    checkpoint_id = actor.checkpoints()[0]["id"]
    as_it_was = actorlib.restore(durable(), checkpoint_id)
    later = actorlib.restore(durable(), checkpoint_id, position=4)
    assert actorlib.get([as_it_was.peek.remote(), later.peek.remote(), actor.peek.remote()], timeout=T) == [1, 21, 31]
    assert actorlib.get([as_it_was.add.remote(), later.add.remote()], timeout=T) == [2, 22]
    kill_process_of(later)
    assert actorlib.get(later.peek.remote(), timeout=T) == 22
    with pytest.raises(ActorDiedError, match="to the positions 2 to 5, not to 99"):
        actorlib.get(actorlib.restore(durable(), checkpoint_id, position=99).peek.remote(), timeout=T)
    with pytest.raises(CheckpointError, match="no good checkpoint"):
        actorlib.restore(durable(), checkpoint_id.replace("/1", "/7"))
    with pytest.raises(ValueError, match="not the id of a checkpoint"):
        actorlib.restore(durable(), "nonsense")
    with pytest.raises(ValueError, match="not the id of a checkpoint"):
        actorlib.restore(durable(), checkpoint_id.replace("/1", "/-1"))
    with pytest.raises(ValueError, match="position=-1"):
        actorlib.restore(durable(), checkpoint_id, position=-1)
    with pytest.raises(ValueError, match="not durable"):
        actorlib.restore(actorlib.remote(Base), checkpoint_id)
    other = actorlib.restore(durable(type("Other", (), {"look": lambda self: 1})), checkpoint_id)
    with pytest.raises(ActorDiedError, match="is of a Base"):
        actorlib.get(other.look.remote(), timeout=T)


def test_the_log_tells_the_last_calls():
    actor = durable().remote()
    with pytest.raises(TypeError):
        actorlib.get([actor.add.remote(1), actor.add.remote("x")], timeout=T)
    rows = state.actor_log(actor)
    assert [(row.position, row.method, row.sequence, row.outcome) for row in rows] == [
        (2, "add", 1, "EXCEPTION"),
        (1, "add", 0, "OK"),
    ]
    assert rows[0].caller == rows[1].caller
    kill_process_of(actor)
    assert [row.position for row in state.actor_log(actor, limit=1)] == [2]
    plain = actorlib.remote(Base).remote()
    with pytest.raises(ValueError, match="not durable"):
        state.actor_log(plain)


class Doubled(Base):
    def __restore__(self, state):
        self.value = 2 * state["value"]

    def halve(self):
        self.value //= 2
        return self.value


class Refuses(Base):
    def __restore__(self, state):
        raise RuntimeError("not mine")


def test_new_code_takes_over_at_a_checkpoint():
    actor = durable().remote()
    assert actorlib.get([actor.add.remote(3), actor.add.remote(4)], timeout=T) == [3, 7]
    with pytest.raises(RuntimeError, match="not mine"):
        actor.upgrade(durable(Refuses))
    assert actorlib.get(actor.peek.remote(), timeout=T) == 7
    actor.upgrade(durable(Doubled))
    assert actorlib.get(actor.halve.remote(), timeout=T) == 7
    assert [row.method for row in state.actor_log(actor)] == ["halve", "add", "add"]
    kill_process_of(actor)
    # Back from the checkpoint that Base took: 7 is doubled again, then halve() is run again.
    assert actorlib.get(actor.add.remote(1), timeout=T) == 8


def test_a_restore_that_raises_falls_back_and_then_gives_up():
    class Fragile(Base):
        def __restore__(self, state):
            if state["value"] >= 100:
                raise RuntimeError("too large")
            self.__dict__.update(state)

    actor = durable(Fragile).remote()
    actorlib.get([actor.add.remote(1), actor.save.remote(), actor.add.remote(200), actor.save.remote()], timeout=T)
    kill_process_of(actor)
    assert actorlib.get(actor.peek.remote(), timeout=T) == 201  # from the first checkpoint and the log since
    actorlib.get([actor.save.remote(), actor.save.remote()], timeout=T)
    kill_process_of(actor)
    with pytest.raises(ActorDiedError, match=r"no checkpoint of Fragile can be used.*too large"):
        actorlib.get(actor.peek.remote(), timeout=T)


@actorlib.remote(num_cpus=0)
class Caller:
    """Gives what its call gave, or the name of the error."""

    def add(self, actor):
        try:
            return actorlib.get(actor.add.remote(), timeout=T)
        except StateRolledBackError as error:
            return type(error).__name__


def test_each_caller_whose_calls_are_lost_is_told_once_and_nobody_else(session):
    actor, early, late, new = durable().remote(), Caller.remote(), Caller.remote(), Caller.remote()
    assert actorlib.get(early.add.remote(actor), timeout=T) == 1
    assert actorlib.get(actor.save.remote(), timeout=T) == 1
    assert actorlib.get([late.add.remote(actor), late.add.remote(actor)], timeout=T) == [2, 3]
    pid = actorlib.get(actor.peek_pid.remote(), timeout=T)
    shutil.rmtree(log_directory(session, actor))
    os.kill(pid, signal.SIGKILL)
    calls = [caller.add.remote(actor) for caller in (new, early)]
    assert sorted(actorlib.get(calls, timeout=T)) == [2, 3], "what they know of it is true"
    assert actorlib.get([late.add.remote(actor) for _ in range(3)], timeout=T) == ["StateRolledBackError", 4, 5]
    assert actorlib.get(actor.add.remote(), timeout=T) == 6


def test_callers_are_told_once_when_more_is_lost_than_the_level_covers(session):
    actor = durable().remote()
    actorlib.get([actor.add.remote(), actor.save.remote(), actor.add.remote(), actor.add.remote()], timeout=T)
    pid = actorlib.get(actor.peek_pid.remote(), timeout=T)
    shutil.rmtree(log_directory(session, actor))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(StateRolledBackError, match="was not run"):
        actorlib.get(actor.add.remote(), timeout=T)
    assert actorlib.get(actor.add.remote(), timeout=T) == 2
    kill_process_of(actor)
    assert actorlib.get(actor.add.remote(), timeout=T) == 3


class Arrays(Base):
    def __init__(self):
        super().__init__()
        self.arrays = [np.zeros(30_000) for _ in range(5)]

    def change(self, which):
        self.arrays[which] += 1
        actorlib.checkpoint_now()
        return float(sum(array.sum() for array in self.arrays))


@pytest.mark.parametrize("kind", ["directory", "url"])
def test_arrays_that_did_not_change_are_not_written_again(tmp_path, kind):
    url = str(tmp_path / "store") if kind == "directory" else f"file://{tmp_path}/store"
    actor = durable(Arrays, store=url, keep=2).remote()
    assert actorlib.get(actor.change.remote(0), timeout=T) == 30_000

    def chunks():
        return {path: os.stat(path).st_mtime_ns for path in glob.glob(f"{tmp_path}/store/*/chunk-*")}

    first = chunks()
    assert len(first) == 2  # four arrays are the same
    assert actorlib.get(actor.change.remote(1), timeout=T) == 60_000
    second = chunks()
    assert first.items() <= second.items() and len(second) == 2
    for which in (2, 2):
        actorlib.get(actor.change.remote(which), timeout=T)
    assert len(glob.glob(f"{tmp_path}/store/*/checkpoint-*")) == 2
    kill_process_of(actor)
    assert actorlib.get(actor.change.remote(3), timeout=T) == 150_000


def test_a_torn_checkpoint_is_passed_over(tmp_path, capfd):
    actor = durable(Arrays, store=str(tmp_path)).remote()
    actorlib.get([actor.change.remote(0), actor.change.remote(1), actor.add.remote(9)], timeout=T)
    newest = sorted(glob.glob(f"{tmp_path}/*/checkpoint-*"))[-1]
    with open(newest, "r+b") as file:
        file.seek(10)
        file.write(b"torn")
    kill_process_of(actor)
    assert actorlib.get(actor.change.remote(2), timeout=T) == 90_000
    assert actorlib.get(actor.peek.remote(), timeout=T) == 9
    eventually(lambda: "checkpoint 2 is torn" in capfd.readouterr().err)


def test_a_store_that_cannot_be_written_to_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").touch()
    actor = durable(Arrays, store=str(tmp_path / "file")).remote()
    with pytest.raises(CheckpointError, match="can't be written to"):
        actorlib.get(actor.change.remote(0), timeout=T)
    assert actorlib.get(actor.add.remote(2), timeout=T) == 2
    kill_process_of(actor)
    assert actorlib.get(actor.peek.remote(), timeout=T) == 2


def test_unfit_options_are_refused():
    for options in ({"max_concurrency": 2}, {"concurrency_groups": {"io": 1}}, {"allow_out_of_order_execution": True}):
        with pytest.raises(ValueError, match="one call at a time"):
            actorlib.remote(checkpoint=1, **options)(Base)
    with pytest.raises(ValueError, match="durability must be one of"):
        Checkpoint(durability="paper")
    with pytest.raises(TypeError, match="store must be"):
        Checkpoint(store=7)
    with pytest.raises(ValueError, match="checkpoint_now"):
        actorlib.checkpoint_now()
    assert actorlib.record(lambda a, b: a + b, 1, b=2) == 3


def test_what_lies_in_state_must_be_picklable(capfd):
    class Locked(Base):
        def lock(self):
            self.lock = threading.Lock()
            actorlib.checkpoint_now()

    actor = durable(Locked).remote()
    with pytest.raises(Exception, match=r"lock"):
        actorlib.get(actor.lock.remote(), timeout=T)
