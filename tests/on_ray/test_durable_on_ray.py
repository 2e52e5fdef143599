"""Durable actors on Ray: kill -9, what calls learn and send, stores, and looking back."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import actorlib
from actorlib import exceptions

pytestmark = [pytest.mark.usefixtures("on_ray"), pytest.mark.timeout(100)]
KILLS = 20


def get(refs: Any) -> Any:
    return actorlib.get(refs, timeout=60)


def kill(handle: Any) -> None:
    os.kill(get(handle.pid.remote()), signal.SIGKILL)


def counter_class() -> Any:
    @actorlib.remote(num_cpus=0, checkpoint=7)
    class Counter:
        def __init__(self) -> None:
            self.total = 0
            self.seen: list[Any] = []

        def add(self, amount: int = 1) -> int:
            self.total += amount
            return self.total

        async def add_async(self, ref: Any) -> int:
            self.total += await ref[0]
            return self.total

        def numbers(self, n: int) -> Any:
            for number in range(n):
                self.total += 1
                yield number

        def draw(self) -> list[Any]:
            import random

            self.seen.append(actorlib.record(random.random))
            return self.seen

        def ask(self, task: Any) -> list[Any]:
            self.seen.append(actorlib.get(task.remote()))
            ready, _ = actorlib.wait([task.remote() for _ in range(3)], num_returns=1)
            self.seen.append(actorlib.get(ready[0]))
            return self.seen

        def pass_on(self, other: Any) -> int:
            self.total += actorlib.get(other.add.remote())
            return self.total

        def pass_on_and_die(self, other: Any, mark: str) -> int:
            self.total += actorlib.get(other.add.remote())
            if not os.path.exists(mark):
                open(mark, "w").close()
                os._exit(9)
            return self.total

        def fail(self) -> None:
            import threading

            error = RuntimeError("holds a lock")
            error.lock = threading.Lock()  # type: ignore[attr-defined]
            raise error

        def pid(self) -> int:
            return os.getpid()

        def me(self) -> Any:
            return actorlib.get_runtime_context().current_actor

    return Counter


Counter: Any = counter_class()


def caller_class() -> Any:
    @actorlib.remote(num_cpus=0)
    class Caller:
        def try_add(self, counter: Any) -> Any:
            try:
                return actorlib.get(counter.add.remote())
            except exceptions.StateRolledBackError:
                return "rolled back"

    return Caller


Caller: Any = caller_class()


def test_nothing_is_lost_or_counted_twice_under_kill_9() -> None:
    counter = Counter.remote()
    seen: list[int] = []
    for _ in range(KILLS):
        pid = get(counter.pid.remote())
        refs = [counter.add.remote() for _ in range(10)]
        actorlib.wait(refs, num_returns=3, timeout=60)
        os.kill(pid, signal.SIGKILL)
        seen += get(refs)
    assert sorted(seen) == list(range(1, 10 * KILLS + 1))
    assert get(counter.add.remote()) == 10 * KILLS + 1


def test_what_calls_learn_is_the_same_after_a_crash() -> None:
    @actorlib.remote
    def draw() -> float:
        import random

        return random.random()

    counter = Counter.remote()
    get([counter.draw.remote() for _ in range(2)])
    before = get(counter.ask.remote(draw))
    kill(counter)
    assert get(counter.draw.remote())[:4] == before


def test_what_calls_send_to_durable_actors_counts_once() -> None:
    first, second = Counter.remote(), Counter.remote()
    assert get([first.pass_on.remote(second) for _ in range(3)]) == [1, 3, 6]
    kill(first)
    assert get(first.add.remote(0)) == 6, "run again with what it had learned"
    assert get(second.add.remote(0)) == 3, "and nothing was added twice"


def test_a_call_that_dies_half_way_sends_nothing_twice(tmp_path: Path) -> None:
    first, second = Counter.remote(), Counter.remote()
    assert get(first.pass_on_and_die.remote(second, str(tmp_path / "died"))) == 1
    assert get(second.add.remote(0)) == 1


def test_async_methods_generators_and_maps_are_logged() -> None:
    counter = Counter.remote()
    assert get(counter.add_async.remote([actorlib.put(5)])) == 5
    assert [get(item) for item in counter.numbers.remote(3)] == [0, 1, 2]
    assert list(counter.add.map([1, 1])) == [9, 10]
    kill(counter)
    assert get(counter.add.remote(0)) == 10


def test_an_error_that_cant_be_pickled_is_an_answer() -> None:
    counter = Counter.remote()
    with pytest.raises(exceptions.TaskError, match="holds a lock"):
        get(counter.fail.remote())
    assert get([counter.add.remote() for _ in range(8)])[-1] == 8, "over a checkpoint, too"


@pytest.mark.parametrize("scheme", ["", "file://", "local://"])
def test_log_and_checkpoints_lie_where_they_are_told_to(scheme: str, tmp_path: Path) -> None:
    """local:// goes through fsspec, as any URL does."""
    kept = actorlib.Checkpoint(every_calls=3, store=f"{scheme}{tmp_path}")
    counter = Counter.options(checkpoint=kept).remote()
    assert get([counter.add.remote() for _ in range(8)])[-1] == 8
    (folder,) = tmp_path.iterdir()
    assert folder.name == counter._actor_id.hex()
    assert {name.partition("-")[0] for name in os.listdir(folder)} >= {"checkpoint", "log", "life"}
    kill(counter)
    assert get(counter.add.remote()) == 9
    rows = counter.checkpoints()
    assert [row["number"] for row in rows] == [2, 3] and all(row["is_good"] for row in rows)
    actorlib.kill(counter)
    assert counter.checkpoints() == rows, "also of one that is dead"


