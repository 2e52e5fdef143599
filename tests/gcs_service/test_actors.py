"""Actors in the GCS: lifecycle, names, restarts, ends."""

from __future__ import annotations

import pytest

from actorlib.transport import messages
from actorlib.transport.link import Address
from actorlib.transport.messages import (
    ActorCreated,
    ActorExited,
    ActorFailed,
    ActorFind,
    ActorKill,
    ActorRegister,
    ActorRegistered,
    ActorReleased,
    ActorSubscribe,
    ActorUpdate,
    Death,
    Failure,
    StartActor,
    StopActor,
)


def worker(number=1, node=b"node1..."):
    return Address(b"worker%d." % number, node, "")


def death(text="killed by SIGKILL"):
    return Death(b"worker1.", b"node1...", 1, None, 9, False, text, "")


def register(house, spec, get_if_exists=False):
    house.tell("driver", ActorRegister(1, spec, get_if_exists))
    return house.link("driver").take()


def create(house, spec, incarnation=0, number=1):
    house.tell("worker", ActorCreated(spec.actor_id, incarnation, worker(number)))


@pytest.fixture
def placed(house):
    """A house with one node."""
    house.add_node("node1")
    return house


def test_an_actor_is_registered_placed_and_alive(placed):
    spec = placed.spec()
    placed.tell("driver", ActorSubscribe(spec.actor_id))
    assert placed.link("driver").take(ActorUpdate) == []  # not known yet
    registered, update = register(placed, spec)
    assert registered == ActorRegistered(1, False, spec) and update.state == "PENDING"
    assert placed.link("node1").take() == [StartActor(spec, 0, 0)]
    placed.tell("driver", ActorSubscribe(spec.actor_id))
    create(placed, spec)
    states = [(update.state, update.worker) for update in placed.link("driver").take(ActorUpdate)]
    assert states[-1] == ("ALIVE", worker())


def test_the_same_registration_twice_is_one_actor(placed):
    spec = placed.spec()
    assert register(placed, spec) == register(placed, spec)
    assert len(placed.link("node1").take(StartActor)) == 1


def test_nothing_is_said_before_the_commit(placed):
    spec = placed.spec(name="it")
    placed.tell("driver", ActorRegister(1, spec, False), turn=False)
    assert placed.link("driver").sent == [] and placed.link("node1").sent == []
    placed.turn()
    assert placed.journal.tables["actors"] and placed.link("driver").take(ActorRegistered)


def test_a_full_disk_refuses_and_says_so(placed):
    placed.journal.full = True
    (answer,) = register(placed, placed.spec())
    assert type(answer) is Failure and answer.kind == "OutOfDiskError" and "disk" in answer.text


def test_without_a_node_it_waits_for_one(house):
    spec = house.spec()
    register(house, spec)
    node = house.link("node1")
    house.tell("node1", messages.NodeRegister(1, node.peer, 1, {"CPU": 10_000}, {}, "", 1))
    assert node.take(StartActor) == [StartActor(spec, 0, 0)]


def test_it_is_restarted_as_often_as_it_may_be(placed):
    spec = placed.spec(max_restarts=2)
    register(placed, spec)
    placed.tell("driver", ActorSubscribe(spec.actor_id))
    for incarnation in range(3):
        create(placed, spec, incarnation, incarnation)
        placed.tell("node1", ActorExited(spec.actor_id, incarnation, False, death()))
    updates = [(u.state, u.incarnation, u.restarts_left) for u in placed.link("driver").take(ActorUpdate)]
    assert updates == [
        ("PENDING", 0, 2),
        ("ALIVE", 0, 2),
        ("RESTARTING", 1, 1),
        ("ALIVE", 1, 1),
        ("RESTARTING", 2, 0),
        ("ALIVE", 2, 0),
        ("DEAD", 2, 0),
    ]
    assert [order.incarnation for order in placed.link("node1").take(StartActor)] == [0, 1, 2]


def test_word_of_an_old_incarnation_changes_nothing(placed):
    spec = placed.spec(max_restarts=-1)
    register(placed, spec)
    create(placed, spec)
    placed.tell("node1", ActorExited(spec.actor_id, 0, False, death()))
    create(placed, spec, 1, 2)
    placed.link("worker").take()
    placed.tell("node1", ActorExited(spec.actor_id, 0, False, death()))
    create(placed, spec, 0, 1)
    assert placed.gcs.actors.actors[spec.actor_id].worker == worker(2)
    assert placed.link("worker").take(StopActor)  # the stale worker is told to go


def test_a_constructor_that_raised_is_final(placed):
    spec = placed.spec(max_restarts=-1)
    register(placed, spec)
    placed.tell("driver", ActorSubscribe(spec.actor_id))
    placed.tell("node1", ActorFailed(spec.actor_id, 0, "it raised", (1, b"error", "text")))
    last = placed.link("driver").take(ActorUpdate)[-1]
    assert (last.state, last.error, last.reason) == ("DEAD", (1, b"error", "text"), "it raised")


