"""Durable actors on real processes: every call takes effect once, whoever is killed."""

from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import pytest

import actorlib
from actorlib.exceptions import TaskCancelledError, WorkerCrashedError

T = 60


@pytest.fixture(scope="module", autouse=True)
def session():
    with actorlib.init(num_cpus=4):
        yield


@actorlib.remote(num_cpus=0, checkpoint=7)
class Counter:
    def __init__(self, start=0):
        self.value = start
        self.seen = []

    def add(self, amount=1):
        self.value += amount
        self.seen.append(amount)
        return self.value

    def all(self):
        return self.seen

    def pid(self):
        return os.getpid()

    @actorlib.method(readonly=True)
    def peek(self):
        return self.value

    @actorlib.method(readonly=True)
    def peek_pid(self):
        return os.getpid()


def kill_process_of(handle):
    os.kill(actorlib.get(handle.peek_pid.remote(), timeout=T), signal.SIGKILL)


def test_calls_in_flight_run_once_and_in_order_when_the_worker_is_killed():
    counter = Counter.remote()
    refs = [counter.add.remote(i) for i in range(300)]
    for _ in range(3):
        actorlib.get(refs[random.Random(1).randrange(100)], timeout=T)
        kill_process_of(counter)
        refs += [counter.add.remote(i) for i in range(len(refs), len(refs) + 100)]
    values = actorlib.get(refs, timeout=T)
    assert values == [sum(range(i + 1)) for i in range(len(refs))]
    assert actorlib.get(counter.all.remote(), timeout=T) == list(range(len(refs)))


def test_readonly_calls_are_not_logged_and_see_what_was_acknowledged():
    counter = Counter.remote(5)
    assert actorlib.get(counter.add.remote(1), timeout=T) == 6
    assert actorlib.get(counter.peek.remote(), timeout=T) == 6
    kill_process_of(counter)
    assert actorlib.get(counter.peek.remote(), timeout=T) == 6


@actorlib.remote(num_cpus=0, checkpoint=4)
class Relay:
    """Hands each amount on to the next in the chain, and remembers what came back."""

    def __init__(self, to):
        self.to = to
        self.results = []

    def add(self, amount):
        value = actorlib.get(self.to.add.remote(amount))
        self.results.append(value)
        return value

    @actorlib.method(readonly=True)
    def peek_pid(self):
        return os.getpid()

    def all(self):
        return self.results


def test_a_chain_of_three_passes_each_call_on_once():
    counter = Counter.remote()
    middle = Relay.remote(counter)
    first = Relay.remote(middle)
    rng = random.Random(3)
    refs = [first.add.remote(1) for _ in range(60)]
    for _ in range(4):
        actorlib.wait(refs[rng.randrange(60) :][:1], timeout=0.02)
        kill_process_of(rng.choice([counter, middle, first]))
    assert actorlib.get(refs, timeout=T) == list(range(1, 61))
    assert actorlib.get(counter.peek.remote(), timeout=T) == 60
    assert actorlib.get(middle.all.remote(), timeout=T) == list(range(1, 61))


@actorlib.remote(num_cpus=0)
class Client:
    """Calls, and is killed."""

    def call(self, counter, count):
        return actorlib.get([counter.add.remote(1) for _ in range(count)])[-1]

    def call_without_an_end(self, counter):
        while True:
            counter.add.remote(1)
            time.sleep(0.001)

    def pid(self):
        return os.getpid()


