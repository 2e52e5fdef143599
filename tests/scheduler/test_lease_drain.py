"""Leases under any order of events: what is out and what is free make up the total, and in the end all are served."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorlib.scheduler.lease import LeaseTable, RequestState
from actorlib.scheduler.resources import UNIT, Pool
from actorlib.transport.link import Address
from actorlib.transport.messages import LeaseGranted, LeaseRefused, LeaseRequest, NodeView

HERE = b"here...."
TOTAL = {"CPU": 4 * UNIT, "GPU": 2 * UNIT, "disk": 3 * UNIT}
HOLDERS = [b"a", b"b", b"c"]
GROUPS = [b"g" * 16, b"h" * 16]
DEMANDS = [
    {"CPU": UNIT},
    {"CPU": 4 * UNIT},
    {"CPU": UNIT // 2, "GPU": UNIT // 4},
    {"GPU": 2 * UNIT},
    {"disk": UNIT},
    {},
]


class Drain(RuleBasedStateMachine):
    """One node, three holders, two groups. The model keeps what was granted and to whom, apart from the table."""

    def __init__(self):
        super().__init__()
        self.pool = Pool(TOTAL)
        self.table = LeaseTable(HERE, self.pool, self)
        self.now = 0.0
        self.count = 0
        self.recalled = []
        self.starting = []
        self.placed = {}
        self.committed = {}
        self.answers = {}  # (holder, request id) -> answers
        self.granted = {}  # lease id -> (holder, worker, demand, blocked, group or None)

    # -- the table's port
    def new_lease_id(self):
        self.count += 1
        return self.count.to_bytes(8, "big")

    def find_worker(self, request):
        self.starting.append(request)

    def views(self):
        return [NodeView(Address(HERE, HERE, ""), 1, True, TOTAL, self.pool.visible(), {}, "", 1, (), "")]

    def view(self, node_id):
        return next((view for view in self.views() if view.address.node_id == node_id), None)

    recent_views = views

    def group_node(self, group_id, index):
        return HERE if group_id in self.placed else None

    def spilled(self, node_id, demand):
        pass

    def recall(self, holder, lease_id):
        assert self.granted[lease_id][0] == holder, "recalled from somebody else"
        assert lease_id not in self.recalled, "recalled twice"
        self.recalled.append(lease_id)

    # -- what happens
    def ask(self, holder, demand, strategy):
        self.count += 1
        answers = self.answers[holder, self.count] = []
        message = LeaseRequest(self.count, b"job", demand, strategy, "", 1, 0, 1, (), 0, "work")
        self.table.request(self.now, holder, message, answers.append)

    @rule(holder=st.sampled_from(HOLDERS), demand=st.sampled_from(DEMANDS))
    def ask_for_anything(self, holder, demand):
        self.ask(holder, demand, ())

    @rule(holder=st.sampled_from(HOLDERS), group=st.sampled_from(GROUPS), index=st.integers(-1, 1))
    def ask_in_group(self, holder, group, index):
        self.ask(holder, {"CPU": UNIT}, ("group", group, index, False))

    @rule(group=st.sampled_from(GROUPS), cpus=st.integers(1, 2), gpus=st.integers(0, 2))
    def prepare(self, group, cpus, gpus):
        if group not in self.placed:
            bundles = [(0, {"CPU": cpus * UNIT}), (1, {"CPU": UNIT, "GPU": gpus * UNIT // 2})]
            before = dict(self.pool.available)
            if self.table.prepare_bundles(group, bundles) == "":
                self.placed[group] = bundles
            else:
                assert self.pool.available == before, "a refused prepare kept something"

    @precondition(lambda self: self.placed.keys() - self.committed.keys())
    @rule(data=st.data())
    def commit(self, data):
        group = data.draw(st.sampled_from(sorted(self.placed.keys() - self.committed.keys())))
        self.committed[group] = None
        self.table.commit_bundles(self.now, group)

    @precondition(lambda self: self.placed)
    @rule(data=st.data())
    def release(self, data):
        group = data.draw(st.sampled_from(sorted(self.placed)))
        del self.placed[group]
        self.committed.pop(group, None)
        ended = {lease.lease_id for lease in self.table.release_bundles(self.now, group)}
        inside = {lease_id for lease_id, lease in self.granted.items() if lease[4] == group}
        assert ended == inside
        for lease_id in inside:
            del self.granted[lease_id]

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), works=st.integers(0, 3))
    def start(self, data, works):
        request = data.draw(st.sampled_from(self.starting))
        self.starting.remove(request)
        self.give_worker(request, works > 0)

    def give_worker(self, request, works=True):
        if not works:
            self.table.worker_failed(request, "no environment")
            return
        worker = b"w" + request.lease_id
        if self.table.worker_found(request, Address(worker, HERE, "")):
            strategy = request.message.strategy
            group = strategy[1] if strategy else None
            self.granted[request.lease_id] = (request.holder, worker, request.message.resources, False, group)

    @precondition(lambda self: self.granted)
    @rule(data=st.data(), what=st.sampled_from(["return", "die", "block", "go on"]))
    def go_on(self, data, what):
        lease_id = data.draw(st.sampled_from(sorted(self.granted)))
        holder, worker, demand, _, group = self.granted[lease_id]
        if what == "return":
            del self.granted[lease_id]
            assert self.table.returned(self.now, lease_id).worker == worker
            assert self.table.returned(self.now, lease_id) is None
        elif what == "die":
            del self.granted[lease_id]
            assert self.table.worker_died(self.now, worker).lease_id == lease_id
        else:
            self.granted[lease_id] = (holder, worker, demand, what == "block", group)
            self.table.blocked(self.now, worker, what == "block")

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def cancel(self, data):
        holder, request_id = data.draw(st.sampled_from(sorted(self.answers)))
        self.table.cancel(self.now, holder, request_id)
        if not any(type(answer) is LeaseGranted for answer in self.answers[holder, request_id]):
            del self.answers[holder, request_id]

    @rule(holder=st.sampled_from(HOLDERS))
    def die(self, holder):
        ended = {lease.lease_id for lease in self.table.holder_died(self.now, holder)}
        assert ended == {lease_id for lease_id, lease in self.granted.items() if lease[0] == holder}
        for lease_id in ended:
            del self.granted[lease_id]
        self.answers = {key: answers for key, answers in self.answers.items() if key[0] != holder}

    @rule(seconds=st.sampled_from([0.05, 0.2, 3.0]))
    def pass_time(self, seconds):
        self.now += seconds
        self.table.recheck(self.now)

    # -- what is always so
    @invariant()
    def everything_adds_up(self):
        self.table.check()
        live = [request for request in self.starting if self.table.leases.get(request.lease_id) is request]
        in_bundles = {}
        used = dict.fromkeys(TOTAL, 0)
        for demand, group, blocked in [
            *((r.message.resources, r.message.strategy[1] if r.message.strategy else None, False) for r in live),
            *((demand, group, blocked) for _, _, demand, blocked, group in self.granted.values()),
        ]:
            out = in_bundles.setdefault(group, dict.fromkeys(TOTAL, 0)) if group else used
            for name, amount in demand.items():
                out[name] += 0 if blocked and name == "CPU" else amount
        for bundles in self.placed.values():
            for _, bundle in bundles:
                for name, amount in bundle.items():
                    used[name] += amount
        assert self.pool.available == {name: total - used[name] for name, total in TOTAL.items()}
        for group, bundles in self.placed.items():
            free = sum(self.table.bundles[group, index].available["CPU"] for index, _ in bundles)
            total = sum(bundle["CPU"] for _, bundle in bundles)
            assert free == total - in_bundles.get(group, {"CPU": 0})["CPU"]
        assert in_bundles.keys() <= self.committed.keys(), "a bundle is in use that may be taken back"
        assert set(self.table.leases) == set(self.granted) | {request.lease_id for request in live}

    @invariant()
    def devices_are_never_given_out_twice(self):
        shares = {}
        for lease_id in self.granted:
            lease = self.table.leases[lease_id]
            for index in lease.accelerators.get("GPU", ()):
                shares[index] = shares.get(index, 0) + min(UNIT, lease.message.resources["GPU"])
        assert all(index < 2 and share <= UNIT for index, share in shares.items())

    def teardown(self):
        """Every holder that is still there gives back whatever it gets: nobody may wait for ever."""
        for group in list(self.placed):
            del self.placed[group]
            self.committed.pop(group, None)
            for lease in self.table.release_bundles(self.now, group):
                del self.granted[lease.lease_id]
        for _ in range(len(self.answers) + 1):
            while self.starting:
                self.give_worker(self.starting.pop())
            for lease_id in sorted(self.granted):
                del self.granted[lease_id]
                self.table.returned(self.now, lease_id)
            self.now += 1.0
            self.table.recheck(self.now)
        assert not self.table.has_waiting() and not self.table.leases, self.table.reasons()
        assert self.pool.available == TOTAL and not self.pool.holdings
        for answers in self.answers.values():
            ends = [type(answer) for answer in answers if type(answer) in (LeaseGranted, LeaseRefused)]
            assert len(ends) == 1, "answered twice, or never"

    def __repr__(self):
        return f"{[r.state.value for r in self.table.leases.values() if r.state is not RequestState.WAITING]}"


TestDrain = Drain.TestCase
TestDrain.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, database=None)
