"""Order, state, errors and deaths."""

from __future__ import annotations

import pickle
import sys
import threading
from typing import Any

import programs
import pytest
from contract import get, shows

import actorlib

ORDER = "one caller's calls on a sync single-thread actor run in submission order;"
ERRORS = (
    "a task's exception is raised at `get` as a `RayTaskError` that also is an instance of the user's exception class"
)
BETTER_ERRORS = "an exception that can't be pickled still arrives: type name, message, traceback text."


# -- order -------------------------------------------------------------------------------------------------------------
@shows(ORDER)
def test_calls_run_in_submission_order() -> None:
    counter = programs.counter_class().remote()
    assert get([counter.add.remote() for _ in range(200)]) == list(range(1, 201))


@shows(ORDER)
def test_calls_with_arguments_that_come_late_keep_their_place() -> None:
    counter = programs.counter_class().remote()
    late = programs.napper().remote(0.1)

    @actorlib.remote
    def five(_: Any) -> int:
        return 5

    first, second = counter.add.remote(five.remote(late)), counter.add.remote(1)
    assert get([first, second]) == [5, 6]


@shows(ORDER)
def test_a_chain_of_calls() -> None:
    counter = programs.counter_class().remote()
    ref = counter.add.remote()
    for _ in range(20):
        ref = counter.add.remote(ref)
    assert get(ref) == 2**20


@shows(ORDER)
def test_two_callers_each_have_their_order() -> None:
    @actorlib.remote(num_cpus=0)
    class Log:
        def __init__(self) -> None:
            self.seen: list[tuple[str, int]] = []

        def note(self, who: str, number: int) -> None:
            self.seen.append((who, number))

        def read(self) -> Any:
            return self.seen

    @actorlib.remote
    def write(log: Any, who: str) -> None:
        actorlib.get([log.note.remote(who, number) for number in range(30)])

    log = Log.remote()
    get([write.remote(log, who) for who in "ab"])
    seen = get(log.read.remote())
    assert [number for who, number in seen if who == "a"] == list(range(30))
    assert [number for who, number in seen if who == "b"] == list(range(30))


@shows("kept across restarts")
def test_order_is_kept_across_a_restart() -> None:
    counter = programs.counter_class().options(max_restarts=-1, max_task_retries=-1).remote()
    get(counter.read.remote())
    actorlib.kill(counter, no_restart=False)
    assert get([counter.add.remote() for _ in range(20)]) == list(range(1, 21))


@shows("| actor state | lost on restart |")
def test_a_plain_actors_state_is_lost_on_restart() -> None:
    counter = programs.counter_class().options(max_restarts=1, max_task_retries=2).remote(1)
    assert get(counter.add.remote(10)) == 11
    actorlib.kill(counter, no_restart=False)
    assert get(counter.read.remote()) == 1


@shows(ORDER)
def test_an_actor_that_calls_itself() -> None:
    @actorlib.remote(num_cpus=0)
    class Loop:
        def __init__(self) -> None:
            self.steps: list[str] = []

        def begin(self, me: Any) -> None:
            self.steps.append("begins")
            me.after.remote()
            self.steps.append("ends")

        def after(self) -> None:
            self.steps.append("after")

        def read(self) -> Any:
            return list(self.steps)

    loop = Loop.remote()
    get(loop.begin.remote(loop))
    import time

    deadline = time.monotonic() + 20
    while len(steps := get(loop.read.remote())) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert steps == ["begins", "ends", "after"]


# -- tasks -------------------------------------------------------------------------------------------------------------
@shows("`f.remote()`")
def test_many_tasks() -> None:
    add = programs.adder()
    assert get([add.remote(i, 1) for i in range(300)]) == list(range(1, 301))


@shows("`f.remote()`")
def test_references_as_arguments_become_values() -> None:
    add = programs.adder()
    assert get(add.remote(add.remote(1, 2), b=add.remote(3, 4))) == 10


@shows("`f.remote()`")
def test_a_long_chain_of_tasks() -> None:
    add = programs.adder()
    ref = add.remote(0, 1)
    for _ in range(100):
        ref = add.remote(ref, 1)
    assert get(ref) == 101


