"""Start and end of a session, and what is left afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import actorlib
from actorlib.transport.drivers.link_layer import SocketLink


def test_use_after_shutdown_says_so():
    actorlib.init(num_cpus=1)
    actorlib.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        actorlib.put(1)
    assert not actorlib.is_initialized()


def test_init_as_a_context_and_again():
    for _ in range(2):
        with actorlib.init(num_cpus=1) as context:
            assert actorlib.is_initialized() and context.address_info["node_id"]
            assert actorlib.get(actorlib.put(1)) == 1
        assert not actorlib.is_initialized()


def test_nobody_turns_the_loop_while_a_process_is_made(monkeypatch):
    """What it sends first, before anybody drives, is not taken for sent by a thread that turns the loop meanwhile."""

    def send_slowly(self, message):
        if not self.is_down:
            if not self.pending:
                self.loop.dirty.append(self)
                time.sleep(0.02)  # twenty looks of the helper
            self.pending.append(message)

    monkeypatch.setattr(SocketLink, "send", send_slowly)
    with actorlib.init(num_cpus=1):
        assert actorlib.get(actorlib.put(1), timeout=20) == 1


@pytest.mark.parametrize("engine", ["local", "inline"])
def test_the_sessions_runtime_env_is_below_that_of_a_call(engine):
    def look():
        return [os.environ.get(name) for name in ("SESSION_WIDE", "IN_BOTH")]

    @actorlib.remote
    class Looking:
        def look(self):
            return look()

        def nested(self):
            return actorlib.get(actorlib.remote(look).remote())

    task = actorlib.remote(look)
    own = {"env_vars": {"IN_BOTH": "call"}}
    with actorlib.init(
        engine=engine, num_cpus=2, runtime_env={"env_vars": {"SESSION_WIDE": "a", "IN_BOTH": "session"}}
    ):
        assert actorlib.get(task.remote()) == ["a", "session"]
        assert actorlib.get(task.options(runtime_env=own).remote()) == ["a", "call"]
        handle = Looking.options(runtime_env=own).remote()
        assert actorlib.get(handle.look.remote()) == ["a", "call"]
        assert actorlib.get(handle.nested.remote()) == ["a", "call"], "what an actor starts has what the actor has"


def test_starting_changes_nothing_of_the_users():
    random.seed(5)
    expected = random.Random(5).random()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
    with actorlib.init(num_cpus=1):
        assert random.random() == expected
        assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_handles_and_refs_of_an_earlier_session_are_refused():
    @actorlib.remote
    class Thing:
        def ping(self):
            return 1

    actorlib.init(num_cpus=1)
    thing = Thing.remote()
    assert actorlib.get(thing.ping.remote(), timeout=10) == 1
    actorlib.shutdown()
    actorlib.init(num_cpus=1)
    try:
        with pytest.raises(actorlib.exceptions.ActorDiedError, match="another session"):
            actorlib.get(thing.ping.remote(), timeout=10)
    finally:
        del thing
        actorlib.shutdown()


def test_a_killed_driver_leaves_nothing_behind(tmp_path):
    code = textwrap.dedent(
        """
        import sys, time, os
        import actorlib
        actorlib.init(num_cpus=2)
        @actorlib.remote
        class A:
            def pid(self): return os.getpid()
        a = A.remote()
        import numpy as np
        ref = actorlib.put(np.ones(1_000_000))
        print(actorlib.get(a.pid.remote()), actorlib.engine.Slot.engine.address_info["node_pid"], flush=True)
        time.sleep(600)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    alive = pids
    while alive and time.monotonic() < deadline:
        alive = [pid for pid in alive if os.path.exists(f"/proc/{pid}")]
        time.sleep(0.01)
    assert not alive


def test_a_dead_node_fails_what_waits(capfd):
    actorlib.init(num_cpus=1)
    try:

        @actorlib.remote
        def slow():
            time.sleep(60)

        ref = slow.remote()
        pid = actorlib.engine.Slot.engine.address_info["node_pid"]
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(actorlib.exceptions.NodeDiedError, match="init"):
            actorlib.get(ref, timeout=20)
    finally:
        actorlib.shutdown()


