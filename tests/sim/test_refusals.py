"""What can't be simulated is refused by name, with the way out; what stands still is found out."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request

import pytest

import actorlib
from actorlib.testing import NotSimulated, simulate

CALLS = {
    "socket.socket()": lambda: socket.socket(),
    "socket.getaddrinfo()": lambda: socket.create_connection(("localhost", 1)),
    "subprocess.Popen()": lambda: subprocess.run(["true"], check=True),
    "os.fork()": lambda: os.fork(),
    "os.system()": lambda: os.system("true"),
    "os.waitpid()": lambda: os.waitpid(-1, 0),
    "multiprocessing.Process.start()": lambda: multiprocessing.get_context("fork").Process(target=print).start(),
    "select.select()": lambda: select.select([0], [], [], 1.0),
    "select.epoll()": lambda: select.epoll(),
    "selectors.SelectSelector.select()": lambda: selectors.SelectSelector().select(1.0),
    "signal.sigwait()": lambda: signal.sigwait([signal.SIGUSR1]),
    "asyncio's add_reader()": lambda: asyncio.run(read_later()),
}


async def read_later():
    asyncio.get_running_loop().add_reader(0, print)


@pytest.mark.parametrize("name", CALLS)
def test_what_leaves_the_world_is_refused_by_name(name):
    with simulate(seed=1), pytest.raises(NotSimulated) as told:
        CALLS[name]()
    assert str(told.value).startswith(name) and 'mode="process"' in str(told.value)


@actorlib.remote
def fetch():
    return urllib.request.urlopen("http://localhost:1/").read()


def test_a_task_that_opens_a_connection_fails_with_the_way_out():
    with simulate(seed=1), pytest.raises(actorlib.exceptions.TaskError, match=r'mode="process"'):
        actorlib.get(fetch.remote())


def test_all_of_it_is_there_again_outside():
    with simulate(seed=1):
        pass
    with socket.socket() as real:
        assert real.fileno() >= 0
    assert subprocess.run(["true"], check=False).returncode == 0


BLOCKS = """
    import ctypes, os, sys
    from actorlib.testing import NotSimulated, clocks, simulate, watchdog

    watchdog.EVERY_S = 0.2
    there, here = os.pipe()
    try:
        with simulate(seed=1):
            {blocks}
    except NotSimulated as error:
        print("refused:", error)
"""


@pytest.mark.parametrize(
    "blocks", ["os.read(there, 1)", "for _ in range(9): ctypes.CDLL(None).pause()"], ids=["read", "C"]
)
def test_a_call_that_blocks_is_found_by_the_watchdog(blocks):
    code = textwrap.dedent(BLOCKS).format(blocks=blocks)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "refused: the simulation has stood still for 0.2 s in <module>" in done.stdout, done.stdout + done.stderr


def test_a_seed_that_is_no_integer_is_refused():
    for seed in ("7", 1.5, None, True):
        with pytest.raises(TypeError, match="seed must be an integer"), simulate(seed=seed):
            pass
