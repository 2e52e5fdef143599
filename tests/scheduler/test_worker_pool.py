"""Workers: started when needed, reused, let go."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorlib.scheduler.worker_pool import UNUSED, WorkerPool, WorkerState
from actorlib.transport import limits
from actorlib.transport.link import Address

JOB, OTHER_JOB = b"job.....", b"other..."


class House:
    """A pool, and what it orders."""

    def __init__(self, keep_idle=1):
        self.started = []
        self.given = []
        self.gone = set()
        self.pool = WorkerPool(keep_idle, self.start, self.found)

    def start(self, runtime_env):
        process_id = len(self.started).to_bytes(8, "big")
        self.started.append(process_id)
        return process_id

    def found(self, request, worker):
        if request in self.gone:
            return False
        self.given.append((request, worker.process_id))
        return True

    def ready(self, process_id, now=0.0):
        self.pool.ready(process_id, Address(process_id, b"n" * 8, ""), 1, now)


def test_a_demand_starts_a_worker_and_gets_it_when_it_is_ready():
    house = House()
    house.pool.demand("first", JOB, "")
    assert len(house.started) == 1 and not house.given
    house.ready(house.started[0])
    assert house.given == [("first", house.started[0])]


def test_a_returned_worker_serves_its_job_again_and_no_other():
    house = House()
    house.pool.demand("first", JOB, "")
    house.ready(house.started[0])
    house.pool.returned(house.started[0], 1.0)
    house.pool.demand("other", OTHER_JOB, "")
    assert len(house.started) == 2
    house.pool.demand("second", JOB, "")
    assert house.given[-1] == ("second", house.started[0]) and len(house.started) == 2


def test_in_place_of_a_worker_that_does_not_come_back_another_is_made_ready():
    house = House(keep_idle=2)
    house.pool.demand("task", JOB, "")
    house.ready(house.started[0])
    assert len(house.started) == 1  # a task's worker comes back
    house.pool.demand("actor", OTHER_JOB, "", is_lasting=True)
    house.ready(house.started[1])
    assert house.given[-1] == ("actor", house.started[1]) and len(house.started) == 4
    house.ready(house.started[2])
    house.ready(house.started[3])
    house.pool.demand("next actor", OTHER_JOB, "", is_lasting=True)
    assert house.given[-1][0] == "next actor" and len(house.started) == 5  # at once, and one for the next
    house.pool.check()


def test_as_many_actors_at_once_as_there_may_be_make_only_a_few_ready():
    house = House(keep_idle=64)
    for number in range(100):
        house.pool.demand(number, JOB, "", is_lasting=True)
    for process_id in list(house.started):
        house.ready(process_id)
    assert [request for request, _ in house.given] == list(range(100))
    assert len(house.started) == 102


def test_environments_are_kept_apart():
    house = House()
    house.pool.prestart(1)
    house.ready(house.started[0])
    house.pool.demand("first", JOB, '{"env_vars":{}}')
    assert len(house.started) == 2 and not house.given


def test_a_worker_goes_to_the_next_if_its_request_is_gone():
    house = House()
    house.pool.demand("gone", JOB, "")
    house.pool.demand("here", JOB, "")
    house.gone.add("gone")
    house.ready(house.started[0])
    assert house.given == [("here", house.started[0])]


def test_a_dead_worker_is_replaced_for_those_who_wait():
    house = House()
    house.pool.demand("first", JOB, "")
    house.pool.died(house.started[0])
    house.pool.serve()
    assert len(house.started) == 2
    house.ready(house.started[1])
    assert house.given == [("first", house.started[1])]


def test_idle_workers_above_the_warm_ones_are_let_go_oldest_first():
    house = House(keep_idle=1)
    house.pool.prestart(3)
    for at, process_id in enumerate(house.started):
        house.ready(process_id, float(at))
    late = limits.worker_idle_s + 1.5
    assert [worker.process_id for worker in house.pool.too_idle(late)] == house.started[:2]
    assert house.pool.too_idle(limits.worker_idle_s - 1) == []


def test_a_worker_to_be_let_go_that_is_still_needed_is_idle_again():
    house = House()
    house.pool.prestart(2)
    for process_id in house.started:
        house.ready(process_id)
    house.pool.stopping(house.started[0], UNUSED)
    house.ready(house.started[0], 5.0)
    assert house.pool.workers[house.started[0]].state is WorkerState.IDLE
    house.pool.stopping(house.started[1], "killed")
    house.ready(house.started[1], 5.0)
    assert house.pool.workers[house.started[1]].state is WorkerState.STOPPING


def test_withdrawn_demands():
    house = House()
    house.pool.demand("first", JOB, "env")
    assert house.pool.withdraw("env") == ["first"] and house.pool.withdraw("env") == []


class PoolMachine(RuleBasedStateMachine):
    """Whatever happens: no worker is with two leases, nobody waits beside an idle worker that fits."""

    def __init__(self):
        super().__init__()
        self.house = House()
        self.now = 0.0
        self.asked = []
        self.finished = set()

    def leased(self):
        return [worker for worker in self.house.pool.workers.values() if worker.state is WorkerState.LEASED]

    def starting(self):
        return [worker for worker in self.house.pool.workers.values() if worker.state is WorkerState.STARTING]

    @rule(job=st.sampled_from([JOB, OTHER_JOB]))
    def demand(self, job):
        self.asked.append(len(self.asked))
        self.house.pool.demand(self.asked[-1], job, "")

    @precondition(lambda self: self.starting())
    @rule(data=st.data())
    def start_is_done(self, data):
        worker = data.draw(st.sampled_from(self.starting()))
        self.house.ready(worker.process_id, self.now)

    @precondition(lambda self: self.leased())
    @rule(data=st.data(), dies=st.booleans())
    def lease_is_over(self, data, dies):
        worker = data.draw(st.sampled_from(self.leased()))
        if dies:
            self.house.pool.died(worker.process_id)
            self.house.pool.serve()
        else:
            self.house.pool.returned(worker.process_id, self.now)

    @rule(passed=st.floats(0, 100))
    def time_passes(self, passed):
        self.now += passed
        for worker in self.house.pool.too_idle(self.now):
            self.house.pool.stopping(worker.process_id, UNUSED)
            self.house.pool.died(worker.process_id)

    @invariant()
    def whole(self):
        self.house.pool.check()
        given = [request for request, _ in self.house.given]
        assert len(given) == len(set(given)), "served twice"
        assert len(self.asked) - len(given) <= len(self.starting()), "somebody waits and nothing starts for him"


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, database=None)
