"""Objects, generators, async actors, blocking and awaiting."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import numpy as np
import programs
import pytest
from contract import get, shows

import actorlib

OBJECTS = (
    "immutable; numpy zero-copy and read-only; `put(ref)` refused; refs inside values keep what they refer to alive"
)
GENERATORS = "eager, iterate refs, work with `wait`/`get` on each, errors at the item where they happened"
VALUES = {
    "none": None,
    "an int": 1,
    "a large int": 10**100,
    "text": "grüße",
    "bytes": b"\0\1\2",
    "a tuple": (1, (2, 3)),
    "a nested dict": {"a": [1, {"b": {1, 2}}]},
    "a float": 1.5,
    "a complex": 1 + 2j,
    "a slice": slice(1, 2),
    "an ellipsis": ...,
    "a class": ValueError,
    "a range": range(5),
    "empty": [],
}


@pytest.mark.parametrize("name", list(VALUES))
@shows(OBJECTS)
def test_a_value_comes_back_equal(name: str) -> None:
    assert get(actorlib.put(VALUES[name])) == VALUES[name]


@pytest.mark.parametrize("name", list(VALUES))
@shows("`f.remote()`")
def test_a_value_travels_through_a_task(name: str) -> None:
    @actorlib.remote
    def echo(value: Any) -> Any:
        return value

    assert get(echo.remote(VALUES[name])) == VALUES[name]


@pytest.mark.parametrize("size", [10, 1_000, 500_000])
@shows("numpy zero-copy and read-only")
def test_arrays(size: int) -> None:
    array = np.arange(size, dtype=np.float64)
    assert np.array_equal(get(actorlib.put(array)), array)


@shows("numpy zero-copy and read-only")
def test_large_arrays_are_read_only() -> None:
    array = get(actorlib.put(np.zeros(200_000)))
    with pytest.raises(ValueError):
        array[0] = 1


@shows("numpy zero-copy and read-only")
def test_large_arguments_are_read_only() -> None:
    @actorlib.remote
    def writeable(array: Any) -> bool:
        return bool(array.flags.writeable)

    assert get(writeable.remote(actorlib.put(np.zeros(200_000)))) is False


@shows("numpy zero-copy and read-only")
def test_arrays_inside_containers() -> None:
    value = {"a": np.arange(100_000), "b": [np.ones(3)]}
    back = get(actorlib.put(value))
    assert np.array_equal(back["a"], value["a"]) and np.array_equal(back["b"][0], np.ones(3))


@shows("numpy zero-copy and read-only")
def test_arrays_of_objects() -> None:
    array = np.array([1, "two", None], dtype=object)
    assert get(actorlib.put(array)).tolist() == [1, "two", None]


@shows("| objects | immutable;")
def test_what_was_put_does_not_change() -> None:
    value = [1, 2]
    ref = actorlib.put(value)
    value.append(3)
    assert get(ref) == [1, 2]


@shows("| objects | immutable;")
def test_an_array_that_was_put_does_not_change() -> None:
    array = np.zeros(100_000)
    ref = actorlib.put(array)
    array[:] = 1
    assert get(ref).sum() == 0


@shows("| objects | immutable;")
def test_each_get_has_a_copy_of_its_own() -> None:
    ref = actorlib.put([1, 2])
    get(ref).append(3)
    assert get(ref) == [1, 2]


@shows("| objects | immutable;")
def test_a_task_can_not_change_the_callers_value() -> None:
    @actorlib.remote
    def change(value: list[int]) -> int:
        value.append(1)
        return len(value)

    mine: list[int] = []
    assert get(change.remote(mine)) == 1
    assert mine == []


@shows("| objects | immutable;")
def test_an_actor_does_not_share_its_state() -> None:
    @actorlib.remote(num_cpus=0)
    class Keeper:
        def __init__(self, value: list[int]) -> None:
            self.value = value

        def read(self) -> list[int]:
            return self.value

    mine = [1]
    keeper = Keeper.remote(mine)
    mine.append(2)
    get(keeper.read.remote()).append(3)
    assert get(keeper.read.remote()) == [1]


@shows("`put(ref)` refused")
def test_putting_a_reference_is_refused() -> None:
    with pytest.raises(TypeError):
        actorlib.put(actorlib.put(1))


@shows("refs inside values keep what they refer to alive")
def test_a_reference_inside_a_value_keeps_it_alive() -> None:
    outer = actorlib.put([actorlib.put(np.arange(50_000))])
    assert get(get(outer)[0]).sum() == sum(range(50_000))


@shows("refs inside values keep what they refer to alive")
def test_a_reference_kept_by_an_actor() -> None:
    @actorlib.remote(num_cpus=0)
    class Keeper:
        def keep(self, box: list[Any]) -> None:
            self.box = box

        def read(self) -> Any:
            return actorlib.get(self.box[0])

    keeper = Keeper.remote()
    get(keeper.keep.remote([actorlib.put("kept")]))
    assert get(keeper.read.remote()) == "kept"


@shows("refs inside values keep what they refer to alive")
def test_many_references_in_one_value() -> None:
    refs = [actorlib.put(i) for i in range(50)]

    @actorlib.remote
    def total(refs: list[Any]) -> int:
        return sum(actorlib.get(refs))

    assert get(total.remote(refs)) == sum(range(50))


@shows("| objects | immutable;")
def test_instances_of_the_users_classes() -> None:
    @dataclasses.dataclass
    class Point:
        x: int
        y: int

    @actorlib.remote
    def move(point: Any) -> Any:
        point.x += 1
        return point

    point = Point(1, 2)
    moved = get(move.remote(point))
    assert (moved.x, moved.y) == (2, 2) and point.x == 1


@shows("| objects | immutable;")
def test_functions_travel() -> None:
    factor = 3

    @actorlib.remote
    def apply(function: Any, value: int) -> int:
        return function(value)

    assert get(apply.remote(lambda x: x * factor, 5)) == 15


@shows("`register_serializer`")
def test_a_serializer_of_the_users() -> None:
    import threading

    class Held:
        def __init__(self, value: int) -> None:
            self.value = value
            self.lock = threading.Lock()

    actorlib.util.register_serializer(Held, serializer=lambda held: held.value, deserializer=Held)
    try:
        assert get(actorlib.put(Held(5))).value == 5
    finally:
        actorlib.util.deregister_serializer(Held)
    with pytest.raises(TypeError):
        actorlib.put(Held(5))


@shows("`inspect_serializability`")
def test_serializability_is_inspected() -> None:
    import io
    import threading

    assert actorlib.util.inspect_serializability([1], print_file=io.StringIO())[0]
    assert not actorlib.util.inspect_serializability([threading.Lock()], print_file=io.StringIO())[0]


# -- generators --------------------------------------------------------------------------------------------------------
def numbers() -> Any:
    @actorlib.remote
    def count(n: int) -> Any:
        yield from range(n)

    return count


@shows(GENERATORS)
def test_items_come_in_order() -> None:
    assert [get(ref) for ref in numbers().remote(30)] == list(range(30))


@shows(GENERATORS)
def test_a_generator_is_of_its_class() -> None:
    generator = numbers().remote(1)
    assert isinstance(generator, actorlib.ObjectRefGenerator)
    assert isinstance(next(generator), actorlib.ObjectRef)


@shows(GENERATORS)
def test_an_empty_generator() -> None:
    assert list(numbers().remote(0)) == []


@shows(GENERATORS)
def test_items_work_with_wait() -> None:
    refs = list(numbers().remote(4))
    ready, rest = actorlib.wait(refs, num_returns=4, timeout=60)
    assert get(ready) == [0, 1, 2, 3] and rest == []


@shows(GENERATORS)
def test_an_error_stands_where_it_happened() -> None:
    @actorlib.remote
    def broken() -> Any:
        yield 1
        yield 2
        raise LookupError("third")

    refs = list(broken.remote())
    assert get(refs[:2]) == [1, 2]
    with pytest.raises(LookupError, match="third"):
        get(refs[2])
    assert len(refs) == 3


@shows(GENERATORS)
def test_a_generator_method() -> None:
    counter = programs.counter_class().remote()
    assert [get(ref) for ref in counter.count_to.remote(5)] == list(range(5))


@shows(GENERATORS)
def test_an_async_generator_method() -> None:
    gate = programs.async_class().remote()
    assert [get(ref) for ref in gate.count_to.remote(5)] == list(range(5))


@shows(GENERATORS)
def test_an_async_generator_task() -> None:
    @actorlib.remote
    async def count(n: int) -> Any:
        for number in range(n):
            yield number

    assert [get(ref) for ref in count.remote(3)] == [0, 1, 2]


@shows(GENERATORS)
def test_iterating_asynchronously() -> None:
    async def collect() -> list[Any]:
        return [await ref async for ref in numbers().remote(6)]

    assert asyncio.run(collect()) == list(range(6))


@shows(GENERATORS)
def test_large_items() -> None:
    @actorlib.remote
    def arrays() -> Any:
        for number in range(3):
            yield np.full(50_000, number)

    assert [int(get(ref)[0]) for ref in arrays.remote()] == [0, 1, 2]


@shows(GENERATORS)
def test_items_can_be_passed_on() -> None:
    add = programs.adder()
    assert get([add.remote(ref, 10) for ref in numbers().remote(3)]) == [10, 11, 12]


@shows(GENERATORS)
def test_items_that_hold_references() -> None:
    @actorlib.remote
    def boxes() -> Any:
        for number in range(3):
            yield [actorlib.put(number)]

    assert [get(get(ref)[0]) for ref in boxes.remote()] == [0, 1, 2]


@shows(GENERATORS)
def test_the_end_is_told_by_completed() -> None:
    generator = numbers().remote(4)
    assert len(list(generator)) == 4
    assert actorlib.wait([generator.completed()], timeout=60)[0]


@shows(GENERATORS)
def test_items_come_before_the_end() -> None:
    @actorlib.remote(num_cpus=0)
    class Source:
        def __init__(self) -> None:
            self.event = asyncio.Event()

        async def items(self) -> Any:
            yield "first"
            await self.event.wait()
            yield "second"

        async def open(self) -> None:
            self.event.set()

    source = Source.remote()
    generator = source.items.remote()
    assert get(next(generator)) == "first"
    source.open.remote()
    assert get(next(generator)) == "second"


@shows(GENERATORS)
def test_a_generator_that_is_given_up() -> None:
    generator = numbers().remote(5)
    assert get(next(generator)) == 0
    del generator
    assert get(programs.adder().remote(1)) == 1


# -- async actors ------------------------------------------------------------------------------------------------------
ASYNC = "one event loop, `await ref`, blocking `get` refused with the way out"


@shows(ASYNC)
def test_calls_of_an_async_actor_interleave() -> None:
    gate = programs.async_class().remote()
    waiting = [gate.wait.remote() for _ in range(10)]
    while get(gate.waiting.remote()) < 10:
        time.sleep(0.01)
    gate.open.remote()
    assert get(waiting) == ["open"] * 10
    assert get(gate.most_at_once.remote()) == 10


@shows(ASYNC)
def test_awaiting_a_reference_inside_an_actor() -> None:
    add = programs.adder()

    @actorlib.remote(num_cpus=0)
    class Waiter:
        async def total(self, n: int) -> int:
            return sum(await asyncio.gather(*(add.remote(i) for i in range(n))))

    assert get(Waiter.remote().total.remote(4)) == 6


@shows(ASYNC)
def test_awaiting_another_async_actor() -> None:
    gate = programs.async_class().remote()

    @actorlib.remote(num_cpus=0)
    class Waiter:
        async def wait(self, gate: Any) -> str:
            return await gate.wait.remote()

        async def ping(self) -> int:
            return 1

    waiter = Waiter.remote()
    ref = waiter.wait.remote(gate)
    assert get(waiter.ping.remote()) == 1
    gate.open.remote()
    assert get(ref) == "open"


@shows("blocking `get` refused with the way out")
def test_a_blocking_get_in_an_async_method_is_refused() -> None:
    gate = programs.async_class().remote()

    @actorlib.remote(num_cpus=0)
    class Blocks:
        async def block(self, box: list[Any]) -> Any:
            return actorlib.get(box[0])

    with pytest.raises(RuntimeError, match="await"):
        get(Blocks.remote().block.remote([gate.sleep.remote(1)]))


@shows(ASYNC)
def test_a_sync_method_of_an_async_actor() -> None:
    assert get(programs.async_class().remote().plain.remote("x")) == "x"


@shows(ASYNC)
def test_an_error_of_an_async_method() -> None:
    @actorlib.remote(num_cpus=0)
    class Fails:
        async def fail(self) -> None:
            await asyncio.sleep(0)
            raise LookupError("async")

    with pytest.raises(LookupError, match="async"):
        get(Fails.remote().fail.remote())


@shows(ASYNC)
def test_an_async_actor_starts_tasks() -> None:
    add = programs.adder()

    @actorlib.remote(num_cpus=0)
    class Starter:
        async def start(self) -> Any:
            return [add.remote(1, 2)]

    starter = Starter.remote()  # it owns what it starts
    assert get(get(starter.start.remote())[0]) == 3


@shows(ASYNC)
def test_async_calls_with_references_as_arguments() -> None:
    gate = programs.async_class().remote()
    assert get(gate.plain.remote(programs.adder().remote(2, 3))) == 5
