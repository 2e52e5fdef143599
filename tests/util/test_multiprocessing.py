"""Pool: what the standard library's pool does, and what becomes of work whose process dies."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import actorlib
from actorlib.util.multiprocessing import AsyncResult, Pool, TimeoutError

_marker = "unset"


def square(value: int) -> int:
    return value * value


def add(left: int, right: int = 0) -> int:
    return left + right


def fail_at_three(value: int) -> int:
    if value == 3:
        raise ValueError("three")
    return value


def process(_: Any = None) -> int:
    return os.getpid()


def set_marker(value: str) -> None:
    global _marker
    _marker = value


def read_marker(_: Any = None) -> str:
    return _marker


def read_variable(name: str) -> str | None:
    return os.environ.get(name)


def refuse() -> None:
    raise OSError("no such device")


def die(_: Any = None) -> None:
    os._exit(7)


@actorlib.remote
class Latch:
    """Keeps calls waiting until it is opened."""

    def __init__(self) -> None:
        import asyncio

        self.event = asyncio.Event()

    async def wait(self) -> str:
        await self.event.wait()
        return "opened"

    async def open(self) -> None:
        self.event.set()


def wait_for(latch: Any) -> str:
    result: str = actorlib.get(latch.wait.remote())
    return result


@pytest.fixture
def pool(local: Any) -> Iterator[Pool]:
    with Pool(2) as made:
        yield made


def test_apply(pool: Pool) -> None:
    assert pool.apply(add, (1,), {"right": 2}) == 3
    assert pool.apply(process) != os.getpid()


def test_apply_raises_what_was_raised(pool: Pool) -> None:
    with pytest.raises(ValueError, match="three"):
        pool.apply(fail_at_three, (3,))


def test_map_and_starmap(pool: Pool) -> None:
    assert pool.map(square, range(50)) == [value * value for value in range(50)]
    assert pool.map(square, iter([1, 2, 3]), chunksize=2) == [1, 4, 9]
    assert pool.starmap(add, [(1, 2), (3, 4), [5]]) == [3, 7, 5]
    assert pool.starmap_async(add, zip(range(3), range(3), strict=True)).get(timeout=30) == [0, 2, 4]


def test_map_of_nothing(pool: Pool) -> None:
    result = pool.map_async(square, [])
    assert result.get(timeout=30) == []
    assert result.successful()


def test_map_with_lambdas_and_closures(pool: Pool) -> None:
    offset = 5
    assert pool.map(lambda value: value + offset, range(5)) == [5, 6, 7, 8, 9]


def test_map_raises_the_first_error_in_order(pool: Pool) -> None:
    result = pool.map_async(fail_at_three, range(10), chunksize=2)
    with pytest.raises(ValueError, match="three"):
        result.get(timeout=30)
    assert not result.successful()


def test_both_processes_work(pool: Pool) -> None:
    first, second = Latch.remote(), Latch.remote()

    def meet(pair: Any) -> int:
        mine, other = pair
        mine.open.remote()
        actorlib.get(other.wait.remote())
        return os.getpid()

    assert len(set(pool.map(meet, [(first, second), (second, first)], chunksize=1))) == 2


def test_a_result_that_is_not_there_yet(pool: Pool) -> None:
    latch = Latch.remote()
    result: AsyncResult = pool.apply_async(wait_for, (latch,))
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.01)
    assert TimeoutError is multiprocessing.TimeoutError
    latch.open.remote()
    result.wait(timeout=30)
    assert result.ready()
    assert result.get() == "opened"


def test_callbacks(pool: Pool) -> None:
    seen: list[Any] = []
    over = threading.Event()

    def note(value: Any) -> None:
        seen.append(value)
        if len(seen) == 3:
            over.set()

    pool.apply_async(square, (3,), callback=note).get(timeout=30)
    pool.map_async(square, [1, 2], callback=note).get(timeout=30)
    with pytest.raises(ValueError):
        pool.apply_async(fail_at_three, (3,), callback=pytest.fail, error_callback=note).get(timeout=30)
    assert over.wait(30)
    assert seen[:2] == [9, [1, 4]]
    assert isinstance(seen[2], ValueError)


@pytest.mark.parametrize("chunksize", [1, 3])
def test_imap(pool: Pool, chunksize: int) -> None:
    assert list(pool.imap(square, range(20), chunksize=chunksize)) == [value * value for value in range(20)]
    assert sorted(pool.imap_unordered(square, range(20), chunksize)) == [value * value for value in range(20)]


@pytest.mark.parametrize("chunksize", [1, 4])
def test_imap_raises_in_the_place_of_the_item(pool: Pool, chunksize: int) -> None:
    results = pool.imap(fail_at_three, range(6), chunksize=chunksize)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert list(results) == [4, 5]


def test_imap_reads_its_input_as_results_are_taken(pool: Pool) -> None:
    read: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            read.append(len(read))
            yield read[-1]

    results = pool.imap(square, endless())
    assert [next(results) for _ in range(100)] == [value * value for value in range(100)]
    assert len(read) < 200


def test_imap_next_has_a_timeout(pool: Pool) -> None:
    latch = Latch.remote()
    results = pool.imap(wait_for, [latch])
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.01)
    latch.open.remote()
    assert results.next(timeout=30) == "opened"
    with pytest.raises(StopIteration):
        results.next()


def test_imap_goes_on_after_close_and_join(local: Any) -> None:
    pool = Pool(2)
    results = pool.imap(square, range(100))
    pool.close()
    pool.join()
    assert list(results) == [value * value for value in range(100)]


def test_initializer_runs_in_each_process(local: Any) -> None:
    with Pool(2, initializer=set_marker, initargs=("ready",)) as pool:
        assert set(pool.map(read_marker, range(10), chunksize=1)) == {"ready"}


def test_an_initializer_that_fails_says_so(local: Any) -> None:
    with pytest.raises(actorlib.exceptions.ActorDiedError, match="no such device"):
        Pool(1, initializer=refuse)


def test_processes_are_replaced_after_their_share(local: Any) -> None:
    with Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(process) for _ in range(6)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 2]


def test_a_process_that_dies_fails_its_work_only(local: Any) -> None:
    with Pool(1, initializer=set_marker, initargs=("again",)) as pool:
        with pytest.raises(actorlib.exceptions.ActorError):
            pool.apply_async(die).get(timeout=60)
        assert pool.apply_async(read_marker).get(timeout=60) == "again"


def test_what_cannot_be_sent_fails_its_call(pool: Pool) -> None:
    with pytest.raises(TypeError, match="pickle"):
        pool.apply_async(square, (threading.Lock(),)).get(timeout=30)
    assert pool.apply(square, (2,)) == 4


def test_what_cannot_be_sent_back_fails_its_call(pool: Pool) -> None:
    with pytest.raises(TypeError, match="pickle"):
        pool.apply_async(threading.Lock).get(timeout=30)
    assert pool.apply(square, (2,)) == 4


def test_as_many_processes_as_cpus(local: Any) -> None:
    with Pool() as pool:
        assert "processes=2" in repr(pool)


def test_closed_and_terminated_pools_take_no_work(local: Any) -> None:
    pool = Pool(1)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    result = pool.apply_async(square, (4,))
    pool.close()
    for submit in (pool.apply_async, pool.map_async, pool.imap):
        with pytest.raises(ValueError, match="not running"):
            submit(square, (1,))
    pool.join()
    assert result.get(timeout=30) == 16
    with pytest.raises(ValueError, match="not running"), pool:
        pass


def test_terminate_fails_what_was_not_done(local: Any) -> None:
    latch, pool = Latch.remote(), Pool(1)
    results = [pool.apply_async(wait_for, (latch,)) for _ in range(3)]
    pool.terminate()
    pool.join()
    for result in results:
        with pytest.raises(actorlib.exceptions.ActorlibError):
            result.get(timeout=30)


def test_wrong_arguments_are_refused(pool: Pool) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Pool(0)
    with pytest.raises(ValueError, match="maxtasksperchild"):
        Pool(1, maxtasksperchild=0)
    with pytest.raises(TypeError, match="callable"):
        Pool(1, initializer=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunksize"):
        pool.map(square, [1], chunksize=0)


def test_a_pool_is_not_passed_on(pool: Pool) -> None:
    import pickle

    with pytest.raises(NotImplementedError):
        pickle.dumps(pool)


def test_options_of_the_processes(local: Any) -> None:
    with Pool(1, ray_remote_args={"runtime_env": {"env_vars": {"POOL_MARK": "seen"}}}) as pool:
        assert pool.apply(read_variable, ("POOL_MARK",)) == "seen"
