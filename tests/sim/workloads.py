"""What the swarm's clusters do, and what must hold of the answers whatever goes wrong.

Each workload is a generator function over a random source: it starts work, yields while others do, and checks what
came back. It may get the errors that a fault allows, and no others.
"""

from __future__ import annotations

import asyncio
import collections
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import actorlib
from actorlib import exceptions

WAIT_S = None  # the oracle of liveness knows how long anything may take
STARVED_S = 90.0
ACTOR_LOST = (exceptions.ActorDiedError, exceptions.ActorUnavailableError)
OBJECT_LOST = (
    exceptions.ObjectLostError,
    exceptions.OwnerDiedError,
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
)

Workload = Callable[[random.Random, "collections.Counter[str]"], Iterator[None]]


# What a fault may make any call end with.
ALLOWED_BY = {
    "memory_full": (exceptions.ObjectStoreFullError,),
    "disk_full": (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError),
    "journal_full": (exceptions.OutOfDiskError,),
    "kill_for_memory": (exceptions.OutOfMemoryError, exceptions.RuntimeEnvSetupError),
    # Three workers in a row that die before they are ready: the node says that it can't start any.
    "failing_start": (exceptions.RuntimeEnvSetupError,),
    "crash_worker": (exceptions.RuntimeEnvSetupError,),
}


def run_all(
    chosen: list[Workload],
    rng: random.Random,
    counts: collections.Counter[str],
    fired: collections.Counter[str],
    is_tiny: bool = False,
) -> None:
    """Interleave the workloads in the driver, step by step, in an order that the seed decides.

    ``is_tiny``: memory is so small that it may be full of what is in use.
    """
    running = [workload(random.Random(rng.random()), counts) for workload in chosen]
    while running:
        one = rng.choice(running)
        try:
            next(one)
        except StopIteration:
            running.remove(one)
        except exceptions.ActorlibError as error:
            by_memory = (exceptions.ObjectStoreFullError,) if is_tiny else ()
            # Two hosts hold the log: it outlives one of them, and another one once it was copied anew.
            by_hosts = (exceptions.StateRolledBackError,) if fired["crash_node"] + fired["reborn_host"] > 1 else ()
            by_faults = (kind for fault in fired for kind in ALLOWED_BY.get(fault, ()))
            if not isinstance(error, (*by_memory, *by_hosts, *by_faults)):
                raise
            counts[f"given up: {type(error).__name__.split('(')[0]}"] += 1
            running.remove(one)


def once_there_is_room(order: Callable[[], Any]) -> None:
    """What ends something that others wait for: said again while the GCS's disk is full."""
    while True:
        try:
            order()
            return
        except exceptions.OutOfDiskError:
            time.sleep(1.0)


@actorlib.remote(max_retries=-1)
def tree(depth: int) -> int:
    if depth == 0:
        return 1
    return 1 + sum(actorlib.get([tree.remote(depth - 1), tree.remote(depth - 1)]))


