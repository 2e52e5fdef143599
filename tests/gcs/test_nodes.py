"""Nodes: who is told of whom, and what the loss of one does."""

from __future__ import annotations

import pytest

from actorlib.gcs.nodes import Nodes
from actorlib.transport import limits
from actorlib.transport.messages import (
    NodeDrained,
    NodeDrains,
    NodeRegistered,
    NodeReport,
    NodesChanged,
    NodesFree,
    NodesList,
    ShutdownNode,
)


class Heard:
    def __init__(self):
        self.changes = 0
        self.lost = []

    def changed(self):
        self.changes += 1


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def nodes(port, heard):
    return Nodes(port, heard.changed, lambda node_id, reason, planned: heard.lost.append((node_id, reason)))


def join(nodes, make, name, **more):
    link = make.link(name, name)
    nodes.register(link, make.register_node(name, **more))
    nodes.check()
    return link


def test_a_node_that_registers_is_told_of_all_that_are_there(nodes, make, heard):
    join(nodes, make, "a")
    link = join(nodes, make, "b", request_id=9)
    (reply,) = link.take()
    assert type(reply) is NodeRegistered and reply.request_id == 9
    assert [view.hostname for view in reply.nodes] == ["host-a", "host-b"]
    assert reply.nodes[1].available == reply.nodes[1].total == {"CPU": 20_000} and reply.nodes[1].alive
    assert heard.changes == 2


def test_the_others_hear_of_a_new_node_and_it_does_not_hear_of_itself(nodes, make, port):
    a = join(nodes, make, "a")
    port.fire()
    a.take()
    b = join(nodes, make, "b")
    b.take()
    port.fire()
    (told,) = a.take()
    assert type(told) is NodesChanged and [view.hostname for view in told.nodes] == ["host-b"]
    assert b.take() == []


def test_reports_are_passed_on_in_one_batch_with_the_newest_of_each(nodes, make, port, heard):
    a, b, c = (join(nodes, make, name) for name in "abc")
    port.fire()
    for link in (a, b, c):
        link.take()
    before = heard.changes
    for free in (9_000, 8_000, 7_000):
        nodes.report(a, NodeReport(1, {"CPU": free}, (("waits", 2),)))
    nodes.report(b, NodeReport(1, {"CPU": 5_000}, ()))
    assert len(port.timers) == 1 and heard.changes == before + 4
    assert c.take() == []
    port.fire()
    (told,) = c.take()
    assert told == NodesFree(((make.node_id("a"), {"CPU": 7_000}), (make.node_id("b"), {"CPU": 5_000})))
    assert a.take() == [told]
    nodes.list_all(c, NodesList(1))
    (reply,) = c.take()
    assert reply.nodes[0].waiting == (("waits", 2),) and reply.nodes[0].total == {"CPU": 20_000}


def test_nothing_is_broadcast_while_nothing_changes(nodes, make, port):
    join(nodes, make, "a")
    port.fire()
    assert port.timers == []
    nodes.report(make.link("x", "unknown"), NodeReport(1, {}, ()))
    assert port.timers == []


def test_a_report_of_another_epoch_or_of_a_lost_node_changes_nothing(nodes, make, port, heard):
    a = join(nodes, make, "a", epoch=3)
    changes = heard.changes
    nodes.report(a, NodeReport(2, {"CPU": 1}, ()))
    assert nodes.views[make.node_id("a")].available == {"CPU": 20_000}
    nodes.lost(make.node_id("a"), "gone")
    nodes.report(a, NodeReport(3, {"CPU": 1}, ()))
    view = nodes.views[make.node_id("a")]
    assert not view.alive and view.available == {} and heard.changes == changes


def test_a_lost_node_is_lost_once_and_its_reason_is_told_to_the_others(nodes, make, port, heard):
    join(nodes, make, "a")
    b = join(nodes, make, "b")
    port.fire()
    b.take()
    nodes.lost(make.node_id("a"), "its machine is off")
    nodes.lost(make.node_id("a"), "again")
    nodes.lost(make.node_id("never"), "unknown")
    nodes.check()
    assert heard.lost == [(make.node_id("a"), "its machine is off")]
    port.fire()
    ((view,),) = b.take()[0]
    assert not view.alive and view.death == "its machine is off" and view.waiting == ()
    assert not nodes.is_alive(make.node_id("a")) and nodes.is_alive(make.node_id("b"))
    assert [view.hostname for view in nodes.alive()] == ["host-b"]


def test_an_earlier_life_of_a_node_is_not_registered_and_told_to_end(nodes, make):
    link = join(nodes, make, "a", epoch=7)
    link.take()
    stale = make.link("a", "a")
    assert not nodes.register(stale, make.register_node("a", epoch=6))
    assert [type(message) for message in stale.take()] == [ShutdownNode]
    assert nodes.links[make.node_id("a")] is link and nodes.views[make.node_id("a")].epoch == 7
    assert nodes.register(stale, make.register_node("a", epoch=8))


def test_nothing_is_sent_to_a_lost_node(nodes, make, port):
    a = join(nodes, make, "a")
    a.take()
    join(nodes, make, "b")
    nodes.lost(make.node_id("a"), "gone")
    port.fire()
    assert a.take() == []


