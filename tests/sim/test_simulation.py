"""The ordinary API in a simulated cluster."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
import uuid
import weakref

import numpy as np
import pytest

import actorlib
from actorlib.testing import Stuck, simulate
from actorlib.testing.simulation import COLLECT_EVERY_WORLDS
from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@actorlib.remote
def add(left, right):
    return left + right


@actorlib.remote
def nap(value, seconds=1.0):
    time.sleep(seconds)
    return value


@actorlib.remote
def tree(depth):
    if depth == 0:
        return 1
    return 1 + sum(actorlib.get([tree.remote(depth - 1), tree.remote(depth - 1)]))


@actorlib.remote(max_restarts=-1, max_task_retries=-1)
class Counter:
    def __init__(self):
        self.value = 0

    def add(self, amount=1):
        self.value += amount
        return self.value


@actorlib.remote
class Async:
    async def echo(self, value):
        await asyncio.sleep(1.0)
        return value


@actorlib.remote(max_concurrency=4)
class Threaded:
    def nap(self, value):
        time.sleep(1.0)
        return value


@actorlib.remote
def array(value):
    return np.full(100_000, float(value))


def test_tasks_trees_and_actors():
    with simulate(seed=1, nodes=2):
        assert actorlib.get([add.remote(i, i) for i in range(50)]) == [2 * i for i in range(50)]
        assert actorlib.get(tree.remote(4)) == 31
        counter = Counter.remote()
        assert actorlib.get([counter.add.remote() for _ in range(5)]) == [1, 2, 3, 4, 5]
        del counter


def test_time_is_virtual_and_only_here():
    before, real, go_on = time.monotonic(), [], threading.Event()
    read = threading.Thread(target=lambda: go_on.wait() and real.append(time.monotonic()))
    read.start()
    with simulate(seed=1, num_cpus=2) as world:
        began = time.monotonic()
        assert actorlib.get([nap.remote(i, 100.0) for i in range(4)]) == [0, 1, 2, 3]
        assert 200.0 <= time.monotonic() - began < 201.0
        time.sleep(1000)
        assert world.world.time > 2000
        go_on.set()
        read.join()
        assert real[0] - before < 20
    assert time.monotonic() - before < 20


def test_a_world_starts_in_milliseconds_and_makes_no_process_thread_or_socket():
    with simulate(seed=0):
        pass
    threads, fds = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with simulate(seed=0):
        assert actorlib.get(add.remote(1, 2)) == 3
        assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, fds)
    took, spent = [], time.process_time  # of this process: a clock on the wall says how busy the machine is
    for seed in range(20):
        began = spent()
        with simulate(seed=seed):
            took.append(spent() - began)
    assert min(took) < 0.010


def test_async_and_threaded_actors_run_calls_at_once():
    with simulate(seed=2) as world:
        began = world.world.time
        actors = [Async.remote(), Threaded.remote()]
        refs = [actors[0].echo.remote(i) for i in range(10)] + [actors[1].nap.remote(i) for i in range(8)]
        assert actorlib.get(refs) == [*range(10), *range(8)]
        assert 2.0 < world.world.time - began < 2.2
        del actors, refs


def test_objects_generators_and_cancel():
    @actorlib.remote
    def count():
        for i in range(5):
            time.sleep(0.1)
            yield i

    with simulate(seed=3, nodes=2):
        refs = [array.remote(i) for i in range(4)]
        assert [float(value[-1]) for value in actorlib.get(refs)] == [0.0, 1.0, 2.0, 3.0]
        assert [actorlib.get(ref) for ref in count.remote()] == [0, 1, 2, 3, 4]
        ref = nap.remote(1, 1000.0)
        assert actorlib.wait([ref], timeout=1.0) == ([], [ref])
        actorlib.cancel(ref)
        with pytest.raises(actorlib.exceptions.TaskCancelledError):
            actorlib.get(ref)
        del ref, refs


def test_crashed_workers_and_nodes_are_recovered_from():
    with simulate(seed=5, nodes=3) as world:
        refs = [nap.remote(i) for i in range(12)]
        for seconds in (0.3, 1.0, 1.7):
            world.after(seconds, world.crash_worker)
        world.after(0.5, lambda: world.crash_node(world.nodes[1]))
        assert actorlib.get(refs, timeout=100) == list(range(12))
        counter = Counter.remote()
        assert actorlib.get(counter.add.remote()) == 1
        assert world.crash_actor(counter)
        assert actorlib.get(counter.add.remote(), timeout=100) == 1
        del counter, refs


def test_a_lossy_network_only_takes_longer():
    with simulate(seed=5, nodes=3) as world:
        world.network.weather.loss = world.network.weather.duplication = 0.2
        refs = [nap.remote(i, 0.01) for i in range(30)]
        assert actorlib.get(refs, timeout=300) == list(range(30))
        assert world.network.lost > 0 and world.network.repeated > 0
        world.network.weather.loss = world.network.weather.duplication = 0.0
        del refs


def test_a_partition_holds_things_up_until_it_heals():
    with simulate(seed=8, nodes=2, num_cpus=1) as world:
        refs = [nap.remote(i) for i in range(2)]  # one of them on the other node
        actorlib.wait(refs, timeout=0.5)
        world.network.partition(world.nodes[0].node_id, world.nodes[1].node_id)
        assert len(actorlib.wait(refs, num_returns=2, timeout=10.0)[0]) == 1
        world.network.heal()
        assert actorlib.get(refs, timeout=100) == [0, 1]
        del refs


def test_the_same_seed_is_the_same_run_also_under_other_hashes():
    code = (
        "import sys; sys.path.insert(0, 'tests/sim'); import swarm, collections;"
        "print(swarm.run_seed(4, collections.Counter()))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    }
    assert len(digests) == 1


def test_what_lies_on_a_node_that_nobody_has_told_of_yet_is_waited_for():
    with simulate(seed=7, nodes=2, num_cpus=1) as world:
        time.sleep(1.0)
        views = world.nodes[1].service._views
        views.clear()  # node 1 has not heard of node 0, as after a start in which its news is late
        far = actorlib.remote(lambda value: float(value[0]))
        strategy = NodeAffinitySchedulingStrategy(world.nodes[1].node_id.hex(), soft=False)
        ref = far.options(scheduling_strategy=strategy).remote(actorlib.put(np.full(100_000, 5.0)))
        world.after(0.3, lambda: world.gcs.nodes._news.moved(world.nodes[0].node_id))
        assert actorlib.get(ref) == 5.0
        del ref


def test_user_randomness_comes_from_the_seed_and_is_put_back():
    random.seed(42)
    expected = random.random()
    drawn = []
    random.seed(42)
    for seed in (7, 7, 8):
        with simulate(seed=seed):
            drawn.append((random.random(), uuid.uuid4()))
    assert drawn[0] == drawn[1] != drawn[2]
    assert random.random() == expected


def test_what_can_never_happen_is_told():
    with pytest.raises((Stuck, actorlib.exceptions.TaskUnschedulableError)), simulate(seed=1):
        actorlib.get(add.options(num_cpus=64).remote(1, 1))


def test_an_oracle_sees_references_that_are_not_returned():
    kept = []
    with pytest.raises(AssertionError, match="not returned"), simulate(seed=1):
        kept.append(actorlib.put(1))


def test_a_session_and_a_simulation_exclude_each_other():
    with simulate(seed=1), pytest.raises(RuntimeError, match="a session runs already"), simulate(seed=2):
        pass
    assert not actorlib.is_initialized()


made_for_worlds = []  # they live on, as classes of a test module do


@pytest.mark.parametrize("word", ["one", "other"])
def test_classes_of_worlds_with_the_same_seed_are_not_taken_for_each_other(word):
    """Classes that travel by value get random numbers, and those come from the seed."""

    def tell(self):
        return word

    cls = type("Teller", (), {"__module__": "__main__", "tell": tell})
    made_for_worlds.append(cls)
    with simulate(seed=5):
        teller = actorlib.remote(cls).remote()
        assert actorlib.get(teller.tell.remote()) == word
        del teller


@actorlib.remote
class Patient:
    def wait_for(self, refs):
        return actorlib.get(refs[0])


def test_what_is_queued_when_a_world_ends_never_runs_and_starts_no_real_session(monkeypatch):
    started = []
    monkeypatch.setattr(actorlib.engine.Slot, "auto_init", lambda: started.append("a real session"))
    with simulate(check=False):
        patient = Patient.remote()
        never = nap.remote(0, 1e6)
        calls = [patient.wait_for.remote([never]) for _ in range(3)]
        actorlib.wait(calls, timeout=1.0)
    assert not started


def test_worlds_that_have_ended_are_freed():
    """Each is one big circle, and no garbage is collected while one lives: hundreds of them would fill the memory."""
    ended = []

    def one(seed):
        with simulate(seed=seed, nodes=1) as world:
            ended.append(weakref.ref(world))

    for seed in range(3 * COLLECT_EVERY_WORLDS):
        one(seed)
    assert sum(world() is not None for world in ended) <= COLLECT_EVERY_WORLDS
