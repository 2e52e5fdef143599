"""How objects can be made again whose references have left their owner's process, in case that dies.

Owners tell in batches which of their objects others refer to, each with a payload that only processes can read: its
recipe, its value if that is small, or why there is neither. When an owner has died, the first borrower that asks
becomes the new owner and gets the payload; those that ask later are sent to it. Bounded in bytes: the oldest rows go
first, and whoever asks for one is told so.
"""

from __future__ import annotations

from typing import Any

from actorlib.gcs.journal import Port
from actorlib.transport import codec, limits
from actorlib.transport.ids import JobId, ObjectId
from actorlib.transport.link import NOWHERE, Address, Link
from actorlib.transport.messages import NOT_MADE_AGAIN, LineageFind, LineageFound, LineageKept, Payload

TABLE = "lineage"
NOT_KEPT = (
    "nothing is kept of how it was made: its owner died before it could tell, or had told that it can't be made again "
    "(large values of put(), of actors and of generators can't) to a GCS that has begun anew since"
)


class Row:
    __slots__ = ("job_id", "new_owner", "payload")

    def __init__(self, job_id: JobId, payload: bytes) -> None:
        self.job_id = job_id
        self.payload = payload
        self.new_owner: Address | None = None


class Lineages:
    """All rows. See the module's docstring."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self.rows: dict[ObjectId, Row] = {}
        self.bytes = 0
        self.dropped = 0  # for lack of room

    def load(self, _key: bytes, value: bytes) -> None:
        (message,) = codec.decode_batch(value)
        for object_id, payload in message.rows:
            self._put(message.job_id, object_id, payload)

    def keep(self, _: Link, message: LineageKept) -> None:
        for object_id, payload in message.rows:
            self._put(message.job_id, object_id, payload)
            if bytes(payload) in NOT_MADE_AGAIN:
                continue  # not worth a write to disk
            row = LineageKept(message.job_id, ((object_id, bytes(payload)),), ())
            self._port.persist(TABLE, object_id, codec.encode_batch([row])[0])
        for object_id in message.dropped:
            self._drop(object_id)
        while self.bytes > limits.lineage_rows_bytes_max:
            self._drop(next(iter(self.rows)))
            self.dropped += 1

    def _put(self, job_id: JobId, object_id: ObjectId, payload: Payload) -> None:
        before = self.rows.pop(object_id, None)
        if before is not None:
            self.bytes -= len(before.payload)
        row = self.rows[object_id] = Row(job_id, bytes(payload))
        self.bytes += len(row.payload)

    def _drop(self, object_id: ObjectId) -> None:
        row = self.rows.pop(object_id, None)
        if row is not None:
            self.bytes -= len(row.payload)
            if row.payload not in NOT_MADE_AGAIN:
                self._port.persist(TABLE, object_id, None)

    def find(self, link: Link, message: LineageFind) -> None:
        row = self.rows.get(message.object_id)
        if row is None or row.payload in NOT_MADE_AGAIN:
            reason = NOT_KEPT if row is None else NOT_MADE_AGAIN[row.payload]
            if row is None and self.dropped:
                reason += f", or it is one of {self.dropped} whose lineage was dropped for lack of room"
            self._port.send(link, LineageFound(message.request_id, NOWHERE, b"", reason))
            return
        mine = (message.who.process_id, message.dead)
        if row.new_owner is not None and row.new_owner.process_id not in mine:
            self._port.send(link, LineageFound(message.request_id, row.new_owner, b"", ""))
            return
        row.new_owner = message.who
        self._port.send(link, LineageFound(message.request_id, message.who, row.payload, ""))

    def job_ended(self, job_id: JobId) -> None:
        for object_id in [oid for oid, row in self.rows.items() if row.job_id == job_id]:
            self._drop(object_id)

    def table(self) -> list[dict[str, Any]]:
        """For people who look."""
        return [
            {
                "object_id": object_id.hex(),
                "bytes": len(row.payload),
                "new_owner": row.new_owner.process_id.hex() if row.new_owner is not None else "",
            }
            for object_id, row in self.rows.items()
        ]

    def check(self) -> None:
        assert self.bytes == sum(len(row.payload) for row in self.rows.values()), "bytes of lineage miscounted"
