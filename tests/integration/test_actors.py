"""Actors on real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

import actorlib
from tests.conftest import eventually

pytestmark = pytest.mark.usefixtures("shared_local")


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@actorlib.remote
class Counter:
    def __init__(self, n=0):
        self.n = n

    def inc(self, by=1):
        self.n += by
        return self.n

    def pid(self):
        return os.getpid()

    def items(self, n):
        for i in range(n):
            yield i + self.n

    def leave(self):
        actorlib.exit_actor()

    def fail(self):
        raise KeyError("inside")


def test_calls_of_one_caller_run_in_order():
    counter = Counter.remote(10)
    assert actorlib.get([counter.inc.remote() for _ in range(1000)], timeout=20) == list(range(11, 1011))


def test_an_error_leaves_the_actor_alive():
    counter = Counter.remote()
    with pytest.raises(KeyError):
        actorlib.get(counter.fail.remote(), timeout=10)
    assert actorlib.get(counter.inc.remote(), timeout=10) == 1


def test_calls_with_results_of_earlier_calls_as_arguments():
    counter = Counter.remote()
    ref = counter.inc.remote()
    for _ in range(50):
        ref = counter.inc.remote(ref)
    assert actorlib.get(ref, timeout=10) == 2**50


def test_handles_can_be_passed_and_keep_the_actor_alive():
    @actorlib.remote
    def use(handle):
        return actorlib.get(handle.inc.remote())

    @actorlib.remote
    class Keeper:
        def keep(self, handle):
            self.handle = handle

        def use(self):
            return actorlib.get(self.handle.inc.remote())

    counter = Counter.remote()
    pid = actorlib.get(counter.pid.remote(), timeout=10)
    assert actorlib.get(use.remote(counter), timeout=10) == 1
    keeper = Keeper.remote()
    actorlib.get(keeper.keep.remote(counter), timeout=10)
    del counter
    assert actorlib.get(keeper.use.remote(), timeout=10) == 2
    del keeper
    assert eventually(lambda: not is_alive(pid))


def test_an_actor_ends_when_its_last_handle_is_gone_and_its_queue_is_drained(tmp_path):
    mark = tmp_path / "done"

    @actorlib.remote
    class Slow:
        def work(self):
            time.sleep(0.2)
            mark.write_text("yes")

        def pid(self):
            return os.getpid()

    slow = Slow.remote()
    pid = actorlib.get(slow.pid.remote(), timeout=10)
    slow.work.remote()
    del slow
    assert eventually(mark.exists)
    assert eventually(lambda: not is_alive(pid))


def test_named_actors():
    counter = Counter.options(name="named").remote(5)
    assert actorlib.get(actorlib.get_actor("named").inc.remote(), timeout=10) == 6
    with pytest.raises(ValueError, match="is taken"):
        Counter.options(name="named").remote()
    same = Counter.options(name="named", get_if_exists=True).remote(100)
    assert actorlib.get(same.inc.remote(), timeout=10) == 7
    assert "named" in actorlib.util.list_named_actors()
    actorlib.kill(counter)
    with pytest.raises(ValueError, match="no actor named"):
        actorlib.get_actor("named")


def test_get_or_create_races_make_one_actor():
    @actorlib.remote
    def make():
        handle = Counter.options(name="race", get_if_exists=True, lifetime="detached").remote()
        return actorlib.get(handle.pid.remote())

    assert len(set(actorlib.get([make.remote() for _ in range(8)], timeout=20))) == 1
    actorlib.kill(actorlib.get_actor("race"))


def test_kill():
    counter = Counter.remote()
    pid = actorlib.get(counter.pid.remote(), timeout=10)
    actorlib.kill(counter)
    with pytest.raises(actorlib.exceptions.ActorDiedError, match="killed"):
        actorlib.get(counter.inc.remote(), timeout=10)
    assert eventually(lambda: not is_alive(pid))


def test_exit_actor():
    counter = Counter.remote()
    actorlib.get(counter.inc.remote(), timeout=10)
    with pytest.raises(actorlib.exceptions.ActorDiedError, match="exit_actor"):
        actorlib.get(counter.leave.remote(), timeout=10)
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        actorlib.get(counter.inc.remote(), timeout=10)


def test_shutdown_hook(tmp_path):
    mark = tmp_path / "hook"

    @actorlib.remote
    class Hooked:
        def ping(self):
            return 1

        def __shutdown__(self):
            mark.write_text("ran")

    hooked = Hooked.remote()
    actorlib.get(hooked.ping.remote(), timeout=10)
    del hooked
    assert eventually(mark.exists)


def test_a_constructor_that_raises():
    @actorlib.remote
    class Broken:
        def __init__(self):
            raise RuntimeError("no luck")

        def ping(self):
            return 1

    broken = Broken.remote()
    with pytest.raises(actorlib.exceptions.ActorDiedError, match="no luck"):
        actorlib.get(broken.ping.remote(), timeout=10)


def test_restart_keeps_order_and_retries():
    counter = Counter.options(max_restarts=1, max_task_retries=1).remote()
    pid = actorlib.get(counter.pid.remote(), timeout=10)
    os.kill(pid, signal.SIGKILL)
    assert actorlib.get([counter.inc.remote() for _ in range(10)], timeout=20) == list(range(1, 11))
    os.kill(actorlib.get(counter.pid.remote(), timeout=10), signal.SIGKILL)
    with pytest.raises(actorlib.exceptions.ActorDiedError, match="SIGKILL"):
        actorlib.get(counter.inc.remote(), timeout=10)


def test_a_call_that_may_not_be_repeated_is_told_when_its_actor_restarts(tmp_path):
    counter = Counter.options(max_restarts=1).remote()

    @actorlib.remote
    class Blocker:
        def hold(self, began):
            began.touch()
            time.sleep(60)

        def pid(self):
            return os.getpid()

    blocker = Blocker.options(max_restarts=1).remote()
    pid = actorlib.get(blocker.pid.remote(), timeout=10)
    held = blocker.hold.remote(tmp_path / "began")
    actorlib.wait([held], timeout=0.01)
    while not (tmp_path / "began").exists():
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(actorlib.exceptions.ActorUnavailableError, match="being restarted"):
        actorlib.get(held, timeout=10)
    assert actorlib.get(blocker.pid.remote(), timeout=10) != pid
    assert actorlib.get(counter.inc.remote(), timeout=10) == 1


def test_the_state_of_the_last_checkpoint_comes_back():
    counter = Counter.options(checkpoint=2, max_task_retries=-1).remote()
    assert actorlib.get([counter.inc.remote() for _ in range(5)], timeout=10)[-1] == 5
    os.kill(actorlib.get(counter.pid.remote(), timeout=10), signal.SIGKILL)
    # Six calls were made, so the checkpoint after the sixth (pid) has the state 5.
    assert actorlib.get(counter.inc.remote(), timeout=10) == 6


def test_checkpoint_hooks_and_checkpoint_now():
    @actorlib.remote(checkpoint=1000, max_task_retries=-1)
    class Custom:
        def __init__(self):
            self.value = 0
            self.lock = threading.Lock()

        def __checkpoint__(self):
            return {"value": self.value}

        def __restore__(self, state):
            self.value = state["value"] + 100
            self.lock = threading.Lock()

        def set(self, value):
            self.value = value
            actorlib.checkpoint_now()
            return os.getpid()

        def get(self):
            return self.value

    custom = Custom.remote()
    os.kill(actorlib.get(custom.set.remote(5), timeout=10), signal.SIGKILL)
    assert actorlib.get(custom.get.remote(), timeout=10) == 105


def test_async_actors_interleave():
    @actorlib.remote
    class Gate:
        def __init__(self):
            self.event = asyncio.Event()

        async def wait(self):
            await self.event.wait()
            return "open"

        async def open(self):
            self.event.set()

    gate = Gate.remote()
    waiting = [gate.wait.remote() for _ in range(10)]
    gate.open.remote()
    assert actorlib.get(waiting, timeout=10) == ["open"] * 10


def test_blocking_get_in_an_async_method_is_refused():
    @actorlib.remote
    class Bad:
        async def work(self, refs):
            return actorlib.get(refs[0])

        async def good(self, refs):
            return await refs[0]

    @actorlib.remote
    def slow():
        time.sleep(0.2)
        return 3

    bad = Bad.remote()
    with pytest.raises(RuntimeError, match="await ref"):
        actorlib.get(bad.work.remote([slow.remote()]), timeout=10)
    assert actorlib.get(bad.good.remote([slow.remote()]), timeout=10) == 3


def test_threaded_actors_run_calls_at_once():
    @actorlib.remote(max_concurrency=3)
    class Meeting:
        def __init__(self):
            self.barrier = threading.Barrier(3)

        def meet(self):
            self.barrier.wait(10)
            return threading.get_ident()

    meeting = Meeting.remote()
    assert len(set(actorlib.get([meeting.meet.remote() for _ in range(3)], timeout=15))) == 3


def test_concurrency_groups():
    @actorlib.remote(concurrency_groups={"io": 2, "slow": 1})
    class Grouped:
        def __init__(self):
            self.event = threading.Event()

        @actorlib.method(concurrency_group="slow")
        def hold(self):
            return self.event.wait(10)

        @actorlib.method(concurrency_group="io")
        def release(self):
            self.event.set()
            return "released"

    grouped = Grouped.remote()
    held = grouped.hold.remote()
    assert actorlib.get(grouped.release.remote(), timeout=10) == "released"
    assert actorlib.get(held, timeout=10) is True


def test_cancel_in_an_async_actor():
    @actorlib.remote
    class Sleeper:
        async def sleep(self):
            await asyncio.sleep(60)

        async def ping(self):
            return 1

    sleeper = Sleeper.remote()
    ref = sleeper.sleep.remote()
    assert actorlib.get(sleeper.ping.remote(), timeout=10) == 1
    actorlib.cancel(ref)
    with pytest.raises(actorlib.exceptions.TaskCancelledError):
        actorlib.get(ref, timeout=10)
    assert actorlib.get(sleeper.ping.remote(), timeout=10) == 1


def test_max_pending_calls():
    @actorlib.remote(max_pending_calls=2)
    class Busy:
        def hold(self):
            time.sleep(0.5)

    busy = Busy.remote()
    refs = [busy.hold.remote() for _ in range(2)]
    with pytest.raises(actorlib.exceptions.PendingCallsLimitExceeded, match="max_pending_calls=2"):
        busy.hold.remote()
    actorlib.get(refs, timeout=10)


def test_actors_that_call_each_other():
    @actorlib.remote
    class Leaf:
        def value(self):
            return 1

    @actorlib.remote
    class Middle:
        def __init__(self, leaf):
            self.leaf = leaf

        def total(self, n):
            return sum(actorlib.get([self.leaf.value.remote() for _ in range(n)]))

    leaf = Leaf.remote()
    middles = [Middle.remote(leaf) for _ in range(3)]
    assert actorlib.get([middle.total.remote(20) for middle in middles], timeout=20) == [20, 20, 20]


def test_map_over_a_method():
    counter = Counter.remote()
    assert list(counter.inc.map([1] * 100)) == list(range(1, 101))


def test_context_in_an_actor():
    @actorlib.remote(num_cpus=0, resources={})
    class Look:
        def look(self):
            context = actorlib.get_runtime_context()
            return context.get_actor_id(), context.current_actor, context.was_current_actor_reconstructed

    handle = Look.remote()
    actor_id, same, again = actorlib.get(handle.look.remote(), timeout=10)
    assert actor_id == handle._actor_id.hex() and same == handle and again is False
