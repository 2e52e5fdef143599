"""Restarts over the real journal: whatever was acknowledged is there again, equal."""

from __future__ import annotations

import tempfile

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.gcs.drivers.lmdb_journal import FORMAT_VERSION, JournalFull, LmdbJournal, NewerFormat
from actorlib.gcs.kv import KeyValues
from actorlib.transport import limits
from actorlib.transport import messages as m


class World:
    """A GCS on disk; ``restart`` closes it, whatever it was about to do, and opens another."""

    def __init__(self, make, directory):
        self.make, self.directory = make, str(directory)
        self.journal = None
        self.restart()

    def restart(self):
        self.close()
        self.journal = LmdbJournal(self.directory, False)
        self.host = self.make.Host()
        self.service = self.make.service(self.host, self.journal)
        self.link = self.make.link("client")
        return self.service

    def close(self):
        if self.journal is not None:
            self.journal.close()

    def ask(self, *requests):
        for message in requests:
            self.service.handlers[type(message)](self.link, message)
        self.host.settle()
        return self.link.take()

    def node(self, name, **more):
        link = self.make.link(name, name)
        self.service.handlers[m.NodeRegister](link, self.make.register_node(name, **more))
        self.host.settle()
        return link


@pytest.fixture
def world(make, tmp_path):
    world = World(make, tmp_path / "gcs")
    yield world
    world.close()


def test_a_named_detached_actor_comes_back_with_its_name_and_everything_that_was_known_of_it(world, make):
    spec = make.spec(
        "name",
        detached=True,
        max_restarts=5,
        strategy=("labels", {"zone": "a"}, {}),
        checkpoint={"every": 3},
        dependencies=((b"o" * 20, make.address("owner"), b"value"), None),
        extra={"lifetime": "detached"},
        args=memoryview(b"x" * 10_000),
    )
    node = world.node("n")
    world.ask(m.ActorRegister(1, spec, False))
    world.service.handlers[m.ActorCreated](node, m.ActorCreated(spec.actor_id, 0, make.address("w", "n")))
    death = m.Death(b"w.......", make.node_id("n"), 17, None, 11, False, "killed by SIGSEGV", "Fatal: \ufffd")
    world.service.handlers[m.ActorExited](node, m.ActorExited(spec.actor_id, 0, False, death))
    world.service.handlers[m.ActorCreated](node, m.ActorCreated(spec.actor_id, 1, make.address("v", "n")))
    before = world.ask(m.ActorSubscribe(spec.actor_id), m.ActorFind(2, "name", "space"), m.ActorList(3, ""))
    world.restart()
    after = world.ask(m.ActorSubscribe(spec.actor_id), m.ActorFind(2, "name", "space"), m.ActorList(3, ""))
    assert after == before and after[0].state == "ALIVE" and after[0].restarts_left == 4
    assert after[0].death == death and after[0].incarnation == 1
    assert after[1].spec.dependencies[0][1] == make.address("owner")
    world.service.check()


def test_the_name_of_a_living_actor_is_still_taken_and_that_of_a_dead_one_is_free(world, make):
    world.ask(m.ActorRegister(1, make.spec("kept"), False), m.ActorRegister(2, make.spec("freed", id="dead"), False))
    world.ask(m.ActorKill(3, make.id("dead"), True))
    world.restart()
    taken, existing, free = world.ask(
        m.ActorRegister(4, make.spec("kept", id="second"), False),
        m.ActorRegister(5, make.spec("kept", id="third"), True),
        m.ActorRegister(6, make.spec("freed", id="fourth"), False),
    )
    assert type(taken) is m.Failure and existing.existed and existing.spec == make.spec("kept")
    assert not free.existed
    (dead,) = world.ask(m.ActorSubscribe(make.id("dead")))
    assert dead.state == "DEAD" and "kill(handle)" in dead.reason


def test_restarts_are_counted_on_after_a_restart_of_the_gcs(world, make):
    node = world.node("n")
    death = m.Death(b"w.......", make.node_id("n"), 17, 1, None, False, "exited", "")
    world.ask(m.ActorRegister(1, make.spec(max_restarts=1), False))
    for message in (m.ActorCreated(make.id("actor"), 0, make.address("w", "n")),):
        world.service.handlers[type(message)](node, message)
    world.ask(m.ActorExited(make.id("actor"), 0, False, death))
    world.restart()
    world.ask(m.ActorCreated(make.id("actor"), 1, make.address("v", "n")))
    world.ask(m.ActorExited(make.id("actor"), 1, False, death))
    (update,) = world.ask(m.ActorSubscribe(make.id("actor")))
    assert update.state == "DEAD" and "max_restarts=1" in update.reason and update.death == death


def test_an_actor_that_waited_for_a_node_is_placed_after_the_restart(world, make):
    spec = make.spec(detached=True)
    world.ask(m.ActorRegister(1, spec, False))
    world.restart().begin()
    node = world.node("n")
    assert [message for message in node.take() if type(message) is m.StartActor] == [m.StartActor(spec, 0, 0)]