def test_handles_that_come_from_elsewhere_know_that_it_is_durable() -> None:
    """Through Ray's own handle, and the actor's handle of itself."""
    counter = Counter.remote()
    for handle in (actorlib.from_ray(actorlib.to_ray(counter)), get(counter.me.remote())):
        before = get(counter.add.remote(0))
        refs = [handle.add.remote() for _ in range(10)]
        actorlib.wait(refs, num_returns=3, timeout=60)
        kill(counter)
        assert sorted(get(refs)) == list(range(before + 1, before + 11))
        assert get(counter.add.remote(0)) == before + 10


def told_and_then(caller: Any, counter: Any) -> list[Any]:
    return get([caller.try_add.remote(counter) for _ in range(2)])


def test_whoever_called_before_is_told_once_when_everything_is_lost(tmp_path: Path) -> None:
    """As when the host that had the log is gone, and there is no store that outlives it."""
    kept = actorlib.Checkpoint(every_calls=2, store=str(tmp_path))
    counter = Counter.options(checkpoint=kept).remote()
    caller = Caller.remote()
    assert told_and_then(caller, counter) == [1, 2]
    assert get(counter.add.remote()) == 3
    pid = get(counter.pid.remote())
    (folder,) = tmp_path.iterdir()
    shutil.rmtree(folder)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(exceptions.StateRolledBackError, match="not run"):
        get(counter.add.remote())
    assert get(counter.add.remote()) == 1
    assert told_and_then(Caller.remote(), counter) == [2, 3], "one that is new has lost nothing"
    kill(counter)
    assert get(counter.add.remote()) == 4, "what was told, too, is in the log"
    assert told_and_then(caller, counter) == ["rolled back", 5]


def test_checkpoints_that_are_all_torn_are_a_loss(tmp_path: Path) -> None:
    counter = Counter.options(checkpoint=actorlib.Checkpoint(every_calls=1, store=str(tmp_path))).remote()
    assert get([counter.add.remote() for _ in range(4)])[-1] == 4
    pid = get(counter.pid.remote())
    for path in tmp_path.glob("*/checkpoint-*"):
        path.write_bytes(path.read_bytes()[:-1])
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(exceptions.StateRolledBackError):
        get(counter.add.remote())
    assert get(counter.add.remote()) == 1
    kill(counter)
    assert get(counter.add.remote()) == 2


def test_replicated_is_refused() -> None:
    counter = Counter.options(checkpoint=actorlib.Checkpoint(durability="replicated"), max_restarts=0).remote()
    with pytest.raises(exceptions.RayError, match="store="):
        get(counter.add.remote())


def test_a_worker_that_was_taken_for_dead_does_not_go_on(tmp_path: Path) -> None:
    counter = Counter.options(checkpoint=actorlib.Checkpoint(store=str(tmp_path))).remote()
    get(counter.add.remote())
    first = get(counter.pid.remote())
    (mark,) = tmp_path.glob("*/life-*")
    mark.unlink()  # as another incarnation does
    assert get(counter.add.remote()) == 2
    assert get(counter.pid.remote()) != first


def doubling_class() -> Any:
    @actorlib.remote(num_cpus=0, checkpoint=7)
    class Doubling:
        def __restore__(self, state: Any) -> None:
            self.total = state["total"]

        def add(self, amount: int = 1) -> None:
            self.total += amount

        def pass_on(self, other: Any) -> None:
            self.total += actorlib.get(other.add.remote())

        def read(self) -> int:
            return 2 * self.total

    return Doubling


def test_looking_back() -> None:
    counter = Counter.remote()
    other = Counter.remote()
    get([counter.add.remote() for _ in range(9)])
    get(counter.pass_on.remote(other))
    (row,) = counter.checkpoints()
    assert (row["position"], row["class_name"], row["is_good"]) == (7, "Counter", True)
    assert time.time() - 600 < row["saved_at"] < time.time() and row["state_bytes"] > 0
    log = actorlib.util.state.actor_log(counter, limit=2)
    assert [(each["position"], each["method"], each["outcome"]) for each in log] == [
        (10, "pass_on", "ok"),
        (9, "add", "ok"),
    ]
    as_it_was = actorlib.restore(Counter, row["id"])
    later = actorlib.restore(Counter, row["id"], position=10)
    assert get([as_it_was.add.remote(0), later.add.remote(0)]) == [7, 10]
    assert get(other.add.remote(0)) == 1, "what the calls had sent is not sent again"
    kill(later)
    assert get(later.add.remote()) == 11
    assert get(counter.add.remote(0)) == 10
    with pytest.raises(exceptions.CheckpointError, match="no good checkpoint"):
        actorlib.restore(Counter, row["id"].replace("/1", "/7"))
    with pytest.raises(exceptions.CheckpointError, match="position=99"):
        actorlib.restore(Counter, row["id"], position=99)
    with pytest.raises(ValueError, match="not the id"):
        actorlib.restore(Counter, "nonsense")
    with pytest.raises(exceptions.NotSupportedByEngineError, match="restore"):
        counter.upgrade(Counter)
    (newest,) = counter.checkpoints()
    assert get(actorlib.restore(doubling_class(), newest["id"], position=11).read.remote()) == 20, "the way out"
    with pytest.raises(ValueError, match="not durable"):
        Counter.options(checkpoint=None).remote().checkpoints()
