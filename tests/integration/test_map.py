"""``map`` on remote functions and on actors' methods: order, errors, chunks, and that each item runs once."""

from __future__ import annotations

import asyncio
import threading

import pytest

import actorlib

pytestmark = pytest.mark.usefixtures("shared_local")


@actorlib.remote
def double(x):
    return 2 * x


@actorlib.remote
class Adder:
    def __init__(self):
        self.total = 0

    def add(self, x):
        if x < 0:
            raise ValueError(f"negative: {x}")
        self.total += x
        return self.total


@actorlib.remote
class Waiter:
    async def after_a_moment(self, x):
        await asyncio.sleep(0)
        return x + 1


@pytest.mark.parametrize("chunksize", ["auto", 1, 7, 10_000])
def test_results_come_in_order_whatever_the_chunks(chunksize):
    assert list(double.map(range(500), chunksize=chunksize)) == list(range(0, 1000, 2))


def test_nothing_and_generators_are_fine():
    assert list(double.map([])) == []
    assert list(double.map(x for x in range(20))) == list(range(0, 40, 2))


def test_each_item_runs_once_also_beside_an_error(tmp_path):
    marks = tmp_path / "marks"

    @actorlib.remote
    def picky(x):
        with open(marks, "a") as target:
            target.write(f"{x} ")
        if x == 3:
            raise KeyError("three")
        return x

    results = picky.map(range(6), chunksize=6)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="three") as caught:
        next(results)
    assert isinstance(caught.value, actorlib.exceptions.TaskError)
    assert 'raise KeyError("three")' in caught.value.traceback_text
    assert marks.read_text().split() == ["0", "1", "2", "3", "4", "5"]


def test_an_error_that_cant_be_pickled_leaves_the_results_before_it():
    @actorlib.remote
    def breaks(x):
        error = ValueError(f"item {x}")
        error.lock = threading.Lock()
        if x == 2:
            raise error
        return x

    results = breaks.map(range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(actorlib.exceptions.TaskError, match="ValueError: item 2"):
        next(results)


def test_stop_iteration_in_the_function_does_not_shorten_the_results():
    @actorlib.remote
    def stops(x):
        if x == 1:
            raise StopIteration
        return x

    results = stops.map(range(3))
    assert next(results) == 0
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(results)


def test_methods_keep_their_state_and_their_errors():
    adder = Adder.remote()
    assert list(adder.add.map([1, 2, 3])) == [1, 3, 6]
    results = adder.add.map([4, -1, 5])
    assert next(results) == 10
    with pytest.raises(ValueError, match="negative: -1"):
        next(results)
    assert actorlib.get(adder.add.remote(0), timeout=10) == 15


def test_async_functions_and_methods():
    @actorlib.remote
    async def later(x):
        await asyncio.sleep(0)
        if x == 9:
            raise LookupError("nine")
        return -x

    assert list(later.map(range(5))) == [0, -1, -2, -3, -4]
    with pytest.raises(LookupError, match="nine"):
        list(later.map([9]))
    assert list(Waiter.remote().after_a_moment.map(range(50))) == list(range(1, 51))


def test_input_is_read_only_a_few_chunks_ahead():
    read = []

    def source():
        for i in range(10_000):
            read.append(i)
            yield i

    results = double.map(source(), chunksize=10, max_in_flight=3)
    assert next(results) == 0
    assert len(read) <= 50
    results.close()


def test_a_progress_bar(capsys):
    assert list(double.map(range(100), progress=True)) == list(range(0, 200, 2))
    assert "100/100" in capsys.readouterr().err


def test_wrong_chunk_sizes():
    for wrong in (0, -1, "big", 2.5, True):
        with pytest.raises(ValueError, match="chunksize"):
            double.map([1], chunksize=wrong)