@shows("parent yields its CPU")
def test_parents_that_wait_for_their_children() -> None:
    @actorlib.remote
    def node(depth: int) -> int:
        if depth == 0:
            return 1
        return sum(actorlib.get([node.remote(depth - 1), node.remote(depth - 1)]))

    assert get(node.remote(4)) == 16


@shows("parent yields its CPU")
def test_a_parent_that_has_all_cpus() -> None:
    add = programs.adder()

    @actorlib.remote(num_cpus=2)
    def parent() -> int:
        return actorlib.get(add.options(num_cpus=2).remote(1, 2))

    assert get([parent.remote() for _ in range(3)]) == [3] * 3


@shows("a cycle of actors raises `DeadlockError`")
def test_a_circle_of_waiting_actors() -> None:
    @actorlib.remote(num_cpus=0)
    class Link:
        def follow(self, nxt: Any, steps: int, first: Any) -> Any:
            if steps == 0:
                return actorlib.get(first.ping.remote())
            return actorlib.get(nxt.follow.remote(first, steps - 1, first))

        def ping(self) -> int:
            return 1

    one, other = Link.remote(), Link.remote()
    with pytest.raises(actorlib.exceptions.DeadlockError):
        get(one.follow.remote(other, 1, one))


@shows("`async def` tasks work too")
def test_an_async_function_is_a_task() -> None:
    @actorlib.remote
    async def slow(x: int) -> int:
        import asyncio

        await asyncio.sleep(0.01)
        return x

    assert get([slow.remote(i) for i in range(5)]) == list(range(5))


@shows("`f.remote()`")
def test_wrong_arguments_are_told_at_the_call() -> None:
    add = programs.adder()
    for wrong in (lambda: add.remote(), lambda: add.remote(1, 2, 3), lambda: add.remote(1, c=2)):
        with pytest.raises(TypeError):
            wrong()


@shows("`handle.method.remote()`")
def test_wrong_arguments_of_a_method_are_told_at_the_call() -> None:
    counter = programs.counter_class().remote()
    with pytest.raises(TypeError):
        counter.add.remote(1, 2, 3)
    with pytest.raises(TypeError):
        counter.add.remote(unknown=1)


@shows("`handle.method.remote()`")
def test_a_method_that_there_is_not() -> None:
    with pytest.raises(AttributeError):
        programs.counter_class().remote().subtract.remote()


@shows("`f.remote()`")
def test_direct_calls_are_refused() -> None:
    with pytest.raises(TypeError, match="remote"):
        programs.adder()(1, 2)
    with pytest.raises(TypeError, match="remote"):
        programs.counter_class()()
    with pytest.raises(TypeError, match="remote"):
        programs.counter_class().remote().add(1)


# -- errors ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [ValueError, KeyError, OSError, ZeroDivisionError, StopIteration, AssertionError])
@shows(ERRORS)
def test_an_error_is_of_its_class(kind: type[Exception]) -> None:
    with pytest.raises(kind):
        get(programs.failing().remote(kind("x")))


@shows(ERRORS)
def test_an_error_is_a_task_error() -> None:
    with pytest.raises(actorlib.exceptions.TaskError) as caught:
        get(programs.failing().remote())
    assert isinstance(caught.value, actorlib.exceptions.RayTaskError)
    assert isinstance(caught.value.cause, ValueError)


@shows(ERRORS)
def test_an_error_of_the_users_own_class_keeps_its_attributes() -> None:
    class Mine(Exception):
        def __init__(self, code: int) -> None:
            super().__init__(code)
            self.code = code

    @actorlib.remote
    def fail() -> None:
        raise Mine(42)

    with pytest.raises(Mine) as caught:
        get(fail.remote())
    assert caught.value.code == 42


