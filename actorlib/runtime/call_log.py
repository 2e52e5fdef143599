"""What a durable actor has applied, what it owes to whom, and what may be sent when: each call takes effect once.

Theory of operation
-------------------
Each call that an actor runs gets a **position** (1, 2, ...; 0 is the constructor). Its record, and what it learned from
outside while it ran, wait in ``pending`` until ``take`` hands them to the driver, which writes them *before anything
leaves the process*. So whoever has seen anything of a call can count on its record being in the log.

A caller names a call by a **sequence** that rises and is the same however often the call is sent. A caller is a process
(8 bytes) or, where a durable actor calls, that actor's *voice* (8 bytes made of its id): its sequences are (position,
index), the same in every incarnation. One caller's calls come in order, so one number tells what was applied of it. The
reply is kept until the caller has it (``settled``); a call that comes again gets the reply that is kept.

After a crash the state is that of a checkpoint, then ``Recovery`` gives the calls of the log in order, each with what
it had learned, so that it does the same again. The last of them may have been in the middle: it is run in full view
once the others are through.

Who may be wrong: a caller may send a call again that waits or runs here (``Known.WAITS``), may send one whose reply it
has acknowledged (a durable caller that lost the tail of its own log), and may have seen more than this actor remembers
(``seen``): then it gets ``StateRolledBackError`` once.

Limits: ``bytes_since_checkpoint`` against ``limits.call_log_bytes_max``: from a half on a checkpoint is wanted, at the
whole no call starts until there is one.
"""

from __future__ import annotations

import enum
import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from actorlib.runtime.call_log_format import ANSWERED, CALL, GONE, HEAD, LEARNED, SETTLED, SKIPPED, Record
from actorlib.transport import limits

RECORD_OVERHEAD_BYTES = 64
Payloads = tuple[Any, ...]


class Known(enum.Enum):
    """What is known of a call that arrives."""

    NEW = "never seen"
    WAITS = "queued or running"
    ANSWERED = "its reply is kept"
    SETTLED = "applied, and its caller has had the reply"


class Reply(NamedTuple):
    """What a call gave; ``items`` are those of a generator."""

    status: int
    values: Payloads
    items: Payloads


class Caller:
    """What is applied of one caller's calls, and the replies that it may not have yet."""

    __slots__ = ("applied", "is_behind", "replies", "settled", "waiting")

    def __init__(self, applied: int = -1, settled: int = -1) -> None:
        self.applied = applied
        self.settled = settled
        self.replies: dict[int, Reply] = {}  # in the order of their numbers
        self.waiting: dict[int, Any] = {}  # calls that are queued or run
        self.is_behind = False  # it has seen replies of calls that are lost here, and was not told yet


class Logged:
    """A call as the log has it, and what it learned."""

    __slots__ = ("arguments", "caller", "inputs", "position", "sequence", "skipped", "target")

    def __init__(self, position: int, caller: bytes, sequence: int, target: str, arguments: Payloads) -> None:
        self.position = position
        self.caller = caller
        self.sequence = sequence
        self.target = target
        self.arguments = arguments  # args, dependencies, num_returns, extra
        self.inputs: deque[tuple[str, Any, Any]] = deque()
        self.skipped = ""


