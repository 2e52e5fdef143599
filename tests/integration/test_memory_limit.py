"""A worker that the kernel kills for lack of memory, in a control group of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

MIB = 1 << 20


@pytest.fixture
def small_group():
    """A control group with 400 MiB: the file to which a process writes its pid to enter."""
    name = f"actorlib-test-{os.getpid()}"
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / name
        try:
            group.mkdir()
            (group / limit).write_text(str(400 * MIB))
        except OSError:
            if group.is_dir():
                group.rmdir()
            continue
        break
    else:
        pytest.skip("no control group with a memory limit can be made here")
    yield group / "cgroup.procs"
    deadline = time.monotonic() + 10
    while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    group.rmdir()


def test_a_worker_killed_for_memory_is_told_as_such(small_group):
    code = textwrap.dedent(
        """
        import actorlib, sys

        actorlib.init(num_cpus=1, object_store_memory=64 << 20)

        @actorlib.remote(max_retries=1)
        def greedy():
            return len(bytearray(b"x") * (1 << 30))

        @actorlib.remote
        def modest():
            return "goes on"

        try:
            actorlib.get(greedy.remote(), timeout=60)
        except actorlib.exceptions.OutOfMemoryError as error:
            print(error)
        print(actorlib.get(modest.remote(), timeout=30))
        actorlib.shutdown()
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=lambda: small_group.write_text(str(os.getpid())),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "greedy" in done.stdout and "lack of memory" in done.stdout and "all 2 attempts" in done.stdout, done
    assert done.stdout.strip().endswith("goes on"), done
