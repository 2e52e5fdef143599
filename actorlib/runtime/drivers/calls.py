"""Calls: tasks, actors and their methods, generators, cancelling and killing."""

from __future__ import annotations

import contextvars
import dataclasses
import hashlib
import time
from collections.abc import Callable
from typing import Any

from actorlib import exceptions, serialization
from actorlib.actor import ActorHandle, MethodInfo, methods_to_wire
from actorlib.engine import DYNAMIC, STREAMING, ActorOptions, FunctionRecord, MethodOptions, TaskOptions
from actorlib.object_ref import ObjectRef, ObjectRefGenerator
from actorlib.runtime.completion import Stream
from actorlib.runtime.drivers.objects import Objects
from actorlib.runtime.task import Task, TaskState
from actorlib.store.owner import Entry
from actorlib.transport import limits, messages
from actorlib.transport.ids import ARGUMENTS, ActorId, ObjectId, TaskId, object_id
from actorlib.transport.link import NOWHERE
from actorlib.transport.messages import ActorUpdate

FUNCTION_NAMESPACE = "functions"
DEFAULT_STRATEGY = ("default",)


class CallContext:
    """What runs now in this thread (or asyncio task): for children's depth, cancelling, and ``get_runtime_context``."""

    __slots__ = ("blocked_s", "chain", "depth", "expires_at", "extra", "held", "name", "run", "task_id", "where")

    def __init__(self, task_id: TaskId, name: str, depth: int, extra: dict[str, Any] | None) -> None:
        self.task_id = task_id
        self.name = name
        self.depth = depth
        self.extra = extra
        self.blocked_s = 0.0
        self.expires_at: float | None = None  # of the monotonic clock, from the deadline of the call
        if extra is not None and "timeout_s" in extra:
            self.expires_at = time.monotonic() + extra["timeout_s"]
        # Calls of reentrant actors that wait, or will, for what comes of this one; few calls have any.
        self.chain: tuple[TaskId, ...] = () if extra is None else tuple(extra.get("chain", ()))
        self.held: list[ObjectId] = []  # references that came with the arguments
        self.where: Any = None
        self.run: Any = None  # of a durable actor's call: what it learns and makes is numbered

    def is_canceled(self) -> bool:
        """Asked by user code, which is trusted from then on to look again."""
        item = self.where
        if item is None or self.run is not None:
            return False
        item.is_looked_after = True
        return bool(item.cancelled) or (self.expires_at is not None and time.monotonic() >= self.expires_at)


CURRENT: contextvars.ContextVar[CallContext | None] = contextvars.ContextVar("actorlib_call", default=None)


