"""Copies of call logs on other nodes (level ``replicated``): what may leave when, and who keeps what.

The worker sends each batch of its log to one other node as well. ``Gate`` holds back what depends on batches that the
other node has not acknowledged: messages of a turn are held with the number of the last batch that was sent by then.
``Fences`` is the other node's side: once a newer incarnation of an actor has asked for its copy, an older one is
refused and can never again have anything acknowledged.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from actorlib.runtime.call_log_format import CALL, HEAD, Record
from actorlib.transport.ids import ActorId


class Pending(Protocol):
    """A link with messages that wait to leave."""

    pending: list[Any]


class Gate:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.sent = 0
        self.acknowledged = 0
        self.passes: Any = None  # the link to the other node: what goes there comes behind the batch
        self._held: deque[tuple[int, Any, list[Any]]] = deque()

    def is_open(self) -> bool:
        return self.sent == self.acknowledged

    def hold(self, dirty: list[Any]) -> list[Any]:
        """Of links with pending messages, those whose messages may leave now; the messages of the others are kept."""
        if self.is_open():
            return dirty
        leaving = []
        for link in dirty:
            if link is self.passes:
                leaving.append(link)
            elif link.pending:
                self._held.append((self.sent, link, link.pending))
                link.pending = []
        return leaving

    def acknowledge(self, number: int) -> list[tuple[Any, list[Any]]]:
        """The other node has the batches up to ``number``. Gives what may leave, in order."""
        self.acknowledged = max(self.acknowledged, number)
        released = []
        while self._held and self._held[0][0] <= self.acknowledged:
            _, link, messages = self._held.popleft()
            released.append((link, messages))
        return released


class Fences:
    """Which incarnation of each actor may still write."""

    def __init__(self) -> None:
        self._newest: dict[ActorId, int] = {}

    def admits(self, actor_id: ActorId, incarnation: int) -> bool:
        if incarnation < self._newest.get(actor_id, -1):
            return False
        self._newest[actor_id] = incarnation
        return True

    def forget(self, actor_id: ActorId) -> None:
        self._newest.pop(actor_id, None)


def reach(records: list[Record]) -> tuple[int, int, int]:
    """How far a log leads, to be compared: epoch, last position, number of records."""
    epoch = max((record[3] for record in records if record[0] == HEAD), default=-1)
    position = max((record[1] for record in records if record[0] == CALL), default=-1)
    return epoch, position, len(records)
