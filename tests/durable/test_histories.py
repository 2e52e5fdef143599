"""Durable actors, simulated and real: whatever crashes, calls seem to have run one at a time, each once."""

from __future__ import annotations

import contextlib
import importlib.util
import random
import sys
import threading
import time
from pathlib import Path

import pytest

import actorlib
from actorlib.testing import simulate
from actorlib.testing.histories import Counter as CounterModel
from actorlib.testing.histories import History, KeyValue, PlainModel
from actorlib.testing.histories import Queue as QueueModel
from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy

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


@actorlib.remote(num_cpus=0, checkpoint=EVERY_CALLS)
class Bank:
    """Its accounts are durable actors of their own, so that a transfer is two calls of two others."""

    def __init__(self, accounts):
        self.accounts = accounts
        self.transfers = 0

    def transfer(self, source, target, amount):
        refs = [self.accounts[source].add.remote(-amount), self.accounts[target].add.remote(amount)]
        self.transfers += 1
        return [self.transfers, *actorlib.get(refs)]

    def balance(self, name):
        return actorlib.get(self.accounts[name].add.remote(0))


class PlainBank:
    """What the bank is to be."""

    def __init__(self):
        self.balances = dict.fromkeys("abc", 0)
        self.transfers = 0

    def transfer(self, source, target, amount):
        self.balances[source] -= amount
        self.balances[target] += amount
        self.transfers += 1
        return [self.transfers, self.balances[source], self.balances[target]]

    def balance(self, name):
        return self.balances[name]


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


def chain_script(rng, count):
    return [("add", rng.randrange(9)) for _ in range(count)]


def bank_script(rng, count):
    def one():
        if rng.random() < 0.3:
            return ("balance", rng.choice("abc"))
        return ("transfer", *rng.sample("abc", 2), rng.randrange(1, 50))

    return [one() for _ in range(count)]


def alone(cls):
    def made(**options):
        actor = cls.options(**options).remote()
        return [actor], [actor]

    return made


def chain(**options):
    """Two that hand each call on to a third, which hands it on to the last."""
    last = Counter.options(**options).remote()
    middle = Relay.options(**options).remote(last)
    firsts = [Relay.options(**options).remote(middle) for _ in range(2)]
    return firsts, [*firsts, middle, last]


def bank(**options):
    accounts = {name: Counter.options(**options).remote() for name in "abc"}
    actor = Bank.options(**options).remote(accounts)
    return [actor], [actor, *accounts.values()]


# What is made gives those that are called, and all that may be killed.
WORKLOADS = {
    "counter": (alone(Counter), counter_script, CounterModel),
    "queue": (alone(Fifo), queue_script, QueueModel),
    "key-value": (alone(Store), store_script, KeyValue),
    "chain": (chain, chain_script, CounterModel),
    "bank": (bank, bank_script, lambda: PlainModel(PlainBank)),
}
POINTS = list(crash_points.POINTS)


def run_clients(world, watched, script, rng):
    """Three clients at once: two actors of which one may be killed, and the driver, whose calls overlap."""
    clients = [Client.remote() for _ in range(2)]
    runs = [client.run.remote(watched[i % len(watched)], script(rng, 7)) for i, client in enumerate(clients)]
    if rng.random() < 0.5:
        world.after(rng.random() * 0.05, lambda: world.crash_actor(clients[0]))
    refs = []
    for i, (name, *args) in enumerate(script(rng, 10)):
        refs.append(getattr(watched[i % len(watched)], name).remote(*args))
        if rng.random() < 0.4:
            actorlib.get(refs[-1], timeout=T)
    actorlib.get(refs, timeout=T)
    for run in runs:
        with contextlib.suppress(actorlib.exceptions.ActorError):
            actorlib.get(run, timeout=T)


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("seed", range(6))
def test_histories_are_linearizable_when_actors_crash_at_any_point(name, seed):
    make, script, model = WORKLOADS[name]
    rng = random.Random(f"{name} {seed}")
    with crash_points.crashing(rng, POINTS, 6, 12) as hit, simulate(seed=seed, nodes=1) as world, History() as history:
        called, made = make()
        run_clients(world, [history.watch(actor) for actor in called], script, rng)
        history.assert_linearizable(model())
        assert hit.total() > 0
        del called, made


@pytest.mark.parametrize("point", POINTS)
def test_no_point_is_left_where_a_crash_does_harm(point):
    rng = random.Random(point)
    others = ["between the log and what leaves"] if "again" in point else []
    with crash_points.crashing(rng, [point, *others], 8, 2) as hit, simulate(seed=3) as world, History() as history:
        actor = Counter.remote()
        run_clients(world, [history.watch(actor)], counter_script, rng)
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


# -- on real processes -------------------------------------------------------------------------------------------------
class Threads:
    """Callers in the driver, each one call after the other."""

    def __init__(self, history, called, script, rng, count, calls):
        self.answered = 0
        self.errors = []
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(history.watch(called[i % len(called)], client=f"caller {i}"), script(rng, calls)),
            )
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, watched, script):
        try:
            for name, *args in script:
                actorlib.get(getattr(watched, name).remote(*args), timeout=REAL_T)
                with self._lock:
                    self.answered += 1
        except BaseException as error:
            self.errors.append(error)

    def wait_for(self, answered):
        deadline = time.monotonic() + REAL_T
        while self.answered < answered and not self.errors:
            assert time.monotonic() < deadline, f"{self.answered} of {answered} calls were answered"
            time.sleep(0.002)

    def join(self):
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors


REAL_T = 90


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_on_real_processes_whose_workers_and_node_are_killed(name):
    make, script, model = WORKLOADS[name]
    rng = random.Random(name)
    with simulate(seed=1, nodes=3, mode="process") as world, History() as history:
        home = NodeAffinitySchedulingStrategy(world.nodes[1].node_id.hex(), soft=True)
        called, made = make(scheduling_strategy=home)
        callers, killed = Threads(history, called, script, rng, count=3, calls=20), 0
        try:
            for answered in (5, 15, 40):
                callers.wait_for(answered)
                killed += world.crash_actor(rng.choice(made))
                if answered == 15:
                    world.crash_node(world.nodes[1])
        finally:
            callers.join()
        assert killed >= 1
        history.assert_linearizable(model())
        del called, made
