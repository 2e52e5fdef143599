"""The worker pool: who is reused, how many are started, who is let go; and in the end every demand has its worker."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorlib.scheduler.worker_pool import UNUSED, WorkerPool, WorkerState
from actorlib.transport import limits
from actorlib.transport.link import Address

JOB, OTHER = b"job.....", b"other..."
ENV = '{"env_vars":{"A":"1"}}'


class House:
    """Starts workers on paper; ``given`` is who got which worker; requests in ``gone`` want none any more."""

    def __init__(self, keep_idle=1):
        self.started = []
        self.given = {}
        self.gone = set()
        self.pool = WorkerPool(keep_idle, self.start, self.found)

    def start(self, runtime_env):
        process_id = b"w%07d" % len(self.started)
        self.started.append((process_id, runtime_env))
        return process_id

    def found(self, request, worker):
        if request in self.gone:
            return False
        assert request not in self.given, "served twice"
        self.given[request] = worker.process_id
        return True

    def ready(self, number, now=0.0):
        process_id = self.started[number][0]
        worker = self.pool.ready(process_id, Address(process_id, b"node....", ""), 100 + number, now)
        self.pool.check()
        return worker

    def id(self, number):
        return self.started[number][0]

    def state(self, number):
        return self.pool.workers[self.id(number)].state


@pytest.fixture
def house():
    return House()


def test_one_worker_is_started_for_each_demand_that_waits_and_no_more(house):
    house.pool.prestart(2)
    for request in "abc":
        house.pool.demand(request, JOB, "")
    assert len(house.started) == 3
    house.pool.serve()
    assert len(house.started) == 3
    for number in range(3):
        house.ready(number)
    house.ready(0)  # it reports twice
    assert house.given == {"a": house.id(0), "b": house.id(1), "c": house.id(2)}
    house.pool.serve()
    assert len(house.started) == 3


def test_workers_of_one_environment_do_not_count_for_another(house):
    house.pool.demand("plain", JOB, "")
    house.pool.demand("special", JOB, ENV)
    assert [env for _, env in house.started] == ["", ENV]
    house.ready(1)
    assert house.given == {"special": house.id(1)}
    house.pool.returned(house.id(1), 0.0)
    assert house.given == {"special": house.id(1)} and house.state(1) is WorkerState.IDLE


def test_the_worker_that_became_idle_last_is_reused_first(house):
    for request in "ab":
        house.pool.demand(request, JOB, "")
    house.ready(0), house.ready(1)
    house.pool.returned(house.id(1), 1.0)
    house.pool.returned(house.id(0), 2.0)
    house.pool.demand("c", JOB, "")
    assert house.given["c"] == house.id(0) and len(house.started) == 2


def test_a_worker_of_the_same_job_is_preferred_to_a_fresh_one_and_a_fresh_one_to_a_start(house):
    house.pool.demand("a", JOB, "")
    house.ready(0)
    house.pool.prestart(1)
    house.ready(1)
    house.pool.returned(house.id(0), 0.0)
    house.pool.demand("b", JOB, "")
    house.pool.demand("c", JOB, "")
    assert [house.given[request] for request in "bc"] == [house.id(0), house.id(1)] and len(house.started) == 2


def test_a_worker_that_has_run_code_of_a_job_never_serves_another(house):
    house.pool.demand("a", JOB, "")
    house.ready(0)
    house.pool.demand("b", OTHER, "")
    house.pool.returned(house.id(0), 0.0)
    assert "b" not in house.given and len(house.started) == 2
    house.ready(1)
    assert house.given["b"] == house.id(1)
    assert [worker.process_id for worker in house.pool.of_job(JOB)] == [house.id(0)]
    assert [worker.process_id for worker in house.pool.of_job(OTHER)] == [house.id(1)]


def test_the_oldest_demand_is_served_first_and_a_withdrawn_one_is_passed_over(house):
    for request in "abc":
        house.pool.demand(request, JOB, "")
    house.gone.add("a")
    house.ready(0)
    assert house.given == {"b": house.id(0)}
    house.ready(1), house.ready(2)
    assert house.given == {"b": house.id(0), "c": house.id(1)}
    assert house.state(2) is WorkerState.IDLE and house.pool.workers[house.id(2)].job_id == b""


def test_a_worker_that_dies_while_it_starts_is_replaced_only_if_somebody_waits(house):
    house.pool.demand("a", JOB, "")
    assert house.pool.died(house.id(0)).state is WorkerState.DEAD
    assert house.pool.died(house.id(0)) is None
    house.pool.serve()
    assert len(house.started) == 2
    house.ready(1)
    house.pool.died(house.id(1))
    house.pool.serve()
    assert len(house.started) == 2 and house.pool.workers == {}
    house.pool.check()


def test_a_worker_that_has_made_its_calls_stops_and_gets_nothing_more(house):
    house.pool.demand("a", JOB, "")
    house.ready(0)
    house.pool.stopping(house.id(0), "max_calls reached")
    house.pool.returned(house.id(0), 0.0)
    house.ready(0)
    house.pool.demand("b", JOB, "")
    assert house.state(0) is WorkerState.STOPPING and "b" not in house.given and len(house.started) == 2
    house.pool.stopping(house.id(0), "again")
    assert house.pool.workers[house.id(0)].reason == "max_calls reached"
    house.pool.died(house.id(0))
    house.ready(1)
    assert house.given["b"] == house.id(1)


def test_an_idle_worker_that_is_stopped_gets_nothing_more(house):
    house.pool.prestart(1)
    house.ready(0)
    house.pool.stopping(house.id(0), "its job has ended")
    house.pool.demand("a", JOB, "")
    assert house.given == {} and len(house.started) == 2
    house.pool.check()


@pytest.mark.parametrize("keep", [0, 1, 3, 5])
def test_idle_workers_are_let_go_when_they_are_more_than_kept_and_idle_for_long_oldest_first(keep):
    house = House(keep)
    house.pool.prestart(5)
    for number in range(4):
        house.ready(number, now=float(number))
    house.pool.demand("busy", JOB, "")  # takes the last one
    spare = max(0, 3 - keep)
    assert house.pool.too_idle(limits.worker_idle_s - 0.5) == []
    assert [w.process_id for w in house.pool.too_idle(limits.worker_idle_s)] == [house.id(n) for n in range(spare)][:1]
    assert [w.process_id for w in house.pool.too_idle(limits.worker_idle_s + 9)] == [house.id(n) for n in range(spare)]


def test_the_time_of_being_idle_starts_when_a_worker_is_returned(house):
    house.pool.demand("a", JOB, "")
    house.pool.demand("b", JOB, "")
    house.ready(0), house.ready(1)
    house.pool.returned(house.id(1), 1000.0)
    house.pool.returned(house.id(0), 1001.0)
    assert house.pool.too_idle(1000.0 + limits.worker_idle_s - 1) == []
    assert [worker.process_id for worker in house.pool.too_idle(1000.0 + limits.worker_idle_s)] == [house.id(1)]


class PoolDrain(RuleBasedStateMachine):
    """Two jobs, two environments; the model remembers for whom each worker has worked."""

    def __init__(self):
        super().__init__()
        self.house = House(keep_idle=1)
        self.pool = self.house.pool
        self.count = 0
        self.now = 0.0
        self.wants = {}  # request -> (job, environment), neither withdrawn nor over
        self.jobs = {}  # worker -> the job it has worked for
        self.over = set()

    def of_state(self, *states):
        return sorted(w.process_id for w in self.pool.workers.values() if w.state in states)

    @rule(job=st.sampled_from([JOB, OTHER]), env=st.sampled_from(["", ENV]))
    def demand(self, job, env):
        self.count += 1
        self.wants[self.count] = (job, env)
        self.pool.demand(self.count, job, env)

    @precondition(lambda self: set(self.wants) - set(self.house.given))
    @rule(data=st.data())
    def withdraw(self, data):
        request = data.draw(st.sampled_from(sorted(set(self.wants) - set(self.house.given))))
        del self.wants[request]
        self.house.gone.add(request)

    @precondition(lambda self: self.of_state(WorkerState.STARTING))
    @rule(data=st.data())
    def ready(self, data):
        self.report(data.draw(st.sampled_from(self.of_state(WorkerState.STARTING))))

    def report(self, process_id):
        self.pool.ready(process_id, Address(process_id, b"node....", ""), 7, self.now)

    @precondition(lambda self: self.of_state(WorkerState.LEASED))
    @rule(data=st.data())
    def give_back(self, data):
        self.finish(data.draw(st.sampled_from(self.of_state(WorkerState.LEASED))))

    def finish(self, process_id):
        self.close(process_id)
        self.pool.returned(process_id, self.now)

    def close(self, process_id):
        for request, worker in list(self.house.given.items()):
            if worker == process_id and request not in self.over:
                self.over.add(request)
                del self.wants[request]

    @precondition(lambda self: self.pool.workers)
    @rule(data=st.data(), stops_first=st.booleans())
    def die(self, data, stops_first):
        process_id = data.draw(st.sampled_from(sorted(self.pool.workers)))
        if stops_first:
            self.pool.stopping(process_id, "max_calls reached")
        self.close(process_id)
        self.pool.died(process_id)
        self.pool.serve()

    @rule(seconds=st.floats(0, 200))
    def trim(self, seconds):
        self.now += seconds
        idle = self.of_state(WorkerState.IDLE)
        let_go = [worker.process_id for worker in self.pool.too_idle(self.now)]
        assert set(let_go) <= set(idle) and len(idle) - len(let_go) >= min(1, len(idle))
        for number, process_id in enumerate(let_go):
            self.pool.stopping(process_id, UNUSED)
            if number % 2:
                self.report(process_id)  # it is still needed
                assert self.pool.workers[process_id].state in (WorkerState.IDLE, WorkerState.LEASED)

    @invariant()
    def nobody_works_for_two(self):
        self.pool.check()
        at_work = [worker for request, worker in self.house.given.items() if request not in self.over]
        assert len(at_work) == len(set(at_work))
        assert sorted(at_work) == self.of_state(WorkerState.LEASED)
        for request, worker in self.house.given.items():
            if request not in self.over:
                job, env = self.wants[request]
                assert self.jobs.setdefault(worker, job) == job, "a worker of another job"
                assert dict(self.house.started)[worker] == env, "a worker of another environment"

    @invariant()
    def enough_are_starting_for_those_who_wait(self):
        for env in ("", ENV):
            waiting = [r for r, (_, e) in self.wants.items() if e == env and r not in self.house.given]
            starting = [w for w in self.of_state(WorkerState.STARTING) if dict(self.house.started)[w] == env]
            assert len(starting) >= len(waiting)

    def teardown(self):
        while self.of_state(WorkerState.STARTING):
            for process_id in self.of_state(WorkerState.STARTING):
                self.report(process_id)
        for process_id in self.of_state(WorkerState.LEASED):
            self.finish(process_id)
        assert not self.wants, "somebody waits for ever"
        self.nobody_works_for_two()


TestPoolDrain = PoolDrain.TestCase
TestPoolDrain.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, database=None)
