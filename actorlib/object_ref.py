"""References to objects, and generators of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from actorlib import engine as _engine
from actorlib.transport.ids import TASK_ID_BYTES, TaskID
from actorlib.transport.link import Address

if TYPE_CHECKING:  # a good part of what importing actorlib would take; imported by those who await or want futures
    import asyncio
    import concurrent.futures

T_co = TypeVar("T_co", covariant=True)


class ObjectRef(Generic[T_co]):
    """A reference to a value that is there or will be.

    Get the value with ``actorlib.get(ref)`` or ``await ref``; pass the reference to other tasks and actors to pass
    the value without fetching it. The object lives as long as any reference to it does.
    """

    __slots__ = ("__weakref__", "_drop", "_id", "_owner")
    engine_name: ClassVar[str] = "local"

    def __init__(self, object_id: bytes, owner: Address, drop: Callable[[bytes], None]) -> None:
        self._id = object_id
        self._owner = owner
        self._drop = drop

    def __del__(self) -> None:
        self._drop(self._id)

    def __hash__(self) -> int:
        return hash(self._id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and self._id == other._id

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    def hex(self) -> str:
        """The object's id in hex."""
        return self._id.hex()

    def binary(self) -> bytes:
        return self._id

    def task_id(self) -> TaskID:
        """The task that makes the object."""
        return TaskID(self._id[:TASK_ID_BYTES])

    def future(self) -> concurrent.futures.Future[T_co]:
        """A ``concurrent.futures.Future`` of the value."""
        import concurrent.futures

        future: concurrent.futures.Future[T_co] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()

        engine = _engine.current()
        _engine.check_ref(self, engine)

        # The loop must not run user code (unpickling, callbacks of the future): a thread of its own does.
        def settle() -> None:
            try:
                value = engine.get([self], 0)[0]
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)

        def ready() -> None:
            aside(engine, settle)

        engine.when_ready(self, ready)
        return future

    def __await__(self) -> Generator[Any, None, T_co]:
        return self._wait().__await__()

    async def _wait(self) -> T_co:
        engine = _engine.current()
        _engine.check_ref(self, engine)
        import asyncio

        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        engine.when_ready(self, lambda: _wake(loop, ready))
        await ready.wait()
        value: T_co = engine.get([self], None)[0]
        return value

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(
            "an ObjectRef can't be iterated: get() its value first, or declare num_returns=n to get n references"
        )

    def __reduce__(self) -> Any:
        from actorlib import serialization

        serialization.note_ref(self)
        return rebuild_ref, (self._id, tuple(self._owner))


def rebuild_ref(object_id: bytes, owner: tuple[Any, ...]) -> ObjectRef[Any]:
    """A reference that was pickled arrives in this process."""
    return _engine.current().adopt_ref(object_id, Address(*owner))  # type: ignore[arg-type]


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(event.set)


_executor: concurrent.futures.ThreadPoolExecutor | None = None


def aside(engine: Any, work: Callable[[], None]) -> None:
    """Run what may run user code, off the loop. A simulation has a greenlet for it."""
    _settler().submit(work)


def _settler() -> concurrent.futures.ThreadPoolExecutor:
    global _executor
    if _executor is None:
        import concurrent.futures

        _executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="actorlib-futures")
    return _executor


def close_settler() -> None:
    """End the thread that settles futures (at shutdown)."""
    global _executor
    if _executor is not None:
        _executor.shutdown(wait=False)
        _executor = None


class ObjectRefGenerator(Generic[T_co]):
    """The references of a streaming call's items, one by one, as they are made.

    Iterating blocks until the next item is there; ``async for`` awaits it. An error of the call takes the place of the
    item at which it happened: ``get`` of that reference raises it, then the generator ends.
    """

    def __init__(self, task_id: bytes, engine: _engine.Engine) -> None:
        self._task_id = task_id
        self._engine = engine
        self._state: Any = None

    def __iter__(self) -> Iterator[ObjectRef[T_co]]:
        return self

    def __next__(self) -> ObjectRef[T_co]:
        return self.next_ready(None)

    def next_ready(self, timeout: float | None = None) -> ObjectRef[T_co]:
        """The next reference; raises GetTimeoutError after ``timeout`` seconds, StopIteration at the end."""
        ref = self._engine.next_item(self, timeout)
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> AsyncIterator[ObjectRef[T_co]]:
        return self

    async def __anext__(self) -> ObjectRef[T_co]:
        import asyncio

        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        self._engine.when_item(self, lambda: _wake(loop, ready))
        await ready.wait()
        ref = self._engine.next_item(self, 0)
        if ref is None:
            raise StopAsyncIteration
        return ref

    def completed(self) -> ObjectRef[int]:
        """A reference that resolves to the number of items when the call has ended."""
        return self._state[1]  # type: ignore[no-any-return]

    def task_id(self) -> TaskID:
        return TaskID(self._task_id)

    def close(self) -> None:
        """Take no more items; the producer is told to stop."""
        self._engine.close_generator(self)

    def __del__(self) -> None:
        self._engine.close_generator(self)

    def __reduce__(self) -> Any:
        raise TypeError(
            "an ObjectRefGenerator can't be passed on; pass the references that it yields, or a list of them"
        )
