"""The submitter: windows, leases, retries, blame; exact messages on fake links."""

from __future__ import annotations

import pytest

from actorlib.engine import TaskOptions
from actorlib.runtime.completion import Completion
from actorlib.runtime.submitter import Submitter
from actorlib.runtime.task import Task, TaskState
from actorlib.store.owner import Entry, OwnerTable
from actorlib.transport import limits, messages
from actorlib.transport.ids import object_id
from actorlib.transport.link import Address
from actorlib.transport.messages import (
    CallResult,
    CancelCall,
    Death,
    GiveBackCalls,
    LeaseCancelled,
    LeaseGranted,
    LeaseLost,
    LeaseRecalled,
    LeaseRefused,
    LeaseRequest,
    LeaseReturned,
    LeaseSpilled,
    LeaseWaits,
    ResultStatus,
    RunTasks,
)

ME = Address(b"me......", b"node....", "")
NODE = Address(b"node....", b"node....", "")
OTHER = Address(b"other...", b"other...", "")
OPTIONS = TaskOptions(resources={"CPU": 10_000}, shape=("cpu",))


class Link:
    def __init__(self, peer):
        self.peer = peer
        self.is_down = False
        self.sent = []

    def send(self, message):
        self.sent.append(message)

    def take(self, kind):
        taken = [message for message in self.sent if type(message) is kind]
        self.sent = [message for message in self.sent if type(message) is not kind]
        return taken


class Timer:
    def __init__(self, callback):
        self.callback = callback

    def cancel(self):
        self.callback = None


class House:
    """A submitter with its table, and all that it asks for."""

    def __init__(self):
        self.links = {}
        self.timers = []
        self.pumps = 0
        self.requests = 0
        self.freed = []
        self.tasks = 0
        self.can_grow = False
        self.table = OwnerTable(ME, self)
        self.completion = Completion(self.table, self)
        self.submitter = Submitter(self.table, self.completion, self, b"job", "space", NODE)

    # ports
    def link(self, address):
        return self.links.setdefault(address.process_id, Link(address))

    def call_later(self, delay_s, callback):
        self.timers.append(Timer(callback))
        return self.timers[-1]

    def post_pump(self):
        self.pumps += 1

    def request_id(self):
        self.requests += 1
        return self.requests

    def code_of(self, function_id):
        return b"code of " + function_id

    def worker_death_text(self, death):
        return death.text

    def retry_exhausted(self, task, death):
        return "WorkerCrashedError", f"{task.name()}: {death.text}"

    def infeasible(self, text):
        return not self.can_grow

    def count_of(self, value):
        return value

    def matches(self, error, classes):
        return error[1] in classes

    def error_value(self, kind, text):
        return (messages.VALUE_ERROR, kind.encode(), text)

    def record(self, *what):
        pass

    def deadline_met(self, task):
        pass

    def send_to(self, address, message):
        self.link(address).send(message)

    def watch(self, address):
        pass

    def free_stored(self, oid, value, recipe):
        self.freed.append((oid, recipe.may_have_run_before()))

    def recover(self, oid, recipe, reason):
        raise AssertionError("nothing is lost here")

    def ask_registration(self, owner, ids, who, then):
        then()

    # the test's side
    def submit(self, *arguments, retries=3, options=OPTIONS, target=b"f"):
        self.tasks += 1
        task = Task(b"%016d" % self.tasks, target, b"", options, 1, retries, f"task{self.tasks}")
        task.dependencies = tuple((self.result_of(other), ME) for other in arguments)
        task.holds = tuple(oid for oid, _ in task.dependencies)
        for oid in task.holds:
            self.table.hold(oid)
        self.table.entries[self.result_of(task)] = Entry(task)
        self.submitter.submit(task)
        return task

    @staticmethod
    def result_of(task):
        return object_id(task.task_id, 0)

    def value(self, task):
        return self.table.entries[self.result_of(task)].value

    def pump(self):
        while self.pumps:
            self.pumps = 0
            self.submitter.pump()
            self.submitter.check()

    def grant(self, number=1, brief=False, node=NODE):
        """Grant the oldest open request with worker ``number``."""
        request = next(message for message in self.link(node).sent if type(message) is LeaseRequest)
        self.link(node).sent.remove(request)
        worker = Address(b"worker%02d" % number, node.node_id, "")
        granted = LeaseGranted(request.request_id, b"lease%03d" % number, worker, {}, brief)
        self.submitter.granted(self.link(node), granted)
        self.pump()
        return self.link(worker)

    def calls(self, worker):
        return [call.task_id for message in worker.take(RunTasks) for call in message.calls]

    def finish(self, worker, *tasks, us=10, status=ResultStatus.OK, value=b"done"):
        lease = self.submitter.lease_of(worker.peer.process_id)
        self.submitter.results(lease, tuple(CallResult(t.task_id, status, (value,), (), us) for t in tasks))
        self.pump()

    def lose(self, worker, text="killed"):
        lease = self.submitter.lease_of(worker.peer.process_id)
        death = Death(worker.peer.process_id, b"node....", 1, None, 9, False, text, "")
        self.submitter.lost(LeaseLost(lease.lease_id, death))
        self.pump()


