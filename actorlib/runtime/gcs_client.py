"""What this process has asked of the GCS and was not answered, so that it can be asked again.

The GCS may die and begin anew. Whoever waits for an answer simply waits a moment longer: when the GCS has begun
(``GcsStarted``, from our node), this process dials it again, says again what is not answered, in the order in which it
was said, and subscribes again to what it wants to hear of. Every request has an id, and handling it twice has the
effect of once, so it does not matter whether the first was handled.
"""

from __future__ import annotations

from typing import Any


class GcsClient:
    """Requests without an answer, by their ids; an ordered dict is the queue."""

    def __init__(self) -> None:
        self.boot = 0
        self.unanswered: dict[int, tuple[Any, ...]] = {}

    def sent(self, message: Any) -> None:
        """A message for the GCS; those without a request id are lost with it."""
        if "request_id" in message._fields and message.request_id:
            self.unanswered[message.request_id] = message

    def answered(self, request_id: int) -> None:
        self.unanswered.pop(request_id, None)

    def started(self, boot: int) -> list[tuple[Any, ...]] | None:
        """The GCS has begun its life number ``boot``: what to say again; None if that was known."""
        if boot <= self.boot:
            return None
        self.boot = boot
        return list(self.unanswered.values())
