"""Checkpoints of actors: the newest few of each, with checksums, fenced by incarnation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from actorlib.gcs.journal import Port
from actorlib.transport import limits
from actorlib.transport.ids import ActorId
from actorlib.transport.link import Link
from actorlib.transport.messages import CheckpointGet, CheckpointPut, CheckpointReply, Done, Failure

TABLE = "checkpoints"
CHECKSUM_BYTES = 16


def _key(actor_id: ActorId, number: int) -> bytes:
    return actor_id + number.to_bytes(8, "big")


def _checksum(state: bytes) -> bytes:
    return hashlib.blake2b(state, digest_size=CHECKSUM_BYTES).digest()


class Checkpoints:
    """Numbers of the checkpoints that are kept; the states themselves are read from the journal when asked for."""

    def __init__(
        self, port: Port, incarnation: Callable[[ActorId], int | None], read: Callable[[str, bytes], bytes | None]
    ) -> None:
        self._port = port
        self._incarnation = incarnation
        self._read = read
        self.numbers: dict[ActorId, list[int]] = {}
        self._uncommitted: dict[bytes, bytes] = {}

    def load(self, key: bytes, _value: bytes) -> None:
        self.numbers.setdefault(ActorId(key[:-8]), []).append(int.from_bytes(key[-8:], "big"))

    def put(self, link: Link, message: CheckpointPut) -> None:
        current = self._incarnation(message.actor_id)
        if current is None or current != message.incarnation:
            text = f"incarnation {message.incarnation} of this actor is not the current one ({current})"
            self._port.send(link, Failure(message.request_id, "ActorDiedError", text))
            return
        state = bytes(message.state)
        if len(state) > limits.checkpoint_bytes_in_lmdb_max:
            text = f"a checkpoint of {len(state)} bytes is over the limit of {limits.checkpoint_bytes_in_lmdb_max}"
            self._port.send(link, Failure(message.request_id, "ValueError", text))
            return
        numbers = self.numbers.setdefault(message.actor_id, [])
        if message.number not in numbers:
            numbers.append(message.number)
        record = _checksum(state) + state
        self._uncommitted[_key(message.actor_id, message.number)] = record
        self._port.persist(TABLE, _key(message.actor_id, message.number), record)
        while len(numbers) > max(1, message.keep):
            self._port.persist(TABLE, _key(message.actor_id, numbers.pop(0)), None)
        self._port.send(link, Done(message.request_id))

    def take_back(self, key: bytes, kept: bytes | None) -> bool:
        """The disk refused a write: the checkpoints are those that it has."""
        actor_id, number = ActorId(key[:-8]), int.from_bytes(key[-8:], "big")
        if self._incarnation(actor_id) is None:
            return False  # they go with their actor
        self._uncommitted.pop(key, None)
        numbers = self.numbers.setdefault(actor_id, [])
        if kept is None and number in numbers:
            numbers.remove(number)
        elif kept is not None and number not in numbers:
            numbers.append(number)
            numbers.sort()
        return True

    def committed(self) -> None:
        """What was persisted can be read from the journal from now on."""
        self._uncommitted.clear()

    def get(self, link: Link, message: CheckpointGet) -> None:
        """The newest one whose checksum is right, or the one asked for."""
        numbers = self.numbers.get(message.actor_id, [])
        wanted = [message.number] if message.number >= 0 else list(reversed(numbers))
        for number in wanted:
            key = _key(message.actor_id, number)
            record = self._uncommitted.get(key) or self._read(TABLE, key)
            if record is not None and _checksum(record[CHECKSUM_BYTES:]) == record[:CHECKSUM_BYTES]:
                reply = CheckpointReply(message.request_id, number, record[CHECKSUM_BYTES:], tuple(numbers))
                self._port.send(link, reply)
                return
        self._port.send(link, CheckpointReply(message.request_id, -1, b"", tuple(numbers)))

    def forget(self, actor_id: ActorId) -> None:
        for number in self.numbers.pop(actor_id, []):
            self._port.persist(TABLE, _key(actor_id, number), None)
