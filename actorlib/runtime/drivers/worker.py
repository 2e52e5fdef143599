"""The worker process: one mailbox, and the user's code that its calls run.

The main thread runs tasks and the methods of plain actors, so that a cancel can raise in it; with nothing to do it
drives the loop itself. Threaded actors run their calls on threads, async actors on an event loop in a thread of its
own, while the main thread drives.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from actorlib import exceptions, serialization
from actorlib.actor import ActorHandle
from actorlib.engine import Slot, resource_map
from actorlib.object_ref import ObjectRef
from actorlib.runtime.drivers import heap
from actorlib.runtime.drivers.calls import CURRENT
from actorlib.runtime.drivers.concurrency import ThreadRunner, nothing
from actorlib.runtime.drivers.execution import ExitActor
from actorlib.runtime.drivers.leaving import Leaving
from actorlib.runtime.drivers.surroundings import Surroundings
from actorlib.runtime.mailbox import Item, Mailbox
from actorlib.runtime.task import Task, TaskState
from actorlib.transport import limits, messages
from actorlib.transport.drivers.processes import set_process_name
from actorlib.transport.ids import JobId, ObjectId, ProcessId, TaskId
from actorlib.transport.link import Address, Link, Timer
from actorlib.transport.messages import ActorSpec, ResultStatus

if TYPE_CHECKING:
    from actorlib.runtime.drivers.async_actor import AsyncRunner

IMPORTED_LATER = ("asyncio", "actorlib.runtime.drivers.async_actor")
"""What the zygote imports when it has a moment: many workers need it, but not the first one."""
TIDY_AFTER_S = 2.0
BLOCKED_NOTICE_DELAY_S = 0.005
SWITCH_INTERVAL_S = 0.0005
DEVICE_VARIABLES = {"GPU": "CUDA_VISIBLE_DEVICES", "TPU": "TPU_VISIBLE_CHIPS"}


class Worker(Leaving):
    """One mailbox. See the module's docstring."""

    def __init__(self, config: dict[str, Any]) -> None:
        node, gcs = Address(*config["node"]), Address(*config["gcs"])
        address = Address(ProcessId(config["process_id"]), node.node_id, config["endpoint"])
        credentials = self._load_credentials(config.get("credentials", ""))
        trace_dir = config.get("trace_dir")
        super().__init__(address, "worker", node, gcs, JobId(b""), config["host_id"], "", trace_dir, credentials)
        self.config = config
        self.can_grow = config.get("can_grow", True)
        self.init_execution()
        self.mailbox = Mailbox()
        self.mailbox_lock = threading.Lock()
        self.runtime_env = config.get("runtime_env", "")
        self.stopping: str | None = None
        self.asked_to_exit = ""  # by a call that runs on another thread than the main one
        self.draining = False
        self.spec: ActorSpec | None = None
        self.incarnation = 0
        self.runner: ThreadRunner | AsyncRunner | None = None
        self.running_on_main: Item | None = None
        self.terms = messages.LeaseTerms({}, ("default",), {})
        self._devices: dict[str, str | None] = {}  # variables that we have set, and what they were
        self._to_create: messages.CreateActor | None = None
        self._blocked_timer: Timer | None = None
        self._blocked_told = False
        self._deadlock: str | None = None
        self._calls_run = 0
        self._is_tidying = False
        self._keep_surroundings()
        self._main = threading.main_thread().ident or 0
        m = messages
        self.handlers.update(
            {
                m.RunTasks: self._on_run_tasks,
                m.RunActorCalls: self._on_run_actor_calls,
                m.CreateActor: self.of_our_node(self._on_create_actor),
                m.GiveBackCalls: self._on_give_back,
                m.CancelCall: self._on_cancel_call,
                m.GeneratorConsumed: self._on_consumed,
                m.StopWorker: self.of_our_node(self._on_stop),
                m.DrainAndExit: self.of_our_node(self._on_drain),
                m.LeaveNode: self._on_leave_node,
                m.CallsSettled: self._on_settled,
                m.CallerSeen: self._on_seen,
                m.LogAppended: self._on_log_appended,
                m.LogNotKept: self._on_log_not_kept,
                m.LogRefused: self._on_log_refused,
            }
        )

    @staticmethod
    def _load_credentials(path: str) -> Any:
        """What a worker of a cluster of machines needs to be called from elsewhere."""
        if not path:
            return None
        from actorlib.transport.drivers.credentials import Credentials

        return Credentials.load(path)

    # -- messages ------------------------------------------------------------------------------------------------------
    def _on_run_tasks(self, link: Link, message: messages.RunTasks) -> None:
        if not self.job_id:
            self._join_job(message.job_id, message.namespace)
        if message.terms is not None:
            self._take_terms(message.terms)
        refused = []
        for call in message.calls:
            if call.dependencies:
                self.prefetch(call.dependencies)
        with self.mailbox_lock:
            for call in message.calls:
                if call.extra is not None and "code" in call.extra:
                    self._code[call.target] = bytes(call.extra["code"])
                if not self.mailbox.push(link, call):
                    refused.append(call.task_id)
        if refused:
            link.send(messages.CallsReturned(tuple(refused), True))

    def _take_terms(self, terms: messages.LeaseTerms) -> None:
        """What this worker's lease, or its actor, may use."""
        self.terms = terms
        strategy = terms.strategy
        captures = strategy[0] == "group" and strategy[3]
        self.captures = ("group", strategy[1], -1, True) if captures else None
        before = self._devices
        for kind, variable in DEVICE_VARIABLES.items():
            if kind in terms.accelerators:
                before.setdefault(variable, os.environ.get(variable))
                os.environ[variable] = ",".join(map(str, terms.accelerators[kind]))
            elif variable in before:
                earlier = before.pop(variable)
                if earlier is None:
                    del os.environ[variable]
                else:
                    os.environ[variable] = earlier

    def _join_job(self, job_id: JobId, namespace: str) -> None:
        self.job_id = self.submitter.job_id = job_id
        self.namespace = self.submitter.namespace = namespace

    def _on_run_actor_calls(self, link: Link, message: messages.RunActorCalls) -> None:
        spec = self.spec
        if (
            spec is None
            or spec.actor_id != message.actor_id
            or self.incarnation != message.incarnation
            or self.stopping
        ):
            if self.leaving is not None and self.log is not None:
                return  # they are sent again, in order, to the next incarnation
            ids = tuple(call.task_id for call in message.calls)
            reason = self.stopping or "this worker does not host that incarnation of the actor"
            link.send(messages.ActorCallsRefused(message.actor_id, ids, reason))
            return
        if self.log is not None:
            self.take_calls(link, message)
            return
        for call in message.calls:
            if call.dependencies:
                self.prefetch(call.dependencies)
        with self.mailbox_lock:
            for call in message.calls:
                self.mailbox.push(link, call)

    def _on_give_back(self, link: Link, message: messages.GiveBackCalls) -> None:
        with self.mailbox_lock:
            returned = self.mailbox.give_back(message.count, link)
        for ids in returned.values():
            link.send(messages.CallsReturned(tuple(ids), False))

    def _on_cancel_call(self, link: Link, message: messages.CancelCall) -> None:
        if self.log is not None and self.cancel_queued(link, message):
            return
        with self.mailbox_lock:
            item = self.mailbox.cancel(message.task_id)
            running = self.mailbox.running.get(message.task_id)
        if item is not None:
            text = "the call was cancelled before it started"
            value = self.error_value("TaskCancelledError", text)
            values = (value,) * max(1, item.call.num_returns)
            link.send(
                messages.CallResults((messages.CallResult(message.task_id, ResultStatus.CANCELLED, values, (), 0),))
            )
        elif running is not None:
            running.cancelled = True
            if message.recursive:
                self._cancel_children(message.task_id)
            self._end_running(running)
        else:
            self._on_cancel(link, message)

    def _end_running(self, item: Item) -> None:
        """By an exception: at once, or after a moment where its code looks itself."""
        if not item.is_looked_after:
            self._interrupt(item)
            return

        def still_runs() -> None:
            if self.mailbox.running.get(item.call.task_id) is item:
                self._interrupt(item)

        self.loop.call_later(limits.cancel_grace_s, still_runs)

    def _cancel_children(self, parent: bytes) -> None:
        for entry in list(self.table.entries.values()):
            task = entry.task
            if (
                isinstance(task, Task)
                and task.state is not TaskState.FINISHED
                and (task.extra or {}).get("parent") == parent
            ):
                self.cancel_task(task, False, True)

    def _interrupt(self, item: Item) -> None:
        if self.runner is not None:
            self.runner.interrupt(item)
        elif self.running_on_main is item:
            signal.pthread_kill(self._main, signal.SIGINT)

    def _on_sigint(self, _signal: int, _frame: Any) -> None:
        """Only a cancel raises: Ctrl-C in the driver's terminal reaches its whole process group, and is its affair."""
        item = self.running_on_main
        if item is not None and item.cancelled:
            raise KeyboardInterrupt

    def _on_consumed(self, _: Link, message: messages.GeneratorConsumed) -> None:
        if message.task_id in self.mailbox.running:
            self._consumed[message.task_id] = message.count

    def _on_stop(self, _: Link, message: messages.StopWorker) -> None:
        if message.if_unused and self.table.entries:
            self.node_link.send(messages.WorkerReady(self.address, self.os_pid()))  # others may still need what we own
        else:
            self.stopping = message.reason

    def _on_drain(self, _: Link, message: messages.DrainAndExit) -> None:
        self.draining = True

    def _on_create_actor(self, _: Link, message: messages.CreateActor) -> None:
        if self.spec is None:
            self.spec = message.spec
            self.incarnation = message.incarnation
            self._to_create = message

    def check(self) -> None:
        super().check()
        with self.mailbox_lock:
            self.mailbox.check()

    def node_lost(self, reason: str) -> None:
        """Without a node there is nobody to work for (and the kernel is about to end this process anyway)."""
        self.stopping = reason

    # -- blocking ------------------------------------------------------------------------------------------------------
    def drive(self, until: Callable[[], bool], timeout: float | None, refs: Sequence[ObjectRef[Any]]) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = self._wait_here(until, left, refs)
            if ready or not self._run_returning():
                return ready

    def _run_returning(self) -> bool:
        """Run a call that has come back to this reentrant actor, inside the call that waits. False if there is none."""
        waiting = self.running_on_main
        with self.mailbox_lock:
            item = self.mailbox.pop_returning()
        if item is None:
            return False
        self.run_on_main(item)
        if waiting is not None and waiting.cancelled:
            raise KeyboardInterrupt
        return True

    def _wait_here(self, until: Callable[[], bool], timeout: float | None, refs: Sequence[ObjectRef[Any]]) -> bool:
        if until():
            return True
        self.loop.post(self._block, refs)
        context, began = CURRENT.get(), time.perf_counter()
        try:
            if self.runner is not None:
                return self.loop.drive(until, timeout)
            returning = self.mailbox.returning
            self.loop.drive(lambda: until() or self._deadlock is not None or bool(returning), timeout)
            ready = until()
            if self._deadlock is None or ready or returning:
                return ready
            raise exceptions.DeadlockError(self._deadlock)
        finally:
            self.loop.post(self._unblock, None)
            if context is not None:
                context.blocked_s += time.perf_counter() - began

    def _block(self, refs: Sequence[ObjectRef[Any]]) -> None:
        """User code waits: what is queued goes back; the CPU is offered at once if what it waits for needs one."""
        with self.mailbox_lock:
            self.mailbox.blocked += 1
            returned = {} if self.mailbox.is_actor else self.mailbox.give_back(1 << 30)
        for link, ids in returned.items():
            link.send(messages.CallsReturned(tuple(ids), True))
        if refs and self.runner is None:
            number = self.waits.begin([(ObjectId(ref._id), ref._owner) for ref in refs])
            self.loop.call_later(limits.wait_probe_after_s, lambda: self._probe(number))
        if self._blocked_told or self._blocked_timer is not None:
            return
        if self._waits_for_a_worker(refs):
            self._tell_blocked()
        else:
            self._blocked_timer = self.loop.call_later(BLOCKED_NOTICE_DELAY_S, self._tell_blocked)

    def _waits_for_a_worker(self, refs: Sequence[ObjectRef[Any]]) -> bool:
        for ref in refs:
            entry = self.table.entries.get(ObjectId(ref._id))
            if entry is None or entry.value is not None:
                continue
            if not isinstance(entry.task, Task) or entry.task.state is not TaskState.IN_FLIGHT:
                return True
        return False

    def _tell_blocked(self) -> None:
        self._blocked_timer = None
        if self.mailbox.blocked:
            self._blocked_told = True
            self.node_link.send(messages.WorkerBlocked(()))

    def _probe(self, number: int) -> None:
        again_after_s = self.waits.probe(number)
        if again_after_s is not None:
            self.loop.call_later(again_after_s, lambda: self._probe(number))

    def is_stuck(self, task_id: TaskId) -> bool:
        if self.runner is not None or not self.mailbox.blocked:
            return False
        if self.mailbox.is_returning(task_id):
            return False  # it runs inside the call that waits
        return self.mailbox.is_actor or task_id in self.mailbox.running

    def is_reentrant(self) -> bool:
        return self.mailbox.is_reentrant

    def running_label(self) -> str:
        item = self.running_on_main
        target = item.call.target if item is not None else ""
        name = target if isinstance(target, str) else getattr(self._functions.get(target), "__name__", "a task")
        return f"{self.class_name}.{name} (pid {self.os_pid()})" if self.class_name else f"{name} (pid {self.os_pid()})"

    def deadlocked(self, text: str) -> None:
        self._deadlock = text

    def _unblock(self, _: None) -> None:
        self._deadlock = None
        self.waits.end()
        self.mailbox.blocked -= 1
        if self.mailbox.blocked:
            return
        if self._blocked_timer is not None:
            self._blocked_timer.cancel()
            self._blocked_timer = None
        if self._blocked_told:
            self._blocked_told = False
            self.node_link.send(messages.WorkerUnblocked())

    def in_async_actor(self) -> bool:
        return self.runner is not None and self.runner.owns_thread()

    # -- running -------------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """The main thread's life."""
        self.loop.start_helper()
        self.loop.post(self.node_link.send, messages.WorkerReady(self.address, self.os_pid()))
        while self.stopping is None:
            if self._calls_run and not self._is_tidying:
                self._is_tidying = True
                self.loop.call_later(TIDY_AFTER_S, lambda: self._tidy(self._calls_run))
            self.loop.drive(self._has_work, None)
            if self._to_create is not None:
                creation, self._to_create = self._to_create, None
                self.create(creation)
            elif not self._run_some():
                self.leave("no handle to the actor is left")

    def _keep_surroundings(self) -> None:
        self._surroundings = Surroundings()

    def _mend(self) -> None:
        self._surroundings.mend(directory_too=self.spec is None)

    def _tidy(self, calls_run: int) -> None:
        """Give free memory back once nothing has run for a moment."""
        if self._calls_run == calls_run and not self.mailbox.running:
            heap.give_back()
            self._calls_run, self._is_tidying = 0, False
        else:
            self.loop.call_later(TIDY_AFTER_S, lambda: self._tidy(self._calls_run))

    def _has_work(self) -> bool:
        if self.stopping is not None or self._to_create is not None or self.mailbox.can_start():
            return True
        if self.checkpoint_is_due() or self.may_leave_now() or self.asked_to_exit:
            return True
        return self.draining and self.mailbox.is_empty() and not self._finished

    def _run_some(self) -> bool:
        """Run what can start. False when the actor has drained and may end."""
        mailbox, lock = self.mailbox, self.mailbox_lock
        self.save_if_due()
        if self.may_leave_now():
            self.leave_node()
        if self.asked_to_exit:
            self.leave(self.asked_to_exit)
        while self.stopping is None:
            with lock:
                item = mailbox.pop()
            if item is None:
                break
            self._calls_run += 1
            if self.runner is not None:
                self.runner.start(item)
                continue
            self.run_on_main(item)
            self._mend()
            if self._to_create is not None:
                return True
        return not (self.draining and mailbox.is_empty() and not self._finished)

    def run_on_main(self, item: Item) -> None:
        try:
            self.run_call(item)
        except ExitActor:
            self.leave("exit_actor() was called")
        except SystemExit as end:
            self._exit_with(end)
        with self.mailbox_lock:
            self.mailbox.done(item)
        self._count_calls(item)

    def interruptible(self, item: Item, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.runner is not None:
            return function(*args, **kwargs)
        outer, self.running_on_main = self.running_on_main, item  # a call that came back runs inside another
        try:
            return function(*args, **kwargs)
        finally:
            self.running_on_main = outer

    def _count_calls(self, item: Item) -> None:
        extra = item.call.extra
        if extra is None or "max_calls" not in extra:
            return
        count = self._calls_of[item.call.target] = self._calls_of.get(item.call.target, 0) + 1
        if count >= extra["max_calls"]:
            self.leave(f"max_calls={extra['max_calls']} reached")

    def _exit_with(self, end: SystemExit) -> None:
        code = end.code if isinstance(end.code, int) else (0 if end.code is None else 1)
        print(f"sys.exit({end.code!r}) was called in user code", file=sys.stderr, flush=True)
        self._flush()
        self.end_process(code)

    def leave_soon(self, reason: str) -> None:
        """From any thread: the main one ends this process in good order."""
        self.asked_to_exit = reason
        self.loop.call_soon(nothing)

    def leave(self, reason: str) -> None:
        """On the main thread: run the actor's hook, give back what is queued, tell the node, end this process."""
        self.stopping = reason
        self.run_shutdown_hook()
        with self.mailbox_lock:
            self.mailbox.is_leaving = True  # what comes while the node hears of it is given back as well
            returned = {} if self.mailbox.is_actor else self.mailbox.give_back(1 << 30)

        def give_back(_: None) -> None:
            for link, ids in returned.items():
                link.send(messages.CallsReturned(tuple(ids), True))

        self.loop.post(give_back, None)
        with contextlib.suppress(exceptions.GetTimeoutError):  # until the node knows, it would take that for a crash
            self.ask(self.node, lambda rid: messages.WorkerExiting(rid, reason), limits.last_word_s)
        self._flush()
        self.end_process(0)

    def _flush(self) -> None:
        self.loop.post(self._send_finished, None)
        self.wait_for_copies()
        self.loop.close()

    def run_shutdown_hook(self) -> None:
        for name in ("__ray_shutdown__", "__shutdown__"):
            hook = getattr(self.instance, name, None)
            if hook is not None:
                try:
                    hook()
                except Exception as error:
                    print(f"{name} of {self.class_name} raised: {error!r}", file=sys.stderr, flush=True)

    # -- actors --------------------------------------------------------------------------------------------------------
    def create(self, creation: messages.CreateActor) -> None:
        """Construct the actor's instance, from its last checkpoint if there is one."""
        spec = creation.spec
        self._join_job(spec.job_id, spec.namespace)
        self.actor_id, self.actor_name, self.class_name = spec.actor_id, spec.name, spec.class_name
        self.was_restarted = creation.incarnation > 0
        self._take_terms(messages.LeaseTerms(spec.resources_to_run, spec.strategy, creation.accelerators))
        call = messages.Call(
            TaskId(spec.actor_id),
            spec.class_id,
            spec.args,
            spec.dependencies,
            1,
            0,
            None,
        )
        item = Item(self.node_link, call, "")
        try:
            self.construct(item, spec)
        except ExitActor:
            self.leave("exit_actor() was called in the constructor")
        except BaseException as error:
            self._creation_failed(item, error)
            return
        extra = spec.extra or {}
        self.mailbox.become_actor(spec.max_concurrency, spec.concurrency_groups, bool(extra.get("reentrant")))
        self.take_unfinished()
        self.start_looking()
        self.runner = self._make_runner(bool(extra.get("is_async")), spec)
        self.loop.post(self.node_link.send, messages.ActorCreated(spec.actor_id, creation.incarnation, self.address))
        self.keep_brought()

    def _make_runner(self, is_async: bool, spec: ActorSpec) -> ThreadRunner | AsyncRunner | None:
        if is_async:
            from actorlib.runtime.drivers.async_actor import AsyncRunner

            return AsyncRunner(self)
        return ThreadRunner(self) if spec.max_concurrency > 1 or spec.concurrency_groups else None

    def _creation_failed(self, item: Item, error: BaseException) -> None:
        assert self.spec is not None
        _, value = self.failure(item, error, f"{self.class_name}.__init__")
        dead = exceptions.actor_creation_error(self.load_error(value), self.class_name)
        failed = messages.ActorFailed(
            self.spec.actor_id, self.incarnation, f"its constructor raised {value[2]}", self.exception_value(dead)
        )
        self.loop.post(self.node_link.send, failed)

    def exit_actor(self) -> NoReturn:
        if self.spec is None:
            super().exit_actor()
        raise ExitActor

    # -- context -------------------------------------------------------------------------------------------------------
    def assigned_resources(self) -> dict[str, float]:
        return resource_map(self.terms.resources.items())

    def accelerators(self) -> dict[str, tuple[int, ...]]:
        return self.terms.accelerators

    def current_group(self) -> bytes | None:
        return self.terms.strategy[1] if self.terms.strategy[0] == "group" else None

    def current_actor(self) -> Any:
        spec = self.spec
        if spec is None:
            return None
        return ActorHandle.from_wire(spec.actor_id, spec.class_name, spec.methods, dict(spec.extra or {}), None)


def apply_environment(config: dict[str, Any]) -> None:
    """The job's module path and directory, and what its runtime environment asks for."""
    for path in reversed(config.get("sys_path") or []):
        if path not in sys.path:
            sys.path.insert(0, path)
    cwd = config.get("cwd")
    if cwd and os.path.isdir(cwd):
        os.chdir(cwd)
    runtime_env = serialization.parse_runtime_env(config.get("runtime_env", ""))
    os.environ.update(runtime_env.get("env_vars", {}))
    for module_path in runtime_env.get("py_modules", []):
        sys.path.insert(0, module_path)
    if runtime_env.get("working_dir"):
        os.chdir(runtime_env["working_dir"])
        sys.path.insert(0, runtime_env["working_dir"])
    for module in runtime_env.get("preload", []):
        importlib.import_module(module)


def prepare() -> None:
    """What the zygote does once for all workers."""
    heap.keep_freed_memory()


def main(config: dict[str, Any]) -> int:
    """A fresh fork of the zygote becomes a worker. Gives the process's exit code."""
    faulthandler.enable()
    set_process_name("worker")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    apply_environment(config)
    worker = Worker(config)
    Slot.engine = worker
    signal.signal(signal.SIGINT, worker._on_sigint)
    worker.run()
    worker._flush()
    sys.stdout.flush()
    sys.stderr.flush()
    return 0
