"""Actors: placing, restarts, ends, names; every order to a node and every word to a subscriber."""

from __future__ import annotations

import itertools

import pytest

from actorlib.gcs.actors import Actors, ActorState, IllegalMove
from actorlib.transport import limits
from actorlib.transport import messages as m
from actorlib.transport.link import NOWHERE
from actorlib.transport.messages import Death


class World:
    """The table, with two nodes; ``home`` is where ``place`` sends actors, ``bundle`` what a group's bundle lies on."""

    def __init__(self, make, port):
        self.make, self.port = make, port
        self.link = make.link("creator")
        self.home = make.node_id("n")
        self.bundle = None
        port.nodes = {make.node_id("n"): [], make.node_id("o"): []}
        self.actors = Actors(port, lambda owner: self.home, lambda group_id, index: self.bundle)

    def register(self, name="", get_if_exists=False, **changes):
        self.actors.register(self.link, m.ActorRegister(3, self.make.spec(name, **changes), get_if_exists))
        self.actors.check()
        return self.link.take()

    def orders(self, node="n"):
        node_id = self.make.node_id(node)
        orders, self.port.nodes[node_id] = self.port.nodes[node_id], []
        return orders

    def created(self, name="actor", incarnation=0, worker="w", node="n"):
        message = m.ActorCreated(self.make.id(name), incarnation, self.make.address(worker, node))
        link = self.make.link(node, node)
        self.actors.created(link, message)
        self.actors.check()
        return link.take()

    def exited(self, name="actor", incarnation=0, intended=False, text="killed by SIGSEGV"):
        self.actors.exited(None, m.ActorExited(self.make.id(name), incarnation, intended, self.death(text)))
        self.actors.check()

    def death(self, text):
        return Death(b"w.......", self.make.node_id("n"), 1, None, 11, False, text, "")

    def subscriber(self, name="actor", who="reader"):
        link = self.make.link(who)
        self.actors.subscribe(link, m.ActorSubscribe(self.make.id(name)))
        return link

    def __getitem__(self, name):
        return self.actors.actors[self.make.id(name)]


@pytest.fixture
def world(make, port):
    return World(make, port)


# -- from registration to life -----------------------------------------------------------------------------------------
def test_a_registration_is_persisted_answered_and_then_ordered_from_the_home_node(world, make, port):
    assert world.register() == [m.ActorRegistered(3, False, make.spec())]
    assert port.effects == [("persist", "actors", make.id("actor")), ("send", "ActorRegistered")]
    assert world.orders("n") == [m.StartActor(make.spec(), 0, 0)] and world.orders("o") == []
    assert world["actor"].state is ActorState.PENDING


def test_a_registration_that_arrives_twice_starts_one_actor(world, make):
    world.register()
    assert world.register() == [m.ActorRegistered(3, False, make.spec())]
    assert len(world.orders("n")) == 1


def test_subscribers_hear_the_state_at_once_and_of_every_change(world, make):
    world.register(max_restarts=1)
    reader = world.subscriber()
    assert reader.take() == [
        m.ActorUpdate(make.id("actor"), 0, "PENDING", NOWHERE, "waiting to be placed", None, None, 1)
    ]
    world.created()
    assert reader.take() == [m.ActorUpdate(make.id("actor"), 0, "ALIVE", make.address("w", "n"), "", None, None, 1)]
    world.exited()
    (update,) = reader.take()
    assert (update.state, update.incarnation, update.worker, update.restarts_left) == ("RESTARTING", 1, NOWHERE, 0)
    assert update.death == world.death("killed by SIGSEGV")


def test_a_subscriber_that_died_is_not_written_to(world, make):
    world.register()
    reader = world.subscriber()
    reader.take()
    world.actors.process_died(reader.peer.process_id, "it ended")
    world.created()
    assert reader.take() == []


def test_whoever_subscribes_to_an_unknown_actor_is_told_after_a_while_that_it_is_dead(world, port):
    early = world.subscriber("never")
    assert early.take() == []  # its creator may be about to register it, once more
    port.fire()
    (update,) = early.take()
    assert update.state == "DEAD" and "does not know this actor" in update.reason


