"""Leases on a node that drains: nothing is granted, what waits goes elsewhere, what is out comes back."""

from __future__ import annotations

import pytest

from actorlib.scheduler.lease import LeaseTable
from actorlib.scheduler.resources import UNIT, Pool
from actorlib.transport import limits
from actorlib.transport.link import Address
from actorlib.transport.messages import LeaseGranted, LeaseRefused, LeaseRequest, LeaseSpilled, LeaseWaits, NodeView

HERE = Address(b"here....", b"here....", "")
THERE = Address(b"there...", b"there...", "")
WHY = "maintenance"


class Node:
    """The table's port: one node, and maybe another one."""

    def __init__(self, cpus=1):
        self.table = LeaseTable(HERE.node_id, Pool({"CPU": cpus * UNIT}), self)
        self.other = None
        self.leases = self.asked = 0
        self.starting, self.recalled = [], []
        self.now = 0.0

    def new_lease_id(self):
        self.leases += 1
        return self.leases.to_bytes(8, "big")

    def find_worker(self, request):
        self.starting.append(request)

    def views(self):
        pool, drain = self.table.pool, self.table.drain
        mine = NodeView(HERE, 1, True, pool.total, pool.visible(), {}, "", 1, (), "", drain)
        return [mine] if self.other is None else [mine, self.other]

    def view(self, node_id):
        return next((view for view in self.views() if view.address.node_id == node_id), None)

    def recent_views(self):
        return self.views()

    def join(self, cpus, free, drain=""):
        total, available = {"CPU": cpus * UNIT}, {"CPU": free * UNIT}
        self.other = NodeView(THERE, 1, True, total, available, {}, "", 1, (), "", drain)

    def group_node(self, group_id, index):
        return HERE.node_id

    def spilled(self, node_id, demand):
        pass

    def recall(self, holder, lease_id):
        self.recalled.append((holder, lease_id))

    def ask(self, strategy=("default",), holder=b"a", is_actor=False):
        self.asked += 1
        answers = []
        message = LeaseRequest(self.asked, b"job", {"CPU": UNIT}, strategy, "", 1, 0, 1, (), 0, "work")
        self.table.request(self.now, holder, message, answers.append, is_actor)
        self.table.check()
        return answers

    def start(self):
        for request in self.starting:
            self.table.worker_found(request, Address(b"w" + request.lease_id[1:], HERE.node_id, ""))
        self.starting.clear()

    def drain(self):
        self.table.begin_drain(self.now, WHY)
        self.table.check()

    def later(self, seconds):
        self.now += seconds
        self.table.recheck(self.now)
        self.table.check()


def test_every_lease_is_recalled_once_but_not_those_of_actors():
    node = Node(cpus=3)
    task, actor = node.ask(), node.ask(holder=b"b", is_actor=True)
    node.start()
    node.drain()
    assert node.recalled == [(b"a", task[0].lease_id)]
    node.drain()
    assert len(node.recalled) == 1 and type(actor[0]) is LeaseGranted


def test_a_lease_whose_worker_is_being_started_is_good_for_one_batch():
    node = Node()
    answers = node.ask()
    node.drain()
    node.start()
    assert type(answers[0]) is LeaseGranted and answers[0].brief


@pytest.mark.parametrize("free", [4, 0], ids=["there is room elsewhere", "the others are full"])
def test_what_waits_and_what_comes_goes_elsewhere(free):
    node = Node()
    node.ask()
    waits = node.ask()
    node.join(4, 0)
    node.later(0.01)
    assert waits == []
    node.join(4, free)
    node.drain()
    assert waits == [LeaseSpilled(2, THERE)]
    assert node.ask() == [LeaseSpilled(3, THERE)] and not node.table.has_waiting()


@pytest.mark.parametrize("other", [None, "drains too"])
def test_where_nobody_else_could_take_it_it_waits_with_a_reason_and_goes_when_somebody_can(other):
    node = Node()
    if other:
        node.join(4, 4, other)
    node.drain()
    answers = node.ask()
    node.later(limits.infeasible_after_s)
    (told,) = answers
    assert type(told) is LeaseWaits and told.infeasible and f"but drains ({WHY})" in told.reason
    assert other is None or "but drains (drains too)" in told.reason
    node.join(4, 4)
    node.later(0.1)
    assert answers[1:] == [LeaseSpilled(1, THERE)]


def test_what_must_run_here_is_refused_with_the_reason():
    node = Node()
    node.join(4, 4)
    node.drain()
    (refused,) = node.ask(("node", HERE.node_id, False))
    assert type(refused) is LeaseRefused and refused.kind == "TaskUnschedulableError"
    assert f"drains ({WHY})" in refused.text
    assert node.ask(("node", HERE.node_id, True)) == [LeaseSpilled(2, THERE)]


def test_no_bundle_is_set_aside_and_a_bundle_that_is_here_serves_nobody_any_more():
    node = Node(cpus=4)
    group, strategy = b"g" * 16, ("group", b"g" * 16, 0, False)
    assert node.table.prepare_bundles(group, [(0, {"CPU": 2 * UNIT})]) == ""
    node.table.commit_bundles(node.now, group)
    node.drain()
    assert (
        node.table.prepare_bundles(b"h" * 16, [(0, {"CPU": UNIT})]) == f"node {HERE.node_id.hex()[:8]} drains ({WHY})"
    )
    answers = node.ask(strategy)
    node.later(limits.lease_wait_told_after_s)
    assert node.starting == [] and WHY in answers[0].reason
