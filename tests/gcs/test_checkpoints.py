"""Checkpoints: the newest few, fenced by incarnation, with checksums."""

from __future__ import annotations

import pytest

from actorlib.gcs.checkpoints import Checkpoints
from actorlib.transport import limits
from actorlib.transport.messages import CheckpointGet, CheckpointPut, CheckpointReply, Done, Failure


class World:
    """The table over ``port``; ``disk`` is what was committed."""

    def __init__(self, make, port):
        self.make, self.port, self.link = make, port, make.link("worker")
        self.incarnations = {make.id("actor"): 0, make.id("other"): 0}
        self.disk = {}
        self.table = self.opened()

    def opened(self):
        return Checkpoints(self.port, self.incarnations.get, lambda table, key: self.disk.get((table, key)))

    def commit(self):
        self.disk = dict(self.port.rows)
        self.table.committed()

    def put(self, number, state, keep=2, incarnation=0, name="actor"):
        self.table.put(self.link, CheckpointPut(5, self.make.id(name), incarnation, number, state, keep))
        (reply,) = self.link.take()
        return reply

    def get(self, number=-1, name="actor"):
        self.table.get(self.link, CheckpointGet(6, self.make.id(name), number))
        (reply,) = self.link.take()
        return reply

    def damage(self, number):
        (key,) = [key for key in self.disk if int.from_bytes(key[1][-8:], "big") == number]
        self.disk[key] = self.disk[key][:-1] + b"!"


@pytest.fixture
def world(make, port):
    return World(make, port)


def test_a_checkpoint_is_persisted_before_it_is_acknowledged_and_can_be_read_before_the_commit(world, port):
    assert world.put(1, b"one") == Done(5)
    assert [effect[0] for effect in port.effects] == ["persist", "send"]
    assert world.disk == {} and world.get() == CheckpointReply(6, 1, b"one", (1,))
    world.commit()
    assert world.get() == CheckpointReply(6, 1, b"one", (1,))


def test_the_newest_is_given_unless_another_is_asked_for(world):
    for number in (1, 2, 3):
        world.put(number, b"state %d" % number, keep=3)
        world.commit()
    assert world.get() == CheckpointReply(6, 3, b"state 3", (1, 2, 3))
    assert world.get(2) == CheckpointReply(6, 2, b"state 2", (1, 2, 3))
    assert world.get(9) == CheckpointReply(6, -1, b"", (1, 2, 3))
    assert world.get(name="other") == CheckpointReply(6, -1, b"", ())


@pytest.mark.parametrize(("keep", "kept"), [(1, (5,)), (2, (4, 5)), (9, (1, 2, 3, 4, 5)), (0, (5,))])
def test_only_the_last_few_are_kept_also_on_disk(world, port, keep, kept):
    for number in range(1, 6):
        world.put(number, b"x", keep=keep)
        world.commit()
    assert world.get().numbers == kept
    assert sorted(int.from_bytes(key[-8:], "big") for _, key in port.rows) == list(kept)
    assert world.get(1).number == (1 if 1 in kept else -1)


def test_the_same_number_again_replaces_the_state(world, port):
    world.put(1, b"one")
    world.put(1, b"two")
    world.commit()
    assert world.get() == CheckpointReply(6, 1, b"two", (1,)) and len(port.rows) == 1


def test_an_earlier_incarnation_and_a_dead_actor_are_refused_and_write_nothing(world, make, port):
    world.incarnations[make.id("actor")] = 2
    world.incarnations[make.id("other")] = None
    for reply in (
        world.put(1, b"x", incarnation=1),
        world.put(1, b"x", name="other"),
        world.put(1, b"x", name="never"),
    ):
        assert type(reply) is Failure and reply.kind == "ActorDiedError"
    assert port.rows == {} and world.get().numbers == ()
    assert world.put(1, b"x", incarnation=2) == Done(5)


def test_a_state_over_the_limit_is_refused_and_one_at_the_limit_is_kept(world, monkeypatch):
    monkeypatch.setattr(limits, "checkpoint_bytes_in_lmdb_max", 10)
    reply = world.put(1, b"x" * 11)
    assert type(reply) is Failure and reply.kind == "ValueError" and "11 bytes" in reply.text
    assert world.get().number == -1
    assert world.put(1, b"x" * 10) == Done(5)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(world):
    for number in (1, 2):
        world.put(number, b"state %d" % number)
    world.commit()
    world.damage(2)
    assert world.get() == CheckpointReply(6, 1, b"state 1", (1, 2))
    assert world.get(2).number == -1
    world.damage(1)
    assert world.get() == CheckpointReply(6, -1, b"", (1, 2))


def test_forgetting_an_actor_removes_its_checkpoints_and_no_others(world, make, port):
    world.put(1, b"x")
    world.put(2, b"x")
    world.put(1, b"other", name="other")
    world.commit()
    world.table.forget(make.id("actor"))
    world.table.forget(make.id("never"))
    world.commit()
    assert world.get().number == -1
    assert world.get(name="other").state == b"other" and len(port.rows) == 1


def test_numbers_come_back_from_disk_in_their_order(world):
    for number in (1, 255, 256, 70_000):
        world.put(number, b"%d" % number, keep=9)
    world.commit()
    world.table = world.opened()
    for _, key in sorted(world.disk):
        world.table.load(key, world.disk["checkpoints", key])
    assert world.get() == CheckpointReply(6, 70_000, b"70000", (1, 255, 256, 70_000))


def test_an_empty_state_is_a_state(world):
    world.put(1, b"")
    world.commit()
    assert world.get() == CheckpointReply(6, 1, b"", (1,))
