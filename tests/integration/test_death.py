"""How workers die, and what their callers are told."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

import actorlib

pytestmark = pytest.mark.usefixtures("shared_local")


@actorlib.remote(max_retries=0)
def die(how):
    if how == "segfault":
        import ctypes

        ctypes.string_at(0)
    elif how == "_exit":
        print("last words", file=sys.stderr)
        os._exit(7)
    elif how == "exit":
        sys.exit(3)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("segfault", "SIGSEGV"),
        ("_exit", "exited with status 7"),
        ("exit", "exited with status 3"),
        ("kill", "SIGKILL"),
    ],
)
def test_the_error_says_how_the_worker_died(how, words):
    started = time.monotonic()
    with pytest.raises(actorlib.exceptions.WorkerCrashedError, match=words) as caught:
        actorlib.get(die.remote(how), timeout=10)
    assert time.monotonic() - started < 5
    assert "die" in str(caught.value) and "process" in str(caught.value)


def test_the_last_lines_of_stderr_and_the_stack_are_in_the_error():
    with pytest.raises(actorlib.exceptions.WorkerCrashedError, match="last words"):
        actorlib.get(die.remote("_exit"), timeout=10)
    with pytest.raises(actorlib.exceptions.WorkerCrashedError, match="in die"):
        actorlib.get(die.remote("segfault"), timeout=10)


def test_tasks_behind_a_crash_are_not_blamed():
    @actorlib.remote(max_retries=1)
    def poison():
        os._exit(1)

    @actorlib.remote(max_retries=1)
    def fine(x):
        return x

    actorlib.get([fine.remote(i) for i in range(100)], timeout=10)
    bad = poison.remote()
    good = [fine.remote(i) for i in range(200)]
    assert actorlib.get(good, timeout=20) == list(range(200))
    with pytest.raises(actorlib.exceptions.WorkerCrashedError, match="all 2 attempts"):
        actorlib.get(bad, timeout=20)


def test_a_task_is_retried_on_another_worker(tmp_path):
    marks = tmp_path / "marks"

    @actorlib.remote(max_retries=3)
    def flaky():
        with open(marks, "a") as target:
            target.write("x")
        if marks.stat().st_size < 3:
            os._exit(1)
        return marks.stat().st_size

    assert actorlib.get(flaky.remote(), timeout=20) == 3


def test_a_task_that_may_not_be_retried_runs_at_most_once(tmp_path):
    marks = tmp_path / "marks"

    @actorlib.remote(max_retries=0)
    def once(i):
        with open(marks, "a") as target:
            target.write(f"{i} ")
        if i == 5:
            os._exit(1)
        return i

    refs = [once.remote(i) for i in range(20)]
    with pytest.raises(actorlib.exceptions.WorkerCrashedError):
        actorlib.get(refs[5], timeout=20)
    assert actorlib.get(refs[:5] + refs[6:], timeout=20) == [*range(5), *range(6, 20)]
    ran = marks.read_text().split()
    assert len(ran) == len(set(ran)) == 20


def test_force_cancel_kills_the_worker_and_nothing_is_retried(tmp_path):
    marks = tmp_path / "marks"

    @actorlib.remote
    def stubborn():
        with open(marks, "a") as target:
            target.write("x")
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                continue

    ref = stubborn.remote()
    deadline = time.monotonic() + 10
    while not marks.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    actorlib.cancel(ref, force=True)
    with pytest.raises(actorlib.exceptions.TaskCancelledError):
        actorlib.get(ref, timeout=10)
    assert marks.read_text() == "x"


def test_children_of_a_killed_worker_are_swept():
    @actorlib.remote
    class Host:
        def child(self):
            import subprocess

            self.process = subprocess.Popen(["sleep", "600"])
            return self.process.pid

    host = Host.remote()
    pid = actorlib.get(host.child.remote(), timeout=10)
    actorlib.kill(host)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("the simulator outlived its host")


def test_a_worker_that_closes_its_stdout_or_changes_directory_or_forks_goes_on():
    @actorlib.remote
    def odd():
        os.chdir("/")
        os.close(1)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return "fine"

    assert actorlib.get(odd.remote(), timeout=10) == "fine"


def test_many_prints_do_not_block(capfd):
    @actorlib.remote
    def talk():
        for i in range(20_000):
            print("a line of some length that is printed again and again", i)
        return "done"

    assert actorlib.get(talk.remote(), timeout=30) == "done"


def test_prints_reach_the_driver(capfd):
    @actorlib.remote
    def hello():
        print("hello from a worker")
        return os.getpid()

    pid = actorlib.get(hello.remote(), timeout=10)
    deadline, seen = time.monotonic() + 5, ""
    while "hello from a worker" not in seen and time.monotonic() < deadline:
        time.sleep(0.01)
        seen += capfd.readouterr().out
    assert f"pid={pid}) hello from a worker" in seen
