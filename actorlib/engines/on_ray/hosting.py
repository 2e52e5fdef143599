"""What runs in Ray's workers: the user's functions and classes, with what a call carries for us taken off first.

A call that has something to tell beside its arguments (a deadline, who made it) brings a ``Note`` as its first
argument. The classes and functions made here travel by value; the rest of this package must be importable there, see
``session``.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import functools
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from actorlib import exceptions
from actorlib.engine import DYNAMIC, STREAMING, several_results


class Note:
    """What a call carries: until when it must be done (wall clock), and for durable actors who made it.

    ``again``: who made it has called that actor before.
    """

    __slots__ = ("again", "caller", "expires_at", "sequence")

    def __init__(self, expires_at: float | None, caller: bytes = b"", sequence: int = 0, again: bool = False) -> None:
        self.expires_at = expires_at
        self.caller = caller
        self.sequence = sequence
        self.again = again

    def __reduce__(self) -> Any:
        return Note, (self.expires_at, self.caller, self.sequence, self.again)


WITH_INSTANCE = "__ray_call__"
TURN_S = 0.1

EXPIRES_AT: contextvars.ContextVar[float | None] = contextvars.ContextVar("actorlib_ray_expires_at", default=None)
FUNCTION: contextvars.ContextVar[str | None] = contextvars.ContextVar("actorlib_ray_function", default=None)


def prepare() -> Any:
    """Make sure that code in this worker finds its engine."""
    from actorlib.engine import Slot

    if Slot.engine is None:
        from actorlib.engines import on_ray

        on_ray.attach()
    return Slot.engine


def unpack(args: tuple[Any, ...]) -> tuple[Note | None, tuple[Any, ...]]:
    if args and type(args[0]) is Note:
        return args[0], args[1:]
    return None, args


def begin(note: Note | None, name: str) -> None:
    """Set what the call's own code may ask for; refuse it if it is late already."""
    prepare()
    FUNCTION.set(name)
    expires_at = note.expires_at if note is not None else None
    EXPIRES_AT.set(expires_at)
    if expires_at is not None and time.time() > expires_at:
        raise exceptions.DeadlineExceededError(f"{name} was not done within its timeout_s: it started too late")


@contextlib.contextmanager
def readable(name: str) -> Iterator[None]:
    """An exception that can't be pickled both ways leaves as a TaskError with its text."""
    try:
        yield
    except (exceptions.ActorlibError, GeneratorExit):
        raise
    except Exception as error:
        seen = exceptions.task_error(error, name, exceptions.traceback_text(error), os.getpid(), b"")
        if seen.cause is None:
            raise seen from None
        raise


def several(result: Any, count: int) -> Any:
    """Check a result against ``num_returns``."""
    if count in (0, 1, STREAMING):
        return None if count == 0 else result
    if count == DYNAMIC:
        from actorlib.engine import current

        return [current().put(item) for item in result]
    return several_results(result, count)


def iterate(result: Any) -> Iterator[Any]:
    """Items one by one, of an async generator too."""
    if not hasattr(result, "__aiter__"):
        yield from (item for item in result)  # a generator: Ray sends to it, and not every iterator takes that
        return
    loop = asyncio.new_event_loop()
    _turn(loop)
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(result))
            except StopAsyncIteration:
                return
    finally:
        loop.close()


async def _awake(coroutine: Any) -> Any:
    _turn(asyncio.get_running_loop())
    return await coroutine


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """Have a loop run some Python now and then: Ray's cancel interrupts nothing else."""
    loop.call_later(TURN_S, _turn, loop)


def make_task(function: Callable[..., Any], name: str, count: int) -> Callable[..., Any]:
    """A plain function for ``ray.remote`` that runs the user's."""

    def task(*args: Any, **kwargs: Any) -> Any:
        note, args = unpack(args)
        begin(note, name)
        with readable(name):
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result):
                result = asyncio.run(_awake(result))
            return several(result, count)

    def stream(*args: Any, **kwargs: Any) -> Any:
        note, args = unpack(args)
        begin(note, name)
        with readable(name):
            yield from iterate(function(*args, **kwargs))

    made = stream if count == STREAMING else task
    made.__name__ = made.__qualname__ = name.rsplit(".", 1)[-1] or "task"
    made.__module__ = getattr(function, "__module__", None) or "__main__"
    return made


