"""Heartbeats, losses, and a GCS that begins anew: exact effects on a fake host."""

from __future__ import annotations

import pytest

from actorlib.gcs.drivers.service import GcsService
from actorlib.scheduler.placement import place_bundles
from actorlib.transport import limits
from actorlib.transport import messages as m


class World:
    def __init__(self, make):
        self.make = make
        self.journal = make.Journal()
        self.links = {}
        self.begin()

    def begin(self):
        """Another life of the GCS, on the same journal."""
        self.host = self.make.Host()
        self.service = GcsService(self.host, self.journal, place_bundles, self.make.Full)
        self.service.begin()
        self.host.settle()
        self.links.clear()

    def tell(self, name, message, node=None):
        link = self.links.setdefault(name, self.make.link(name, node or name))
        self.service.handlers[type(message)](link, message)
        self.host.settle()
        self.service.check()
        return link.take()

    def register(self, name, *actors, processes=(), groups=(), epoch=1):
        message = self.make.register_node(name, epoch=epoch)
        return self.tell(name, message._replace(holds=m.Holdings(tuple(actors), tuple(processes), tuple(groups))))

    def pass_time(self, seconds):
        """In heartbeats, as the host's timer gives them."""
        for _ in range(round(seconds / limits.heartbeat_period_s)):
            self.host.time += limits.heartbeat_period_s
            later, self.host.later = self.host.later, []
            for callback in later:
                callback()
            self.host.settle()

    def alive(self):
        return [view.hostname for view in self.service.nodes.views.values() if view.alive]


@pytest.fixture
def world(make):
    return World(make)


def test_a_heartbeat_is_answered_with_the_life_that_heard_it(world):
    world.register("a")
    assert world.tell("a", m.Heartbeat(1)) == [m.HeartbeatSeen(1)]
    world.begin()
    assert world.tell("a", m.Heartbeat(1)) == []  # it has to register again
    world.register("a")
    assert world.tell("a", m.Heartbeat(1)) == [m.HeartbeatSeen(2)]


def test_the_number_of_a_life_is_told_once_it_is_written(world):
    """Else the next life could have the same, and nobody would notice that it is another."""
    world.register("a")
    world.journal.full = True
    world.begin()
    world.register("a")
    assert world.tell("a", m.Heartbeat(1)) == []
    world.journal.full = False
    world.pass_time(limits.journal_retry_s + 1)
    assert world.tell("a", m.Heartbeat(1))[-1] == m.HeartbeatSeen(2)


def test_silence_loses_a_node_and_what_it_says_later_is_answered_with_its_end(world):
    world.register("a")
    world.register("b")
    for _ in range(int(limits.node_lost_after_s) + 1):
        world.pass_time(1.0)
        world.tell("b", m.Heartbeat(1))
    assert world.alive() == ["host-b"]
    world.links["a"].take()
    assert [type(message) for message in world.tell("a", m.Heartbeat(1))] == [m.ShutdownNode]
    assert [type(message) for message in world.register("a")] == [m.ShutdownNode]
    world.begin()
    assert [type(message) for message in world.register("a")] == [m.ShutdownNode]  # also in a later life


@pytest.mark.parametrize("epoch", [0, 1, 2**32 - 1])
def test_clocks_that_differ_lose_nobody(world, epoch):
    """A node's epoch is of its own clock; only its own are compared with each other."""
    world.register("a", epoch=1_000_000)
    world.register("b", epoch=epoch)
    for _ in range(20):
        world.pass_time(1.0)
        assert world.tell("a", m.Heartbeat(1_000_000)) and world.tell("b", m.Heartbeat(epoch))
    assert world.alive() == ["host-a", "host-b"]


def test_nodes_of_before_are_told_awaited_and_lost_if_they_do_not_come(world, make):
    world.register("a")
    world.register("b")
    world.begin()
    assert [(link.peer.node_id, link.got) for link in world.host.dialled] == [
        (make.node_id("a"), [m.GcsStarted(2)]),
        (make.node_id("b"), [m.GcsStarted(2)]),
    ]
    assert world.alive() == ["host-a", "host-b"]
    world.register("a")
    for _ in range(int(limits.node_lost_after_s) + 1):
        world.pass_time(1.0)
        world.tell("a", m.Heartbeat(1))
    assert world.alive() == ["host-a"]


def test_a_node_that_did_not_hear_that_it_is_to_leave_hears_it_when_it_is_back(world, make):
    """Whoever asked has been told that it will."""
    world.register("a")
    world.tell("asker", m.DrainNode(5, make.node_id("a"), 30.0, "the spot machine goes"))
    assert world.links["a"].take() == [m.MustDrain(30.0, "the spot machine goes")]
    world.tell("asker", m.DrainNode(6, make.node_id("a"), 60.0, "maintenance"))  # the earlier deadline counts
    world.links["a"].take()
    world.service.link_down(world.links.pop("a"), "its session is over")
    world.pass_time(4.0)
    assert world.register("a")[-1] == m.MustDrain(26.0, "the spot machine goes")
    world.tell("a", m.NodeDrains(1, 26.0, "the spot machine goes", 7))
    world.service.link_down(world.links.pop("a"), "its session is over")
    assert [type(message) for message in world.register("a")] == [m.NodeRegistered]


