"""Streaming calls on real processes."""

from __future__ import annotations

import asyncio
import os
import time

import numpy as np
import pytest

import actorlib

pytestmark = pytest.mark.usefixtures("shared_local")


@actorlib.remote
def count(n):
    yield from range(n)


def test_items_come_in_order():
    assert [actorlib.get(ref) for ref in count.remote(100)] == list(range(100))


def test_items_come_before_the_end():
    @actorlib.remote
    def slow():
        yield "first"
        time.sleep(60)
        yield "never"

    generator = slow.remote()
    started = time.monotonic()
    assert actorlib.get(next(generator), timeout=10) == "first"
    assert time.monotonic() - started < 10
    actorlib.cancel(generator)


def test_an_error_stands_where_it_happened():
    @actorlib.remote
    def breaks():
        yield 1
        raise ValueError("second")

    generator = breaks.remote()
    assert actorlib.get(next(generator)) == 1
    with pytest.raises(ValueError, match="second"):
        actorlib.get(next(generator))
    with pytest.raises(StopIteration):
        next(generator)


def test_the_end_is_an_object_too():
    generator = count.remote(7)
    assert actorlib.get(generator.completed(), timeout=10) == 7


def test_backpressure_pauses_the_producer(tmp_path):
    made = tmp_path / "made"

    @actorlib.remote(_generator_backpressure_num_objects=3)
    def producer():
        for i in range(10):
            with open(made, "a") as target:
                target.write("x")
            yield i

    generator = producer.remote()
    first = next(generator)
    assert actorlib.get(first, timeout=10) == 0
    time.sleep(0.2)
    assert made.stat().st_size <= 5
    assert [actorlib.get(ref) for ref in generator] == list(range(1, 10))


def test_generators_of_actors_sync_and_async():
    @actorlib.remote
    class Plain:
        def items(self, n):
            yield from range(n)

    @actorlib.remote
    class Async:
        async def items(self, n):
            for i in range(n):
                await asyncio.sleep(0)
                yield i

    for cls in (Plain, Async):
        assert [actorlib.get(ref) for ref in cls.remote().items.remote(5)] == list(range(5))


def test_async_iteration():
    async def main():
        return [await ref async for ref in count.remote(5)]

    assert asyncio.run(main()) == list(range(5))


def test_large_items():
    @actorlib.remote
    def arrays():
        import numpy as np

        for i in range(5):
            yield np.full(200_000, i)

    assert [int(actorlib.get(ref)[0]) for ref in arrays.remote()] == list(range(5))


def test_dynamic_returns():
    refs = actorlib.get(count.options(num_returns="dynamic").remote(4), timeout=10)
    assert actorlib.get(list(refs), timeout=10) == list(range(4))


@actorlib.remote(num_returns="dynamic", max_calls=1)
def from_a_worker_that_ends(sizes, mark):
    with open(mark, "a") as target:
        target.write("x")
    (mark.parent / "pid").write_text(str(os.getpid()))
    for size in sizes:
        yield np.full(size, size)


def test_dynamic_returns_outlive_their_worker(tmp_path):
    """They are the caller's, small and large: it has them when the worker that made them is gone."""
    sizes, mark = (1, 300_000, 2), tmp_path / "ran"
    refs = actorlib.get(from_a_worker_that_ends.remote(sizes, mark), timeout=20)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")
    assert [int(actorlib.get(ref, timeout=20)[0]) for ref in refs] == list(sizes)
    assert mark.read_text() == "x"


def test_a_dynamic_item_that_is_lost_is_made_again(tmp_path):
    sizes, mark = (1, 300_000, 2, 400_000), tmp_path / "ran"
    refs = actorlib.get(from_a_worker_that_ends.remote(sizes, mark), timeout=20)
    kept = refs[:3]
    del refs
    os.unlink(actorlib.engine.Slot.engine.table.entries[kept[1]._id].value[2])  # the slab that it lies in
    assert [int(actorlib.get(ref, timeout=20)[0]) for ref in kept] == list(sizes[:3])
    assert mark.read_text() == "xx"


def test_many_dynamic_items_and_references_among_them():
    @actorlib.remote(num_returns="dynamic")
    def nested(count):
        return [[actorlib.put(i)] for i in range(count)]

    refs = actorlib.get(nested.remote(2000), timeout=20)
    inner = [actorlib.get(ref, timeout=20)[0] for ref in refs]
    assert actorlib.get(inner, timeout=20) == list(range(2000))
    assert actorlib.get(nested.remote(0), timeout=20) == []
