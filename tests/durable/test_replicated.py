"""Level ``replicated``: nothing is seen before another node holds the log, so the loss of a node loses nothing."""

from __future__ import annotations

import random
import time

import pytest

import actorlib
from actorlib import Checkpoint
from actorlib.runtime.call_log_format import CALL, HEAD
from actorlib.runtime.drivers.call_log_file import RealFiles
from actorlib.runtime.drivers.log_replica import LogCopies
from actorlib.runtime.log_copies import Fences, Gate, reach
from actorlib.testing import simulate
from actorlib.transport import messages
from actorlib.transport.ids import ActorId
from actorlib.transport.sim.disk import Disk
from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy

T = 3000


class Link:
    def __init__(self, *pending):
        self.pending = list(pending)


def test_the_gate_holds_what_depends_on_batches_that_are_not_acknowledged():
    gate, one, other = Gate(), Link("a"), Link("b")
    assert gate.hold([one, other]) == [one, other]
    gate.sent, gate.passes = 1, other
    assert gate.hold([one, other]) == [other]
    assert one.pending == [] and other.pending == ["b"]
    one.pending.append("c")
    gate.sent = 2
    assert gate.hold([one]) == []
    assert gate.acknowledge(1) == [(one, ["a"])]
    assert not gate.is_open()
    assert gate.acknowledge(2) == [(one, ["c"])]
    assert gate.is_open()


def test_older_incarnations_are_fenced():
    fences, actor = Fences(), ActorId(b"a" * 16)
    assert fences.admits(actor, 0) and fences.admits(actor, 2)
    assert not fences.admits(actor, 1)
    fences.forget(actor)
    assert fences.admits(actor, 0)


def test_how_far_logs_lead():
    head = (HEAD, 1, b"a", 3, "", "", "")
    call = (CALL, 7, b"c", 0, "add", b"", (), 1, None)
    assert reach([]) == (-1, -1, 0) < reach([head]) < reach([head, call]) == (3, 7, 2)


@actorlib.remote
class Counter:
    def __init__(self):
        self.value = 0

    def add(self, amount=1):
        self.value += amount
        return self.value


def host_of(world, handle):
    for node, worker in world.workers.values():
        if worker.spec is not None and worker.spec.actor_id == handle._actor_id:
            return node
    return None


def away_from_the_driver():
    """Node 0 has the driver; a whole CPU makes the actor go to one of the others, whose CPUs are free."""
    durability = Checkpoint(every_calls=4, durability="replicated")
    return Counter.options(checkpoint=durability, num_cpus=2).remote()


@pytest.mark.parametrize("seed", range(8))
def test_the_loss_of_a_node_loses_no_acknowledged_call(seed):
    rng = random.Random(seed)
    with simulate(seed=seed, nodes=4, num_cpus=2) as world:
        counter = away_from_the_driver()
        total = 0
        for _ in range(4):
            refs = [counter.add.remote() for _ in range(rng.randrange(1, 9))]
            if rng.random() < 0.5:
                actorlib.wait(refs, num_returns=rng.randrange(1, len(refs) + 1), timeout=T)
            host = host_of(world, counter)
            if host is not None and host is not world.nodes[0]:
                world.crash_node(host)
                world.add_node()
            values = actorlib.get(refs, timeout=T)
            assert values == list(range(total + 1, total + len(refs) + 1))
            total = values[-1]
        del counter, refs


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("durability", ["replicated", "auto"])  # auto: with one node left it is another level
def test_an_actor_that_comes_back_where_its_copy_lies_finds_it(seed, durability):
    with simulate(seed=seed, nodes=2) as world:
        host = world.nodes[1]
        while len(world.nodes[0].service.node_addresses()) < 2:
            time.sleep(0.05)
        there = NodeAffinitySchedulingStrategy(host.node_id.hex(), soft=True)
        options = Checkpoint(every_calls=4, durability=durability)
        counter = Counter.options(checkpoint=options, scheduling_strategy=there).remote()
        assert actorlib.get([counter.add.remote() for _ in range(6)], timeout=T)[-1] == 6
        assert host_of(world, counter) is host
        world.crash_node(host)  # which leaves one node: the one with the copy
        assert actorlib.get(counter.add.remote(), timeout=T) == 7
        del counter


def test_the_loss_of_the_copy_is_made_good_by_another(capfd):
    with simulate(seed=5, nodes=3, num_cpus=2) as world:
        counter = away_from_the_driver()
        assert actorlib.get(counter.add.remote(), timeout=T) == 1
        host = host_of(world, counter)
        for other in [node for node in world.nodes[1:] if node is not host]:
            world.crash_node(other)
        world.add_node()
        assert actorlib.get([counter.add.remote() for _ in range(5)], timeout=T)[-1] == 6
        if host is not world.nodes[0]:
            world.crash_node(host)
        assert actorlib.get(counter.add.remote(), timeout=T) == 7
        del counter


def test_without_another_node_it_goes_on_and_says_so(capfd):
    with simulate(seed=1, nodes=1):
        counter = Counter.options(checkpoint=Checkpoint(durability="replicated")).remote()
        assert actorlib.get(counter.add.remote(), timeout=T) == 1
        del counter
    assert "no other node is there to hold its log" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["real", "simulated"])
def test_a_node_knows_of_which_actors_it_has_something(kind, tmp_path):
    files = RealFiles() if kind == "real" else Disk(random.Random(1))
    copies = LogCopies(files, f"{tmp_path}/copies", f"{tmp_path}/calls", lambda *_: None)
    assert copies.held_logs() == []
    actors = [ActorId(letter * 16) for letter in (b"a", b"b", b"c")]
    places = [f"copies/{actors[0].hex()}", f"calls/{actors[1].hex()}", f"calls/checkpoints/{actors[2].hex()}"]
    for place in (*places, f"calls/{actors[0].hex()}"):
        files.append(f"{tmp_path}/{place}/file", b"bytes")
    assert sorted(copies.held_logs()) == actors


def test_a_node_forgets_all_that_an_actor_has_left_there(tmp_path):
    actor, later = ActorId(b"a" * 16), []
    folders = [f"copies/{actor.hex()}", f"calls/{actor.hex()}", f"calls/checkpoints/{actor.hex()}"]
    for folder in (*folders, "calls/another"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text("bytes")
    copies = LogCopies(
        RealFiles(), str(tmp_path / "copies"), str(tmp_path / "calls"), lambda delay_s, then: later.append(then)
    )
    forget = copies.handlers[messages.LogForget]
    for checkpoints, gone in ((False, folders[:2]), (True, folders)):
        forget(None, messages.LogForget(actor, checkpoints))
        assert any((tmp_path / folder).exists() for folder in gone), "its process may still be writing"
        later.pop()()
        assert [folder for folder in folders if not (tmp_path / folder).exists()] == gone
    assert (tmp_path / "calls" / "another" / "file").exists()
