"""One call of the inline engine, a task's or a method's: what it was given, what it makes, and running it.

A call is run by ``Runner.run`` on the stack of whoever lets it start: the caller in ``.remote()``, or, for what had to
wait for an argument, for resources or for its actor's turn, whoever ends that wait.
"""

from __future__ import annotations

import bdb
import contextlib
import contextvars
import inspect
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from actorlib import exceptions, serialization
from actorlib.engine import DYNAMIC, STREAMING, MethodOptions, TaskOptions, several_results
from actorlib.engines.inline.outcomes import InlineRef, Outcome
from actorlib.transport.ids import TaskId, object_id

if TYPE_CHECKING:
    from actorlib.engines.inline.actors import InlineActor
    from actorlib.engines.inline.engine import InlineEngine

# What stops the program or the debugger goes up to whoever called ``.remote()``.
STOPS = (KeyboardInterrupt, GeneratorExit, bdb.BdbQuit)


class ExitActor(BaseException):
    """Raised by exit_actor(): ends the actor after this call."""


class FailActor(BaseException):
    """Raised by fail_actor(): ends the actor for good, with an error for those who call it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Superseded(BaseException):
    """A method killed the actor that it belongs to; its call is settled."""


class Stream:
    """The items of a streaming call, made and not yet taken. ``produce`` makes more, where that was put off."""

    def __init__(self) -> None:
        self.items: deque[Outcome] = deque()
        self.made = 0
        self.ended = False
        self.closed = False
        self.produce: Callable[[], None] | None = None
        self.waiters: list[Callable[[], None]] = []

    def add(self, outcome: Outcome) -> None:
        self.made += 1
        if not self.closed:
            self.items.append(outcome)
        self._wake()

    def end(self) -> None:
        self.ended = True
        self.produce = None
        self._wake()

    def _wake(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()


class Call:
    """A task or a call of a method."""

    def __init__(
        self,
        engine: InlineEngine,
        name: str,
        function: Callable[..., Any] | str,
        options: TaskOptions | MethodOptions,
        retries: int,
    ) -> None:
        self.engine = engine
        self.name = name
        self.function = function
        self.options = options
        self.retries = retries
        self.attempt = 0
        self.task_id: TaskId = engine.ids.task_id()
        self.packed: tuple[bytes, tuple[bytes, ...], tuple[Outcome, ...]] | None = None
        self.dependencies: list[tuple[int | str, Outcome]] = []
        self.outcomes: list[Outcome] = []
        self.stream: Stream | None = None
        self.actor: InlineActor | None = None
        self.epoch = 0  # the life of the actor that it runs in
        self.parent = CURRENT.get()
        self.timeout_s = options.timeout_s
        self.expires_at = _expiry(options.timeout_s, self.parent)
        self.state = "PENDING"
        self.holder: bytes = self.task_id
        self.devices: dict[str, tuple[int, ...]] = {}
        self.resources: dict[str, int] = {}
        self.strategy: tuple[Any, ...] = ("default",)
        self.runtime_env = ""
        self.async_task: Any = None
        self.cancelled = False
        self.started_s = 0.0

    # -- arguments -----------------------------------------------------------------------------------------------------
    def take_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Copy them; references at top level become dependencies."""
        given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        self.dependencies = [(place, value.outcome) for place, value in given if isinstance(value, InlineRef)]
        if args or kwargs:
            plain = [None if isinstance(value, InlineRef) else value for value in args]
            named = {name: None if isinstance(value, InlineRef) else value for name, value in kwargs.items()}
            self.packed = self.engine.pack((plain, named))

    def is_ready(self) -> bool:
        return all(outcome.is_done for _, outcome in self.dependencies)

    def failed_dependency(self) -> Outcome | None:
        return next((outcome for _, outcome in self.dependencies if outcome.is_error), None)

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        if self.packed is None:
            return [], {}
        args, kwargs = serialization.deserialize(self.packed[0], self.packed[1])
        for position, outcome in self.dependencies:
            if isinstance(position, int):
                args[position] = outcome.read()
            else:
                kwargs[position] = outcome.read()
        return args, kwargs

    # -- results -------------------------------------------------------------------------------------------------------
    def make_outcomes(self, count: int) -> None:
        if count == STREAMING:
            self.stream = Stream()
        for index in range(1 if count in (STREAMING, DYNAMIC) else count):
            self.outcomes.append(self.engine.new_outcome(object_id(self.task_id, index), self))

    @property
    def is_over(self) -> bool:
        return self.state in ("FINISHED", "FAILED", "CANCELLED")

    def succeed(self, result: Any) -> None:
        count = self.options.num_returns
        if count == 1:
            self.outcomes[0].resolve(result)
        elif count == DYNAMIC:
            self.outcomes[0].resolve([self.engine.put(item) for item in result])
        elif count > 1:
            for outcome, item in zip(self.outcomes, several_results(result, count), strict=True):
                outcome.resolve(item)
        self._over("FINISHED")

    def fail(self, error: BaseException, state: str = "FAILED") -> None:
        """Everything that it would have made becomes the error; in a stream, the next item does."""
        if self.is_over:
            return
        if self.stream is not None:
            item = self.engine.new_outcome(object_id(self.task_id, self.stream.made + 1))
            item.fail(error)
            self.stream.add(item)
            self.stream.end()
        for outcome in self.outcomes:
            outcome.fail(error)
        self._over(state, f"{type(error).__name__}: {error}")

    def fail_like(self, outcome: Outcome) -> None:
        """An argument is an error: so are the results."""
        if self.stream is not None:
            self.stream.add(outcome)
            self.stream.end()
        for mine in self.outcomes:
            mine.take_over(outcome)
        self._over("FAILED", "an argument is an error")

    def end_stream(self, stream: Stream) -> None:
        stream.end()
        self.outcomes[0].resolve(stream.made)
        self._over("FINISHED")

    def _over(self, state: str, error: str = "") -> None:
        self.state = state
        self.packed, self.dependencies = None, []
        self.engine.record(self, error)

    def overdue(self) -> exceptions.DeadlineExceededError | None:
        if self.expires_at is None or time.monotonic() <= self.expires_at:
            return None
        limit = self.timeout_s if self.timeout_s is not None else "that of its caller"
        return exceptions.DeadlineExceededError(
            f"{self.name} was not done within timeout_s={limit}; inline a call can't be interrupted, so this is told "
            "when it has ended, or before it starts"
        )