def test_the_calls_of_those_who_died_before_the_actor_stay_applied():
    counter, one, other = Counter.remote(), Client.remote(), Client.remote()
    pids = actorlib.get([one.pid.remote(), other.pid.remote()], timeout=T)
    assert actorlib.get(one.call.remote(counter, 20), timeout=T) == 20
    other.call_without_an_end.remote(counter)
    while actorlib.get(counter.peek.remote(), timeout=T) < 60:
        time.sleep(0.001)
    ends = [actorlib.monitor(client) for client in (one, other)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    actorlib.get(ends, timeout=T)
    kill_process_of(counter)
    now = actorlib.get(counter.add.remote(0), timeout=T)
    assert now >= 60
    kill_process_of(counter)
    assert actorlib.get(counter.add.remote(1), timeout=T) == now + 1
    assert sum(actorlib.get(counter.all.remote(), timeout=T)) == now + 1


@actorlib.remote(num_cpus=0, checkpoint=1000)
class Recorder:
    def __init__(self):
        self.values = []

    def draw(self):
        self.values.append((actorlib.record(random.random), actorlib.record(time.time)))
        return self.values[-1]

    def fail(self):
        try:
            actorlib.record(int, "nonsense")
        except ValueError as error:
            self.values.append(str(error))
        return self.values[-1]

    def all(self):
        return self.values

    @actorlib.method(readonly=True)
    def peek_pid(self):
        return os.getpid()


def test_what_was_recorded_comes_back_from_the_log():
    recorder = Recorder.remote()
    drawn = actorlib.get([recorder.draw.remote() for _ in range(5)] + [recorder.fail.remote()], timeout=T)
    kill_process_of(recorder)
    assert actorlib.get(recorder.all.remote(), timeout=T) == drawn
    assert "invalid literal" in drawn[-1]


@actorlib.remote(num_cpus=0, checkpoint=1000)
class Poisoned:
    def __init__(self):
        self.value = 0

    def add(self):
        self.value += 1
        return self.value

    def crash(self, path):
        with open(path, "a") as out:
            out.write("x")
        self.value += 100
        os.kill(os.getpid(), signal.SIGKILL)

    def look(self):
        return self.value

    @actorlib.method(readonly=True)
    def peek_pid(self):
        return os.getpid()


def test_a_call_that_always_crashes_its_worker_is_skipped_for_good(tmp_path):
    actor = Poisoned.remote()
    refs = [actor.add.remote(), actor.crash.remote(tmp_path / "runs"), actor.add.remote()]
    assert actorlib.get(refs[0], timeout=T) == 1
    with pytest.raises(WorkerCrashedError, match="3 times in a row"):
        actorlib.get(refs[1], timeout=T)
    assert actorlib.get(refs[2], timeout=T) == 2
    for _ in range(2):
        kill_process_of(actor)
        assert actorlib.get(actor.look.remote(), timeout=T) == 2
    assert (tmp_path / "runs").read_text() == "xxx", "for good, also when the log is run again for another reason"


def test_queued_calls_can_be_cancelled_running_ones_go_on(tmp_path):
    @actorlib.remote(num_cpus=0, checkpoint=100)
    class Slow:
        def __init__(self):
            self.done = []

        def hold(self, name):
            (tmp_path / name).touch()
            while not (tmp_path / "go").exists():
                time.sleep(0.001)
            self.done.append(name)
            return name

        def all(self):
            return self.done

    slow = Slow.remote()
    running, queued = slow.hold.remote("a"), slow.hold.remote("b")
    while not (tmp_path / "a").exists():
        time.sleep(0.001)
    actorlib.cancel(running)
    actorlib.cancel(queued)
    with pytest.raises(TaskCancelledError):
        actorlib.get(queued, timeout=T)
    (tmp_path / "go").touch()
    assert actorlib.get(running, timeout=T) == "a"
    assert actorlib.get(slow.all.remote(), timeout=T) == ["a"]


@actorlib.remote(num_cpus=0, checkpoint=5)
class Streamer:
    def __init__(self):
        self.given = 0

    def numbers(self, count):
        for i in range(count):
            self.given += 1
            yield i * 10

    def total(self):
        return self.given

    @actorlib.method(readonly=True)
    def peek_pid(self):
        return os.getpid()


def test_generators_go_on_where_they_were():
    streamer = Streamer.remote()
    generator = streamer.numbers.remote(50)
    got = [actorlib.get(next(generator), timeout=T) for _ in range(5)]
    kill_process_of(streamer)
    got += [actorlib.get(ref, timeout=T) for ref in generator]
    assert got == [i * 10 for i in range(50)]
    assert actorlib.get(streamer.total.remote(), timeout=T) == 50


@actorlib.remote
def square(x):
    return x * x


@actorlib.remote(num_cpus=0, checkpoint=3)
class Holder:
    """Keeps references, handles and arrays in its state."""

    def __init__(self):
        self.child = Counter.remote(1000)
        self.ref = None
        self.array = np.zeros(50_000)

    def start(self, x):
        self.ref = square.remote(x)
        self.array[x] += 1
        return x

    def result(self):
        return actorlib.get(self.ref)

    def grow(self):
        return actorlib.get(self.child.add.remote(1))

    def large(self):
        return self.array + 1

    def total(self):
        return float(self.array.sum())

    @actorlib.method(readonly=True)
    def peek_pid(self):
        return os.getpid()


def test_references_handles_and_arrays_in_the_state_survive():
    holder = Holder.remote()
    for x in range(8):
        assert actorlib.get(holder.start.remote(x), timeout=T) == x
        kill_process_of(holder)
        assert actorlib.get(holder.result.remote(), timeout=T) == x * x
        assert actorlib.get(holder.grow.remote(), timeout=T) == 1001 + x
    assert actorlib.get(holder.total.remote(), timeout=T) == 8
    assert actorlib.get(holder.large.remote(), timeout=T).sum() == 50_008


def test_large_arguments_and_results_are_kept_whole():
    @actorlib.remote(num_cpus=0, checkpoint=1000)
    class Sum:
        def __init__(self):
            self.total = 0.0

        def add(self, array):
            self.total += float(array.sum())
            return np.full(100_000, self.total)

        @actorlib.method(readonly=True)
        def peek_pid(self):
            return os.getpid()

    actor = Sum.remote()
    big = actorlib.put(np.ones(60_000))
    assert actorlib.get(actor.add.remote(np.ones(50_000)), timeout=T)[0] == 50_000
    assert actorlib.get(actor.add.remote(big), timeout=T)[0] == 110_000
    del big
    kill_process_of(actor)
    assert actorlib.get(actor.add.remote(np.ones(1)), timeout=T)[0] == 110_001


def test_coroutines_of_durable_actors_run_one_at_a_time_and_again():
    @actorlib.remote(num_cpus=0, checkpoint=1000)
    class Async:
        def __init__(self):
            self.values = []

        async def fetch(self, a, b):
            import asyncio

            x, y = await asyncio.gather(square.remote(a)._wait(), square.remote(b)._wait())
            self.values.append((x, y))
            return x + y

        def all(self):
            return self.values

        @actorlib.method(readonly=True)
        def peek_pid(self):
            return os.getpid()

    actor = Async.remote()
    assert actorlib.get([actor.fetch.remote(i, i + 1) for i in range(5)], timeout=T)[0] == 1
    kill_process_of(actor)
    assert actorlib.get(actor.all.remote(), timeout=T) == [(i * i, (i + 1) ** 2) for i in range(5)]
