"""The operations of the seam, inline."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, NoReturn

from actorlib import exceptions, options, serialization
from actorlib.actor import ActorHandle, MethodInfo, methods_to_wire
from actorlib.engine import ActorOptions, DeadLetter, Down, DurableActors, FunctionRecord, MethodOptions, TaskOptions
from actorlib.engines.inline.actors import InlineActor
from actorlib.engines.inline.bookkeeping import Books, totals
from actorlib.engines.inline.calls import CURRENT, Call, ExitActor, FailActor, Runner
from actorlib.engines.inline.event_loop import PrivateLoop
from actorlib.engines.inline.outcomes import InlineHandle, InlineRef, Outcome
from actorlib.engines.inline.view import InlineView, actor_row
from actorlib.engines.inline.watching import Watching
from actorlib.engines.registry import Settings
from actorlib.object_ref import ObjectRef, ObjectRefGenerator
from actorlib.runtime.drivers import actor_state
from actorlib.transport.ids import ActorId, GroupId, IdFactory, JobId, NodeId, ObjectId, new_process_id, object_id
from actorlib.transport.link import Address

RECORDS_MAX = 10_000
TURN_S_MAX = 0.05
OTHERS_TURN_S = 0.002
DEFAULT_STRATEGY = ("default",)


def refuse(what: str, way_out: str) -> exceptions.NotSupportedByEngineError:
    return exceptions.NotSupportedByEngineError("inline", what, way_out)


class InlineEngine(InlineView):
    """Everything in this process. See the package's docstring."""

    name = "inline"
    ref_type = InlineRef
    handle_type = InlineHandle

    def __init__(self, settings: Settings) -> None:
        if settings.address is not None:
            raise refuse("joining a cluster", 'leave out address=, or use engine="local"')
        self.process_id = new_process_id()
        self.node_id = NodeId(self.process_id)
        self.job_id = JobId(self.process_id)
        self.ids = IdFactory(self.process_id)
        self.namespace = settings.namespace or f"job-{self.process_id.hex()}"
        self.runtime_env = options.runtime_env(settings.runtime_env)
        self.address_info: dict[str, Any] = {
            "address": "inline",
            "node_id": self.node_id.hex(),
            "session_dir": "",
            "node_pid": os.getpid(),
        }
        self.books = Books(self.node_id, totals(settings), self._labels(settings))
        self.runner = Runner(self)
        self.outcomes: weakref.WeakValueDictionary[ObjectId, Outcome] = weakref.WeakValueDictionary()
        self.actors: dict[ActorId, InlineActor] = {}
        self.gone: deque[dict[str, Any]] = deque(maxlen=1000)  # rows of actors that have ended
        self.names: dict[tuple[str, str], InlineActor] = {}
        self.records: deque[dict[str, Any]] = deque(maxlen=RECORDS_MAX)
        self.closed = False
        self._pinned: list[Outcome] = []
        self._waiting: list[Call | InlineActor] = []  # for resources, in order
        self._async_calls: dict[Any, Call] = {}
        self._happened = threading.Condition()
        self._books_lock = threading.RLock()
        self._loop: PrivateLoop | None = None
        self._group_waiters: dict[GroupId, list[Outcome]] = {}
        self._functions: dict[int, tuple[FunctionRecord, Any]] = {}  # by the id of the record, which is held
        self._watching = Watching(self)
        self._dead: dict[ActorId, BaseException] = {}  # why each dead actor is dead

    def _labels(self, settings: Settings) -> dict[str, str]:
        return {"actorlib.io/node-id": self.node_id.hex(), **(settings.labels or {})}

    # -- copies --------------------------------------------------------------------------------------------------------
    def pack(self, value: Any) -> tuple[bytes, tuple[bytes, ...], tuple[Outcome, ...]]:
        """A copy of a value in its serialized form, and the outcomes that it refers to."""
        data, buffers, refs = serialization.serialize(value)
        return data, tuple(bytes(buffer) for buffer in buffers), tuple(self.outcomes[oid] for oid, _ in refs)

    def _load(self, record: FunctionRecord) -> Any:
        """The function or class as a worker would have it: pickled and back, once."""
        if record.engine_token is not self:
            record.engine_token = self
            self._functions[id(record)] = (
                record,
                serialization.deserialize(serialization.dumps_function(record.function)),
            )
        return self._functions[id(record)][1]

    def new_outcome(self, oid: ObjectId, call: Call | None = None) -> Outcome:
        outcome = self.outcomes[oid] = Outcome(self, oid, call)
        return outcome

    @staticmethod
    def _environment(own: str) -> str:
        """What a call starts has the call's runtime environment below its own."""
        call = CURRENT.get()
        return own if call is None else serialization.merge_runtime_envs(call.runtime_env, own)

    # -- tasks ---------------------------------------------------------------------------------------------------------
    def submit(
        self, record: FunctionRecord, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> Any:
        self._refuse_closed()
        call = Call(self, options.name or record.name, self._load(record), options, options.max_retries)
        call.take_arguments(args, kwargs)
        call.make_outcomes(options.num_returns)
        call.resources, call.strategy = options.resources, options.strategy
        call.runtime_env = self._environment(options.runtime_env)
        if call.strategy == DEFAULT_STRATEGY:
            call.strategy = self._captured()
        result = self._given_back(call)
        never = self.books.why_never(call.resources, call.strategy)
        if never is not None:
            call.fail(exceptions.TaskUnschedulableError(never))
        elif call.is_ready():
            self._place(call)
        else:
            for _, outcome in call.dependencies:
                outcome.when_done(lambda: self._place(call) if call.is_ready() and call.state == "PENDING" else None)
        return result

    def _captured(self) -> tuple[Any, ...]:
        """The placement group of the call that runs here, if it captures what it starts."""
        current = CURRENT.get()
        strategy = current.strategy if current is not None else DEFAULT_STRATEGY
        return ("group", strategy[1], -1, True) if strategy[0] == "group" and strategy[3] else DEFAULT_STRATEGY

    def _given_back(self, call: Call) -> Any:
        if call.stream is not None:
            generator: ObjectRefGenerator[Any] = ObjectRefGenerator(call.task_id, self)
            generator._state = (call.stream, InlineRef(call.outcomes[0]))
            return generator
        refs = [InlineRef(outcome) for outcome in call.outcomes]
        if call.options.num_returns > 1:
            return refs
        return refs[0] if refs else None

    def _place(self, call: Call) -> None:
        """Run it now, or when its resources are free."""
        with self._books_lock, self.callers_wait(call.parent):
            devices = self.books.take(call.holder, call.resources, call.strategy)
        if devices is None:
            self._waiting.append(call)
            return
        call.devices = devices
        call.state = "PLACED"
        try:
            self.runner.run(call, call.function)  # type: ignore[arg-type]
        finally:
            if call.stream is None or call.is_over:
                self._release(call.holder)

    def _release(self, holder: bytes) -> None:
        with self._books_lock:
            self.books.release(holder)
        self._place_waiting()

    def _place_waiting(self) -> None:
        """Something became free: what waits for it starts, in order."""
        for group in list(self.books.groups.values()):
            if group.state == "PENDING" and self.books.place(group):
                self._group_settled(group)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if isinstance(one, InlineActor):
                self._place_actor(one)
            elif not one.is_over:
                self._place(one)

    @contextlib.contextmanager
    def callers_wait(self, parent: Call | None) -> Iterator[None]:
        """Those who called wait for this to end: others may use their CPU."""
        lent = []
        while parent is not None:
            lent.append(parent.holder if parent.actor is None else parent.actor.actor_id)
            parent = parent.parent
        with self._books_lock:
            for holder in lent:
                self.books.lend(holder)
        try:
            yield
        finally:
            with self._books_lock:
                for holder in lent:
                    self.books.reclaim(holder)

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
        key = (options.namespace or self.namespace, options.name)
        existing = self.names.get(key) if options.name else None
        if existing is not None:
            if options.get_if_exists:
                return self._handle(existing, None)
            raise ValueError(
                f"the name {options.name!r} is taken in namespace {key[0]!r} by a {existing.class_name}; choose "
                "another, or pass get_if_exists=True"
            )
        cls = self._load(record)
        creation = Call(self, f"{cls.__name__}.__init__", "__init__", TaskOptions(resources={}), 0)
        creation.take_arguments(args, kwargs)
        if options.strategy == DEFAULT_STRATEGY:
            options = dataclasses.replace(options, strategy=self._captured())
        options = dataclasses.replace(options, runtime_env=self._environment(options.runtime_env))
        actor_id = self.ids.actor_id()
        actor = InlineActor(self, actor_id, cls, methods, creation, options)
        creation.actor, creation.runtime_env, creation.strategy = actor, options.runtime_env, options.strategy
        self.actors[actor_id] = actor
        if options.name:
            self.names[key] = actor
        handle = self._handle(actor, None if options.detached else self._life(actor))
        never = self.books.why_never(options.resources_to_place, options.strategy)
        if never is not None:
            actor.die(never, exceptions.ActorUnschedulableError(never), "unplaceable")
        elif creation.is_ready():
            self._place_actor(actor)
        else:
            for _, outcome in creation.dependencies:
                outcome.when_done(lambda: self._place_actor(actor) if creation.is_ready() else None)
        return handle

    def _place_actor(self, actor: InlineActor) -> None:
        if actor.state != "PENDING":
            return
        with self._books_lock, self.callers_wait(actor.creation.parent):
            devices = self.books.take(actor.actor_id, actor.options.resources_to_place, actor.options.strategy)
            if devices is None:
                actor.reason = "it waits until its resources are free"
                self._waiting.append(actor)
                return
            self.books.shrink(actor.actor_id, actor.options.resources_to_run)
        actor.creation.devices = devices
        actor.construct()

    def _life(self, actor: InlineActor) -> InlineRef:
        """What all handles of an actor hold; when it is gone, so are they."""
        life = self.new_outcome(object_id(actor.actor_id, 0))  # type: ignore[arg-type]
        life.resolve(None)
        weakref.finalize(life, self._handles_gone, actor.actor_id).atexit = False
        return InlineRef(life)

    def _handles_gone(self, actor_id: ActorId) -> None:
        actor = self.actors.get(actor_id)
        if actor is not None and not self.closed:
            actor.handles_are_gone()

    def _handle(self, actor: InlineActor, life: InlineRef | None) -> InlineHandle:
        wire = methods_to_wire(actor.methods)
        extra = {"concurrency_groups": tuple(actor.options.concurrency_groups)}
        handle = InlineHandle.from_wire(actor.actor_id, actor.class_name, wire, extra, life)
        assert isinstance(handle, InlineHandle)
        return handle

    def actor_is_gone(self, actor: InlineActor) -> None:
        """It died: its name is free again, and what it had."""
        self.actors.pop(actor.actor_id, None)
        self.gone.append(actor_row(self, actor))
        self._dead[actor.actor_id] = actor.death()
        self._watching.ended(actor)
        for key in [key for key, named in self.names.items() if named is actor]:
            del self.names[key]
        self._release(actor.actor_id)

    def call(
        self,
        handle: ActorHandle[Any],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: MethodOptions,
    ) -> Any:
        self._refuse_closed()
        actor = self.actors.get(ActorId(handle._actor_id))
        retries = options.max_task_retries
        if retries is None:
            retries = actor.options.max_task_retries if actor is not None else 0
        call = Call(self, method, method, options, retries)
        if actor is not None and 0 <= actor.options.max_pending_calls <= actor.pending_count():
            raise exceptions.PendingCallsLimitExceeded(
                f"{actor.pending_count()} calls to {actor.class_name} are pending, "
                f"max_pending_calls={actor.options.max_pending_calls}; wait for some of them"
            )
        call.take_arguments(args, kwargs)
        call.make_outcomes(options.num_returns)
        result = self._given_back(call)
        if actor is None:
            unknown = exceptions.ActorDiedError(f"actor {handle._class_name} belonged to another session")
            death = self._dead.get(ActorId(handle._actor_id), unknown)
            call.fail(death)
            self._watching.never_arrived(DeadLetter(handle._actor_id.hex(), handle._class_name, method, str(death)))
            return result
        call.actor, call.strategy, call.runtime_env = actor, actor.options.strategy, actor.options.runtime_env
        call.devices, call.holder = actor.creation.devices, actor.actor_id
        actor.submit(call, options.concurrency_group)
        self._spin()
        return result

    # -- the private loop ----------------------------------------------------------------------------------------------
    def _event_loop(self) -> PrivateLoop:
        with self._happened:  # two threads must not make one each
            if self._loop is None:
                self._loop = PrivateLoop()
            return self._loop

    def start_async(self, call: Call, coroutine: Coroutine[Any, Any, None]) -> None:
        loop = self._event_loop()
        task = call.async_task = loop.create_task(coroutine)
        self._async_calls[task] = call
        task.add_done_callback(lambda done: self._async_calls.pop(done, None))
        if call.expires_at is not None:
            loop.call_later(max(0.0, call.expires_at - time.monotonic()), task.cancel)

    def async_calls_of(self, actor: InlineActor) -> list[Any]:
        current = CURRENT.get()
        return [task for task, call in self._async_calls.items() if call.actor is actor and call is not current]

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run it to its end, whatever else the loop has to do meanwhile."""
        task = self._event_loop().create_task(coroutine)
        self.drive(task.done, None, "a coroutine")
        return task.result()

    def _spin(self) -> None:
        """Let async calls go as far as they can without waiting."""
        for _ in range(100):
            if self._loop is None or not self._loop._ready:
                return
            if not self._loop.turn(0.0):
                self._loop._write_to_self()  # another thread is at it, and comes to this as well
                return

    def something_happened(self) -> None:
        with self._happened:
            self._happened.notify_all()

    def drive(self, until: Callable[[], bool], timeout: float | None, what: str) -> bool:
        """Turn the private loop, or wait for other threads, until ``until()``. False if the time is over.

        Raises DeadlockError where nothing is left that could ever make it true.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not until():
            left = TURN_S_MAX if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            self._expire_waiting()
            pause = min(left, TURN_S_MAX)
            if self._loop is not None and not (self._loop.is_idle() and not self._loop.watches()):
                if not self._loop.turn(pause):
                    with self._happened:  # another thread turns it; it tells when something is done
                        self._happened.wait(min(pause, OTHERS_TURN_S))
            elif deadline is None and _is_alone() and not self._waiting_expires():
                raise exceptions.DeadlockError(
                    f"nothing is left to run that could bring {what}: {self._who_waits()}. Inline, calls run one after "
                    "the other; what waits for a later call, or for itself, waits for ever"
                )
            elif not until():
                with self._happened:
                    self._happened.wait(pause)
        return True

    def _waiting_expires(self) -> bool:
        return any(isinstance(one, Call) and one.expires_at is not None for one in self._waiting)

    def _expire_waiting(self) -> None:
        for one in self._waiting:
            if isinstance(one, Call) and not one.is_over and (late := one.overdue()) is not None:
                one.fail(late)
        self._waiting = [one for one in self._waiting if not (isinstance(one, Call) and one.is_over)]

    def _who_waits(self) -> str:
        running, current = [], CURRENT.get()
        while current is not None:
            running.append(current.name)
            current = current.parent
        waiting = [one.name if isinstance(one, Call) else one.class_name for one in self._waiting]
        return (
            f"running: {' < '.join(running) or 'the driver'}; waiting for resources: {', '.join(waiting) or 'nothing'}"
        )

    # -- objects -------------------------------------------------------------------------------------------------------
    def put(self, value: Any) -> InlineRef:
        outcome = self.new_outcome(object_id(self.ids.task_id(), 0))
        outcome.resolve(value)
        return InlineRef(outcome)

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        outcomes = [ref.outcome for ref in refs if isinstance(ref, InlineRef)]
        missing = [outcome for outcome in outcomes if not outcome.is_done]
        if missing and not self._await(missing, len(missing), timeout):
            waiting = [outcome for outcome in missing if not outcome.is_done]
            shown = "; ".join(self._why(outcome) for outcome in waiting[:3])
            raise exceptions.GetTimeoutError(
                f"{len(waiting)} of the objects were not there within {timeout} s: {shown}"
            )
        return [outcome.read() for outcome in outcomes]

    def _await(self, outcomes: Sequence[Outcome], needed: int, timeout: float | None) -> bool:
        def enough() -> bool:
            return sum(outcome.is_done for outcome in outcomes) >= needed

        self._spin()
        if enough():
            return True
        current = CURRENT.get()
        if current is not None and current.async_task is not None and self._loop_runs_here():
            raise RuntimeError(
                "a blocking get() or wait() inside an async method would stop the actor's event loop; "
                "use 'await ref' or 'await asyncio.wait(refs)' instead"
            )
        late = self._left(current)
        limit = timeout if late is None else (late if timeout is None else min(late, timeout))
        if self.drive(enough, limit, "what get() or wait() waits for"):
            return True
        if late is not None and (timeout is None or late < timeout) and current is not None:
            raise current.overdue() or exceptions.DeadlineExceededError(f"{current.name} was not done in time")
        return False

    @staticmethod
    def _left(call: Call | None) -> float | None:
        return None if call is None or call.expires_at is None else max(0.0, call.expires_at - time.monotonic())

    def _loop_runs_here(self) -> bool:
        import asyncio

        return self._loop is not None and asyncio._get_running_loop() is self._loop

    def wait(
        self, refs: Sequence[ObjectRef[Any]], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        outcomes = [ref.outcome for ref in refs if isinstance(ref, InlineRef)]
        self._await(outcomes, num_returns, timeout)
        ready: list[ObjectRef[Any]] = []
        rest: list[ObjectRef[Any]] = []
        for ref, outcome in zip(refs, outcomes, strict=True):
            (ready if outcome.is_done and len(ready) < num_returns else rest).append(ref)
        return ready, rest

    def when_ready(self, ref: ObjectRef[Any], callback: Callable[[], None]) -> None:
        assert isinstance(ref, InlineRef)
        ref.outcome.when_done(callback)
        self._pump_from_outside(lambda: not isinstance(ref, InlineRef) or ref.outcome.is_done)

    def _pump_from_outside(self, done: Callable[[], bool]) -> None:
        """Somebody awaits on a loop of the user's: that loop turns ours from time to time."""
        import asyncio

        outer = asyncio._get_running_loop()
        if outer is None or outer is self._loop or done():
            return

        def pump() -> None:
            self._spin()
            if self._loop is not None:
                self._loop.turn(0.0)
            if not done() and not self.closed:
                outer.call_later(0.001, pump)

        outer.call_soon(pump)

    def adopt_ref(self, oid: ObjectId, owner: Address) -> InlineRef:
        outcome = self.outcomes.get(oid)
        if outcome is None:
            raise exceptions.ObjectLostError(f"object {oid.hex()} belonged to another session, or was freed")
        return InlineRef(outcome)

    def pin_forever(self, ref: ObjectRef[Any]) -> None:
        assert isinstance(ref, InlineRef)
        self._pinned.append(ref.outcome)

    def next_item(self, generator: ObjectRefGenerator[Any], timeout: float | None) -> InlineRef | None:
        stream, done = generator._state
        while not stream.items and not stream.ended and stream.produce is not None:
            self._produce_more(stream, done)
        if not stream.items and not stream.ended:
            ready = self.drive(lambda: bool(stream.items) or stream.ended, timeout, "the next item")
            if not ready:
                raise exceptions.GetTimeoutError(f"no item within {timeout} s: {self.why_pending(done)}")
        return InlineRef(stream.items.popleft()) if stream.items else None

    def _produce_more(self, stream: Any, done: InlineRef) -> None:
        call = done.outcome.call
        stream.produce()
        if call is not None and call.is_over and call.actor is None:
            self._release(call.holder)

    def when_item(self, generator: ObjectRefGenerator[Any], callback: Callable[[], None]) -> None:
        stream, done = generator._state
        while not stream.items and not stream.ended and stream.produce is not None:
            self._produce_more(stream, done)
        if stream.items or stream.ended:
            callback()
        else:
            stream.waiters.append(callback)
            self._pump_from_outside(lambda: bool(stream.items) or stream.ended)

    def close_generator(self, generator: ObjectRefGenerator[Any]) -> None:
        if generator._state is None or self.closed:
            return
        stream, done = generator._state
        stream.closed = True
        stream.items.clear()
        if stream.produce is not None and not stream.ended:
            self._produce_more(stream, done)

    # -- control -------------------------------------------------------------------------------------------------------
    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        assert isinstance(ref, InlineRef)
        call: Call | None = ref.outcome.call
        if force and call is not None and call.actor is not None:
            raise ValueError("force=True is not for actor calls: use kill(handle) to end the actor")
        if call is None or call.is_over or call.cancelled:
            return
        call.cancelled = True
        if call.async_task is not None:
            call.async_task.cancel()
            self._spin()
        elif call.state == "PENDING":
            call.fail(exceptions.TaskCancelledError(f"{call.name} was cancelled before it started"), "CANCELLED")
            if call.actor is not None:
                for lane in call.actor.lanes.values():
                    if call in lane.queue:
                        lane.queue.remove(call)

    def kill(self, handle: ActorHandle[Any], no_restart: bool) -> None:
        actor = self.actors.get(ActorId(handle._actor_id))
        if actor is None:
            return
        if no_restart:
            actor.die("it was killed with kill(handle)", kind="killed")
        else:
            actor.crash("killed with kill(no_restart=False)", "killed")
        self._spin()

    def find_actor(self, name: str, namespace: str | None) -> ActorHandle[Any]:
        actor = self.names.get((namespace or self.namespace, name))
        if actor is None:
            raise ValueError(
                f"there is no actor named {name!r} in namespace {namespace or self.namespace!r}: it was never "
                "created, or it is dead"
            )
        return self._handle(actor, None)

    def list_named_actors(self, all_namespaces: bool) -> list[tuple[str, str]]:
        return [key for key in sorted(self.names) if all_namespaces or key[0] == self.namespace]

    def why_pending(self, ref: ObjectRef[Any]) -> str:
        assert isinstance(ref, InlineRef)
        return self._why(ref.outcome)

    def _why(self, outcome: Outcome) -> str:
        call: Call | None = outcome.call
        if outcome.is_done:
            return f"{outcome.oid.hex()[:16]} is ready"
        if call is None:
            return f"object {outcome.oid.hex()[:16]} waits for its placement group"
        if call.state == "RUNNING":
            return f"{call.name} runs"
        if not call.is_ready():
            return f"{call.name} waits for an argument"
        if call.actor is not None:
            return f"{call.name} waits for its actor, which is {call.actor.state}: {call.actor.reason or 'busy'}"
        return f"{call.name} is queued until its resources are free"

    # -- inside an actor -----------------------------------------------------------------------------------------------
    def exit_actor(self) -> None:
        call = CURRENT.get()
        if call is None or call.actor is None:
            raise ValueError("exit_actor() is for the methods of an actor; this is not one")
        raise ExitActor

    def fail_actor(self, error: Exception) -> NoReturn:
        call = CURRENT.get()
        if call is None or call.actor is None:
            raise ValueError("only an actor can fail; this is not one")
        raise FailActor(error)

    # -- supervision ---------------------------------------------------------------------------------------------------
    def monitor(self, handle: ActorHandle[Any]) -> ObjectRef[Down]:
        return self._watching.monitor(ActorId(handle._actor_id))

    def link_actors(self, first: ActorHandle[Any], second: ActorHandle[Any]) -> None:
        self._watching.link(ActorId(first._actor_id), ActorId(second._actor_id))

    def listen_to_dead_letters(self, listener: Callable[[DeadLetter], None]) -> Callable[[], None]:
        return self._watching.listen(listener)

    def checkpoint_now(self) -> None:
        call = CURRENT.get()
        if call is None or call.actor is None:
            raise ValueError("checkpoint_now() is for the methods of an actor; this is not one")
        if call.actor.options.checkpoint is None:
            raise ValueError("checkpoint_now() is for actors with the option checkpoint=...; this one has none")
        call.actor.saved = self.dump_state(call.actor.instance)

    @staticmethod
    def dump_state(instance: Any) -> tuple[bytes, tuple[bytes, ...]]:
        data, buffers, _ = actor_state.dump(instance)
        return data, tuple(bytes(buffer) for buffer in buffers)

    @staticmethod
    def restore_state(cls: Any, saved: tuple[bytes, tuple[bytes, ...]]) -> Any:
        return actor_state.restore(cls, *saved)

    def record_once(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(*args, **kwargs)  # nothing is ever replayed

    def durable(self) -> DurableActors:
        raise refuse("logs and stored checkpoints of durable actors", "run with the engine 'local'")

    # -- life ----------------------------------------------------------------------------------------------------------
    def _refuse_closed(self) -> None:
        if self.closed:
            raise exceptions.NodeDiedError("the session of this process has ended; call actorlib.init() again")

    def shutdown(self) -> None:
        if CURRENT.get() is not None:
            raise exceptions.ActorlibError("a task can't shut down the session; only its driver can")
        for actor in list(self.actors.values()):
            actor.die("its session has ended", kind="ownerless")
        self.closed = True
        if self._loop is not None:
            self._end_loop(self._loop)
        self._pinned.clear()

    def _end_loop(self, loop: PrivateLoop) -> None:
        """Tasks that were cancelled get to hear it, then the loop goes, and what ran beside it."""
        for task in self._async_calls:
            task.cancel()
        deadline = time.monotonic() + 1.0
        while self._async_calls and time.monotonic() < deadline:
            loop.turn(0.01)
        ending = loop.create_task(loop.shutdown_default_executor())
        while not ending.done():
            loop.turn(0.01)
        loop.close()


def _is_alone() -> bool:
    """Whether no other thread of this process runs code that could call us."""
    return all(one is threading.current_thread() or _only_frees(one) for one in threading.enumerate())


def _only_frees(thread: threading.Thread) -> bool:
    """pyzmq's, which frees what was sent without a copy: there once another engine has sent something large."""
    return type(thread).__name__ == "GarbageCollectorThread" and type(thread).__module__ == "zmq.utils.garbage"
