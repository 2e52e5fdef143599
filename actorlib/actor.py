"""Classes whose instances live elsewhere: what ``@actorlib.remote`` makes of a class."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, ClassVar, Generic, ParamSpec, Protocol, TypeVar, overload

from actorlib import engine as _engine
from actorlib import mapping, options, serialization
from actorlib.engine import FunctionRecord, MethodOptions
from actorlib.object_ref import ObjectRef
from actorlib.signature import Arity, arity_of, check_call

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")
R = TypeVar("R")
OPTIONS_ATTRIBUTE = "__actorlib_method_options__"
INTERNAL = ("__ray_call__", "__ray_ready__", "__ray_terminate__")


def method(**given: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Options of an actor's method: ``@actorlib.method(num_returns=2, concurrency_group="io")``."""
    options.check(given, options.METHOD, "methods")

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        setattr(function, OPTIONS_ATTRIBUTE, given)
        return function

    return mark


def exit_actor() -> None:
    """End the current actor after this call, in good order. Only inside an actor's method."""
    _engine.current().exit_actor()


class MethodInfo:
    """What a handle knows of one method."""

    __slots__ = ("arity", "options")

    def __init__(self, with_options: MethodOptions, arity: Arity | None) -> None:
        self.options = with_options
        self.arity = arity


def methods_of(cls: type) -> dict[str, MethodInfo]:
    """The public surface of a class: all of its functions, with their options and arity."""
    found: dict[str, MethodInfo] = {}
    for name, item in inspect.getmembers(cls, callable):
        if isinstance(item, type) or (name.startswith("__") and name != "__call__") or name == "__class__":
            continue
        given = getattr(item, OPTIONS_ATTRIBUTE, {})
        static = isinstance(inspect.getattr_static(cls, name), staticmethod | classmethod)
        found[name] = MethodInfo(options.method_options(given, item), arity_of(item, skip_self=not static))
    return found


def methods_to_wire(methods: dict[str, MethodInfo]) -> tuple[Any, ...]:
    """The method table as plain data, so that anybody can make a handle."""
    return tuple(
        (name, _settings(info.options), None if info.arity is None else tuple(info.arity))
        for name, info in methods.items()
    )


def _settings(o: MethodOptions) -> tuple[Any, ...]:
    """A method's options as plain data; classes of exceptions as a pickle, which only who retries a call reads."""
    retry = o.retry_exceptions
    if isinstance(retry, tuple):
        retry = serialization.dumps_function(retry)
    plain = (o.num_returns, o.max_task_retries, retry, o.concurrency_group, o.backpressure)
    return (*plain, o.timeout_s, o.name, o.readonly, o.priority)


def methods_from_wire(rows: tuple[Any, ...]) -> dict[str, MethodInfo]:
    methods: dict[str, MethodInfo] = {}
    for name, settings, arity in rows:
        returns, retries, retry_exceptions, group, backpressure, timeout_s, label, readonly, priority = settings
        with_options = MethodOptions(
            num_returns=returns,
            max_task_retries=retries,
            retry_exceptions=retry_exceptions,
            concurrency_group=group,
            backpressure=backpressure,
            timeout_s=timeout_s,
            name=label,
            readonly=readonly,
            priority=priority,
        )
        methods[name] = MethodInfo(with_options, None if arity is None else Arity(*arity))
    return methods


def check_group(group: str, known: Iterable[str], method: str) -> None:
    """Raises ValueError for a concurrency group that the actor does not have."""
    if group and group not in known:
        have = ", ".join(known) or "none: pass concurrency_groups={...} to the actor"
        raise ValueError(f"{method}: the actor has no concurrency group {group!r}; it has {have}")


class AnyClass(Protocol[P, T_co]):
    """How type checkers tell a class from a function: both can be called, only classes have an ``__mro__``."""

    @property
    def __mro__(self) -> tuple[type, ...]: ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co: ...