CURRENT: contextvars.ContextVar[Call | None] = contextvars.ContextVar("actorlib_inline_call", default=None)


def _expiry(timeout_s: float | None, parent: Call | None) -> float | None:
    """When a call must be done: by its own limit or its caller's, whichever comes first."""
    own = None if timeout_s is None else time.monotonic() + timeout_s
    inherited = parent.expires_at if parent is not None else None
    limits = [limit for limit in (own, inherited) if limit is not None]
    return min(limits) if limits else None


class Runner:
    """Runs the user's code of a call."""

    def __init__(self, engine: InlineEngine) -> None:
        self._engine = engine

    def run(self, call: Call, function: Callable[..., Any]) -> None:
        """Run it to its end, again as often as its options allow. Never raises but what stops the program."""
        failed = call.failed_dependency()
        if failed is not None:
            call.fail_like(failed)
            return
        call.state, call.started_s = "RUNNING", time.perf_counter()
        while True:
            error = call.overdue() or self._attempt(call, function)
            if error is None:
                return
            if not self.again(call, error):
                call.fail(self.as_seen_by_the_caller(call, error))
                return
            call.retries -= 1
            call.attempt += 1

    def _attempt(self, call: Call, function: Callable[..., Any]) -> BaseException | None:
        """Run it once. Gives what was raised, ExitActor and SystemExit apart, which are for the actor."""
        token = CURRENT.set(call)
        try:
            with self._engine.callers_wait(call.parent), surroundings(self._engine, call):
                args, kwargs = call.arguments()
                result = function(*args, **kwargs)
                if inspect.iscoroutine(result):
                    result = self._engine.run_coroutine(result)
                if call.stream is not None:
                    self.produce(call, call.stream, result)
                else:
                    self._settle(call, result)
        except STOPS:
            call.fail(exceptions.TaskCancelledError(f"{call.name} was interrupted"), "CANCELLED")
            raise
        except (ExitActor, FailActor, Superseded):
            raise
        except SystemExit as end:
            if call.actor is not None:
                raise
            return _crash(call, end)
        except BaseException as error:
            return error
        finally:
            CURRENT.reset(token)
        return None

    def _settle(self, call: Call, result: Any) -> None:
        late = call.overdue()
        if late is not None:
            call.fail(late)
        else:
            call.succeed(result)

    @staticmethod
    def again(call: Call, error: BaseException) -> bool:
        if call.retries == 0 or call.cancelled or call.stream is not None:
            return False
        if isinstance(error, exceptions.WorkerCrashedError):
            return True
        classes = call.options.retry_exceptions
        if isinstance(classes, bytes):
            classes = serialization.deserialize(classes)
        if isinstance(error, exceptions.DeadlineExceededError) or classes is False:
            return False
        cause = getattr(error, "cause", None)
        return classes is True or isinstance(error, classes) or isinstance(cause, classes)

    def as_seen_by_the_caller(self, call: Call, error: BaseException) -> BaseException:
        """What ``get`` raises for what user code raised."""
        if isinstance(error, exceptions.WorkerCrashedError | exceptions.DeadlineExceededError) and not hasattr(
            error, "function_name"
        ):
            return error
        text = exceptions.traceback_text(error)
        error.__traceback__ = None
        name = call.name if call.actor is None else f"{call.actor.class_name}.{call.name}"
        return exceptions.task_error(error, name, text, os.getpid(), self._engine.node_id)

    # -- streams -------------------------------------------------------------------------------------------------------
    def produce(self, call: Call, stream: Stream, result: Any) -> None:
        """All items now; with backpressure only as many as may wait to be taken, the others when some are."""
        source = _items(self._engine, result)
        limit = call.options.backpressure

        def make_some() -> None:
            token = CURRENT.set(call)
            try:
                while not stream.closed and (limit <= 0 or len(stream.items) < limit):
                    try:
                        item = next(source)
                    except StopIteration:
                        self._in_time(call)
                        call.end_stream(stream)
                        return
                    self._in_time(call)
                    self._add(call, stream, item)
                if stream.closed:
                    source.close()
                    call.end_stream(stream)
            except Exception as error:
                call.fail(self.as_seen_by_the_caller(call, error))
            finally:
                CURRENT.reset(token)

        stream.produce = make_some
        make_some()

    def _add(self, call: Call, stream: Stream, item: Any) -> None:
        outcome = self._engine.new_outcome(object_id(call.task_id, stream.made + 1))
        outcome.resolve(item)
        stream.add(outcome)

    @staticmethod
    def _in_time(call: Call) -> None:
        late = call.overdue()
        if late is not None:
            raise late

    async def produce_async(self, call: Call, stream: Stream, result: Any) -> None:
        """The items of an async generator method, as they come."""
        async for item in result:
            self._add(call, stream, item)
            if stream.closed:
                break
        call.end_stream(stream)