def test_why_an_actor_waits_is_told_and_is_not_written_to_disk(world, make, port):
    world.register()
    reader = world.subscriber()
    reader.take()
    port.effects.clear()
    world.actors.waits(world.link, m.ActorWaits(make.id("actor"), "no GPU is free", False))
    world.actors.waits(world.link, m.ActorWaits(make.id("actor"), "no node has a GPU", True))
    assert [update.reason for update in reader.take()] == ["no GPU is free", "infeasible: no node has a GPU"]
    assert [effect[0] for effect in port.effects] == ["send", "send"]
    world.created()
    world.actors.waits(world.link, m.ActorWaits(make.id("actor"), "late", False))
    assert world["actor"].reason == ""


def test_a_node_may_pass_an_actor_on(world, make):
    world.register()
    world.orders("n")
    world.actors.spilled(world.link, m.ActorSpilled(make.id("actor"), 0, make.address("o", "o"), 1))
    assert world.orders("o") == [m.StartActor(make.spec(), 0, 1)] and world.orders("n") == []
    world.actors.spilled(world.link, m.ActorSpilled(make.id("actor"), 7, make.address("n", "n"), 2))
    assert world.orders("n") == []


def test_a_constructor_that_raised_ends_the_actor_with_its_error_and_without_a_restart(world, make):
    world.register("name", max_restarts=5)
    world.orders("n")
    reader = world.subscriber()
    reader.take()
    error = (m.VALUE_ERROR, b"pickle", "ValueError: no")
    world.actors.failed(world.link, m.ActorFailed(make.id("actor"), 0, "its constructor raised", error))
    (update,) = reader.take()
    assert (update.state, update.reason, update.error) == ("DEAD", "its constructor raised", error)
    assert world["actor"].subscribers == {}, "nothing more will be told"
    assert world.orders("n") == [m.StopActor(make.id("actor"), 0, True, "its constructor raised")]
    assert world.actors.names == {}


def test_an_actor_without_a_node_waits_for_one(world, make):
    world.home = None
    world.register()
    assert world["actor"].reason == "no node is alive that could host it"
    world.actors.place_homeless()
    assert world.orders("n") == []
    world.home = make.node_id("n")
    world.actors.place_homeless()
    world.actors.place_homeless()
    assert world.orders("n") == [m.StartActor(make.spec(), 0, 0)]


def test_an_actor_in_a_group_goes_where_its_bundle_lies_or_waits_or_dies_with_the_group(world, make):
    strategy = ("group", make.id("group"), 0, False)
    world.bundle = "its placement group is PENDING"
    world.register(strategy=strategy)
    assert world["actor"].reason == "its placement group is PENDING" and world.orders("n") == []
    world.bundle = make.node_id("o")
    world.actors.place_homeless()
    assert len(world.orders("o")) == 1 and world.orders("n") == []
    world.bundle = None
    world.register(id="late", strategy=strategy)
    assert world["late"].state is ActorState.DEAD and world["late"].reason == "its placement group was removed"


# -- restarts ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_an_actor_restarts_as_often_as_it_may_and_then_dies_with_the_reason(world, make, allowed):
    world.register("name", max_restarts=allowed)
    for incarnation in range(allowed):
        world.created(incarnation=incarnation)
        world.orders("n")
        world.exited(incarnation=incarnation)
        assert world["actor"].state is ActorState.RESTARTING and world["actor"].update().worker == NOWHERE
        assert world.orders("n") == [m.StartActor(make.spec("name", max_restarts=allowed), incarnation + 1, 0)]
        assert ("space", "name") in world.actors.names
    world.created(incarnation=allowed)
    world.exited(incarnation=allowed)
    actor = world["actor"]
    assert actor.state is ActorState.DEAD and actor.death == world.death("killed by SIGSEGV")
    assert actor.reason.startswith("its process ended") and (f"max_restarts={allowed}" in actor.reason) == (allowed > 0)
    assert world.actors.names == {}


def test_minus_one_restarts_without_end(world):
    world.register(max_restarts=-1)
    for incarnation in range(50):
        world.created(incarnation=incarnation)
        world.exited(incarnation=incarnation)
    assert world["actor"].state is ActorState.RESTARTING and world["actor"].incarnation == 50
    assert world["actor"].update().restarts_left == -1


