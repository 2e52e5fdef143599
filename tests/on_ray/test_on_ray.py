"""What only Ray can show: kill -9 of a durable actor's worker, plain Ray and ours side by side, and what is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import ray

import actorlib

pytestmark = [pytest.mark.usefixtures("on_ray"), pytest.mark.timeout(200)]
KILLS = 20


def durable_counter() -> Any:
    @actorlib.remote(num_cpus=0, checkpoint=7)
    class Counter:
        def __init__(self) -> None:
            self.total = 0
            self.drawn: list[float] = []

        def add(self) -> int:
            self.total += 1
            return self.total

        def draw(self) -> list[float]:
            import random

            self.drawn.append(actorlib.record(random.random))
            return self.drawn

        def pid(self) -> int:
            return os.getpid()

    return Counter


def test_nothing_is_lost_or_counted_twice_under_kill_9() -> None:
    counter = durable_counter().remote()
    seen: list[int] = []
    for _ in range(KILLS):
        pid = actorlib.get(counter.pid.remote(), timeout=60)
        refs = [counter.add.remote() for _ in range(10)]
        actorlib.wait(refs, num_returns=3, timeout=60)
        os.kill(pid, signal.SIGKILL)
        seen += actorlib.get(refs, timeout=60)
    assert sorted(seen) == list(range(1, 10 * KILLS + 1))
    assert actorlib.get(counter.add.remote(), timeout=60) == 10 * KILLS + 1


def test_recorded_values_are_the_same_after_a_crash() -> None:
    counter = durable_counter().remote()
    before = actorlib.get([counter.draw.remote() for _ in range(3)], timeout=60)[-1]
    os.kill(actorlib.get(counter.pid.remote(), timeout=60), signal.SIGKILL)
    assert actorlib.get(counter.draw.remote(), timeout=60)[:3] == before


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
        def twice(self, x: int) -> int:
            return 2 * x

        def numbers(self) -> Any:
            yield from (number for number in (1, 2))  # Ray wants a generator

    @actorlib.remote(num_cpus=0)
    class Ours:
        def thrice(self, x: int) -> int:
            return 3 * x

    theirs = actorlib.from_ray(Theirs.remote())
    assert actorlib.get(theirs.twice.remote(2), timeout=60) == 4
    assert actorlib.get(list(theirs.numbers.remote()), timeout=60) == [1, 2]
    assert ray.get(actorlib.to_ray(Ours.remote()).thrice.remote(2)) == 6


def test_arrays_are_not_copied() -> None:
    import numpy as np

    ref = actorlib.put(np.arange(1_000_000))
    one, other = actorlib.get(ref, timeout=60), actorlib.get(ref, timeout=60)
    assert one.__array_interface__["data"][0] == other.__array_interface__["data"][0]
    assert not one.flags.writeable


@pytest.mark.parametrize("options", [{"durability": "replicated"}, {"store": "s3://bucket/path"}], ids=str)
def test_what_durable_actors_can_not_have_here(options: dict[str, Any]) -> None:
    counter = durable_counter().options(checkpoint=actorlib.Checkpoint(**options), max_restarts=0).remote()
    with pytest.raises(actorlib.exceptions.RayError, match="store="):
        actorlib.get(counter.add.remote(), timeout=60)


def test_checkpoints_lie_where_they_are_told_to(tmp_path: Any) -> None:
    counter = durable_counter().options(checkpoint=actorlib.Checkpoint(every_calls=2, store=str(tmp_path))).remote()
    assert actorlib.get([counter.add.remote() for _ in range(5)], timeout=60)[-1] == 5
    (folder,) = tmp_path.iterdir()
    assert folder.name == counter._actor_id.hex()
    assert {name.partition("-")[0] for name in os.listdir(folder)} >= {"checkpoint", "log"}


@pytest.mark.parametrize("refused", ["priority", "reentrant", "ray client"])
def test_what_ray_can_not_do_says_so(refused: str) -> None:
    counter = durable_counter().options(checkpoint=None)
    with pytest.raises(actorlib.exceptions.NotSupportedByEngineError) as caught:
        if refused == "priority":
            counter.options(priority=1).remote()
        elif refused == "reentrant":
            counter.options(reentrant=True).remote()
        else:
            from actorlib.engines.on_ray import session
            from actorlib.engines.registry import Settings

            session.start(Settings(address="ray://somewhere:10001"))
    assert caught.value.engine == "ray" and caught.value.way_out


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env={**os.environ, **environment}
    )


def test_importing_the_package_never_imports_ray() -> None:
    done = run("import sys, actorlib, actorlib.util; print('ray' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_a_cluster_that_is_not_there() -> None:
    code = "import actorlib; actorlib.init('127.0.0.1:1', engine='ray')"
    done = run(code, RAY_gcs_server_request_timeout_seconds="2", RAY_gcs_rpc_server_connect_timeout_s="2")
    assert "EngineUnavailableError" in done.stderr and "ray start --head" in done.stderr


def test_ray_too_old_or_not_installed() -> None:
    code = (
        "import sys, types, actorlib\n"
        "ray = types.ModuleType('ray'); ray.__version__ = '2.9.0'\n"
        "for there in (ray, None):\n"
        "    sys.modules['ray'] = there\n"
        "    try:\n"
        "        actorlib.init(engine='ray')\n"
        "    except actorlib.exceptions.EngineUnavailableError as error:\n"
        "        print(error)\n"
    )
    lines = run(code).stdout.splitlines()
    assert len(lines) == 2 and all("actorlib[ray]" in line for line in lines)
    assert "2.9.0" in lines[0] and "not installed" in lines[1]


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
