"""What is special about the inline engine: one process, one stack, and sentences for what makes no sense there."""

from __future__ import annotations

import os
import pdb
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

import actorlib
from actorlib.transport.drivers.processes import children_of


@pytest.fixture
def inline() -> Iterator[None]:
    with actorlib.init(engine="inline", num_cpus=2):
        yield


@actorlib.remote
def double(x: int) -> int:
    return 2 * x


@actorlib.remote
class Counter:
    def __init__(self) -> None:
        self.total = 0

    def add(self, amount: int = 1) -> int:
        self.total += amount
        return self.total

    def call_back(self, me: Any) -> int:
        return actorlib.get(me.add.remote())


def test_it_starts_nothing(inline: None) -> None:
    before, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    assert actorlib.get([double.remote(i) for i in range(10)]) == [2 * i for i in range(10)]
    counter = Counter.remote()
    assert actorlib.get(counter.add.remote()) == 1
    assert not children_of(os.getpid())
    assert set(os.listdir("/proc/self/fd")) <= before
    assert threading.active_count() == threads


def test_it_loads_no_sockets() -> None:
    code = (
        "import sys, actorlib\n"
        "with actorlib.init(engine='inline'):\n"
        "    assert actorlib.get(actorlib.remote(lambda: 1).remote()) == 1\n"
        "print(*(name for name in ('zmq', 'lmdb', 'ray', 'actorlib.runtime.drivers.process') if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_a_task_runs_where_it_is_called(inline: None) -> None:
    stacks: list[Any] = []

    sys.actorlib_stacks = stacks  # type: ignore[attr-defined]

    @actorlib.remote
    def look() -> None:
        sys.actorlib_stacks.append([frame.name for frame in traceback.extract_stack()])  # type: ignore[attr-defined]

    look.remote()  # nobody has called get
    del sys.actorlib_stacks  # type: ignore[attr-defined]
    assert "test_a_task_runs_where_it_is_called" in stacks[0] and stacks[0][-1] == "look"


def test_a_breakpoint_stops_right_there(inline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: seen.append(sys._getframe(1).f_locals["x"]))

    @actorlib.remote
    def stops(x: int) -> int:
        breakpoint()
        return x

    ref = stops.remote(7)
    assert seen == [7]
    assert actorlib.get(ref) == 7


@pytest.mark.parametrize("stop", [KeyboardInterrupt, pdb.bdb.BdbQuit])  # type: ignore[attr-defined]
def test_what_stops_the_program_goes_up(inline: None, stop: type[BaseException]) -> None:
    @actorlib.remote
    def stopped() -> None:
        raise stop

    with pytest.raises(stop):
        stopped.remote()
    assert actorlib.get(double.remote(1)) == 2


def test_a_wait_that_nothing_can_end_is_told(inline: None) -> None:
    counter = Counter.remote()
    with pytest.raises(actorlib.exceptions.DeadlockError, match="call_back"):
        actorlib.get(counter.call_back.remote(counter))


def test_the_thread_by_which_pyzmq_frees_can_end_no_wait(inline: None) -> None:
    import zmq

    with zmq.Context() as context, context.socket(zmq.PAIR) as left, context.socket(zmq.PAIR) as right:
        left.bind("inproc://large")
        right.connect("inproc://large")
        right.send(memoryview(bytearray(1 << 20)), copy=False)  # it starts that thread, which stays
        assert len(left.recv()) == 1 << 20
    assert threading.active_count() > 1
    counter = Counter.remote()
    with pytest.raises(actorlib.exceptions.DeadlockError, match="call_back"):
        actorlib.get(counter.call_back.remote(counter))


def test_a_wait_for_another_thread_is_no_deadlock(inline: None) -> None:
    @actorlib.remote
    class Gate:
        def __init__(self) -> None:
            import asyncio

            self.event = asyncio.Event()

        async def wait(self) -> str:
            await self.event.wait()
            return "open"

        async def open(self) -> None:
            self.event.set()

    gate = Gate.remote()
    ref = gate.wait.remote()
    timer = threading.Timer(0.1, lambda: gate.open.remote())
    timer.start()
    assert actorlib.get(ref) == "open"
    timer.join()


def test_several_threads_use_async_actors_at_once(inline: None) -> None:
    """One thread at a time turns the loop: a task must not be entered while another thread is in one."""

    @actorlib.remote
    class Echo:
        async def same(self, value: int) -> int:
            import asyncio

            await asyncio.sleep(0)
            return value

    echo = Echo.remote()
    got: dict[int, list[int]] = {}

    def work(number: int) -> None:
        got[number] = [actorlib.get(echo.same.remote(i)) for i in range(60)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    work(9)
    for thread in threads:
        thread.join(60)
    assert got == {number: list(range(60)) for number in (0, 1, 2, 3, 9)}


def test_resources_are_booked(inline: None) -> None:
    @actorlib.remote(num_cpus=1)
    def free() -> float:
        return actorlib.available_resources().get("CPU", 0.0)

    assert actorlib.get(free.remote()) == 1
    holder = Counter.options(num_cpus=2).remote()
    waiting = double.remote(1)
    with pytest.raises(actorlib.exceptions.GetTimeoutError, match="queued until its resources are free"):
        actorlib.get(waiting, timeout=0.05)
    del holder
    assert actorlib.get(waiting) == 2
    assert actorlib.available_resources() == actorlib.cluster_resources()


def test_joining_a_cluster_makes_no_sense() -> None:
    with pytest.raises(actorlib.exceptions.NotSupportedByEngineError, match='engine="local"') as caught:
        actorlib.init("somewhere", engine="inline")
    assert caught.value.engine == "inline"
    assert not actorlib.is_initialized()


def test_unknown_arguments_raise() -> None:
    with pytest.raises(TypeError, match="num_cpu"):
        actorlib.init(engine="inline", num_cpu=1)


def test_errors_of_engines_can_be_pickled() -> None:
    import pickle

    error = actorlib.exceptions.NotSupportedByEngineError("inline", "flying", "walk")
    again = pickle.loads(pickle.dumps(error))
    assert (again.engine, again.what, again.way_out, str(again)) == ("inline", "flying", "walk", str(error))


def test_references_and_handles_of_an_earlier_session_are_refused() -> None:
    with actorlib.init(engine="inline"):
        ref, counter = actorlib.put([actorlib.put(1)]), Counter.remote()
    with actorlib.init(engine="inline"):
        with pytest.raises(actorlib.exceptions.ActorDiedError, match="another session"):
            actorlib.get(counter.add.remote())
        with pytest.raises(actorlib.exceptions.ObjectLostError, match="another session"):
            actorlib.get(ref)


def test_references_and_handles_of_another_engine_are_refused() -> None:
    wrong = actorlib.exceptions.WrongEngineError
    with actorlib.init(engine="inline"):
        ref, counter = actorlib.put(1), Counter.remote()
    with actorlib.init(num_cpus=1):
        uses = (
            lambda: actorlib.get(ref),
            lambda: actorlib.get([actorlib.put(1), ref]),
            lambda: actorlib.wait([ref]),
            lambda: actorlib.cancel(ref),
            lambda: ref.future(),
            lambda: double.remote(ref),
            lambda: actorlib.put([ref]),
            lambda: counter.add.remote(),
            lambda: actorlib.kill(counter),
            lambda: actorlib.put(counter),
        )
        for use in uses:
            with pytest.raises(wrong, match="'inline', but this program runs on 'local'"):
                use()
        theirs, handle = actorlib.put(2), Counter.remote()
        assert actorlib.get(handle.add.remote()) == 1
    with actorlib.init(engine="inline"):
        for use in (lambda: actorlib.get(theirs), lambda: double.remote(theirs), lambda: handle.add.remote()):
            with pytest.raises(wrong, match="'local', but this program runs on 'inline'"):
                use()


def test_a_deadline_is_told_after_the_call(inline: None) -> None:
    @actorlib.remote
    def slow() -> None:
        time.sleep(0.2)

    started = time.monotonic()
    ref = slow.options(timeout_s=0.05).remote()
    assert time.monotonic() - started >= 0.2
    with pytest.raises(actorlib.exceptions.DeadlineExceededError, match="can't be interrupted"):
        actorlib.get(ref)


def test_surroundings_are_put_back(inline: None, tmp_path: Any) -> None:
    (tmp_path / "only_there.py").write_text("value = 5\n")

    @actorlib.remote(runtime_env={"working_dir": str(tmp_path), "env_vars": {"A_VALUE": "x"}})
    def look() -> Any:
        import only_there  # type: ignore[import-not-found]

        return only_there.value, os.getcwd(), os.environ["A_VALUE"]

    before = (os.getcwd(), list(sys.path), dict(os.environ))
    assert actorlib.get(look.remote()) == (5, str(tmp_path), "x")
    assert (os.getcwd(), list(sys.path), dict(os.environ)) == before


def test_a_durable_actor_keeps_its_state_through_a_crash(inline: None) -> None:
    counter = Counter.options(checkpoint=1000).remote()
    assert actorlib.get([counter.add.remote() for _ in range(5)])[-1] == 5
    actorlib.kill(counter, no_restart=False)
    assert actorlib.get(counter.add.remote()) == 6


def test_a_generator_without_end_is_made_as_it_is_taken(inline: None) -> None:
    @actorlib.remote(_generator_backpressure_num_objects=2)
    def numbers() -> Any:
        number = 0
        while True:
            yield number
            number += 1

    generator = numbers.remote()
    assert [actorlib.get(next(generator)) for _ in range(5)] == list(range(5))
    generator.close()
    assert actorlib.available_resources() == actorlib.cluster_resources()


def test_a_node_can_not_be_drained(inline: None) -> None:
    with pytest.raises(actorlib.exceptions.NotSupportedByEngineError, match="cluster_utils"):
        actorlib.util.drain_node(actorlib.nodes()[0]["NodeID"])