def test_news_of_an_earlier_incarnation_changes_nothing_and_its_worker_is_stopped(world, make):
    world.register(max_restarts=2)
    world.created()
    world.exited()
    world.exited()  # the same again
    world.actors.failed(world.link, m.ActorFailed(make.id("actor"), 0, "late", None))
    assert world["actor"].restarts == 1 and world["actor"].state is ActorState.RESTARTING
    (stop,) = world.created(incarnation=0, worker="old")
    assert stop == m.StopActor(make.id("actor"), 0, True, "this incarnation is not wanted")
    assert world["actor"].state is ActorState.RESTARTING
    assert world.created(incarnation=1) == [] and world["actor"].state is ActorState.ALIVE


def test_an_intended_exit_is_not_followed_by_a_restart(world):
    world.register(max_restarts=5)
    world.created()
    world.exited(intended=True, text="exit_actor() was called")
    assert world["actor"].state is ActorState.DEAD and world["actor"].reason == "exit_actor() was called"


def test_the_loss_of_its_node_is_a_crash_and_the_actor_starts_elsewhere(world, make, port):
    world.register(max_restarts=1)
    world.register(id="other")
    world.created()
    world.created("other", worker="v", node="o")
    del port.nodes[make.node_id("n")]
    world.home = make.node_id("o")
    world.orders("o")
    world.actors.node_lost(make.node_id("n"), "no answer")
    assert world.orders("o") == [m.StartActor(make.spec(max_restarts=1), 1, 0)]
    assert world["actor"].death.text == "its node is gone: no answer"
    assert world["other"].state is ActorState.ALIVE


# -- ends --------------------------------------------------------------------------------------------------------------
def test_kill_stops_the_worker_and_ends_the_actor(world, make):
    world.register("name", max_restarts=5)
    world.created()
    world.orders("n")
    world.actors.kill(world.link, m.ActorKill(9, make.id("actor"), True))
    assert world.orders("n") == [m.StopActor(make.id("actor"), 0, True, "killed with kill()")]
    assert world.link.take() == [m.Done(9)]
    assert world["actor"].state is ActorState.DEAD and "kill(handle)" in world["actor"].reason
    world.exited()  # its worker's end is no news
    world.actors.kill(world.link, m.ActorKill(10, make.id("actor"), True))
    assert world.link.take() == [m.Done(10)] and world.orders("n") == []


def test_kill_without_no_restart_counts_as_a_crash(world, make):
    world.register(max_restarts=1)
    world.created()
    world.orders("n")
    world.actors.kill(world.link, m.ActorKill(9, make.id("actor"), False))
    assert [type(order) for order in world.orders("n")] == [m.StopActor, m.StartActor]
    assert world["actor"].incarnation == 1 and world["actor"].death.signal == 9
    world.actors.kill(world.link, m.ActorKill(10, make.id("actor"), False))
    assert world["actor"].state is ActorState.DEAD


def test_killing_an_unknown_actor_is_done_at_once(world, make):
    world.actors.kill(world.link, m.ActorKill(9, make.id("never"), True))
    assert world.link.take() == [m.Done(9)]


def test_without_handles_an_actor_drains_and_a_pending_one_does_so_once_it_lives(world, make):
    world.register()
    world.orders("n")
    world.actors.released(None, m.ActorReleased(make.id("actor")))
    assert world.orders("n") == []
    world.created()
    assert world.orders("n") == [m.StopActor(make.id("actor"), 0, False, "no handle to it is left")]
    world.actors.released(None, m.ActorReleased(make.id("actor")))
    assert world.orders("n") == []
    world.exited(text="")
    assert world["actor"].state is ActorState.DEAD


def test_a_detached_actor_needs_no_handle(world, make):
    world.register("name", detached=True)
    world.created()
    world.orders("n")
    world.actors.released(None, m.ActorReleased(make.id("actor")))
    assert world.orders("n") == [] and not world["actor"].released


def test_the_end_of_a_job_ends_its_actors_but_not_the_detached_and_not_those_of_others(world, make):
    world.register("mine", id="mine")
    world.register("stays", id="stays", detached=True)
    world.register("other", id="other", job="another")
    world.created("mine")
    world.orders("n")
    world.actors.job_ended(make.job_id("job"))
    assert world["mine"].state is ActorState.DEAD and world["mine"].reason == "its job has ended"
    assert world.orders("n") == [m.StopActor(make.id("mine"), 0, True, "its job has ended")]
    assert {name for _, name in world.actors.names} == {"stays", "other"}


