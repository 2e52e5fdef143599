"""What a cluster of machines loses, and what it doesn't: its head, its disk, a key."""

from __future__ import annotations

import os
import resource
import signal
import time

import numpy as np
import pytest

import actorlib
from actorlib import Checkpoint
from actorlib.transport import messages
from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tests.cluster.conftest import eventually


@actorlib.remote(num_cpus=0)
class Keeper:
    def __init__(self, payload=b"") -> None:
        self.payload = payload
        self.value = 0

    def add(self, amount):
        self.value += amount
        return self.value

    def pid(self):
        return os.getpid()


def found(name, timeout_s=60):
    """A named actor, once it answers."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            actor = actorlib.get_actor(name)
            actorlib.get(actor.pid.options(max_task_retries=-1).remote(), timeout=timeout_s)
            return actor
        except ValueError:
            assert time.monotonic() < deadline, f"{name} did not come back"
            time.sleep(0.05)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_cluster_that_was_stopped_or_killed_as_a_whole_comes_back_with_its_actors(machines, end):
    machines.start_head()
    machines.add(resources={"there": 1})
    machines.join(namespace="kept")
    plain = Keeper.options(name="plain", lifetime="detached").remote()
    durable = Keeper.options(name="durable", lifetime="detached", checkpoint=1).remote()
    mine = Keeper.options(name="mine").remote()  # ends with its job
    assert actorlib.get([plain.add.remote(1), durable.add.remote(5), mine.add.remote(1)], timeout=30) == [1, 5, 1]
    actorlib.shutdown()
    for node in (*machines.others, machines.head)[:: 1 if end == "stopped" else -1]:  # a head that is killed goes first
        node.stop() if end == "stopped" else node.kill()
    machines.others.clear()
    machines.start_head()
    machines.add()
    machines.join(namespace="kept")
    assert actorlib.get(found("plain").add.remote(1), timeout=30) == 1  # anew: it keeps nothing
    assert actorlib.get(found("durable").add.remote(5), timeout=30) == 10
    with pytest.raises(ValueError, match="no actor named"):
        actorlib.get_actor("mine")


def test_a_cluster_that_was_stopped_node_by_node_loses_no_call_of_a_durable_actor(machines):
    """Without a checkpoint since: the log goes from node to node, and stays on the head's disk."""
    machines.start_head()
    home = machines.add()
    machines.add()
    machines.join(namespace="kept")
    there = NodeAffinitySchedulingStrategy(home.address.node_id.hex(), soft=True)
    options = {"name": "durable", "lifetime": "detached", "checkpoint": 1000, "scheduling_strategy": there}
    durable = Keeper.options(**options).remote()
    assert actorlib.get([durable.add.remote(1) for _ in range(7)], timeout=60)[-1] == 7
    for left in (2, 1):
        machines.others.pop(0).stop()
        machines.wait_for(left)
        assert actorlib.get(durable.add.remote(1), timeout=60) == 10 - left
    actorlib.shutdown()
    machines.head.stop()
    machines.start_head()
    machines.join(namespace="kept")
    assert actorlib.get(found("durable").add.remote(1), timeout=60) == 10


def test_an_actor_that_was_killed_leaves_nothing_in_the_directory_that_outlives_it(machines):
    machines.start_head()
    machines.join(namespace="kept")
    options = {"lifetime": "detached", "checkpoint": Checkpoint(every_calls=2, durability="disk")}
    killed, kept = (Keeper.options(name=name, **options).remote() for name in ("killed", "kept"))
    for actor in (killed, kept):
        assert actorlib.get([actor.add.remote(1) for _ in range(3)], timeout=60) == [1, 2, 3]
    logs = machines.directory / "calls"
    assert {path.name for path in logs.iterdir()} >= {killed._actor_id.hex(), kept._actor_id.hex()}
    actorlib.kill(killed)
    deadline = time.monotonic() + 30
    while (logs / killed._actor_id.hex()).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (logs / kept._actor_id.hex()).exists() and actorlib.get(kept.add.remote(1), timeout=60) == 4


def test_a_full_disk_under_the_gcs_refuses_writes_until_there_is_room(machines):
    machines.start_head()
    machines.join(namespace="kept")
    first = Keeper.options(name="first", lifetime="detached").remote()
    assert actorlib.get(first.add.remote(1), timeout=30) == 1
    pid = machines.gcs_pid()
    data = next((machines.directory / "gcs").rglob("data.mdb"))
    size = data.stat().st_size
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    with pytest.raises(actorlib.exceptions.OutOfDiskError, match="make room"):
        for number in range(50):
            Keeper.options(name=f"refused-{number}", lifetime="detached").remote(os.urandom(80_000))
    assert actorlib.get(first.add.remote(1), timeout=30) == 2  # what needs no write goes on
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    deadline = time.monotonic() + 20
    while True:
        try:
            later = Keeper.options(name="later", lifetime="detached", get_if_exists=True).remote()
            break
        except actorlib.exceptions.OutOfDiskError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert actorlib.get(later.add.remote(1), timeout=30) == 1
    os.kill(machines.gcs_pid(), signal.SIGKILL)
    assert actorlib.get(found("later").add.remote(1), timeout=30) == 2


def test_a_key_that_is_revoked_cuts_its_machine_off_at_once(machines):
    machines.start_head()
    bad = machines.add("bad", resources={"bad": 1})
    machines.add("good", resources={"good": 1})
    machines.join()
    on_bad = Keeper.options(resources={"bad": 0.1}).remote()
    on_good = Keeper.options(resources={"good": 0.1}).remote()
    assert actorlib.get([on_bad.add.remote(1), on_good.add.remote(1)], timeout=30) == [1, 1]
    machines.keys.revoke("bad")
    gone = bad.address.node_id.hex()
    deadline = time.monotonic() + 30
    while next(row for row in actorlib.nodes() if row["NodeID"] == gone)["Alive"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert actorlib.get(on_good.add.remote(1), timeout=30) == 2
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        actorlib.get(on_bad.add.remote(1), timeout=30)


@actorlib.remote(num_cpus=0)
def array(value):
    return np.full(100_000, float(value))


@actorlib.remote(num_cpus=0)
class Owner:
    def refs(self):
        return [array.remote(3), actorlib.put(17), actorlib.put(np.ones(100_000)), Keeper.remote(b"x").add.remote(5)]

    def pid(self):
        return os.getpid()


def test_what_a_task_made_outlives_the_process_that_owned_it_and_the_rest_says_why_not(machines):
    machines.start_head()
    machines.add(resources={"there": 1})
    machines.join()
    owner = Owner.options(resources={"there": 0.1}).remote()
    by_task, small, large, by_actor = actorlib.get(owner.refs.remote(), timeout=30)
    engine = actorlib.engine.Slot.engine

    def told():
        rows = engine.ask(engine.gcs, lambda request_id: messages.StateQuery(request_id, "lineage", 100)).rows
        return {row["object_id"]: row["bytes"] for row in rows}

    assert eventually(lambda: len(told()) == 4 and told()[by_actor.hex()] > 1)  # its value is there by now
    os.kill(actorlib.get(owner.pid.remote(), timeout=30), signal.SIGKILL)
    assert actorlib.get(by_task, timeout=30).sum() == 300_000.0
    assert actorlib.get([small, by_actor], timeout=30) == [17, 5]
    with pytest.raises(actorlib.exceptions.OwnerDiedError, match=r"made by put\(\) and lay in shared memory"):
        actorlib.get(large, timeout=30)
