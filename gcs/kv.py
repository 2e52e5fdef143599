"""Key-value pairs by namespace: pickled functions and whatever else a session must find again."""

from __future__ import annotations

from actorlib.gcs.journal import Port
from actorlib.transport import limits
from actorlib.transport.link import Link
from actorlib.transport.messages import Failure, KvDelete, KvGet, KvKeys, KvPut, KvReply

TABLE = "kv"


class KeyValues:
    """All pairs; durable before acknowledged."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self.values: dict[tuple[str, bytes], bytes] = {}

    @staticmethod
    def _key(namespace: str, key: bytes) -> bytes:
        return namespace.encode() + b"\0" + key

    def load(self, key: bytes, value: bytes) -> None:
        namespace, _, name = key.partition(b"\0")
        self.values[namespace.decode(), name] = value

    def put(self, link: Link, message: KvPut) -> None:
        place = (message.namespace, message.key)
        if len(self._key(*place)) > limits.kv_key_bytes_max or "\0" in message.namespace:
            text = (
                f"a key and its namespace have at most {limits.kv_key_bytes_max - 1} bytes, the namespace without NUL"
            )
            self._port.send(link, Failure(message.request_id, "ValueError", text))
            return
        found = place in self.values
        if not found or message.overwrite:
            value = bytes(message.value)
            if self.values.get(place) != value:
                self.values[place] = value
                self._port.persist(TABLE, self._key(*place), value)
        self._port.send(link, KvReply(message.request_id, found, b"", ()))

    def take_back(self, key: bytes, kept: bytes | None) -> bool:
        """The disk refused a write: the pair is as it was before."""
        namespace, _, name = key.partition(b"\0")
        self.values.pop((namespace.decode(), name), None)
        if kept is not None:
            self.load(key, kept)
        return True

    def get(self, link: Link, message: KvGet) -> None:
        value = self.values.get((message.namespace, message.key))
        self._port.send(link, KvReply(message.request_id, value is not None, value or b"", ()))

    def delete(self, link: Link, message: KvDelete) -> None:
        found = self.values.pop((message.namespace, message.key), None) is not None
        if found:
            self._port.persist(TABLE, self._key(message.namespace, message.key), None)
        self._port.send(link, KvReply(message.request_id, found, b"", ()))

    def keys(self, link: Link, message: KvKeys) -> None:
        keys = tuple(key for space, key in self.values if space == message.namespace and key.startswith(message.prefix))
        self._port.send(link, KvReply(message.request_id, bool(keys), b"", keys))
