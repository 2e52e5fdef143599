"""Streams on Ray: Ray's generators of references as ours, with the deadline of the call that fills them."""

from __future__ import annotations

import time
from typing import Any

from actorlib import engine as _engine
from actorlib import exceptions
from actorlib.engines.on_ray.refs import RayRef
from actorlib.object_ref import ObjectRefGenerator


class Stream:
    """One of Ray's generators. ``completed`` resolves when the call has ended, and is the last item if it failed."""

    def __init__(self, rays: Any, completed: RayRef) -> None:
        self.rays, self.completed = rays, completed
        self._taken: list[RayRef | None] = []  # what was awaited and not asked for yet; None is the end
        self._is_over = False

    def next_item(self, timeout: float | None) -> RayRef | None:
        """The next one, None at the end. Raises GetTimeoutError."""
        if self._taken:
            return self._taken.pop()
        if self._is_over:
            return None
        left = self._left_s()
        ends_first = left is not None and (timeout is None or left <= timeout)
        try:
            item = self.rays._next_sync(timeout_s=left if ends_first else timeout)
        except StopIteration:
            return None
        if item.is_nil() and not ends_first:
            raise exceptions.GetTimeoutError(f"no item of {self.completed.name} within {timeout} s")
        return self._received(item)

    async def take(self) -> None:
        """Wait for the next one and keep it for ``next_item``."""
        try:
            self._taken.append(self._received(await self.rays._next_async(timeout_s=self._left_s())))
        except StopAsyncIteration:
            self._taken.append(None)

    def _left_s(self) -> float | None:
        expires_at = self.completed.expires_at
        return None if expires_at is None else max(0.0, expires_at - time.monotonic())

    def _received(self, item: Any) -> RayRef:
        """Nothing within the deadline: whoever asks for the end is told so."""
        self._is_over = item.is_nil()
        if item.is_nil() or item == self.completed.rays:
            return self.completed
        return RayRef(item, self.completed.about, self.completed.expires_at)


def generator_of(rays: Any, about: tuple[Any, ...] = (), expires_at: float | None = None) -> ObjectRefGenerator[Any]:
    """Our generator around one of Ray's."""
    completed = RayRef(rays.completed(), about, expires_at)
    generator: ObjectRefGenerator[Any] = ObjectRefGenerator(completed.task_id().binary(), _engine.current())
    generator._state = (Stream(rays, completed), completed)
    return generator
