"""The functions that users call: init, remote, get, put, wait, cancel, kill and what belongs to them."""

from __future__ import annotations

import atexit
import inspect
import json
import operator
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from actorlib import engine as _engine
from actorlib import options as _options
from actorlib.actor import ActorClass, ActorHandle, AnyClass
from actorlib.engines import registry
from actorlib.object_ref import ObjectRef, ObjectRefGenerator, close_settler
from actorlib.remote_function import RemoteFunction

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")
_id_of = operator.attrgetter("_id")


class Context:
    """What ``init`` gives: works in ``with``, knows the session's address."""

    def __init__(self, address_info: dict[str, Any]) -> None:
        self.address_info = address_info

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """End the session, as ``shutdown`` does."""
        shutdown()


def init(
    address: str | None = None,
    *,
    engine: str = "local",
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    namespace: str | None = None,
    runtime_env: dict[str, Any] | None = None,
    object_store_memory: int | None = None,
    ignore_reinit_error: bool = False,
    log_to_driver: bool = True,
    logging_level: Any = None,
    include_dashboard: bool | None = None,
    preload: Sequence[str] = (),
    key: str | None = None,
    **more: Any,
) -> Context:
    """Start a session, or join the one at ``address``.

    Args:
        address: None starts a node of our own. ``"HOST:PORT"`` joins the cluster whose head is there, by the node of it
            that runs on this machine; ``"auto"`` the only one that does (or the one that ACTORLIB_ADDRESS names). The
            address of a ``cluster_utils.Cluster`` joins that. (With ``engine="ray"``, of a Ray cluster.)
        engine: what runs it all: "local" (our runtime, on this machine or on the cluster at ``address``), "inline"
            (everything in this process, for debugging) or "ray" (a Ray cluster; needs the extra ``actorlib[ray]``).
        key: with ``address="HOST:PORT"``, a driver's key file; without one the node's own key is used.
        num_cpus, num_gpus, resources, labels, object_store_memory: what the node has (only when it is our own).
        namespace: where names of actors are looked up; a private one if not given.
        log_to_driver: whether workers' prints are shown here.
        preload: modules that workers have imported before they start.
        more: with ``engine="ray"``, further arguments of ``ray.init``.

    Raises:
        TypeError: for unknown arguments. ValueError: for wrong values. RuntimeError: if a session runs already.
        ConnectionError: if no node of the cluster at ``address`` runs on this machine.
        EngineUnavailableError: if the engine can't be used here. NotSupportedByEngineError: if it can't do that.

    Example:
        >>> with actorlib.init(engine="inline"):
        ...     actorlib.get(double.remote(21))
        42
    """
    registry.check_name(engine)
    if more:
        _check_more(engine, more)
    running = _engine.Slot.engine
    if running is not None:
        return _join_running(running, engine, ignore_reinit_error)
    for name, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus)):
        if value is not None:
            _options._number(name, value)
    _options._resources("resources", resources)
    settings = registry.Settings(
        address=address,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        resources=resources,
        labels=labels,
        namespace=namespace,
        runtime_env=runtime_env,
        object_store_memory=object_store_memory,
        log_to_driver=log_to_driver,
        logging_level=logging_level,
        include_dashboard=include_dashboard,
        preload=list(preload),
        more=more,
        key=key,
    )
    _engine.Slot.engine = started = registry.start(engine, settings)
    _engine.Slot.closed, _engine.Slot.why_closed = False, ""
    return Context(started.address_info)


def _check_more(engine: str, more: dict[str, Any]) -> None:
    valid = [name for name in inspect.signature(init).parameters if name != "more"]
    further = registry.further_arguments(engine)
    for name in more:
        if name not in further and not (further and name.startswith("_")):
            known = ", ".join(dict.fromkeys([*valid, *further]))
            raise TypeError(f"init() has no argument {name!r}; it takes {known}")


def _join_running(running: _engine.Engine, wanted: str, ignore_reinit_error: bool) -> Context:
    """A second ``init``: fine if that was said, and if it is the same engine."""
    if running.name != wanted:
        raise RuntimeError(
            f"a session of the engine {running.name!r} runs already, so engine={wanted!r} can't start; "
            "call shutdown() first"
        )
    if not ignore_reinit_error:
        raise RuntimeError("a session runs already: call shutdown() first, or pass ignore_reinit_error=True")
    return Context(running.address_info)


def _auto_init() -> _engine.Engine:
    found = registry.of_this_process()
    if found is not None:
        return found
    init()
    assert _engine.Slot.engine is not None
    return _engine.Slot.engine


_engine.Slot.auto_init = _auto_init


def is_initialized() -> bool:
    """Whether a session runs in this process."""
    return _engine.Slot.engine is not None