def spec_on(make, node, **more):
    return make.spec(owner=make.address("owner", node), max_restarts=more.pop("max_restarts", 2), **more)


def test_what_a_node_holds_is_compared_with_the_tables(world, make):
    world.register("a")
    kept, ended, unknown = (spec_on(make, "a", id=name) for name in ("kept", "ended", "unknown"))
    for spec in (kept, ended):
        world.tell("owner", m.ActorRegister(1, spec, False), node="a")
        world.tell("a", m.ActorCreated(spec.actor_id, 0, make.address(f"w-{spec.actor_id[:4].decode()}", "a")))
    world.begin()
    said = world.register(
        "a",
        m.Hosted(kept.actor_id, 0, make.address("w-kept", "a")),
        m.Hosted(unknown.actor_id, 3, make.address("w-unkn", "a")),
        processes=(make.address("owner").process_id,),
    )
    orders = [message for message in said if type(message) in (m.StopActor, m.StartActor)]
    assert [(type(order), getattr(order, "actor_id", ended.actor_id)) for order in orders] == [
        (m.StopActor, unknown.actor_id),
        (m.StartActor, ended.actor_id),
    ]
    assert orders[1].incarnation == 1
    states = {row["actor_id"]: row["state"] for row in world.service.actors.rows()}
    assert states == {kept.actor_id.hex(): "ALIVE", ended.actor_id.hex(): "RESTARTING"}


def test_owners_and_drivers_that_ended_meanwhile_take_theirs_with_them(world, make):
    world.register("a", processes=(make.address("owner").process_id,))
    spec = spec_on(make, "a")
    world.tell("owner", m.ActorRegister(1, spec, False), node="a")
    job = make.job()._replace(driver=make.address("driver", "a"))
    world.tell("driver", job, node="a")
    world.begin()
    world.register("a")
    assert [row["state"] for row in world.service.actors.rows()] == ["DEAD"] and not world.service.jobs.jobs


def test_what_is_at_no_node_is_placed_when_nobody_is_awaited_any_more(world, make):
    world.register("a")
    world.register("b")
    spec = make.spec(detached=True)
    world.tell("owner", m.ActorRegister(1, spec, False), node="a")
    world.begin()
    assert m.StartActor not in map(type, world.register("a"))  # b may be at it
    world.links["a"].take()
    assert m.StartActor in map(type, [*world.register("b"), *world.links["a"].take()])


def test_what_happens_while_it_is_away_uses_up_no_restart(world, make):
    world.register("a")
    world.register("b")
    spec = make.spec(owner=make.address("owner", "b"), detached=True, max_restarts=0)
    world.tell("owner", m.ActorRegister(1, spec, False), node="b")
    world.tell("a", m.ActorCreated(spec.actor_id, 0, make.address("w", "a")))
    world.begin()
    world.register("b", processes=(make.address("owner").process_id,))
    world.service.nodes.lost(make.node_id("a"), "its process is gone")
    world.host.settle()
    (row,) = world.service.actors.rows()
    assert (row["state"], row["restarts"]) == ("RESTARTING", 0)


def test_a_question_that_must_be_answered_once_is_answered_alike_in_the_next_life(world):
    put = m.KvPut(7, "space", b"key", b"value", False)
    (first,) = world.tell("asker", put)
    world.begin()
    assert world.tell("asker", put) == [first] and not first.found
    assert world.tell("other", put)[0].found
    delete = m.KvDelete(8, "space", b"key")
    (gone,) = world.tell("asker", delete)
    world.begin()
    assert gone.found and world.tell("asker", delete) == [gone]
    assert not world.tell("asker", m.KvDelete(9, "space", b"key"))[0].found


def test_a_released_actor_is_told_to_end_again(world, make):
    world.register("a", processes=(make.address("owner").process_id,))
    spec = spec_on(make, "a")
    world.tell("owner", m.ActorRegister(1, spec, False), node="a")
    hosted = m.Hosted(spec.actor_id, 0, make.address("w", "a"))
    world.tell("a", m.ActorCreated(spec.actor_id, 0, hosted.worker))
    assert world.tell("owner", m.ActorReleased(spec.actor_id, 5), node="a") == [m.Done(5)]
    world.begin()
    said = world.register("a", hosted, processes=(make.address("owner").process_id,))
    assert [order.kill for order in said if type(order) is m.StopActor] == [False]
