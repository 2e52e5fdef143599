"""Wrong use gets a typed error that says what to do."""

from __future__ import annotations

import threading
import time

import pytest

import actorlib

pytestmark = pytest.mark.usefixtures("shared_local")


@actorlib.remote
def two(a, b):
    return a, b


@actorlib.remote
class Thing:
    def __init__(self, x=0):
        self.x = x

    def method(self, a):
        return a


def test_unknown_and_wrong_options():
    with pytest.raises(ValueError, match="Did you mean 'num_cpus'"):
        two.options(num_cpu=1)
    with pytest.raises(TypeError, match="must be a number"):
        two.options(num_cpus="two"[:0] or [])
    with pytest.raises(ValueError, match="at least 0"):
        two.options(num_cpus=-1)
    with pytest.raises(ValueError, match="at least 0"):
        two.options(resources={"x": -1})
    with pytest.raises(ValueError, match="num_cpus"):
        two.options(resources={"CPU": 1})
    with pytest.raises(ValueError, match="finer"):
        two.options(resources={"x": 0.00001})
    with pytest.raises(ValueError, match="lifetime"):
        Thing.options(lifetime="forever")
    with pytest.raises(ValueError, match="Valid options"):
        Thing.options(max_retries=1)
    with pytest.raises(ValueError, match="needs a name"):
        Thing.options(get_if_exists=True)


def test_wrong_arity_is_told_at_the_call():
    with pytest.raises(TypeError, match="missing 1 required"):
        two.remote(1)
    with pytest.raises(TypeError, match="takes 2 positional"):
        two.remote(1, 2, 3)
    with pytest.raises(TypeError, match="unexpected keyword"):
        two.remote(1, c=2)
    with pytest.raises(TypeError):
        Thing.remote(1, 2, 3)
    with pytest.raises(TypeError, match="missing"):
        Thing.remote().method.remote()


def test_direct_calls_are_refused():
    with pytest.raises(TypeError, match=r"\.remote\("):
        two(1, 2)
    with pytest.raises(TypeError, match=r"\.remote\("):
        Thing()
    with pytest.raises(TypeError, match=r"\.remote\("):
        Thing.remote().method(1)


def test_a_method_that_does_not_exist():
    with pytest.raises(AttributeError, match="did you mean method"):
        Thing.remote().methud.remote()


def test_get_put_and_wait():
    ref = actorlib.put(1)
    with pytest.raises(TypeError, match="int"):
        actorlib.get(3)
    with pytest.raises(TypeError, match="item 1"):
        actorlib.get([ref, 3])
    with pytest.raises(TypeError, match="ObjectRef"):
        actorlib.put(ref)
    with pytest.raises(ValueError, match="duplicates"):
        actorlib.wait([ref, ref])
    for count in (0, 2, -1):
        with pytest.raises(ValueError, match="num_returns"):
            actorlib.wait([ref], num_returns=count)
    with pytest.raises(TypeError, match="list"):
        actorlib.wait(ref)
    with pytest.raises(ValueError, match="timeout"):
        actorlib.get(ref, timeout=-1)
    with pytest.raises(TypeError, match="can't be iterated"):
        list(ref)


def test_what_cant_be_pickled_is_named_with_its_path():
    with pytest.raises(TypeError, match=r"\['deep'\]\[1\]"):
        two.remote({"deep": [1, threading.Lock()]}, 2)
    with pytest.raises(actorlib.exceptions.SerializationError, match="lock"):
        actorlib.put(threading.Lock())

    lock = threading.Lock()

    @actorlib.remote
    def captures():
        return lock

    with pytest.raises(actorlib.exceptions.SerializationError, match="closure lock"):
        captures.remote()

    @actorlib.remote
    def returns():
        return threading.Lock()

    with pytest.raises(actorlib.exceptions.TaskError, match="can't be pickled") as caught:
        actorlib.get(returns.remote(), timeout=10)
    assert isinstance(caught.value, actorlib.exceptions.SerializationError)

    @actorlib.remote
    class Holder:
        def deep(self):
            return {"a": [1, {"b": threading.Lock()}]}

    with pytest.raises(actorlib.exceptions.SerializationError, match=r"\['a'\]\[1\]\['b'\]"):
        actorlib.get(Holder.remote().deep.remote(), timeout=10)


def test_an_exception_whose_constructor_wants_more_than_its_message():
    class Wants(Exception):
        def __init__(self, first, second):
            super().__init__("only one")

    @actorlib.remote
    def fail():
        raise Wants(1, 2)

    with pytest.raises(actorlib.exceptions.TaskError, match="Wants: only one") as caught:
        actorlib.get(fail.remote(), timeout=10)
    assert caught.value.cause is None


def test_values_nested_too_deep_for_pickle():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(actorlib.exceptions.SerializationError, match="recursion"):
        two.remote(deep, 1)

    @actorlib.remote
    def make():
        value = []
        for _ in range(100_000):
            value = [value]
        return value

    with pytest.raises(actorlib.exceptions.SerializationError, match="recursion"):
        actorlib.get(make.remote(), timeout=10)
    while deep:  # taken apart by hand: to drop it at once would recurse as deep
        deep = deep.pop()


