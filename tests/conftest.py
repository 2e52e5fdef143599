"""Fixtures, and the check that every test leaves the machine as it found it."""

from __future__ import annotations

import glob
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import actorlib
from actorlib.transport.drivers.processes import children_of


def _left_behind() -> dict[str, list[str]]:
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("actorlib")]
    return {
        "processes": [str(pid) for pid in children_of(os.getpid())],
        "shared memory": glob.glob("/dev/shm/actorlib-*"),
        "directories": glob.glob(f"/tmp/actorlib-{os.getuid()}/s-*"),
        "threads": [name for name in threads if name != "actorlib-futures_0"],
    }


def eventually(condition: Callable[[], Any], timeout_s: float = 30.0, otherwise: Callable[[], str] = str) -> Any:
    """Wait for a condition, and give what it gives. Fails, with the text of ``otherwise``, if that never is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, otherwise() or f"it did not happen within {timeout_s} s"
        time.sleep(0.01)
    return found


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """No process, thread, shared memory or directory may be there that was not there before."""
    before = _left_behind()
    yield
    if actorlib.is_initialized():
        return  # a session shared by the tests of a module; its own fixture ends it

    def extra() -> dict[str, list[str]]:
        now = _left_behind()
        return {kind: sorted(set(now[kind]) - set(before[kind])) for kind in now if set(now[kind]) - set(before[kind])}

    eventually(lambda: not extra(), otherwise=lambda: f"left behind: {extra()}")


def living_references() -> dict[str, int]:
    """What this process's owner table still holds."""
    engine = actorlib.engine.Slot.engine
    return {oid.hex(): count for oid, count in engine.table.living().items()}


@pytest.fixture
def local() -> Iterator[None]:
    """A session of its own with 2 CPUs; at its end every core's invariants hold."""
    actorlib.init(num_cpus=2)
    try:
        yield
        engine = actorlib.engine.Slot.engine
        if engine is not None and not engine.closed:
            engine.loop.run(engine.check)
    finally:
        actorlib.shutdown()


@pytest.fixture(scope="module")
def shared_local() -> Iterator[None]:
    """One session for all tests of a module."""
    actorlib.init(num_cpus=2)
    try:
        yield
    finally:
        actorlib.shutdown()
