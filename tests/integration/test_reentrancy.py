"""Calls that come back to a reentrant actor, and the order of calls that wait."""

from __future__ import annotations

import os
import time

import pytest

import actorlib
from actorlib.testing import simulate


class Ping:
    """Calls its partner, which calls back."""

    def __init__(self):
        self.seen = []
        self.partner = None

    def meet(self, partner):
        self.partner = partner

    def down(self, n):
        """n levels of calls, forth and back; each level runs while the one above waits."""
        self.seen.append(n)
        if n == 0:
            return ["bottom"]
        return [n, *actorlib.get(self.partner.down.remote(n - 1))]

    def log(self):
        return self.seen

    def through_a_task(self, me):
        @actorlib.remote(num_cpus=0)
        def relay(handle):
            return actorlib.get(handle.log.remote())

        self.seen.append("outer")
        return actorlib.get(relay.remote(me))

    def does_not_wait(self, me):
        """A call to itself that it does not wait for runs afterwards."""
        self.kept = me.log.remote()
        time.sleep(0.05)
        self.seen.append("after")

    def wait_for_file(self, path):
        while not os.path.exists(path):
            time.sleep(0.005)

    def fails(self, me):
        try:
            actorlib.get(me.broken.remote())
        except ZeroDivisionError:
            return "caught"

    def broken(self):
        raise ZeroDivisionError

    def note(self, what):
        self.seen.append(what)

    def sleepy(self, me, seconds):
        actorlib.get(me.wait_for_file.remote("/nowhere"), timeout=seconds)


Reentrant = actorlib.remote(num_cpus=0, reentrant=True)(Ping)
Plain = actorlib.remote(num_cpus=0)(Ping)


@pytest.fixture(scope="module", autouse=True)
def session():
    actorlib.init(num_cpus=2)
    yield
    actorlib.shutdown()


def pair():
    first, second = Reentrant.remote(), Reentrant.remote()
    actorlib.get([first.meet.remote(second), second.meet.remote(first)])
    return first, second


def test_a_call_that_comes_back_runs_while_its_caller_waits():
    first, second = pair()
    assert actorlib.get(first.down.remote(9), timeout=30) == [9, 8, 7, 6, 5, 4, 3, 2, 1, "bottom"]
    assert actorlib.get([first.log.remote(), second.log.remote()]) == [[9, 7, 5, 3, 1], [8, 6, 4, 2, 0]]


def test_also_by_way_of_a_task_and_at_once():
    actor = Reentrant.remote()
    assert actorlib.get(actor.through_a_task.remote(actor), timeout=30) == ["outer"]
    assert actorlib.get(actor.fails.remote(actor), timeout=30) == "caught"


def test_without_it_the_same_is_a_deadlock():
    first, second = Plain.remote(), Plain.remote()
    actorlib.get([first.meet.remote(second), second.meet.remote(first)])
    with pytest.raises(actorlib.exceptions.DeadlockError):
        actorlib.get(first.down.remote(2), timeout=30)


def test_calls_of_others_still_wait_for_their_turn(tmp_path):
    first, second = pair()
    gate = tmp_path / "gate"
    held = second.wait_for_file.remote(str(gate))
    outer = first.down.remote(2)  # waits at the second actor, which waits for the file
    other = first.note.remote("other")
    assert actorlib.wait([other], timeout=0.2)[0] == []
    gate.write_text("open")
    actorlib.get([held, outer, other], timeout=30)
    assert actorlib.get(first.log.remote()) == [2, 0, "other"]


def test_a_call_that_nobody_waits_for_runs_in_turn():
    actor = Reentrant.remote()
    actorlib.get(actor.does_not_wait.remote(actor), timeout=30)
    actorlib.get(actor.note.remote("later"))
    assert actorlib.get(actor.log.remote(), timeout=30) == ["after", "later"]


def test_a_call_inside_another_can_be_overdue():
    actor = Reentrant.remote()
    with pytest.raises(actorlib.exceptions.DeadlineExceededError):
        actorlib.get(actor.sleepy.options(timeout_s=0.3).remote(actor, 60), timeout=30)
    assert actorlib.get(actor.log.remote(), timeout=30) == []


@pytest.mark.parametrize("more", [{"max_concurrency": 2}, {"concurrency_groups": {"io": 1}}, {"checkpoint": 1}])
def test_where_it_makes_no_sense_it_is_refused(more):
    with pytest.raises(ValueError, match="reentrant"):
        actorlib.remote(reentrant=True, **more)(Ping)


def test_calls_with_a_priority_start_first(tmp_path):
    actor, gate = Plain.remote(), tmp_path / "gate"
    refs = [actor.wait_for_file.remote(str(gate))]
    refs += [actor.note.options(priority=p).remote((p, n)) for n in range(2) for p in (0, 5, -1, 9)]
    time.sleep(0.3)  # they are all queued there
    gate.write_text("open")
    actorlib.get(refs, timeout=30)
    expected = [(p, n) for p in (9, 5, 0, -1) for n in range(2)]
    assert actorlib.get(actor.log.remote()) == expected
    with pytest.raises((ValueError, TypeError), match="priority"):
        actor.note.options(priority="high")


def test_in_simulation():
    actorlib.shutdown()
    try:
        for seed in range(3):
            with simulate(seed=seed, nodes=2):
                first, second = pair()
                assert actorlib.get(first.down.remote(5)) == [5, 4, 3, 2, 1, "bottom"]
                # Handles in a circle keep each other: open it.
                actorlib.get([first.meet.remote(None), second.meet.remote(None)])
                del first, second
    finally:
        actorlib.init(num_cpus=2)