def trees(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    depth = rng.randint(1, 4)
    ref = tree.remote(depth)
    yield
    assert actorlib.get(ref, timeout=WAIT_S) == 2 ** (depth + 1) - 1
    counts["tasks in trees"] += 2 ** (depth + 1) - 1


@actorlib.remote(max_retries=-1)
def add(left: int, right: int, seconds: float = 0.0) -> int:
    if seconds:
        time.sleep(seconds)
    return left + right


def chains(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    length, seconds = rng.randint(1, 40), rng.choice([0.0, 0.0, 0.1])
    ref: Any = add.remote(0, 0)
    for i in range(length):
        ref = add.remote(ref, i, seconds)
        if i % 10 == 0:
            yield
    assert actorlib.get(ref, timeout=WAIT_S) == sum(range(length))
    counts["tasks in chains"] += length


@actorlib.remote
class Counter:
    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def slow_add(self, amount: int, seconds: float) -> int:
        time.sleep(seconds)
        self.value += amount
        return self.value


def counters(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    """Each incarnation counts from zero; what it answers goes up; answers come in the order of the calls."""
    counter = Counter.options(max_restarts=-1, max_task_retries=rng.choice([0, 0, -1])).remote()
    refs = []
    for _ in range(rng.randint(1, 30)):
        refs.append(counter.slow_add.remote(1, rng.choice([0, 0, 0.2])))
        if rng.random() < 0.3:
            yield
    before = 0
    for ref in refs:
        try:
            value = actorlib.get(ref, timeout=WAIT_S)
        except ACTOR_LOST:
            counts["calls lost with their actor"] += 1
            continue
        assert value == before + 1 or (value >= 1 and value <= before + 1), f"{value} after {before}"
        assert value > before or value == 1 or value <= len(refs)
        before = value
        counts["calls answered"] += 1


def checkpointed(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    """With a checkpoint after each call, no acknowledged call is ever lost."""
    counter = Counter.options(checkpoint=1, max_restarts=-1).remote()
    acknowledged = 0
    for _ in range(rng.randint(1, 15)):
        ref = counter.slow_add.remote(1, rng.choice([0, 0.1]))
        yield
        try:
            value = actorlib.get(ref, timeout=WAIT_S)
        except ACTOR_LOST:
            counts["checkpointed calls lost"] += 1
            continue
        except exceptions.WorkerCrashedError:
            counts["calls that met three crashes in a row"] += 1
            continue
        assert value > acknowledged, f"{value} after {acknowledged} was acknowledged"
        acknowledged = value
        counts["checkpointed calls answered"] += 1


@actorlib.remote(max_retries=-1)
def make_array(number: int, size: int) -> Any:
    return np.full(size, float(number))


@actorlib.remote(max_retries=-1)
def total_of(arrays: list[Any]) -> float:
    return float(sum(actorlib.get(ref).sum() for ref in arrays))


@actorlib.remote(max_retries=-1)
def first_of(array: Any) -> float:
    return float(array[0])


def objects(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    sizes = [rng.choice([10, 20_000, 60_000]) for _ in range(rng.randint(1, 6))]
    arrays = [make_array.remote(i, size) for i, size in enumerate(sizes)]
    put = actorlib.put(np.ones(30_000))
    yield
    firsts = [first_of.remote(array) for array in arrays]
    nested = total_of.remote(arrays)
    one = first_of.remote(put)
    yield
    assert actorlib.get(firsts, timeout=WAIT_S) == [float(i) for i in range(len(sizes))]
    assert actorlib.get(nested, timeout=WAIT_S) == float(sum(i * size for i, size in enumerate(sizes)))
    try:
        assert actorlib.get(one, timeout=WAIT_S) == 1.0
    except OBJECT_LOST:
        counts["puts lost"] += 1
    counts["objects"] += len(sizes)


def hoard(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    """More than a small memory holds, looked at later: in between it may be spilled, lost, torn and made again."""
    size = rng.choice([150_000, 400_000])
    arrays = [make_array.remote(i, size) for i in range(rng.randint(4, 24))]
    yield
    actorlib.wait(arrays, num_returns=len(arrays), timeout=5.0)
    yield
    time.sleep(rng.uniform(0.0, 5.0))
    order = list(range(len(arrays)))
    rng.shuffle(order)
    for i in order:
        try:
            value = actorlib.get(arrays[i] if rng.random() < 0.5 else first_of.remote(arrays[i]), timeout=WAIT_S)
        except exceptions.ObjectStoreFullError:
            counts["given up: small memory"] += 1
            return
        assert float(np.ravel(value)[0]) == float(i)
        del value
        yield
    counts["hoarded objects"] += len(arrays)


@actorlib.remote(max_retries=0)
def numbers(count: int) -> Iterator[int]:
    for i in range(count):
        time.sleep(0.05)
        yield i


def generators(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    count = rng.randint(0, 12)
    stream = numbers.remote(count)
    seen = []
    yield
    try:
        for ref in stream:
            seen.append(actorlib.get(ref, timeout=WAIT_S))
            yield
    except OBJECT_LOST:
        counts["streams broken"] += 1
        assert seen == list(range(len(seen)))
        return
    assert seen == list(range(count)), seen
    counts["items of streams"] += count


@actorlib.remote(max_retries=3)
def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "awake"


def cancels(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    refs = [nap.remote(rng.uniform(0.0, 2.0)) for _ in range(rng.randint(1, 8))]
    yield
    chosen = [ref for ref in refs if rng.random() < 0.5]
    for ref in chosen:
        actorlib.cancel(ref, force=rng.random() < 0.2)
        yield
    for ref in refs:
        try:
            assert actorlib.get(ref, timeout=WAIT_S) == "awake"
        except exceptions.TaskCancelledError:
            assert ref in chosen
            counts["tasks cancelled"] += 1
        except OBJECT_LOST:
            counts["naps lost"] += 1


@actorlib.remote(max_retries=-1)
def maybe_wait(seconds: float) -> int:
    if seconds:
        actorlib.get(nap.remote(seconds))
    return 1


def second_thoughts(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    """Calls are cancelled while workers that wait give them back: the word to cancel a call crosses its return."""
    actorlib.get([maybe_wait.remote(0.0) for _ in range(rng.randint(10, 30))], timeout=WAIT_S)
    yield
    for _ in range(rng.randint(1, 6)):
        refs = [maybe_wait.remote(rng.choice([0.0, 0.0, 0.01])) for _ in range(rng.randint(5, 30))]
        time.sleep(rng.uniform(0.0, 0.003))
        chosen = [ref for ref in refs if rng.random() < 0.7]
        for ref in chosen:
            actorlib.cancel(ref)
        yield
        for ref in refs:
            try:
                assert actorlib.get(ref, timeout=WAIT_S) == 1
            except exceptions.TaskCancelledError:
                assert ref in chosen
                counts["calls cancelled on their way"] += 1


def fairness(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    """Work of one shape that never ends must not keep out work of another shape."""
    busy: list[Any] = [add.remote(i, 0, 0.3) for i in range(rng.randint(6, 12))]
    yield
    other = add.options(num_cpus=0.5).remote(1, 1)
    began = time.monotonic()
    while not actorlib.wait([other], timeout=0)[0]:
        _, busy = actorlib.wait(busy, num_returns=1)
        busy.append(add.remote(0, 0, 0.3))
        assert time.monotonic() - began < STARVED_S, "work of another shape starves"
        yield
    assert actorlib.get(other, timeout=WAIT_S) == 2
    actorlib.get(busy, timeout=WAIT_S)
    counts["shapes that got their turn"] += 1


@actorlib.remote(max_retries=-1)
def claim(name: str) -> str:
    handle = Counter.options(name=name, get_if_exists=True, lifetime="detached", max_restarts=-1).remote()
    return str(handle._actor_id.hex())


def named(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    """However many ask at once, a name means one actor."""
    name = f"name{rng.randrange(10**9)}"
    refs = [claim.remote(name) for _ in range(rng.randint(2, 6))]
    yield
    ids = set(actorlib.get(refs, timeout=WAIT_S))
    assert len(ids) == 1, ids
    handle = actorlib.get_actor(name)
    once_there_is_room(lambda: actorlib.kill(handle))
    counts["names claimed"] += len(refs)


def groups(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    from actorlib.util import placement_group, remove_placement_group
    from actorlib.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    yield  # from here on it goes through in one go: others could wait for what the group holds
    group = placement_group([{"CPU": 1}] * rng.randint(1, 2), strategy=rng.choice(["PACK", "SPREAD"]))
    strategy = PlacementGroupSchedulingStrategy(group)
    refs = [add.options(scheduling_strategy=strategy).remote(i, 1) for i in range(rng.randint(1, 4))]
    ready, pending = actorlib.wait(refs, num_returns=len(refs), timeout=20.0)
    for ref in ready:
        try:
            actorlib.get(ref, timeout=WAIT_S)
            counts["tasks in groups"] += 1
        except exceptions.TaskUnschedulableError:
            counts["groups infeasible"] += 1
    once_there_is_room(lambda: remove_placement_group(group))
    for ref in pending:
        try:
            actorlib.get(ref, timeout=WAIT_S)
        except exceptions.TaskUnschedulableError:
            counts["tasks of removed groups"] += 1


@actorlib.remote(max_restarts=-1, max_task_retries=-1)
class Echo:
    async def echo(self, value: int) -> int:
        await asyncio.sleep(0.1)
        return value


def async_actors(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    echo = Echo.remote()
    refs = [echo.echo.remote(i) for i in range(rng.randint(1, 20))]
    yield
    assert actorlib.get(refs, timeout=WAIT_S) == list(range(len(refs)))
    counts["async calls"] += len(refs)


@actorlib.remote(max_restarts=0)
class Keeper:
    """Keeps references that it was given, hands them on, and reads them later."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def keep(self, refs: list[Any]) -> int:
        self.kept.extend(refs)
        return len(self.kept)

    def hand_on(self, other: Any) -> int:
        return int(actorlib.get(other.keep.remote(self.kept)))

    def give(self) -> list[Any]:
        return self.kept

    def make(self, number: int) -> list[Any]:
        return [actorlib.put(np.full(20_000, float(number)))]

    def read(self) -> list[float]:
        return [float(value[0]) for value in actorlib.get(self.kept)]

    def drop(self) -> None:
        self.kept.clear()


def borrowers(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    """References that wander between actors stay readable for as long as anybody holds one."""
    first, second = Keeper.remote(), Keeper.remote()
    numbers = [rng.randint(0, 9) for _ in range(rng.randint(1, 3))]
    refs = [make_array.remote(number, rng.choice([10, 30_000])) for number in numbers]
    if rng.random() < 0.5:
        refs.append(actorlib.put(np.full(30_000, 5.0)))
        numbers.append(5)
    try:
        made = actorlib.get(first.make.remote(7), timeout=WAIT_S)
        yield
        kept = first.keep.remote([*refs, *made])
        del refs, made
        yield
        actorlib.get(kept, timeout=WAIT_S)
        assert actorlib.get(first.hand_on.remote(second), timeout=WAIT_S) == len(numbers) + 1
        yield
        actorlib.get(first.drop.remote(), timeout=WAIT_S)
        expected = [float(number) for number in [*numbers, 7]]
        yield
        assert actorlib.get(second.read.remote(), timeout=WAIT_S) == expected
        back = actorlib.get(second.give.remote(), timeout=WAIT_S)
        del second
        yield
        assert [float(value[0]) for value in actorlib.get(back, timeout=WAIT_S)] == expected
        counts["references that wandered"] += len(expected)
    except (*ACTOR_LOST, *OBJECT_LOST) as error:
        assert not isinstance(error, exceptions.ReferenceCountingAssertionError), "freed while somebody held it"
        counts["wanderings broken"] += 1


def lodgers(rng: random.Random, counts: collections.Counter[str]) -> Iterator[None]:
    """An actor that outlives all of this keeps references for a while, and lets go of them while it goes on."""
    name = f"lodger{rng.randrange(10**9)}"
    keeper = Keeper.options(name=name, lifetime="detached", num_cpus=0).remote()
    try:
        for _ in range(rng.randint(1, 4)):
            refs = [make_array.remote(number, rng.choice([10, 30_000])) for number in range(rng.randint(1, 3))]
            kept = keeper.keep.remote(refs)
            del refs
            yield
            actorlib.get(kept, timeout=WAIT_S)
            if rng.random() < 0.5:
                assert actorlib.get(keeper.read.remote(), timeout=WAIT_S)[0] == 0.0
            actorlib.get(keeper.drop.remote(), timeout=WAIT_S)
            yield
            counts["lodgers"] += 1
    except exceptions.ActorlibError as error:
        once_there_is_room(lambda: actorlib.kill(keeper))  # it would go on keeping what it has
        if not isinstance(error, (*ACTOR_LOST, *OBJECT_LOST)):
            raise
        assert not isinstance(error, exceptions.ReferenceCountingAssertionError), "freed while somebody held it"
        counts["lodgings broken"] += 1
