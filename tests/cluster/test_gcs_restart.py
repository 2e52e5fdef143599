"""The GCS's process is killed: who needs it waits a moment, who doesn't notices nothing, and nothing is forgotten."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

import actorlib
from actorlib.util.placement_group import placement_group, placement_group_table, remove_placement_group


@actorlib.remote(num_cpus=0, max_restarts=1)
class Keeper:
    def __init__(self) -> None:
        self.value = 0

    def add(self, amount):
        self.value += amount
        return self.value

    def pid(self):
        return os.getpid()

    def node(self):
        return actorlib.get_runtime_context().get_node_id()


@actorlib.remote(num_cpus=0)
def double(x):
    return 2 * x


def kill_gcs(machines):
    pid = machines.gcs_pid()
    os.kill(pid, signal.SIGKILL)
    return pid


def stop_gcs(machines):
    """It is away, for as long as we want; nothing that happens from now on is seen by it."""
    pid = machines.gcs_pid()
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return pid


def test_names_actors_groups_and_values_are_there_afterwards(machines):
    machines.start_head()
    machines.add(resources={"there": 1})
    machines.join(namespace="kept")
    here = Keeper.options(name="here", lifetime="detached").remote()
    there = Keeper.options(name="there", lifetime="detached", resources={"there": 0.1}).remote()
    group = placement_group([{"CPU": 1}], name="bundle")
    assert group.wait(20) and actorlib.get([here.add.remote(1), there.add.remote(1)], timeout=30) == [1, 1]
    for count in (2, 3):
        before = kill_gcs(machines)
        assert actorlib.get([here.add.remote(1), there.add.remote(1)], timeout=30) == [count, count]
        assert len(actorlib.nodes()) == 2  # asked of the GCS
        assert machines.gcs_pid() != before
        assert actorlib.get(double.options(resources={"there": 0.1}).remote(21), timeout=30) == 42
        again = actorlib.get_actor("there")
        assert actorlib.get(again.pid.remote(), timeout=30) == actorlib.get(there.pid.remote(), timeout=30)
        assert placement_group_table(group)["state"] == "CREATED"
        fresh = Keeper.remote()
        assert actorlib.get(fresh.add.remote(5), timeout=30) == 5
        with pytest.raises(ValueError, match="taken"):
            Keeper.options(name="here", lifetime="detached").remote()
    os.kill(actorlib.get(there.pid.remote()), signal.SIGKILL)  # restarts work as before
    assert actorlib.get(there.add.options(max_task_retries=-1).remote(1), timeout=30) == 1
    remove_placement_group(group)


def test_calls_go_on_while_it_is_away_and_what_ended_meanwhile_is_noticed(machines):
    machines.start_head()
    machines.join()
    keeper, other = Keeper.remote(), Keeper.remote()
    pid = actorlib.get(other.pid.remote(), timeout=30)
    assert actorlib.get(keeper.add.remote(0), timeout=30) == 0
    stopped = stop_gcs(machines)
    began = time.monotonic()
    assert actorlib.get([keeper.add.remote(1) for _ in range(100)], timeout=30)[-1] == 100
    assert actorlib.get([double.remote(i) for i in range(20)], timeout=30) == [2 * i for i in range(20)]
    os.kill(pid, signal.SIGKILL)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(len(actorlib.nodes())))
    asking.start()
    asking.join(0.2)
    assert not answers and time.monotonic() - began < 30
    os.kill(stopped, signal.SIGKILL)
    asking.join(30)
    assert answers == [1]
    assert actorlib.get(other.add.options(max_task_retries=-1).remote(1), timeout=30) == 1  # a new incarnation


def test_an_actor_whose_node_died_meanwhile_is_restarted_elsewhere(machines):
    machines.start_head()
    there = machines.add(labels={"place": "there"})
    machines.join(namespace="kept")
    keeper = Keeper.options(name="kept", lifetime="detached", num_cpus=1, max_restarts=0).remote()
    home = actorlib.get(keeper.node.remote(), timeout=30)
    if home != there.address.node_id.hex():  # it was packed onto the head: have it fill that, and take another
        keeper = Keeper.options(name="second", lifetime="detached", num_cpus=1, max_restarts=0).remote()
        assert actorlib.get(keeper.node.remote(), timeout=30) == there.address.node_id.hex()
        actorlib.kill(actorlib.get_actor("kept"))
    stopped = stop_gcs(machines)
    machines.others.remove(there)
    with_it = psutil.Process(there.pid).children(recursive=True)
    there.kill()
    psutil.wait_procs(with_it, 30)  # until its worker sees that, it would go on answering
    os.kill(stopped, signal.SIGKILL)
    where = actorlib.get(keeper.node.options(max_task_retries=-1).remote(), timeout=60)
    assert where == machines.head.address.node_id.hex()
