"""Leases: granted once, in order, with a reason for everything that waits, and everything given back."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorlib.scheduler.lease import LeaseTable, RequestState
from actorlib.scheduler.resources import UNIT, Pool
from actorlib.transport import limits, messages
from actorlib.transport.link import Address
from actorlib.transport.messages import LeaseGranted, LeaseRefused, LeaseRequest, LeaseSpilled, LeaseWaits, NodeView

HERE = b"here...."
ONE = {"CPU": UNIT}
LATER = limits.lease_wait_told_after_s


class Node:
    """The table's port, and what it was asked for."""

    def __init__(self, cpus=2, finds_workers=True, **other):
        total = {"CPU": cpus * UNIT, **{name: amount * UNIT for name, amount in other.items()}}
        self.table = LeaseTable(HERE, Pool(total), self)
        self.finds_workers = finds_workers
        self.leases = 0
        self.starting = []
        self.recalled = []
        self.others = []
        self.groups = {}
        self.answers = {}
        self.now = 0.0
        self.requests = 0

    def new_lease_id(self):
        self.leases += 1
        return self.leases.to_bytes(8, "big")

    def find_worker(self, request):
        if self.finds_workers:
            self.table.worker_found(request, Address(b"w" + request.lease_id[1:], HERE, ""))
        else:
            self.starting.append(request)

    def views(self):
        pool = self.table.pool
        mine = NodeView(Address(HERE, HERE, ""), 1, True, pool.total, pool.visible(), {}, "", 1, (), "")
        return [mine, *self.others]

    def view(self, node_id):
        return next((view for view in self.views() if view.address.node_id == node_id), None)

    recent_views = views

    def group_node(self, group_id, index):
        return self.groups.get(group_id)

    def spilled(self, node_id, demand):
        pass

    def recall(self, holder, lease_id):
        self.recalled.append(lease_id)

    def ask(self, holder, demand=ONE, strategy=("default",), depth=1, priority=0, request_id=None):
        if request_id is None:
            self.requests += 1
            request_id = self.requests
        message = LeaseRequest(request_id, b"job", demand, strategy, "", depth, priority, 1, (), 0, "task")
        answers = self.answers.setdefault((holder, request_id), [])
        self.table.request(self.now, holder, message, answers.append)
        return answers

    def later(self, seconds=LATER):
        self.now += seconds
        self.table.recheck(self.now)


def lease_of(answers):
    (granted,) = [answer for answer in answers if type(answer) is LeaseGranted]
    return granted.lease_id


def test_whose_worker_takes_long_to_start_hears_so_once():
    node = Node(finds_workers=False)
    answers = node.ask(b"a")
    for _ in range(4):
        node.later(limits.worker_start_told_after_s / 3)
        node.table.tell_starting(node.now)
    assert [answer.reason for answer in answers] == ["its worker is being started and has not reported yet"]
    assert node.table.worker_found(node.starting[0], Address(b"w", HERE, ""))
    assert type(answers[-1]) is LeaseGranted
    node.later(10 * limits.worker_start_told_after_s)
    node.table.tell_starting(node.now)
    assert type(answers[-1]) is LeaseGranted


def test_a_request_is_granted_once_whatever_arrives_twice():
    node = Node()
    answers = node.ask(b"a", request_id=7)
    node.ask(b"a", request_id=7)
    assert [type(answer) for answer in answers] == [LeaseGranted]
    assert node.table.pool.available["CPU"] == UNIT


def test_reasons_that_change_all_the_time_are_told_now_and_then():
    node = Node(cpus=1)
    node.ask(b"a")
    waiting = node.ask(b"b")
    node.later()
    (first,) = waiting
    for number in range(100):
        node.table.pool.total[f"r{number}"] = node.table.pool.available[f"r{number}"] = UNIT  # what is free is told
        node.later(0.01)
    assert len(waiting) <= 2 + 1.0 / limits.lease_wait_told_every_s
    assert waiting[-1].reason != first.reason and "r49" in waiting[-1].reason


def test_what_waits_is_told_why_after_a_moment_and_granted_when_there_is_room():
    node = Node(cpus=1)
    first = node.ask(b"a")
    second = node.ask(b"b")
    assert second == []
    node.later()
    assert type(second[0]) is LeaseWaits and "waiting for 1 CPU" in second[0].reason and "task" in second[0].reason
    node.table.returned(node.now, lease_of(first))
    assert type(second[1]) is LeaseGranted


def test_a_lease_is_recalled_for_another_holder_but_not_for_more_of_the_same():
    node = Node(cpus=1)
    mine = node.ask(b"a")
    node.ask(b"a")
    assert node.recalled == []
    node.ask(b"b")
    assert node.recalled == [lease_of(mine)]


