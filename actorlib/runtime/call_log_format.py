"""How the records of a durable actor's calls lie in a file: batches with checksums, so that a torn end is seen.

A segment is a row of batches. Each has a header (length, checksum) and a msgpack array of records. The checksum is
seeded with the segment's number, so that nothing left in the place of an older segment is ever taken for this one. The
first batch of a segment holds one record, ``(HEAD, ...)``, that says whose it is.

Records are arrays whose first item is their kind:

* ``(HEAD, format, actor_id, epoch, class_version, boot_id, level)``
* ``(CALL, position, caller, sequence, target, args, dependencies, num_returns, extra)``: a call begins to run
* ``(LEARNED, kind, key, value)``: what the call before it learned from outside, in order
* ``(SKIPPED, position, text)``: that call is never run again; it is answered with WorkerCrashedError
* ``(ANSWERED, caller, sequence, status, values)``: answered without being run
* ``(SETTLED, caller, sequence)``: the caller has the replies up to there
* ``(GONE, caller)``: the caller's process has ended
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack

HEAD, CALL, LEARNED, SKIPPED, ANSWERED, SETTLED, GONE = range(7)
FORMAT_VERSION = 1
BATCH = struct.Struct("<II")  # bytes of the body, checksum
Record = tuple[Any, ...]


def plain(item: Any) -> Any:
    """For msgpack: what is bytes-like becomes bytes."""
    return bytes(memoryview(item).cast("B"))


def encode(records: Sequence[Record], segment: int) -> bytes:
    """One batch of records, for the end of segment number ``segment``."""
    body: bytes = msgpack.packb(records, default=plain, use_bin_type=True)
    return BATCH.pack(len(body), zlib.crc32(body, segment & 0xFFFFFFFF)) + body


def decode(data: bytes, segment: int) -> tuple[list[Record], int]:
    """All records of the good batches of a segment, and how many of its bytes they take; what follows is torn."""
    records: list[Record] = []
    end = 0
    for batch, end in _batches(data, segment):  # noqa: B007  (the last end is wanted)
        records.extend(batch)
    return records, end


def _batches(data: bytes, segment: int) -> Iterator[tuple[tuple[Record, ...], int]]:
    view, at = memoryview(data), 0
    while at + BATCH.size <= len(data):
        size, checksum = BATCH.unpack_from(data, at)
        body = view[at + BATCH.size : at + BATCH.size + size]
        if size == 0 or len(body) < size or zlib.crc32(body, segment & 0xFFFFFFFF) != checksum:
            return
        at += BATCH.size + size
        yield (
            msgpack.unpackb(
                body,
                use_list=False,
                raw=False,
                strict_map_key=False,
                max_array_len=max(size, 1),
                max_map_len=max(size, 1),
            ),
            at,
        )