class Calls(Objects):
    """The engine's operations on tasks and actors."""

    handle_type = ActorHandle

    captures: tuple[Any, ...] | None = None  # the strategy of what is started here without one
    runtime_env = ""  # of this process: what is started here has it, too

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._captured_options: dict[int, tuple[TaskOptions, TaskOptions]] = {}
        self._options_in_environment: dict[int, tuple[TaskOptions, TaskOptions]] = {}

    # -- functions -----------------------------------------------------------------------------------------------------
    def export(self, record: FunctionRecord) -> bytes:
        """Pickle a function or class once per session and keep it in the GCS under its hash."""
        data = serialization.dumps_function(record.function)
        if len(data) > limits.function_bytes_max:
            raise ValueError(
                f"{record.name} is {len(data) >> 20} MB when pickled, and {limits.function_bytes_max >> 20} MB is the "
                "limit: it captures large values; put() them and pass the reference as an argument"
            )
        function_id = self._function_id(data)
        if function_id not in self._code:
            self._code[function_id] = data
            self.loop.post(
                self.to_gcs, messages.KvPut(self.ids.request_id(), FUNCTION_NAMESPACE, function_id, data, True)
            )
        record.function_id = function_id
        record.engine_token = self
        return function_id

    def _function_id(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=16).digest()

    # -- arguments -----------------------------------------------------------------------------------------------------
    def _pack(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Serialise arguments into ``task``; references at top level become dependencies."""
        positions: list[int | str] = []
        refs: list[ObjectRef[Any]] = []
        for index, value in enumerate(args):
            if type(value) is ObjectRef:
                positions.append(index)
                refs.append(value)
        for name, value in kwargs.items():
            if type(value) is ObjectRef:
                positions.append(name)
                refs.append(value)
        if refs:
            plain = [None if type(value) is ObjectRef else value for value in args]
            named = {name: None if type(value) is ObjectRef else value for name, value in kwargs.items()}
            serialized = serialization.serialize((plain, named, positions))
            task.dependencies = tuple((ObjectId(ref._id), ref._owner) for ref in refs)
        else:
            serialized = serialization.serialize((args, kwargs))
        holds = [ObjectId(ref._id) for ref in refs]
        if serialized.refs:
            holds.extend(oid for oid, _ in serialized.refs)
        oid = object_id(task.task_id, ARGUMENTS)
        task.args = self.make_value(oid, serialized)
        if type(task.args) is tuple and task.args[0] == messages.VALUE_STORED:
            entry = Entry(None, 0)
            entry.value = task.args
            self.table.entries[oid] = entry
            holds.append(oid)
        task.holds = tuple(holds)

    def _take_holds(self, task: Task) -> None:
        if task.holds:
            entries = self.table.entries
            for oid in task.holds:
                entry = entries.get(oid)
                if entry is not None:
                    entry.count += 1

    # -- tasks ---------------------------------------------------------------------------------------------------------
    def submit(
        self, record: FunctionRecord, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> Any:
        if record.engine_token is not self:
            self.export(record)
        self._refuse_closed()
        if self.captures is not None and options.strategy == DEFAULT_STRATEGY:
            options = self._captured(options, self.captures)
        if self.runtime_env:
            options = self._in_environment(options)
        label = options.name or record.name
        task = Task(
            self.ids.task_id(), record.function_id, b"", options, options.num_returns, options.max_retries, label
        )
        if args or kwargs:
            self._pack(task, args, kwargs)
        self._inherit(task, options, options.timeout_s)
        result = self._make_returns(task, options.num_returns)
        self.loop.post(self._enqueue, task)
        return result

    def _captured(self, options: TaskOptions, strategy: tuple[Any, ...]) -> TaskOptions:
        """The same options inside the placement group of the task or actor that runs here."""
        if self._captured_options.get(id(options), (None, None))[0] is not options:
            resources, _, environment, priority = options.shape
            shape = (resources, strategy, environment, priority)
            replaced = dataclasses.replace(options, strategy=strategy, shape=shape)
            self._captured_options[id(options)] = (options, replaced)
        return self._captured_options[id(options)][1]

    def _in_environment(self, options: TaskOptions) -> TaskOptions:
        """The same options with this process's runtime environment below that of the task."""
        if self._options_in_environment.get(id(options), (None, None))[0] is not options:
            resources, strategy, _, priority = options.shape
            environment = serialization.merge_runtime_envs(self.runtime_env, options.runtime_env)
            shape = (resources, strategy, environment, priority)
            replaced = dataclasses.replace(options, runtime_env=environment, shape=shape)
            self._options_in_environment[id(options)] = (options, replaced)
        return self._options_in_environment[id(options)][1]

    def _refuse_closed(self) -> None:
        if self.closed:
            raise exceptions.make("NodeDiedError", "the session of this process has ended; call actorlib.init() again")

    def _inherit(self, task: Task, options: TaskOptions | MethodOptions, timeout_s: float | None) -> None:
        """What few calls carry: options that the worker must know, and how deep the caller is."""
        extra: dict[str, Any] = {}
        if options.name:
            extra["name"] = options.name
        if isinstance(options, TaskOptions):
            if options.max_calls:
                extra["max_calls"] = options.max_calls
        else:
            if options.concurrency_group:
                extra["concurrency_group"] = options.concurrency_group
            if options.priority:
                extra["priority"] = options.priority
        if options.backpressure > 0:
            extra["backpressure"] = options.backpressure
        context = CURRENT.get()
        if context is not None:
            task.depth = extra["depth"] = context.depth + 1
            extra["parent"] = context.task_id
            if context.chain:
                extra["chain"] = context.chain
            if context.run is not None:
                extra["voice"] = True
            if context.expires_at is not None:
                left = max(0.0, context.expires_at - time.monotonic())
                timeout_s = left if timeout_s is None else min(left, timeout_s)
        if timeout_s is not None:
            extra["timeout_s"] = timeout_s
        task.extra = extra or None

    def _make_returns(self, task: Task, num_returns: int) -> Any:
        entries, drop, address = self.table.entries, self.drop_ref, self.address
        if num_returns == 1 or num_returns == DYNAMIC:
            oid = object_id(task.task_id, 0)
            entries[oid] = Entry(task)
            return ObjectRef(oid, address, drop)
        if num_returns == STREAMING:
            return self._make_generator(task)
        refs: list[ObjectRef[Any]] = []
        for index in range(num_returns):
            oid = object_id(task.task_id, index)
            entries[oid] = Entry(task)
            refs.append(ObjectRef(oid, address, drop))
        return refs or None

    def _make_generator(self, task: Task) -> ObjectRefGenerator[Any]:
        oid = object_id(task.task_id, 0)
        self.table.entries[oid] = Entry(task)
        stream = self.completion.open_stream(task)
        engine: Any = self
        generator: ObjectRefGenerator[Any] = ObjectRefGenerator(task.task_id, engine)
        generator._state = (stream, ObjectRef(oid, self.address, self.drop_ref))
        return generator

    def _enqueue(self, task: Task) -> None:
        self._take_holds(task)
        if task.extra is not None and "timeout_s" in task.extra:
            self.arm_deadline(task, task.extra["timeout_s"])
        self.submitter.submit(task)

    # -- actors --------------------------------------------------------------------------------------------------------
    def create_actor(
        self,
        record: FunctionRecord,
        methods: dict[str, MethodInfo],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
    ) -> ActorHandle[Any]:
        self._refuse_closed()
        if record.engine_token is not self:
            self.export(record)
        if self.captures is not None and options.strategy == DEFAULT_STRATEGY:
            options = dataclasses.replace(options, strategy=self.captures)
        if self.runtime_env:
            environment = serialization.merge_runtime_envs(self.runtime_env, options.runtime_env)
            options = dataclasses.replace(options, runtime_env=environment)
        actor_id = self.ids.actor_id()
        task = Task(TaskId(actor_id), record.function_id, b"", options, 1, 0, record.name)
        if args or kwargs:
            self._pack(task, args, kwargs)
        spec = self._actor_spec(actor_id, record, methods, task, options)
        oid = object_id(task.task_id, 0)
        if not options.name:
            self.table.entries[oid] = Entry(task)
            mine = None if options.detached else self.new_ref(oid)
            self.loop.post(self._register_actor, (spec, task))
            return self._handle(spec, mine)
        return self._create_named(spec, task, options)

    def _create_named(self, spec: messages.ActorSpec, task: Task, options: ActorOptions) -> ActorHandle[Any]:
        """The name is taken or ours when this returns. Named actors end with their last handle unless detached."""
        oid = object_id(task.task_id, 0)
        self.table.entries[oid] = Entry(task)
        self.loop.post(self._hold_actor_arguments, task)
        try:
            answer = self.ask(self.gcs, lambda rid: messages.ActorRegister(rid, spec, options.get_if_exists))
        except BaseException:
            self.loop.post(self.table.release, oid)
            raise
        if answer.existed:
            self.table.entries[oid].rare = None
            self.loop.post(self.table.release, oid)
            return self._handle(answer.spec, None)
        self.table.entries[oid].needs_rare().on_free = lambda: self._actor_released(spec)
        return self._handle(spec, None if options.detached else self.new_ref(oid))

    def _actor_spec(
        self,
        actor_id: ActorId,
        record: FunctionRecord,
        methods: dict[str, MethodInfo],
        task: Task,
        options: ActorOptions,
    ) -> messages.ActorSpec:
        name = record.name.rsplit(".", 1)[-1]
        extra = {
            "max_task_retries": options.max_task_retries,
            "max_pending_calls": options.max_pending_calls,
            "is_async": options.is_async,
            "out_of_order": options.out_of_order,
            "reentrant": options.reentrant,
            "durable": options.checkpoint is not None,
            "concurrency_groups": tuple(options.concurrency_groups),
            "priority": options.priority,
            "timeout_s": options.timeout_s,
            "name": options.name,
            "namespace": options.namespace or self.namespace,
        }
        context = CURRENT.get()
        if context is not None and context.run is not None:
            extra["parent_actor"] = self.own_actor_id()
        return messages.ActorSpec(
            actor_id,
            self.job_id,
            self.address,
            record.function_id,
            name,
            options.name,
            options.namespace or self.namespace,
            options.detached,
            task.args,
            tuple((oid, owner, None) for oid, owner in task.dependencies),
            methods_to_wire(methods),
            options.max_restarts,
            options.max_task_retries,
            options.max_concurrency,
            options.concurrency_groups,
            options.resources_to_place,
            options.resources_to_run,
            options.strategy,
            options.runtime_env,
            options.checkpoint,
            extra,
        )

    def own_actor_id(self) -> bytes:
        """The actor that lives in this process; empty if none does."""
        return b""

    def _hold_actor_arguments(self, task: Task) -> None:
        """An actor that may be restarted needs its arguments for as long as it lives."""
        entry = self.table.entries[object_id(task.task_id, 0)]
        entry.value = b""
        self._take_holds(task)
        entry.needs_rare().contained = tuple((oid, self.address) for oid in task.holds)
        task.state = TaskState.FINISHED

    def _register_actor(self, item: tuple[messages.ActorSpec, Task]) -> None:
        spec, task = item
        self._hold_actor_arguments(task)
        request_id = self.ids.request_id()
        self._answers[request_id] = lambda answer: self._actor_registered(spec, answer)
        self.to_gcs(messages.ActorRegister(request_id, spec, False))
        entry = self.table.entries[object_id(task.task_id, 0)]
        if not spec.detached:
            entry.needs_rare().on_free = lambda: self._actor_released(spec)
        self.actors.client(spec.actor_id, spec.class_name)

    def _actor_registered(self, spec: messages.ActorSpec, answer: Any) -> None:
        if type(answer) is messages.Failure:
            error = self.error_value(answer.kind, answer.text)
            self.actors.updated(ActorUpdate(spec.actor_id, 0, "DEAD", NOWHERE, answer.text, None, error, 0))

    def _actor_released(self, spec: messages.ActorSpec) -> None:
        if not self.closed:
            self.to_gcs(messages.ActorReleased(spec.actor_id, self.ids.request_id()))

    @staticmethod
    def _handle(spec: messages.ActorSpec, ref: ObjectRef[Any] | None) -> ActorHandle[Any]:
        return ActorHandle.from_wire(spec.actor_id, spec.class_name, spec.methods, dict(spec.extra or {}), ref)

    def call(
        self,
        handle: ActorHandle[Any],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: MethodOptions,
    ) -> Any:
        self._refuse_closed()
        extra = handle._extra
        retries = options.max_task_retries
        if retries is None:
            retries = extra.get("max_task_retries", 0)
        task = Task(self.ids.task_id(), method, b"", options, options.num_returns, retries, options.name or method)
        if args or kwargs:
            self._pack(task, args, kwargs)
        self._inherit(task, options, extra.get("timeout_s") if options.timeout_s is None else options.timeout_s)
        if options.readonly and extra.get("durable"):
            task.extra = {**(task.extra or {}), "readonly": True}
        ref = handle._ref
        if ref is not None:
            task.holds = (*task.holds, ObjectId(ref._id))
        limit = extra.get("max_pending_calls", -1)
        if limit >= 0:
            self._refuse_too_many(handle, limit)
        result = self._make_returns(task, options.num_returns)
        self.loop.post(self._enqueue_call, (handle, task))
        return result

    def _refuse_too_many(self, handle: ActorHandle[Any], limit: int) -> None:
        actor_id = ActorId(handle._actor_id)
        pending = self.loop.run(lambda: self.actors.client(actor_id, handle._class_name).pending_count())
        if pending >= limit:
            raise exceptions.PendingCallsLimitExceeded(
                f"{pending} calls to {handle._class_name} are pending, max_pending_calls={limit}; wait for some of them"
            )

    def _enqueue_call(self, item: tuple[ActorHandle[Any], Task]) -> None:
        handle, task = item
        self._take_holds(task)
        if task.extra is not None and "timeout_s" in task.extra:
            self.arm_deadline(task, task.extra["timeout_s"])
        client = self.actors.clients.get(handle._actor_id)  # type: ignore[call-overload]
        if client is None:
            client = self.actors.client(ActorId(handle._actor_id), handle._class_name)
        client.keeps_order = not handle._extra.get("out_of_order")
        client.is_durable = bool(handle._extra.get("durable"))
        if task.retries_left != 0 and not client.is_durable:
            task.actor_id = client.actor_id
        self.actors.submit(client, task)

    # -- generators ----------------------------------------------------------------------------------------------------
    def next_item(self, generator: ObjectRefGenerator[Any], timeout: float | None) -> ObjectRef[Any] | None:
        stream: Stream
        stream, done = generator._state
        task_id = TaskId(generator._task_id)
        while True:
            oid = self.loop.run(lambda: self._take_item(task_id, stream))
            if oid is not None:
                return ObjectRef(oid, self.address, self.drop_ref)
            if stream.is_drained():
                return None
            self.refuse_blocking()
            ready = self.drive(lambda: bool(stream.items) or stream.is_drained(), timeout, (done,))
            if not ready or self.closed:
                raise exceptions.GetTimeoutError(f"no item within {timeout} s: {self.why_pending(done)}")

    def _take_item(self, task_id: TaskId, stream: Stream) -> ObjectId | None:
        oid = self.completion.take(task_id, stream)
        if oid is not None and stream.where is not None and stream.ended is None:
            stream.where.send(messages.GeneratorConsumed(task_id, stream.taken))
        return oid

    def when_item(self, generator: ObjectRefGenerator[Any], callback: Callable[[], None]) -> None:
        stream: Stream
        stream, _ = generator._state

        def begin(_: None) -> None:
            if stream.items or stream.is_drained():
                callback()
            else:
                stream.waiters.append(callback)

        self.loop.post(begin, None)

    def close_generator(self, generator: ObjectRefGenerator[Any]) -> None:
        if not self.closed:
            self.loop.post(self.completion.close_stream, TaskId(generator._task_id))

    # -- control -------------------------------------------------------------------------------------------------------
    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        oid = ObjectId(ref._id)

        def begin(_: None) -> None:
            entry = self.table.entries.get(oid)
            if entry is not None and entry.task is not None:
                self.cancel_task(entry.task, force, recursive)
            elif ref._owner.process_id != self.address.process_id:
                self.send_to(ref._owner, messages.CancelCall(TaskId(oid[:16]), recursive))

        entry = self.table.entries.get(oid)
        if force and entry is not None and entry.task is not None and isinstance(entry.task.target, str):
            raise ValueError("force=True is not for actor calls: use kill(handle) to end the actor")
        self.loop.post(begin, None)

    def kill(self, handle: ActorHandle[Any], no_restart: bool) -> None:
        actor_id = ActorId(handle._actor_id)
        self.ask(self.gcs, lambda request_id: messages.ActorKill(request_id, actor_id, no_restart))

    def find_actor(self, name: str, namespace: str | None) -> ActorHandle[Any]:
        answer = self.ask(self.gcs, lambda rid: messages.ActorFind(rid, name, namespace or self.namespace))
        return self._handle(answer.spec, None)

    def list_named_actors(self, all_namespaces: bool) -> list[tuple[str, str]]:
        namespace = "" if all_namespaces else self.namespace
        answer = self.ask(self.gcs, lambda request_id: messages.ActorList(request_id, namespace))
        return [(space, name) for space, name in answer.names]


__all__ = ["CURRENT", "CallContext", "Calls"]
