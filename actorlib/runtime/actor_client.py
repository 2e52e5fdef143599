"""Calls of this process to one actor: kept in order, sent to its worker, tried again or failed when it dies.

The GCS tells where the actor is (``ActorUpdate``). Until it is ALIVE its calls wait here in order. While it is ALIVE
they go straight to its worker; a call whose arguments are missing holds up those behind it (unless the actor allows
its calls to run out of order), except where the arguments are made by earlier calls to the same incarnation: then it
follows them at once.

When an incarnation is lost, calls in flight are tried again at the next one, in order and ahead of those that wait,
if they have retries left (``max_task_retries``); else they fail, since they may have taken effect. Calls that were
not sent simply wait for the next incarnation.

Calls to a **durable** actor are always sent again, each with the number that it got when it was first sent: the actor
runs each once (see ``call_log.py``). Such an actor is told up to where the replies have come, so that it keeps them no
longer, and each of its incarnations is told first which was the last reply seen. Calls that a durable actor makes have
their identity in the task id instead (``voice``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from actorlib.runtime.completion import Completion
from actorlib.runtime.portions import portions, weight_of_call
from actorlib.runtime.task import Target, Task, TaskState, dependency_values
from actorlib.store.owner import OwnerTable
from actorlib.transport import limits, messages
from actorlib.transport.ids import PROCESS_ID_BYTES, ActorId, ObjectId, ProcessId
from actorlib.transport.link import NOWHERE, Address, Link, Timer
from actorlib.transport.messages import ActorUpdate, ResultStatus


class Port(Protocol):
    def link(self, address: Address) -> Link: ...

    def drop_link(self, process_id: ProcessId, reason: str) -> None: ...

    def post_pump(self) -> None: ...

    def to_gcs(self, message: tuple[Any, ...]) -> None: ...

    def actor_error(self, update: ActorUpdate, label: str, task: Task | None) -> Any:
        """The VALUE_ERROR for a call to an actor that is gone (DEAD) or lost the call (RESTARTING)."""

    def infeasible(self, text: str) -> bool: ...

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer: ...

    def dead_letter(self, update: ActorUpdate, label: str, task: Task) -> None:
        """A call never reached its actor, which is dead."""


class ActorClient(Target):
    """One actor, as its callers in this process see it."""

    __slots__ = (
        "actor_id",
        "ends",
        "incarnation",
        "is_durable",
        "keeps_order",
        "label",
        "last_update",
        "link",
        "queue",
        "reason",
        "seen",
        "sequence",
        "settling",
        "state",
        "worker",
    )

    def __init__(self, actor_id: ActorId, label: str) -> None:
        super().__init__()
        self.actor_id = actor_id
        self.label = label
        self.state = "PENDING"
        self.incarnation = -1
        self.worker = NOWHERE
        self.link: Link | None = None
        self.queue: deque[Task] = deque()
        self.sequence = 0
        self.is_durable = False
        self.seen: dict[bytes, int] = {}  # by caller (this process, or the voice that speaks here): the last reply
        self.settling = False  # it will be told what is settled
        self.keeps_order = True  # else a call whose arguments are there passes those that wait for theirs
        self.reason = "the actor is being created"
        self.last_update: ActorUpdate | None = None
        self.ends: list[Callable[[ActorUpdate], None]] = []  # to be called once it is dead for good

    def pending_count(self) -> int:
        return len(self.queue) + len(self.in_flight)


def has_voice(task: Task) -> bool:
    """A durable actor makes the call: it is known by its task id."""
    return task.extra is not None and "voice" in task.extra


def is_readonly(task: Task) -> bool:
    return task.extra is not None and "readonly" in task.extra


def is_numbered(task: Task) -> bool:
    """Whether a call to a durable actor gets a number."""
    return task.extra is None or not ("voice" in task.extra or "readonly" in task.extra)


class ActorClients:
    """All actors that this process calls. See the module's docstring."""

    def __init__(self, table: OwnerTable, completion: Completion, port: Port) -> None:
        self._table = table
        self._completion = completion
        self._port = port
        self.clients: dict[ActorId, ActorClient] = {}
        self._by_worker: dict[ProcessId, ActorClient] = {}
        self._dirty: dict[ActorId, ActorClient] = {}

    def client(self, actor_id: ActorId, label: str) -> ActorClient:
        client = self.clients.get(actor_id)
        if client is None:
            client = self.clients[actor_id] = ActorClient(actor_id, label)
            self._port.to_gcs(messages.ActorSubscribe(actor_id))
        return client

    def subscribed(self) -> list[ActorId]:
        """The actors that the GCS has more to tell of."""
        return [actor_id for actor_id, client in self.clients.items() if client.state != "DEAD"]

    def client_of(self, worker: ProcessId) -> ActorClient | None:
        return self._by_worker.get(worker)

    # -- calls ---------------------------------------------------------------------------------------------------------
    def submit(self, client: ActorClient, task: Task) -> None:
        if client.state == "DEAD":
            assert client.last_update is not None
            self._port.dead_letter(client.last_update, client.label, task)
            self._completion.fail(task, self._port.actor_error(client.last_update, client.label, None))
            return
        task.state = TaskState.READY
        task.where = client
        client.queue.append(task)
        self._mark(client)

    def _mark(self, client: ActorClient) -> None:
        if not self._dirty:
            self._port.post_pump()
        self._dirty[client.actor_id] = client

    def pump(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for client in dirty.values():
            if client.state == "ALIVE":
                self._pump_client(client)

    def _pump_client(self, client: ActorClient) -> None:
        queue, entries = client.queue, self._table.entries
        calls: list[messages.Call] = []
        passed: list[Task] = []
        while queue and len(calls) < limits.batch_messages_max:
            task = queue.popleft()
            if task.cancelled:
                continue
            values: tuple[Any, ...] = ()
            if task.dependencies:
                found = dependency_values(task, entries, client)
                if found is None:
                    self._wait_for_arguments(client, task)
                    passed.append(task)
                    if client.keeps_order:
                        break
                    continue
                values = found
            if not client.is_durable or (task.sequence < 0 and is_numbered(task)):
                task.sequence = client.sequence
                client.sequence += 1
            calls.append(task.to_call(values, task.sequence))
            task.state = TaskState.IN_FLIGHT
            client.in_flight[task.task_id] = task
        queue.extendleft(reversed(passed))
        if client.is_durable:
            client.replies_seen = self.settled(client)
        if calls and client.link is not None:
            for portion in portions(calls, weight_of_call):
                client.link.send(
                    messages.RunActorCalls(client.actor_id, client.incarnation, client.replies_seen, portion)
                )

    def _wait_for_arguments(self, client: ActorClient, task: Task) -> None:
        """It waits at its place in the queue; come back when all that it lacks has arrived."""
        if task.is_waiting():
            return
        missing = [0]
        task.missing = missing

        def arrived(_: ObjectId) -> None:
            if task.missing is missing:
                missing[0] -= 1
                if missing[0] == 0:
                    self._mark(client)

        for oid, _ in task.dependencies:
            if not self._table.when_ready(oid, arrived):
                missing[0] += 1

    # -- from workers --------------------------------------------------------------------------------------------------
    def results(self, client: ActorClient, results: tuple[messages.CallResult, ...]) -> None:
        in_flight = client.in_flight
        client.replies_seen += len(results)
        if client.is_durable:
            self._note_seen(client, results)
        succeed = self._completion.succeed
        for task_id, status, values, retained, duration_us in results:
            task = in_flight.pop(task_id, None)
            if task is None:
                continue
            if status == ResultStatus.OK:
                succeed(task, values, retained, client.worker, duration_us)
                continue
            for oid in retained:
                self._table.register(oid, client.worker)
            if self._completion.wants_retry(task, status, values[0]) and not (client.is_durable and has_voice(task)):
                task.sequence = -1
                self._again(client, [task])
            else:
                self._completion.fail(task, values[0], "CANCELLED" if status == ResultStatus.CANCELLED else "FAILED")
        if client.queue:
            self._mark(client)

    def refused(self, client: ActorClient, message: messages.ActorCallsRefused) -> None:
        """It is ending, or another incarnation than we thought: nothing of these ran; wait for what the GCS says."""
        tasks = [task for task_id in message.task_ids if (task := client.in_flight.pop(task_id, None)) is not None]
        for task in tasks:
            if task.cancelled:
                text = f"{task.name()} was cancelled before it started"
                self._completion.fail_with(task, "TaskCancelledError", text)
        tasks = [task for task in tasks if not task.cancelled]
        if not client.is_durable:  # refused in several messages, they are to be in the order in which they were sent
            while client.queue and client.queue[0].sequence >= 0:
                tasks.append(client.queue.popleft())
            tasks.sort(key=lambda task: task.sequence)
        self._requeue(client, tasks)
        if client.state == "ALIVE":
            client.state = "RESTARTING"
            client.reason = message.reason

    def _again(self, client: ActorClient, tasks: list[Task]) -> None:
        for task in tasks:
            if task.retries_left > 0:
                task.retries_left -= 1
            extra = dict(task.extra or {})
            extra["attempt"] = extra.get("attempt", 0) + 1
            task.extra = extra
        self._requeue(client, tasks)
        self._mark(client)

    @staticmethod
    def _requeue(client: ActorClient, tasks: list[Task]) -> None:
        for task in reversed(tasks):
            task.state = TaskState.READY
            task.where = client
            client.queue.appendleft(task)

    def recover(self, task: Task) -> None:
        """Make a finished call again because a value that it gave was lost."""
        assert task.actor_id is not None
        task.take_again(self._table)
        client = self.clients[task.actor_id]
        if client.state == "DEAD":
            self.submit(client, task)
        else:
            self._again(client, [task])

    # -- from the GCS --------------------------------------------------------------------------------------------------
    def updated(self, update: ActorUpdate) -> None:
        client = self.clients.get(update.actor_id)
        if client is None or update.incarnation < client.incarnation:
            return
        client.last_update = update
        client.reason = update.reason or client.reason
        if update.state == "ALIVE":
            self._alive(client, update)
        elif update.state == "DEAD":
            self._lost(client, update)
            client.state = "DEAD"
            self._fail_all(client, update)
            ends, client.ends = client.ends, []
            for callback in ends:
                callback(update)
        elif update.state == "RESTARTING":
            self._lost(client, update)
            client.state = "RESTARTING"
        else:
            client.state = "PENDING"

    def waits(self, client: ActorClient, reason: str) -> None:
        client.reason = reason

    def _alive(self, client: ActorClient, update: ActorUpdate) -> None:
        if client.state == "ALIVE" and client.incarnation == update.incarnation:
            return
        if client.state == "ALIVE":
            self._lost(client, update)
        client.state = "ALIVE"
        client.incarnation = update.incarnation
        client.worker = update.worker
        client.replies_seen = 0
        client.link = self._port.link(update.worker)
        for caller, sequence in client.seen.items():
            client.link.send(messages.CallerSeen(client.actor_id, caller, sequence))
        self._by_worker[update.worker.process_id] = client
        self._mark(client)

    def _lost(self, client: ActorClient, update: ActorUpdate) -> None:
        """The incarnation that we talked to is gone."""
        if client.link is not None:
            self._by_worker.pop(client.worker.process_id, None)
            self._port.drop_link(client.worker.process_id, update.reason or "its process ended")
            client.link = None
            client.worker = NOWHERE
        tasks = list(client.in_flight.values())
        client.in_flight.clear()
        moved = update.moved and update.incarnation == client.incarnation + 1
        again = []
        for task in tasks:
            if task.cancelled:
                self._completion.fail_with(task, "TaskCancelledError", f"{task.name()} was cancelled")
            elif update.state != "DEAD" and (task.retries_left != 0 or client.is_durable or moved):
                again.append(task)
            else:
                self._completion.fail(task, self._port.actor_error(update, client.label, task))
        if client.is_durable or moved:  # it answered what it ran before it left: the rest was never begun
            self._requeue(client, again)
            self._mark(client)
        else:
            self._again(client, again)

    def _fail_all(self, client: ActorClient, update: ActorUpdate) -> None:
        queue, client.queue = client.queue, deque()
        for task in queue:
            if not task.cancelled:
                self._port.dead_letter(update, client.label, task)
                self._completion.fail(task, self._port.actor_error(update, client.label, None))

    def when_dead(self, client: ActorClient, callback: Callable[[ActorUpdate], None]) -> None:
        """Call ``callback`` once, when the actor is dead for good; at once if it is."""
        if client.state == "DEAD":
            assert client.last_update is not None
            callback(client.last_update)
        else:
            client.ends.append(callback)

    # -- durable actors ------------------------------------------------------------------------------------------------
    def _note_seen(self, client: ActorClient, results: tuple[messages.CallResult, ...]) -> None:
        for result in reversed(results):  # in the order of their numbers, so the last one tells
            task = client.in_flight.get(result.task_id)
            if task is not None and not is_readonly(task):
                self.note_seen(client, task)
                break
        if not client.settling and not client.queue:
            client.settling = True
            self._port.call_later(limits.settled_delay_s, lambda: self._tell_settled(client))

    def note_seen(self, client: ActorClient, task: Task) -> None:
        """The reply to a call is known here."""
        if has_voice(task):
            caller, sequence = task.task_id[:PROCESS_ID_BYTES], int.from_bytes(task.task_id[PROCESS_ID_BYTES:], "big")
        else:
            caller, sequence = self._table.address.process_id, task.sequence
        client.seen[caller] = max(client.seen.get(caller, -1), sequence)

    def _tell_settled(self, client: ActorClient) -> None:
        client.settling = False
        settled = self.settled(client)
        if client.link is not None and settled > client.replies_seen:
            client.replies_seen = settled
            client.link.send(messages.CallsSettled(client.actor_id, self._table.address.process_id, settled))

    @staticmethod
    def settled(client: ActorClient) -> int:
        """Up to which number all replies are here."""
        for tasks in (client.in_flight.values(), client.queue):
            for task in tasks:
                if task.sequence >= 0:
                    return task.sequence - 1
        return client.sequence - 1

    # -- cancelling and asking -----------------------------------------------------------------------------------------
    def cancel(self, task: Task, recursive: bool) -> None:
        if task.state is TaskState.FINISHED or task.cancelled:
            return
        task.cancelled = True
        if task.state is TaskState.IN_FLIGHT:
            client: ActorClient = task.where
            if client.link is not None:
                client.link.send(messages.CancelCall(task.task_id, recursive))
            return
        self._completion.fail_with(task, "TaskCancelledError", f"{task.name()} was cancelled before it started")

    def abandon(self, task: Task) -> None:
        """Stop waiting for a call that does not react to being cancelled; its late answer will be ignored."""
        if task.state is TaskState.IN_FLIGHT and not task.is_finished():
            client: ActorClient = task.where
            client.in_flight.pop(task.task_id, None)
            self._completion.fail_with(task, "TaskCancelledError", f"{task.name()} did not react to being cancelled")

    def why_pending(self, task: Task) -> str:
        client: ActorClient = task.where
        if task.state is TaskState.IN_FLIGHT:
            return (
                f"{client.label}.{task.name()} runs or is queued at the actor "
                f"({len(client.in_flight)} calls of this process are there)"
            )
        if client.state != "ALIVE":
            return f"{client.label}.{task.name()} waits for its actor, which is {client.state}: {client.reason}"
        return f"{client.label}.{task.name()} waits for an argument, its own or that of a call before it"

    def check(self) -> None:
        for client in self.clients.values():
            for task in client.in_flight.values():
                assert task.state is TaskState.IN_FLIGHT and task.where is client, f"{task.name()} is astray"
            assert not (client.state == "DEAD" and (client.queue or client.in_flight)), "calls wait for a dead actor"
