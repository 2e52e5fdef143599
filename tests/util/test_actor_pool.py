"""ActorPool: order, errors, timeouts, and actors that come and go."""

from __future__ import annotations

from typing import Any

import pytest

import actorlib
from actorlib.util import ActorPool

pytestmark = pytest.mark.usefixtures("local")


@actorlib.remote
class Worker:
    def double(self, value: int) -> int:
        return 2 * value

    def fail(self, value: int) -> int:
        raise KeyError(value)

    @actorlib.method(num_returns=2)
    def both(self, value: int) -> tuple[int, int]:
        return value, -value

    def hold(self, gate: list[Any]) -> str:
        actorlib.get(gate)
        return "held"


@actorlib.remote
class Gate:
    def __init__(self) -> None:
        import asyncio

        self.event = asyncio.Event()

    async def wait(self) -> None:
        await self.event.wait()

    async def open(self) -> None:
        self.event.set()


def double(actor: Any, value: int) -> Any:
    return actor.double.remote(value)


def fail(actor: Any, value: int) -> Any:
    return actor.fail.remote(value)


def hold(actor: Any, gate: Any) -> Any:
    return actor.hold.remote([gate])


def make_pool(size: int = 2) -> ActorPool:
    return ActorPool([Worker.remote() for _ in range(size)])


def test_map_keeps_order() -> None:
    assert list(make_pool().map(double, range(10))) == [2 * value for value in range(10)]


def test_map_unordered_has_all() -> None:
    assert sorted(make_pool().map_unordered(double, range(10))) == [2 * value for value in range(10)]


def test_map_drops_what_was_not_taken() -> None:
    pool = make_pool(1)
    for value in range(5):
        pool.submit(double, value)
    assert list(pool.map(double, [10, 20])) == [20, 40]


def test_get_next_in_order_and_to_the_end() -> None:
    pool = make_pool(1)
    for value in range(4):
        pool.submit(double, value)
    taken = []
    while pool.has_next():
        taken.append(pool.get_next(timeout=30))
    assert taken == [0, 2, 4, 6]
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


def test_ordered_and_unordered_can_be_mixed() -> None:
    pool = make_pool()
    for value in range(4):
        pool.submit(double, value)
    taken = [pool.get_next_unordered(timeout=30), pool.get_next(timeout=30)]
    taken += [pool.get_next_unordered(timeout=30), pool.get_next(timeout=30)]
    assert sorted(taken) == [0, 2, 4, 6]


def test_an_error_is_raised_and_its_actor_goes_on() -> None:
    pool = make_pool(1)
    pool.submit(fail, 1)
    pool.submit(double, 2)
    with pytest.raises(KeyError):
        pool.get_next(timeout=30)
    assert pool.get_next(timeout=30) == 4


def test_several_returns_come_as_a_list() -> None:
    pool = make_pool()
    pool.submit(lambda actor, value: actor.both.remote(value), 3)
    assert pool.get_next(timeout=30) == [3, -3]


@pytest.mark.parametrize("take", ["get_next", "get_next_unordered"])
def test_timeout_leaves_the_result_to_be_taken(take: str) -> None:
    gate, pool = Gate.remote(), make_pool(1)
    pool.submit(hold, gate.wait.remote())
    with pytest.raises(TimeoutError):
        getattr(pool, take)(timeout=0.01)
    assert pool.has_next()
    gate.open.remote()
    assert getattr(pool, take)(timeout=30) == "held"


@pytest.mark.parametrize("take", ["get_next", "get_next_unordered"])
def test_timeout_can_drop_the_result(take: str) -> None:
    gate, pool = Gate.remote(), make_pool(1)
    pool.submit(hold, gate.wait.remote())
    with pytest.raises(TimeoutError, match="ignored"):
        getattr(pool, take)(timeout=0.01, ignore_if_timedout=True)
    assert not pool.has_next()
    gate.open.remote()


def test_a_slow_head_does_not_keep_others_idle() -> None:
    gate, pool = Gate.remote(), make_pool(2)
    pool.submit(hold, gate.wait.remote())
    for value in range(3):
        pool.submit(double, value)
    pool.submit(lambda actor, _: gate.open.remote(), None)
    assert pool.get_next(timeout=30) == "held"
    assert [pool.get_next(timeout=30) for _ in range(4)] == [0, 2, 4, None]


def test_free_and_busy_actors() -> None:
    pool = make_pool(1)
    assert pool.has_free()
    pool.submit(double, 1)
    assert not pool.has_free()
    assert pool.pop_idle() is None
    pool.get_next(timeout=30)
    actor = pool.pop_idle()
    assert actor is not None
    assert not pool.has_free()
    pool.push(actor)
    assert pool.has_free()
    with pytest.raises(ValueError, match="already"):
        pool.push(actor)


def test_work_waits_for_an_actor_to_be_pushed() -> None:
    pool = ActorPool([])
    pool.submit(double, 4)
    assert pool.has_next()
    with pytest.raises(RuntimeError, match="push"):
        pool.get_next()
    pool.push(Worker.remote())
    assert pool.get_next(timeout=30) == 8


def test_what_is_no_reference_is_refused() -> None:
    pool = make_pool(1)
    with pytest.raises(TypeError, match="remote"):
        pool.submit(lambda actor, value: value, 1)
    assert pool.has_free()
    assert not pool.has_next()