def test_whoever_asks_gets_the_living_and_the_dead(nodes, make):
    join(nodes, make, "a")
    join(nodes, make, "b")
    nodes.lost(make.node_id("a"), "gone")
    link = make.link("driver")
    nodes.list_all(link, NodesList(4))
    (reply,) = link.take()
    assert reply.request_id == 4
    assert [(view.hostname, view.alive, view.death) for view in reply.nodes] == [
        ("host-a", False, "gone"),
        ("host-b", True, ""),
    ]


def test_who_is_there_and_who_was_lost_is_persisted_and_awaited_or_refused_after_a_restart(nodes, make, port, heard):
    for name in ("a", "b"):
        join(nodes, make, name)
    nodes.lost(make.node_id("a"), "gone")
    later = Nodes(port, heard.changed, lambda *_: None)
    for (_, key), value in port.rows.items():
        later.load(key, value)
    later.check()
    assert list(later.awaited) == [make.node_id("b")] and later.is_known(make.node_id("b"))
    assert later.alive() == [] and not later.is_alive(make.node_id("b"))
    link = make.link("a", "a")
    assert not later.register(link, make.register_node("a"))
    assert [type(message) for message in link.take()] == [ShutdownNode]
    join(later, make, "b")
    assert not later.awaited and later.is_alive(make.node_id("b"))


def test_only_the_last_lost_nodes_are_kept(nodes, make, port, monkeypatch):
    monkeypatch.setattr(limits, "lost_nodes_kept_max", 2)
    for name in "abc":
        join(nodes, make, name)
        nodes.lost(make.node_id(name), "gone")
    assert {key for _, key in port.rows} == set(nodes.views) == {make.node_id("b"), make.node_id("c")}


def test_a_node_that_is_cut_off_is_awaited_and_gets_nothing_to_do(nodes, make):
    link = join(nodes, make, "a")
    nodes.cut_off(make.link("a", "a"))  # an earlier session
    assert nodes.is_alive(make.node_id("a"))
    nodes.cut_off(link)
    nodes.check()
    assert nodes.alive() == [] and nodes.is_known(make.node_id("a"))
    join(nodes, make, "a")
    assert nodes.is_alive(make.node_id("a"))


# -- nodes that drain --------------------------------------------------------------------------------------------------
def test_a_node_that_drains_is_alive_and_takes_no_work_and_the_others_hear_of_it(nodes, make, port, heard):
    a, b = join(nodes, make, "a"), join(nodes, make, "b")
    port.fire()
    a.take(), b.take()
    before = heard.changes
    port.effects.clear()
    nodes.drains(a, NodeDrains(1, 30.0, "maintenance", 4))
    nodes.check()
    assert port.effects == [("persist", "nodes", a.peer.node_id)] and heard.changes == before + 1
    assert [view.hostname for view in nodes.alive()] == ["host-b"]
    assert nodes.is_alive(a.peer.node_id) and not nodes.takes_work(a.peer.node_id)
    port.fire()
    (told,) = b.take()
    assert [(view.state, view.drain, view.takes_work()) for view in told.nodes] == [("DRAINING", "maintenance", False)]
    nodes.report(a, NodeReport(1, {"CPU": 5}, ()))
    assert nodes.views[a.peer.node_id].drain == "maintenance"  # a later report does not undo it
    nodes.drains(a, NodeDrains(1, 30.0, "again", 5))
    assert nodes.views[a.peer.node_id].drain == "maintenance"


def test_a_node_of_another_epoch_does_not_drain(nodes, make):
    a = join(nodes, make, "a")
    nodes.drains(a, NodeDrains(0, 30.0, "an earlier life"))
    assert nodes.takes_work(a.peer.node_id)


def test_a_gcs_that_begins_anew_still_knows_who_drains(nodes, make, port, heard):
    a = join(nodes, make, "a")
    nodes.drains(a, NodeDrains(1, 30.0, "maintenance"))
    later = Nodes(port, heard.changed, lambda *_: None)
    for (table, key), value in port.rows.items():
        assert table == "nodes"
        later.load(key, value)
    assert later.views[a.peer.node_id].state == "DRAINING"
    link = join(later, make, "a")
    assert later.views[link.peer.node_id].drain == "maintenance" and later.alive() == []


@pytest.mark.parametrize(("is_empty", "state"), [(True, "DRAINED"), (False, "DEAD")])
def test_a_node_that_has_drained_is_gone_in_good_order(port, make, is_empty, state):
    lost = []
    nodes = Nodes(port, lambda: None, lambda *what: lost.append(what))
    a = join(nodes, make, "a")
    nodes.drains(a, NodeDrains(1, 30.0, "maintenance"))
    nodes.drained(a, NodeDrained(1, is_empty, "it was drained (maintenance)"))
    nodes.check()
    assert lost == [(a.peer.node_id, "it was drained (maintenance)", True)]
    view = nodes.views[a.peer.node_id]
    assert (view.state, view.death, view.drain) == (state, "it was drained (maintenance)", "maintenance")
    assert not nodes.register(make.link("a", "a"), make.register_node("a"))  # it can't come back as the same
