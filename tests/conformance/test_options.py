"""Options of tasks, actors and methods: values that are refused, and what those that are taken do."""

from __future__ import annotations

import os
from typing import Any

import programs
import pytest
from contract import get, shows

import actorlib

REFUSED = "Wrong names or values raise `ValueError`/`TypeError` at the call and list the valid ones."
WRONG_FOR_TASKS = {
    "num_cpus": [-1, "two"],
    "num_gpus": [-0.5, "one", 1.5],
    "resources": [{"CPU": 1}, {"GPU": 1}, {"x": -1}, {"x": 0.00001}, 3],
    "memory": [-1, "much"],
    "max_retries": [-2, 0.5, "three"],
    "retry_exceptions": ["yes", [1]],
    "num_returns": [-1, 1.5, "many"],
    "max_calls": [-1, "two"],
    "scheduling_strategy": ["RANDOM"],
    "label_selector": [["zone"]],
    "timeout_s": [-1, "soon"],
    "runtime_env": [{"unknown": 1}, "env"],
    "priority": ["high"],
    "name": [5, ""],
}
WRONG_FOR_ACTORS = {
    "max_restarts": [-2, "many"],
    "max_task_retries": [-2, 1.5],
    "max_concurrency": [0, -1],
    "concurrency_groups": [["io"], {"io": 0}],
    "lifetime": ["forever"],
    "get_if_exists": ["yes"],
    "max_pending_calls": [-2, "few"],
    "allow_out_of_order_execution": ["yes"],
    "checkpoint": [0, -3, "often"],
    "namespace": [5],
}
TASKS = [(name, value) for name, values in WRONG_FOR_TASKS.items() for value in values]
ACTORS = [(name, value) for name, values in WRONG_FOR_ACTORS.items() for value in values]


def label(case: tuple[str, Any]) -> str:
    return f"{case[0]}={case[1]!r}".replace("-", "minus ")


