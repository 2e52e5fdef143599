"""Where leases may be: no node grants what a strategy forbids it, and whatever waits is told why or passed on."""

from __future__ import annotations

import pytest

from actorlib.scheduler.lease import HOPS_MAX, LeaseTable, RequestState
from actorlib.scheduler.resources import UNIT, Pool
from actorlib.transport import limits
from actorlib.transport.link import Address
from actorlib.transport.messages import LeaseGranted, LeaseRefused, LeaseRequest, LeaseSpilled, LeaseWaits, NodeView

GROUP = b"group..........."


def address(name):
    return Address(name.encode().ljust(8, b"."), name.encode().ljust(8, b"."), "")


class Node:
    """A table on node "here" with labels zone=a; workers are found when a test says so."""

    def __init__(self, cpus=4):
        self.table = LeaseTable(address("here").node_id, Pool({"CPU": cpus * UNIT}), self)
        self.others = {}
        self.group = "its placement group is PENDING"
        self.leases = 0
        self.asked = 0
        self.starting = []
        self.sent_away = []
        self.now = 0.0

    def new_lease_id(self):
        self.leases += 1
        return self.leases.to_bytes(8, "big")

    def find_worker(self, request):
        self.starting.append(request)

    def views(self):
        pool = self.table.pool
        here = NodeView(address("here"), 1, True, pool.total, pool.visible(), {"zone": "a"}, "", 1, (), "")
        return [here, *self.others.values()]

    def view(self, node_id):
        return next((view for view in self.views() if view.address.node_id == node_id), None)

    recent_views = views

    def group_node(self, group_id, index):
        return self.group

    def spilled(self, node_id, demand):
        self.sent_away.append((node_id, demand))

    def recall(self, holder, lease_id):
        pass

    def join(self, name, cpus=4, free=None, labels=None, alive=True):
        free = cpus if free is None else free
        total, available = {"CPU": cpus * UNIT}, {"CPU": free * UNIT}
        self.others[name] = NodeView(address(name), 1, alive, total, available, labels or {}, "", 1, (), "")

    def set_aside(self, *bundles):
        """As far as the second phase: they may be used."""
        assert self.table.prepare_bundles(GROUP, bundles) == ""
        self.table.commit_bundles(self.now, GROUP)

    def ask(self, strategy, cpus=1, hops=0, holder=b"holder"):
        self.asked += 1
        answers = []
        demand = {"CPU": cpus * UNIT}
        message = LeaseRequest(self.asked, b"job", demand, strategy, "", 1, 0, 1, (), hops, "work")
        self.table.request(self.now, holder, message, answers.append)
        self.table.check()
        return answers

    def later(self, seconds):
        self.now += seconds
        self.table.recheck(self.now)
        self.table.check()

    def start(self):
        starting, self.starting = self.starting, []
        return [
            self.table.worker_found(request, Address(b"w" + request.lease_id, address("here").node_id, ""))
            for request in starting
        ]


@pytest.fixture
def node():
    return Node()


ELSEWHERE = ("node", address("there").node_id, False)
ZONE_B = ("labels", {"zone": "b"}, {})


@pytest.mark.parametrize(
    ("strategy", "cpus"), [(ELSEWHERE, 3), (ZONE_B, 1)], ids=["a node that is too small", "labels that nobody has"]
)
def test_what_may_not_run_here_is_not_granted_here_however_much_is_free(node, strategy, cpus):
    node.join("there", cpus=2)
    answers = node.ask(strategy, cpus)
    node.later(limits.infeasible_after_s / 2)
    assert node.starting == [] and answers == []
    node.later(limits.infeasible_after_s / 2)
    (told,) = answers
    assert type(told) is LeaseWaits and told.infeasible and "no node can ever satisfy" in told.reason


@pytest.mark.parametrize("strategy", [ELSEWHERE, ZONE_B])
def test_what_may_not_run_here_is_passed_on_once_a_node_joins_that_may(node, strategy):
    node.join("there", cpus=1)
    answers = node.ask(strategy, 2)
    node.join("there", cpus=2, labels={"zone": "b"})
    node.later(0.01)
    assert answers == [LeaseSpilled(1, address("there"))] and not node.table.has_waiting()


def test_affinity_to_a_node_that_died_while_it_waited_is_refused(node):
    node.join("there", cpus=1)
    answers = node.ask(ELSEWHERE, 2)
    node.join("there", alive=False)
    node.later(0.01)
    (refused,) = answers
    assert type(refused) is LeaseRefused and "not alive" in refused.text and not node.table.has_waiting()