class CallLog:
    """See the module's docstring. ``begin``, ``learn`` and ``finish`` are called by the thread that runs calls."""

    def __init__(self) -> None:
        self.position = -1  # of the call that was begun last
        self.callers: dict[bytes, Caller] = {}
        self.pending: deque[Record] = deque()
        self.bytes_since_checkpoint = 0

    # -- calls that arrive ---------------------------------------------------------------------------------------------
    def known(self, caller: bytes, sequence: int) -> Known:
        found = self.callers.get(caller)
        if found is None:
            return Known.NEW
        if sequence in found.waiting:
            return Known.WAITS
        if sequence > found.applied:
            return Known.NEW
        return Known.ANSWERED if sequence in found.replies else Known.SETTLED

    def caller(self, caller: bytes) -> Caller:
        found = self.callers.get(caller)
        if found is None:
            found = self.callers[caller] = Caller()
        return found

    def reply_to(self, caller: bytes, sequence: int) -> Reply:
        return self.callers[caller].replies[sequence]

    def settled(self, caller: bytes, sequence: int) -> None:
        """The caller has the replies up to ``sequence``: they need not be kept."""
        found = self.callers.get(caller)
        if found is None or sequence <= found.settled:
            return
        found.settled = sequence
        replies = found.replies
        for number in list(itertools.takewhile(lambda number: number <= sequence, replies)):
            del replies[number]
        self.pending.append((SETTLED, caller, sequence))

    def seen(self, caller: bytes, sequence: int) -> None:
        """The caller has seen the reply to ``sequence``. Where that call is not known, it is behind the times."""
        found = self.caller(caller)
        if sequence > max(found.applied, *found.waiting, -1):
            found.is_behind = True  # (the call that the log ends with waits to be run to its end)

    def gone(self, caller: bytes) -> None:
        """The caller's process has ended: what it had done stays, replies are wanted by nobody."""
        found = self.callers.get(caller)
        if found is not None and not found.waiting:
            del self.callers[caller]
            self.pending.append((GONE, caller))

    # -- calls that run ------------------------------------------------------------------------------------------------
    def begin(self, caller: bytes, sequence: int, target: str, arguments: Payloads, size: int) -> int:
        """A call starts to run. Gives its position."""
        self.position += 1
        self.pending.append((CALL, self.position, caller, sequence, target, *arguments))
        self.bytes_since_checkpoint += size + RECORD_OVERHEAD_BYTES
        return self.position

    def learn(self, kind: str, key: Any, value: Any, size: int) -> None:
        """The running call has learned something from outside."""
        self.pending.append((LEARNED, kind, key, value))
        self.bytes_since_checkpoint += size + RECORD_OVERHEAD_BYTES

    def finish(self, caller: bytes, sequence: int, reply: Reply) -> None:
        found = self.caller(caller)
        if found.waiting:
            found.waiting.pop(sequence, None)
        if sequence > found.applied:
            found.applied = sequence
        if sequence > found.settled:
            found.replies[sequence] = reply

    def answer(self, caller: bytes, sequence: int, reply: Reply) -> None:
        """Answer a call without running it, for good."""
        self.pending.append((ANSWERED, caller, sequence, reply.status, reply.values))
        self.finish(caller, sequence, reply)

    def skip(self, position: int, text: str) -> None:
        self.pending.append((SKIPPED, position, text))

    # -- the way to the disk -------------------------------------------------------------------------------------------
    def take(self) -> list[Record]:
        """What must be in the log before anything leaves from now on."""
        pending = self.pending
        return [pending.popleft() for _ in range(len(pending))]

    def put_back(self, records: Sequence[Record]) -> None:
        """They could not be written."""
        self.pending.extendleft(reversed(records))

    # -- limits --------------------------------------------------------------------------------------------------------
    def wants_checkpoint(self) -> bool:
        return self.bytes_since_checkpoint * 2 >= limits.call_log_bytes_max

    def is_full(self) -> bool:
        return self.bytes_since_checkpoint >= limits.call_log_bytes_max

    # -- checkpoints ---------------------------------------------------------------------------------------------------
    def table(self) -> tuple[Any, ...]:
        """All callers, as plain data for a checkpoint."""
        return tuple(
            (name, caller.applied, caller.settled, tuple((n, *reply) for n, reply in caller.replies.items()))
            for name, caller in self.callers.items()
        )

    def load_table(self, rows: Iterable[tuple[Any, ...]]) -> None:
        for name, applied, settled, replies in rows:
            caller = self.callers[name] = Caller(applied, settled)
            caller.replies.update({number: Reply(*reply) for number, *reply in replies})

    def check(self) -> None:
        for name, caller in list(self.callers.items()):
            for number in list(caller.replies):
                assert caller.settled < number <= caller.applied, f"{name.hex()}: a reply that nobody can want"


class Recovery:
    """The calls that a log tells of, after the position of a checkpoint, ready to be run again."""

    def __init__(self, records: Iterable[Record], after: int) -> None:
        self.calls: list[Logged] = []
        self.answered: list[tuple[bytes, int, Reply]] = []
        self.settled: dict[bytes, int] = {}
        self.gone: dict[bytes, None] = {}
        self.hole: int | None = None  # the first position that is missing
        self.head: Record | None = None
        self._after = after
        self._last: Logged | None = None
        self._positions: dict[int, Logged] = {}
        for record in records:
            if self.hole is None:
                _READERS[record[0]](self, record)

    def _on_head(self, record: Record) -> None:
        if self.head is None or record[3] >= self.head[3]:
            self.head = record

    def _on_call(self, record: Record) -> None:
        _, position, caller, sequence, target, *arguments = record
        self._last = logged = Logged(position, caller, sequence, target, tuple(arguments))
        if position <= self._after:
            return
        expected = self.calls[-1].position + 1 if self.calls else self._after + 1
        if position < expected:
            return  # written twice: what was written first was seen
        if position > expected:
            self.hole = expected
            return
        self.calls.append(logged)
        self._positions[position] = logged
        self.gone.pop(caller, None)

    def _on_learned(self, record: Record) -> None:
        if self._last is not None:
            self._last.inputs.append((record[1], record[2], record[3]))

    def _on_skipped(self, record: Record) -> None:
        if record[1] in self._positions:
            self._positions[record[1]].skipped = record[2]

    def _on_answered(self, record: Record) -> None:
        _, caller, sequence, status, values = record
        self.answered.append((caller, sequence, Reply(status, values, ())))

    def _on_settled(self, record: Record) -> None:
        self.settled[record[1]] = max(record[2], self.settled.get(record[1], -1))

    def _on_gone(self, record: Record) -> None:
        self.gone[record[1]] = None

    def is_settled(self, caller: bytes, sequence: int) -> bool:
        """Nobody will ask for the reply again."""
        return caller in self.gone or sequence <= self.settled.get(caller, -1)


_READERS: dict[int, Any] = {
    HEAD: Recovery._on_head,
    CALL: Recovery._on_call,
    LEARNED: Recovery._on_learned,
    SKIPPED: Recovery._on_skipped,
    ANSWERED: Recovery._on_answered,
    SETTLED: Recovery._on_settled,
    GONE: Recovery._on_gone,
}