def test_names_are_unique_in_their_namespace_and_free_again_after_the_end(placed):
    first = placed.spec(1, name="it")
    register(placed, first)
    (taken,) = register(placed, placed.spec(2, name="it"))
    assert type(taken) is Failure and "get_if_exists" in taken.text
    assert register(placed, placed.spec(3, name="it"), get_if_exists=True) == [ActorRegistered(1, True, first)]
    assert type(register(placed, placed.spec(4, name="it", namespace="other"))[0]) is ActorRegistered
    placed.tell("driver", ActorFind(5, "it", "space"))
    assert placed.link("driver").take() == [ActorRegistered(5, True, first)]
    placed.tell("driver", ActorKill(6, first.actor_id, True))
    placed.link("driver").take()
    placed.tell("driver", ActorFind(7, "it", "space"))
    assert type(placed.link("driver").take()[0]) is Failure
    assert type(register(placed, placed.spec(8, name="it"))[0]) is ActorRegistered


def test_the_end_of_a_job_ends_its_actors_but_not_the_detached(placed):
    mine, kept = placed.spec(1), placed.spec(2, name="kept", detached=True)
    placed.tell("driver", messages.JobStarted(1, b"job.....", placed.link("driver").peer, "space", ""))
    for spec in (mine, kept):
        register(placed, spec)
        create(placed, spec)
    placed.link("node1").take()
    placed.gcs.job_ended(b"job.....", "its driver is gone")
    placed.turn()
    stops = placed.link("node1").take(StopActor)
    assert [stop.actor_id for stop in stops] == [mine.actor_id] and stops[0].kill
    states = {row["name"]: row["state"] for row in placed.gcs.actors.rows()}
    assert states == {"": "DEAD", "kept": "ALIVE"}


def test_the_death_of_its_owner_ends_an_actor(placed):
    spec = placed.spec()
    register(placed, spec)
    create(placed, spec)
    placed.gcs.process_died(spec.owner.process_id, death("killed by SIGSEGV"))
    placed.turn()
    (row,) = placed.gcs.actors.rows()
    assert row["state"] == "DEAD" and "SIGSEGV" in row["reason"]


def test_the_last_handle_drains_an_actor_now_or_once_it_is_there(placed):
    early, late = placed.spec(1), placed.spec(2)
    for spec in (early, late):
        register(placed, spec)
    create(placed, early)
    placed.link("node1").take()
    for spec in (early, late):
        placed.tell("driver", ActorReleased(spec.actor_id))
    assert [(stop.actor_id, stop.kill) for stop in placed.link("node1").take(StopActor)] == [(early.actor_id, False)]
    create(placed, late)
    assert [(stop.actor_id, stop.kill) for stop in placed.link("node1").take(StopActor)] == [(late.actor_id, False)]
    placed.tell("node1", ActorExited(early.actor_id, 0, True, death("")))
    assert placed.gcs.actors.actors[early.actor_id].state.value == "DEAD"


def test_kill_with_a_restart_begins_the_next_incarnation(placed):
    spec = placed.spec(max_restarts=1)
    register(placed, spec)
    create(placed, spec)
    placed.link("node1").take()
    placed.tell("driver", ActorKill(2, spec.actor_id, False))
    stop, start = placed.link("node1").take()
    assert stop.kill and start.incarnation == 1
    create(placed, spec, 1, 2)
    placed.tell("driver", ActorKill(3, spec.actor_id, False))
    assert placed.gcs.actors.actors[spec.actor_id].state.value == "DEAD"


def test_a_lost_node_restarts_its_actors_elsewhere(placed):
    spec, fragile = placed.spec(1, max_restarts=1), placed.spec(2)
    for one in (spec, fragile):
        register(placed, one)
        create(placed, one)
    second = placed.add_node("node2")
    placed.node_lost("node1")
    assert second.take(StartActor) == [StartActor(spec, 1, 0)]
    assert placed.gcs.actors.actors[fragile.actor_id].state.value == "DEAD"
    assert "node is gone" in placed.gcs.actors.actors[fragile.actor_id].death.text


def test_an_actor_in_a_group_follows_its_bundle_and_dies_with_the_group(placed):
    group = b"group..........."
    placed.tell(
        "driver", messages.GroupCreate(1, group, b"job.....", ({"CPU": 10_000},), "PACK", "", "space", False, b"", ())
    )
    spec = placed.spec(strategy=("group", group, 0, False))
    register(placed, spec)
    assert placed.link("node1").take(StartActor) == []
    for _ in range(2):
        placed.tell("node1", messages.BundlesPrepared(0, group, 1, True, ""))
    assert placed.link("node1").take(StartActor) == [StartActor(spec, 0, 0)]
