"""Running one call in a worker: load what it needs, run the user's code, turn what came out into values."""

from __future__ import annotations

import inspect
import itertools
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, NoReturn

from actorlib import exceptions, serialization
from actorlib.engine import DYNAMIC, STREAMING, several_results
from actorlib.runtime.drivers.calls import CURRENT, FUNCTION_NAMESPACE, CallContext
from actorlib.runtime.drivers.cluster_view import ClusterView
from actorlib.runtime.mailbox import Item
from actorlib.runtime.portions import portions, weight, weight_of_result
from actorlib.store.owner import is_error
from actorlib.transport import limits, messages
from actorlib.transport.ids import ARGUMENTS, ObjectId, TaskId, object_id
from actorlib.transport.link import Address
from actorlib.transport.messages import VALUE_REFS, CallResult, ResultStatus, Value

FUNCTION_FETCH_TIMEOUT_S = 30.0
RECENT_MAX = 2048
RECENT_BYTES_MAX = 32 << 20


class ExitActor(BaseException):
    """Raised by exit_actor(): ends the actor after this call."""


class FailedArgument(Exception):
    """An argument's value is an error: the call fails with it, without running."""

    def __init__(self, value: Value) -> None:
        super().__init__(value[2])
        self.value = value


class Finished:
    """A call that has run, on its way back to the caller."""

    __slots__ = ("held", "item", "references", "result")

    def __init__(self, item: Item, result: CallResult, held: list[ObjectId], references: list[Any]) -> None:
        self.item = item
        self.result = result
        self.held = held
        self.references = references  # contained in the values: the caller is registered for them first