def test_the_death_of_its_owner_ends_an_actor_unless_it_is_detached(world, make):
    owner = make.address("parent")
    world.register(id="child", owner=owner)
    world.register("kept", id="kept", owner=owner, detached=True)
    world.register(id="other")
    world.actors.process_died(owner.process_id, "killed by SIGKILL")
    assert [world[name].state.value for name in ("child", "kept", "other")] == ["DEAD", "PENDING", "PENDING"]
    assert "killed by SIGKILL" in world["child"].reason


def test_a_dead_actor_never_moves_again_and_the_story_says_how_it_got_there(world):
    world.register()
    world.created()
    world.exited()
    with pytest.raises(IllegalMove, match=r"registered -> ALIVE/0 \(\) -> DEAD/0"):
        world.actors._move(world["actor"], ActorState.ALIVE, "")


def test_only_the_last_dead_actors_are_kept_also_on_disk(world, make, port, monkeypatch):
    monkeypatch.setattr(limits, "dead_actors_kept_max", 2)
    for name in ("a", "b", "c", "alive"):
        world.register(id=name)
    for name in ("b", "a", "c"):
        world.actors.kill(world.link, m.ActorKill(9, make.id(name), True))
    assert list(world.actors.actors) == [make.id("a"), make.id("c"), make.id("alive")]
    assert {key for _, key in port.rows} == {make.id("a"), make.id("c"), make.id("alive")}
    assert [row["state"] for row in world.actors.rows()] == ["PENDING", "DEAD", "DEAD"]
    late = world.subscriber("b")
    port.fire()
    assert late.take()[0].state == "DEAD"


def test_whoever_subscribes_before_an_actor_is_registered_hears_of_it_when_it_is(world, port):
    early = world.subscriber("actor")
    world.register()
    port.fire()
    assert [update.state for update in early.take()] == ["PENDING"]


# -- names -------------------------------------------------------------------------------------------------------------
def find(world, name, namespace="space"):
    world.actors.find(world.link, m.ActorFind(4, name, namespace))
    (reply,) = world.link.take()
    return reply


def test_a_name_is_taken_within_its_namespace_only(world, make):
    world.register("name")
    (refused,) = world.register("name", id="second")
    assert type(refused) is m.Failure and refused.kind == "ValueError" and "taken" in refused.text
    assert make.id("second") not in world.actors.actors and len(world.orders("n")) == 1
    (accepted,) = world.register("name", id="third", namespace="elsewhere")
    assert not accepted.existed
    assert find(world, "name").spec.actor_id == make.id("actor")
    assert find(world, "name", "elsewhere").spec.actor_id == make.id("third")
    missing = find(world, "name", "nowhere")
    assert type(missing) is m.Failure and "no actor named 'name'" in missing.text


def test_get_if_exists_gives_the_holder_of_the_name_or_makes_one(world, make):
    assert world.register("name", get_if_exists=True)[0].existed is False
    (reply,) = world.register("name", get_if_exists=True, id="second", max_restarts=9)
    assert reply == m.ActorRegistered(3, True, make.spec("name"))
    assert len(world.orders("n")) == 1 and make.id("second") not in world.actors.actors


def test_a_name_is_free_again_once_its_holder_is_dead(world, make):
    world.register("name")
    world.created()
    world.exited()
    assert type(find(world, "name")) is m.Failure
    assert world.register("name", id="second")[0].existed is False
    world.exited()  # late news of the first one
    assert find(world, "name").spec.actor_id == make.id("second")


def test_names_are_listed_by_namespace_or_all(world):
    world.register("one", id="1")
    world.register("two", id="2", namespace="elsewhere")
    world.register(id="3")
    world.actors.list_all(world.link, m.ActorList(5, "space"))
    world.actors.list_all(world.link, m.ActorList(6, ""))
    assert world.link.take() == [
        m.ActorNames(5, (("space", "one"),)),
        m.ActorNames(6, (("space", "one"), ("elsewhere", "two"))),
    ]


# -- links and ends ----------------------------------------------------------------------------------------------------
def linked(world, *pairs):
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        world.register(id=name)
        world.created(name)
    for first, second in pairs:
        world.actors.link(world.link, m.ActorLink(9, world.make.id(first), world.make.id(second)))
        assert world.link.take() == [m.Done(9)]


