"""A checkpoint of an actor: its state, how far it had come, and what it owed to its callers, as bytes and back.

The state's large buffers (numpy arrays) lie apart from its pickle. Where the checkpoint goes to a store, each buffer is
a *chunk* under the hash of its content, so that a buffer that did not change since the last time is not written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgpack

from actorlib.runtime.call_log_format import plain

INLINE, STORED = 1, 2
Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""``map``, or one that does several at once."""
CHECKSUM_BYTES = 16
CHUNK_BYTES_MIN = 64 << 10


class TornCheckpoint(Exception):
    """Its bytes are not those that were written."""


class Meta(NamedTuple):
    """What can be told of a checkpoint without reading its state."""

    position: int  # of the last call whose effect it has
    epoch: int  # see ``Durability``
    class_version: str
    class_name: str
    saved_at: float  # seconds since 1970
    state_bytes: int
    last_of: int = -1  # the incarnation that ended with this checkpoint, and ran nothing after it


class Place(NamedTuple):
    """Where a checkpoint lies that is not all in the GCS's record."""

    url: str
    file: str
    checksum: bytes
    node_id: bytes = b""  # whose disk that is; b"": not one node's alone


class Saved(NamedTuple):
    """A whole checkpoint."""

    meta: Meta
    table: tuple[Any, ...]  # of the call log
    objects: tuple[Any, ...]  # of references in the state: (object id, value or None, how to make it)
    state: bytes
    buffers: tuple[Any, ...]
    last_calls: tuple[Any, ...] = ()  # of an incarnation that ends in good order: what it did last


def checksum(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=CHECKSUM_BYTES).digest()


def pack(saved: Saved) -> bytes:
    """All of it in one piece."""
    meta, *rest = saved
    packed: bytes = msgpack.packb((INLINE, tuple(meta), *rest), default=plain)
    return packed


def pack_apart(saved: Saved, url: str, file: str, node_id: bytes, each: Each) -> tuple[bytes, bytes, dict[bytes, Any]]:
    """What the GCS keeps, what the store keeps under ``file``, and the chunks that it refers to.

    ``node_id``: whose disk the store is on, b"" if it is not one node's alone.
    """
    large = [buffer for buffer in saved.buffers if memoryview(buffer).nbytes >= CHUNK_BYTES_MIN]
    names = iter(each(checksum, large))
    chunks: dict[bytes, Any] = {}
    parts: list[Any] = []
    for buffer in saved.buffers:
        if memoryview(buffer).nbytes < CHUNK_BYTES_MIN:
            parts.append((b"", buffer))
        else:
            name = next(names)
            chunks[name] = buffer
            parts.append((name, b""))
    body = msgpack.packb((saved.table, saved.objects, saved.state, tuple(parts), saved.last_calls), default=plain)
    record = msgpack.packb((STORED, tuple(saved.meta), url, file, checksum(body), node_id))
    return record, body, chunks


def meta_of(record: bytes) -> Meta:
    """What the GCS's record tells. Raises TornCheckpoint."""
    return Meta(*_unpack(record)[1])


def place_of(record: bytes) -> Place | None:
    """Where a checkpoint lies that is in a store; None if it is all here."""
    fields = _unpack(record)
    return None if fields[0] == INLINE else Place(*fields[2:])


def moved(record: bytes, url: str, node_id: bytes) -> bytes:
    """The record of the same checkpoint where its files lie in another store."""
    kind, meta, _, file, wanted, *_ = _unpack(record)
    packed: bytes = msgpack.packb((kind, meta, url, file, wanted, node_id))
    return packed


def unpack(record: bytes) -> Saved:
    """A checkpoint that is all in one piece."""
    _, meta, *rest = _unpack(record)
    return Saved(Meta(*meta), *rest)


def unpack_apart(record: bytes, body: bytes, read_chunk: Callable[[bytes], Any], each: Each) -> Saved:
    """A checkpoint from a store. Raises TornCheckpoint where a checksum is wrong."""
    _, meta, _, file, wanted, *_ = _unpack(record)
    if checksum(body) != wanted:
        raise TornCheckpoint(f"{file} is not what was written")
    table, objects, state, parts, *last_calls = _unpack(body)

    def whole(part: tuple[bytes, Any]) -> Any:
        name, data = part
        if name:
            data = read_chunk(name)
            if checksum(data) != name:
                raise TornCheckpoint(f"chunk {name.hex()} is not what was written")
        return data

    return Saved(Meta(*meta), table, objects, state, tuple(each(whole, parts)), *last_calls)


def chunks_of(body: bytes) -> list[bytes]:
    """The names of the chunks that a checkpoint in a store refers to."""
    return [name for name, _ in _unpack(body)[3] if name]


def _unpack(data: bytes) -> tuple[Any, ...]:
    try:
        fields = msgpack.unpackb(data, use_list=False, raw=False, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise TornCheckpoint(f"it can't be read: {error}") from error
    if not isinstance(fields, tuple):
        raise TornCheckpoint("it can't be read: not a record")
    return fields