class Execution(ClusterView):
    """The part of a worker that runs calls. ``worker.py`` decides when and on which thread."""

    instance: Any = None
    class_name = ""
    is_copy = False  # user code has forked, and this is the child

    def init_execution(self) -> None:
        self._functions: dict[bytes, Callable[..., Any]] = {}
        self._recent: dict[ObjectId, Value] = {}
        self._recent_bytes = 0
        self._finished: deque[Finished] = deque()
        self._items: deque[tuple[Item, messages.GeneratorItem, list[Any]]] = deque()
        self._sending = False  # _send_finished is posted and has not begun
        self._consumed: dict[TaskId, int] = {}
        self._calls_of: dict[bytes, int] = {}

    # -- before --------------------------------------------------------------------------------------------------------
    def adopt_ref(self, oid: ObjectId, owner: Address) -> Any:
        context = CURRENT.get()
        if context is not None:
            context.held.append(oid)
        return super().adopt_ref(oid, owner)

    def function_of(self, target: Any) -> Callable[..., Any]:
        """The function or bound method that a call means."""
        if isinstance(target, str):
            return self.method_of(target)
        function = self._functions.get(target)
        if function is None:
            function = self._functions[target] = self._load_function(target)
        return function

    def method_of(self, name: str) -> Callable[..., Any]:
        if name == "__ray_call__" or name == "__actorlib_call__":
            return lambda function, *args, **kwargs: function(self.instance, *args, **kwargs)
        if name == "__ray_ready__":
            return lambda: True
        if name == "__ray_terminate__":
            return self.exit_actor
        method = getattr(self.instance, name, None)
        if method is None:
            raise AttributeError(f"{self.class_name} has no method {name!r}")
        return method  # type: ignore[no-any-return]

    def _load_function(self, function_id: bytes) -> Callable[..., Any]:
        code = self._code.get(function_id)
        deadline = time.monotonic() + FUNCTION_FETCH_TIMEOUT_S
        pause_s = 0.001
        while code is None:
            answer = self.ask(self.gcs, lambda rid: messages.KvGet(rid, FUNCTION_NAMESPACE, function_id))
            if answer.found:
                code = self._code[function_id] = bytes(answer.value)
            elif time.monotonic() > deadline:
                raise exceptions.make(
                    "RuntimeEnvSetupError", f"the code of function {function_id.hex()} is not in the GCS"
                )
            else:
                time.sleep(pause_s)
                pause_s = min(0.1, pause_s * 2)
        try:
            return serialization.deserialize(code)  # type: ignore[no-any-return]
        except ImportError as error:
            raise _lacks("the function", error) from error

    def load_arguments(self, call: messages.Call) -> tuple[Any, dict[str, Any]]:
        try:
            return self._load_arguments(call)
        except ImportError as error:
            raise _lacks("the arguments of this call", error) from error

    def _load_arguments(self, call: messages.Call) -> tuple[Any, dict[str, Any]]:
        if type(call.args) is bytes and not call.args:
            return (), {}
        loaded = self.load_value(object_id(call.task_id, ARGUMENTS), self.address, call.args)
        if not call.dependencies:
            return loaded  # type: ignore[no-any-return]
        args, kwargs, positions = loaded
        for (oid, owner, value), position in zip(call.dependencies, positions, strict=True):
            argument = self._load_dependency(oid, owner, value)
            if isinstance(position, int):
                args[position] = argument
            else:
                kwargs[position] = argument
        return args, kwargs

    def _load_dependency(self, oid: ObjectId, owner: Address, value: Value) -> Any:
        if value is None:
            value = self._recent.get(oid)
        if value is None:
            ref = self.adopt_ref(oid, Address(*owner))
            self._await([ref], 1, None)
            value = self.table.entries[oid].value
        if type(value) is tuple and value[0] == VALUE_REFS:
            value = value[1]
        if is_error(value):
            raise FailedArgument(value)
        return self.load_value(oid, Address(*owner), value)

    # -- after ---------------------------------------------------------------------------------------------------------
    def value_of(
        self, oid: ObjectId, result: Any, references: list[Any], inline_bytes_max: int = limits.inline_bytes_max
    ) -> Value:
        """A result as a value; the references in it are added to ``references``."""
        if result is None:
            return NONE_VALUE
        serialized = serialization.serialize(result)
        value = self.make_value(oid, serialized, inline_bytes_max)
        if serialized.refs:
            contained = tuple(serialized.refs)
            references.extend(contained)
            # The references must live until the caller is registered: hold them from here on.
            self.loop.post(self._hold_references, contained)
            return (VALUE_REFS, value, contained)
        return value

    def _hold_references(self, contained: Any) -> None:
        for oid, owner in contained:
            self.table.adopt(oid, owner)

    def values_of(self, call: messages.Call, result: Any, references: list[Any]) -> tuple[Value, ...]:
        count = call.num_returns
        if count == 1:
            return (self.value_of(ObjectId(call.task_id + b"\0\0\0\0"), result, references),)
        if count == 0:
            return ()
        if count == DYNAMIC:  # the caller makes the list of them, so that it owns them
            results: Iterable[Any] = iterate_async(result) if hasattr(result, "__aiter__") else result
        else:
            results = several_results(result, count)
        values, room = [], limits.message_bytes_max
        for index, item in enumerate(results):
            value = self.value_of(result_id(call, index), item, references, limits.inline_bytes_max if room > 0 else 0)
            room -= weight(value)
            values.append(value)
        return tuple(values)

    def failure(self, item: Item, error: BaseException, name: str) -> tuple[int, Value]:
        """Status and error value for what a call raised."""
        if isinstance(error, FailedArgument):
            return ResultStatus.EXCEPTION, error.value
        if item.cancelled and isinstance(error, _interruptions()):
            return ResultStatus.CANCELLED, self.error_value("TaskCancelledError", f"{name} was cancelled while it ran")
        text = exceptions.traceback_text(error)
        error.__traceback__ = None
        value = self.exception_value(exceptions.task_error(error, name, text, self.os_pid(), self.node.node_id))
        return ResultStatus.EXCEPTION, value

    def finish(
        self, item: Item, context: CallContext, status: int, values: Any, references: Any, took_s: float
    ) -> None:
        """Queue a result for the caller. Any thread."""
        if self.is_copy:
            self.end_process(0)
        call = item.call
        if type(status) is not int:
            status = int(status)
        result = CallResult(call.task_id, status, values, (), int(took_s * 1e6))
        if call.num_returns != DYNAMIC:
            self._remember(result)
        self._finished.append(Finished(item, result, context.held, references))
        # Append first, look second; the sender clears the flag first and takes second: so nothing is left behind.
        if not self._sending:
            self._sending = True
            self.loop.post(self._send_finished, None)

    def _send_finished(self, _: None) -> None:
        self._sending = False
        self._flush_items(None)
        batches: dict[Any, list[CallResult]] = {}
        finished = self._finished
        for _done in range(len(finished)):
            done = finished.popleft()
            if done.held or done.references:
                self._send_with_references(done)
            else:
                batches.setdefault(done.item.link, []).append(done.result)
        for link, results in batches.items():
            for portion in portions(results, weight_of_result):
                link.send(messages.CallResults(portion))

    def _remember(self, result: CallResult) -> None:
        """Keep small results for calls that follow at once (see Submitter: a chain on one lease)."""
        for index, value in enumerate(result.values):
            self._recent[object_id(result.task_id, index)] = value
            self._recent_bytes += len(value) if isinstance(value, bytes) else 256
        while len(self._recent) > RECENT_MAX or self._recent_bytes > RECENT_BYTES_MAX:
            # Many at a time: to look for the first item of a dict takes the longer the more were taken from its front.
            for oldest in list(itertools.islice(self._recent, 1 + len(self._recent) // 4)):
                value = self._recent.pop(oldest)
                self._recent_bytes -= len(value) if isinstance(value, bytes) else 256

    def _send_with_references(self, done: Finished) -> None:
        """Register the caller for references in the values, ourselves for those that we keep, then answer."""
        link, caller = done.item.link, done.item.link.peer

        def registered_caller() -> None:
            for oid, _ in done.references:
                self.table.release(oid)
            told, others = self.table.retained(dict.fromkeys(done.held), caller.process_id)
            missing = len(others)

            def answer() -> None:
                result = done.result._replace(retained=tuple(told))
                link.send(messages.CallResults((result,)))

            def answered() -> None:
                nonlocal missing
                missing -= 1
                if missing == 0:
                    answer()

            if not others:
                answer()
            for owner, ids in others.items():
                self.ask_registration(owner, tuple(ids), self.address, answered)

        self.table.register_receiver(tuple(done.references), caller, registered_caller)

    # -- running -------------------------------------------------------------------------------------------------------
    def run_call(self, item: Item) -> None:
        """Run a call on this thread, from its arguments to its queued result."""
        call = item.call
        context = self.context_for(item)
        token = CURRENT.set(context)
        references: list[Any] = []
        started = time.perf_counter()
        try:
            status: int = ResultStatus.OK
            values = self.run_user_code(item, context, references)
        except (ExitActor, SystemExit):
            raise
        except BaseException as error:
            status, value = self.failure(item, error, context.name)
            values = (value,) * max(1, call.num_returns)
        finally:
            CURRENT.reset(token)
        took_s = time.perf_counter() - started - context.blocked_s  # what it gave back while it waited doesn't count
        self.finish(item, context, status, values, references, took_s)

    def abandon(self) -> None:
        self.is_copy = True
        super().abandon()

    def end_process(self, code: int) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def construct(self, item: Item, spec: messages.ActorSpec) -> None:
        """Make an actor's instance."""
        cls: Any = self.function_of(spec.class_id)
        token = CURRENT.set(self.context_for(item))
        try:
            args, kwargs = self.load_arguments(item.call)
            self.instance = self.interruptible(item, cls, args, kwargs)
        finally:
            CURRENT.reset(token)

    def context_for(self, item: Item) -> CallContext:
        call, extra = item.call, item.call.extra
        name = call.target if isinstance(call.target, str) else ""
        context = CallContext(call.task_id, name, 1 if extra is None else extra.get("depth", 1), extra)
        context.where = item
        if self.is_reentrant():
            context.chain = (*context.chain, call.task_id)
        return context

    def is_reentrant(self) -> bool:
        return False

    def run_user_code(self, item: Item, context: CallContext, references: list[Any]) -> tuple[Value, ...]:
        call = item.call
        function = self.function_of(call.target)
        if not context.name:
            context.name = getattr(function, "__qualname__", repr(function))
        args, kwargs = self.load_arguments(call)
        result = self.interruptible(item, function, args, kwargs)
        if inspect.iscoroutine(result):
            result = self.interruptible(item, self.run_coroutine, (result,), {})
        if call.num_returns == STREAMING:
            return self._stream(item, result)
        return self.values_of(call, result, references)

    def interruptible(self, item: Item, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run user code where a cancel may interrupt it."""
        return function(*args, **kwargs)

    def run_coroutine(self, coroutine: Any) -> Any:
        """Run a coroutine to its end on this thread."""
        return _run_coroutine(coroutine)

    # -- streaming -----------------------------------------------------------------------------------------------------
    def _stream(self, item: Item, result: Any) -> tuple[Value, ...]:
        if hasattr(result, "__aiter__"):
            result = iterate_async(result)
        if not isinstance(result, Iterator):
            result = iter(result)
        index = 0
        try:
            while True:
                try:
                    produced = self.interruptible(item, next, (result,), {})
                except StopIteration:
                    break
                self.send_item(item, index, produced)
                index += 1
                if not self._may_go_on(item, index):
                    close = getattr(result, "close", None)
                    if close is not None:
                        close()
                    break
        finally:
            self._consumed.pop(item.call.task_id, None)
        return (serialization.serialize(index).data,)

    def send_item(self, item: Item, index: int, produced: Any) -> None:
        references: list[Any] = []
        value = self.value_of(object_id(item.call.task_id, index + 1), produced, references)
        self.item_made(item, value)
        message = messages.GeneratorItem(item.call.task_id, index, value)
        self._items.append((item, message, references))
        self.loop.post(self._flush_items, None)

    def _flush_items(self, _: None) -> None:
        """Items leave before the results of calls that ended after them, their own call's end included."""
        while self._items:
            self._send_item(*self._items.popleft())

    def item_made(self, item: Item, value: Value) -> None:
        """A generator has given an item."""

    def _send_item(self, item: Item, message: messages.GeneratorItem, references: list[Any]) -> None:
        def registered() -> None:
            for oid, _ in references:
                self.table.release(oid)
            item.link.send(message)

        self.table.register_receiver(tuple(references), item.link.peer, registered)

    def is_throttled(self, item: Item, produced: int) -> bool:
        limit = (item.call.extra or {}).get("backpressure", -1)
        consumed = self._consumed.get(item.call.task_id, 0)
        return limit > 0 and consumed >= 0 and produced - consumed >= limit

    def lost_interest(self, item: Item) -> bool:
        return self._consumed.get(item.call.task_id, 0) < 0 or item.link.is_down

    def _may_go_on(self, item: Item, produced: int) -> bool:
        """Wait while the consumer is too far behind; False once it has lost interest."""
        if self.is_throttled(item, produced):
            self.drive(lambda: not self.is_throttled(item, produced) or item.cancelled, None, ())
        return not self.lost_interest(item)


def result_id(call: messages.Call, index: int) -> ObjectId:
    """The id of one of the values that a call gives; with dynamic returns the first is of the list, which has none."""
    return object_id(call.task_id, index + 1 if call.num_returns == DYNAMIC else index)


def _lacks(what: str, error: ImportError) -> Exception:
    return exceptions.make(
        "RuntimeEnvSetupError",
        f"this worker can't load {what}: {error}. The module is known to the caller but not here: install it on every "
        "node, or ship it with runtime_env={'py_modules': [...]} or 'working_dir'",
    )


def _interruptions() -> tuple[type[BaseException], ...]:
    """What a cancel raises in user code. (asyncio is slow to import: who does not use it does not wait for it.)"""
    asyncio = sys.modules.get("asyncio")
    return (KeyboardInterrupt,) if asyncio is None else (KeyboardInterrupt, asyncio.CancelledError)


def _run_coroutine(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)


def iterate_async(source: AsyncIterator[Any]) -> Iterator[Any]:
    """The items of an async generator, on a private event loop (async generator *tasks*; actors have their own)."""
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(source))
            except StopAsyncIteration:
                return
    finally:
        loop.close()


NONE_VALUE = serialization.serialize(None).data
