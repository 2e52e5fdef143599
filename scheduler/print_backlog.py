"""Prints on their way to one driver, while it does not take them: stopped, in a debugger, or busy in C.

Bounded by size. The newest are kept, since that is what whoever comes back to the program wants to see, and how many
lines are missing is said in front of them; all of them are in the workers' files (``drivers/output.py``).
"""

from __future__ import annotations

from collections import deque

from actorlib.transport import limits
from actorlib.transport.messages import LogLines


class PrintBacklog:
    """What one driver has still to be told."""

    def __init__(self) -> None:
        self._held: deque[LogLines] = deque()
        self._bytes = 0
        self._lines_dropped = 0

    def is_empty(self) -> bool:
        return not self._held

    def add(self, message: LogLines) -> None:
        self._held.append(message)
        self._bytes += len(message.text)
        while self._bytes > limits.print_backlog_bytes_max and len(self._held) > 1:
            oldest = self._held.popleft()
            self._bytes -= len(oldest.text)
            self._lines_dropped += oldest.text.count("\n") + 1

    def take(self, room_bytes: int) -> list[LogLines]:
        """The oldest that are left, as many as there is room for; at least one if there is any room."""
        taken: list[LogLines] = []
        while self._held and room_bytes > 0:
            message = self._held.popleft()
            self._bytes -= len(message.text)
            room_bytes -= len(message.text)
            if self._lines_dropped:
                told = f"[actorlib: {self._lines_dropped} lines of prints were dropped: this program did not take them]"
                message = message._replace(text=f"{told}\n{message.text}")
                self._lines_dropped = 0
            taken.append(message)
        return taken

    def check(self) -> None:
        assert self._bytes == sum(len(message.text) for message in self._held), "bytes miscounted"
        assert self._bytes <= limits.print_backlog_bytes_max or len(self._held) == 1, "more held than may be"