@shows("with the remote traceback")
def test_an_error_shows_the_remote_traceback() -> None:
    @actorlib.remote
    def outer() -> None:
        inner_of_the_user()

    def inner_of_the_user() -> None:
        raise LookupError("deep down")

    with pytest.raises(LookupError) as caught:
        get(outer.remote())
    assert "inner_of_the_user" in str(caught.value)
    assert "deep down" in str(caught.value)


@shows(ERRORS)
def test_an_error_of_a_method() -> None:
    counter = programs.counter_class().remote()
    with pytest.raises(KeyError):
        get(counter.fail.remote())
    assert get(counter.add.remote()) == 1  # and the actor lives


@shows(ERRORS)
def test_an_error_travels_down_a_chain() -> None:
    add = programs.adder()
    ref = add.remote(programs.failing().remote(), 1)
    for _ in range(5):
        ref = add.remote(ref, 1)
    with pytest.raises(ValueError, match="as asked"):
        get(ref)


@shows(ERRORS)
def test_an_error_raised_by_get_inside_a_task() -> None:
    fail = programs.failing()

    @actorlib.remote
    def outer() -> None:
        actorlib.get(fail.remote())

    with pytest.raises(ValueError, match="as asked"):
        get(outer.remote())


@shows(ERRORS)
def test_an_error_can_be_caught_inside_a_task() -> None:
    fail = programs.failing()

    @actorlib.remote
    def outer() -> str:
        try:
            actorlib.get(fail.remote())
        except ValueError:
            return "caught"
        return "nothing to catch"

    assert get(outer.remote()) == "caught"


@shows(ERRORS)
def test_an_error_as_an_argument_of_an_actor() -> None:
    counter = programs.counter_class().remote()
    with pytest.raises(ValueError):
        get(counter.add.remote(programs.failing().remote()))
    assert get(counter.read.remote()) == 0


@shows(ERRORS)
def test_the_first_error_by_position_is_raised() -> None:
    fail = programs.failing()
    with pytest.raises(KeyError):
        get([actorlib.put(1), fail.remote(KeyError("first")), fail.remote(IndexError("second"))])


@shows(BETTER_ERRORS)
def test_an_error_that_cant_be_pickled_arrives() -> None:
    @actorlib.remote
    def fail() -> None:
        error = RuntimeError("holds a lock")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error

    with pytest.raises(actorlib.exceptions.TaskError, match="holds a lock"):
        get(fail.remote())


@shows(BETTER_ERRORS)
def test_an_error_whose_constructor_wants_more_arrives() -> None:
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    @actorlib.remote
    def fail() -> None:
        raise Odd(1, 2)

    with pytest.raises(actorlib.exceptions.TaskError, match="1 and 2"):
        get(fail.remote())


@shows("every other `Ray...` exception name kept as an alias")
def test_names_that_ray_gives() -> None:
    e = actorlib.exceptions
    assert e.RayTaskError is e.TaskError
    assert e.RayActorError is e.ActorError
    assert issubclass(e.ActorDiedError, e.RayActorError)


@shows(ERRORS)
def test_a_recursion_too_deep() -> None:
    @actorlib.remote
    def deep() -> int:
        def go(k: int) -> int:
            return 1 + go(k + 1)

        return go(0)

    with pytest.raises(RecursionError):
        get(deep.remote())


@shows(ERRORS)
def test_what_cant_be_pickled_is_named_at_the_call() -> None:
    with pytest.raises(TypeError):
        programs.adder().remote({"deep": [threading.Lock()]})


@shows(ERRORS)
def test_a_function_that_cant_be_pickled() -> None:
    lock = threading.Lock()

    @actorlib.remote
    def captures() -> Any:
        return lock

    with pytest.raises(TypeError):
        captures.remote()


@shows(ERRORS)
def test_a_result_that_cant_be_pickled() -> None:
    @actorlib.remote
    def gives() -> Any:
        return threading.Lock()

    with pytest.raises(actorlib.exceptions.RayError):
        get(gives.remote())


@shows(ERRORS)
def test_errors_can_be_pickled() -> None:
    with pytest.raises(ValueError) as caught:
        get(programs.failing().remote())
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, ValueError) and isinstance(again, actorlib.exceptions.TaskError)


