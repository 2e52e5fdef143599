"""Durable actors in simulated clusters: whatever crashes, the calls seem to have run one at a time, each once."""

from __future__ import annotations

import contextlib
import importlib.util
import random
import sys
from pathlib import Path

import pytest

import actorlib
from actorlib.testing import simulate
from actorlib.testing.histories import Counter as CounterModel
from actorlib.testing.histories import History, KeyValue
from actorlib.testing.histories import Queue as QueueModel

_spec = importlib.util.spec_from_file_location("crash_points", Path(__file__).with_name("crash_points.py"))
crash_points = importlib.util.module_from_spec(_spec)
sys.modules["crash_points"] = crash_points
_spec.loader.exec_module(crash_points)

T = 3000
EVERY_CALLS = 5


@actorlib.remote(num_cpus=0, checkpoint=EVERY_CALLS)
class Counter:
    def __init__(self):
        self.value = 0

    def add(self, amount):
        self.value += amount
        return self.value

    @actorlib.method(readonly=True)
    def read(self):
        return self.value


@actorlib.remote(num_cpus=0, checkpoint=EVERY_CALLS)
class Fifo:
    def __init__(self):
        self.items = []

    def put(self, item):
        self.items.append(item)

    def get(self):
        return self.items.pop(0) if self.items else None


@actorlib.remote(num_cpus=0, checkpoint=EVERY_CALLS)
class Store:
    def __init__(self):
        self.values = {}

    def put(self, key, value):
        self.values[key] = value

    def get(self, key):
        return self.values.get(key)

    def delete(self, key):
        return self.values.pop(key, None) is not None


@actorlib.remote(num_cpus=0, checkpoint=EVERY_CALLS)
class Relay:
    def __init__(self, to):
        self.to = to
        self.passed = 0

    def add(self, amount):
        self.passed += 1
        return actorlib.get(self.to.add.remote(amount))

    def count(self):
        return self.passed


@actorlib.remote(num_cpus=0, checkpoint=EVERY_CALLS)
class Teller:
    """Moves money between two accounts: both calls happen, or none."""

    def __init__(self, accounts):
        self.accounts = accounts
        self.moved = 0

    def move(self, source, target, amount):
        actorlib.get([self.accounts[source].add.remote(-amount), self.accounts[target].add.remote(amount)])
        self.moved += 1
        return self.moved


@actorlib.remote(num_cpus=0)
class Client:
    """A caller that may be killed."""

    def run(self, target, script):
        return [actorlib.get(getattr(target, name).remote(*args)) for name, *args in script]


def counter_script(rng, count):
    return [rng.choice([("add", rng.randrange(1, 9)), ("add", 1), ("read",)]) for _ in range(count)]


def queue_script(rng, count):
    return [("put", rng.randrange(10**9)) if rng.random() < 0.6 else ("get",) for _ in range(count)]


def store_script(rng, count):
    def one():
        key = rng.choice("abc")
        return rng.choice([("put", key, rng.randrange(100)), ("get", key), ("get", key), ("delete", key)])

    return [one() for _ in range(count)]


WORKLOADS = {
    "counter": (Counter, counter_script, CounterModel),
    "queue": (Fifo, queue_script, QueueModel),
    "key-value": (Store, store_script, KeyValue),
}
POINTS = list(crash_points.POINTS)


def run_clients(world, watched, script, rng):
    """Three clients at once: two actors of which one may be killed, and the driver, whose calls overlap."""
    clients = [Client.remote() for _ in range(2)]
    runs = [client.run.remote(watched, script(rng, 7)) for client in clients]
    if rng.random() < 0.5:
        world.after(rng.random() * 0.05, lambda: world.crash_actor(clients[0]))
    refs = []
    for name, *args in script(rng, 10):
        refs.append(getattr(watched, name).remote(*args))
        if rng.random() < 0.4:
            actorlib.get(refs[-1], timeout=T)
    actorlib.get(refs, timeout=T)
    for run in runs:
        with contextlib.suppress(actorlib.exceptions.ActorError):
            actorlib.get(run, timeout=T)


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("seed", range(6))
def test_histories_are_linearizable_when_actors_crash_at_any_point(name, seed):
    cls, script, model = WORKLOADS[name]
    rng = random.Random(f"{name} {seed}")
    with crash_points.crashing(rng, POINTS, 6, 12) as hit, simulate(seed=seed, nodes=1) as world, History() as history:
        actor = cls.remote()
        run_clients(world, history.watch(actor), script, rng)
        history.assert_linearizable(model())
        assert hit.total() > 0
        del actor


@pytest.mark.parametrize("point", POINTS)
def test_no_point_is_left_where_a_crash_does_harm(point):
    rng = random.Random(point)
    others = ["between the log and what leaves"] if "again" in point else []
    with crash_points.crashing(rng, [point, *others], 8, 2) as hit, simulate(seed=3) as world, History() as history:
        actor = Counter.remote()
        run_clients(world, history.watch(actor), counter_script, rng)
        history.assert_linearizable(CounterModel())
        assert hit[point] > 0
        del actor


@pytest.mark.parametrize("seed", range(8))
def test_a_chain_of_three_counts_each_call_once(seed):
    rng = random.Random(seed)
    with crash_points.crashing(rng, POINTS, 8, 20) as hit, simulate(seed=seed, nodes=1):
        last = Counter.remote()
        middle = Relay.remote(last)
        first = Relay.remote(middle)
        refs = [first.add.remote(1) for _ in range(15)]
        assert actorlib.get(refs, timeout=T) == list(range(1, 16))
        assert actorlib.get([first.count.remote(), middle.count.remote(), last.read.remote()], timeout=T) == [15] * 3
        assert hit.total() > 0
        del first, middle, last, refs


@pytest.mark.parametrize("seed", range(6))
def test_a_bank_loses_no_money(seed):
    rng = random.Random(seed)
    with crash_points.crashing(rng, POINTS, 8, 20) as hit, simulate(seed=seed, nodes=1):
        accounts = {name: Counter.remote() for name in "abc"}
        tellers = [Teller.remote(accounts) for _ in range(2)]
        balance, refs = dict.fromkeys("abc", 0), []
        for _ in range(16):
            source, target = rng.sample("abc", 2)
            amount = rng.randrange(1, 50)
            balance[source] -= amount
            balance[target] += amount
            refs.append(rng.choice(tellers).move.remote(source, target, amount))
        actorlib.get(refs, timeout=T)
        assert {name: actorlib.get(a.read.remote(), timeout=T) for name, a in accounts.items()} == balance
        assert hit.total() > 0
        del accounts, tellers, refs


def test_a_full_disk_holds_answers_back_until_there_is_room():
    with simulate(seed=1) as world:
        counter = Counter.remote()
        assert actorlib.get(counter.add.remote(1), timeout=T) == 1
        world.nodes[0].disk.is_full = True
        ref = counter.add.remote(1)
        with pytest.raises(actorlib.exceptions.GetTimeoutError):
            actorlib.get(ref, timeout=30)
        world.nodes[0].disk.is_full = False
        assert actorlib.get(ref, timeout=T) == 2
        del counter, ref
