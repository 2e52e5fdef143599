"""Deadlines of calls, and cancelling what a call has started."""

from __future__ import annotations

import contextlib
import os
import time

import pytest

import actorlib
from tests.conftest import eventually


@actorlib.remote
def nap(seconds):
    time.sleep(seconds)
    return "awake"


@actorlib.remote
def note_and_nap(path, seconds):
    with open(path, "a") as target:
        target.write(f"{os.getpid()} began\n")
    try:
        time.sleep(seconds)
    except BaseException as error:
        with open(path, "a") as target:
            target.write(f"{type(error).__name__}\n")
        raise


def text(path):
    return path.read_text() if path.exists() else ""


def test_a_call_in_time_is_not_disturbed(shared_local):
    assert actorlib.get(nap.options(timeout_s=5).remote(0.01), timeout=10) == "awake"


def test_a_task_past_its_deadline_is_interrupted_and_says_so(shared_local, tmp_path):
    path = tmp_path / "notes"
    ref = note_and_nap.options(timeout_s=0.3).remote(str(path), 60)
    with pytest.raises(actorlib.exceptions.DeadlineExceededError, match=r"not done within timeout_s=0\.3"):
        actorlib.get(ref, timeout=10)
    assert "KeyboardInterrupt" in text(path)


def test_a_queued_task_past_its_deadline_never_runs(shared_local, tmp_path):
    path = tmp_path / "notes"
    ref = note_and_nap.options(timeout_s=0.2, resources={"nowhere": 1}).remote(str(path), 0)
    with pytest.raises(TimeoutError, match="queued"):
        actorlib.get(ref, timeout=10)
    assert not path.exists()


def test_what_ignores_the_interrupt_is_killed(shared_local):
    @actorlib.remote(max_retries=5)
    def stubborn():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                continue

    started = time.monotonic()
    with pytest.raises(actorlib.exceptions.DeadlineExceededError):
        actorlib.get(stubborn.options(timeout_s=0.2).remote(), timeout=20)
    assert time.monotonic() - started < 10


def test_a_deadline_is_inherited_by_what_the_call_starts(shared_local, tmp_path):
    path = tmp_path / "notes"

    @actorlib.remote
    def parent(path):
        actorlib.get(note_and_nap.remote(path, 60))

    # The parent's own deadline or its child's, which it does not catch: both end at the same moment.
    with pytest.raises(actorlib.exceptions.DeadlineExceededError):
        actorlib.get(parent.options(timeout_s=1.0).remote(str(path)), timeout=10)
    eventually(lambda: "KeyboardInterrupt" in text(path))


def test_an_actor_call_past_its_deadline(shared_local):
    @actorlib.remote
    class Sleeper:
        def nap(self, seconds):
            time.sleep(seconds)
            return "awake"

    sleeper = Sleeper.remote()
    assert actorlib.get(sleeper.nap.remote(0), timeout=10) == "awake"
    with pytest.raises(actorlib.exceptions.DeadlineExceededError, match="nap"):
        actorlib.get(sleeper.nap.options(timeout_s=0.2).remote(60), timeout=10)
    assert actorlib.get(sleeper.nap.remote(0), timeout=10) == "awake"


def test_an_actor_call_that_ignores_the_interrupt_ends_in_a_kill_of_its_process(shared_local):
    @actorlib.remote(max_restarts=1)
    class Stubborn:
        def pid(self):
            return os.getpid()

        def ignore(self):
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    time.sleep(60)
                except KeyboardInterrupt:
                    continue

    stubborn = Stubborn.remote()
    before = actorlib.get(stubborn.pid.remote(), timeout=10)
    with pytest.raises(actorlib.exceptions.DeadlineExceededError, match="ignore"):
        actorlib.get(stubborn.ignore.options(timeout_s=0.2).remote(), timeout=20)
    assert actorlib.get(stubborn.pid.options(max_task_retries=3).remote(), timeout=30) != before
    down = actorlib.monitor(stubborn)
    with pytest.raises(actorlib.exceptions.DeadlineExceededError):
        actorlib.get(stubborn.ignore.options(timeout_s=0.2).remote(), timeout=20)
    told = actorlib.get(down, timeout=30)
    assert told.kind == "killed" and "ignore ran past its deadline" in told.reason


