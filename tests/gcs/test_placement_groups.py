"""Placement groups: two phases, refusals, removal, lost nodes; and many groups over nodes that refuse, exactly kept."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actorlib.gcs.placement_groups import PlacementGroups
from actorlib.scheduler.placement import place_bundles
from actorlib.scheduler.resources import Pool
from actorlib.transport import messages as m
from actorlib.transport.messages import NodeView

CPU = 10_000


class World:
    """The table, with nodes whose orders lie in ``port.nodes`` until a test answers them."""

    def __init__(self, make, port, cpus):
        self.make, self.port = make, port
        self.link = make.link("creator")
        self.changes = 0
        self.pools = {make.node_id(name): Pool({"CPU": count * CPU}) for name, count in cpus.items()}
        port.nodes = {node_id: [] for node_id in self.pools}
        self.table = PlacementGroups(port, place_bundles, self.views, self.changed)

    def changed(self):
        self.changes += 1

    def views(self):
        return [
            NodeView(
                self.make.address("p", node_id.decode()[0]), 1, True, pool.total, pool.visible(), {}, "", 0, (), ""
            )
            for node_id, pool in self.pools.items()
            if node_id in self.port.nodes
        ]

    def create(self, name="", **changes):
        self.table.create(self.link, self.make.group(name, **changes))
        self.table.check()
        return self.link.take()

    def orders(self):
        """What nodes were told since the last look, by the first letter of the node."""
        orders = {node_id.decode()[0]: told for node_id, told in self.port.nodes.items() if told}
        for node_id in self.port.nodes:
            self.port.nodes[node_id] = []
        return orders

    def answer(self, node, ok=True, attempt=1, group="group", reason=""):
        link = self.make.link(node, node)
        self.table.prepared(link, m.BundlesPrepared(0, self.make.id(group), attempt, ok, reason))
        self.table.check()

    def lose(self, node):
        del self.port.nodes[self.make.node_id(node)]
        self.table.node_lost(self.make.node_id(node))

    def fill(self, *nodes):
        """One CPU of each is taken, as by a bundle that lies there."""
        for node in nodes:
            assert self.pools[self.make.node_id(node)].take(b"bundle", {"CPU": CPU})

    def subscriber(self, group="group"):
        link = self.make.link("reader")
        self.table.subscribe(link, m.GroupSubscribe(self.make.id(group)))
        return link

    def __getitem__(self, name):
        return self.table.groups[self.make.id(name)]


@pytest.fixture
def world(make, port):
    """Nodes a and b with one CPU each, c with two."""
    return World(make, port, {"a": 1, "b": 1, "c": 2})


def release(make, *bundles):
    """Of these, or (none) of all since the group was removed."""
    return m.ReleaseBundles(0, make.id("group"), bundles)


def prepare(make, *bundles, attempt=1):
    return m.PrepareBundles(0, make.id("group"), attempt, tuple((index, {"CPU": CPU}) for index in bundles))


PLACES = [
    ("PACK", 2, {"a": [0], "b": [1]}),
    ("PACK", 4, {"a": [0], "b": [1], "c": [2, 3]}),
    ("SPREAD", 3, {"a": [0], "b": [1], "c": [2]}),
    ("STRICT_PACK", 2, {"c": [0, 1]}),
    ("STRICT_SPREAD", 3, {"a": [0], "b": [1], "c": [2]}),
]


@pytest.mark.parametrize(("strategy", "count", "expected"), PLACES)
def test_every_node_first_sets_its_bundles_aside_then_is_told_to_keep_them(
    world, make, port, strategy, count, expected
):
    assert world.create(strategy=strategy, bundles=({"CPU": CPU},) * count) == [m.Done(7)]
    assert port.effects[0] == ("persist", "groups", make.id("group"))
    assert world.orders() == {node: [prepare(make, *bundles)] for node, bundles in expected.items()}
    *first, last = expected
    for node in first:
        world.answer(node)
    assert world.orders() == {}
    world.answer(last)
    commit = m.CommitBundles(0, make.id("group"), 1)
    assert world.orders() == {node: [commit] for node in expected}
    for node in expected:
        assert world["group"].state == "PENDING" and world.changes == 0
        world.answer(node)
    assert world["group"].state == "CREATED" and world.changes == 1
    by_bundle = {bundle: node for node, bundles in expected.items() for bundle in bundles}
    assert world["group"].view().nodes == tuple(make.node_id(by_bundle[bundle]) for bundle in range(count))


@pytest.mark.parametrize(("strategy", "count"), [("PACK", 5), ("SPREAD", 5), ("STRICT_PACK", 3), ("STRICT_SPREAD", 4)])
def test_what_cannot_be_placed_waits_with_its_reason_and_asks_no_node(world, strategy, count):
    assert world.create(strategy=strategy, bundles=({"CPU": CPU},) * count) == [m.Done(7)]
    assert world.orders() == {} and world["group"].reason.startswith(f"infeasible: {strategy} ")
    world.port.fire()
    world.table.retry()
    assert world.orders() == {}


def test_a_group_that_waits_for_room_is_placed_when_there_is_some(world, make):
    for node_id, pool in world.pools.items():
        assert pool.take(b"busy", pool.total), node_id
    world.create()
    assert world.orders() == {} and world["group"].reason.startswith("waiting for room")
    world.table.retry()
    assert world.orders() == {}
    world.pools[make.node_id("c")].release(b"busy")
    world.table.retry()
    assert world.orders() == {"c": [prepare(make, 0, 1)]}


def test_a_refused_prepare_gives_all_bundles_back_and_it_is_tried_again_later(world, make):
    world.create()
    world.orders()
    world.answer("a")
    world.answer("b", ok=False, reason="node b has only nothing free")
    assert world.orders() == {"a": [release(make, 0)], "b": [release(make, 1)]}
    assert world["group"].state == "PENDING" and "node b has only" in world["group"].reason
    assert [delay for delay, _ in world.port.timers] == [0.2]
    world.port.fire()
    assert world.orders() == {"a": [prepare(make, 0, attempt=2)], "b": [prepare(make, 1, attempt=2)]}


def test_answers_of_an_earlier_attempt_and_of_unknown_groups_count_for_nothing(world):
    world.create()
    world.answer("a", ok=False)
    world.port.fire()
    world.orders()
    world.answer("a", attempt=1)
    world.answer("b", attempt=1)
    world.answer("b", attempt=1, ok=False)
    world.answer("b", group="never")
    assert world.orders() == {} and world["group"].phase == "prepare"


def test_an_answer_between_two_attempts_counts_for_nothing(world):
    world.create()
    world.answer("a", ok=False)
    world.orders()
    world.answer("b")
    assert world.orders() == {} and world["group"].state == "PENDING"


def test_a_node_that_is_gone_when_it_is_asked_makes_the_others_give_back(world, make):
    views = world.views()
    world.views = world.table._nodes = lambda: views
    del world.port.nodes[make.node_id("b")]
    world.create()
    orders = world.orders()
    assert [type(order) for order in orders["a"]] == [m.PrepareBundles, m.ReleaseBundles] and set(orders) == {"a"}
    assert "a node was lost" in world["group"].reason and len(world.port.timers) == 1


def created(world, *nodes, group="group", attempt=1):
    for _ in range(2):
        for node in nodes:
            world.answer(node, group=group, attempt=attempt)
    assert world[group].state == "CREATED"
    world.orders()


def test_removal_returns_every_bundle_and_the_record_and_the_name(world, make, port):
    world.create("name")
    created(world, "a", "b")
    reader = world.subscriber()
    reader.take()
    world.table.remove(world.link, m.GroupRemove(8, make.id("group")))
    assert world.orders() == {"a": [release(make)], "b": [release(make)]}
    assert world.link.take() == [m.Done(8)] and port.rows == {} and world.table.names == {}
    assert reader.take()[0].group.state == "REMOVED"
    assert world.table.bundle_node(make.id("group"), 0) is None
    world.table.remove(world.link, m.GroupRemove(9, make.id("group")))
    assert world.link.take() == [m.Done(9)] and world.orders() == {}


def test_a_group_removed_while_it_is_being_placed_returns_what_was_set_aside(world, make):
    world.create()
    world.orders()
    world.answer("a")
    world.table.remove(world.link, m.GroupRemove(8, make.id("group")))
    assert world.orders() == {"a": [release(make)], "b": [release(make)]}
    world.answer("b")
    assert world.orders() == {}


def test_the_loss_of_a_node_reschedules_its_groups_and_no_others(world, make):
    world.create()
    world.create(id="other", strategy="STRICT_PACK")
    created(world, "a", "b")
    created(world, "c", group="other")
    world.fill("a")
    reader = world.subscriber()
    reader.take()
    world.lose("b")
    assert world["group"].state == "RESCHEDULING" and world["other"].state == "CREATED"
    assert [update.group.state for update in reader.take()] == ["RESCHEDULING"]
    assert "RESCHEDULING" in world.table.bundle_node(make.id("group"), 1)
    assert world.orders() == {}
    world.port.fire()
    assert world.orders() == {"c": [prepare(make, 1, attempt=2)]}
    created(world, "c", attempt=2)


def test_bundles_that_are_not_lost_stay_and_are_known_to_the_end(world, make, port):
    world.create(bundles=({"CPU": CPU},) * 3)  # a, b and c
    created(world, "a", "b", "c")
    world.fill("a", "c")
    where = {index: world.table.bundle_node(make.id("group"), index) for index in (-1, 0, 1, 2)}
    world.lose("b")
    view = world["group"].view()
    assert view.state == "RESCHEDULING" and view.nodes == (make.node_id("a"), b"", make.node_id("c"))
    assert [world.table.bundle_node(make.id("group"), index) for index in (-1, 0, 2)] == [where[-1], where[0], where[2]]
    after = PlacementGroups(port, place_bundles, world.views, world.changed)  # a GCS that begins anew meanwhile
    after.load(make.id("group"), port.rows["groups", make.id("group")])
    assert after.groups[make.id("group")].view() == view
    world.port.fire()
    world.answer("c", ok=False, attempt=2, reason="no room")
    assert world.orders() == {"c": [prepare(make, 1, attempt=2), release(make, 1)]}
    world.port.fire()
    created(world, "c", attempt=3)
    assert world["group"].view().nodes == (make.node_id("a"), make.node_id("c"), make.node_id("c"))
    world.table.remove(world.link, m.GroupRemove(8, make.id("group")))
    assert world.orders() == {"a": [release(make)], "c": [release(make)]}


def test_the_loss_of_a_node_with_bundles_while_others_are_placed_anew(world, make):
    world.create(bundles=({"CPU": CPU},) * 3)
    created(world, "a", "b", "c")
    world.fill("a", "c")
    world.lose("b")
    world.port.fire()
    assert world.orders() == {"c": [prepare(make, 1, attempt=2)]}
    world.lose("a")
    assert world.orders() == {"c": [release(make, 1)]}
    world.answer("c", attempt=2)
    assert world["group"].view().nodes == (b"", b"", make.node_id("c"))
    world.pools[make.node_id("c")] = Pool({"CPU": 3 * CPU})
    world.port.fire()
    assert world.orders() == {"c": [prepare(make, 0, 1, attempt=3)]}
    created(world, "c", attempt=3)


def test_a_node_that_registers_again_gives_back_what_does_not_belong_there(world, make):
    world.create(bundles=({"CPU": CPU},) * 3)
    created(world, "a", "b", "c")
    a = make.link("a", "a")
    world.table.reconcile(a, make.node_id("a"), ((make.id("group"), (0, 1)), (make.id("never"), (4,))))
    assert a.take() == [release(make, 1), m.ReleaseBundles(0, make.id("never"), ())]
    assert world["group"].state == "CREATED"
    world.table.reconcile(a, make.node_id("a"), ())
    assert a.take() == [] and world["group"].view().nodes == (b"", make.node_id("b"), make.node_id("c"))
    world.table.check()


def test_an_answer_that_was_lost_with_its_session_does_not_hold_a_group_up(world, make):
    world.create()
    world.orders()
    a = make.link("a", "a")
    world.table.reconcile(a, make.node_id("a"), ((make.id("group"), (0,)),))  # set aside, and its answer is lost
    assert a.take() == [release(make, 0)]
    world.orders()
    world.port.fire()
    assert world.orders() == {"a": [prepare(make, 0, attempt=2)], "b": [prepare(make, 1, attempt=2)]}


def test_the_loss_of_a_node_during_the_first_phase_starts_anew(world, make):
    world.create()
    world.answer("a")
    world.orders()
    world.lose("b")
    assert world.orders() == {"a": [release(make, 0)]}
    world.answer("b")
    assert world.orders() == {}
    world.port.fire()
    assert set(world.orders()) == {"a", "c"}


def test_the_end_of_a_job_removes_its_groups_but_not_the_detached_and_not_those_of_others(world, make):
    world.create(id="mine")
    world.create("kept", id="kept", detached=True)
    world.create(id="other", job="another")
    world.table.job_ended(make.job_id("job"))
    assert set(world.table.groups) == {make.id("kept"), make.id("other")}


def test_names_are_unique_in_a_namespace_and_free_again_after_removal(world, make):
    assert world.create("name") == [m.Done(7)]
    assert world.create("name") == [m.Done(7)]  # the same request again
    (refused,) = world.create("name", id="second")
    assert type(refused) is m.Failure and refused.kind == "ValueError" and make.id("second") not in world.table.groups
    assert world.create("name", id="third", namespace="elsewhere") == [m.Done(7)]
    world.table.find(world.link, m.GroupFind(4, "name", "elsewhere"))
    world.table.find(world.link, m.GroupFind(5, "name", "nowhere"))
    found, missing = world.link.take()
    assert found.groups[0].group_id == make.id("third") and missing.kind == "ValueError"
    world.table.remove(None, m.GroupRemove(0, make.id("group")))
    assert world.create("name", id="second") == [m.Done(7)]


def test_a_subscriber_of_an_unknown_group_is_told_that_it_was_removed(world):
    (update,) = world.subscriber("never").take()
    assert update.group.state == "REMOVED"


def test_any_bundle_of_a_group_is_the_first_one(world, make):
    world.create()
    assert world.table.bundle_node(make.id("group"), 0).startswith("its placement group is PENDING")
    created(world, "a", "b")
    assert [world.table.bundle_node(make.id("group"), index) for index in (-1, 0, 1)] == [
        make.node_id("a"),
        make.node_id("a"),
        make.node_id("b"),
    ]


def carry_out(world, rng, node_id, message):
    """A node does what it is told."""
    pool = world.pools[node_id]
    node = node_id.decode()[0]
    names = [message.group_id + bytes([index]) for index in range(4)]
    if type(message) is m.PrepareBundles:
        asked = {message.group_id + bytes([index]): bundle for index, bundle in message.bundles}
        fits = all(pool.take(name, bundle) for name, bundle in asked.items()) and rng.random() < 0.9
        if not fits:
            for name in asked:
                pool.release(name)
        world.answer(node, fits, message.attempt, message.group_id.decode().rstrip("."), "no")
    elif type(message) is m.CommitBundles:
        world.answer(node, True, message.attempt, message.group_id.decode().rstrip("."))
    else:
        for name in [message.group_id + bytes([index]) for index in message.bundles] or names:
            pool.release(name)


@settings(deadline=None, database=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_after_any_history_nodes_hold_exactly_the_bundles_of_created_groups(make, seed):
    rng = random.Random(seed)
    port = make.Port()
    world = World(make, port, {name: rng.randrange(1, 4) for name in "abcd"})
    removed_nodes = 0
    for number in range(60):
        action = rng.random()
        ready = [node_id for node_id, orders in port.nodes.items() if orders]
        if action < 0.15:
            bundles = ({"CPU": CPU},) * rng.randrange(1, 4)
            strategy = rng.choice(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"])
            world.create(id=f"g{number}", bundles=bundles, strategy=strategy)
        elif action < 0.22 and world.table.groups:
            world.table.remove(None, m.GroupRemove(0, rng.choice(list(world.table.groups))))
        elif action < 0.25 and removed_nodes < 2:
            removed_nodes += 1
            world.lose(rng.choice(list(port.nodes)).decode()[0])
        elif action < 0.4:
            port.fire()
        elif ready:
            node_id = rng.choice(ready)
            carry_out(world, rng, node_id, port.nodes[node_id].pop(0))
    for _ in range(500):
        ready = [node_id for node_id, orders in port.nodes.items() if orders]
        if not ready and not port.timers:
            break
        port.fire()
        for node_id in ready:
            carry_out(world, rng, node_id, port.nodes[node_id].pop(0))
    expected = {
        (node_id, group.spec.group_id + bytes([index]))
        for group in world.table.groups.values()
        for index, node_id in enumerate(group.nodes)
        if node_id
    }
    held = {(node_id, name) for node_id in port.nodes for name in world.pools[node_id].holdings}
    assert held == expected
    assert all(node_id in port.nodes for node_id, _ in expected)
