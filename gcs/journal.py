"""What a table of the GCS may ask for: to persist, and to speak once that is durable.

``Port`` is the only way out of a table. Whatever is sent through it is held back until everything persisted in the
same turn of the loop has been committed, so nobody ever hears of something that a crash could undo.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from actorlib.transport.ids import NodeId
from actorlib.transport.link import Link


class Port(Protocol):
    """The way out of a table."""

    def persist(self, table: str, key: bytes, value: bytes | None) -> None:
        """Write a record, or delete it (None)."""

    def send(self, link: Link, message: tuple[Any, ...]) -> None:
        """To whoever asked or subscribed, after the commit."""

    def to_node(self, node_id: NodeId, message: tuple[Any, ...]) -> bool:
        """To a node, after the commit. False if it isn't alive."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any: ...


class Stories:
    """The last causes of what happened to each id, bounded; for messages when something is wrong."""

    def __init__(self, ids_max: int = 2_000, causes_max: int = 20) -> None:
        self._ids_max = ids_max
        self._causes_max = causes_max
        self._stories: dict[bytes, deque[str]] = {}

    def tell(self, some_id: bytes, cause: str) -> None:
        story = self._stories.get(some_id)
        if story is None:
            if len(self._stories) >= self._ids_max:
                del self._stories[next(iter(self._stories))]
            story = self._stories[some_id] = deque(maxlen=self._causes_max)
        story.append(cause)

    def story(self, some_id: bytes) -> str:
        return " -> ".join(self._stories.get(some_id, ()))
