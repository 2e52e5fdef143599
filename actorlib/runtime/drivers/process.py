"""What every process of a session has, driver and worker alike: the loop, the cores, and how they are tied together.

``Process`` carries out what the cores ask for (it is their port), routes messages to them, and asks questions of
other processes. The engine's operations are built on it in ``objects.py``, ``calls.py`` and ``cluster_view.py``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from actorlib import exceptions, serialization
from actorlib.engine import Slot
from actorlib.object_ref import ObjectRef
from actorlib.runtime.actor_client import ActorClients
from actorlib.runtime.completion import Completion
from actorlib.runtime.deadlock import Waits
from actorlib.runtime.gcs_client import GcsClient
from actorlib.runtime.lineage import Lineage
from actorlib.runtime.submitter import Submitter
from actorlib.runtime.task import Task, TaskState
from actorlib.store.drivers.shared_memory import ObjectMissing, StoreClient
from actorlib.store.owner import OwnerTable, Recipe
from actorlib.transport import limits, messages
from actorlib.transport.drivers.loop import Loop
from actorlib.transport.drivers.notice import notice
from actorlib.transport.ids import GroupId, IdFactory, JobId, NodeId, ObjectId, ProcessId, TaskId
from actorlib.transport.link import Address, Handler, Link, Timer
from actorlib.transport.messages import ActorUpdate, Death, Value

CODE_BYTES_WITH_CALL_MAX = 512 * 1024
TASK_EVENTS_EVERY_S = 0.2
DEADLINE_GRACE_S = 1.0


class Process:
    """The runtime in one process. See the module's docstring."""

    def __init__(
        self,
        address: Address,
        role: str,
        node: Address,
        gcs: Address,
        job_id: JobId,
        host_id: str,
        namespace: str,
        trace_dir: str | None = None,
        credentials: Any = None,
    ) -> None:
        self.credentials = credentials  # of transport/drivers/credentials.py, in a cluster of machines
        self.node = node
        self.gcs = gcs
        self.job_id = job_id
        self.namespace = namespace
        self.can_grow = True
        self.closed = False
        self.ids = IdFactory(address.process_id)
        hello = messages.Hello(
            messages.PROTOCOL_VERSION,
            address,
            role,
            self.os_pid(),
            job_id,
            f"{sys.version_info[0]}.{sys.version_info[1]}",
        )
        self.handlers: dict[type, Handler] = {}
        self.loop = self._make_loop(address, hello, trace_dir)
        self.address = self.loop.address
        self.table = OwnerTable(self.address, self)
        self.completion = Completion(self.table, self)
        self.submitter = Submitter(self.table, self.completion, self, job_id, namespace, node)
        self.actors = ActorClients(self.table, self.completion, self)
        self.waits = Waits(self.address, self.table, self)
        self.lineage = Lineage(self.address, self.table, self.submitter, self)
        self.store = self._make_store(node.node_id, host_id)
        self.node_link = self.loop.link(node)
        self.gcs_client = GcsClient()
        self._answers: dict[int, Callable[[Any], None]] = {}
        self._registering: dict[ProcessId, dict[int, None]] = {}  # questions to owners, which may die
        self._code: dict[bytes, bytes] = {}
        self._watched: dict[ProcessId, None] = {}
        self._freed: dict[NodeId, list[ObjectId]] = {}
        self._keeping: dict[bytes, None] = {}  # objects that our node is to keep, since another one drains
        self._fetching: dict[bytes, None] = {}  # objects that the node copies here for a wait()
        self._pumping = False
        self._warned: dict[str, None] = {}
        self._task_events: list[tuple[Any, ...]] = []
        self._deadlines: dict[TaskId, Timer] = {}
        self._groups: dict[bytes, Callable[[Any], None]] = {}
        self._install_handlers()
        self.loop.check = lambda: self.check()

    # -- what the world gives (a simulation gives something else) ------------------------------------------------------
    def _make_loop(self, address: Address, hello: messages.Hello, trace_dir: str | None) -> Loop:
        access = None
        if self.credentials is not None:
            access, register = self.credentials.open()
            self.handlers[messages.KeysChanged] = lambda _, __: register.refresh()
        return Loop(address, hello, self.handlers, self._on_link_down, trace_dir=trace_dir, spin=True, access=access)

    def _make_store(self, node_id: NodeId, host_id: str) -> StoreClient:
        return StoreClient(node_id, host_id)

    def os_pid(self) -> int:
        return os.getpid()

    def abandon(self) -> None:
        """This process is a copy that user code has forked: the session, its sockets and its files are the parent's."""
        self.closed = True
        self.loop.abandon()

    # -- what the cores ask for ----------------------------------------------------------------------------------------
    def link(self, address: Address) -> Link:
        return self.node_link if address == self.node else self.loop.link(address)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return self.loop.call_later(delay_s, callback)

    def request_id(self) -> int:
        return self.ids.request_id()

    def send_to(self, address: Address, message: tuple[Any, ...]) -> None:
        self.link(address).send(message)

    def to_gcs(self, message: tuple[Any, ...]) -> None:
        self.gcs_client.sent(message)
        self.link(self.gcs).send(message)

    def _on_gcs_started(self, _: Link, message: messages.GcsStarted) -> None:
        """It knows nothing of our session: another one, and again what it may not have heard."""
        again = self.gcs_client.started(message.boot)
        if again is None:
            return
        self.loop.drop_link(self.gcs.process_id, "the GCS has begun anew")
        subscriptions: list[tuple[Any, ...]] = [messages.ActorSubscribe(a) for a in self.actors.subscribed()]
        subscriptions += [messages.GroupSubscribe(GroupId(group_id)) for group_id in self._groups]
        for wanted in (*again, *subscriptions):
            self.link(self.gcs).send(wanted)

    def drop_link(self, process_id: ProcessId, reason: str) -> None:
        self.loop.drop_link(process_id, reason)

    def watch(self, address: Address) -> None:
        if address.process_id not in self._watched:
            self._watched[address.process_id] = None
            self.node_link.send(messages.Watch(address))

    def post_pump(self) -> None:
        if not self._pumping:
            self._pumping = True
            self.loop.post(self._pump, None)

    def _pump(self, _: None) -> None:
        self._pumping = False
        self.submitter.pump()
        self.actors.pump()

    def free_stored(self, object_id: ObjectId, value: Value, recipe: Recipe | None) -> None:
        if not self._freed:
            self.loop.post(self._send_freed, None)
        may_lie_elsewhere = isinstance(recipe, Task) and recipe.may_have_run_before()
        self._freed.setdefault(NodeId(b"") if may_lie_elsewhere else value[1], []).append(object_id)

    def _send_freed(self, _: None) -> None:
        freed, self._freed = self._freed, {}
        for node_id, object_ids in freed.items():
            self.node_link.send(messages.ObjectsFreed(tuple(object_ids), node_id))

    def free_copies(self, object_id: ObjectId, nodes: Iterable[Address]) -> None:
        for node in nodes:
            self.send_to(node, messages.CopiesFreed((object_id,)))

    def promote(self, object_id: ObjectId, node: Address) -> None:
        self.send_to(node, messages.CopyPromoted(object_id))

    def demote(self, object_id: ObjectId, node: Address) -> None:
        self.send_to(node, messages.CopyDemoted(object_id))

    def keep(self, object_id: ObjectId, value: Value, leaving: Address) -> None:
        if object_id in self._keeping:
            return
        self._keeping[object_id] = None
        request_id = self.ids.request_id()

        def answered(answer: Any) -> None:
            self._keeping.pop(object_id, None)
            if type(answer) is messages.ObjectLocated and answer.value is not None:
                self.table.copied(object_id, self.node, answer.value)
                self.table.leaves(object_id, leaving)

        self._answers[request_id] = answered
        self.node_link.send(messages.ObjectKeep(request_id, object_id, value, self.address))

    def error_value(self, kind: str, text: str) -> Value:
        return self.exception_value(exceptions.make(kind, text))

    def exception_value(self, error: BaseException) -> Value:
        return (messages.VALUE_ERROR, serialization.serialize(error).data, f"{type(error).__name__}: {error}")

    def list_of(self, ids: list[ObjectId]) -> Value:
        refs: list[ObjectRef[Any]] = [ObjectRef(oid, self.address, _nothing_to_do) for oid in ids]
        return serialization.serialize(refs).data

    def count_of(self, value: Value) -> int:
        return int(serialization.deserialize(value))

    def matches(self, error: Value, classes: Any) -> bool:
        if isinstance(classes, bytes):  # of a handle that came from elsewhere
            classes = serialization.deserialize(classes)
        exception = serialization.deserialize(error[1])
        cause = getattr(exception, "cause", None)
        return isinstance(exception, classes) or isinstance(cause, classes)

    def recover(self, object_id: ObjectId, recipe: Recipe | None, reason: str) -> None:
        """Make a lost object again by running its task, or say why that can't be done."""
        if isinstance(recipe, Task) and recipe.is_repeatable():
            if not recipe.is_finished():
                return
            if recipe.retries_left != 0:
                (self.submitter if isinstance(recipe.target, bytes) else self.actors).recover(recipe)
                return
            text = f"object {object_id.hex()} was lost ({reason}) and its task {recipe.name()} has no retries left"
            kind = "ObjectReconstructionFailedMaxAttemptsExceededError"
        else:
            text = (
                f"object {object_id.hex()} was lost ({reason}) and can't be made again, since it was made by put(), "
                "by a generator or by an actor without max_task_retries; have a task return what must survive a loss"
            )
            kind = "ObjectLostError"
        self.table.resolve(object_id, self.error_value(kind, text))

    def ask_registration(
        self, owner: Address, ids: tuple[ObjectId, ...], who: Address, then: Callable[[], None]
    ) -> None:
        request_id = self.ids.request_id()
        asked = self._registering.setdefault(owner.process_id, {})
        asked[request_id] = None

        def answered(_: Any) -> None:
            asked.pop(request_id, None)
            then()

        self._answers[request_id] = answered
        self.watch(owner)
        self.send_to(owner, messages.BorrowAdded(request_id, ids, who))

    # -- lineage that outlives its owner -------------------------------------------------------------------------------
    def left(self, object_id: ObjectId) -> None:
        self.lineage.left(object_id)

    def claim(self, object_id: ObjectId, value: Value) -> None:
        self.node_link.send(messages.ObjectsClaimed((object_id,), value[1], self.address))

    def unpublish(self, object_id: ObjectId) -> None:
        self.lineage.freed(object_id)

    def orphaned(self, object_id: ObjectId, dead: ProcessId, text: str) -> None:
        self.lineage.orphaned(object_id, dead, text)

    def ask_gcs(self, message: Callable[[int], tuple[Any, ...]], then: Callable[[Any], None]) -> None:
        request_id = self.ids.request_id()
        self._answers[request_id] = then
        self.to_gcs(message(request_id))

    def pack(self, recipe: tuple[Any, ...]) -> bytes:
        return serialization.serialize(recipe, in_band=True).data

    def unpack(self, payload: messages.Payload) -> Any:
        return serialization.deserialize(payload)

    def in_memory(self, oid: ObjectId, value: Value) -> Value:
        try:
            data, buffers = self.store.read(value, oid)
        except ObjectMissing:
            return None
        return (messages.VALUE_PARTS, bytes(data), tuple(bytes(buffer) for buffer in buffers))

    def code_of(self, function_id: bytes) -> bytes | None:
        code = self._code.get(function_id)
        return code if code is not None and len(code) <= CODE_BYTES_WITH_CALL_MAX else None

    def worker_death_text(self, death: Death) -> str:
        return exceptions.explain(death)

    def retry_exhausted(self, task: Task, death: Death) -> tuple[str, str]:
        attempts = (task.extra or {}).get("attempt", 0) + 1
        tried = "it may not be retried (max_retries=0)" if attempts == 1 else f"all {attempts} attempts ended so"
        kind = "OutOfMemoryError" if death.oom else "WorkerCrashedError"
        return kind, f"the worker that ran {task.name()} died, {tried}: {exceptions.explain(death)}"

    def actor_error(self, update: ActorUpdate, label: str, task: Task | None) -> Value:
        if update.error is not None:
            return update.error
        reason = update.reason
        if update.death is not None:
            reason = f"{reason + ': ' if reason else ''}{exceptions.explain(update.death)}"
        if update.state == "DEAD" and update.reason.startswith(messages.INFEASIBLE):
            text = f"actor {label} ({update.actor_id.hex()}) can't be placed: {reason}"
            return self.error_value("ActorUnschedulableError", text)
        if update.state == "DEAD":
            ran = "" if task is None else f" while {task.name()} was running or queued there"
            return self.error_value("ActorDiedError", f"actor {label} ({update.actor_id.hex()}) is dead{ran}: {reason}")
        name = task.name() if task is not None else "the call"
        return self.error_value(
            "ActorUnavailableError",
            f"actor {label} lost {name} when its worker died and is being restarted; the call may have taken effect "
            f"(max_task_retries=0, so it is not sent again): {reason}",
        )

    def dead_letter(self, update: ActorUpdate, label: str, task: Task) -> None:
        """A call never reached its actor; ``supervising.py`` tells whoever listens."""

    def infeasible(self, text: str) -> bool:
        if text not in self._warned and len(self._warned) < 1000:
            self._warned[text] = None
            notice(f"can't be scheduled now: {text}")
        return not self.can_grow

    def record(self, task: Task, state: str, error: str, worker: ProcessId, duration_us: int) -> None:
        if state == "FINISHED":
            self.completion.records_room -= 1
        if len(self._task_events) < limits.task_events_pending_max:
            if not self._task_events:
                self.loop.call_later(TASK_EVENTS_EVERY_S, self._send_task_events)
            self._task_events.append((task.task_id, task.name(), state, time.time(), worker, error, duration_us))

    def _send_task_events(self) -> None:
        events, self._task_events = self._task_events, []
        self.completion.records_room = limits.task_events_finished_max
        if events and not self.closed:
            self.to_gcs(messages.TaskEvents(tuple(events), 0))

    # -- deadlines -----------------------------------------------------------------------------------------------------
    def arm_deadline(self, task: Task, timeout_s: float) -> None:
        """A call that must be done in time. What runs past it is interrupted, and after a grace period killed."""
        self._deadlines[task.task_id] = self.loop.call_later(timeout_s, lambda: self._deadline_over(task, timeout_s))

    def deadline_met(self, task: Task) -> None:
        timer = self._deadlines.pop(task.task_id, None)
        if timer is not None:
            timer.cancel()

    def _deadline_over(self, task: Task, timeout_s: float) -> None:
        if task.is_finished():
            return
        is_task = isinstance(task.target, bytes)
        why = (self.submitter if is_task else self.actors).why_pending(task)
        task.overdue = f"{task.name()} was not done within timeout_s={timeout_s:.3f}: {why}"
        self.cancel_task(task, False, True)
        if not task.is_finished():
            self._deadlines[task.task_id] = self.loop.call_later(DEADLINE_GRACE_S, lambda: self._enforce(task))

    def _enforce(self, task: Task) -> None:
        """It did not react to being interrupted."""
        if isinstance(task.target, bytes):
            self.submitter.cancel(task, True, True)
            return
        client = task.where
        runs = task.state is TaskState.IN_FLIGHT and not task.is_finished()
        self.actors.abandon(task)
        if runs:
            reason = f"killed, since {task.name()} ran past its deadline and did not react to being interrupted"
            request_id = self.ids.request_id()
            self._answers[request_id] = _nothing_to_do
            self.to_gcs(messages.ActorKill(request_id, client.actor_id, False, reason, client.incarnation))

    # -- waits (drivers are never part of a circle: nobody waits for them) --------------------------------------------
    def is_stuck(self, task_id: TaskId) -> bool:
        return False

    def running_label(self) -> str:
        return "the driver"

    def deadlocked(self, text: str) -> None:
        raise AssertionError("a driver was taken for part of a deadlock")

    # -- messages ------------------------------------------------------------------------------------------------------
    def _install_handlers(self) -> None:
        m = messages
        self.handlers.update(
            {
                m.CallResults: self._on_results,
                m.CallsReturned: self._on_returned,
                m.ActorCallsRefused: self._on_refused,
                m.GeneratorItem: self._on_item,
                m.LeaseGranted: self.submitter.granted,
                m.LeaseSpilled: lambda _, message: self.submitter.spilled(message),
                m.LeaseWaits: lambda _, message: self.submitter.waits(message),
                m.LeaseRefused: lambda _, message: self.submitter.refused(message),
                m.LeaseRecalled: lambda _, message: self.submitter.recalled(message),
                m.LeaseLost: self._on_lease_lost,
                m.ActorUpdate: self._on_actor_update,
                m.ObjectWanted: self._on_wanted,
                m.ObjectReady: self._on_ready,
                m.BorrowAdded: self._on_borrow_added,
                m.BorrowReleased: self._on_borrow_released,
                m.ObjectMissing: self._on_missing,
                m.ObjectCopied: self._on_copied,
                m.ObjectsLeave: self._on_objects_leave,
                m.ProcessDied: self._on_process_died,
                m.GroupUpdate: self._on_group,
                m.DebugPing: lambda link, message: link.send(m.DebugPong(*message)),
                m.CancelCall: self._on_cancel,
                m.GcsStarted: self.of_our_node(self._on_gcs_started),
                m.WaitProbe: lambda _, message: self.waits.on_probe(message),
            }
        )
        for answer in (
            m.Done,
            m.Failure,
            m.KvReply,
            m.SlabGranted,
            m.LineageFound,
            m.ObjectLocated,
            m.NodeRegistered,
            m.ActorRegistered,
            m.ActorNames,
            m.CheckpointReply,
            m.GroupTable,
            m.StateRows,
            m.NodeStatusReply,
            m.DebugPong,
            m.LogCopy,
            m.StoredPart,
        ):
            self.handlers[answer] = self._on_answer

    def of_our_node(self, handler: Handler) -> Handler:
        """A handler for what only our node may say: from anybody else it is nothing."""

        def handle(link: Link, message: Any) -> None:
            if link.peer.process_id == self.node.process_id:
                handler(link, message)
            else:
                notice(
                    f"ignored a {type(message).__name__} of {link.peer.process_id.hex()[:16]}, which is not our node"
                )

        return handle

    def _on_answer(self, _: Link, message: Any) -> None:
        self.gcs_client.answered(message.request_id)
        answer = self._answers.pop(message.request_id, None)
        if answer is not None:
            answer(message)
        elif type(message) is messages.Failure:
            self.submitter.refused(messages.LeaseRefused(*message))

    def _on_results(self, link: Link, message: messages.CallResults) -> None:
        worker = link.peer.process_id
        lease = self.submitter.lease_of(worker)
        if lease is not None:
            self.submitter.results(lease, message.results)
            return
        client = self.actors.client_of(worker)
        if client is not None:
            self.actors.results(client, message.results)

    def _on_returned(self, link: Link, message: messages.CallsReturned) -> None:
        lease = self.submitter.lease_of(link.peer.process_id)
        if lease is not None:
            self.submitter.returned(lease, message.task_ids)
            if message.blocked:
                self.submitter.worker_blocked(lease)

    def _on_refused(self, link: Link, message: messages.ActorCallsRefused) -> None:
        client = self.actors.client_of(link.peer.process_id)
        if client is not None:
            self.actors.refused(client, message)

    def _on_item(self, link: Link, message: messages.GeneratorItem) -> None:
        stream = self.completion.item(message)
        if stream is None:
            link.send(messages.GeneratorConsumed(message.task_id, -1))
        else:
            stream.where = link

    def _on_lease_lost(self, _: Link, message: messages.LeaseLost) -> None:
        self.loop.drop_link(message.death.process_id, message.death.text)
        self.submitter.lost(message)

    def _on_actor_update(self, _: Link, message: ActorUpdate) -> None:
        self.actors.updated(message)
        if message.state in ("PENDING", "RESTARTING") and message.reason.startswith(messages.INFEASIBLE):
            client = self.actors.clients.get(message.actor_id)
            self.infeasible(f"actor {client.label if client else message.actor_id.hex()}: {message.reason}")

    def _on_wanted(self, link: Link, message: messages.ObjectWanted) -> None:
        for object_id in message.object_ids:
            self.table.answer_wanted(object_id, link.peer)

    def _on_ready(self, _: Link, message: messages.ObjectReady) -> None:
        self.table.resolve(message.object_id, message.value)

    def _on_borrow_added(self, link: Link, message: messages.BorrowAdded) -> None:
        for object_id in message.object_ids:
            self.table.register(object_id, message.borrower, link.peer)
        link.send(messages.Done(message.request_id))

    def _on_borrow_released(self, link: Link, message: messages.BorrowReleased) -> None:
        for object_id in message.object_ids:
            self.table.unregister(object_id, link.peer.process_id)

    def _on_missing(self, link: Link, message: messages.ObjectMissing) -> None:
        self.table.lost(
            message.object_id, message.value, f"a reader on {link.peer.process_id.hex()[:8]} did not find it"
        )
        self.table.answer_wanted(message.object_id, link.peer)

    def _on_copied(self, link: Link, message: messages.ObjectCopied) -> None:
        if not self.table.copied(message.object_id, link.peer, message.value):
            self.send_to(link.peer, messages.CopiesFreed((message.object_id,)))

    def _on_objects_leave(self, _: Link, message: messages.ObjectsLeave) -> None:
        for _owner, object_ids in message.objects:
            for object_id in object_ids:
                self.table.leaves(object_id, message.node)

    def _on_process_died(self, _: Link, message: messages.ProcessDied) -> None:
        self._watched.pop(message.process_id, None)
        self.submitter.node_died(message.process_id, message.death)
        self.loop.drop_link(message.process_id, message.death.text)
        self.table.process_died(message.process_id, exceptions.explain(message.death))
        for request_id in list(self._registering.pop(message.process_id, ())):
            answer = self._answers.pop(request_id, None)
            if answer is not None:
                answer(None)

    def _on_group(self, _: Link, message: messages.GroupUpdate) -> None:
        callback = self._groups.get(message.group.group_id)
        if callback is not None:
            callback(message.group)

    def _on_cancel(self, link: Link, message: messages.CancelCall) -> None:
        """A borrower cancels a call of ours."""
        entry = self.table.entries.get(ObjectId(message.task_id + b"\0\0\0\0"))
        if entry is not None and entry.task is not None:
            self.cancel_task(entry.task, False, message.recursive)

    def cancel_task(self, task: Task, force: bool, recursive: bool) -> None:
        if isinstance(task.target, bytes):
            self.submitter.cancel(task, force, recursive)
        else:
            self.actors.cancel(task, recursive)

    def _on_link_down(self, link: Link, reason: str) -> None:
        if link.peer.process_id == self.node.process_id and not self.closed:
            self.node_lost(reason)

    def node_lost(self, reason: str) -> None:
        """Our node is gone, and with it all that this process could ask. Subclasses end or fail what waits."""

    # -- questions -----------------------------------------------------------------------------------------------------
    def ask(self, address: Address, message: Callable[[int], tuple[Any, ...]], timeout_s: float | None = None) -> Any:
        """Send a request and wait for its answer, driving the loop. Raises the error that a Failure names."""
        box: list[Any] = []

        def start(_: None) -> None:
            request_id = self.ids.request_id()
            self._answers[request_id] = box.append
            if address == self.gcs:
                self.to_gcs(message(request_id))
            else:
                self.link(address).send(message(request_id))

        self.loop.post(start, None)
        self.loop.drive(lambda: bool(box) or self.closed, timeout_s)
        if not box:
            if self.closed:
                raise exceptions.make("NodeDiedError", "the session has ended, so nobody can answer")
            raise exceptions.GetTimeoutError(f"no answer from {address.endpoint} within {timeout_s} s")
        answer = box[0]
        if type(answer) is messages.Failure:
            raise exceptions.make(answer.kind, answer.text)
        return answer

    def fail_questions(self, kind: str, text: str) -> None:
        answers, self._answers = self._answers, {}
        for request_id, answer in answers.items():
            answer(messages.Failure(request_id, kind, text))

    def check(self) -> None:
        """Assert every core's invariants."""
        self.table.check()
        self.submitter.check()
        self.actors.check()


def _after_fork_in_child() -> None:
    engine = Slot.engine
    if isinstance(engine, Process):
        engine.abandon()
        _ABANDONED.append(engine)
        Slot.engine, Slot.closed = None, True
        Slot.why_closed = (
            "this process was forked from one that uses actorlib, and only that one can use its session; make it a "
            "task or an actor instead, start it with multiprocessing's 'spawn', or call actorlib.init() in it"
        )


_ABANDONED: list[Process] = []  # kept, since their ends would close what the parent still uses
os.register_at_fork(after_in_child=_after_fork_in_child)


def _nothing_to_do(_: Any) -> None:
    """For an answer that says only that it was done."""
