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

    def pid(self):
        return os.getpid()


def test_a_call_that_is_killed_at_its_deadline_counts_as_one_that_crashed_its_worker(tmp_path):
    notes = tmp_path / "notes"
    with actorlib.init(num_cpus=1):
        sticky = Sticky.remote()
        assert actorlib.get(sticky.add.remote(1), timeout=T) == 1
        stuck = sticky.stuck.options(timeout_s=0.5).remote(str(notes))
        after = sticky.add.remote(1)
        with pytest.raises(exceptions.DeadlineExceededError):
            actorlib.get(stuck, timeout=T)
        assert actorlib.get(after, timeout=T) == 2  # it is not run again for ever
        assert 1 <= len(notes.read_text().splitlines()) <= 3
        assert actorlib.get(sticky.add.remote(1), timeout=T) == 3


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