def test_what_has_come_far_stays_where_it_may_run_and_goes_on_where_it_may_not(node):
    node.join("there", labels={"zone": "b"})
    assert node.ask(ZONE_B, hops=HOPS_MAX) == [LeaseSpilled(1, address("there"))]
    assert node.ask((), cpus=4, hops=HOPS_MAX) == [] and len(node.starting) == 1
    assert node.ask((), cpus=4, hops=HOPS_MAX) == [] and node.table.has_waiting()
    assert node.ask((), cpus=4, hops=0) == [LeaseSpilled(4, address("there"))]


def test_this_node_grants_what_names_it_or_has_its_labels_or_prefers_another(node):
    for strategy in (
        ("node", address("here").node_id, False),
        ("labels", {"zone": "in(a,b)"}, {}),
        ("node", address("gone").node_id, True),
        ("labels", {}, {"zone": "b"}),
    ):
        node.ask(strategy)
    assert len(node.starting) == 4


def test_each_of_several_that_wait_for_the_same_is_told_why(node):
    first, second = node.ask((), 5, holder=b"a"), node.ask((), 5, holder=b"b")
    node.later(limits.infeasible_after_s)
    late = node.ask((), 5, holder=b"c")
    assert late == []
    node.later(limits.lease_wait_told_after_s)
    for number, answers in enumerate((first, second, late), 1):
        (told,) = answers
        assert told.request_id == number and told.infeasible and "5 CPU" in told.reason
    assert node.table.reasons() == ((f"work: {first[0].reason}", 3),)
    node.later(1)
    assert len(first) == len(second) == len(late) == 1


# -- placement groups --------------------------------------------------------------------------------------------------
def in_group(index=-1):
    return ("group", GROUP, index, False)


def test_what_waits_for_a_group_is_passed_on_when_the_group_lies_elsewhere_though_there_is_room_here(node):
    node.join("there")
    answers = node.ask(in_group())
    node.later(limits.lease_wait_told_after_s)
    assert answers == [LeaseWaits(1, "its placement group is PENDING", False)]
    node.group = address("there").node_id
    node.later(0.01)
    assert answers[1:] == [LeaseSpilled(1, address("there"))] and not node.table.has_waiting()
    assert node.starting == []


def test_what_waits_for_a_group_that_is_removed_meanwhile_is_refused(node):
    answers = node.ask(in_group())
    node.group = None
    node.later(0.01)
    assert [type(answer) for answer in answers] == [LeaseRefused] and "was removed" in answers[0].text


def test_a_bundle_serves_only_those_who_name_it_and_only_as_far_as_it_goes(node):
    node.set_aside((0, {"CPU": UNIT}), (2, {"CPU": 2 * UNIT}))
    assert node.table.pool.available == {"CPU": UNIT}
    node.ask(in_group(0)), node.ask(in_group(0)), node.ask(in_group(2), 2), node.ask(()), node.ask(())
    assert [request.message.request_id for request in node.starting] == [1, 3, 4]


@pytest.mark.parametrize("index", [-1, 0])
def test_what_is_set_aside_serves_nobody_before_it_is_known_that_all_of_it_is_kept(node, index):
    """Until the second phase it may be taken back, and whoever was in it would be killed for no fault of theirs."""
    answers = node.ask(in_group(index))
    assert node.table.prepare_bundles(GROUP, [(0, {"CPU": UNIT})]) == ""
    node.later(0.01)
    late = node.ask(in_group(index), holder=b"late")
    assert node.starting == [] and node.table.has_waiting()
    assert node.table.release_bundles(node.now, GROUP, (0,)) == []  # some other node had no room
    assert node.table.pool.available == node.table.pool.total
    assert answers == late == []
    assert node.table.prepare_bundles(GROUP, [(0, {"CPU": 2 * UNIT})]) == ""
    node.table.commit_bundles(node.now, GROUP)
    assert node.start() == [True, True] and [type(answer) for answer in answers + late] == [LeaseGranted] * 2


def test_of_a_group_that_is_placed_anew_what_was_kept_serves_and_what_is_set_aside_does_not(node):
    node.set_aside((0, {"CPU": UNIT}))
    assert node.table.prepare_bundles(GROUP, [(1, {"CPU": 3 * UNIT})]) == ""
    first, second = node.ask(in_group()), node.ask(in_group(), holder=b"b")
    assert node.start() == [True] and [type(answer) for answer in first] == [LeaseGranted] and second == []
    assert node.table.release_bundles(node.now, GROUP, (1,)) == []
    node.set_aside((1, {"CPU": 3 * UNIT}))
    assert node.start() == [True] and [type(answer) for answer in second] == [LeaseGranted]


