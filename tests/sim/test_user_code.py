"""Unmodified user code in a simulated cluster: threads, locks, queues, executors, event loops, ids, dates."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import queue
import random
import secrets
import threading
import time
import uuid
from time import monotonic, sleep

import numpy as np
import pytest

import actorlib
from actorlib.testing import Stuck, simulate
from actorlib.testing.real_time import real_monotonic

LOCK = threading.Lock()  # made long before any world
AGAIN = threading.RLock()
READY = threading.Event()
CONDITION = threading.Condition()
MINE = threading.local()
JOBS = queue.Queue()
SIMPLE = queue.SimpleQueue()


@pytest.fixture(autouse=True)
def in_no_real_time():
    """Hours pass in here, none of them outside."""
    began = real_monotonic()
    yield
    assert real_monotonic() - began < 30


def run_all(*functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_sleep_side_by_side_and_locks_keep_them_apart():
    with simulate(seed=1):
        began, seen = monotonic(), []

        def work(number, lock):
            with lock:
                sleep(100.0)
                seen.append((number, round(monotonic() - began)))

        run_all(lambda: sleep(500), lambda: sleep(500))
        assert 500 <= monotonic() - began < 501
        began = monotonic()
        run_all(*(lambda number=number: work(number, LOCK) for number in range(3)))
        assert seen == [(0, 100), (1, 200), (2, 300)]
        assert not LOCK.locked()


def test_locks_with_time_limits_and_reentrance():
    with simulate(seed=1):
        got = []

        def hold():
            with AGAIN, AGAIN:
                time.sleep(10.0)

        def ask():
            time.sleep(1.0)
            got.append(AGAIN.acquire(blocking=False))
            got.append(AGAIN.acquire(timeout=2.0))
            got.append(AGAIN.acquire(timeout=100.0))
            AGAIN.release()
            with pytest.raises(RuntimeError):
                AGAIN.release()

        run_all(hold, ask)
        assert got == [False, False, True]
        with pytest.raises(ValueError):
            LOCK.acquire(False, 1.0)
    assert LOCK.acquire(blocking=False)
    LOCK.release()
    assert AGAIN.acquire(blocking=False)
    AGAIN.release()


def test_events_conditions_semaphores_barriers_and_timers():
    with simulate(seed=2):
        order = []
        semaphore, barrier = threading.Semaphore(2), threading.Barrier(3)

        def consumer():
            with CONDITION:
                order.append(CONDITION.wait(timeout=5.0))
                order.append(CONDITION.wait_for(lambda: READY.is_set(), timeout=1000.0))

        def producer():
            time.sleep(50.0)
            with CONDITION:
                READY.set()
                CONDITION.notify_all()

        run_all(consumer, producer)
        assert order == [False, True]
        began = time.monotonic()

        def limited():
            with semaphore:
                time.sleep(10.0)
            barrier.wait()

        run_all(limited, limited, limited)
        assert 20.0 <= time.monotonic() - began < 20.1
        fired = []
        timer = threading.Timer(3600.0, lambda: fired.append(time.monotonic()))
        timer.start()
        timer.join()
        assert 3600 <= fired[0] - began < 3700
        READY.clear()


def test_queues_executors_and_thread_locals():
    with simulate(seed=3):
        results, done = [], []

        def work():
            MINE.value = threading.get_ident()
            for job in iter(JOBS.get, None):
                time.sleep(1.0)
                done.append((job, SIMPLE.get()))
            assert MINE.value == threading.get_ident() == threading.current_thread().ident

        def feed():
            for job in range(4):
                JOBS.put(job)
            for job in range(4):
                time.sleep(10.0)
                SIMPLE.put(str(job))
            JOBS.put(None)

        run_all(work, feed)
        assert done == [(0, "0"), (1, "1"), (2, "2"), (3, "3")]
        assert not hasattr(MINE, "value")
        with pytest.raises(queue.Empty):
            SIMPLE.get(timeout=1.0)
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda value: (time.sleep(60), value)[1], range(8)))
        assert results == list(range(8)) and 120 <= time.monotonic() - began < 121


def test_an_exception_in_a_thread_is_told_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_value))
    with simulate(seed=1):
        thread = threading.Thread(target=lambda: 1 / 0, daemon=True)
        with pytest.raises(RuntimeError, match="cannot join thread before"):
            threading.Thread().join()
        thread.start()
        thread.join()
        assert not thread.is_alive()
        with pytest.raises(RuntimeError, match="only be started once"):
            thread.start()
    assert [type(error) for error in told] == [ZeroDivisionError]
    threads = threading.active_count()
    with simulate(seed=1):
        left = threading.Thread(target=lambda: time.sleep(1e9))
        left.start()
        assert left.is_alive() and left in threading.enumerate()
    assert not left.is_alive() and threading.active_count() == threads


@actorlib.remote
def use_threads():
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        return sum(pool.map(lambda seconds: (time.sleep(seconds), seconds)[1], [10, 20, 30]))


@actorlib.remote(max_concurrency=8)
class Threaded:
    def __init__(self):
        self.lock, self.inside, self.most = threading.Lock(), 0, 0

    def enter(self):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(1.0)
            self.inside -= 1
        return self.most


@actorlib.remote
class Asynchronous:
    def __init__(self):
        self.event = asyncio.Event()

    async def wait(self):
        await asyncio.wait_for(self.event.wait(), 1000.0)
        return asyncio.get_running_loop().time()

    async def go(self):
        await asyncio.to_thread(time.sleep, 200.0)
        self.event.set()
        return await asyncio.gather(*(asyncio.sleep(10.0, i) for i in range(3)))


@actorlib.remote
async def coroutine_task(seconds):
    started = time.time()
    await asyncio.sleep(seconds)
    return time.time() - started


def test_actors_and_tasks_use_threads_and_event_loops():
    with simulate(seed=4, nodes=2):
        assert actorlib.get(use_threads.remote()) == 60
        threaded = Threaded.remote()
        assert actorlib.get([threaded.enter.remote() for _ in range(5)]) == [1] * 5
        asynchronous = Asynchronous.remote()
        waits, goes = asynchronous.wait.remote(), asynchronous.go.remote()
        assert actorlib.get(goes) == [0, 1, 2] and actorlib.get(waits) > 1200
        assert all(1000 <= took < 1001 for took in actorlib.get([coroutine_task.remote(1000.0) for _ in range(3)]))
        del threaded, asynchronous, waits, goes


def test_the_driver_may_run_an_event_loop_and_wait_for_futures():
    async def both():
        ref = coroutine_task.remote(30.0)
        return await asyncio.gather(asyncio.sleep(100.0, "slept"), _of(ref))

    async def _of(ref):
        return round(await ref)

    with simulate(seed=4):
        assert asyncio.run(both()) == ["slept", 30]
        assert round(coroutine_task.remote(5.0).future().result(timeout=60)) == 5
        future = coroutine_task.remote(50.0).future()
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout=1.0)
        assert round(future.result()) == 50
        del future


def draw():
    return (
        uuid.uuid4(),
        uuid.uuid1(),
        random.random(),
        random.Random().random(),
        random.SystemRandom().random(),
        secrets.token_hex(),
        float(np.random.rand()),
        float(np.random.default_rng().random()),
        datetime.datetime.now(),
        datetime.datetime.now(datetime.UTC),
        datetime.date.today(),
        time.localtime(time.time()),
    )


@actorlib.remote
def draw_there():
    return draw()


def test_ids_random_numbers_and_dates_come_from_the_seed():
    before = np.random.get_state()[1].tolist()
    drawn = []
    for seed in (7, 7, 8):
        with simulate(seed=seed):
            drawn.append((draw(), actorlib.get(draw_there.remote())))
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0][0][:8], drawn[2][0][:8], strict=True))
    assert drawn[0][0][8].year == 2023 and type(drawn[0][0][8]) is datetime.datetime
    assert datetime.datetime.now().year > 2023 and np.random.get_state()[1].tolist() == before


def test_dates_move_with_the_clock_of_the_world():
    with simulate(seed=1):
        before = datetime.datetime.now()
        time.sleep(7_200)
        assert round((datetime.datetime.now() - before).total_seconds()) == 7_200


def test_threads_of_the_world_are_the_same_in_every_run():
    def run(seed):
        with simulate(seed=seed, nodes=2) as world:
            order = []

            def work(number):
                for _ in range(5):
                    time.sleep(random.random())
                    with LOCK:
                        order.append((number, actorlib.get(echo.remote(number))))

            run_all(*(lambda number=number: work(number) for number in range(3)))
            return order, world.world.digest()

    first = run(1)
    assert first == run(1) and first != run(2)


@actorlib.remote
def echo(value):
    return value


def test_threads_that_wait_for_each_other_are_told_with_the_graph():
    left, right = threading.Lock(), threading.Lock()

    def take(first, second):
        with first:
            time.sleep(1.0)
            with second:
                raise AssertionError("never")

    with pytest.raises(Stuck) as told, simulate(seed=1):
        run_all(lambda: take(left, right), lambda: take(right, left))
    lines = str(told.value).splitlines()
    assert "nobody has got on for 36" in lines[0]
    assert any("Thread-" in line and "waits for <locked _thread.lock" in line and "holds" in line for line in lines)
    assert any("the driver" in line and "waits for the end of thread" in line for line in lines)


@actorlib.remote
class Promise:
    async def never(self):
        await asyncio.Event().wait()


def test_a_call_that_never_ends_is_told_with_what_it_waits_for():
    promise = None
    with pytest.raises(Stuck, match=r"(?s)nobody has got on.*the driver, for .*waits for .*never"), simulate(seed=1):
        promise = Promise.remote()
        actorlib.get(promise.never.remote())
    del promise
