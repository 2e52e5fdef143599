"""Room in shared memory: size classes, and where in a slab the next object goes.

A slab is one file in shared memory. A large object has a slab to itself, of its size class; smaller ones lie behind
each other in a slab that one process fills. Nothing inside a slab is freed singly: a slab is used again when all of
its objects are freed and nobody maps it, so an allocator is a number that only grows.

An object in a slab: a header of 64 bytes (magic, object id, count of parts, total size, stamp), a table of part sizes,
and the parts (the pickle, then its out-of-band buffers), each aligned to 64 bytes. The stamp is another one whenever an
object is written, so that copies of the same id can be told apart that a retry has made with other bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from actorlib.transport import limits
from actorlib.transport.ids import ObjectId

ALIGNMENT = 64
MAGIC = b"ACTOROB1"
HEADER = struct.Struct("<8s20sIQQ")  # magic, object id, parts, total size, stamp
HEADER_BYTES = 64
PART = struct.Struct("<Q")


class CorruptObject(Exception):
    """The bytes at that place are not the object that was looked for."""


def aligned(size: int, to: int = ALIGNMENT) -> int:
    return -(-size // to) * to


def object_bytes(sizes: Sequence[int]) -> int:
    """Bytes that an object of these part sizes takes in a slab."""
    return HEADER_BYTES + aligned(PART.size * len(sizes)) + sum(aligned(size) for size in sizes)


def slab_bytes(size: int) -> int:
    """The size class for an object: the shared size if it is small, else up to an eighth more than it needs."""
    if size <= limits.slab_bytes_min // 2:
        return limits.slab_bytes_min
    step = max(2 << 20, 1 << (max(size.bit_length(), 24) - 4))
    return aligned(size, step)


def is_shared(slab_size: int) -> bool:
    """Whether a slab of this size is for many objects."""
    return slab_size == limits.slab_bytes_min


def write_header(target: memoryview, object_id: ObjectId, sizes: Sequence[int], stamp: int = 0) -> list[int]:
    """Write header and table at the start of ``target``; gives the offset of each part."""
    HEADER.pack_into(target, 0, MAGIC, object_id, len(sizes), object_bytes(sizes), stamp)
    for index, size in enumerate(sizes):
        PART.pack_into(target, HEADER_BYTES + PART.size * index, size)
    offsets, at = [], HEADER_BYTES + aligned(PART.size * len(sizes))
    for size in sizes:
        offsets.append(at)
        at += aligned(size)
    return offsets


def read_parts(source: memoryview, object_id: ObjectId) -> list[memoryview]:
    """The parts of the object at the start of ``source``, without a copy. Raises CorruptObject."""
    if len(source) < HEADER_BYTES:
        raise CorruptObject("shorter than a header")
    magic, found, count, total, _ = HEADER.unpack_from(source)
    if magic != MAGIC or found != object_id or total > len(source) or count * PART.size > total:
        raise CorruptObject(f"the object there is not {object_id.hex()}")
    parts, at = [], HEADER_BYTES + aligned(PART.size * count)
    for index in range(count):
        (size,) = PART.unpack_from(source, HEADER_BYTES + PART.size * index)
        if at + size > total:
            raise CorruptObject("a part reaches over the end")
        parts.append(source[at : at + size])
        at += aligned(size)
    return parts


def read_stamp(source: memoryview, object_id: ObjectId) -> int:
    """The stamp of the object at the start of ``source``. Raises CorruptObject."""
    if len(source) < HEADER_BYTES:
        raise CorruptObject("shorter than a header")
    magic, found, _, _, stamp = HEADER.unpack_from(source)
    if magic != MAGIC or found != object_id:
        raise CorruptObject(f"the object there is not {object_id.hex()}")
    return int(stamp)


class Filler:
    """Hands out places in one shared slab, from its start to its end."""

    __slots__ = ("size", "used")

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0

    def take(self, size: int) -> int | None:
        """The offset for an object of ``size`` bytes, or None if it does not fit any more."""
        need = aligned(size)
        if self.used + need > self.size:
            return None
        offset = self.used
        self.used += need
        return offset