class ActorClass(Generic[P, T]):
    """A class whose instances are actors: ``Counter.remote()`` gives a handle at once."""

    def __init__(self, cls: type[T], given: dict[str, Any]) -> None:
        self.cls = cls
        self._given = given
        self._record = FunctionRecord(cls, f"{cls.__module__}.{cls.__qualname__}")
        self._options = options.actor_options(given, cls)
        self._methods = methods_of(cls)
        self._arity = arity_of(cls)
        functools.update_wrapper(self, cls, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"actor class {self.cls.__name__} can't be instantiated directly: use {self.cls.__name__}.remote(...), or "
            f"{self.cls.__name__}.cls(...) for a plain instance here"
        )

    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ActorHandle[T]: ...

    @overload
    def remote(self, first: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ActorHandle[T]: ...

    @overload
    def remote(self, first: Any, second: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ActorHandle[T]: ...

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """Create an actor. Raises TypeError if the arguments don't fit the constructor."""
        return self._create(self._options, args, kwargs)

    def _create(self, with_options: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActorHandle[T]:
        check_call(self._arity, self.cls.__name__, args, kwargs)
        for name, info in self._methods.items():
            check_group(info.options.concurrency_group, with_options.concurrency_groups, f"{self.cls.__name__}.{name}")
        return _engine.current().create_actor(self._record, self._methods, args, kwargs, with_options)

    def options(self, **given: Any) -> ConfiguredActor[P, T]:
        """The same class with other options, for the actors made through what this gives."""
        return ConfiguredActor(self, options.actor_options({**self._given, **given}, self.cls))

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """A node of a graph (see ``actorlib.dag``)."""
        from actorlib.dag import ClassNode

        return ClassNode(self.remote, self.cls.__name__, args, kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {"cls": self.cls, "given": self._given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["cls"], state["given"])  # type: ignore[misc]


class ConfiguredActor(Generic[P, T]):
    """An actor class with options of its own."""

    __slots__ = ("_base", "_options")

    def __init__(self, base: ActorClass[P, T], with_options: Any) -> None:
        self._base = base
        self._options = with_options

    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ActorHandle[T]: ...

    @overload
    def remote(self, first: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ActorHandle[T]: ...

    @overload
    def remote(self, first: Any, second: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ActorHandle[T]: ...

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        return self._base._create(self._options, args, kwargs)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        from actorlib.dag import ClassNode

        return ClassNode(self.remote, self._base.cls.__name__, args, kwargs)


class ActorMethod:
    """A method of a handle: ``handle.method.remote(...)``."""

    __slots__ = ("_arity", "_handle", "_name", "_options")

    def __init__(self, handle: ActorHandle[Any], name: str, with_options: MethodOptions, arity: Arity | None) -> None:
        self._handle = handle
        self._name = name
        self._options = with_options
        self._arity = arity

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = f"{self._handle._class_name}.{self._name}"
        raise TypeError(f"{name} runs in an actor: call it as handle.{self._name}.remote(...)")

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call it. Gives an ObjectRef (a list, None or a generator by num_returns); TypeError for wrong arguments."""
        arity = self._arity
        if arity is not None and (kwargs or arity.required_names or not arity.required <= len(args) <= arity.maximum):
            check_call(arity, f"{self._handle._class_name}.{self._name}", args, kwargs)
        engine = _engine.Slot.engine or _engine.current()
        if type(self._handle) is not engine.handle_type:
            _engine.check_handle(self._handle, engine)
        return engine.call(self._handle, self._name, args, kwargs, self._options)

    def options(self, **given: Any) -> ActorMethod:
        """The same method with other options for the calls made through what this gives."""
        with_options = options.method_options(given, None, self._options)
        if with_options.concurrency_group:
            name = f"{self._handle._class_name}.{self._name}"
            check_group(with_options.concurrency_group, self._handle._extra.get("concurrency_groups", ()), name)
        return ActorMethod(self._handle, self._name, with_options, self._arity)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        from actorlib.dag import MethodNode

        return MethodNode(self.remote, self._name, args, kwargs)

    def map(self, iterable: Iterable[Any], *, chunksize: int | str = "auto", progress: bool = False) -> Iterator[Any]:
        """Results of the method for each item, in order; chunks travel as one call each."""
        engine, name, handle = _engine.current(), self._name, self._handle
        _engine.check_handle(handle, engine)

        def submit(items: list[Any]) -> Any:
            return engine.call(handle, "__ray_call__", (_run_method_chunk, name, items), {}, self._options)

        total = len(iterable) if isinstance(iterable, Sized) else None
        return mapping.ordered_results(
            submit, lambda ref: engine.get([ref], None)[0], iterable, chunksize, 4, progress, total
        )


def _run_method_chunk(instance: Any, name: str, items: list[Any]) -> Any:
    return mapping.run_chunk(getattr(instance, name), items)


def _checkpoints(handle: ActorHandle[Any]) -> list[dict[str, Any]]:
    """``handle.checkpoints()``: what is stored of a durable actor's state, the oldest first.

    Each row has ``id`` (for ``actorlib.restore``), number, position, saved_at (seconds since 1970), class_name,
    state_bytes and is_good.
    """
    return _engine.current().durable().checkpoints(handle)


def _upgrade(handle: ActorHandle[Any], new_class: ActorClass[Any, Any]) -> None:
    """``handle.upgrade(NewClass)``: a durable actor takes a checkpoint and goes on from it with another class.

    ``__restore__`` of the new class turns the state into its own; where it raises, the actor goes on as it was, and
    the error is raised here.
    """
    if not isinstance(new_class, ActorClass):
        raise TypeError(f"upgrade() takes an actor class, not a {type(new_class).__name__}: decorate it with remote")
    _engine.current().durable().upgrade(handle, new_class._record, new_class._methods)
    handle._class_name = new_class.cls.__name__
    handle._methods = new_class._methods


DURABLE: dict[str, Callable[..., Any]] = {"checkpoints": _checkpoints, "upgrade": _upgrade}
"""Of every handle, unless the class has methods of these names."""


def restore(cls: ActorClass[P, T], checkpoint_id: str, position: int | None = None) -> ActorHandle[T]:
    """A copy of a durable actor as it was: in the state of a checkpoint, then of the log up to a position.

    Args:
        cls: the actor's class, or one whose ``__restore__`` takes its state.
        checkpoint_id: ``id`` of a row of ``handle.checkpoints()``.
        position: run the log again up to this position (see ``util.state.actor_log``); None: not at all. What the
            calls sent is not sent again.

    Raises:
        CheckpointError: there is no such checkpoint, it is torn, or of a class that this one can't take over.

    Example:
        >>> before = actorlib.restore(Account, account.checkpoints()[0]["id"])
    """
    if not isinstance(cls, ActorClass):
        raise TypeError(f"restore() takes an actor class, not a {type(cls).__name__}: decorate it with remote")
    if cls._options.checkpoint is None:
        raise ValueError(f"{cls.cls.__name__} is not durable: give it checkpoint=... to restore it")
    if position is not None and (isinstance(position, bool) or not isinstance(position, int) or position < 0):
        raise ValueError(f"position={position!r}: must be an int of at least 0 or None")
    durable = _engine.current().durable()
    return durable.restore(cls._record, cls._methods, cls._options, checkpoint_id, position)


class ActorHandle(Generic[T]):
    """A handle to an actor. Its methods are called with ``handle.method.remote(...)``.

    Handles can be passed to tasks and actors. An actor that is not detached ends when its last handle is gone.
    """

    engine_name: ClassVar[str] = "local"

    def __init__(
        self,
        actor_id: bytes,
        class_name: str,
        methods: dict[str, MethodInfo],
        extra: dict[str, Any],
        ref: ObjectRef[Any] | None,
    ) -> None:
        self._actor_id = actor_id
        self._class_name = class_name
        self._methods = methods
        self._extra = extra
        self._ref = ref

    @classmethod
    def from_wire(
        cls,
        actor_id: bytes,
        class_name: str,
        methods: tuple[Any, ...],
        extra: dict[str, Any],
        ref: ObjectRef[Any] | None,
    ) -> ActorHandle[Any]:
        """A handle from what the cluster keeps of an actor. ``ref`` None: it does not keep the actor alive."""
        return cls(actor_id, class_name, methods_from_wire(methods), extra, ref)

    def __getattr__(self, name: str) -> ActorMethod:
        # Not cached on the handle: in a cycle the actor would outlive its last handle until a collection.
        if name in INTERNAL:
            return ActorMethod(self, name, MethodOptions(), None)
        methods = self.__dict__.get("_methods", {})
        info = methods.get(name)
        if info is None and name in DURABLE:
            return functools.partial(DURABLE[name], self)  # type: ignore[return-value]
        if info is None:
            near = difflib.get_close_matches(name, methods, 3)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; it has {', '.join(methods)}"
            raise AttributeError(f"actor {self.__dict__.get('_class_name')} has no method {name!r}{hint}")
        return ActorMethod(self, name, info.options, info.arity)

    @property
    def _actor_id_hex(self) -> str:
        return self._actor_id.hex()

    def __repr__(self) -> str:
        return f"ActorHandle({self._class_name}, {self._actor_id.hex()})"

    def __hash__(self) -> int:
        return hash(self._actor_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._actor_id == other._actor_id

    def __reduce__(self) -> Any:
        engine = _engine.current_or_none()
        if engine is not None:
            _engine.check_handle(self, engine)
        state = (self._actor_id, self._class_name, methods_to_wire(self._methods), self._extra, self._ref)
        return type(self).from_wire, state
