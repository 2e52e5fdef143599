"""The names of the contract are there, and are what they say."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from typing import Any

import programs
import pytest
from contract import get, shows

import actorlib

CORE = [
    "init",
    "shutdown",
    "is_initialized",
    "remote",
    "get",
    "put",
    "wait",
    "cancel",
    "kill",
    "get_actor",
    "method",
    "nodes",
    "cluster_resources",
    "available_resources",
    "get_gpu_ids",
    "get_runtime_context",
    "timeline",
    "ObjectRef",
    "ObjectRefGenerator",
    "ActorID",
    "TaskID",
    "ObjectID",
    "NodeID",
    "JobID",
    "__version__",
]
UTIL = [
    "ActorPool",
    "list_named_actors",
    "placement_group",
    "remove_placement_group",
    "get_placement_group",
    "placement_group_table",
    "get_current_placement_group",
    "register_serializer",
    "deregister_serializer",
    "inspect_serializability",
]
MODULES = ["queue", "multiprocessing", "joblib", "scheduling_strategies", "metrics", "state", "futures"]
ERRORS = [
    "WorkerCrashedError",
    "ActorDiedError",
    "ActorUnavailableError",
    "NodeDiedError",
    "ObjectLostError",
    "OwnerDiedError",
    "GetTimeoutError",
    "TaskCancelledError",
    "TaskError",
    "RayTaskError",
    "RayError",
    "RayActorError",
    "PendingCallsLimitExceeded",
    "DeadlockError",
    "StateRolledBackError",
    "NotSupportedByEngineError",
    "DeadlineExceededError",
    "OutOfMemoryError",
    "ObjectStoreFullError",
    "RuntimeEnvSetupError",
    "TaskUnschedulableError",
    "ActorUnschedulableError",
    "ObjectFreedError",
    "TaskPlacementGroupRemoved",
    "ActorPlacementGroupRemoved",
]


@pytest.mark.parametrize("name", CORE)
@shows("Core: `init, shutdown, is_initialized, remote, get, put, wait, cancel, kill, get_actor, method, nodes")
def test_a_core_name(name: str) -> None:
    assert getattr(actorlib, name) is not None
    assert name in actorlib.__all__


@pytest.mark.parametrize("path", ["actor.ActorHandle", "actor.ActorClass", "actor.exit_actor", "actor.method"])
@shows("actor.ActorHandle, actor.ActorClass, actor.exit_actor")
def test_a_name_of_the_actor_module(path: str) -> None:
    module, name = path.split(".")
    assert callable(getattr(getattr(actorlib, module), name))


@shows("remote_function.RemoteFunction")
def test_remote_functions_are_of_their_class() -> None:
    assert isinstance(programs.adder(), actorlib.remote_function.RemoteFunction)
    assert isinstance(programs.counter_class(), actorlib.actor.ActorClass)


@pytest.mark.parametrize("name", ERRORS)
@shows("exceptions.*")
def test_an_exception(name: str) -> None:
    assert issubclass(getattr(actorlib.exceptions, name), actorlib.exceptions.RayError)


@pytest.mark.parametrize("name", UTIL)
@shows("`util`: `ActorPool`, `queue.Queue` (`Empty`, `Full`)")
def test_a_name_of_util(name: str) -> None:
    assert callable(getattr(actorlib.util, name))


@pytest.mark.parametrize("name", MODULES)
@shows("`scheduling_strategies.*`")
def test_a_module_of_util(name: str) -> None:
    assert inspect.ismodule(getattr(actorlib.util, name))


@shows("returns a context that works in `with`, has `address_info` and `disconnect()`")
def test_a_second_init_gives_the_context_if_asked(engine: str) -> None:
    name = engine if engine in ("inline", "ray") else "local"
    context = actorlib.init(engine=name, ignore_reinit_error=True)
    assert context.address_info["node_id"] == actorlib.get_runtime_context().get_node_id()
    assert context["address"]


@shows("`init, shutdown, is_initialized")
def test_it_is_initialized() -> None:
    assert actorlib.is_initialized()


@shows("`f.remote()`, `f.options(...).remote()`, `f.bind()`")
def test_the_three_ways_to_call_a_function() -> None:
    add = programs.adder()
    assert get(add.remote(1, 2)) == 3
    assert get(add.options(num_cpus=0.5).remote(1, 2)) == 3
    assert get(add.bind(1, 2).execute()) == 3


@shows("`Actor.remote()`, `Actor.options(...)`, `Actor.bind()`")
def test_the_three_ways_to_make_an_actor() -> None:
    counter = programs.counter_class()
    assert get(counter.remote(1).read.remote()) == 1
    assert get(counter.options(num_cpus=0).remote(2).read.remote()) == 2
    assert get(counter.bind(3).execute().read.remote()) == 3


@shows("`handle.method.remote()`, `handle.method.options(...)`")
def test_the_two_ways_to_call_a_method() -> None:
    counter = programs.counter_class().remote()
    assert get(counter.add.remote(1)) == 1
    assert get(counter.add.options(name="again").remote(1)) == 2


@shows("`f.bind()`")
def test_a_graph_of_functions() -> None:
    from actorlib.dag import InputNode, MultiOutputNode

    add = programs.adder()
    with InputNode() as x:
        graph = MultiOutputNode([add.bind(add.bind(x, 1), 2), add.bind(x, 10)])
    assert get(graph.execute(5)) == [8, 15]


@shows("`Actor.bind()`")
def test_a_graph_with_an_actor() -> None:
    from actorlib.dag import InputNode

    with InputNode() as x:
        counter = programs.counter_class().bind(10)
        graph = counter.add.bind(x)
    assert get(graph.execute(5)) == 15
    assert get(graph.execute(5)) == 20


@shows("`f.bind()`")
def test_a_node_used_twice_runs_once(tmp_path: Any) -> None:
    mark = str(tmp_path / "runs")

    @actorlib.remote
    def once(x: int) -> int:
        with open(mark, "a") as target:
            target.write("x")
        return x

    add = programs.adder()
    shared = once.bind(2)
    assert get(add.bind(shared, shared).execute()) == 4
    assert (tmp_path / "runs").read_text() == "x"


@shows("ObjectRef is hashable, awaitable, has `hex()`, `future()`, `task_id()`")
def test_references_are_hashable() -> None:
    one, other = actorlib.put(1), actorlib.put(1)
    assert len({one, other, one}) == 2
    assert one == one and one != other


@shows("ObjectRef is hashable, awaitable, has `hex()`, `future()`, `task_id()`")
def test_references_are_awaitable() -> None:
    add = programs.adder()

    async def both() -> Any:
        return await asyncio.gather(add.remote(1, 1), add.remote(2, 2))

    assert asyncio.run(both()) == [2, 4]


@shows("ObjectRef is hashable, awaitable, has `hex()`, `future()`, `task_id()`")
def test_awaiting_raises_what_the_task_raised() -> None:
    async def wait() -> None:
        await programs.failing().remote()

    with pytest.raises(ValueError, match="as asked"):
        asyncio.run(wait())


@shows("has `hex()`")
def test_hex_is_the_id() -> None:
    ref = actorlib.put(1)
    assert bytes.fromhex(ref.hex()) == ref.binary()


@shows("`future()`")
def test_futures() -> None:
    future = programs.adder().remote(3, 4).future()
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(timeout=60) == 7


@shows("`future()`")
def test_futures_raise_what_the_task_raised() -> None:
    assert isinstance(programs.failing().remote().future().exception(timeout=60), ValueError)


@shows("`task_id()`")
def test_a_reference_knows_its_task() -> None:
    @actorlib.remote
    def mine() -> str | None:
        return actorlib.get_runtime_context().get_task_id()

    ref = mine.remote()
    assert get(ref) == ref.task_id().hex()


@shows("Handles and refs can be passed, nested in containers, captured in closures, and returned.")
def test_a_reference_nested_in_a_container_stays_a_reference() -> None:
    @actorlib.remote
    def use(box: Any) -> Any:
        assert isinstance(box["refs"][0], actorlib.ObjectRef)
        return actorlib.get(box["refs"][0])

    assert get(use.remote({"refs": [actorlib.put(5)]})) == 5


@shows("captured in closures")
def test_a_reference_captured_in_a_closure() -> None:
    ref = actorlib.put(6)

    @actorlib.remote
    def use() -> Any:
        return actorlib.get(ref)

    assert get(use.remote()) == 6


@shows("and returned.")
def test_a_reference_returned_by_a_task() -> None:
    @actorlib.remote
    def make() -> Any:
        return [actorlib.put(7)]

    assert get(get(make.remote())[0]) == 7


@shows("and returned.")
def test_a_reference_to_a_reference() -> None:
    outer = actorlib.put([actorlib.put([actorlib.put(8)])])
    assert get(get(get(outer)[0])[0]) == 8


@shows("Handles and refs can be passed")
def test_a_handle_passed_to_a_task() -> None:
    @actorlib.remote
    def use(handle: Any) -> Any:
        return actorlib.get(handle.add.remote(5))

    counter = programs.counter_class().remote()
    assert get(use.remote(counter)) == 5
    assert get(counter.read.remote()) == 5


@shows("captured in closures")
def test_a_handle_captured_in_a_closure() -> None:
    counter = programs.counter_class().remote()

    @actorlib.remote
    def use() -> Any:
        return actorlib.get(counter.add.remote(2))

    assert get(use.remote()) == 2


@shows("and returned.")
def test_a_handle_returned_by_a_task() -> None:
    counter = programs.counter_class()

    @actorlib.remote
    def make() -> Any:
        return counter.options(lifetime="detached", name="made-by-a-task").remote(4)

    made = get(make.remote())
    assert get(made.read.remote()) == 4
    actorlib.kill(made)


@shows("Handles and refs can be passed")
def test_a_handle_given_to_another_actor() -> None:
    counter = programs.counter_class().remote()

    @actorlib.remote(num_cpus=0)
    class Keeper:
        def __init__(self, handle: Any) -> None:
            self.handle = handle

        def use(self) -> Any:
            return actorlib.get(self.handle.add.remote(3))

    assert get(Keeper.remote(counter).use.remote()) == 3


@shows("`f.map(...)`")
def test_map_is_ordered() -> None:
    assert list(programs.adder().map(range(500))) == list(range(500))


@shows("`f.map(...)`")
def test_map_raises_where_the_error_stands() -> None:
    @actorlib.remote
    def picky(x: int) -> int:
        if x == 7:
            raise ValueError("seven")
        return x

    results = picky.map(range(20), chunksize=4)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(results)


@shows("`f.map(...)`")
def test_map_over_a_method() -> None:
    counter = programs.counter_class().remote()
    assert list(counter.add.map([1] * 40)) == list(range(1, 41))


@shows("`map`-style progress")
def test_map_with_progress(capfd: Any) -> None:
    pytest.importorskip("tqdm")
    assert list(programs.adder().map(range(10), progress=True)) == list(range(10))
    assert "10/10" in capfd.readouterr().err


@shows("`as_completed(refs, timeout=)`")
def test_as_completed_gives_each_once() -> None:
    add = programs.adder()
    refs = [add.remote(i) for i in range(12)]
    assert sorted(get(ref) for ref in actorlib.as_completed(refs, timeout=60)) == list(range(12))


@shows("`as_completed(refs, timeout=)`")
def test_as_completed_times_out() -> None:
    ref = programs.async_class().remote().sleep.remote(30)
    with pytest.raises(actorlib.exceptions.GetTimeoutError):
        list(actorlib.as_completed([ref], timeout=0.1))


@shows("Unknown arguments raise.")
def test_unknown_arguments_of_init_raise(engine: str) -> None:
    with pytest.raises(TypeError, match=r"'num_cpu'; it takes .*num_cpus"):
        actorlib.init(engine=engine if engine in ("inline", "ray") else "local", num_cpu=1)


@shows('`init(engine="local" | "inline" | "ray"')
def test_an_unknown_engine_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="local, inline, ray"):
        actorlib.init(engine="warp")


@shows('`init(engine="local" | "inline" | "ray"')
def test_a_second_session_with_another_engine_is_refused(engine: str) -> None:
    other = "local" if engine in ("inline", "ray") else "inline"
    for ignore in (False, True):
        with pytest.raises(RuntimeError, match="runs already"):
            actorlib.init(engine=other, ignore_reinit_error=ignore)


@shows("ignore_reinit_error=")
def test_a_second_session_is_refused(engine: str) -> None:
    with pytest.raises(RuntimeError, match="runs already"):
        actorlib.init(engine=engine if engine in ("inline", "ray") else "local")