def test_when_a_group_goes_its_leases_end_and_who_had_no_worker_yet_is_told(node):
    node.set_aside((0, {"CPU": 2 * UNIT}))
    granted = node.ask(in_group(), holder=b"a")
    node.start()
    starting = node.ask(in_group(), holder=b"b")
    waiting = node.ask(in_group(), holder=b"c")
    node.group = None
    (ended,) = node.table.release_bundles(node.now, GROUP)
    assert ended.holder == b"a" and ended.state is RequestState.GRANTED and len(granted) == 1
    assert [type(answer) for answer in starting + waiting] == [LeaseRefused, LeaseRefused]
    assert node.start() == [False]
    assert node.table.pool.available == node.table.pool.total and node.table.bundles == {}
    assert not node.table.leases and not node.table.has_waiting()


def test_when_a_group_is_placed_anew_who_had_no_worker_yet_waits_for_it(node):
    node.set_aside((0, {"CPU": UNIT}))
    answers = node.ask(in_group())
    node.group = "its placement group is RESCHEDULING"
    assert node.table.release_bundles(node.now, GROUP) == []
    assert node.start() == [False] and answers == [] and node.table.has_waiting()
    node.set_aside((0, {"CPU": UNIT}))
    node.later(0.01)
    assert node.start() == [True] and [type(answer) for answer in answers] == [LeaseGranted]


def test_a_prepare_that_comes_again_does_not_empty_a_bundle_that_is_in_use(node):
    node.set_aside((0, {"CPU": UNIT}))
    node.ask(in_group())
    assert node.table.prepare_bundles(GROUP, [(0, {"CPU": UNIT})]) == ""
    node.ask(in_group())
    assert len(node.starting) == 1 and node.table.has_waiting()
    node.table.check()


def test_bundles_are_set_aside_once_and_all_or_nothing(node):
    assert node.table.prepare_bundles(GROUP, [(0, {"CPU": UNIT})]) == ""
    assert node.table.prepare_bundles(GROUP, [(0, {"CPU": UNIT})]) == ""
    assert node.table.pool.available == {"CPU": 3 * UNIT}
    reason = node.table.prepare_bundles(b"other...........", [(0, {"CPU": 2 * UNIT}), (1, {"CPU": 2 * UNIT})])
    assert reason.endswith("has only 3 CPU free")
    assert node.table.pool.available == {"CPU": 3 * UNIT} and list(node.table.bundles) == [(GROUP, 0)]
    assert node.table.release_bundles(node.now, GROUP) == node.table.release_bundles(node.now, GROUP) == []
    assert node.table.pool.available == node.table.pool.total


def test_what_was_passed_on_too_often_is_passed_on_again_once_views_have_caught_up():
    node = Node(cpus=1)
    node.join("there")
    assert node.ask((), cpus=1) == []
    answers = node.ask((), cpus=1, hops=HOPS_MAX)
    node.table.recheck(node.now)
    assert answers == [] and node.table.has_waiting()
    node.table.recheck(node.now + limits.spill_again_after_s)
    assert answers == [LeaseSpilled(2, address("there"))] and not node.table.has_waiting()


def test_the_node_is_told_of_each_demand_that_is_sent_away():
    node = Node(cpus=0)
    node.join("there")
    node.ask((), cpus=2)
    assert node.sent_away == [(address("there").node_id, {"CPU": 2 * UNIT})]


def test_of_many_nodes_some_are_looked_at_first_and_all_only_where_none_of_those_has_room(node):
    for name, free in (("heard", 4), ("other", 4), ("full", 0)):
        node.join(name, free=free)
    node.ask(("default",), cpus=4)  # fills this node

    def recent(*names):
        return lambda: [node.views()[0], *(node.others[name] for name in names)]

    for heard_of, chosen in ((("heard", "full"), "heard"), (("other", "full"), "other"), (("full",), "heard")):
        node.recent_views = recent(*heard_of)
        (passed_on,) = node.ask(("default",))
        assert passed_on.node == address(chosen)


def test_many_nodes_need_not_be_looked_at_where_the_argument_lies_on_one_with_room(node):
    node.join("near")
    node.join("far")
    node.recent_views = lambda: pytest.fail("no other node is of interest")
    message = LeaseRequest(
        1, b"job", {"CPU": UNIT}, ("default",), "", 1, 0, 1, ((address("near").node_id, 1 << 30),), 0, "work"
    )
    answers = []
    node.table.request(0.0, b"holder", message, answers.append)
    assert answers == [LeaseSpilled(1, address("near"))]
