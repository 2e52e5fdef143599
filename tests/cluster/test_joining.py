"""Nodes on TCP with keys: they join, run what they are given, and leave; who may not join is told why."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import actorlib
from actorlib.runtime.drivers.session_file import find
from actorlib.transport import messages
from actorlib.transport.drivers.loop import Loop
from actorlib.transport.endpoint import parse
from actorlib.transport.ids import JobId, NodeId, new_process_id
from actorlib.transport.link import Address


@actorlib.remote
def where() -> str:
    return actorlib.get_runtime_context().get_node_id()


@actorlib.remote
class Keeper:
    """Keeps a value, and reads references that others own."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount):
        self.value += amount
        return self.value

    def read(self, refs):
        return actorlib.get(refs[0])

    def own(self):
        return [actorlib.put("mine")]

    def pid(self):
        return os.getpid()


def test_tasks_actors_and_references_cross_between_machines(machines):
    head = machines.start_head()
    there = machines.add(resources={"there": 1})
    machines.join()
    assert actorlib.cluster_resources()["CPU"] == 2
    assert actorlib.get(where.options(resources={"there": 1}).remote(), timeout=30) == there.address.node_id.hex()
    keeper = Keeper.options(resources={"there": 0.5}, num_cpus=0).remote()
    assert actorlib.get([keeper.add.remote(1) for _ in range(10)], timeout=30)[-1] == 10
    assert actorlib.get(keeper.read.remote([actorlib.put("ours")]), timeout=30) == "ours"
    (theirs,) = actorlib.get(keeper.own.remote(), timeout=30)
    assert actorlib.get(theirs, timeout=30) == "mine"
    large = np.arange(200_000)
    assert (actorlib.get(keeper.read.remote([actorlib.put(large)]), timeout=30) == large).all()
    here = Keeper.options(num_cpus=0, scheduling_strategy="SPREAD").remote()
    assert actorlib.get(here.read.remote([keeper.add.remote(1)]), timeout=30) == 11  # an actor on one calls through us
    for address in (head.address, there.address):
        assert "tcp://127.0.0.1:" in address.endpoint


def test_a_node_that_leaves_is_missed_at_once_and_what_it_ran_is_said_to_be_lost(machines):
    machines.start_head()
    there = machines.add(resources={"there": 1})
    machines.join()
    keeper = Keeper.options(resources={"there": 1}).remote()
    assert actorlib.get(keeper.add.remote(1), timeout=30) == 1
    machines.others.remove(there)
    there.stop()
    machines.wait_for(1)
    with pytest.raises(actorlib.exceptions.ActorDiedError, match="node"):
        actorlib.get(keeper.add.remote(1), timeout=30)


def ask_the_gcs(machines, message, version="3.11", role="node", protocol=messages.PROTOCOL_VERSION):
    """As somebody else's process would, over the head's local sockets."""
    gcs = find(machines.head.head).gcs
    process_id = new_process_id()
    address = Address(process_id, NodeId(process_id), f"ipc://{machines.head.session_dir}/{process_id.hex()}")
    hello = messages.Hello(protocol, address, role, os.getpid(), JobId(b""), version)
    answers = []
    take = {kind: lambda _, answer: answers.append(answer) for kind in (messages.Failure, messages.Welcome)}
    loop = Loop(address, hello, take, lambda _, reason: answers.append(reason))
    try:
        loop.link(gcs._replace(endpoint=parse(gcs.endpoint).local)).send(message)
        assert loop.drive(lambda: bool(answers), 30)
        return answers[0]
    finally:
        loop.close()


def test_another_python_is_told_so_and_who_is_no_node_registers_none(machines):
    machines.start_head()
    told = ask_the_gcs(machines, messages.Join(1), version="2.7")
    assert told.kind == "VersionMismatch" and "2.7" in told.text
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert type(ask_the_gcs(machines, messages.Join(1), version=ours)) is messages.Welcome
    register = messages.NodeRegister(1, machines.head.address, 1, {}, {}, "liar", os.getpid())
    assert ask_the_gcs(machines, register, role="worker").kind == "PermissionError"


def test_another_version_is_told_which_one_there_is(machines):
    machines.start_head()
    told = ask_the_gcs(machines, messages.Join(1), protocol=messages.PROTOCOL_VERSION + 1)
    ours, theirs = messages.PROTOCOL_VERSION, messages.PROTOCOL_VERSION + 1
    assert f"protocol version {theirs}, this process speaks {ours}; install one version" in told


def test_a_driver_with_a_key_of_its_own(machines):
    machines.start_head()
    there = machines.add(resources={"there": 1})
    key = machines.keys.new("ada", "driver").path
    register, deadline = Path(there.session_dir, "register.json"), time.monotonic() + 30
    while "ada" not in register.read_text():  # a key spreads with the heartbeats
        assert time.monotonic() < deadline
        time.sleep(0.01)
    machines.join(key=str(key))
    assert actorlib.get(where.options(resources={"there": 1}).remote(), timeout=30)
    keeper = Keeper.options(resources={"there": 0.5}, num_cpus=0).remote()
    assert actorlib.get(keeper.read.remote([actorlib.put("ours")]), timeout=30) == "ours"  # they dial us as well
    (theirs,) = actorlib.get(keeper.own.remote(), timeout=30)
    assert actorlib.get(theirs, timeout=30) == "mine"
