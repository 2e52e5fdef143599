"""Handles and references of one job in another: two drivers on one cluster, both alive, and then one."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

import actorlib
from actorlib.cluster_utils import Cluster

SECOND_DRIVER = """
import pickle, sys
import actorlib

actorlib.init(address=sys.argv[1], namespace="shared")
with open(sys.argv[2], "rb") as file:
    handles, ref = pickle.load(file)

def outcome(call):
    try:
        return actorlib.get(call(), timeout=30)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

@actorlib.remote(num_cpus=0)
def in_a_task(handle):
    return actorlib.get(handle.add.remote(), timeout=30)

def tell(what):
    print(repr(what), flush=True)

tell([outcome(handles[name].add.remote) for name in sorted(handles)])
tell(outcome(actorlib.get_actor("named").add.remote))
tell(outcome(lambda: in_a_task.remote(handles["plain"])))
tell(outcome(lambda: ref))
sys.stdin.readline()
tell([outcome(handles[name].add.remote) for name in sorted(handles)])
actorlib.shutdown()
"""


@actorlib.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count


def handles_in(path):
    """A plain actor, a named one and a detached one, and a reference, as bytes in a file."""
    handles = {
        "detached": Counter.options(name="detached", lifetime="detached").remote(),
        "named": Counter.options(name="named").remote(),
        "plain": Counter.remote(),
    }
    ref = actorlib.put("of the first job")
    assert actorlib.get([handle.add.remote() for handle in handles.values()], timeout=30) == [1, 1, 1]
    path.write_bytes(pickle.dumps((handles, ref)))
    return handles


@pytest.mark.timeout(180)
def test_a_handle_from_another_job(tmp_path):
    """While its job is alive it works as its own; afterwards it says who has gone, and a detached actor goes on."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        actorlib.init(address=cluster.address, namespace="shared")
        handles = handles_in(tmp_path / "handles")
        command = [sys.executable, "-c", SECOND_DRIVER, cluster.address, str(tmp_path / "handles")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
            told = [eval(second.stdout.readline()) for _ in range(4)]
            assert told == [[2, 2, 2], 3, 3, "of the first job"]
            assert actorlib.get([handles[name].add.remote() for name in sorted(handles)], timeout=30) == [3, 4, 4]
            del handles
            actorlib.shutdown()
            detached, *others = eval(second.communicate("\n", timeout=60)[0])
            assert detached == 4
            for text in others:
                assert text.startswith("ActorDiedError") and "the driver is gone" in text
                assert "lifetime='detached'" in text
        assert second.returncode == 0
    finally:
        actorlib.shutdown()
        cluster.shutdown()


def test_a_handle_from_another_session(tmp_path):
    actorlib.init(num_cpus=1, log_to_driver=False)
    handles_in(tmp_path / "handles")
    actorlib.shutdown()
    with actorlib.init(num_cpus=1, log_to_driver=False):
        handles, _ = pickle.loads((tmp_path / "handles").read_bytes())
        for handle in handles.values():
            with pytest.raises(actorlib.exceptions.ActorDiedError, match=r"another session.*get_actor\(name\)"):
                actorlib.get(handle.add.remote(), timeout=30)
