"""References and handles of the Ray engine: ours around Ray's. They travel as Ray's, which Ray counts."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Generator
from typing import Any, ClassVar

from actorlib import engine as _engine
from actorlib import exceptions
from actorlib.actor import ActorHandle, MethodInfo, methods_from_wire, methods_to_wire
from actorlib.engine import STREAMING, MethodOptions
from actorlib.engines.on_ray import errors
from actorlib.engines.on_ray.inputs import RUNNING
from actorlib.object_ref import ObjectRef, ObjectRefGenerator
from actorlib.transport.ids import TaskID
from actorlib.transport.link import NOWHERE

INDEX_BYTES = 4
ASKS_DURABLE = "actorlib_durable"  # a method that only durable actors have


def _nothing(_: bytes) -> None:
    """Ray counts."""


class RayRef(ObjectRef[Any]):
    """A reference around one of Ray's. ``about``: name and demand of the call that makes it, for messages."""

    __slots__ = ("about", "expires_at", "rays")
    engine_name: ClassVar[str] = "ray"

    def __init__(self, rays: Any, about: tuple[Any, ...] = (), expires_at: float | None = None) -> None:
        super().__init__(rays.binary(), NOWHERE, _nothing)
        self.rays = rays
        self.about = about
        self.expires_at = expires_at  # of the monotonic clock

    def task_id(self) -> TaskID:
        return TaskID(self._id[:-INDEX_BYTES])

    def future(self) -> concurrent.futures.Future[Any]:
        _engine.check_ref(self, _engine.current())
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()

        def settle(done: concurrent.futures.Future[Any]) -> None:
            error = done.exception()
            if error is not None:
                future.set_exception(self.raised(error))
            else:
                future.set_result(done.result())

        self.rays.future().add_done_callback(settle)
        return future

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait_on_rays().__await__()

    async def _wait_on_rays(self) -> Any:
        _engine.check_ref(self, _engine.current())
        if RUNNING.call is not None:
            return await RUNNING.call.learn_later("await", self._awaited())
        return await self._awaited()

    async def _awaited(self) -> Any:
        try:
            return await self.rays
        except Exception as error:
            mapped = self.raised(error)
            raise mapped from mapped.__cause__

    @property
    def is_late(self) -> bool:
        return self.expires_at is not None and time.monotonic() >= self.expires_at

    @property
    def name(self) -> str:
        return self.about[0] if self.about else f"object {self.hex()[:16]}"

    def too_late(self) -> exceptions.DeadlineExceededError:
        return exceptions.DeadlineExceededError(f"{self.name} was not done within its timeout_s, or its caller's")

    def raised(self, error: BaseException) -> BaseException:
        """What is raised here for what Ray raised: who is late was cancelled for it."""
        mapped = errors.ours(error)
        if self.is_late and isinstance(mapped, exceptions.TaskCancelledError):
            late = self.too_late()
            late.__cause__ = error
            return late
        return mapped

    def __reduce__(self) -> Any:
        current = _engine.current_or_none()
        if current is not None:
            _engine.check_ref(self, current)
        left = None if self.expires_at is None else self.expires_at - time.monotonic()
        return restore_ref, (self.rays, self.about, left)


def restore_ref(rays: Any, about: tuple[Any, ...], left_s: float | None) -> RayRef:
    """A reference that arrives in another process."""
    return RayRef(rays, about, None if left_s is None else time.monotonic() + left_s)


class RayHandle(ActorHandle[Any]):
    """A handle around one of Ray's."""

    engine_name: ClassVar[str] = "ray"

    def __init__(self, rays: Any, class_name: str, methods: dict[str, MethodInfo], extra: dict[str, Any]) -> None:
        super().__init__(rays._actor_id.binary(), class_name, methods, extra, None)
        self._rays = rays

    def __reduce__(self) -> Any:
        current = _engine.current_or_none()
        if current is not None:
            _engine.check_handle(self, current)
        return restore_handle, (self._rays, self._class_name, methods_to_wire(self._methods), self._extra)


def restore_handle(rays: Any, class_name: str, methods: tuple[Any, ...], extra: dict[str, Any]) -> RayHandle:
    """A handle that arrives in another process."""
    return RayHandle(rays, class_name, methods_from_wire(methods), extra)


def handle_of(rays: Any) -> RayHandle:
    """A handle around one of Ray's that we know nothing more of: its methods by what Ray knows."""
    returns = getattr(rays, "_ray_method_num_returns", {})
    generators = getattr(rays, "_ray_method_is_generator", {})
    signatures = getattr(rays, "_ray_method_signatures", {})
    methods = {
        name: MethodInfo(MethodOptions(num_returns=_count(returns.get(name), generators.get(name, False))), None)
        for name in signatures
        if not name.startswith(("__", "actorlib_"))
    }
    descriptor = getattr(rays, "_ray_actor_creation_function_descriptor", None)
    class_name = getattr(descriptor, "class_name", "actor").rsplit(".", 1)[-1]
    return RayHandle(rays, class_name, methods, {"durable": ASKS_DURABLE in signatures})


def _count(given: Any, is_generator: bool) -> int:
    """``num_returns`` of a method as the seam has it, from what Ray keeps."""
    if isinstance(given, int) and given >= 0:
        return given
    return STREAMING if is_generator or given == "streaming" else 1


def from_ray(thing: Any) -> Any:
    """Our reference, handle or generator around one of Ray's; containers are gone through, other values are left.

    Example:
        >>> total = actorlib.get(add.remote(actorlib.from_ray(ray_task.remote())))  # doctest: +SKIP
    """
    import ray

    if isinstance(thing, ray.ObjectRef):
        return RayRef(thing)
    if isinstance(thing, ray.actor.ActorHandle):
        return handle_of(thing)
    if isinstance(thing, ray.ObjectRefGenerator):
        from actorlib.engines.on_ray.streams import generator_of

        return generator_of(thing)
    return _through(thing, from_ray)


def to_ray(thing: Any) -> Any:
    """Ray's reference, handle or generator inside one of ours; containers are gone through, other values are left.

    Raises:
        WrongEngineError: for references and handles of another engine.
    """
    if isinstance(thing, RayRef):
        return thing.rays
    if isinstance(thing, RayHandle):
        return thing._rays
    if isinstance(thing, ObjectRef | ActorHandle):
        raise exceptions.WrongEngineError(
            f"{thing!r} is of the engine {thing.engine_name!r}, so nothing of Ray is in it"
        )
    if isinstance(thing, ObjectRefGenerator):
        return thing._state[0].rays
    return _through(thing, to_ray)


def _through(thing: Any, change: Any) -> Any:
    if type(thing) in (list, tuple, set):
        return type(thing)(change(item) for item in thing)
    if type(thing) is dict:
        return {key: change(value) for key, value in thing.items()}
    return thing