def shutdown() -> None:
    """End the session: its tasks, actors and objects go, and no process is left behind. Does nothing without one."""
    engine, _engine.Slot.engine = _engine.Slot.engine, None
    if engine is not None:
        _engine.Slot.closed = True
        engine.shutdown()
        close_settler()


atexit.register(shutdown)


# -- remote ------------------------------------------------------------------------------------------------------------
class RemoteDecorator(Protocol):
    """What ``remote(num_cpus=2)`` gives, as type checkers see it."""

    @overload
    def __call__(self, function: AnyClass[P, T], /) -> ActorClass[P, T]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> RemoteFunction[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> RemoteFunction[P, R]: ...


@overload
def remote(function: AnyClass[P, T], /) -> ActorClass[P, T]: ...  # type: ignore[overload-overlap]


@overload
def remote(function: Callable[P, Coroutine[Any, Any, R]], /) -> RemoteFunction[P, R]: ...


@overload
def remote(function: Callable[P, R], /) -> RemoteFunction[P, R]: ...


@overload
def remote(*, num_returns: int | str, **given: Any) -> Callable[[Any], Any]: ...


@overload
def remote(**given: Any) -> RemoteDecorator: ...


def remote(function: Any = None, /, **given: Any) -> Any:
    """Make a function a remote function, or a class an actor class. With or without options.

    Example:
        >>> @actorlib.remote
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> actorlib.get(double.remote(21))
        42
    """
    if function is None:
        return lambda actual: _make_remote(actual, given)
    if given:
        raise TypeError("remote() takes a function or class, or options, not both: use @remote(...)")
    return _make_remote(function, {})


def _make_remote(function: Any, given: dict[str, Any]) -> Any:
    if isinstance(function, type):
        return ActorClass(function, given)
    if isinstance(function, RemoteFunction | ActorClass):
        raise TypeError(f"{function!r} is remote already; use .options(...) to change its options")
    if callable(function):
        return RemoteFunction(function, given)
    raise TypeError(f"remote() makes functions and classes remote, not a {type(function).__name__}")


# -- objects -----------------------------------------------------------------------------------------------------------
def put(value: T) -> ObjectRef[T]:
    """Store a value and give a reference to it. The value is copied; the copy never changes.

    Raises:
        TypeError: if ``value`` is an ObjectRef, or can't be pickled. ObjectStoreFullError: if there is no room.
    """
    if isinstance(value, ObjectRef):
        raise TypeError("put() of an ObjectRef: it is a reference already; put a container such as [ref] to nest it")
    return _engine.current().put(value)


@overload
def get(refs: ObjectRef[T], *, timeout: float | None = None) -> T: ...


@overload
def get(refs: Sequence[ObjectRef[T]], *, timeout: float | None = None) -> list[T]: ...


def get(refs: Any, *, timeout: float | None = None) -> Any:
    """The value of a reference, or the list of values of a list of references, in order.

    Args:
        timeout: seconds to wait; 0 only looks; None waits for ever.

    Raises:
        GetTimeoutError: if they are not there in time. Whatever the task raised, or what became of it.
        TypeError: if something is no ObjectRef.
    """
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout={timeout}: must be at least 0, or None")
    if isinstance(refs, ObjectRef):
        engine = _engine.current()
        if type(refs) is not engine.ref_type:
            _engine.check_ref(refs, engine)
        return engine.get([refs], timeout)[0]
    if isinstance(refs, ObjectRefGenerator):
        raise TypeError("get() of a generator: iterate it and get() each of its references")
    if not isinstance(refs, list | tuple):
        raise TypeError(f"get() takes an ObjectRef or a list of them, not a {type(refs).__name__}")
    engine = _engine.current()
    if set(map(type, refs)) != {engine.ref_type}:
        for position, ref in enumerate(refs):
            if not isinstance(ref, ObjectRef):
                raise TypeError(f"get() takes ObjectRefs, but item {position} is a {type(ref).__name__}")
            _engine.check_ref(ref, engine)
    return engine.get(refs, timeout)


def wait(
    refs: Sequence[ObjectRef[T]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    """Wait until ``num_returns`` of the references are ready. Gives (ready, not ready), each in the order given.

    Raises:
        TypeError: if it isn't a list of ObjectRefs. ValueError: for duplicates, or num_returns out of range.
    """
    if isinstance(refs, ObjectRef):
        raise TypeError("wait() takes a list of ObjectRefs, not a single one: wait([ref])")
    if not isinstance(refs, list | tuple):
        raise TypeError(f"wait() takes a list of ObjectRefs, not a {type(refs).__name__}")
    kinds = set(map(type, refs))  # programs call this once for each of many: nothing here loops in Python
    if kinds != {ObjectRef}:
        for position, ref in enumerate(refs):
            if not isinstance(ref, ObjectRef):
                raise TypeError(f"wait() takes ObjectRefs, but item {position} is a {type(ref).__name__}")
    if not refs:
        return [], []
    if len(set(map(_id_of, refs))) != len(refs):
        raise ValueError("wait() takes each ObjectRef once; the list has duplicates")
    if isinstance(num_returns, bool) or not isinstance(num_returns, int) or not 1 <= num_returns <= len(refs):
        raise ValueError(f"num_returns={num_returns}: must be between 1 and the number of references, {len(refs)}")
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout={timeout}: must be at least 0, or None")
    engine = _engine.current()
    if kinds != {engine.ref_type}:
        for ref in refs:
            _engine.check_ref(ref, engine)
    return engine.wait(refs, num_returns, timeout, fetch_local)


def as_completed(refs: Sequence[ObjectRef[T]], *, timeout: float | None = None) -> Iterator[ObjectRef[T]]:
    """The references in the order in which they become ready.

    Raises:
        GetTimeoutError: if not all are ready within ``timeout`` seconds.
    """
    from actorlib.exceptions import GetTimeoutError

    deadline = None if timeout is None else time.monotonic() + timeout
    pending = list(refs)
    while pending:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _ = wait(pending, num_returns=1, timeout=left)
        if not ready:
            raise GetTimeoutError(f"{len(pending)} of {len(refs)} were not ready within {timeout} s")
        taken = set(_engine.current().wait(pending, len(pending), 0, True)[0]) | set(ready)
        done = [ref for ref in pending if ref in taken]
        pending = [ref for ref in pending if ref not in taken]
        yield from done


# -- control -----------------------------------------------------------------------------------------------------------
def cancel(ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool = False, recursive: bool = True) -> None:
    """Cancel a task or an actor's call. ``get`` of its result raises TaskCancelledError if that came in time.

    Args:
        force: kill the worker instead of raising KeyboardInterrupt in the task (not for actors).
        recursive: also cancel what the task has started.
    """
    if isinstance(ref, ObjectRefGenerator):
        ref = ref.completed()
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"cancel() takes an ObjectRef, not a {type(ref).__name__}")
    engine = _engine.current()
    _engine.check_ref(ref, engine)
    engine.cancel(ref, force, recursive)


def kill(actor: ActorHandle[Any], *, no_restart: bool = True) -> None:
    """End an actor at once; with ``no_restart=False`` it is as if it had crashed."""
    if not isinstance(actor, ActorHandle):
        raise TypeError(f"kill() takes an actor's handle, not a {type(actor).__name__}; for tasks there is cancel()")
    engine = _engine.current()
    _engine.check_handle(actor, engine)
    engine.kill(actor, no_restart)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """A handle to the actor of that name. Raises ValueError if there is none."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"get_actor() takes a non-empty name, not {name!r}")
    return _engine.current().find_actor(name, namespace)


def checkpoint_now() -> None:
    """Save the current actor's state as it is when this call is done, before its reply leaves.

    Only inside a method of an actor with ``checkpoint=``. Where the checkpoint can't be kept, the call gives
    CheckpointError; what it did is in the log all the same.
    """
    _engine.current().checkpoint_now()


def record(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``function`` once, and give what it gave whenever the durable actor's method is run again.

    For what a method takes from outside: the time, randomness, a file, a request to another system. Result or exception
    must be picklable. Outside of a durable actor's method it is a plain call.

    Example:
        >>> self.opened_at = actorlib.record(time.time)
    """
    result: R = _engine.current().record_once(function, args, kwargs)
    return result


# -- cluster -----------------------------------------------------------------------------------------------------------
def nodes() -> list[dict[str, Any]]:
    """The cluster's nodes, dead ones included."""
    return _engine.current().nodes()


def cluster_resources() -> dict[str, float]:
    """What all living nodes have in all."""
    return _engine.current().cluster_resources()


def available_resources() -> dict[str, float]:
    """What is free now."""
    return _engine.current().available_resources()


def timeline(filename: str | None = None) -> list[dict[str, Any]]:
    """Task events in the format of Chrome's trace viewer; written to ``filename`` if given."""
    rows = _engine.current().query_state("tasks", 20_000)
    events = [
        {
            "name": row["name"],
            "cat": "task",
            "ph": "X",
            "ts": row["time_s"] * 1e6 - row["duration_us"],
            "dur": row["duration_us"],
            "pid": row["worker_id"][:8],
            "tid": 0,
            "args": {"state": row["state"], "error": row["error"]},
        }
        for row in rows
    ]
    if filename is not None:
        with open(filename, "w") as target:
            json.dump(events, target)
    return events