@pytest.fixture
def house():
    return House()


def ids(*tasks):
    return [task.task_id for task in tasks]


def test_a_task_asks_for_a_lease_runs_and_its_value_is_there(house):
    task = house.submit()
    house.pump()
    (request,) = house.link(NODE).sent
    assert request.resources == {"CPU": 10_000} and request.backlog == 1
    worker = house.grant()
    (run,) = worker.take(RunTasks)
    assert [call.task_id for call in run.calls] == ids(task) and run.calls[0].extra["code"] == b"code of f"
    assert run.terms.resources == {"CPU": 10_000}
    house.finish(worker, task)
    assert house.value(task) == b"done" and task.state is TaskState.FINISHED


def test_an_unmeasured_function_is_sent_alone_and_a_fast_one_by_the_hundred(house):
    tasks = [house.submit() for _ in range(2000)]
    house.pump()
    worker = house.grant()
    assert house.calls(worker) == ids(tasks[0])
    house.finish(worker, tasks[0], us=20)
    sent = house.calls(worker)
    assert sent == ids(*tasks[1 : 1 + len(sent)])
    assert 100 < len(sent) <= limits.window_calls_max


def test_long_tasks_are_sent_alone_and_code_once(house):
    tasks = [house.submit() for _ in range(3)]
    house.pump()
    worker = house.grant()
    house.calls(worker)
    house.finish(worker, tasks[0], us=1_000_000)
    (run,) = worker.take(RunTasks)
    assert [call.task_id for call in run.calls] == ids(tasks[1]) and run.calls[0].extra is None and run.terms is None


def test_a_chain_follows_its_argument_at_once(house):
    warm = house.submit()
    house.pump()
    worker = house.grant()
    house.finish(worker, warm, us=10)
    first = house.submit()
    house.pump()
    second = house.submit(first)
    third = house.submit(second)
    runs = worker.take(RunTasks)
    calls = [call for run in runs for call in run.calls]
    assert [call.task_id for call in calls][-3:] == ids(first, second, third)
    assert calls[-1].dependencies == ((house.result_of(second), ME, None),)


def test_a_chain_on_a_worker_that_dies_is_tried_again_also_where_its_end_was_sent_before_its_beginning(house):
    """A call that was given back and sent again comes after the one that waits for it."""
    warm = house.submit()
    house.pump()
    worker = house.grant(1)
    house.finish(worker, warm, us=10)
    first = house.submit()
    house.pump()
    second = house.submit(first)
    lease = second.where
    assert lease is first.where
    lease.in_flight[first.task_id] = lease.in_flight.pop(first.task_id)
    house.lose(worker)
    house.submitter.check()
    worker = house.grant(2)
    house.finish(worker, first)
    house.pump()
    assert second.state is TaskState.IN_FLIGHT and second.where is not lease
    house.finish(worker, second)
    assert house.value(second) == b"done"


def test_arguments_from_elsewhere_are_waited_for(house):
    slow = house.submit(target=b"slow")
    house.pump()
    worker = house.grant()
    after = house.submit(slow)
    house.pump()
    assert house.calls(worker) == ids(slow) and after.state is TaskState.WAITING
    house.finish(worker, slow)
    assert house.calls(worker) == ids(after)


def test_the_oldest_reason_to_wait_is_kept_for_whoever_asks(house):
    task = house.submit()
    house.pump()
    (request,) = house.link(NODE).sent
    house.submitter.waits(LeaseWaits(request.request_id, "waiting for 1 CPU", False))
    assert "waiting for 1 CPU" in house.submitter.why_pending(task)


def test_an_infeasible_demand_fails_where_no_node_can_join_and_waits_otherwise(house):
    task = house.submit()
    house.pump()
    (request,) = house.link(NODE).sent
    house.can_grow = True
    house.submitter.waits(LeaseWaits(request.request_id, "no node has it", True))
    assert house.value(task) is None
    house.can_grow = False
    house.submitter.waits(LeaseWaits(request.request_id, "no node has it", True))
    assert house.value(task)[1] == b"TaskUnschedulableError"


def test_a_refused_request_fails_its_queue(house):
    tasks = [house.submit(), house.submit()]
    house.pump()
    for request in house.link(NODE).take(LeaseRequest):
        house.submitter.refused(LeaseRefused(request.request_id, "RuntimeEnvSetupError", "broken"))
    assert [house.value(task)[1] for task in tasks] == [b"RuntimeEnvSetupError"] * 2


