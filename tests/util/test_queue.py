"""Queue: order, bounds, blocking, batches, coroutines, and its end."""

from __future__ import annotations

import asyncio
import queue as standard
from collections.abc import Iterator
from typing import Any

import pytest

import actorlib
from actorlib.util.queue import Empty, Full, Queue

pytestmark = pytest.mark.usefixtures("local")


@pytest.fixture
def queue(local: Any) -> Iterator[Queue]:
    made = Queue()
    yield made
    made.shutdown(force=True)


@pytest.fixture
def small(local: Any) -> Iterator[Queue]:
    made = Queue(maxsize=2)
    yield made
    made.shutdown(force=True)


@actorlib.remote
def take(queue: Queue, count: int) -> list[Any]:
    return [queue.get(timeout=30) for _ in range(count)]


@actorlib.remote
def give(queue: Queue, items: list[Any]) -> None:
    for item in items:
        queue.put(item, timeout=30)


def test_first_in_first_out(queue: Queue) -> None:
    for item in range(5):
        queue.put(item)
    assert [queue.get() for _ in range(5)] == list(range(5))


def test_sizes(small: Queue) -> None:
    assert (len(small), small.size(), small.qsize(), small.empty(), small.full()) == (0, 0, 0, True, False)
    small.put("a")
    small.put("b")
    assert (len(small), small.qsize(), small.empty(), small.full()) == (2, 2, False, True)


def test_an_unbounded_queue_is_never_full(queue: Queue) -> None:
    queue.put_nowait(1)
    assert not queue.full()


def test_empty_in_each_way(queue: Queue) -> None:
    with pytest.raises(Empty):
        queue.get_nowait()
    with pytest.raises(Empty):
        queue.get(block=False)
    with pytest.raises(Empty) as caught:
        queue.get(timeout=0.01)
    assert type(caught.value) is Empty
    assert isinstance(caught.value, standard.Empty)


def test_full_in_each_way(small: Queue) -> None:
    small.put_nowait_batch([1, 2])
    with pytest.raises(Full):
        small.put_nowait(3)
    with pytest.raises(Full):
        small.put(3, block=False)
    with pytest.raises(Full) as caught:
        small.put(3, timeout=0.01)
    assert isinstance(caught.value, standard.Full)
    assert small.get_nowait_batch(2) == [1, 2]


def test_negative_timeouts_are_refused(queue: Queue) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        queue.put(1, timeout=-1)
    with pytest.raises(ValueError, match="non-negative"):
        queue.get(timeout=-1)


def test_batches_are_all_or_nothing(small: Queue) -> None:
    with pytest.raises(Full, match="3 items"):
        small.put_nowait_batch([1, 2, 3])
    assert small.empty()
    small.put_nowait_batch(range(2))
    with pytest.raises(Empty, match="3 items"):
        small.get_nowait_batch(3)
    assert small.get_nowait_batch(0) == []
    assert small.get_nowait_batch(2) == [0, 1]


def test_wrong_batches_are_refused(queue: Queue) -> None:
    with pytest.raises(TypeError, match="iterable"):
        queue.put_nowait_batch(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int"):
        queue.get_nowait_batch("1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="non-negative"):
        queue.get_nowait_batch(-1)


def test_none_and_containers_are_items_like_others(queue: Queue) -> None:
    items: list[Any] = [None, (), [], {"a": 1}]
    for item in items:
        queue.put(item)
    assert [queue.get() for _ in items] == items


def test_a_blocked_get_is_served_by_a_later_put(queue: Queue) -> None:
    taken = take.remote(queue, 2)
    queue.put("x")
    queue.put("y")
    assert actorlib.get(taken, timeout=30) == ["x", "y"]


def test_a_blocked_put_goes_on_when_there_is_room(small: Queue) -> None:
    given = give.remote(small, [1, 2, 3, 4])
    assert [small.get(timeout=30) for _ in range(4)] == [1, 2, 3, 4]
    actorlib.get(given, timeout=30)


def test_many_blocked_gets_do_not_keep_a_put_out(queue: Queue) -> None:
    blocked = [queue.actor.get.remote(30) for _ in range(1100)]
    queue.put_nowait_batch(range(1100))
    assert sorted(item for (item,) in actorlib.get(blocked, timeout=60)) == list(range(1100))


def test_coroutines(small: Queue) -> None:
    async def both() -> Any:
        getting = asyncio.gather(*(small.get_async(timeout=30) for _ in range(3)))
        for item in range(3):
            await small.put_async(item)
        taken = await getting
        with pytest.raises(Empty):
            await small.get_async(block=False)
        with pytest.raises(Empty):
            await small.get_async(timeout=0.01)
        await small.put_async(1, block=False)
        await small.put_async(2)
        with pytest.raises(Full):
            await small.put_async(3, block=False)
        with pytest.raises(Full):
            await small.put_async(3, timeout=0.01)
        return taken

    assert sorted(asyncio.run(both())) == [0, 1, 2]


def test_options_reach_the_actor(local: Any) -> None:
    queue = Queue(actor_options={"name": "jobs", "num_cpus": 0})
    assert actorlib.get(actorlib.get_actor("jobs").qsize.remote(), timeout=30) == 0
    queue.shutdown(force=True)


@pytest.mark.parametrize("force", [False, True])
def test_shutdown_ends_the_actor(local: Any, force: bool) -> None:
    queue = Queue()
    queue.put(1)
    actor = queue.actor
    queue.shutdown(force=force)
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        actorlib.get(actor.qsize.remote(), timeout=30)
    with pytest.raises(RuntimeError, match="shut down"):
        queue.put(2)
    queue.shutdown()
