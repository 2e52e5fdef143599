"""Answers that must not change when a question is asked again.

Most requests can be handled twice and give the same answer twice. For those that can't (was the key there *before* this
put? has the actor been killed, or killed again?) the answer is kept, in the transaction that has the effect, until many
more have been given.
"""

from __future__ import annotations

from typing import Any

from actorlib.gcs.journal import Port
from actorlib.transport import codec, limits
from actorlib.transport.ids import ProcessId
from actorlib.transport.messages import KvReply

TABLE = "answers"


class Answers:
    """The last answers to questions of that kind, by who asked."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._answers: dict[bytes, Any] = {}

    @staticmethod
    def _key(asker: ProcessId, request_id: int) -> bytes:
        return asker + request_id.to_bytes(8, "big")

    def load(self, key: bytes, value: bytes) -> None:
        (self._answers[key],) = codec.decode_batch(value)

    def find(self, asker: ProcessId, request_id: int) -> Any:
        """The answer that was given before; None: it was not asked before."""
        return self._answers.get(self._key(asker, request_id))

    def keep(self, asker: ProcessId, request_id: int, answer: tuple[Any, ...]) -> None:
        key = self._key(asker, request_id)
        self._answers[key] = answer
        self._port.persist(TABLE, key, codec.encode_batch([answer])[0])
        while len(self._answers) > limits.answers_kept_max:
            oldest = next(iter(self._answers))
            del self._answers[oldest]
            self._port.persist(TABLE, oldest, None)

    def take_back(self, key: bytes, _kept: bytes | None) -> bool:
        """The disk refused a write: the answer about a pair was not given. (That an end was ordered stays true.)"""
        if type(self._answers.get(key)) is not KvReply:
            return False
        del self._answers[key]
        return True

    def forget(self, asker: ProcessId) -> None:
        """It is dead, and asks no more."""
        for key in [key for key in self._answers if key.startswith(asker)]:
            del self._answers[key]
            self._port.persist(TABLE, key, None)
