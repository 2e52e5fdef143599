"""Room in slabs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorlib.store import slab
from actorlib.transport import limits


@given(st.lists(st.integers(1, 5000), max_size=60))
def test_places_do_not_overlap_and_are_aligned(sizes):
    filler = slab.Filler(100_000)
    taken = []
    for size in sizes:
        offset = filler.take(size)
        if offset is None:
            assert filler.used + slab.aligned(size) > filler.size
            continue
        assert offset % slab.ALIGNMENT == 0
        assert all(offset >= end for _, end in taken)
        taken.append((offset, offset + size))
    assert all(end <= filler.size for _, end in taken)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_parts_come_back(parts):
    sizes = [len(part) for part in parts]
    memory = memoryview(bytearray(slab.object_bytes(sizes)))
    for offset, part in zip(slab.write_header(memory, b"o" * 20, sizes), parts, strict=True):
        assert offset % slab.ALIGNMENT == 0
        memory[offset : offset + len(part)] = part
    assert [bytes(part) for part in slab.read_parts(memory, b"o" * 20)] == parts


def test_another_object_or_garbage_is_recognised():
    memory = memoryview(bytearray(slab.object_bytes([5])))
    slab.write_header(memory, b"o" * 20, [5])
    with pytest.raises(slab.CorruptObject):
        slab.read_parts(memory, b"x" * 20)
    with pytest.raises(slab.CorruptObject):
        slab.read_parts(memoryview(bytes(500)), b"o" * 20)
    with pytest.raises(slab.CorruptObject):
        slab.read_parts(memory[:10], b"o" * 20)


@given(st.integers(1, 1 << 32))
def test_size_classes_waste_at_most_an_eighth_of_a_large_object(size):
    chosen = slab.slab_bytes(size)
    assert chosen >= size
    if size <= limits.slab_bytes_min // 2:
        assert chosen == limits.slab_bytes_min
    else:
        assert chosen - size < max(2 << 20, size // 8 + 1)