def test_several_threads_of_the_driver_use_the_session_at_once(local):
    @actorlib.remote
    def double(x):
        return 2 * x

    results: dict[int, list[int]] = {}

    def work(k: int) -> None:
        results[k] = [actorlib.get(double.remote(i)) for i in range(k, k + 50)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {k: [2 * i for i in range(k, k + 50)] for k in range(6)}


def test_resources_return_to_the_total(local):
    @actorlib.remote
    def work(x):
        return x

    actorlib.get([work.remote(i) for i in range(100)], timeout=10)
    deadline = time.monotonic() + 5
    while actorlib.available_resources() != actorlib.cluster_resources() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert actorlib.available_resources() == actorlib.cluster_resources()


def test_debug_mode_checks_and_traces(tmp_path):
    code = textwrap.dedent(
        """
        import faulthandler, glob, os, signal
        import actorlib
        actorlib.init(num_cpus=1)
        assert faulthandler.is_enabled()
        @actorlib.remote
        def f(x): return x
        @actorlib.remote
        def is_enabled(): return faulthandler.is_enabled()
        assert actorlib.get(is_enabled.remote())
        assert actorlib.get([f.remote(i) for i in range(50)]) == list(range(50))
        session = actorlib.engine.Slot.engine.address_info["session_dir"]
        traces = glob.glob(session + "/logs/trace-*.log")
        assert len(traces) >= 3, traces
        assert any("RunTasks" in open(t).read() for t in traces)
        os.kill(actorlib.engine.Slot.engine.address_info["node_pid"], signal.SIGSEGV)
        try:
            while True:
                actorlib.get(f.remote(1))
        except actorlib.exceptions.NodeDiedError:
            print("ok")
        actorlib.shutdown()
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ACTORLIB_DEBUG": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip().endswith("ok"), done.stderr
    assert "Fatal Python error: Segmentation fault" in done.stderr and "in serve_forever" in done.stderr


def test_importing_it_loads_neither_an_engine_nor_what_only_engines_need():
    """What a program pays that only defines remote functions; the list is the whole of it."""
    code = "import sys, actorlib; print(*sorted(name for name in sys.modules if name.startswith('actorlib.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "actorlib.engine" in loaded
    assert not [name for name in loaded if name.startswith(("actorlib.runtime.", "actorlib.store", "actorlib.gcs"))]
    assert [name for name in loaded if name.startswith("actorlib.engines")] == [
        "actorlib.engines",
        "actorlib.engines.registry",
    ]
    code = (
        "import sys, actorlib; print(*(n for n in ('ray', 'zmq', 'numpy', 'lmdb', 'cloudpickle') if n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_a_forked_copy_of_the_driver_leaves_the_session_to_its_parent():
    code = textwrap.dedent(
        """
        import os, sys
        import actorlib
        actorlib.init(num_cpus=1)
        @actorlib.remote
        def double(x): return 2 * x
        refs = [double.remote(i) for i in range(300)]
        child = os.fork()
        if child == 0:
            try:
                actorlib.get(refs[0])
            except RuntimeError as error:
                assert "forked from one that uses actorlib" in str(error), error
                del refs
                sys.exit(7)  # runs what is registered to run at the end
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7, status
        assert actorlib.get(refs) == [2 * i for i in range(300)]
        assert os.path.exists(actorlib.engine.Slot.engine.address_info["session_dir"])
        assert actorlib.get(double.remote(5)) == 10
        actorlib.shutdown()
        print("ok")
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "ok", done.stderr


def test_the_first_use_starts_a_session():
    code = textwrap.dedent(
        """
        import actorlib
        assert not actorlib.is_initialized()
        @actorlib.remote
        def double(x): return 2 * x
        assert actorlib.get(double.remote(21)) == 42
        assert actorlib.is_initialized()
        print("ok")  # and no shutdown(): the end of the program is enough
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "ok", done.stderr