def test_pairs_jobs_and_groups_come_back(world, make):
    world.ask(
        m.KvPut(1, "functions", b"\0\xff" * 8, b"pickle", True),
        m.KvPut(2, "s", b"gone", b"x", True),
        m.KvDelete(3, "s", b"gone"),
        make.job("a"),
        make.job("b"),
        make.group("name", bundles=({"CPU": 1, "GPU": 2}, {"memory": 3}), label_selectors=({"zone": "a"}, {})),
        make.group(id="removed"),
        m.GroupRemove(8, make.id("removed")),
    )
    world.service.job_ended(make.job_id("b"), "its driver ended")
    world.host.settle()
    before = world.service
    after = world.restart()
    assert after.kv.values == before.kv.values == {("functions", b"\0\xff" * 8): b"pickle"}
    assert after.jobs.jobs == before.jobs.jobs == {make.job_id("a"): make.job("a")}
    assert [group.spec for group in after.groups.groups.values()] == [
        make.group("name", bundles=({"CPU": 1, "GPU": 2}, {"memory": 3}), label_selectors=({"zone": "a"}, {}))
    ]
    assert after.groups.names == {("space", "name"): make.id("group")}


def test_a_group_is_placed_again_when_its_nodes_come_back(world, make):
    world.node("n")
    world.ask(make.group())
    world.restart()
    node = world.node("n")
    assert [type(message) for message in node.take()] == [m.NodeRegistered, m.PrepareBundles]


def test_checkpoints_come_back_in_order_and_a_damaged_one_is_passed_over(world, make):
    world.ask(m.ActorRegister(1, make.spec(), False))
    for number in (1, 255, 256):
        world.ask(m.CheckpointPut(number, make.id("actor"), 0, number, b"state %d" % number, 3))
    world.ask(m.CheckpointPut(9, make.id("actor"), 0, 257, b"x" * 200_000, 3))
    world.restart()
    (reply,) = world.ask(m.CheckpointGet(1, make.id("actor"), -1))
    assert reply == m.CheckpointReply(1, 257, b"x" * 200_000, (255, 256, 257))
    key = make.id("actor") + (257).to_bytes(8, "big")
    world.journal.commit([("checkpoints", key, world.journal.read("checkpoints", key)[:-1] + b"y")])
    world.restart()
    (reply,) = world.ask(m.CheckpointGet(1, make.id("actor"), -1))
    assert (reply.number, reply.state) == (256, b"state 256")


def test_what_was_not_acknowledged_may_be_gone_but_what_was_is_there(world):
    assert world.ask(m.KvPut(1, "s", b"one", b"x", True))
    world.service.handlers[m.KvPut](world.link, m.KvPut(2, "s", b"two", b"x", True))
    assert world.link.take() == []  # it dies before the commit
    assert world.restart().kv.values == {("s", b"one"): b"x"}


def test_a_commit_is_all_or_nothing_and_a_full_map_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "lmdb_map_bytes", 1 << 20)
    journal = LmdbJournal(str(tmp_path), False)
    journal.commit([("kv", b"a", b"1")])
    with pytest.raises(JournalFull):
        journal.commit([("kv", b"a", b"2"), ("kv", b"b", b"x" * (2 << 20))])
    assert list(journal.rows("kv")) == [(b"a", b"1")]
    journal.commit([("kv", b"a", None), ("kv", b"never", None), ("jobs", b"a", b"3")])
    assert list(journal.rows("kv")) == [] and journal.read("kv", b"a") is None and journal.read("jobs", b"a") == b"3"
    journal.close()


def test_a_directory_of_a_newer_version_is_refused_with_what_to_do(tmp_path):
    journal = LmdbJournal(str(tmp_path), True)
    journal.commit([("meta", b"format", b"%d" % (FORMAT_VERSION + 1))])
    journal.close()
    with pytest.raises(NewerFormat, match="install the newer actorlib"):
        LmdbJournal(str(tmp_path), True)


def test_a_closed_journal_takes_nothing(tmp_path):
    journal = LmdbJournal(str(tmp_path), False)
    journal.close()
    with pytest.raises(lmdb.Error):
        journal.commit([("kv", b"a", b"1")])


SPACES = st.sampled_from(["", "s", "t", "ü"])
KEYS = st.binary(max_size=2)
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), SPACES, KEYS, st.binary(max_size=3), st.booleans()),
    st.tuples(st.just("delete"), SPACES, KEYS),
    st.tuples(st.just("commit")),
    st.tuples(st.just("restart")),
)


class Writer:
    """Passes a turn's writes to the real journal when told to."""

    def __init__(self):
        self.writes = []

    def persist(self, table, key, value):
        self.writes.append((table, key, value))

    def send(self, link, message):
        link.send(message)


@settings(deadline=None, database=None, max_examples=40)
@given(st.lists(OPERATIONS, max_size=40))
def test_random_operations_read_back_as_a_dictionary_had_them_at_the_last_commit(operations):
    class Link:
        def send(self, message):
            pass

    with tempfile.TemporaryDirectory() as directory:
        journal, port = LmdbJournal(directory, False), Writer()
        kv, now, committed = KeyValues(port), {}, {}
        for kind, *rest in [*operations, ("commit",), ("restart",)]:
            if kind == "put":
                space, key, value, overwrite = rest
                kv.put(Link(), m.KvPut(1, space, key, value, overwrite))
                if overwrite or (space, key) not in now:
                    now[space, key] = value
            elif kind == "delete":
                kv.delete(Link(), m.KvDelete(1, *rest))
                now.pop(tuple(rest), None)
            elif kind == "commit":
                journal.commit(port.writes)
                port.writes.clear()
                committed = dict(now)
            else:
                journal.close()
                journal, port = LmdbJournal(directory, False), Writer()
                kv, now = KeyValues(port), dict(committed)
                for row in journal.rows("kv"):
                    kv.load(*row)
            assert kv.values == now
        journal.close()