def test_a_spilled_request_goes_to_the_other_node(house):
    house.submit()
    house.pump()
    (request,) = house.link(NODE).take(LeaseRequest)
    house.submitter.spilled(LeaseSpilled(request.request_id, OTHER))
    (passed,) = house.link(OTHER).sent
    assert passed.request_id == request.request_id and passed.hops == 1


def test_a_request_is_not_sent_to_a_node_that_is_gone_whoever_names_it(house):
    task = house.submit()
    house.pump()
    (request,) = house.link(NODE).take(LeaseRequest)
    death = Death(OTHER.process_id, OTHER.node_id, 1, None, None, False, "was lost", "")
    house.submitter.node_died(OTHER.process_id, death)
    house.submitter.spilled(LeaseSpilled(request.request_id, OTHER))
    assert house.link(OTHER).sent == []
    house.timers[-1].callback()
    house.pump()
    (again,) = house.link(NODE).take(LeaseRequest)
    assert again.request_id != request.request_id and not task.is_finished()


def test_a_recalled_lease_is_returned_when_what_is_in_flight_is_done(house):
    tasks = [house.submit() for _ in range(2)]
    house.pump()
    worker = house.grant()
    house.submitter.recalled(LeaseRecalled(b"lease001"))
    assert house.link(NODE).take(LeaseReturned) == []
    house.finish(worker, tasks[0])
    assert house.link(NODE).take(LeaseReturned) == [LeaseReturned(b"lease001", False)]
    assert house.calls(worker) == ids(tasks[0]) and tasks[1].state is TaskState.READY


def test_a_recalled_lease_whose_calls_are_given_back_is_returned(house):
    """Its worker was asked to give back calls to an idle one just before the node recalled both (seed 770131)."""
    warm = house.submit()
    house.pump()
    worker = house.grant()
    house.finish(worker, warm, us=10)
    task = house.submit()
    house.pump()
    assert house.calls(worker)[-1:] == ids(task)
    house.submitter.recalled(LeaseRecalled(b"lease001"))
    assert house.link(NODE).take(LeaseReturned) == []
    house.submitter.returned(house.submitter.lease_of(worker.peer.process_id), (task.task_id,))
    house.pump()
    assert house.link(NODE).take(LeaseReturned) == [LeaseReturned(b"lease001", False)]
    assert house.calls(house.grant(2)) == ids(task)


def test_a_brief_lease_serves_one_batch(house):
    tasks = [house.submit() for _ in range(2)]
    house.pump()
    worker = house.grant(brief=True)
    house.finish(worker, tasks[0], us=1)
    assert house.calls(worker) == ids(tasks[0])
    assert house.link(NODE).take(LeaseReturned) == [LeaseReturned(b"lease001", False)]


def test_an_idle_lease_goes_back_after_a_while_and_open_requests_are_cancelled(house):
    tasks = [house.submit(), house.submit()]
    house.pump()
    worker = house.grant()
    for task in tasks:
        house.finish(worker, task, us=1)
    assert len(house.link(NODE).take(LeaseCancelled)) == 1
    for timer in house.timers:
        if timer.callback is not None:
            timer.callback()
    assert house.link(NODE).take(LeaseReturned) == [LeaseReturned(b"lease001", False)]


def test_a_grant_that_nobody_wants_any_more_is_returned(house):
    house.submitter.granted(house.link(NODE), LeaseGranted(99, b"lease", OTHER, {}, False))
    assert house.link(NODE).take(LeaseReturned) == [LeaseReturned(b"lease", False)]


def test_an_idle_lease_asks_the_busy_one_to_give_back_half(house):
    warm = house.submit()
    house.pump()
    busy = house.grant(1)
    house.finish(busy, warm, us=100)
    tasks = [house.submit() for _ in range(90)]
    house.pump()
    assert len(house.calls(busy)) == 91
    more = house.submit(target=b"slow")
    house.pump()
    idle = house.grant(2)
    house.finish(idle, more, us=5)
    (back,) = busy.take(GiveBackCalls)
    assert back.count == 45
    lease = house.submitter.lease_of(busy.peer.process_id)
    house.submitter.returned(lease, tuple(ids(*tasks[45:])))
    house.pump()
    to_idle, to_busy = house.calls(idle), house.calls(busy)
    assert set(to_idle + to_busy) == set(ids(more, *tasks[45:])) and len(to_idle) >= 20