# -- death -------------------------------------------------------------------------------------------------------------
@shows("`WorkerCrashedError`, `ActorDiedError`, `ActorUnavailableError`")
def test_a_worker_that_exits() -> None:
    @actorlib.remote(max_retries=0)
    def leave() -> None:
        sys.exit(3)

    with pytest.raises(actorlib.exceptions.WorkerCrashedError):
        get(leave.remote())


@shows("system failures only unless asked; True or a list of classes; -1 infinite")
def test_a_task_is_retried_when_its_worker_is_lost(tmp_path: Any) -> None:
    mark = tmp_path / "runs"

    @actorlib.remote(max_retries=2)
    def flaky() -> str:
        with open(mark, "a") as target:
            target.write("x")
        if mark.stat().st_size < 3:
            sys.exit(1)
        return "done"

    assert get(flaky.remote()) == "done"


@shows("`WorkerCrashedError`, `ActorDiedError`, `ActorUnavailableError`")
def test_a_killed_actor_is_dead() -> None:
    counter = programs.counter_class().remote()
    get(counter.read.remote())
    actorlib.kill(counter)
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        get(counter.read.remote())


@shows("say why: exit status or signal, OOM or not, last lines of stderr, node, pid")
def test_a_dead_actor_says_why() -> None:
    counter = programs.counter_class().remote()
    get(counter.read.remote())
    actorlib.kill(counter)
    with pytest.raises(actorlib.exceptions.ActorDiedError, match="kill"):
        get(counter.read.remote())


@shows("`WorkerCrashedError`, `ActorDiedError`, `ActorUnavailableError`")
def test_a_constructor_that_raises() -> None:
    @actorlib.remote(num_cpus=0)
    class Broken:
        def __init__(self) -> None:
            raise RuntimeError("no luck")

        def ping(self) -> int:
            return 1

    with pytest.raises(actorlib.exceptions.ActorDiedError, match="no luck"):
        get(Broken.remote().ping.remote())


@shows("`WorkerCrashedError`, `ActorDiedError`, `ActorUnavailableError`")
def test_an_actor_error_is_caught_by_rays_name() -> None:
    counter = programs.counter_class().remote()
    actorlib.kill(counter)
    with pytest.raises(actorlib.exceptions.RayActorError):
        get(counter.read.remote())


@shows("`WorkerCrashedError`, `ActorDiedError`, `ActorUnavailableError`")
def test_an_actor_that_exits_with_sys_exit() -> None:
    @actorlib.remote(num_cpus=0)
    class Quits:
        def quit(self) -> None:
            sys.exit(0)

        def ping(self) -> int:
            return 1

    quits = Quits.remote()
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        get(quits.quit.remote())
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        get(quits.ping.remote())


# -- kill, exit, end ---------------------------------------------------------------------------------------------------
@shows("| kill | at once, no atexit, `no_restart=True` |")
def test_kill_ends_an_actor_for_good_even_if_it_may_restart() -> None:
    counter = programs.counter_class().options(max_restarts=-1, max_task_retries=-1).remote()
    get(counter.read.remote())
    actorlib.kill(counter)
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        get(counter.read.remote())


@shows("| kill | at once, no atexit, `no_restart=True` |")
def test_kill_runs_no_hook(tmp_path: Any) -> None:
    mark = tmp_path / "hook"
    hooked = with_hook(mark).remote()
    get(hooked.ping.remote())
    actorlib.kill(hooked)
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        get(hooked.ping.remote())
    assert not mark.exists()


@shows("| kill | at once, no atexit, `no_restart=True` |")
def test_kill_takes_a_handle() -> None:
    with pytest.raises((TypeError, ValueError)):
        actorlib.kill(actorlib.put(1))


@shows("| kill | at once, no atexit, `no_restart=True` |")
def test_kill_of_a_busy_actor() -> None:
    gate = programs.async_class().remote()
    held = gate.wait.remote()
    get(gate.waiting.remote())
    actorlib.kill(gate)
    with pytest.raises(actorlib.exceptions.ActorError):
        get(held)