@pytest.mark.parametrize("case", TASKS, ids=label)
@shows(REFUSED)
def test_a_wrong_value_of_a_tasks_option(case: tuple[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        programs.adder().options(**{case[0]: case[1]})


@pytest.mark.parametrize("case", ACTORS, ids=label)
@shows(REFUSED)
def test_a_wrong_value_of_an_actors_option(case: tuple[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        programs.counter_class().options(**{case[0]: case[1]})


@shows(REFUSED)
def test_an_unknown_option_of_a_task() -> None:
    with pytest.raises(ValueError, match="num_cpus"):
        programs.adder().options(num_cpu=1)


@shows(REFUSED)
def test_an_unknown_option_of_an_actor() -> None:
    with pytest.raises(ValueError, match="Valid options"):
        programs.counter_class().options(max_retries=1)


@shows(REFUSED)
def test_an_unknown_option_of_a_method() -> None:
    with pytest.raises(ValueError, match="num_returns"):
        programs.counter_class().remote().add.options(num_return=2)


# -- both --------------------------------------------------------------------------------------------------------------
@shows("| both | `num_cpus` | task 1; actor: 1 to place, 0 to run when unset |")
def test_a_task_has_one_cpu() -> None:
    @actorlib.remote
    def mine() -> Any:
        return actorlib.get_runtime_context().get_assigned_resources()

    assert get(mine.remote())["CPU"] == 1
    assert get(mine.options(num_cpus=2).remote())["CPU"] == 2


@shows("| both | `num_cpus` | task 1; actor: 1 to place, 0 to run when unset |")
def test_an_actor_has_no_cpu_when_unset() -> None:
    @actorlib.remote
    class Idle:
        def ping(self) -> int:
            return 1

    idle = [Idle.remote() for _ in range(5)]  # more than there are CPUs
    assert get([one.ping.remote() for one in idle]) == [1] * 5


@shows("fractions below 1 allowed; sets `CUDA_VISIBLE_DEVICES`")
def test_a_gpu_is_shown_to_the_task() -> None:
    @actorlib.remote(num_gpus=1)
    def mine() -> Any:
        return actorlib.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")

    ids, variable = get(mine.remote())
    assert len(ids) == 1
    assert variable == str(ids[0])


@shows("fractions below 1 allowed; sets `CUDA_VISIBLE_DEVICES`")
def test_half_a_gpu() -> None:
    @actorlib.remote(num_gpus=0.5)
    def mine() -> Any:
        return actorlib.get_gpu_ids()

    assert len(get(mine.remote())) == 1


@shows("fractions below 1 allowed; sets `CUDA_VISIBLE_DEVICES`")
def test_an_actor_keeps_its_gpu() -> None:
    @actorlib.remote(num_gpus=1, num_cpus=0)
    class Holder:
        def mine(self) -> Any:
            return actorlib.get_gpu_ids()

    holder = Holder.remote()
    first = get(holder.mine.remote())
    assert len(first) == 1 and get(holder.mine.remote()) == first


@shows("custom resources, precision 0.0001")
def test_a_custom_resource() -> None:
    @actorlib.remote(resources={"special": 0.0001})
    def mine() -> Any:
        return actorlib.get_runtime_context().get_assigned_resources()

    assert get(mine.remote())["special"] == pytest.approx(0.0001)


@shows("memory in bytes, admission")
def test_memory_is_asked_for() -> None:
    assert get(programs.adder().options(memory=1 << 20).remote(1, 2)) == 3


@shows("| | `name`, `runtime_env` | |")
def test_a_task_has_the_name_it_is_given() -> None:
    @actorlib.remote
    def mine() -> Any:
        return actorlib.get_runtime_context().get_task_name()

    assert get(mine.options(name="christened").remote()) == "christened"


@shows("| | `name`, `runtime_env` | |")
def test_environment_variables() -> None:
    @actorlib.remote(runtime_env={"env_vars": {"CONFORMANCE_VALUE": "there"}})
    def read() -> Any:
        return os.environ.get("CONFORMANCE_VALUE")

    assert get(read.remote()) == "there"
    assert "CONFORMANCE_VALUE" not in os.environ


@shows("deadline of a call, inherited by what it calls; order in the queue")
def test_a_call_in_time_is_not_disturbed() -> None:
    assert get(programs.napper().options(timeout_s=30).remote(0.01)) == "awake"


@shows("deadline of a call, inherited by what it calls; order in the queue")
def test_a_task_past_its_deadline() -> None:
    with pytest.raises(actorlib.exceptions.DeadlineExceededError, match="timeout_s"):
        get(programs.napper().options(timeout_s=0.2).remote(1.5))


@shows("deadline of a call, inherited by what it calls; order in the queue")
def test_a_deadline_is_a_timeout_error() -> None:
    with pytest.raises(TimeoutError):
        get(programs.napper().options(timeout_s=0.2).remote(1.0))


@shows("deadline of a call, inherited by what it calls; order in the queue")
def test_a_call_of_an_actor_past_its_deadline() -> None:
    counter = programs.counter_class().remote()
    get(counter.read.remote())
    with pytest.raises(actorlib.exceptions.DeadlineExceededError):
        get(counter.nap.options(timeout_s=0.2).remote(1.0))
    assert get(counter.read.remote()) == 0


@shows("deadline of a call, inherited by what it calls; order in the queue")
def test_a_deadline_is_inherited() -> None:
    nap = programs.napper()

    @actorlib.remote
    def parent() -> str:
        try:
            actorlib.get(nap.remote(2.0))
        except TimeoutError:
            return "in time"
        return "too late"

    with pytest.raises(TimeoutError):
        get(parent.options(timeout_s=0.5).remote())


@shows("deadline of a call, inherited by what it calls; order in the queue")
def test_a_deadline_is_told_to_whoever_awaits() -> None:
    import asyncio

    async def wait() -> None:
        await programs.napper().options(timeout_s=0.2).remote(1.5)

    with pytest.raises(actorlib.exceptions.DeadlineExceededError, match="timeout_s"):
        asyncio.run(wait())
    late = programs.napper().options(timeout_s=0.2).remote(1.5).future()
    assert isinstance(late.exception(timeout=60), actorlib.exceptions.DeadlineExceededError)


@shows("deadline of a call, inherited by what it calls; order in the queue")
def test_a_stream_past_its_deadline() -> None:
    @actorlib.remote
    def numbers() -> Any:
        import time

        yield 0
        time.sleep(1.5)
        yield 1

    generator = numbers.options(timeout_s=0.6).remote()
    with pytest.raises(actorlib.exceptions.DeadlineExceededError):
        [get(ref) for ref in generator]


@shows("`timeout_s`, `priority` (ours)")
def test_a_priority_is_taken() -> None:
    assert get(programs.adder().options(priority=5).remote(1, 2)) == 3


# -- tasks -------------------------------------------------------------------------------------------------------------
@shows("system failures only unless asked; True or a list of classes; -1 infinite")
def test_an_exception_is_not_retried(tmp_path: Any) -> None:
    assert runs_of_a_failing_task(tmp_path, KeyError) == 1


@pytest.mark.parametrize("asked", [True, [KeyError], [LookupError]], ids=["True", "a class", "a base class"])
@shows("system failures only unless asked; True or a list of classes; -1 infinite")
def test_an_exception_is_retried_if_asked(tmp_path: Any, asked: Any) -> None:
    assert runs_of_a_failing_task(tmp_path, KeyError, max_retries=2, retry_exceptions=asked) == 3


@shows("system failures only unless asked; True or a list of classes; -1 infinite")
def test_another_exception_is_not_retried(tmp_path: Any) -> None:
    assert runs_of_a_failing_task(tmp_path, KeyError, max_retries=2, retry_exceptions=[IndexError]) == 1


@shows("system failures only unless asked; True or a list of classes; -1 infinite")
def test_no_retries(tmp_path: Any) -> None:
    assert runs_of_a_failing_task(tmp_path, KeyError, max_retries=0, retry_exceptions=True) == 1


def runs_of_a_failing_task(folder: Any, error: type[Exception], **options: Any) -> int:
    mark = folder / "runs"

    @actorlib.remote
    def fail() -> None:
        with open(mark, "a") as target:
            target.write("x")
        raise error("again")

    with pytest.raises(error):
        get(fail.options(**options).remote())
    return len(mark.read_text())


@shows("-1 infinite")
def test_endless_retries_end_with_success(tmp_path: Any) -> None:
    mark = tmp_path / "runs"

    @actorlib.remote(max_retries=-1, retry_exceptions=True)
    def flaky() -> int:
        with open(mark, "a") as target:
            target.write("x")
        if mark.stat().st_size < 6:
            raise OSError("not yet")
        return mark.stat().st_size

    assert get(flaky.remote()) == 6


@shows('int, `"streaming"` (a generator function streams by default), `"dynamic"`')
def test_several_results() -> None:
    @actorlib.remote(num_returns=3)
    def three() -> Any:
        return 1, 2, 3

    refs = three.remote()
    assert len(refs) == 3 and get(refs) == [1, 2, 3]


@shows('int, `"streaming"` (a generator function streams by default), `"dynamic"`')
def test_no_result() -> None:
    assert programs.adder().options(num_returns=0).remote(1) is None


@shows('int, `"streaming"` (a generator function streams by default), `"dynamic"`')
def test_the_wrong_number_of_results() -> None:
    @actorlib.remote(num_returns=2)
    def three() -> Any:
        return 1, 2, 3

    with pytest.raises(ValueError):
        get(three.remote()[0])


@shows('int, `"streaming"` (a generator function streams by default), `"dynamic"`')
def test_streaming_if_asked() -> None:
    @actorlib.remote
    def numbers() -> Any:
        return iter([1, 2, 3])

    assert [get(ref) for ref in numbers.options(num_returns="streaming").remote()] == [1, 2, 3]


@shows('int, `"streaming"` (a generator function streams by default), `"dynamic"`')
def test_dynamic_results() -> None:
    @actorlib.remote(num_returns="dynamic")
    def numbers() -> Any:
        yield from (1, 2, 3)

    assert [get(ref) for ref in get(numbers.remote())] == [1, 2, 3]


@shows("worker exits after n calls; producer pauses")
def test_a_worker_exits_after_its_calls() -> None:
    @actorlib.remote(max_calls=1)
    def where() -> str:
        return actorlib.get_runtime_context().get_worker_id()

    assert len({get(where.remote()) for _ in range(3)}) == 3


@shows("worker exits after n calls; producer pauses")
def test_a_producer_pauses(tmp_path: Any) -> None:
    import time

    mark = tmp_path / "made"
    mark.touch()

    @actorlib.remote(_generator_backpressure_num_objects=3)
    def numbers() -> Any:
        for number in range(20):
            with open(mark, "a") as target:
                target.write("x")
            yield number

    generator = numbers.remote()
    assert get(next(generator)) == 0
    time.sleep(0.5)
    assert mark.stat().st_size <= 5
    assert [get(ref) for ref in generator] == list(range(1, 20))


# -- actors ------------------------------------------------------------------------------------------------------------
@shows("-1 infinite; a call that waits out a restart uses a retry")
def test_an_actor_that_may_not_restart_is_dead_after_a_crash() -> None:
    counter = programs.counter_class().remote()
    get(counter.add.remote())
    actorlib.kill(counter, no_restart=False)
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        get(counter.read.remote())


@shows("-1 infinite; a call that waits out a restart uses a retry")
def test_an_actor_restarts() -> None:
    counter = programs.counter_class().options(max_restarts=1, max_task_retries=2).remote(5)
    assert get(counter.add.remote()) == 6
    actorlib.kill(counter, no_restart=False)
    assert get(counter.read.remote()) == 5


@shows("-1 infinite; a call that waits out a restart uses a retry")
def test_restarts_are_counted() -> None:
    counter = programs.counter_class().options(max_restarts=1, max_task_retries=3).remote()
    get(counter.read.remote())
    actorlib.kill(counter, no_restart=False)
    get(counter.read.remote())
    actorlib.kill(counter, no_restart=False)
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        get(counter.read.remote())


@shows("-1 infinite; a call that waits out a restart uses a retry")
def test_endless_restarts() -> None:
    counter = programs.counter_class().options(max_restarts=-1, max_task_retries=-1).remote(1)
    for _ in range(3):
        get(counter.read.remote())
        actorlib.kill(counter, no_restart=False)
    assert get(counter.read.remote()) == 1


@shows("1 for sync classes (threads above 1), 1000 for classes with an `async def`")
def test_a_sync_actor_runs_one_call_at_a_time() -> None:
    @actorlib.remote(num_cpus=0)
    class Alone:
        def __init__(self) -> None:
            self.inside = 0

        def visit(self) -> int:
            import time

            self.inside += 1
            time.sleep(0.01)
            seen, self.inside = self.inside, self.inside - 1
            return seen

    alone = Alone.remote()
    assert get([alone.visit.remote() for _ in range(8)]) == [1] * 8


@shows("1 for sync classes (threads above 1), 1000 for classes with an `async def`")
def test_an_async_actor_has_many_calls_at_once() -> None:
    gate = programs.async_class().remote()
    waiting = [gate.wait.remote() for _ in range(50)]
    gate.open.remote()
    assert get(waiting) == ["open"] * 50


@shows("1 for sync classes (threads above 1), 1000 for classes with an `async def`")
def test_an_async_actor_with_a_limit() -> None:
    gate = programs.async_class().options(max_concurrency=2).remote()
    refs = [gate.sleep.remote(0.02) for _ in range(6)]
    assert get(refs) == ["slept"] * 6


@shows("1 for sync classes (threads above 1), 1000 for classes with an `async def`")
def test_a_threaded_actor_has_calls_at_once() -> None:
    @actorlib.remote(num_cpus=0, max_concurrency=3)
    class Meeting:
        def __init__(self) -> None:
            self.here = 0

        def meet(self) -> str:
            import time

            self.here += 1
            deadline = time.monotonic() + 4
            while self.here < 3:
                if time.monotonic() > deadline:
                    return "alone"
                time.sleep(0.01)
            return "met"

    meeting = Meeting.remote()
    assert get([meeting.meet.remote() for _ in range(3)]) == ["met"] * 3


@shows("name to limit; `@method(concurrency_group=)` or per call")
def test_a_group_given_by_the_method() -> None:
    @actorlib.remote(num_cpus=0, concurrency_groups={"slow": 1, "fast": 1})
    class Grouped:
        def __init__(self) -> None:
            self.released = False

        @actorlib.method(concurrency_group="slow")
        def hold(self) -> bool:
            import time

            deadline = time.monotonic() + 4
            while not self.released and time.monotonic() < deadline:
                time.sleep(0.01)
            return self.released

        @actorlib.method(concurrency_group="fast")
        def release(self) -> str:
            self.released = True
            return "released"

    grouped = Grouped.remote()
    held = grouped.hold.remote()
    assert get(grouped.release.remote()) == "released"
    assert get(held) is True


@shows("name to limit; `@method(concurrency_group=)` or per call")
def test_a_group_given_by_the_call() -> None:
    gate = programs.async_class().options(concurrency_groups={"aside": 1}).remote()
    assert get(gate.plain.options(concurrency_group="aside").remote(3)) == 3


@shows("name to limit; `@method(concurrency_group=)` or per call")
def test_groups_of_an_async_actor() -> None:
    @actorlib.remote(num_cpus=0, concurrency_groups={"one": 1})
    class Grouped:
        def __init__(self) -> None:
            self.inside = self.most = 0

        @actorlib.method(concurrency_group="one")
        async def visit(self) -> int:
            import asyncio

            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0.005)
            self.inside -= 1
            return self.most

    grouped = Grouped.remote()
    assert get([grouped.visit.remote() for _ in range(5)]) == [1] * 5


@shows("names unique per namespace; get or create is one transaction")
def test_a_named_actor_is_found() -> None:
    counter = programs.counter_class().options(name="found").remote(3)
    assert get(actorlib.get_actor("found").read.remote()) == 3
    actorlib.kill(counter)


@shows("names unique per namespace; get or create is one transaction")
def test_a_name_is_taken_once() -> None:
    counter = programs.counter_class()
    first = counter.options(name="once").remote()
    get(first.read.remote())
    with pytest.raises(ValueError, match="once"):
        counter.options(name="once").remote()
    actorlib.kill(first)


@shows("names unique per namespace; get or create is one transaction")
def test_the_same_name_in_another_namespace() -> None:
    counter = programs.counter_class()
    here = counter.options(name="twin").remote(1)
    there = counter.options(name="twin", namespace="elsewhere").remote(2)
    assert get(actorlib.get_actor("twin").read.remote()) == 1
    assert get(actorlib.get_actor("twin", namespace="elsewhere").read.remote()) == 2
    actorlib.kill(here)
    actorlib.kill(there)


@shows("names unique per namespace; get or create is one transaction")
def test_get_or_create() -> None:
    counter = programs.counter_class()
    first = counter.options(name="either", get_if_exists=True).remote(1)
    second = counter.options(name="either", get_if_exists=True).remote(100)
    get(first.add.remote())
    assert get(second.read.remote()) == 2
    assert first == second
    actorlib.kill(first)


@shows("names unique per namespace; get or create is one transaction")
def test_get_or_create_by_many_makes_one() -> None:
    counter = programs.counter_class()

    @actorlib.remote
    def make() -> str:
        handle = counter.options(name="race", get_if_exists=True, lifetime="detached").remote()
        return actorlib.get(handle.where.remote())

    assert len(set(get([make.remote() for _ in range(6)]))) == 1
    actorlib.kill(actorlib.get_actor("race"))


@shows('`name, namespace, lifetime="detached", get_if_exists`')
def test_get_if_exists_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name"):
        programs.counter_class().options(get_if_exists=True)


@shows('`name, namespace, lifetime="detached", get_if_exists`')
def test_a_detached_actor_outlives_its_handles() -> None:
    programs.counter_class().options(name="alone", lifetime="detached").remote(9)
    assert get(actorlib.get_actor("alone").read.remote()) == 9
    actorlib.kill(actorlib.get_actor("alone"))


@shows("names unique per namespace; get or create is one transaction")
def test_a_killed_actors_name_is_free() -> None:
    import time

    counter = programs.counter_class()
    first = counter.options(name="again").remote(1)
    get(first.read.remote())
    actorlib.kill(first)
    deadline = time.monotonic() + 20
    while True:
        try:
            second = counter.options(name="again").remote(2)
            break
        except ValueError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert get(second.read.remote()) == 2
    actorlib.kill(second)


@shows("names unique per namespace; get or create is one transaction")
def test_a_name_that_nobody_has() -> None:
    with pytest.raises(ValueError, match="nobody"):
        actorlib.get_actor("nobody")


@shows("`PendingCallsLimitExceeded`")
def test_too_many_pending_calls() -> None:
    gate = programs.async_class().options(max_pending_calls=2).remote()
    refs = [gate.wait.remote() for _ in range(2)]
    with pytest.raises(actorlib.exceptions.PendingCallsLimitExceeded):
        gate.wait.remote()
    actorlib.kill(gate)
    del refs


@shows("`allow_out_of_order_execution`")
def test_out_of_order_execution() -> None:
    gate = programs.async_class().remote()
    held = gate.wait.remote()
    free = programs.async_class().options(allow_out_of_order_execution=True).remote()
    late, early = free.plain.remote(held), free.plain.remote("early")
    assert get(early) == "early"
    gate.open.remote()
    assert get(late) == "open"


@shows("`@method(concurrency_group=)` or per call")
def test_method_options_given_by_the_class() -> None:
    @actorlib.remote(num_cpus=0)
    class Pair:
        @actorlib.method(num_returns=2)
        def both(self) -> Any:
            return 1, 2

    assert get(Pair.remote().both.remote()) == [1, 2]