def make_class(
    cls: Any, checkpoint: dict[str, Any] | None, settings: dict[str, dict[str, Any]], about: tuple[Any, ...]
) -> type:
    """A class for ``ray.remote`` whose instances hold one of the user's.

    ``settings`` has the arguments of ``ray.method`` by method, so that plain Ray calls them alike; ``about`` is what
    makes a handle of ours of one of Ray's.
    """
    import ray

    members: dict[str, Any] = {}
    name = cls.__name__

    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        note, args = unpack(args)
        begin(note, f"{name}.__init__")
        self._actorlib, self._durable = None, None
        engine = prepare()
        engine.becomes(sys.modules["ray"].get_runtime_context().get_actor_id(), about)
        try:
            if checkpoint is not None:
                from actorlib.engines.on_ray.durable import Durable

                self._durable = Durable(cls, checkpoint, args, kwargs)
                self._actorlib = self._durable.instance
            else:
                self._actorlib = cls(*args, **kwargs)
        except BaseException:
            engine.could_not_become()
            raise
        atexit.register(leave, self)  # Ray before 2.50 has no hook for an actor's end

    def call_with_instance(self: Any, *args: Any, **kwargs: Any) -> Any:
        note, (function, *rest) = unpack(args)
        begin(note, f"{name}.__ray_call__")
        if self._durable is not None:
            return self._durable.call(note, WITH_INSTANCE, (function, *rest), kwargs)
        return function(self._actorlib, *rest, **kwargs)

    def ready(self: Any, *_: Any) -> bool:
        return True

    def ask_durable(self: Any, *args: Any) -> Any:
        _, (question, *rest) = unpack(args)
        return getattr(self._durable, question)(*rest)

    def terminate(self: Any, *_: Any) -> None:
        leave(self)
        prepare().exit_actor()

    def leave(self: Any) -> None:
        instance, self._actorlib = self._actorlib, None
        for hook in ("__ray_shutdown__", "__shutdown__"):
            found = getattr(instance, hook, None)
            if found is not None:
                found()

    members.update(__init__=construct, actorlib_call=call_with_instance, actorlib_ready=ready)
    members.update(actorlib_terminate=terminate, __ray_shutdown__=leave)
    if checkpoint is not None:
        members.update(actorlib_durable=ask_durable)
    for method, item in inspect.getmembers(cls, callable):
        if isinstance(item, type) or (method.startswith("__") and method != "__call__"):
            continue
        given = settings.get(method, {})
        streams = given.get("num_returns") == "streaming"
        made = make_method(method, item, f"{name}.{method}", checkpoint is not None, streams)
        members[method] = ray.method(**given)(made) if given else made
    members["__module__"] = cls.__module__
    return type(name, (), members)


def make_method(method: str, item: Any, label: str, is_durable: bool, streams: bool) -> Callable[..., Any]:
    """One method of the class that Ray sees, of the same kind as the user's: plain, generator, async or both.

    One that ``streams`` gives something that is iterated, and need not be a generator.

    A durable actor runs one call at a time, so there its async methods are plain ones.
    """

    async def asynchronous(self: Any, *args: Any, **kwargs: Any) -> Any:
        note, args = unpack(args)
        begin(note, label)
        with readable(label):
            return await getattr(self._actorlib, method)(*args, **kwargs)

    async def asynchronous_stream(self: Any, *args: Any, **kwargs: Any) -> Any:
        note, args = unpack(args)
        begin(note, label)
        with readable(label):
            async for produced in getattr(self._actorlib, method)(*args, **kwargs):
                yield produced

    def stream(self: Any, *args: Any, **kwargs: Any) -> Any:
        note, args = unpack(args)
        begin(note, label)
        with readable(label):
            if self._durable is not None:
                yield from iterate(self._durable.call(note, method, args, kwargs))
                return
            yield from iterate(getattr(self._actorlib, method)(*args, **kwargs))

    def plain(self: Any, *args: Any, **kwargs: Any) -> Any:
        note, args = unpack(args)
        begin(note, label)
        if self._durable is not None:
            return self._durable.call(note, method, args, kwargs)
        with readable(label):
            return getattr(self._actorlib, method)(*args, **kwargs)

    is_stream = streams or inspect.isgeneratorfunction(item) or inspect.isasyncgenfunction(item)
    if inspect.isasyncgenfunction(item) and not is_durable:
        made: Any = asynchronous_stream
    elif inspect.iscoroutinefunction(item) and not is_durable:
        made = asynchronous
    else:
        made = stream if is_stream else plain
    functools.update_wrapper(made, item, assigned=("__name__", "__qualname__", "__doc__"), updated=())
    del made.__wrapped__  # Ray checks arguments by the signature that it sees; ours are checked before
    return made  # type: ignore[no-any-return]


def in_async_method() -> bool:
    """Whether this runs on an event loop of an async actor."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    ray = sys.modules["ray"]
    return ray.get_runtime_context().get_actor_id() is not None
