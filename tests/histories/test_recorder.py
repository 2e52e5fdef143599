"""Histories of actors, recorded in simulated clusters and in real ones."""

from __future__ import annotations

import threading
import time
import xml.etree.ElementTree as ElementTree

import pytest

import actorlib
from actorlib.testing import Fault, history, simulate
from actorlib.testing.histories import (
    MAYBE,
    Counter,
    NotLinearizable,
    PlainModel,
    Raised,
    Register,
    Undecided,
    Verdict,
)
from actorlib.testing.histories.recorder import Drawings, find_watched


@actorlib.remote
class Cell:
    def __init__(self):
        self.value = None

    def read(self):
        return self.value

    def write(self, value):
        self.value = value

    def fail(self):
        raise KeyError("nothing")

    def both(self):
        return 1, 2


@actorlib.remote
class Tally:
    def __init__(self):
        self.total = 0

    def add(self, amount=1):
        self.total += amount
        return self.total


@actorlib.remote
def count(watched, times):
    for _ in range(times):
        actorlib.get(watched.add.remote())


@pytest.fixture(autouse=True)
def drawings(tmp_path, monkeypatch):
    monkeypatch.setattr(Drawings, "directory", tmp_path)
    monkeypatch.setattr(Drawings, "prefix", "")
    return tmp_path


def test_calls_results_and_exceptions_are_recorded():
    with simulate(seed=1, nodes=2), history() as recorded:
        cell = recorded.watch(Cell.remote(), client="me")
        actorlib.get([cell.write.remote(4), cell.read.options(timeout_s=50).remote()])
        with pytest.raises(KeyError):
            actorlib.get(cell.fail.remote())
        write, read, failed = recorded.operations
        assert (write.name, write.args, write.result, write.client) == ("write", (4,), None, "me")
        assert read.result == 4 and failed.result == Raised("KeyError", ("nothing",))
        assert write.began_s < write.ended_s <= read.ended_s < failed.began_s < failed.ended_s
        del cell


def test_a_healthy_actor_under_several_simulated_callers_is_linearizable():
    with simulate(seed=3, nodes=3), history() as recorded:
        tally = recorded.watch(Tally.remote())
        actorlib.get([count.remote(tally, 5) for _ in range(4)])
        assert len(recorded.operations) == 20
        assert len({one.client for one in recorded.operations}) > 1
        recorded.assert_linearizable(Counter())
        recorded.assert_linearizable(PlainModel(Tally))
        del tally


def test_a_call_lost_in_a_crash_may_have_happened():
    with simulate(seed=1, nodes=2) as world, history() as recorded:
        tally = Tally.options(max_restarts=-1).remote()
        watched = recorded.watch(tally)
        actorlib.get(tally.__ray_ready__.remote())
        lost = watched.add.remote()
        world.crash_actor(tally)
        with pytest.raises(actorlib.exceptions.ActorUnavailableError):
            actorlib.get(lost)
        assert actorlib.get(watched.add.remote()) == 1
        maybe, last = recorded.operations
        assert maybe.is_pending and maybe.result is MAYBE and not last.is_pending
        recorded.assert_linearizable(Counter())
        del tally, watched, lost


def test_an_actor_that_forgets_is_found_and_drawn(drawings):
    plan = [Fault("crash_actor", 0.05)]
    with simulate(seed=1, faults=plan, check=False), history("forgets") as recorded:
        tally = recorded.watch(Tally.options(max_restarts=-1, max_task_retries=-1).remote())
        for _ in range(10):
            actorlib.get(tally.add.remote())
            time.sleep(0.01)
        recorded.mark("the end")
        with pytest.raises(NotLinearizable, match=r"nothing explains: add\(\) -> 1") as caught:
            recorded.assert_linearizable(Counter())
    assert caught.value.drawing == drawings / "forgets.svg"
    assert caught.value.outcome.verdict is Verdict.NOT_LINEARIZABLE
    root = ElementTree.parse(caught.value.drawing).getroot()
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert any("fault crash_actor" in text for text in texts) and "the end" in texts
    colours = {element.get("fill") for element in root.iter() if element.tag.endswith("rect")}
    assert {"#ffc9c9", "#cfe3ff"} <= colours


def test_targets_are_judged_apart_and_time_has_a_limit():
    with simulate(seed=2), history() as recorded:
        left, right = (recorded.watch(Cell.remote(), target=name) for name in ("left", "right"))
        actorlib.get([left.write.remote(1), right.write.remote(2)])
        assert actorlib.get([left.read.remote(), right.read.remote()]) == [1, 2]
        recorded.assert_linearizable(Register())
        with pytest.raises(Undecided, match="no answer within"):
            recorded.assert_linearizable(Register(), time_limit_s=-1.0)
        del left, right


def test_what_can_not_be_recorded_is_refused():
    with simulate(seed=1), history() as recorded:
        cell = recorded.watch(Cell.remote())
        with pytest.raises(TypeError, match="needs the value"):
            cell.write.remote(actorlib.put(1))
        with pytest.raises(TypeError, match="one result"):
            cell.both.options(num_returns=2).remote()
        with pytest.raises(AttributeError):
            _ = cell.nothing
        with pytest.raises(RuntimeError, match="another process"):
            find_watched((0, 0), None, "", "")
        del cell


def add_one(tally):
    actorlib.get(tally.add.remote())


def test_real_processes_and_threads(local):
    with history() as recorded:
        tally = recorded.watch(Tally.remote())
        threads = [threading.Thread(target=add_one, args=(tally,), name=f"t{i}") for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        recorded.assert_linearizable(Counter())
        assert sorted(one.result for one in recorded.operations) == [1, 2, 3, 4]
        del tally, threads
