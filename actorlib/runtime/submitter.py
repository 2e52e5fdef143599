"""Tasks on their way: from ready, through a leased worker, to their result.

Theory of operation
-------------------
Tasks of one *shape* (resources, strategy, runtime environment, priority) share a queue and the leases it was granted.
A lease is a worker of ours until we return it. On each lease a window of calls is in flight; it adapts to the
measured time of the function, so that about ``limits.window_work_s`` of work lies at a worker: no-ops travel by the
hundred, long tasks alone. A node that needs a lease back recalls it: nothing more is sent, and it is returned when
what is in flight is done. A lease with nothing to do is returned after ``limits.lease_idle_s``.

A task whose missing arguments are all being made on one lease follows them there at once (a chain runs at the speed
of its functions, not of round trips). A worker that blocks gives back what it had not started; a lease with nothing
to do asks a busy one to give back half.

When a leased worker dies, what was in flight may or may not have run. A task that must not run twice (no retries
left) and a *suspect* (in flight at a death before) are always sent alone, so for them the answer is exact: it was
running. The others are tried again as suspects, at no charge the first time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from actorlib.runtime.completion import Completion
from actorlib.runtime.portions import portions, weight_of_call
from actorlib.runtime.task import Target, Task, TaskState, dependency_values
from actorlib.scheduler.policy import preferred
from actorlib.store.owner import OwnerTable, is_stored
from actorlib.transport import limits, messages
from actorlib.transport.ids import JobId, LeaseId, NodeId, ObjectId, ProcessId, TaskId
from actorlib.transport.link import Address, Link, Timer
from actorlib.transport.messages import Death, LeaseTerms, ResultStatus

Shape = tuple[Any, ...]


class Port(Protocol):
    def link(self, address: Address) -> Link: ...

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer: ...

    def post_pump(self) -> None:
        """Call ``Submitter.pump`` once what is posted has been handled."""

    def request_id(self) -> int: ...

    def code_of(self, function_id: bytes) -> bytes | None:
        """The pickled function, if it is small enough to travel with the first call to a worker."""

    def worker_death_text(self, death: Death) -> str: ...

    def retry_exhausted(self, task: Task, death: Death) -> tuple[str, str]:
        """(kind, text) of the error for a task that was running when its worker died."""

    def infeasible(self, text: str) -> bool:
        """Nothing that is here can ever run it: warn the user; True if no node can join, so that it must fail."""

    def matches(self, error: Any, classes: Any) -> bool: ...

    def error_value(self, kind: str, text: str) -> Any: ...


class Lease(Target):
    """A worker that is ours to use for one shape."""

    __slots__ = ("blocked", "idle_timer", "lease_id", "link", "node", "queue", "recalled", "terms", "worker")

    def __init__(self, granted: messages.LeaseGranted, node: Address, queue: ShapeQueue, link: Link) -> None:
        super().__init__()
        self.lease_id = granted.lease_id
        self.worker = granted.worker
        options = queue.options
        self.terms: LeaseTerms | None = LeaseTerms(options.resources, options.strategy, granted.accelerators)
        self.node = node
        self.queue = queue
        self.link = link
        self.recalled = False
        self.blocked = False
        self.idle_timer: Timer | None = None


class ShapeQueue:
    """Ready tasks of one shape, and the leases to run them."""

    __slots__ = ("leases", "options", "ready", "reason", "requests", "shape", "spreads")

    def __init__(self, shape: Shape, options: Any) -> None:
        self.shape = shape
        self.options = options
        self.ready: deque[Task] = deque()
        self.leases: dict[LeaseId, Lease] = {}
        self.requests: dict[int, Address] = {}  # request id -> the node that has it
        self.reason = "waiting for a worker lease"
        self.spreads = options.strategy[:1] == ("spread",)  # each task is placed anew, so a lease serves one


class Submitter:
    """Runs tasks on leased workers. See the module's docstring."""

    def __init__(
        self, table: OwnerTable, completion: Completion, port: Port, job_id: JobId, namespace: str, node: Address
    ) -> None:
        self._table = table
        self._completion = completion
        self._port = port
        self.job_id = job_id  # a worker learns its job, and the namespace, with its first call
        self.namespace = namespace
        self._node = node
        self._queues: dict[Shape, ShapeQueue] = {}
        self._dirty: dict[Shape, ShapeQueue] = {}
        self._requests: dict[int, ShapeQueue] = {}
        self._hops: dict[int, int] = {}  # how often a request was passed on, if it was
        self._dead_nodes: dict[ProcessId, None] = {}
        self._leases: dict[LeaseId, Lease] = {}
        self._by_worker: dict[ProcessId, Lease] = {}
        self._service_us: dict[bytes, float] = {}
        self._code_at: dict[ProcessId, dict[bytes, None]] = {}
        self.closed = False

    # -- from the caller -----------------------------------------------------------------------------------------------
    def submit(self, task: Task) -> None:
        """Take a new task (or one to be tried again)."""
        if self.closed:
            self._completion.fail_with(task, "TaskCancelledError", f"{task.name()} was cancelled: the job has ended")
            return
        if task.dependencies:
            self._wait_for_arguments(task)
            if task.is_waiting():
                self._follow(task)
                return
        self._make_ready(task)

    def _wait_for_arguments(self, task: Task) -> None:
        missing = [0]  # one counter for each time that the task waits: a late callback of an earlier wait is void
        task.missing = missing

        def arrived(_: ObjectId) -> None:
            if task.missing is missing:
                missing[0] -= 1
                if missing[0] == 0 and task.state is TaskState.WAITING:
                    self._make_ready(task)

        for oid, _ in task.dependencies:
            if not self._table.when_ready(oid, arrived):
                missing[0] += 1
                maker = self._table.entries[oid].task
                if maker is not None and maker.state is not TaskState.FINISHED:
                    if maker.followers is None:
                        maker.followers = []
                    maker.followers.append(task)

    def _make_ready(self, task: Task) -> None:
        task.state = TaskState.READY
        queue = self._queue_of(task)
        task.where = queue
        queue.ready.append(task)
        self._mark(queue)

    def _queue_of(self, task: Task) -> ShapeQueue:
        shape = task.options.shape
        if task.dependencies:
            near = preferred(self._locality(task))
            if near is not None:  # tasks whose arguments lie elsewhere have leases of their own, there
                shape = (shape, near)
        queue = self._queues.get(shape)
        if queue is None:
            queue = self._queues[shape] = ShapeQueue(shape, task.options)
        return queue

    def _mark(self, queue: ShapeQueue) -> None:
        if not self._dirty:
            self._port.post_pump()
        self._dirty[queue.shape] = queue

    def _follow(self, task: Task) -> None:
        """Send a task behind the calls that make its arguments, if one lease makes them all and has room."""
        for oid, _ in task.dependencies:
            maker = self._table.entries[oid].task
            if maker is None or maker.state is not TaskState.IN_FLIGHT:
                continue
            lease = maker.where
            if (
                isinstance(lease, Lease)
                and lease.lease_id in self._leases  # else its tasks are being tried again, the maker after this one
                and lease.queue.options.shape == task.options.shape
                and self._room(lease, task) > 0
            ):
                self._send(lease, [task])
            return

    # -- pumping -------------------------------------------------------------------------------------------------------
    def pump(self) -> None:
        """Send what can be sent, ask for leases where more is ready, return leases that idle."""
        dirty, self._dirty = self._dirty, {}
        for queue in dirty.values():
            self._pump_queue(queue)

    def _pump_queue(self, queue: ShapeQueue) -> None:
        ready = queue.ready
        if ready and queue.leases:
            share = -(-len(ready) // len(queue.leases))
            for lease in list(queue.leases.values()):
                self._fill(queue, lease, share)
        for lease in list(queue.leases.values()):
            if not lease.in_flight and (lease.recalled or not ready):
                self._idle(lease)
        if ready:
            self._ask_for_leases(queue)
        else:
            self._cancel_requests(queue)

    def _fill(self, queue: ShapeQueue, lease: Lease, share: int) -> None:
        """Send up to ``share`` tasks, as far as the lease has room."""
        ready = queue.ready
        while ready and ready[0].cancelled:
            ready.popleft()
        if not ready:
            return
        room = self._room(lease, ready[0])
        if room <= 0:
            return
        batch: list[Task] = []
        for _ in range(min(room, share)):
            if not ready:
                break
            if batch and self._alone(ready[0]):
                break
            task = ready.popleft()
            if task.cancelled:
                continue
            batch.append(task)
            if self._alone(task):
                break
        if batch:
            self._send(lease, batch)

    @staticmethod
    def _alone(task: Task) -> bool:
        return task.suspect or task.retries_left == 0

    def _room(self, lease: Lease, task: Task) -> int:
        if lease.recalled or lease.blocked or lease.link.is_down:
            return 0
        in_flight = lease.in_flight
        if lease.queue.spreads:
            return 0 if in_flight or lease.replies_seen else 1
        if not in_flight:
            return 1 if self._alone(task) else self._window(task)
        first = next(iter(in_flight.values()))
        if self._alone(task) or self._alone(first) or self._window(first) <= 1:
            return 0
        return self._window(task) - len(in_flight)

    def _window(self, task: Task) -> int:
        if task.options.max_calls == 1:
            return 1
        service_us = self._service_us.get(task.target)
        if service_us is None:
            return 1
        return max(1, min(limits.window_calls_max, int(limits.window_work_s * 1e6 / max(service_us, 1.0))))

    def _send(self, lease: Lease, tasks: list[Task]) -> None:
        calls = []
        pending = deque(tasks)
        while pending:
            task = pending.popleft()
            values: tuple[Any, ...] = ()
            if task.dependencies:
                found = dependency_values(task, self._table.entries, lease)
                if found is None:
                    if not task.is_waiting():
                        self._wait_again(task)
                    continue
                values = found
            followers, task.followers = task.followers, None
            calls.append(task.to_call(values, 0))
            task.state = TaskState.IN_FLIGHT
            task.where = lease
            lease.in_flight[task.task_id] = task
            if followers:
                for follower in followers:
                    if follower.state is TaskState.WAITING and self._room(lease, follower) > len(pending):
                        pending.append(follower)
        if not calls:
            return
        if lease.idle_timer is not None:
            lease.idle_timer.cancel()
            lease.idle_timer = None
        self._attach_code(lease, calls)
        for portion in portions(calls, weight_of_call):
            terms, lease.terms = lease.terms, None  # told once
            lease.link.send(
                messages.RunTasks(lease.lease_id, self.job_id, self.namespace, lease.replies_seen, terms, portion)
            )

    def _wait_again(self, task: Task) -> None:
        """An argument was lost between its arrival and the call: wait until it is recovered."""
        task.state = TaskState.WAITING
        self.submit(task)

    def _attach_code(self, lease: Lease, calls: list[messages.Call]) -> None:
        known = self._code_at.setdefault(lease.worker.process_id, {})
        for index, call in enumerate(calls):
            if call.target not in known:
                known[call.target] = None
                code = self._port.code_of(call.target)
                if code is not None:
                    calls[index] = call._replace(extra={**(call.extra or {}), "code": code})

    # -- leases --------------------------------------------------------------------------------------------------------
    def _ask_for_leases(self, queue: ShapeQueue) -> None:
        wanted = min(limits.lease_requests_in_flight_max, len(queue.ready))
        while len(queue.requests) < wanted:
            request_id = self._port.request_id()
            self._requests[request_id] = queue
            self._request(queue, request_id, self._node, 0)

    def _request(self, queue: ShapeQueue, request_id: int, node: Address, hops: int) -> None:
        queue.requests[request_id] = node
        options, head = queue.options, queue.ready[0] if queue.ready else None
        self._port.link(node).send(
            messages.LeaseRequest(
                request_id,
                self.job_id,
                options.resources,
                options.strategy,
                options.runtime_env,
                head.depth if head is not None else 1,
                options.priority,
                len(queue.ready),
                self._locality(head),
                hops,
                head.name() if head is not None else "",
            )
        )

    def _locality(self, task: Task | None) -> tuple[tuple[NodeId, int], ...]:
        """How many bytes of a task's arguments lie on which node, where that is worth knowing."""
        by_node: dict[NodeId, int] = {}
        if task is not None:
            for oid, _ in task.dependencies:
                entry = self._table.entries.get(oid)
                if entry is None or not is_stored(entry.value):
                    continue
                size, copies = entry.value[4], entry.rare.copies if entry.rare is not None else None
                for node_id in (entry.value[1], *(copies or ())):
                    by_node[node_id] = by_node.get(node_id, 0) + size
        return tuple((node_id, size) for node_id, size in by_node.items() if size >= limits.locality_bytes_min)

    def _cancel_requests(self, queue: ShapeQueue) -> None:
        requests, queue.requests = queue.requests, {}
        for request_id, node in requests.items():
            self._requests.pop(request_id, None)
            self._hops.pop(request_id, None)
            self._port.link(node).send(messages.LeaseCancelled(request_id))

    def granted(self, link: Link, message: messages.LeaseGranted) -> None:
        queue = self._settled(message.request_id)
        if queue is None or self.closed:
            link.send(messages.LeaseReturned(message.lease_id, False))
            return
        queue.requests.pop(message.request_id, None)
        queue.reason = "waiting for a worker lease"
        worker_link = self._port.link(message.worker)
        lease = Lease(message, link.peer, queue, worker_link)
        queue.leases[lease.lease_id] = lease
        self._leases[lease.lease_id] = lease
        self._by_worker[message.worker.process_id] = lease
        # At once, not with the next pump: a recall may follow in the same batch, and an unused lease would go back.
        self._pump_queue(queue)
        if message.brief and lease.lease_id in self._leases:
            lease.recalled = True
            if not lease.in_flight:
                self._return(lease)

    def _settled(self, request_id: int) -> ShapeQueue | None:
        """A request has its answer. Gives the queue that it was for."""
        self._hops.pop(request_id, None)
        return self._requests.pop(request_id, None)

    def _steal_for(self, idle: Lease) -> None:
        """Ask the busiest lease of the same shape for half of what it has not started."""
        busiest = max(idle.queue.leases.values(), key=lambda lease: len(lease.in_flight), default=None)
        if busiest is None or len(busiest.in_flight) < 2:
            return
        head = next(iter(busiest.in_flight.values()))
        expected_us = self._service_us.get(head.target, 1e6) * len(busiest.in_flight)
        if expected_us > 1000:
            busiest.link.send(messages.GiveBackCalls(busiest.lease_id, len(busiest.in_flight) // 2))

    def spilled(self, message: messages.LeaseSpilled) -> None:
        queue = self._requests.get(message.request_id)
        if queue is not None and message.node.process_id in self._dead_nodes:
            # Whoever names it has not heard yet that it is gone; we have, and will not hear of it again.
            self._settled(message.request_id)
            queue.requests.pop(message.request_id, None)
            self._port.call_later(limits.spill_again_after_s, lambda: self._mark(queue))
        elif queue is not None:
            hops = self._hops[message.request_id] = self._hops.get(message.request_id, 0) + 1
            self._request(queue, message.request_id, message.node, hops)

    def waits(self, message: messages.LeaseWaits) -> None:
        queue = self._requests.get(message.request_id)
        if queue is None:
            return
        queue.reason = message.reason
        if message.infeasible and self._port.infeasible(
            f"{queue.ready[0].name() if queue.ready else 'a task'}: {message.reason}"
        ):
            self._fail_queue(queue, "TaskUnschedulableError", message.reason)

    def refused(self, message: messages.LeaseRefused) -> None:
        queue = self._settled(message.request_id)
        if queue is not None:
            queue.requests.pop(message.request_id, None)
            self._fail_queue(queue, message.kind, message.text)

    def _fail_queue(self, queue: ShapeQueue, kind: str, text: str) -> None:
        self._cancel_requests(queue)
        ready, queue.ready = queue.ready, deque()
        for task in ready:
            if not task.cancelled:
                self._completion.fail_with(task, kind, text)

    def recalled(self, message: messages.LeaseRecalled) -> None:
        lease = self._leases.get(message.lease_id)
        if lease is not None:
            lease.recalled = True
            if not lease.in_flight:
                self._return(lease)
                if lease.queue.ready:
                    self._mark(lease.queue)

    def _idle(self, lease: Lease) -> None:
        if lease.recalled:
            self._return(lease)
        elif lease.idle_timer is None:
            self._steal_for(lease)
            lease.idle_timer = self._port.call_later(limits.lease_idle_s, lambda: self._idle_over(lease))

    def _idle_over(self, lease: Lease) -> None:
        lease.idle_timer = None
        if not lease.in_flight and lease.lease_id in self._leases:
            self._return(lease)

    def _return(self, lease: Lease) -> None:
        self._forget(lease)
        self._port.link(lease.node).send(messages.LeaseReturned(lease.lease_id, False))

    def _forget(self, lease: Lease) -> None:
        if lease.idle_timer is not None:
            lease.idle_timer.cancel()
            lease.idle_timer = None
        lease.queue.leases.pop(lease.lease_id, None)
        self._leases.pop(lease.lease_id, None)
        if self._by_worker.get(lease.worker.process_id) is lease:
            del self._by_worker[lease.worker.process_id]

    # -- from workers --------------------------------------------------------------------------------------------------
    def lease_of(self, worker: ProcessId) -> Lease | None:
        return self._by_worker.get(worker)

    def results(self, lease: Lease, results: tuple[messages.CallResult, ...]) -> None:
        in_flight = lease.in_flight
        lease.blocked = False
        lease.replies_seen += len(results)
        succeed = self._completion.succeed
        for task_id, status, values, retained, duration_us in results:
            task = in_flight.pop(task_id, None)
            if task is None:
                continue
            previous = self._service_us.get(task.target)
            self._service_us[task.target] = (
                float(duration_us) if previous is None else previous * 0.9 + duration_us * 0.1
            )
            if status == ResultStatus.OK:
                succeed(task, values, retained, lease.worker, duration_us)
            else:
                self._unsuccessful(task, status, values, retained, lease)
        if (lease.recalled or lease.queue.spreads) and not in_flight:
            self._return(lease)
        self._mark(lease.queue)

    def _unsuccessful(self, task: Task, status: int, values: Any, retained: Any, lease: Lease) -> None:
        for oid in retained:
            self._table.register(oid, lease.worker)
        if self._completion.wants_retry(task, status, values[0]):
            self._retry(task)
            return
        self._completion.fail(task, values[0], "CANCELLED" if status == ResultStatus.CANCELLED else "FAILED")

    def _retry(self, task: Task) -> None:
        if task.retries_left > 0:
            task.retries_left -= 1
        extra = dict(task.extra or {})
        extra["attempt"] = extra.get("attempt", 0) + 1
        task.extra = extra
        task.state = TaskState.WAITING
        task.where = None
        self.submit(task)

    def returned(self, lease: Lease, task_ids: tuple[TaskId, ...]) -> None:
        """The worker gives back calls that it has not started. It is blocked, or we asked for them."""
        tasks = [task for task in (lease.in_flight.pop(task_id, None) for task_id in task_ids) if task is not None]
        for task in reversed(tasks):
            if task.cancelled:  # the word to cancel it crosses its return
                self._completion.fail_with(task, "TaskCancelledError", f"{task.name()} was cancelled before it started")
                continue
            task.where = None
            task.state = TaskState.WAITING
            if task.dependencies:
                self.submit(task)
            else:
                task.state = TaskState.READY
                task.where = lease.queue
                lease.queue.ready.appendleft(task)
        self._mark(lease.queue)

    def worker_blocked(self, lease: Lease) -> None:
        lease.blocked = bool(lease.in_flight)

    def node_died(self, node: ProcessId, death: Death) -> None:
        """A node that had leased workers to us, or has requests of ours, is gone."""
        if bytes(death.node_id) == bytes(node):
            self._dead_nodes[node] = None
            while len(self._dead_nodes) > limits.lost_nodes_kept_max:
                del self._dead_nodes[next(iter(self._dead_nodes))]
        for lease in [lease for lease in self._leases.values() if lease.node.process_id == node]:
            self.lost(messages.LeaseLost(lease.lease_id, death._replace(process_id=lease.worker.process_id)))
        for queue in self._queues.values():
            for request_id in [rid for rid, at in queue.requests.items() if at.process_id == node]:
                del queue.requests[request_id]
                self._settled(request_id)
                self._mark(queue)

    def lost(self, message: messages.LeaseLost) -> None:
        """A leased worker died: blame what was running, try the rest again."""
        lease = self._leases.get(message.lease_id)
        if lease is None:
            return
        self._forget(lease)
        self._code_at.pop(lease.worker.process_id, None)
        tasks = list(lease.in_flight.values())
        lease.in_flight.clear()
        for task in tasks:
            self._after_death(task, message.death, exact=len(tasks) == 1)
        self._mark(lease.queue)

    def _after_death(self, task: Task, death: Death, exact: bool) -> None:
        if task.cancelled:
            self._completion.fail_with(
                task, "TaskCancelledError", f"{task.name()} was cancelled by force; its worker was killed"
            )
        elif not exact:
            task.suspect = True
            task.state = TaskState.WAITING
            self.submit(task)
        elif task.retries_left != 0:
            task.suspect = True
            self._retry(task)
        else:
            kind, text = self._port.retry_exhausted(task, death)
            self._completion.fail_with(task, kind, text)

    # -- cancelling and asking -----------------------------------------------------------------------------------------
    def cancel(self, task: Task, force: bool, recursive: bool) -> None:
        """Queued: never runs. In flight: the worker is told, with ``force`` its process is killed."""
        if task.state is TaskState.FINISHED or (task.cancelled and not force):
            return
        task.cancelled = True
        if task.state is not TaskState.IN_FLIGHT:
            self._completion.fail_with(task, "TaskCancelledError", f"{task.name()} was cancelled before it started")
            return
        lease: Lease = task.where
        if force:
            kill = messages.KillProcess(lease.worker.process_id, f"cancel(force=True) of {task.name()}")
            self._port.link(lease.node).send(kill)
        else:
            lease.link.send(messages.CancelCall(task.task_id, recursive))

    def why_pending(self, task: Task) -> str:
        if task.state is TaskState.WAITING:
            missing = [
                oid.hex()[:16]
                for oid, _ in task.dependencies
                if (entry := self._table.entries.get(oid)) is None or entry.value is None
            ]
            return f"{task.name()} waits for {len(missing)} argument(s), first {', '.join(missing[:3])}"
        if task.state is TaskState.READY:
            queue: ShapeQueue = task.where
            return f"{task.name()} is queued with {len(queue.ready)} others: {queue.reason}"
        lease: Lease = task.where
        return f"{task.name()} runs or is queued at worker {lease.worker.process_id.hex()[:8]}"

    def all_in_flight(self, tasks: list[Task]) -> bool:
        return all(task.state is TaskState.IN_FLIGHT for task in tasks)

    def recover(self, task: Task) -> None:
        """Run a finished task again because a value that it made was lost."""
        task.take_again(self._table)
        self._retry(task)

    def close(self) -> None:
        """The job ends: return every lease, fail what waits."""
        self.closed = True
        for queue in self._queues.values():
            self._fail_queue(queue, "TaskCancelledError", "the job has ended")
        for lease in list(self._leases.values()):
            if lease.in_flight:
                self._forget(lease)
                self._port.link(lease.node).send(messages.LeaseReturned(lease.lease_id, True))
            else:
                self._return(lease)

    def check(self) -> None:
        for lease_id, lease in self._leases.items():
            assert lease.queue.leases.get(lease_id) is lease, "a lease without its queue"
            assert len(lease.in_flight) <= limits.window_calls_max, "more in flight than the window allows"
            is_kept = lease.recalled and not lease.in_flight and lease.queue.shape not in self._dirty
            assert not is_kept, "a recalled lease is kept for nothing"
            for task in lease.in_flight.values():
                assert task.where is lease and task.state is TaskState.IN_FLIGHT, f"{task.name()} is astray"
        for queue in self._queues.values():
            for task in queue.ready:
                assert task.cancelled or task.state is TaskState.READY, f"{task.name()} is queued but not ready"