def test_a_recursive_cancel_reaches_the_children(shared_local, tmp_path):
    path = tmp_path / "notes"

    @actorlib.remote
    def parent(path):
        return actorlib.get([note_and_nap.remote(path, 60)])

    ref = parent.remote(str(path))
    eventually(lambda: "began" in text(path))
    actorlib.cancel(ref, recursive=True)
    with pytest.raises(actorlib.exceptions.TaskCancelledError):
        actorlib.get(ref, timeout=10)
    eventually(lambda: "KeyboardInterrupt" in text(path))


def test_a_cancel_that_is_not_recursive_leaves_the_children(shared_local, tmp_path):
    path = tmp_path / "notes"

    @actorlib.remote
    def parent(path):
        return actorlib.get([note_and_nap.remote(path, 1.0)])

    ref = parent.remote(str(path))
    eventually(lambda: "began" in text(path))
    actorlib.cancel(ref, recursive=False)
    with pytest.raises(actorlib.exceptions.TaskCancelledError):
        actorlib.get(ref, timeout=10)
    time.sleep(1.2)  # the child's whole life
    assert "KeyboardInterrupt" not in text(path)


# -- code that looks itself --------------------------------------------------------------------------------------------
@actorlib.remote
def looks(path, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not actorlib.get_runtime_context().is_canceled():
        if not path.exists():
            path.write_text("began\n")
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with path.open("a") as target:
        target.write("ended by itself\n")
    return "ended by itself"


@actorlib.remote
def looks_and_ignores_it(path):
    try:
        while True:
            actorlib.get_runtime_context().is_canceled()
            path.touch()
            time.sleep(0.01)
    except KeyboardInterrupt:
        path.write_text("interrupted")
        raise


def test_a_task_that_looks_ends_by_itself_when_it_is_cancelled(shared_local, tmp_path):
    path = tmp_path / "notes"
    ref = looks.remote(path)
    eventually(path.exists)
    actorlib.cancel(ref)
    eventually(lambda: "ended by itself" in text(path))
    assert actorlib.get(ref, timeout=30) == "ended by itself"


def test_a_task_that_looks_ends_by_itself_at_its_deadline(shared_local, tmp_path):
    path = tmp_path / "notes"
    ref = looks.options(timeout_s=0.5).remote(path)
    eventually(lambda: "ended by itself" in text(path), 30.0)
    with contextlib.suppress(actorlib.exceptions.DeadlineExceededError):  # whichever was first
        assert actorlib.get(ref, timeout=30) == "ended by itself"


def test_an_actors_call_that_looks_ends_by_itself_at_its_deadline_and_the_actor_lives(shared_local, tmp_path):
    @actorlib.remote
    class Searcher:
        def search(self, path):
            while not actorlib.get_runtime_context().is_canceled():
                time.sleep(0.01)
            path.write_text("ended by itself")
            return os.getpid()

        def pid(self):
            return os.getpid()

    searcher, path = Searcher.remote(), tmp_path / "notes"
    pid = actorlib.get(searcher.pid.remote(), timeout=30)
    ref = searcher.search.options(timeout_s=0.5).remote(path)
    eventually(path.exists, 30.0)
    with contextlib.suppress(actorlib.exceptions.DeadlineExceededError):  # whichever was first
        assert actorlib.get(ref, timeout=30) == pid
    assert actorlib.get(searcher.pid.remote(), timeout=30) == pid


def test_who_looks_and_goes_on_is_interrupted_after_a_moment(shared_local, tmp_path):
    path = tmp_path / "notes"
    ref = looks_and_ignores_it.remote(path)
    eventually(path.exists)
    actorlib.cancel(ref)
    with pytest.raises(actorlib.exceptions.TaskCancelledError):
        actorlib.get(ref, timeout=30)
    assert text(path) == "interrupted"


def test_nobody_has_cancelled_the_driver(shared_local):
    assert actorlib.get_runtime_context().is_canceled() is False