def test_blame_is_exact(house):
    warm = house.submit()
    house.pump()
    worker = house.grant(1)
    house.finish(worker, warm, us=10)
    tasks = [house.submit(retries=1) for _ in range(3)]
    house.pump()
    house.lose(worker)
    assert all(task.suspect and task.retries_left == 1 for task in tasks)  # any of them may have done it
    for number, task in enumerate(tasks, 2):
        worker = house.grant(number)
        assert house.calls(worker) == ids(task)  # alone this time
        house.submitter.recalled(LeaseRecalled(b"lease%03d" % number))
        house.finish(worker, task)
    assert [house.value(task) for task in tasks] == [b"done"] * 3


def test_retries_are_used_up_by_deaths_and_then_the_death_is_told(house):
    task = house.submit(retries=2)
    house.pump()
    for number in range(3):
        assert house.value(task) is None
        house.lose(house.grant(number), "killed by SIGSEGV")
    assert house.value(task)[1:] == (b"WorkerCrashedError", "task1: killed by SIGSEGV")


def test_exceptions_are_retried_only_when_asked(house):
    error = (messages.VALUE_ERROR, "ValueError", "text")
    plain = house.submit()
    asked = house.submit(options=TaskOptions({"CPU": 1}, shape=("b",), retry_exceptions=("ValueError",)), retries=1)
    house.pump()
    first, second = house.grant(1), house.grant(2)
    house.finish(first, plain, status=ResultStatus.EXCEPTION, value=error)
    assert house.value(plain) == error
    house.finish(second, asked, status=ResultStatus.EXCEPTION, value=error)
    assert house.value(asked) is None and asked.retries_left == 0
    house.finish(second, asked, status=ResultStatus.EXCEPTION, value=error)
    assert house.value(asked) == error


def test_cancel_of_a_waiting_a_queued_and_a_running_task(house):
    running = house.submit()
    queued = house.submit()
    waiting = house.submit(running, target=b"g")
    house.pump()
    worker = house.grant()
    for task in (running, queued, waiting):
        house.submitter.cancel(task, False, True)
    assert worker.take(CancelCall) == [CancelCall(running.task_id, True)]
    assert [house.value(task) and house.value(task)[1] for task in (running, queued, waiting)] == [
        None,
        b"TaskCancelledError",
        b"TaskCancelledError",
    ]
    house.finish(worker, running, status=ResultStatus.CANCELLED, value=house.error_value("TaskCancelledError", ""))
    assert house.value(running)[1] == b"TaskCancelledError"
    assert len(house.calls(worker)) == 1


def test_the_end_of_the_job_returns_leases_and_fails_what_waits(house):
    running, queued = house.submit(), house.submit()
    house.pump()
    house.grant()
    house.submitter.close()
    assert house.link(NODE).take(LeaseReturned) == [LeaseReturned(b"lease001", True)]
    assert house.value(queued)[1] == b"TaskCancelledError"
    late = house.submit()
    assert house.value(late)[1] == b"TaskCancelledError" and running.state is TaskState.IN_FLIGHT


def test_counts_return_to_zero(house):
    first = house.submit()
    second = house.submit(first)
    house.pump()
    worker = house.grant()
    house.finish(worker, first, us=1)
    house.finish(worker, second, us=1)
    for task in (first, second):
        house.table.release(house.result_of(task))
    assert house.table.living() == {}


def test_a_call_that_is_cancelled_while_it_is_given_back_is_told_so(house):
    warm = house.submit()
    house.pump()
    worker = house.grant()
    house.finish(worker, warm, us=100)
    tasks = [house.submit() for _ in range(4)]
    house.pump()
    house.submitter.cancel(tasks[3], False, False)
    lease = house.submitter.lease_of(worker.peer.process_id)
    house.submitter.returned(lease, tuple(ids(*tasks[2:])))
    house.pump()
    assert house.value(tasks[3])[1] == b"TaskCancelledError"
    assert house.value(tasks[2]) is None


def test_what_an_attempt_may_have_left_that_nobody_heard_of_is_freed_wherever_it_is(house):
    first, wanted, dropped, failing = (house.submit() for _ in range(4))
    house.pump()
    worker = house.grant()
    house.finish(worker, first)
    assert house.freed == []  # it ran once, and its value is there
    house.link(NODE).sent.clear()
    house.lose(worker)  # what was done behind the one that ended it is not known
    house.table.release(object_id(dropped.task_id, 0))
    worker = house.grant(2)
    for _ in range(3):
        (sent,) = house.calls(worker)  # each alone
        task = next(task for task in (wanted, dropped, failing) if task.task_id == sent)
        is_failing = task is failing
        status = ResultStatus.EXCEPTION if is_failing else ResultStatus.OK
        value = (messages.VALUE_ERROR, b"ValueError", "no") if is_failing else b"done"
        house.finish(worker, task, status=status, value=value)
    assert dict(house.freed) == {object_id(task.task_id, 0): True for task in (dropped, failing)}
