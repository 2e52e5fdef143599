"""Durable actors on real processes: calls past their deadline, changed code, reads that change the state."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time

import pytest

import actorlib
from actorlib import exceptions
from actorlib.util.state import actor_log

T = 90


@actorlib.remote(checkpoint=100, num_cpus=0)
class Sticky:
    def __init__(self):
        self.total = 0

    def add(self, amount):
        self.total += amount
        return self.total

    def stuck(self, notes):
        with open(notes, "a") as target:
            target.write("stuck\n")
        while True:
            time.sleep(0.02)

    def ask_and_be_stuck(self, notes, other):
        actorlib.get(other.add.remote(1))  # before that leaves, it is written that this call runs
        self.stuck(notes)

    @actorlib.method(readonly=True)
    def pid(self):
        return os.getpid()


def test_a_call_that_is_killed_at_its_deadline_counts_as_one_that_crashed_its_worker(tmp_path, capfd):
    notes = tmp_path / "notes"
    with actorlib.init(num_cpus=1):
        sticky, other = Sticky.remote(), Sticky.remote()
        assert actorlib.get(sticky.add.remote(1), timeout=T) == 1
        stuck = sticky.ask_and_be_stuck.options(timeout_s=0.5).remote(str(notes), other)
        after = sticky.add.remote(1)
        with pytest.raises(exceptions.DeadlineExceededError):
            actorlib.get(stuck, timeout=T)
        assert actorlib.get(after, timeout=T) == 2
        assert notes.read_text() == 3 * "stuck\n", "its own deadline, and two more when it was run again"
        row = next(row for row in actor_log(sticky) if row.method == "ask_and_be_stuck")
        assert (row.position, row.outcome) == (2, "SYSTEM_ERROR")
        os.kill(actorlib.get(sticky.pid.remote(), timeout=T), signal.SIGKILL)
        assert actorlib.get(sticky.add.remote(1), timeout=T) == 3
        assert notes.read_text() == 3 * "stuck\n", "never again, whoever crashes"
        assert actorlib.get(other.add.remote(1), timeout=T) == 2, "it was asked once"
    assert "ask_and_be_stuck at position 2: it ended its worker 3 times in a row" in capfd.readouterr().err


def test_a_call_that_nobody_can_know_of_is_killed_at_its_deadline_once(tmp_path):
    notes = tmp_path / "notes"
    with actorlib.init(num_cpus=1):
        sticky = Sticky.remote()
        assert actorlib.get(sticky.add.remote(1), timeout=T) == 1
        assert actorlib.get(sticky.pid.remote(), timeout=T)  # what is to be said of the call before has been said
        stuck = sticky.stuck.options(timeout_s=0.5).remote(str(notes))
        with pytest.raises(exceptions.DeadlineExceededError):
            actorlib.get(stuck, timeout=T)
        assert actorlib.get(sticky.add.remote(1), timeout=T) == 2
        assert 1 <= len(notes.read_text().splitlines()) <= 3


# -- code that has changed ---------------------------------------------------------------------------------------------
SOURCE = """
class Account:
    def __init__(self):
        self.total = 0

    def add(self, amount):
        self.total += {step} * amount
        return self.total

    def pid(self):
        import os
        return os.getpid()
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The class of a module on disk, and a function that changes its source."""
    path = tmp_path / "account_of_test.py"
    path.write_text(SOURCE.format(step=1))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("account_of_test").Account, lambda: path.write_text(SOURCE.format(step=1000))
    sys.modules.pop("account_of_test", None)


def test_code_that_changed_does_not_run_the_log_of_the_old_one(module):
    cls, change = module
    with actorlib.init(num_cpus=1):
        account = actorlib.remote(checkpoint=2)(cls).remote()
        assert actorlib.get([account.add.remote(1) for _ in range(5)], timeout=T) == [1, 2, 3, 4, 5]
        pid = actorlib.get(account.pid.remote(), timeout=T)
        (newest,) = account.checkpoints()[-1:]
        change()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(exceptions.CodeChangedError, match=r"was changed while .* of its calls lie in the log"):
            actorlib.get(account.add.remote(1), timeout=T)
        # One of the ways out that it names: the last checkpoint, without the calls since, and with the new code.
        copy = actorlib.restore(actorlib.remote(checkpoint=2)(cls), newest["id"])
        assert actorlib.get(copy.add.remote(1), timeout=T) == newest["position"] + 1000


# -- reads that change the state ---------------------------------------------------------------------------------------
@actorlib.remote(checkpoint=100)
class Pretends:
    def __init__(self):
        self.reads = 0

    @actorlib.method(readonly=True)
    def looks(self):
        return self.reads

    @actorlib.method(readonly=True)
    def counts(self):
        self.reads += 1
        return self.reads


def test_a_read_that_changes_the_state_is_an_error_in_debug_mode(monkeypatch):
    monkeypatch.setenv("ACTORLIB_DEBUG", "1")
    with actorlib.init(num_cpus=1):
        pretends = Pretends.remote()
        assert actorlib.get(pretends.looks.remote(), timeout=T) == 0
        with pytest.raises(exceptions.ReplayDivergedError, match=r"Pretends.counts: it is readonly, but it changed"):
            actorlib.get(pretends.counts.remote(), timeout=T)
