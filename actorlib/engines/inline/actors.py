"""Actors of the inline engine: plain objects behind handles, with the queue, the order and the ends of real ones.

A call runs at once if its actor is free. What is called while the actor is busy (it calls itself, or one that it
calls does) waits its turn and runs when the actor is free again. Actors with ``async def`` methods run their calls as
tasks of the engine's private event loop. An actor that "crashes" (``kill(no_restart=False)``, ``sys.exit``) comes back
by its options; a durable one with the state after its last call.
"""

from __future__ import annotations

import inspect
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actorlib import exceptions
from actorlib.actor import MethodInfo
from actorlib.engine import ActorOptions
from actorlib.engines.inline.calls import CURRENT, STOPS, Call, ExitActor, FailActor, Superseded, surroundings
from actorlib.transport.ids import ActorId

if TYPE_CHECKING:
    from actorlib.engines.inline.engine import InlineEngine


class Lane:
    """A concurrency group: its calls that wait, and how many run."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.queue: deque[Call] = deque()
        self.running = 0


class InlineActor:
    """One actor. See the module's docstring."""

    def __init__(
        self,
        engine: InlineEngine,
        actor_id: ActorId,
        cls: Any,
        methods: dict[str, MethodInfo],
        creation: Call,
        options: ActorOptions,
    ) -> None:
        self.engine = engine
        self.actor_id = actor_id
        self.cls = cls
        self.class_name = cls.__name__
        self.methods = methods
        self.creation = creation
        self.options = options
        self.namespace = options.namespace or engine.namespace
        self.instance: Any = None
        self.state = "PENDING"
        self.reason = "it waits to be placed"
        self.error: BaseException | None = None  # what killed it, if that is to be raised as it is
        self.kind = ""  # how it ended
        self.epoch = 0
        self.restarts = 0
        self.is_draining = False
        self.saved: tuple[bytes, tuple[bytes, ...]] | None = None
        # Inline, threads of an actor are calls within calls: the limits hold, but nothing runs at the same time.
        self.lanes = {"": Lane(options.max_concurrency)}
        for name, limit in options.concurrency_groups.items():
            self.lanes[name] = Lane(limit)

    # -- life ----------------------------------------------------------------------------------------------------------
    def construct(self) -> None:
        """Make the instance: by its constructor, or in the state that it had. The resources are there."""
        call = self.creation
        failed = call.failed_dependency()
        if failed is not None:
            try:
                failed.read()
            except BaseException as error:
                self.die(
                    "an argument of its constructor is an error",
                    exceptions.actor_creation_error(error, self.class_name),
                )
            return
        token = CURRENT.set(call)
        try:
            with self.engine.callers_wait(call.parent), surroundings(self.engine, call):
                if self.saved is not None:
                    self.instance = self.engine.restore_state(self.cls, self.saved)
                else:
                    args, kwargs = call.arguments()
                    self.instance = self.cls(*args, **kwargs)
        except STOPS:
            self.die("its constructor was interrupted")
            raise
        except FailActor as end:
            self.die(str(end.error), end.error)
            return
        except ExitActor:
            self.die("exit_actor() was called in the constructor", kind="exited")
            return
        except BaseException as error:
            seen = self.engine.runner.as_seen_by_the_caller(call, error)
            self.die(f"its constructor raised {error!r}", exceptions.actor_creation_error(seen, self.class_name))
            return
        finally:
            CURRENT.reset(token)
        self.state, self.reason = "ALIVE", ""
        self.drain()

    def crash(self, reason: str, kind: str = "crashed") -> None:
        """It is lost, and comes back if its options say so."""
        if self.state == "DEAD":
            return
        if self.options.max_restarts >= 0 and self.restarts >= self.options.max_restarts:
            self.die(reason, kind=kind)
            return
        if self.options.checkpoint is not None and self.instance is not None:
            self.saved = self.engine.dump_state(self.instance)
        self.instance = None
        self.restarts += 1
        self.epoch += 1
        self.state, self.reason = "RESTARTING", reason
        self._cancel_running()
        self.construct()

    def die(self, reason: str, error: BaseException | None = None, kind: str = "failed") -> None:
        """The end: what waits fails, the name is free, the resources come back, those who watch are told."""
        if self.state == "DEAD":
            return
        self.state, self.reason, self.error, self.kind = "DEAD", reason, error, kind
        self.epoch += 1
        self.instance = None
        self._cancel_running()
        for lane in self.lanes.values():
            waiting, lane.queue = lane.queue, deque()
            for call in waiting:
                call.fail(self.death())
        self.engine.actor_is_gone(self)

    def leave(self, reason: str, kind: str) -> None:
        """An end in good order: its hook runs."""
        for name in ("__ray_shutdown__", "__shutdown__"):
            hook = getattr(self.instance, name, None)
            if hook is not None:
                try:
                    hook()
                except Exception as error:
                    print(f"{name} of {self.class_name} raised: {error!r}", file=sys.stderr, flush=True)
        self.die(reason, kind=kind)

    def handles_are_gone(self) -> None:
        """No handle refers to it any more: it ends when its calls have."""
        self.is_draining = True
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self.is_draining and self.state == "ALIVE" and not self.pending_count():
            self.leave("no handle to the actor is left", "released")
        elif self.is_draining and self.state == "PENDING" and not self.pending_count():
            self.die("no handle to the actor is left", kind="released")

    def death(self) -> BaseException:
        if self.error is not None:
            return self.error
        return exceptions.ActorDiedError(f"actor {self.class_name} ({self.actor_id.hex()}) is dead: {self.reason}")

    def _cancel_running(self) -> None:
        for task in self.engine.async_calls_of(self):
            task.cancel()

    # -- calls ---------------------------------------------------------------------------------------------------------
    def pending_count(self) -> int:
        return sum(len(lane.queue) + lane.running for lane in self.lanes.values())

    def submit(self, call: Call, group: str) -> None:
        if self.state == "DEAD":
            call.fail(self.death())
            return
        self.lanes[group if group in self.lanes else ""].queue.append(call)
        for _, outcome in call.dependencies:
            if not outcome.is_done:
                outcome.when_done(self.drain)
        self.drain()

    def drain(self) -> None:
        """Start what may start now. Calls of one lane start in order."""
        if self.state != "ALIVE":
            return
        for lane in list(self.lanes.values()):
            while self.state == "ALIVE" and lane.running < lane.limit and (call := self._next(lane)) is not None:
                self._start(lane, call)
        self._end_if_drained()

    def _next(self, lane: Lane) -> Call | None:
        for position, call in enumerate(lane.queue):
            if call.is_ready():
                del lane.queue[position]
                return call
            if not self.options.out_of_order:
                return None  # an earlier call waits for an argument
        return None

    def _start(self, lane: Lane, call: Call) -> None:
        call.epoch = self.epoch
        lane.running += 1
        if self.options.is_async:
            self.engine.start_async(call, self._run_async(lane, call))
            return
        try:
            self.engine.runner.run(call, self._method(call))
        except Superseded:
            pass
        except ExitActor:
            self.leave("exit_actor() was called", "exited")
        except FailActor as end:
            self.die(str(end.error), end.error)
        except SystemExit as end:
            self._lost(call, f"sys.exit({end.code!r}) was called in {call.name}")
        finally:
            lane.running -= 1
        if not call.is_over and call not in self.lanes[""].queue and call.stream is None:
            call.fail(self.death())

    def _lost(self, call: Call, reason: str) -> None:
        """A call took its actor down: it goes again, or is told."""
        may_return = self.options.max_restarts < 0 or self.restarts < self.options.max_restarts
        if may_return and call.retries != 0:
            call.retries -= 1
            call.attempt += 1
            self.lanes[""].queue.appendleft(call)
        elif may_return:
            call.fail(self.unavailable(call, reason))
        self.crash(reason)

    def unavailable(self, call: Call, reason: str) -> BaseException:
        return exceptions.ActorUnavailableError(
            f"actor {self.class_name} lost {call.name} when it crashed and is being restarted; the call may have taken "
            f"effect (max_task_retries=0, so it is not sent again): {reason}"
        )

    def _method(self, call: Call) -> Callable[..., Any]:
        """What the call means. Looked up when it runs, since the instance may be another one by then."""

        def invoke(*args: Any, **kwargs: Any) -> Any:
            result = self._bound(str(call.function))(*args, **kwargs)
            if call.epoch != self.epoch and not call.is_over:  # it, or one that it called, killed this actor
                call.fail(self.death() if self.state == "DEAD" else self.unavailable(call, self.reason))
                raise Superseded
            return result

        return invoke

    def _bound(self, name: str) -> Callable[..., Any]:
        if name in ("__ray_call__", "__actorlib_call__"):
            return lambda function, *args, **kwargs: function(self.instance, *args, **kwargs)
        if name == "__ray_ready__":
            return lambda: True
        if name == "__ray_terminate__":
            return self.engine.exit_actor
        method: Callable[..., Any] | None = getattr(self.instance, name, None)
        if method is None:
            raise AttributeError(f"{self.class_name} has no method {name!r}")
        return method

    # -- async calls ---------------------------------------------------------------------------------------------------
    async def _run_async(self, lane: Lane, call: Call) -> None:
        CURRENT.set(call)
        error: BaseException | None = None
        try:
            failed = call.failed_dependency()
            if failed is not None:
                call.fail_like(failed)
            else:
                await self._user_code(call)
        except ExitActor:
            self.leave("exit_actor() was called", "exited")
        except FailActor as end:
            self.die(str(end.error), end.error)
        except SystemExit as end:
            self._lost(call, f"sys.exit({end.code!r}) was called in {call.name}")
        except BaseException as raised:
            error = raised
        lane.running -= 1
        if error is not None:
            self._failed_async(lane, call, error)
        elif not call.is_over and call not in lane.queue:
            call.fail(self.death())
        self.drain()

    async def _user_code(self, call: Call) -> None:
        call.state = "RUNNING"
        late = call.overdue()
        if late is not None:
            raise late
        args, kwargs = call.arguments()
        with surroundings(self.engine, call):  # of what runs before the first await; loops share one environment
            result = self._bound(str(call.function))(*args, **kwargs)
        if inspect.isawaitable(result):
            result = await result
        if call.stream is not None and hasattr(result, "__aiter__"):
            await self.engine.runner.produce_async(call, call.stream, result)
        elif call.stream is not None:
            self.engine.runner.produce(call, call.stream, result)
        else:
            call.succeed(result)

    def _failed_async(self, lane: Lane, call: Call, error: BaseException) -> None:
        late = call.overdue()
        if call.epoch != self.epoch:
            lost = self.death() if self.state == "DEAD" else self.unavailable(call, self.reason)
            if self.state != "DEAD" and call.retries != 0:
                call.retries -= 1
                lane.queue.append(call)
            else:
                call.fail(lost)
        elif late is not None:
            call.fail(late)
        elif call.cancelled:
            call.fail(exceptions.TaskCancelledError(f"{call.name} was cancelled while it ran"), "CANCELLED")
        elif self.engine.runner.again(call, error):
            call.retries -= 1
            lane.queue.append(call)
        else:
            call.fail(self.engine.runner.as_seen_by_the_caller(call, error))
