"""Options of actors and of their methods, wherever the handle came from."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import actorlib

pytestmark = pytest.mark.usefixtures("shared_local")


@actorlib.remote(max_task_retries=0)
class Flaky:
    def __init__(self):
        self.tries = 0

    @actorlib.method(max_task_retries=5, retry_exceptions=[KeyError], name="picky")
    def fail_twice(self, kind):
        self.tries += 1
        if self.tries < 3:
            raise kind(f"try {self.tries}")
        return self.tries, actorlib.get_runtime_context().get_task_name()

    @actorlib.method(timeout_s=0.2)
    def sleep(self):
        time.sleep(60)

    @actorlib.method(num_returns=2)
    def two(self):
        return 1, 2


@actorlib.remote
def use(handle, kind):
    return actorlib.get(handle.fail_twice.remote(kind))


def test_options_of_methods_travel_with_the_handle():
    assert actorlib.get(use.remote(Flaky.remote(), KeyError), timeout=10) == (3, "picky")
    with pytest.raises(IndexError, match="try 1"):
        actorlib.get(use.remote(Flaky.remote(), IndexError), timeout=10)
    named = Flaky.options(name="flaky").remote()
    found = actorlib.get_actor("flaky")
    with pytest.raises(IndexError, match="try 1"):
        actorlib.get(found.fail_twice.remote(IndexError), timeout=10)
    assert actorlib.get(found.fail_twice.remote(KeyError), timeout=10) == (3, "picky")
    assert actorlib.get(found.two.remote(), timeout=10) == [1, 2]
    with pytest.raises(actorlib.exceptions.DeadlineExceededError, match="timeout_s"):
        actorlib.get(found.sleep.remote(), timeout=10)
    del named


def test_a_deadline_for_all_calls_of_an_actor():
    @actorlib.remote(timeout_s=0.2)
    class Slow:
        def work(self):
            time.sleep(60)

    with pytest.raises(actorlib.exceptions.DeadlineExceededError):
        actorlib.get(Slow.remote().work.remote(), timeout=10)


def test_calls_that_wait_for_arguments_are_passed_only_where_that_is_allowed():
    @actorlib.remote
    class Log:
        def __init__(self):
            self.seen = []

        def note(self, what):
            self.seen.append(what)
            return list(self.seen)

    @actorlib.remote
    class Gate:
        def __init__(self):
            self.event = asyncio.Event()

        async def late(self):
            await self.event.wait()
            return "late"

        async def open(self):
            self.event.set()

    gate = Gate.remote()
    free = Log.options(allow_out_of_order_execution=True).remote()
    late = free.note.remote(gate.late.remote())
    assert actorlib.get(free.note.remote("early"), timeout=10) == ["early"]
    ordered = Log.remote()
    ordered.note.remote(gate.late.remote())
    last = ordered.note.remote("early")
    assert actorlib.wait([last], timeout=0.3) == ([], [last])
    actorlib.get(gate.open.remote(), timeout=10)
    assert actorlib.get(late, timeout=10) == ["early", "late"]
    assert actorlib.get(last, timeout=10) == ["late", "early"]


@actorlib.remote(concurrency_groups={"io": 2, "slow": 1})
class AsyncGroups:
    def __init__(self):
        self.running = {"io": 0, "slow": 0}
        self.most = {"io": 0, "slow": 0}

    async def _count(self, group):
        self.running[group] += 1
        self.most[group] = max(self.most[group], self.running[group])
        await asyncio.sleep(0.02)
        self.running[group] -= 1

    @actorlib.method(concurrency_group="io")
    async def io(self):
        await self._count("io")

    @actorlib.method(concurrency_group="slow")
    async def slow(self):
        await self._count("slow")

    async def seen(self):
        return self.most


def test_concurrency_groups_of_async_actors_are_limits():
    grouped = AsyncGroups.remote()
    actorlib.get([grouped.io.remote() for _ in range(8)] + [grouped.slow.remote() for _ in range(4)], timeout=10)
    actorlib.get([grouped.io.options(concurrency_group="slow").remote() for _ in range(2)], timeout=10)
    assert actorlib.get(grouped.seen.remote(), timeout=10) == {"io": 2, "slow": 1}


def test_a_concurrency_group_that_is_not_there():
    grouped = AsyncGroups.remote()
    with pytest.raises(ValueError, match="no concurrency group 'iox'; it has io, slow"):
        grouped.io.options(concurrency_group="iox")

    @actorlib.remote
    class Groupless:
        @actorlib.method(concurrency_group="io")
        def work(self):
            return threading.current_thread().name

    with pytest.raises(ValueError, match=r"Groupless\.work: the actor has no concurrency group 'io'"):
        Groupless.remote()
    assert actorlib.get(Groupless.options(concurrency_groups={"io": 1}).remote().work.remote(), timeout=10)


def test_unknown_options_of_methods():
    with pytest.raises(ValueError, match="Did you mean 'num_returns'"):
        actorlib.method(num_return=2)
    with pytest.raises(ValueError, match="methods have no option 'max_calls'"):
        Flaky.remote().two.options(max_calls=1)


def test_generators_of_threaded_actors_run_beside_each_other():
    @actorlib.remote(max_concurrency=2)
    class Two:
        def __init__(self):
            self.barrier = threading.Barrier(2)

        def items(self, start):
            for i in range(3):
                self.barrier.wait(10)
                yield start + i

    two = Two.remote()
    first, second = two.items.remote(0), two.items.remote(10)
    assert [actorlib.get(ref, timeout=10) for ref in first] == [0, 1, 2]
    assert [actorlib.get(ref, timeout=10) for ref in second] == [10, 11, 12]


def test_an_actor_that_no_node_can_host_says_so_within_five_seconds():
    started = time.monotonic()
    with pytest.raises(actorlib.exceptions.ActorUnschedulableError, match="1 GPU"):
        actorlib.get(Flaky.options(num_gpus=1).remote().two.remote(), timeout=20)
    assert time.monotonic() - started < 5


def test_what_a_worker_starts_that_no_node_can_run_says_so_too():
    @actorlib.remote
    def parent():
        return actorlib.get(use.options(resources={"nowhere": 1}).remote(None, None))

    with pytest.raises(actorlib.exceptions.TaskUnschedulableError, match="1 nowhere"):
        actorlib.get(parent.remote(), timeout=20)
