"""Tasks on real processes."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

import actorlib

pytestmark = pytest.mark.usefixtures("shared_local")


@actorlib.remote
def add(a, b=0):
    return a + b


def test_many_tasks_give_their_results_in_order():
    assert actorlib.get([add.remote(i, 1) for i in range(2000)], timeout=30) == list(range(1, 2001))


def test_references_as_arguments_become_values():
    assert actorlib.get(add.remote(add.remote(1, 2), b=add.remote(3, 4)), timeout=10) == 10


def test_a_long_chain():
    ref = add.remote(0, 1)
    for _ in range(3000):
        ref = add.remote(ref, 1)
    assert actorlib.get(ref, timeout=30) == 3001


def test_an_error_travels_down_a_chain():
    @actorlib.remote
    def fail():
        raise ValueError("first link")

    ref = add.remote(fail.remote(), 1)
    for _ in range(20):
        ref = add.remote(ref, 1)
    with pytest.raises(ValueError, match="first link"):
        actorlib.get(ref, timeout=10)


def test_an_error_is_also_of_the_users_class_and_shows_the_remote_traceback():
    class Mine(Exception):
        def __init__(self, code):
            super().__init__(code)
            self.code = code

    @actorlib.remote
    def fail():
        raise Mine(42)

    with pytest.raises(Mine) as caught:
        actorlib.get(fail.remote(), timeout=10)
    assert isinstance(caught.value, actorlib.exceptions.TaskError)
    assert isinstance(caught.value, actorlib.exceptions.RayTaskError)
    assert caught.value.code == 42
    assert "raise Mine(42)" in str(caught.value)


def test_an_exception_that_cant_be_pickled_still_arrives():
    @actorlib.remote
    def fail():
        import threading

        error = RuntimeError("holds a lock")
        error.lock = threading.Lock()
        raise error

    with pytest.raises(actorlib.exceptions.TaskError, match="RuntimeError: holds a lock"):
        actorlib.get(fail.remote(), timeout=10)


def test_a_tree_of_tasks_whose_parents_wait():
    @actorlib.remote
    def node(depth):
        if depth == 0:
            return 1
        return sum(actorlib.get([node.remote(depth - 1), node.remote(depth - 1)]))

    assert actorlib.get(node.remote(7), timeout=60) == 128


def test_num_returns():
    @actorlib.remote(num_returns=3)
    def three():
        return 1, 2, 3

    @actorlib.remote(num_returns=2)
    def wrong():
        return 1, 2, 3

    assert actorlib.get(three.remote(), timeout=10) == [1, 2, 3]
    assert add.options(num_returns=0).remote(1) is None
    with pytest.raises(ValueError, match="num_returns=2, but the function returned 3"):
        actorlib.get(wrong.remote()[0], timeout=10)


def test_async_functions_are_tasks_too():
    @actorlib.remote
    async def slow(x):
        await asyncio.sleep(0.01)
        return x

    assert actorlib.get(slow.remote(5), timeout=10) == 5


def test_retry_exceptions(tmp_path):
    marks = str(tmp_path / "marks")

    @actorlib.remote(max_retries=5, retry_exceptions=[KeyError])
    def flaky(kind):
        with open(marks, "a") as target:
            target.write("x")
        if os.path.getsize(marks) < 3:
            raise kind("again")
        return os.path.getsize(marks)

    assert actorlib.get(flaky.remote(KeyError), timeout=10) == 3
    os.unlink(marks)
    with pytest.raises(IndexError):
        actorlib.get(flaky.remote(IndexError), timeout=10)


def test_get_timeout_says_what_is_awaited():
    @actorlib.remote
    def slow():
        time.sleep(30)

    ref = slow.remote()
    with pytest.raises(actorlib.exceptions.GetTimeoutError, match="slow runs or is queued at worker"):
        actorlib.get(ref, timeout=0.3)
    with pytest.raises(TimeoutError):
        actorlib.get(ref, timeout=0)
    actorlib.cancel(ref)
    with pytest.raises(actorlib.exceptions.TaskCancelledError):
        actorlib.get(ref, timeout=10)


def test_wait_keeps_order_and_counts():
    refs = [add.remote(i) for i in range(10)]
    ready, pending = actorlib.wait(refs, num_returns=4, timeout=10)
    assert len(ready) == 4 and len(pending) == 6
    assert [ref for ref in refs if ref in set(ready)] == ready
    assert [ref for ref in refs if ref in set(pending)] == pending


def test_wait_times_out():
    @actorlib.remote
    def slow():
        time.sleep(30)

    refs = [slow.remote(), add.remote(1)]
    ready, pending = actorlib.wait(refs, num_returns=2, timeout=0.5)
    assert ready == [refs[1]] and pending == [refs[0]]
    actorlib.cancel(refs[0])


def test_as_completed():
    assert sorted(actorlib.get(ref) for ref in actorlib.as_completed([add.remote(i) for i in range(20)])) == list(
        range(20)
    )


def test_cancel_of_a_queued_task():
    @actorlib.remote
    def slow():
        time.sleep(30)

    running = [slow.remote() for _ in range(2)]
    queued = add.options(num_cpus=2).remote(1)
    actorlib.cancel(queued)
    with pytest.raises(actorlib.exceptions.TaskCancelledError, match="before it started"):
        actorlib.get(queued, timeout=10)
    for ref in running:
        actorlib.cancel(ref, force=True)
        with pytest.raises(actorlib.exceptions.TaskCancelledError):
            actorlib.get(ref, timeout=10)


def test_map_is_ordered_and_raises_where_the_error_is():
    assert list(add.map(range(5000))) == list(range(5000))

    @actorlib.remote
    def picky(x):
        if x == 7:
            raise ValueError("seven")
        return x

    results = picky.map(range(20), chunksize=4)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(results)


def test_refs_in_closures_and_containers():
    ref = actorlib.put(41)

    @actorlib.remote
    def use(box):
        return actorlib.get(box["ref"]) + actorlib.get(ref) - 40

    assert actorlib.get(use.remote({"ref": ref}), timeout=10) == 42


def test_await_and_future():
    async def main():
        one, two = await asyncio.gather(add.remote(1, 1), add.remote(2, 2))
        return one + two

    assert asyncio.run(main()) == 6
    assert add.remote(3, 4).future().result(timeout=10) == 7


def test_bind_graphs():
    from actorlib.dag import InputNode, MultiOutputNode

    with InputNode() as x:
        graph = MultiOutputNode([add.bind(add.bind(x, 1), 2), add.bind(x, 10)])
    assert actorlib.get(graph.execute(5), timeout=10) == [8, 15]


def test_max_calls_ends_the_worker():
    @actorlib.remote(max_calls=1)
    def pid():
        return os.getpid()

    assert len({actorlib.get(pid.remote(), timeout=10) for _ in range(3)}) == 3


def test_runtime_env_variables():
    @actorlib.remote(runtime_env={"env_vars": {"ACTORLIB_TEST_VALUE": "there"}})
    def read():
        return os.environ.get("ACTORLIB_TEST_VALUE")

    assert actorlib.get(read.remote(), timeout=10) == "there"


def test_context_in_a_task():
    @actorlib.remote
    def look():
        context = actorlib.get_runtime_context()
        return context.get_job_id(), context.get_task_id(), context.get_task_name(), context.get_actor_id()

    ref = look.remote()
    job, task, name, actor = actorlib.get(ref, timeout=10)
    assert job == actorlib.get_runtime_context().get_job_id()
    assert task == ref.task_id().hex()
    assert name.endswith("look") and actor is None


def test_recursion_a_thousand_deep_inside_a_task():
    @actorlib.remote
    def deep(n):
        def go(k):
            return 0 if k == 0 else 1 + go(k - 1)

        return go(n)

    assert actorlib.get(deep.remote(800), timeout=10) == 800
    with pytest.raises(RecursionError):
        actorlib.get(deep.remote(100_000), timeout=10)


def test_a_worker_gives_back_free_memory_once_it_has_nothing_to_do():
    import psutil

    @actorlib.remote
    class Maker:
        def work(self):
            import numpy as np

            kept = [np.ones(1_000_000, np.uint8) for _ in range(50)]
            return os.getpid(), len(kept)

    maker = Maker.remote()
    pid, _ = actorlib.get(maker.work.remote(), timeout=20)
    process = psutil.Process(pid)
    deadline = time.monotonic() + 20
    while process.memory_full_info().uss > 40_000_000 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.memory_full_info().uss < 40_000_000