def test_a_lease_granted_while_others_wait_is_brief():
    node = Node(cpus=1)
    first = node.ask(b"a")
    second, third = node.ask(b"b"), node.ask(b"c")
    assert not first[0].brief
    node.table.returned(node.now, lease_of(first))
    assert second[0].brief
    node.table.returned(node.now, lease_of(second))
    assert not third[0].brief


def test_deeper_tasks_go_first_then_priority_then_who_had_less_then_age():
    node = Node(cpus=1)
    first = node.ask(b"a")
    waiting = {
        "again": node.ask(b"a"),
        "fresh": node.ask(b"b"),
        "urgent": node.ask(b"c", priority=1),
        "deep": node.ask(b"d", depth=5),
    }
    order, current = [], first
    for _ in range(4):
        node.table.returned(node.now, lease_of(current))
        name = next(name for name, answers in waiting.items() if answers and name not in order)
        order.append(name)
        current = waiting[name]
    assert order == ["deep", "urgent", "fresh", "again"]


def test_a_blocked_worker_lends_its_cpu():
    node = Node(cpus=1)
    parent = node.ask(b"driver")
    child = node.ask(b"worker", depth=2)
    assert child == []
    worker = parent[0].worker.process_id
    node.table.blocked(node.now, worker, True)
    assert type(child[0]) is LeaseGranted
    node.table.blocked(node.now, worker, False)
    node.table.check()
    node.table.returned(node.now, lease_of(child))
    node.table.returned(node.now, lease_of(parent))
    assert node.table.pool.available == node.table.pool.total


def test_what_no_node_can_do_is_told_within_five_seconds():
    node = Node(cpus=2)
    answers = node.ask(b"a", {"CPU": 3 * UNIT})
    node.later(1)
    assert answers == []
    node.later(limits.infeasible_after_s - 1)
    assert limits.infeasible_after_s < 5
    assert answers[0].infeasible and "3 CPU" in answers[0].reason and "2 CPU" in answers[0].reason


def test_what_fits_elsewhere_is_passed_on():
    node = Node(cpus=1)
    other = Address(b"other...", b"other...", "")
    node.others = [NodeView(other, 1, True, {"CPU": 8 * UNIT}, {"CPU": 8 * UNIT}, {}, "", 1, (), "")]
    assert type(node.ask(b"a")[0]) is LeaseGranted
    assert node.ask(b"a") == [LeaseSpilled(2, other)]


def test_affinity_to_a_dead_node_is_refused():
    answers = Node().ask(b"a", strategy=("node", b"gone....", False))
    assert type(answers[0]) is LeaseRefused and "not alive" in answers[0].text


def test_cancelled_while_it_waits_while_its_worker_starts_and_after():
    node = Node(cpus=1, finds_workers=False)
    first, second = node.ask(b"a", request_id=1), node.ask(b"b", request_id=2)
    node.table.cancel(node.now, b"b", 2)
    assert second == []
    node.table.cancel(node.now, b"a", 1)
    assert not node.table.worker_found(node.starting[0], Address(b"w" * 8, HERE, ""))
    assert first == [] and node.table.pool.available == node.table.pool.total and not node.table.has_waiting()
    node.finds_workers = True
    granted = node.ask(b"a", request_id=3)
    node.table.cancel(node.now, b"a", 3)
    assert lease_of(granted) in node.table.leases  # too late: the holder has to return it


def test_a_dead_holder_gives_everything_back():
    node = Node(cpus=2)
    mine = node.ask(b"a")
    node.ask(b"a")
    node.ask(b"a")
    other = node.ask(b"b")
    dropped = node.table.holder_died(node.now, b"a")
    assert lease_of(mine) in [lease.lease_id for lease in dropped] and len(dropped) == 2
    assert type(other[-1]) is LeaseGranted


def test_a_dead_workers_lease_is_over():
    node = Node(cpus=1)
    answers = node.ask(b"a")
    lease = node.table.worker_died(node.now, answers[0].worker.process_id)
    assert lease.lease_id == lease_of(answers) and node.table.pool.available == node.table.pool.total
    assert node.table.worker_died(node.now, b"stranger") is None


def test_no_worker_can_be_had():
    node = Node(finds_workers=False)
    answers = node.ask(b"a")
    node.table.worker_failed(node.starting[0], "its environment is broken")
    assert answers == [LeaseRefused(1, "RuntimeEnvSetupError", "its environment is broken")]
    assert node.table.pool.available == node.table.pool.total


def test_an_actor_keeps_what_it_needs_to_run():
    node = Node(cpus=1)
    answers = node.ask(b"a")
    node.table.shrink(node.now, lease_of(answers), {})
    assert node.table.pool.available["CPU"] == UNIT
    node.table.returned(node.now, lease_of(answers))
    assert node.table.pool.available == node.table.pool.total


