"""What only Ray can show: plain Ray and ours side by side, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
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


@pytest.mark.parametrize("refused", ["priority", "reentrant", "ray client"])
def test_what_ray_can_not_do_says_so(refused: str) -> None:
    @actorlib.remote(num_cpus=0)
    class Plain: ...

    with pytest.raises(actorlib.exceptions.NotSupportedByEngineError) as caught:
        if refused == "priority":
            Plain.options(priority=1).remote()
        elif refused == "reentrant":
            Plain.options(reentrant=True).remote()
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


def test_another_process_joins_by_the_address() -> None:
    address = ray.get_runtime_context().gcs_address
    code = (
        "import sys, actorlib\n"
        f"with actorlib.init({address!r}, engine='ray', log_to_driver=False):\n"
        "    print('it is', actorlib.get(actorlib.remote(lambda: 6 * 7).remote(), timeout=60))\n"
    )
    done = run(code)
    assert "it is 42" in done.stdout, done.stderr


def test_another_version_of_python_is_refused() -> None:
    address = ray.get_runtime_context().gcs_address
    code = (
        "import actorlib, ray._private.utils as utils\n"
        "utils.compute_version_info = lambda: (utils.ray.__version__, '3.99.0')\n"
        "try:\n"
        f"    actorlib.init({address!r}, engine='ray', log_to_driver=False)\n"
        "except actorlib.exceptions.EngineUnavailableError as error:\n"
        "    print(error)\n"
    )
    done = run(code)
    assert "does not fit the Ray cluster" in done.stdout and "3.99.0" in done.stdout, done.stderr