def test_a_module_that_the_worker_lacks(tmp_path, monkeypatch):
    (tmp_path / "only_here_module.py").write_text("def f():\n    return 1\n\n\nclass Thing:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here_module

    remote = actorlib.remote(only_here_module.f)
    with pytest.raises(actorlib.exceptions.RuntimeEnvSetupError, match=r"only_here_module.*py_modules"):
        actorlib.get(remote.remote(), timeout=10)

    @actorlib.remote
    def imports():
        import only_here_module as late

        return late.f()

    with pytest.raises(ModuleNotFoundError, match="only_here_module"):
        actorlib.get(imports.remote(), timeout=10)
    shipped = imports.options(runtime_env={"py_modules": [str(tmp_path)]})
    assert actorlib.get(shipped.remote(), timeout=20) == 1
    with pytest.raises(actorlib.exceptions.RuntimeEnvSetupError, match=r"arguments of this call.*only_here"):
        actorlib.get(two.remote(only_here_module.Thing(), 1), timeout=10)


def test_kill_and_cancel_of_something_else():
    with pytest.raises(TypeError, match="handle"):
        actorlib.kill(actorlib.put(1))
    with pytest.raises(TypeError, match="ObjectRef"):
        actorlib.cancel(3)
    thing = Thing.remote()
    with pytest.raises(ValueError, match="kill"):
        actorlib.cancel(thing.method.remote(1), force=True)


def test_a_second_init():
    with pytest.raises(RuntimeError, match="runs already"):
        actorlib.init()
    actorlib.init(ignore_reinit_error=True)


def test_init_arguments():
    with pytest.raises(TypeError, match="no argument 'num_cpu'"):
        actorlib.init(num_cpu=1)
    with pytest.raises(ValueError, match="unknown engine"):
        actorlib.init(engine="warp")


def test_infeasible_demands_are_told_soon():
    with pytest.raises(actorlib.exceptions.TaskUnschedulableError, match="50 CPU"):
        actorlib.get(two.options(num_cpus=50).remote(1, 2), timeout=10)
    with pytest.raises(actorlib.exceptions.TaskUnschedulableError, match="GPU"):
        actorlib.get(two.options(num_gpus=1).remote(1, 2), timeout=10)


def test_names_that_are_not_there():
    with pytest.raises(ValueError, match="no actor named 'nobody'"):
        actorlib.get_actor("nobody")
    with pytest.raises(ValueError):
        actorlib.get_actor("")


def test_remote_of_something_odd():
    with pytest.raises(TypeError, match="functions and classes"):
        actorlib.remote(3)
    with pytest.raises(TypeError, match="remote already"):
        actorlib.remote(two)
    with pytest.raises(ValueError, match="one call at a time"):
        actorlib.remote(checkpoint=1, max_concurrency=2)(type("C", (), {}))


def test_ten_thousand_pending_calls():
    @actorlib.remote
    class Slow:
        def wait(self):
            time.sleep(0.5)

        def same(self, value):
            return value

    slow = Slow.remote()
    slow.wait.remote()
    refs = [slow.same.remote(i) for i in range(10_000)]
    ready, pending = actorlib.wait(refs, num_returns=len(refs), timeout=0)
    assert len(ready) + len(pending) == 10_000
    with pytest.raises(actorlib.exceptions.GetTimeoutError, match=r"same runs or is queued at the actor \(\d+ calls"):
        actorlib.get(refs[-1], timeout=0.05)
    assert actorlib.get(refs, timeout=30) == list(range(10_000))
    limited = Slow.options(max_pending_calls=100).remote()
    limited.wait.remote()
    with pytest.raises(actorlib.exceptions.PendingCallsLimitExceeded, match="wait for some of them"):
        for i in range(10_000):
            limited.same.remote(i)


def test_the_handle_of_an_actor_that_is_dead():
    thing = Thing.remote()
    actorlib.kill(thing)
    for _ in range(2):
        with pytest.raises(actorlib.exceptions.ActorDiedError, match=r"Thing \(.*is dead.*killed with kill"):
            actorlib.get(thing.method.remote(1), timeout=10)
    actorlib.kill(thing)  # twice is once
    handles = [thing]
    with pytest.raises(actorlib.exceptions.ActorDiedError, match="is dead"):
        actorlib.get(ask.remote(handles), timeout=10)


@actorlib.remote
def ask(handles):
    return actorlib.get(handles[0].method.remote(1))


def test_numbers_of_returns_that_the_function_does_not_keep():
    with pytest.raises(ValueError, match="num_returns"):
        two.options(num_returns=-1)
    with pytest.raises(ValueError, match="num_returns=3, but the function returned 2"):
        actorlib.get(two.options(num_returns=3).remote(1, 2)[0], timeout=10)

    @actorlib.remote(num_returns=2)
    def one():
        return 5

    with pytest.raises(ValueError, match="return a tuple of 2"):
        actorlib.get(one.remote()[1], timeout=10)


def test_a_module_that_takes_for_ever_to_import_is_told(tmp_path):
    (tmp_path / "slow_module_of_this_test.py").write_text("import time; time.sleep(3600)")
    environment = {"py_modules": [str(tmp_path)], "preload": ["slow_module_of_this_test"]}
    ref = two.options(runtime_env=environment).remote(1, 2)
    with pytest.raises(actorlib.exceptions.GetTimeoutError, match="its worker is being started"):
        actorlib.get(ref, timeout=6)
