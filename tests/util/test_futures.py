"""Executor: the interface of concurrent.futures, cancellation, limits, and waiting inside tasks."""

from __future__ import annotations

import concurrent.futures
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import actorlib
from actorlib.exceptions import TaskCancelledError
from actorlib.util.futures import Executor

pytestmark = pytest.mark.usefixtures("local")


def square(value: int) -> int:
    return value * value


def fail(value: int) -> int:
    raise KeyError(value)


async def square_async(value: int) -> int:
    return value * value


def wait_for(latch: Any) -> str:
    result: str = actorlib.get(latch.wait.remote())
    return result


def read_variable(name: str) -> str | None:
    return os.environ.get(name)


def nested(value: int) -> int:
    with Executor() as executor:
        return executor.submit(square, value).result(timeout=30)


@actorlib.remote(num_cpus=0)
class Latch:
    def __init__(self) -> None:
        import asyncio

        self.event = asyncio.Event()
        self.calls = 0

    async def wait(self) -> str:
        self.calls += 1
        await self.event.wait()
        return "opened"

    async def open(self) -> None:
        self.event.set()

    async def count(self) -> int:
        return self.calls


class Adder:
    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, value: int) -> int:
        return value + self.amount

    def add(self, value: int) -> int:
        return value + self.amount


@pytest.fixture
def executor(local: Any) -> Iterator[Executor]:
    with Executor() as made:
        yield made


def test_submit(executor: Executor) -> None:
    assert executor.submit(square, 3).result(timeout=30) == 9
    assert executor.submit(int, "ff", base=16).result(timeout=30) == 255
    assert executor.submit(os.getpid).result(timeout=30) != os.getpid()


def test_any_callable(executor: Executor) -> None:
    adder = Adder(1)
    calls: list[Any] = [adder, adder.add, functools.partial(square), lambda value: value + 1, square_async]
    assert [executor.submit(call, 3).result(timeout=30) for call in calls] == [4, 4, 9, 4, 9]


def test_a_changed_callable_is_sent_as_it_is_now(executor: Executor) -> None:
    adder = Adder(1)
    first = executor.submit(adder, 0)
    adder.amount = 2
    assert (first.result(timeout=30), executor.submit(adder, 0).result(timeout=30)) == (1, 2)


def test_errors(executor: Executor) -> None:
    future = executor.submit(fail, 3)
    assert isinstance(future.exception(timeout=30), KeyError)
    with pytest.raises(KeyError):
        future.result()
    with pytest.raises(TypeError, match="pickle"):
        executor.submit(square, threading.Lock()).result(timeout=30)
    with pytest.raises(TypeError):
        executor.submit(square).result(timeout=30)
    with pytest.raises(TypeError, match="callable"):
        executor.submit(3)  # type: ignore[arg-type]


def test_with_the_standard_librarys_functions(executor: Executor) -> None:
    futures = [executor.submit(square, value) for value in range(5)]
    done, rest = concurrent.futures.wait(futures, timeout=30)
    assert not rest
    assert sorted(future.result() for future in done) == [0, 1, 4, 9, 16]
    more = [executor.submit(square, value) for value in range(5)]
    assert sorted(f.result() for f in concurrent.futures.as_completed(more, timeout=30)) == [0, 1, 4, 9, 16]


def test_done_callbacks(executor: Executor) -> None:
    over = threading.Event()
    executor.submit(square, 2).add_done_callback(lambda future: over.set())
    assert over.wait(30)


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map(executor: Executor, chunksize: int) -> None:
    assert list(executor.map(square, range(10), chunksize=chunksize)) == [value * value for value in range(10)]
    assert list(executor.map(pow, [2, 3], [3, 2, 9], chunksize=chunksize)) == [8, 9]


def test_map_raises_errors_and_timeouts(executor: Executor) -> None:
    with pytest.raises(KeyError):
        list(executor.map(fail, range(3)))
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=0)
    latch = Latch.remote()
    with pytest.raises(TimeoutError):
        list(executor.map(wait_for, [latch], timeout=0.05))
    latch.open.remote()


def test_result_has_a_timeout(executor: Executor) -> None:
    latch = Latch.remote()
    future = executor.submit(wait_for, latch)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)
    assert not future.done()
    latch.open.remote()
    assert future.result(timeout=30) == "opened"
    assert not future.cancel()


def test_cancel_a_running_call(executor: Executor) -> None:
    latch = Latch.remote()
    future = executor.submit(wait_for, latch)
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    assert future.ref is not None
    with pytest.raises(TaskCancelledError):
        actorlib.get(future.ref, timeout=30)


def test_max_workers_limits_what_is_out(local: Any) -> None:
    latch = Latch.remote()
    with Executor(max_workers=1, num_cpus=0) as executor:
        futures = [executor.submit(wait_for, latch) for _ in range(3)]
        assert [future.ref is not None for future in futures] == [True, False, False]
        assert futures[1].cancel()
        latch.open.remote()
        assert [futures[0].result(timeout=30), futures[2].result(timeout=30)] == ["opened"] * 2
    assert futures[1].ref is None
    assert actorlib.get(latch.count.remote(), timeout=30) == 2


def test_shutdown_waits_and_then_refuses(local: Any) -> None:
    executor = Executor()
    futures = [executor.submit(square, value) for value in range(4)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)


def test_shutdown_can_cancel(local: Any) -> None:
    latch, executor = Latch.remote(), Executor(max_workers=1)
    futures = [executor.submit(wait_for, latch) for _ in range(3)]
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_options_reach_the_tasks(local: Any) -> None:
    with Executor(runtime_env={"env_vars": {"EXECUTOR_MARK": "seen"}}) as executor:
        assert executor.submit(read_variable, "EXECUTOR_MARK").result(timeout=60) == "seen"
        assert list(executor.map(square, [2])) == [4]


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="num_returns"):
        Executor(num_returns=2)
    with pytest.raises(ValueError, match="max_workers"):
        Executor(max_workers=0)
    with pytest.raises(ValueError, match="num_cpu"):
        Executor(num_cpu=1)


def test_a_task_that_waits_lends_its_cpu(executor: Executor) -> None:
    assert list(executor.map(nested, range(4), timeout=60)) == [0, 1, 4, 9]