def test_bundles_are_set_aside_all_or_nothing_and_serve_their_group_only():
    node, group = Node(cpus=3), b"group..."
    assert "has only" in node.table.prepare_bundles(group, [(0, {"CPU": 2 * UNIT}), (1, {"CPU": 2 * UNIT})])
    assert node.table.pool.available == node.table.pool.total
    assert node.table.prepare_bundles(group, [(0, {"CPU": 2 * UNIT})]) == ""
    assert node.table.prepare_bundles(group, [(0, {"CPU": 2 * UNIT})]) == ""  # asked twice
    node.table.commit_bundles(node.now, group)
    inside = [node.ask(b"a", strategy=("group", group, -1, False)) for _ in range(3)]
    outside = [node.ask(b"b") for _ in range(2)]
    assert [bool(answers) for answers in inside] == [True, True, False]
    assert [bool(answers) for answers in outside] == [True, False]
    ended = node.table.release_bundles(node.now, group)
    assert {lease.lease_id for lease in ended} == {lease_of(inside[0]), lease_of(inside[1])}
    assert type(inside[2][-1]) is LeaseRefused and "removed" in inside[2][-1].text
    assert type(outside[1][-1]) is LeaseGranted
    node.table.check()


def test_a_demand_larger_than_the_bundles_is_infeasible():
    node, group = Node(cpus=4), b"group..."
    node.table.prepare_bundles(group, [(0, ONE)])
    node.table.commit_bundles(node.now, group)
    answers = node.ask(b"a", {"CPU": 2 * UNIT}, ("group", group, 0, False))
    node.later()
    assert answers[-1].infeasible and "larger than the group's bundles" in answers[-1].reason


@pytest.mark.parametrize(("where", "outcome"), [("it is PENDING", LeaseWaits), (None, LeaseRefused)])
def test_a_group_that_is_not_placed_or_gone(where, outcome):
    node = Node()
    node.groups[b"group..."] = where
    answers = node.ask(b"a", strategy=("group", b"group...", -1, False))
    node.later()
    assert type(answers[-1]) is outcome


class LeaseMachine(RuleBasedStateMachine):
    """Whatever comes in whatever order: nothing is given out twice, and all comes back."""

    def __init__(self):
        super().__init__()
        self.node = Node(cpus=3, finds_workers=False, lamp=1)
        self.dead = set()

    def of_state(self, state):
        return [lease for lease in self.node.table.leases.values() if lease.state is state]

    @rule(
        holder=st.sampled_from([b"a", b"b", b"c"]),
        cpus=st.integers(0, 3),
        lamps=st.integers(0, 1),
        depth=st.integers(1, 3),
    )
    def ask(self, holder, cpus, lamps, depth):
        self.node.ask(holder, {"CPU": cpus * UNIT, "lamp": lamps * UNIT}, depth=depth)

    @precondition(lambda self: self.node.starting)
    @rule(data=st.data(), works=st.booleans())
    def worker_starts(self, data, works):
        request = data.draw(st.sampled_from(self.node.starting))
        self.node.starting.remove(request)
        if works:
            self.node.table.worker_found(request, Address(b"w" + request.lease_id[1:], HERE, ""))
        else:
            self.node.table.worker_failed(request, "no")

    @precondition(lambda self: self.of_state(RequestState.GRANTED))
    @rule(data=st.data(), what=st.sampled_from(["return", "die", "block", "unblock", "shrink"]))
    def lease_goes_on(self, data, what):
        lease = data.draw(st.sampled_from(self.of_state(RequestState.GRANTED)))
        table, now = self.node.table, self.node.now
        if what == "return":
            table.returned(now, lease.lease_id)
        elif what == "die":
            table.worker_died(now, lease.worker)
        elif what == "shrink":
            table.shrink(now, lease.lease_id, {"CPU": UNIT})
        else:
            table.blocked(now, lease.worker, what == "block")

    @rule(holder=st.sampled_from([b"a", b"b", b"c"]), number=st.integers(1, 30))
    def cancel(self, holder, number):
        self.node.table.cancel(self.node.now, holder, number)

    @rule(holder=st.sampled_from([b"a", b"b", b"c"]))
    def holder_dies(self, holder):
        self.node.table.holder_died(self.node.now, holder)

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds):
        self.node.later(seconds)

    @invariant()
    def whole(self):
        self.node.table.check()
        for (_, request_id), answers in self.node.answers.items():
            granted = [answer for answer in answers if type(answer) is messages.LeaseGranted]
            assert len(granted) <= 1, f"request {request_id} was granted twice"

    def teardown(self):
        table = self.node.table
        for holder in (b"a", b"b", b"c"):
            table.holder_died(self.node.now, holder)
        assert table.pool.available == table.pool.total
        assert not table.leases and not table.has_waiting()


TestLeaseMachine = LeaseMachine.TestCase
TestLeaseMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None, database=None)