def test_a_crash_ends_all_that_are_linked_with_it_and_says_why(world):
    linked(world, ("a", "b"), ("b", "c"))
    world.orders()
    world.exited("a")
    assert [world[name].state for name in "abc"] == [ActorState.DEAD] * 3
    assert [world[name].end for name in "abc"] == [m.ActorEnd.CRASHED, m.ActorEnd.LINKED, m.ActorEnd.LINKED]
    assert "killed by SIGSEGV" in world["b"].reason and world.make.id("b").hex() in world["c"].reason
    stops = world.orders()
    assert [(order.actor_id, order.kill) for order in stops] == [(world.make.id("b"), True), (world.make.id("c"), True)]


def test_a_normal_end_leaves_linked_actors_alone(world):
    linked(world, ("a", "b"))
    world.exited("a", intended=True, text="")
    assert world["a"].end == m.ActorEnd.EXITED and world["b"].state is ActorState.ALIVE


def test_a_link_with_itself_or_with_nobody_is_refused(world):
    world.register(id="a")
    for second in ("a", "nobody"):
        world.actors.link(world.link, m.ActorLink(9, world.make.id("a"), world.make.id(second)))
        (answer,) = world.link.take()
        assert type(answer) is m.Failure and answer.kind == "ValueError"


def test_a_long_chain_of_links_ends_whole(world):
    names = [f"x{number}" for number in range(600)]
    linked(world, *itertools.pairwise(names))
    world.exited("x0")
    assert all(world[name].state is ActorState.DEAD for name in names)


def test_links_outlast_the_gcs(world, make, port):
    linked(world, ("a", "b"))
    again = Actors(port, lambda owner: world.home, lambda group_id, index: None)
    for (_, key), value in port.rows.items():
        again.load(key, value)
    again.exited(None, m.ActorExited(make.id("a"), 0, False, world.death("killed by SIGSEGV")))
    assert again.actors[make.id("b")].end == m.ActorEnd.LINKED


def test_an_actor_that_gives_up_is_dead_for_good(world):
    world.register(id="a", max_restarts=5)
    world.created("a")
    reader = world.subscriber("a")
    reader.take()
    error = (m.VALUE_ERROR, b"pickle", "RestartIntensityError: too many")
    world.actors.gives_up(world.link, m.ActorGivesUp(4, world.make.id("a"), 0, "it gave up", error))
    assert world.link.take() == [m.Done(4)]
    (update,) = reader.take()
    assert (update.state, update.end, update.error) == ("DEAD", m.ActorEnd.FAILED, error)
    world.actors.gives_up(world.link, m.ActorGivesUp(4, world.make.id("a"), 0, "it gave up", error))
    assert world.link.take() == [m.Done(4)], "the same request again"


# -- leaving a node that drains ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changes",
    [{"max_restarts": 1}, {"detached": True}, {"checkpoint": {"every_calls": 1}}],
    ids=lambda c: next(iter(c)),
)
def test_an_actor_that_has_left_a_node_starts_elsewhere_and_no_restart_is_counted(world, make, changes):
    world.register(**changes)
    world.created()
    world.orders("n")
    reader = world.subscriber()
    reader.take()
    world.home = make.node_id("o")
    death = world.death("node n, where it lived, drains (maintenance)")
    world.actors.exited(None, m.ActorExited(make.id("actor"), 0, False, death, moved=True))
    world.actors.check()
    (update,) = reader.take()
    assert (update.state, update.incarnation, world["actor"].restarts) == ("RESTARTING", 1, 0)
    assert "drains (maintenance)" in update.reason
    assert world.orders("o") == [m.StartActor(world["actor"].spec, 1, 0)] and world.orders("n") == []


def test_an_actor_that_may_not_be_restarted_dies_with_the_node_and_the_reason_names_the_drain(world, make):
    world.register()
    world.created()
    world.actors.node_lost(make.node_id("n"), "it was drained (maintenance)", planned=True)
    assert world["actor"].state is ActorState.DEAD and "it was drained (maintenance)" in world["actor"].death.text


def test_an_actor_that_never_began_on_a_node_that_has_drained_is_placed_elsewhere(world, make):
    world.register()
    world.orders("n")
    world.home = make.node_id("o")
    world.actors.node_lost(make.node_id("n"), "it was drained (maintenance)", planned=True)
    world.actors.check()
    assert world["actor"].state is ActorState.RESTARTING and world["actor"].restarts == 0
    assert [type(order) for order in world.orders("o")] == [m.StartActor]
