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


def odd_outputs():
    os.close(1)
    os.close(2)


def odd_streams():
    sys.stdout.close()
    sys.stderr.close()


def odd_fork():
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def odd_child_that_lives_on():
    if os.fork() == 0:
        time.sleep(0.2)
        os._exit(3)


def odd_child_that_returns():
    """Both go on; what the child says must not be taken for the parent's word."""
    os.fork()
    return os.getpid()


@pytest.mark.parametrize("odd", [odd_outputs, odd_streams, odd_fork, odd_child_that_lives_on, odd_child_that_returns])
def test_what_user_code_does_to_its_process_is_mended_for_the_next_call(odd, capfd):
    @actorlib.remote
    class Host:
        def do(self, function):
            return function() or os.getpid()

        def look(self):
            print("still heard")
            sys.stdout.flush()
            os.fstat(1), os.fstat(2)
            return os.getpid()

    host = Host.remote()
    refs = [host.do.remote(odd), *[host.look.remote() for _ in range(3)]]
    pid = actorlib.get(refs[0], timeout=20)
    assert actorlib.get(refs, timeout=20) == [pid] * 4
    deadline, seen = time.monotonic() + 10, ""
    while "still heard" not in seen and time.monotonic() < deadline:
        time.sleep(0.01)
        seen += capfd.readouterr().out
    assert f"pid={pid}) still heard" in seen


def test_a_task_that_changes_directory_changes_it_for_nobody_else_and_an_actor_stays_where_it_went(tmp_path):
    @actorlib.remote
    def move():
        os.chdir(tmp_path)
        return "moved"

    @actorlib.remote
    def here():
        return os.getcwd()

    @actorlib.remote
    class Settler:
        def __init__(self):
            os.chdir(tmp_path)

        def here(self):
            return os.getcwd()

    refs = [(move if i % 5 == 0 else here).remote() for i in range(50)]
    assert set(actorlib.get(refs, timeout=20)) == {"moved", os.getcwd()}
    assert actorlib.get(Settler.remote().here.remote(), timeout=20) == str(tmp_path)


def test_a_hundred_megabytes_of_prints_hold_nobody_up_and_fill_no_memory(capfd):
    import psutil

    @actorlib.remote
    def talk():
        line = "a line of some length that is printed again and again " * 19 + "\n"
        for _ in range(100_000):
            sys.stdout.write(line)
        sys.stderr.write("x" * 20_000_000)  # and no end of the line
        return len(line) * 100_000

    node = psutil.Process(actorlib.engine.Slot.engine.address_info["node_pid"])
    before = node.memory_info().rss
    assert actorlib.get(talk.remote(), timeout=60) > 100_000_000
    assert actorlib.get(die.remote("alive"), timeout=20) == "alive"
    assert node.memory_info().rss - before < 64 << 20
    told = capfd.readouterr()
    assert "prints come too fast to be shown; all of them are in" in told.out
    assert len(told.out) < 30_000_000


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