def with_hook(mark: Any) -> Any:
    @actorlib.remote(num_cpus=0)
    class Hooked:
        def ping(self) -> int:
            return 1

        def leave(self) -> None:
            actorlib.actor.exit_actor()

        def __ray_shutdown__(self) -> None:
            mark.write_text("ran")

    return Hooked


def eventually(condition: Any) -> bool:
    import time

    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@shows("`exit_actor()`; `__ray_shutdown__`/`__shutdown__` hook")
def test_exit_actor() -> None:
    counter = programs.counter_class().remote()
    get(counter.read.remote())
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        get(counter.leave.remote())
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        get(counter.read.remote())


@shows("`exit_actor()`; `__ray_shutdown__`/`__shutdown__` hook")
def test_exit_actor_runs_the_hook(tmp_path: Any) -> None:
    mark = tmp_path / "hook"
    hooked = with_hook(mark).remote()
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        get(hooked.leave.remote())
    assert eventually(mark.exists)


@shows("`exit_actor()`; `__ray_shutdown__`/`__shutdown__` hook")
def test_our_own_name_of_the_hook(tmp_path: Any) -> None:
    mark = tmp_path / "hook"

    @actorlib.remote(num_cpus=0)
    class Hooked:
        def ping(self) -> int:
            return 1

        def __shutdown__(self) -> None:
            mark.write_text("ran")

    hooked = Hooked.remote()
    get(hooked.ping.remote())
    del hooked
    assert eventually(mark.exists)


@shows("`exit_actor()`")
def test_exit_actor_outside_of_an_actor() -> None:
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        actorlib.actor.exit_actor()


@shows("last handle gone and queue drained")
def test_an_actor_ends_with_its_last_handle(tmp_path: Any) -> None:
    mark = tmp_path / "hook"
    hooked = with_hook(mark).remote()
    get(hooked.ping.remote())
    del hooked
    assert eventually(mark.exists)


@shows("last handle gone and queue drained")
def test_the_queue_is_drained_first() -> None:
    counter = programs.counter_class().remote()
    refs = [counter.add.remote() for _ in range(10)]
    del counter
    assert get(refs) == list(range(1, 11))


@shows("last handle gone and queue drained")
def test_a_handle_inside_a_value_keeps_the_actor() -> None:
    box = actorlib.put([programs.counter_class().remote(4)])
    assert get(get(box)[0].read.remote()) == 4


# -- waiting and cancelling --------------------------------------------------------------------------------------------
@shows("| get | order of the list kept;")
def test_get_keeps_the_order() -> None:
    add = programs.adder()
    refs = [add.remote(i) for i in range(20)]
    assert get(list(reversed(refs))) == list(reversed(range(20)))


@shows("| get | order of the list kept;")
def test_get_of_one() -> None:
    assert get(actorlib.put("one")) == "one"


@shows("| get | order of the list kept;")
def test_get_of_none() -> None:
    assert get([]) == []


@shows("| get | order of the list kept;")
def test_get_of_the_same_twice() -> None:
    ref = actorlib.put(1)
    assert get([ref, ref]) == [1, 1]


@shows("`GetTimeoutError` (also a `TimeoutError`)")
def test_get_times_out() -> None:
    ref = programs.async_class().remote().sleep.remote(30)
    with pytest.raises(actorlib.exceptions.GetTimeoutError) as caught:
        actorlib.get(ref, timeout=0.2)
    assert isinstance(caught.value, TimeoutError)


@shows("`timeout=0` polls")
def test_get_polls() -> None:
    ref = programs.async_class().remote().sleep.remote(30)
    with pytest.raises(actorlib.exceptions.GetTimeoutError):
        actorlib.get(ref, timeout=0)
    there = actorlib.put(1)
    assert actorlib.get(there, timeout=0) == 1


@shows("the timeout error says what each pending ref waits for")
def test_a_timeout_says_what_is_awaited() -> None:
    ref = programs.async_class().remote().sleep.remote(30)
    with pytest.raises(actorlib.exceptions.GetTimeoutError, match="sleep"):
        actorlib.get(ref, timeout=0.2)


