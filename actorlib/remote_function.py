"""Functions that run elsewhere: what ``@actorlib.remote`` makes of a function."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sized
from typing import Any, Generic, Never, ParamSpec, TypeVar, overload

from actorlib import engine as _engine
from actorlib import mapping, options
from actorlib.engine import FunctionRecord, TaskOptions
from actorlib.object_ref import ObjectRef, ObjectRefGenerator
from actorlib.signature import arity_of, check_call

P = ParamSpec("P")
R = TypeVar("R")
Item = TypeVar("Item")
Result = TypeVar("Result")
Items = Iterator[Item] | AsyncIterator[Item]


class RemoteFunction(Generic[P, R]):
    """A function whose calls are tasks: ``f.remote(1)`` gives an ObjectRef at once.

    Calling it directly raises TypeError; the plain function is ``f.function``.
    """

    def __init__(self, function: Callable[P, R], given: dict[str, Any]) -> None:
        self.function = function
        self._given = given
        name = getattr(function, "__qualname__", getattr(function, "__name__", repr(function)))
        module = getattr(function, "__module__", None)
        self._name = name if module in (None, "__main__") else f"{module}.{name}"
        self._record = FunctionRecord(function, self._name)
        self._options = options.task_options(given, function)
        self._arity = arity_of(function)
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"remote function {self._name} can't be called directly: use {self._name}.remote(...), or "
            f"{self._name}.function(...) to run it here"
        )

    # For type checkers. ``Never`` takes functions that return Any, which would else count as generators. References
    # stand for values: where one is among the first three arguments, only the result's type is known.
    @overload
    def remote(  # type: ignore[overload-overlap]
        self: RemoteFunction[P, Never], *args: P.args, **kwargs: P.kwargs
    ) -> ObjectRef[Any]: ...

    @overload
    def remote(  # type: ignore[overload-overlap]
        self: RemoteFunction[P, Items[Item]], *args: P.args, **kwargs: P.kwargs
    ) -> ObjectRefGenerator[Item]: ...

    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]: ...

    @overload
    def remote(self, first: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ObjectRef[R]: ...

    @overload
    def remote(self, first: Any, second: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ObjectRef[R]: ...

    @overload
    def remote(self, first: Any, second: Any, third: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ObjectRef[R]: ...

    def remote(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Start a task. Arguments may be ObjectRefs: the task gets their values, once they are there.

        Raises TypeError if the arguments don't fit the function.
        """
        arity = self._arity
        if kwargs or arity is None or arity.required_names or not arity.required <= len(args) <= arity.maximum:
            check_call(arity, self._name, args, kwargs)
        engine = _engine.Slot.engine or _engine.current()
        return engine.submit(self._record, args, kwargs, self._options)

    @overload
    def options(self, *, num_returns: int | str, **given: Any) -> ConfiguredFunction[P, R, Any]: ...

    @overload
    def options(self: RemoteFunction[P, Never], **given: Any) -> ConfiguredFunction[P, Any, ObjectRef[Any]]: ...

    @overload
    def options(
        self: RemoteFunction[P, Items[Item]], **given: Any
    ) -> ConfiguredFunction[P, Items[Item], ObjectRefGenerator[Item]]: ...

    @overload
    def options(self, **given: Any) -> ConfiguredFunction[P, R, ObjectRef[R]]: ...

    def options(self: Any, **given: Any) -> Any:
        """The same function with other options, for the calls made through what this gives."""
        return ConfiguredFunction(self, options.task_options({**self._given, **given}, self.function))

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """A node of a task graph (see ``actorlib.dag``)."""
        from actorlib.dag import FunctionNode

        return FunctionNode(self.remote, self._name, args, kwargs)

    def map(
        self,
        iterable: Iterable[Any],
        *,
        chunksize: int | str = "auto",
        progress: bool = False,
        max_in_flight: int | None = None,
    ) -> Iterator[R]:
        """Results of the function for each item, in order. An item's error is raised where it stands.

        Items travel in chunks, one task each; "auto" aims at some 10 ms of work a chunk.
        """
        return self._map(self._options, iterable, chunksize, progress, max_in_flight)

    def _map(
        self, with_options: TaskOptions, iterable: Iterable[Any], chunksize: int | str, progress: bool, most: int | None
    ) -> Iterator[R]:
        engine = _engine.current()
        record = self._chunk_record()

        def submit(items: list[Any]) -> Any:
            return engine.submit(record, (items,), {}, with_options)

        def get(ref: Any) -> Any:
            return engine.get([ref], None)[0]

        total = len(iterable) if isinstance(iterable, Sized) else None
        if most is None:
            most = 2 * max(1, int(engine.cluster_resources().get("CPU", 1)))
        return mapping.ordered_results(submit, get, iterable, chunksize, most, progress, total)

    def _chunk_record(self) -> FunctionRecord:
        record: FunctionRecord | None = self.__dict__.get("_chunks")
        if record is None:
            function = self.function

            def chunk(items: list[Any]) -> Any:
                return mapping.run_chunk(function, items)  # of an async function: a coroutine, run as such a task is

            chunk.__qualname__ = f"{getattr(function, '__qualname__', 'function')}.map"
            record = self._chunks = FunctionRecord(chunk, f"{self._name}.map")
        return record

    def __getstate__(self) -> dict[str, Any]:
        """As part of another function's closure: the function and its options, nothing of this session."""
        return {"function": self.function, "given": self._given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["function"], state["given"])  # type: ignore[misc]


class ConfiguredFunction(Generic[P, R, Result]):
    """A remote function with options of its own."""

    __slots__ = ("_base", "_options")

    def __init__(self, base: RemoteFunction[P, R], with_options: TaskOptions) -> None:
        self._base = base
        self._options = with_options

    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> Result: ...

    @overload
    def remote(self, first: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> Result: ...

    @overload
    def remote(self, first: Any, second: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> Result: ...

    @overload
    def remote(self, first: Any, second: Any, third: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> Result: ...

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """As ``RemoteFunction.remote``; a list with num_returns above 1, None with 0, a generator if streaming."""
        check_call(self._base._arity, self._base._name, args, kwargs)
        return _engine.current().submit(self._base._record, args, kwargs, self._options)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        from actorlib.dag import FunctionNode

        return FunctionNode(self.remote, self._base._name, args, kwargs)

    def map(
        self,
        iterable: Iterable[Any],
        *,
        chunksize: int | str = "auto",
        progress: bool = False,
        max_in_flight: int | None = None,
    ) -> Iterator[R]:
        return self._base._map(self._options, iterable, chunksize, progress, max_in_flight)
