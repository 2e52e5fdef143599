"""What only Ray can show: plain Ray and ours side by side, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import ray

import actorlib
from actorlib.engines.on_ray import errors, session
from actorlib.engines.registry import Settings

pytestmark = [pytest.mark.usefixtures("on_ray"), pytest.mark.timeout(200)]


def test_plain_ray_and_ours_side_by_side() -> None:
    @ray.remote
    def theirs(x: int) -> int:
        return x + 1

    @actorlib.remote
    def ours(x: int) -> int:
        return x * 10

    assert actorlib.get(ours.remote(actorlib.from_ray(theirs.remote(1))), timeout=60) == 20
    assert ray.get(theirs.remote(actorlib.to_ray(ours.remote(1)))) == 11
    box = actorlib.from_ray({"refs": [ray.put(5)]})
    assert actorlib.get(box["refs"][0], timeout=60) == 5
    assert isinstance(actorlib.to_ray(box)["refs"][0], ray.ObjectRef)


def test_handles_are_converted_both_ways() -> None:
    @ray.remote(num_cpus=0)
    class Theirs:
        @ray.method(num_returns=2)
        def pair(self) -> Any:
            return 1, 2

        def twice(self, x: int) -> int:
            return 2 * x

        def numbers(self) -> Any:
            yield from (number for number in (1, 2))  # Ray wants a generator

    @actorlib.remote(num_cpus=0, concurrency_groups={"aside": 1})
    class Ours:
        @actorlib.method(num_returns=2, concurrency_group="aside")
        def pair(self) -> Any:
            return 3, 4

        @actorlib.method(num_returns="streaming")
        def numbers(self) -> Any:
            return [5, 6]

        def thrice(self, x: int) -> int:
            return 3 * x

    theirs = actorlib.from_ray(Theirs.remote())
    assert actorlib.get(theirs.twice.remote(2), timeout=60) == 4
    assert actorlib.get(list(theirs.numbers.remote()), timeout=60) == [1, 2]
    assert actorlib.get(theirs.pair.remote(), timeout=60) == [1, 2]
    ours = Ours.remote()
    plain = actorlib.to_ray(ours)
    assert ray.get(plain.thrice.remote(2)) == 6
    assert ray.get(plain.pair.remote()) == [3, 4], "options of methods are known to plain Ray as well"
    assert ray.get(list(plain.numbers.remote())) == [5, 6]
    again = actorlib.from_ray(plain)
    assert again == ours and actorlib.get(again.pair.remote(), timeout=60) == [3, 4]


def test_generators_are_converted_both_ways() -> None:
    @ray.remote
    def theirs() -> Any:
        yield from (number for number in (1, 2))  # Ray wants a generator

    @actorlib.remote
    def ours() -> Any:
        yield from (3, 4)

    mine = actorlib.from_ray(theirs.remote())
    assert isinstance(mine, actorlib.ObjectRefGenerator) and mine.task_id().binary()
    assert actorlib.get(list(mine), timeout=60) == [1, 2]
    assert ray.get(list(actorlib.to_ray(ours.remote()))) == [3, 4]


def test_references_and_handles_inside_values_of_plain_ray() -> None:
    @actorlib.remote(num_cpus=0)
    class Counter:
        def add(self, amount: int) -> int:
            return 40 + amount

    @ray.remote
    def theirs(box: Any) -> Any:
        return actorlib.get(box["handle"].add.remote(box["refs"][0])), box

    @actorlib.remote
    def ours(box: Any) -> Any:
        return ray.get(box["refs"][0])

    result, box = ray.get(theirs.remote({"handle": Counter.remote(), "refs": [actorlib.put(2)]}))
    assert result == 42 and actorlib.get(box["handle"].add.remote(1), timeout=60) == 41
    assert actorlib.get(ours.remote({"refs": [ray.put(5)]}), timeout=60) == 5


def test_code_in_plain_rays_workers_finds_its_engine() -> None:
    @actorlib.remote
    def square(x: int) -> int:
        return x * x

    @ray.remote
    def theirs() -> Any:
        return actorlib.get([square.remote(i) for i in range(3)]), actorlib.get_runtime_context().get_job_id()

    assert ray.get(theirs.remote()) == ([0, 1, 4], ray.get_runtime_context().get_job_id())


def classes_below(kind: type) -> list[type]:
    return [kind, *(each for below in kind.__subclasses__() for each in classes_below(below))]


def test_exceptions_of_ray_have_the_name_that_they_have_here() -> None:
    theirs = [kind for kind in classes_below(ray.exceptions.RayError) if kind.__module__ == "ray.exceptions"]
    named = [kind for kind in theirs if hasattr(actorlib.exceptions, kind.__name__)]
    assert len(named) > 25
    for kind in named:
        error = kind.__new__(kind)
        mapped = errors.kind_of(error)
        assert issubclass(mapped, getattr(actorlib.exceptions, kind.__name__)), kind
    assert errors.kind_of(ray.exceptions.RpcError.__new__(ray.exceptions.RpcError)) is actorlib.exceptions.ActorlibError


def test_the_cause_is_kept(tmp_path: Any) -> None:
    @actorlib.remote(num_cpus=0)
    class Plain:
        def fail(self) -> None:
            raise KeyError("x")

    plain = Plain.remote()
    with pytest.raises(KeyError) as caught:
        actorlib.get(plain.fail.remote(), timeout=60)
    assert isinstance(caught.value.cause, KeyError)  # type: ignore[attr-defined]
    actorlib.kill(plain)
    with pytest.raises(actorlib.exceptions.ActorDiedError) as died:
        actorlib.get(plain.fail.remote(), timeout=60)
    assert isinstance(died.value.__cause__, ray.exceptions.ActorDiedError)
    began = tmp_path / "began"

    @actorlib.remote(num_cpus=0)
    async def wait() -> None:
        began.touch()
        await asyncio.sleep(60)

    waits = wait.remote()
    deadline = time.monotonic() + 60
    while not began.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    actorlib.cancel(waits)
    with pytest.raises(actorlib.exceptions.TaskCancelledError) as cancelled:
        actorlib.get(waits, timeout=60)
    assert isinstance(cancelled.value.__cause__, ray.exceptions.TaskCancelledError)


def test_arrays_are_not_copied() -> None:
    import numpy as np

    ref = actorlib.put(np.arange(1_000_000))
    one, other = actorlib.get(ref, timeout=60), actorlib.get(ref, timeout=60)
    assert one.__array_interface__["data"][0] == other.__array_interface__["data"][0]
    assert not one.flags.writeable


@actorlib.remote(num_cpus=0)
class Nothing:
    """To be made with options that Ray has no word for."""


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Nothing.options(priority=1).remote(),
        lambda: Nothing.options(reentrant=True).remote(),
        lambda: Nothing.options(runtime_env={"working_dir": "/tmp"}).remote(),
        lambda: Nothing.options(runtime_env={"py_modules": ["/tmp"]}).remote(),
        lambda: Nothing.options(runtime_env={"preload": ["colorsys"]}).remote(),
        lambda: session.start(Settings(address="ray://somewhere:10001")),
        lambda: actorlib.util.drain_node(actorlib.nodes()[0]["NodeID"]),
        lambda: actorlib.util.state.list_objects(),
    ],
    ids=["priority", "reentrant", "directory", "modules", "preload", "ray client", "drain", "objects"],
)
def test_what_ray_can_not_do_says_so(ask: Callable[[], Any]) -> None:
    with pytest.raises(actorlib.exceptions.NotSupportedByEngineError) as caught:
        ask()
    assert caught.value.engine == "ray" and caught.value.way_out


def test_a_cancel_never_ends_the_process() -> None:
    """Plain Ray aborts within a few thousand cancels of what is just done, and a hundred of what was just submitted."""

    @actorlib.remote
    def same(x: int) -> int:
        return x

    @actorlib.remote(num_cpus=0)
    class Gate:
        def __init__(self) -> None:
            self.opened = asyncio.Event()

        async def wait(self) -> None:
            await self.opened.wait()
            self.opened.clear()

        async def open(self) -> None:
            self.opened.set()

    for number in range(1000):
        done = same.remote(number)
        assert actorlib.get(done, timeout=60) == number
        actorlib.cancel(done)
    gate = Gate.remote()
    for _ in range(100):
        held = gate.wait.remote()
        waiting = same.remote(held)
        actorlib.cancel(waiting)
        gate.open.remote()
        actorlib.get(held, timeout=60)
        with pytest.raises(actorlib.exceptions.TaskCancelledError):
            actorlib.get(waiting, timeout=60)


def test_of_several_errors_the_first_by_position_is_raised() -> None:
    @actorlib.remote
    def fail(error: Exception, after_s: float) -> None:
        time.sleep(after_s)
        raise error

    with pytest.raises(KeyError):
        actorlib.get([fail.remote(KeyError("first"), 1.0), fail.remote(IndexError("second"), 0)], timeout=60)


def test_a_deadline_of_a_task_interrupts_it(tmp_path: Any) -> None:
    began, seen = tmp_path / "began", tmp_path / "seen"

    @actorlib.remote
    def slow() -> None:
        began.touch()
        try:
            for _ in range(200):
                time.sleep(0.05)
        except KeyboardInterrupt:
            seen.touch()
            raise

    ref = slow.options(timeout_s=2.0).remote()
    with pytest.raises(actorlib.exceptions.DeadlineExceededError):
        actorlib.get(ref, timeout=60)
    deadline = time.monotonic() + 20
    while began.exists() and not seen.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert seen.exists() == began.exists()


def test_environments_come_back_when_their_host_is_killed() -> None:
    envs = pytest.importorskip("actorlib.envs")
    with contextlib.closing(envs.make_vec("CartPole-v1", num_envs=4, num_hosts=2, on_failure="restore")) as vec:
        with contextlib.closing(envs.make_vec("CartPole-v1", num_envs=4, num_hosts=0)) as undisturbed:
            seen, expected = vec.reset(seed=3)[0], undisturbed.reset(seed=3)[0]
            for step in range(12):
                assert (seen == expected).all()
                if step == 6:
                    os.kill(vec.host_pids()[1], signal.SIGKILL)
                actions = [(step + index) % 2 for index in range(4)]
                seen, expected = vec.step(actions)[0], undisturbed.step(actions)[0]
            assert (seen == expected).all()