@pytest.mark.parametrize("wrong", [3, "ref", None, [1]], ids=repr)
@shows("| get | order of the list kept;")
def test_get_takes_references(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        actorlib.get(wrong)


@shows("| get | order of the list kept;")
def test_a_negative_timeout() -> None:
    with pytest.raises(ValueError):
        actorlib.get(actorlib.put(1), timeout=-1)


WAIT = "`(ready, not_ready)`, at most `num_returns` ready, submission order kept, no duplicates accepted, `fetch_local`"


@shows(WAIT)
def test_wait_gives_at_most_what_is_asked() -> None:
    refs = [actorlib.put(i) for i in range(6)]
    ready, rest = actorlib.wait(refs, num_returns=2, timeout=60)
    assert len(ready) == 2 and len(rest) == 4


@shows(WAIT)
def test_wait_keeps_the_order() -> None:
    add = programs.adder()
    refs = [add.remote(i) for i in range(8)]
    ready, rest = actorlib.wait(refs, num_returns=5, timeout=60)
    assert ready == [ref for ref in refs if ref in ready]
    assert rest == [ref for ref in refs if ref in rest]


@shows(WAIT)
def test_wait_for_all() -> None:
    add = programs.adder()
    refs = [add.remote(i) for i in range(8)]
    assert actorlib.wait(refs, num_returns=8, timeout=60) == (refs, [])


@shows(WAIT)
def test_wait_times_out() -> None:
    gate = programs.async_class().remote()
    slow, there = gate.sleep.remote(30), actorlib.put(1)
    assert actorlib.wait([slow, there], num_returns=2, timeout=0.2) == ([there], [slow])


@shows(WAIT)
def test_wait_polls() -> None:
    slow = programs.async_class().remote().sleep.remote(30)
    assert actorlib.wait([slow], timeout=0) == ([], [slow])


@shows(WAIT)
def test_an_error_is_ready() -> None:
    ref = programs.failing().remote()
    assert actorlib.wait([ref], timeout=60) == ([ref], [])


@shows(WAIT)
def test_wait_refuses_duplicates() -> None:
    ref = actorlib.put(1)
    with pytest.raises(ValueError):
        actorlib.wait([ref, ref])


@pytest.mark.parametrize("count", [0, 3, -1])
@shows(WAIT)
def test_wait_refuses_a_wrong_number(count: int) -> None:
    with pytest.raises(ValueError):
        actorlib.wait([actorlib.put(1), actorlib.put(2)], num_returns=count)


@shows(WAIT)
def test_wait_takes_a_list() -> None:
    with pytest.raises(TypeError):
        actorlib.wait(actorlib.put(1))


@shows(WAIT)
def test_wait_without_fetching() -> None:
    ref = programs.adder().remote(1)
    assert actorlib.wait([ref], timeout=60, fetch_local=False) == ([ref], [])


@shows(WAIT)
def test_wait_for_nothing() -> None:
    ready, rest = actorlib.wait([actorlib.put(1)], num_returns=1)
    assert len(ready) == 1 and rest == []


CANCEL = "queued: never runs; running: KeyboardInterrupt in the task, asyncio cancellation in async actors;"


@shows(CANCEL)
def test_cancel_in_an_async_actor() -> None:
    gate = programs.async_class().remote()
    ref = gate.sleep.remote(60)
    get(gate.plain.remote(1))
    actorlib.cancel(ref)
    with pytest.raises(actorlib.exceptions.TaskCancelledError):
        get(ref)
    assert get(gate.plain.remote(2)) == 2


@shows(CANCEL)
def test_asyncio_cancellation_is_seen_inside() -> None:
    @actorlib.remote(num_cpus=0)
    class Watching:
        def __init__(self) -> None:
            self.seen = ""

        async def sleep(self) -> None:
            import asyncio

            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.seen = "cancelled"
                raise

        async def read(self) -> str:
            return self.seen

    watching = Watching.remote()
    ref = watching.sleep.remote()
    get(watching.read.remote())
    actorlib.cancel(ref)
    with pytest.raises(actorlib.exceptions.TaskCancelledError):
        get(ref)
    assert eventually(lambda: get(watching.read.remote()) == "cancelled")


@shows(CANCEL)
def test_a_queued_task_that_is_cancelled_never_runs(tmp_path: Any) -> None:
    mark = tmp_path / "ran"
    gate = programs.async_class().remote()

    @actorlib.remote
    def touch(_: Any) -> None:
        mark.touch()

    held = gate.wait.remote()
    queued = touch.remote(held)
    actorlib.cancel(queued)
    with pytest.raises(actorlib.exceptions.TaskCancelledError):
        get(queued)
    gate.open.remote()
    get(held)
    assert not mark.exists()


@shows(CANCEL)
def test_a_running_task_is_interrupted(tmp_path: Any) -> None:
    began, seen = tmp_path / "began", tmp_path / "seen"

    @actorlib.remote
    def work() -> None:
        import time

        began.touch()
        try:
            for _ in range(100):
                time.sleep(0.05)
        except KeyboardInterrupt:
            seen.touch()
            raise

    ref = work.remote()
    assert eventually(began.exists)
    actorlib.cancel(ref)
    with pytest.raises(actorlib.exceptions.TaskCancelledError):
        get(ref)
    assert eventually(seen.exists)


@shows(CANCEL)
def test_a_running_async_task_is_interrupted(tmp_path: Any, engine: str) -> None:
    began, ended = tmp_path / "began", tmp_path / "ended"
    long_s = 0.1 if engine == "inline" else 60  # there it can't be interrupted

    @actorlib.remote
    async def work() -> None:
        import asyncio

        began.touch()
        try:
            await asyncio.sleep(long_s)
        except BaseException:
            ended.write_text("early")
            raise

    ref = work.remote()
    assert eventually(began.exists)
    actorlib.cancel(ref)
    with pytest.raises(actorlib.exceptions.TaskCancelledError):
        get(ref)
    assert eventually(ended.exists)


@shows("`force` kills; `recursive` reaches children; never retried; `TaskCancelledError`")
def test_force_kills(tmp_path: Any) -> None:
    began = tmp_path / "began"

    @actorlib.remote
    def stubborn() -> None:
        import time

        began.touch()
        for _ in range(100):
            try:
                time.sleep(0.05)
            except KeyboardInterrupt:
                continue

    ref = stubborn.remote()
    assert eventually(began.exists)
    actorlib.cancel(ref, force=True)
    with pytest.raises((actorlib.exceptions.TaskCancelledError, actorlib.exceptions.WorkerCrashedError)):
        get(ref)


@shows("`recursive` reaches children")
def test_a_cancel_reaches_the_children(tmp_path: Any) -> None:
    began, seen = tmp_path / "began", tmp_path / "seen"

    @actorlib.remote
    def child() -> None:
        import time

        began.touch()
        try:
            for _ in range(100):
                time.sleep(0.05)
        except KeyboardInterrupt:
            seen.touch()
            raise

    @actorlib.remote
    def parent() -> None:
        actorlib.get(child.remote())

    ref = parent.remote()
    assert eventually(began.exists)
    actorlib.cancel(ref, recursive=True)
    with pytest.raises(actorlib.exceptions.TaskCancelledError):
        get(ref)
    assert eventually(seen.exists)


@shows("never retried; `TaskCancelledError`")
def test_force_is_not_for_actors() -> None:
    gate = programs.async_class().remote()
    ref = gate.sleep.remote(30)
    with pytest.raises(ValueError):
        actorlib.cancel(ref, force=True)


@shows("never retried; `TaskCancelledError`")
def test_cancelling_what_is_done_changes_nothing() -> None:
    ref = programs.adder().remote(1)
    assert get(ref) == 1
    actorlib.cancel(ref)
    assert get(ref) == 1


@shows("never retried; `TaskCancelledError`")
def test_cancel_takes_a_reference() -> None:
    with pytest.raises(TypeError):
        actorlib.cancel(3)
