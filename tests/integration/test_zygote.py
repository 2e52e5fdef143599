"""The zygote can die: its workers go on, and the node forks from another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

import actorlib
from actorlib.transport.drivers.processes import children_of, process_name
from tests.conftest import eventually

NAME = "actorlib:zygote"


def node_pid() -> int:
    return next(pid for pid in children_of(os.getpid()) if process_name(pid) == "actorlib:node")


def zygote_pid() -> int | None:
    return next((pid for pid in children_of(node_pid()) if process_name(pid) == NAME), None)


@actorlib.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count

    def pid(self):
        return os.getpid()


def test_workers_go_on_and_others_are_started_when_the_zygote_dies(local):
    counter = Counter.remote()
    assert actorlib.get(counter.add.remote(), timeout=60) == 1
    pid, node, zygote = actorlib.get(counter.pid.remote(), timeout=60), node_pid(), zygote_pid()
    os.kill(zygote, signal.SIGKILL)
    others = [Counter.remote() for _ in range(6)]  # more than are kept ready
    assert actorlib.get([other.add.remote() for other in others], timeout=60) == [1] * 6
    assert actorlib.get(counter.add.remote(), timeout=60) == 2
    assert actorlib.get(counter.pid.remote(), timeout=60) == pid
    assert node_pid() == node and zygote_pid() not in (None, zygote)


def test_what_the_zygote_was_about_to_fork_is_started_by_the_next_one(local):
    for _ in range(3):
        others = [Counter.remote() for _ in range(4)]
        assert eventually(lambda: zygote_pid() is not None, 30)
        os.kill(zygote_pid(), signal.SIGKILL)
        assert actorlib.get([other.add.remote() for other in others], timeout=60) == [1] * 4


def test_a_worker_of_a_dead_zygote_is_seen_to_end(local):
    counter = Counter.options(max_restarts=0).remote()
    pid = actorlib.get(counter.pid.remote(), timeout=60)
    os.kill(zygote_pid(), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(actorlib.exceptions.ActorDiedError, match="SIGKILL"):
        actorlib.get(counter.add.remote(), timeout=60)


def test_zygotes_that_die_at_once_are_given_up():
    program = textwrap.dedent("""
        import select
        from actorlib.scheduler.drivers.zygote import DEATHS_MAX, ZygoteClient

        client, pids = ZygoteClient("no_such_module", []), set()
        pids.add(client.pid)
        while client.reports(lambda *report: None):
            pids.add(client.pid)
            select.select([client], [], [])
        assert len(pids) == DEATHS_MAX, pids
        client.close()
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("No module named 'no_such_module'") == 5


def test_its_end_waits_for_nobody_who_has_its_socket_by_chance():
    """As workers of another zygote have that was forked later."""
    program = textwrap.dedent(
        """
        import os
        from actorlib.scheduler.drivers.zygote import ZygoteClient

        client = ZygoteClient("json", [])
        held = os.dup(client._socket.fileno())
        client.close()
        print("closed")
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "closed\n", done.stderr


def test_workers_that_are_ordered_together_share_no_output():
    """Each one's pipe ends with it, though the others, born of the same go-between, live on."""
    program = textwrap.dedent(
        """
        import os, select, signal, sys, types
        from actorlib.scheduler.drivers import zygote
        from actorlib.transport.drivers.processes import become_subreaper

        become_subreaper()
        module = types.ModuleType("waiting")
        module.main = lambda config: (os.write(1, b"here"), signal.pause())
        sys.modules["waiting"] = module
        client, started, ended = zygote.ZygoteClient("waiting", []), {}, {}

        def take(kind, worker_id, pid, status):
            assert kind in ("started", "ended"), kind
            (started if kind == "started" else ended)[worker_id] = pid

        def until(condition):
            while not condition():
                select.select([client], [], [], 10)
                client.reports(take)

        os.kill(client.pid, signal.SIGSTOP)  # so that all orders are there when it looks
        names = [b"%d" % number for number in range(zygote.ORDERS_TOGETHER_MAX + 1)]
        pipes = {}
        for name in names:
            pipes[name], theirs = os.pipe()
            client.fork({"process_id": name}, theirs, os.open("/dev/null", os.O_WRONLY))
        os.kill(client.pid, signal.SIGCONT)
        until(lambda: len(started) == len(names))
        assert all(os.read(pipes[name], 10) == b"here" for name in names)
        for name in names:
            os.kill(started[name], signal.SIGKILL)
            assert os.read(pipes[name], 10) == b"", name
        until(lambda: len(ended) == len(names))
        client.close()
        print("closed")
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "closed\n", done.stderr
