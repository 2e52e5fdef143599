"""A machine that says nothing any more: it is lost after a while, and told to end when it comes back."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

import actorlib
from actorlib.transport import limits


@actorlib.remote(num_cpus=0, max_restarts=1, max_task_retries=-1)
class Keeper:
    def node(self):
        return actorlib.get_runtime_context().get_node_id()

    def hold(self):
        time.sleep(600)


def test_a_silent_machine_is_lost_and_fenced_when_it_speaks_again(machines):
    machines.start_head()
    there = machines.add(resources={"there": 1})
    machines.join()
    gone = there.address.node_id.hex()
    pinned = Keeper.options(resources={"there": 0.1}, max_restarts=0, max_task_retries=0).remote()
    held = pinned.hold.remote()
    assert actorlib.wait([held], timeout=1.0)[0] == []
    family = [there.pid, *(child.pid for child in psutil.Process(there.pid).children(recursive=True))]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(actorlib.exceptions.ActorDiedError, match="nothing was heard of it"):
        actorlib.get(held, timeout=60)
    assert time.monotonic() - began > limits.node_suspected_after_s  # not for a moment's silence
    assert [row["NodeID"] for row in actorlib.nodes() if not row["Alive"]] == [gone]
    for pid in reversed(family):
        os.kill(pid, signal.SIGCONT)
    assert there.process.wait(30) is not None  # it was told to end, and did
    print(f"lost after {time.monotonic() - began:.1f} s")
    machines.others.remove(there)
    there.stop()
    assert actorlib.get(Keeper.remote().node.remote(), timeout=30) == machines.head.address.node_id.hex()