def _items(engine: InlineEngine, result: Any) -> Any:
    if hasattr(result, "__aiter__"):
        return _iterate_async(engine, result)
    return (item for item in result)


def _iterate_async(engine: InlineEngine, source: AsyncIterator[Any]) -> Iterator[Any]:
    async def following() -> Any:
        return await anext(source)

    while True:
        try:
            yield engine.run_coroutine(following())
        except StopAsyncIteration:
            return


def _crash(call: Call, end: SystemExit) -> exceptions.WorkerCrashedError:
    return exceptions.WorkerCrashedError(
        f"{call.name} called sys.exit({end.code!r}), which would have ended its worker process"
    )


# -- surroundings ------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def surroundings(engine: InlineEngine, call: Call) -> Iterator[None]:
    """The environment variables, directory and module path of the call's runtime environment, while it runs."""
    environments = [serialization.parse_runtime_env(text) for text in (engine.runtime_env, call.runtime_env) if text]
    variables: dict[str, str] = {}
    for kind, ids in call.devices.items():
        variables[DEVICE_VARIABLES.get(kind, f"{kind}_VISIBLE_DEVICES")] = ",".join(map(str, ids))
    if not environments and not variables:
        yield
        return
    before = {**os.environ}, list(sys.path), os.getcwd()
    for environment in environments:
        variables.update(environment.get("env_vars", {}))
        sys.path[:0] = environment.get("py_modules", [])
        if environment.get("working_dir"):
            os.chdir(environment["working_dir"])
            sys.path.insert(0, environment["working_dir"])
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            if name in before[0]:
                os.environ[name] = before[0][name]
            else:
                os.environ.pop(name, None)
        sys.path[:] = before[1]
        os.chdir(before[2])


DEVICE_VARIABLES = {"GPU": "CUDA_VISIBLE_DEVICES", "TPU": "TPU_VISIBLE_CHIPS"}
