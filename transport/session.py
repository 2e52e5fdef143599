"""Order, at-most-once and flow control between two processes, over links that may lose, repeat and reorder.

Both ends keep one ``Session``. Each batch carries a header: the session's nonce (a number that the side that dialled
counts up, so that nothing of an earlier session is taken for this one), its sequence number, and how far the other
direction has been received (a cumulative acknowledgement). The receiver delivers batches in sequence and drops
repetitions. The sender keeps what is not acknowledged and sends it again after a while, with exponential backoff.
Credit: at most ``limits.session_batches_in_flight_max`` batches and ``session_bytes_in_flight_max`` bytes are
unacknowledged.

Over a local socket nothing is ever lost, so the costs that count are those of the good case: one ``struct.pack`` and
one ``unpack`` a batch; acknowledgements ride on batches that go the other way, and are sent alone only every
``session_ack_every_batches`` or ``session_ack_delay_s``.
"""

from __future__ import annotations

import struct
from typing import Any

from actorlib.transport import limits

HEADER = struct.Struct("<BBHIII")  # version, flags, reserved, nonce, sequence, acknowledged up to
HEADER_BYTES = HEADER.size
VERSION = 1
ACK_ONLY = 1


class MalformedHeader(Exception):
    """A header of another version, or none at all."""


class NewSession(Exception):
    """The peer has dialled again: what it sends now belongs to a later session than this one."""


class Session:
    """One end of a conversation. ``nonce`` 0: not known yet, taken from the first batch."""

    __slots__ = (
        "_ack_deadline",
        "_bytes_in_flight",
        "_early",
        "_owed",
        "_received",
        "_resend_after_s",
        "_resend_deadline",
        "_sequence",
        "_unacknowledged",
        "nonce",
    )

    def __init__(self, nonce: int = 0) -> None:
        self.nonce = nonce
        self._sequence = 0  # of the last batch sent
        self._received = 0  # up to here all have come
        self._unacknowledged: dict[int, tuple[list[Any], int]] = {}
        self._bytes_in_flight = 0
        self._early: dict[int, Any] = {}  # batches that came before their turn
        self._owed = 0  # batches received that no acknowledgement has covered
        self._ack_deadline = float("inf")
        self._resend_deadline = float("inf")
        self._resend_after_s = limits.session_resend_after_s

    def has_credit(self) -> bool:
        return (
            len(self._unacknowledged) < limits.session_batches_in_flight_max
            and self._bytes_in_flight < limits.session_bytes_in_flight_max
        )

    def has_all_arrived(self) -> bool:
        """Whether the peer has acknowledged all that was sent."""
        return not self._unacknowledged

    def bytes_in_flight(self) -> int:
        """Sent, and not known to have arrived."""
        return self._bytes_in_flight

    def is_under_way(self, batches: int) -> bool:
        """Whether so many batches were sent, and something has come back: the peer knows who we are."""
        return self._sequence >= batches and self._received > 0

    def outgoing(self, now: float, frames: list[Any], size: int) -> list[Any]:
        """Frames to send for a new batch: its first frame gets the header in front. Needs credit."""
        self._sequence += 1
        header = HEADER.pack(VERSION, 0, 0, self.nonce, self._sequence, self._received)
        self._owed = 0
        self._ack_deadline = float("inf")
        ready = [header + frames[0], *frames[1:]]
        if not self._unacknowledged:
            self._resend_deadline = now + self._resend_after_s
        self._unacknowledged[self._sequence] = (ready, size)
        self._bytes_in_flight += size
        return ready

    def incoming(self, now: float, first_frame: bytes, batch: Any) -> list[Any]:
        """What can be delivered now that ``batch`` has come: none, it, or it and those that waited for it."""
        version, flags, _, nonce, sequence, acknowledged = HEADER.unpack_from(first_frame)
        if version != VERSION:
            raise MalformedHeader(f"session version {version}, not {VERSION}")
        if self.nonce == 0:
            self.nonce = nonce
        elif nonce != self.nonce:
            if nonce > self.nonce:
                raise NewSession
            return []
        if self._unacknowledged:
            self._acknowledge(now, acknowledged)
        if flags & ACK_ONLY:
            return []
        self._owed += 1
        if self._ack_deadline == float("inf"):
            self._ack_deadline = now + limits.session_ack_delay_s
        if sequence == self._received + 1:
            self._received = sequence
            if not self._early:
                return [batch]
            return [batch, *self._in_turn()]
        if sequence > self._received and len(self._early) < limits.session_batches_in_flight_max:
            self._early[sequence] = batch
        return []

    def _in_turn(self) -> list[Any]:
        ready = []
        while self._received + 1 in self._early:
            self._received += 1
            ready.append(self._early.pop(self._received))
        return ready

    def _acknowledge(self, now: float, acknowledged: int) -> None:
        unacknowledged = self._unacknowledged
        progress = False
        while unacknowledged:
            sequence = next(iter(unacknowledged))
            if sequence > acknowledged:
                break
            self._bytes_in_flight -= unacknowledged.pop(sequence)[1]
            progress = True
        if progress:
            self._resend_after_s = limits.session_resend_after_s
            self._resend_deadline = now + self._resend_after_s if unacknowledged else float("inf")

    def owes_acknowledgement(self) -> bool:
        return self._owed >= limits.session_ack_every_batches

    def acknowledgement(self) -> bytes:
        """A header that only acknowledges."""
        self._owed = 0
        self._ack_deadline = float("inf")
        return HEADER.pack(VERSION, ACK_ONLY, 0, self.nonce, 0, self._received)

    def next_deadline(self) -> float:
        return min(self._ack_deadline, self._resend_deadline)

    def on_timer(self, now: float) -> list[list[Any]]:
        """What to send because time has passed: an acknowledgement, batches again."""
        out: list[list[Any]] = []
        if now >= self._ack_deadline:
            out.append([self.acknowledgement()])
        if now >= self._resend_deadline:
            out.extend(frames for frames, _ in list(self._unacknowledged.values())[:64])
            self._resend_after_s = min(self._resend_after_s * 2, limits.session_resend_after_s_max)
            self._resend_deadline = now + self._resend_after_s
        return out

    def check(self) -> None:
        assert len(self._unacknowledged) <= limits.session_batches_in_flight_max, "more in flight than the credit"
        assert self._bytes_in_flight == sum(size for _, size in self._unacknowledged.values()), "bytes miscounted"
        assert all(sequence > self._received for sequence in self._early), "an early batch whose turn is past"
