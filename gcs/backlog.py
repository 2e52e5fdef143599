"""What becomes of a turn whose writes the disk refused.

The tables have moved by then, and the disk has not. So nothing is said as if it had been written, and:

* **What somebody asked to be made** (a key, a job, an actor, a placement group, a checkpoint) is taken back: the table
  is again as the journal has it, what was ordered because of it is not ordered, and who asked gets an error. From then
  on the door is closed: such requests are refused before a table has moved, until there is room.
* **What has happened** (a node was lost, an actor has ended, somebody wants something to end) can't be taken back. It
  waits here, with all that is to be said because of it, and is written and said once there is room. Whoever waits for
  the acknowledgement of a fact goes on waiting; whoever asked for an end is told that it will come.
* **What only looks** is answered, and may see what waits here.

So what waits is bounded by the rows that there are: of each row the last write.
"""

from __future__ import annotations

from typing import Any

from actorlib.transport import messages
from actorlib.transport.link import Link

Write = tuple[str, bytes, "bytes | None"]
Said = tuple[Link, tuple[Any, ...]]
Asked = tuple[bytes, int]  # who, and the id of the request

ERROR = "OutOfDiskError"
SAID_AT_ONCE = (messages.HeartbeatSeen, messages.NodesFree, messages.MustDrain)
"""These tell nothing that has to be on the disk first, but for the number of this life of the GCS."""
BOOT_ROW = ("meta", b"boot")


def subjects(message: Any) -> tuple[bytes, ...]:
    """The actor or placement group that a message is about, if it is about one."""
    about = (message, getattr(message, "spec", None), getattr(message, "group", None))
    ids = (getattr(part, name, None) for part in about for name in ("actor_id", "group_id"))
    return tuple(some_id for some_id in ids if some_id)


class Backlog:
    """See the module's docstring. ``reason`` is what the disk said; "" while it takes what it is given."""

    def __init__(self) -> None:
        self.reason = ""
        self._writes: dict[tuple[str, bytes], bytes | None] = {}
        self._said: list[Said] = []

    @property
    def writes(self) -> list[Write]:
        return [(table, key, value) for (table, key), value in self._writes.items()]

    def error(self, request_id: int) -> messages.Failure:
        text = (
            f"the GCS can't write to its disk ({self.reason}); what was to be made was not made, what was to end will "
            "end once there is room; make room, then try again"
        )
        return messages.Failure(request_id, ERROR, text)

    def refused(
        self,
        reason: str,
        writes: list[Write],
        said: list[Said],
        taken_back: dict[bytes, None],
        facts: dict[Asked, None],
    ) -> list[Said]:
        """A turn was refused; ``writes`` are what is left of it. Gives what is to be said at once.

        Args:
            taken_back: ids of the actors and groups that were taken back.
            facts: requests that tell of something, so that only the truth may answer them.
        """
        self.reason = reason
        for table, key, value in writes:
            self._writes.pop((table, key), None)
            self._writes[table, key] = value
        now: list[Said] = []
        for link, message in said:
            asked = self._request_id(link, message, facts)
            if asked:
                now.append((link, self.error(asked)))
            elif type(message) in SAID_AT_ONCE:
                now += self._if_boot_is_written(link, message)
            elif not any(some_id in taken_back for some_id in subjects(message)):
                self._said.append((link, message))
        return now

    def hold(self, said: list[Said], facts: dict[Asked, None]) -> list[Said]:
        """A turn wrote nothing. What may be said of it; the rest waits with what it may depend on."""
        now: list[Said] = []
        for link, message in said:
            if type(message) in SAID_AT_ONCE:
                now += self._if_boot_is_written(link, message)
            else:
                (now if self._request_id(link, message, facts) else self._said).append((link, message))
        return now

    def _if_boot_is_written(self, link: Link, message: Any) -> list[Said]:
        """A life that told its number, and ended before it was written, would be followed by one of the same number."""
        return [(link, message)] if BOOT_ROW not in self._writes else []

    @staticmethod
    def _request_id(link: Link, message: Any, facts: dict[Asked, None]) -> int:
        """Of the request that a message answers; 0 if it answers none, or one that only the truth may answer."""
        request_id = int(getattr(message, "request_id", 0))
        is_fact = type(message) is messages.NodeRegistered or (link.peer.process_id, request_id) in facts
        return 0 if is_fact else request_id

    def written(self) -> list[Said]:
        """All of it is on the disk. Gives what has waited to be said."""
        said, self._said = self._said, []
        self.reason = ""
        self._writes.clear()
        return said
