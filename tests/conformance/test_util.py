"""``actorlib.util`` on every engine."""

from __future__ import annotations

from typing import Any

import programs
import pytest
from contract import get, shows

import actorlib
from actorlib import util
from actorlib.util.queue import Empty, Full, Queue


def doubler() -> Any:
    @actorlib.remote(num_cpus=0)
    class Doubler:
        def double(self, value: int) -> int:
            return 2 * value

    return Doubler


@shows("`util`: `ActorPool`")
def test_a_pool_maps_in_order() -> None:
    pool = util.ActorPool([doubler().remote() for _ in range(2)])
    assert list(pool.map(lambda actor, value: actor.double.remote(value), range(10))) == [2 * i for i in range(10)]


@shows("`util`: `ActorPool`")
def test_a_pool_maps_unordered() -> None:
    pool = util.ActorPool([doubler().remote() for _ in range(2)])
    results = pool.map_unordered(lambda actor, value: actor.double.remote(value), range(10))
    assert sorted(results) == [2 * i for i in range(10)]


@shows("`util`: `ActorPool`")
def test_a_pool_takes_one_by_one() -> None:
    pool = util.ActorPool([doubler().remote()])
    pool.submit(lambda actor, value: actor.double.remote(value), 1)
    pool.submit(lambda actor, value: actor.double.remote(value), 2)
    assert pool.get_next(timeout=60) == 2 and pool.get_next(timeout=60) == 4
    assert not pool.has_next()


@shows("`queue.Queue` (`Empty`, `Full`)")
def test_a_queue_is_first_in_first_out() -> None:
    queue = Queue()
    for number in range(5):
        queue.put(number)
    assert [queue.get() for _ in range(5)] == list(range(5))
    queue.shutdown()


@shows("`queue.Queue` (`Empty`, `Full`)")
def test_an_empty_queue() -> None:
    queue = Queue()
    with pytest.raises(Empty):
        queue.get_nowait()
    with pytest.raises(Empty):
        queue.get(timeout=0.05)
    assert queue.empty() and len(queue) == 0
    queue.shutdown()


@shows("`queue.Queue` (`Empty`, `Full`)")
def test_a_full_queue() -> None:
    queue = Queue(maxsize=1)
    queue.put(1)
    assert queue.full()
    with pytest.raises(Full):
        queue.put_nowait(2)
    with pytest.raises(Full):
        queue.put(2, timeout=0.05)
    queue.shutdown()


@shows("`queue.Queue` (`Empty`, `Full`)")
def test_a_queue_in_batches() -> None:
    queue = Queue(maxsize=4)
    queue.put_nowait_batch([1, 2, 3])
    with pytest.raises(Full):
        queue.put_nowait_batch([4, 5])
    assert queue.get_nowait_batch(2) == [1, 2]
    with pytest.raises(Empty):
        queue.get_nowait_batch(2)
    queue.shutdown()


@shows("`queue.Queue` (`Empty`, `Full`)")
def test_a_queue_is_shared() -> None:
    queue = Queue()

    @actorlib.remote
    def produce(queue: Any, n: int) -> None:
        for number in range(n):
            queue.put(number)

    get(produce.remote(queue, 5))
    assert [queue.get(timeout=60) for _ in range(5)] == list(range(5))
    queue.shutdown()


@pytest.fixture
def pool(engine: str) -> Any:
    from actorlib.util.multiprocessing import Pool

    with Pool(2) as made:
        yield made


@shows("`multiprocessing.Pool`")
def test_a_process_pool_maps(pool: Any) -> None:
    assert pool.map(square_by_value(), range(10)) == [i * i for i in range(10)]


@shows("`multiprocessing.Pool`")
def test_a_process_pool_applies(pool: Any) -> None:
    assert pool.apply(square_by_value(), (5,)) == 25
    assert pool.apply_async(square_by_value(), (6,)).get(timeout=60) == 36


@shows("`multiprocessing.Pool`")
def test_a_process_pool_iterates(pool: Any) -> None:
    assert list(pool.imap(square_by_value(), range(5))) == [i * i for i in range(5)]


@shows("`multiprocessing.Pool`")
def test_a_process_pool_stars(pool: Any) -> None:
    assert pool.starmap(lambda a, b: a + b, [(1, 2), (3, 4)]) == [3, 7]


@shows("`multiprocessing.Pool`")
def test_a_process_pool_raises(pool: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        pool.apply(lambda: 1 // 0)


def square_by_value() -> Any:
    return lambda x: x * x


@shows("`util.futures.Executor` (a `concurrent.futures.Executor`)")
def test_an_executor_maps() -> None:
    from actorlib.util.futures import Executor

    with Executor() as executor:
        assert list(executor.map(square_by_value(), range(10))) == [i * i for i in range(10)]


@shows("`util.futures.Executor` (a `concurrent.futures.Executor`)")
def test_an_executor_submits() -> None:
    from actorlib.util.futures import Executor

    with Executor() as executor:
        assert executor.submit(square_by_value(), 4).result(timeout=60) == 16


@shows("`util.futures.Executor` (a `concurrent.futures.Executor`)")
def test_an_executor_raises() -> None:
    from actorlib.util.futures import Executor

    with Executor() as executor:
        with pytest.raises(ZeroDivisionError):
            executor.submit(lambda: 1 // 0).result(timeout=60)


@shows("`joblib.register_*`")
def test_joblib(engine: str) -> None:
    joblib = pytest.importorskip("joblib")
    from actorlib.util.joblib import register_actorlib

    register_actorlib()
    with joblib.parallel_config("actorlib", n_jobs=2):
        results = joblib.Parallel()(joblib.delayed(square_by_value())(i) for i in range(6))
    assert results == [i * i for i in range(6)]


@shows("`list_named_actors`")
def test_named_actors_are_listed() -> None:
    counter = programs.counter_class().options(name="listed").remote()
    get(counter.read.remote())
    assert "listed" in util.list_named_actors()
    everywhere = util.list_named_actors(all_namespaces=True)
    assert any(row["name"] == "listed" and row["namespace"] for row in everywhere)
    actorlib.kill(counter)


@shows("`metrics.Counter/Gauge/Histogram`")
def test_metrics() -> None:
    from actorlib.util import metrics

    counter = metrics.Counter("conformance_count", description="x", tag_keys=("kind",))
    counter.inc(2, tags={"kind": "a"})
    metrics.Gauge("conformance_level").set(3.0)
    metrics.Histogram("conformance_times", boundaries=[0.1, 1]).observe(0.5)
    with pytest.raises(ValueError):
        counter.inc(-1, tags={"kind": "a"})


def rows(table: str, **wanted: Any) -> list[Any]:
    import time

    filters = [(key, "=", value) for key, value in wanted.items()]
    deadline = time.monotonic() + 20
    while not (found := getattr(util.state, f"list_{table}")(filters=filters)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return list(found)


@shows("`state.*`")
def test_state_lists_nodes() -> None:
    assert [row.node_id for row in rows("nodes", state="ALIVE")]


@shows("`state.*`")
def test_state_lists_actors() -> None:
    counter = programs.counter_class().options(name="in-state").remote()
    get(counter.read.remote())
    (row,) = rows("actors", name="in-state", state="ALIVE")
    assert row.class_name.endswith("Counter")
    actorlib.kill(counter)


@shows("`state.*`")
def test_state_lists_jobs() -> None:
    assert actorlib.get_runtime_context().get_job_id() in [row.job_id for row in rows("jobs")]


@shows("`state.*`")
def test_state_lists_placement_groups() -> None:
    group = util.placement_group([{"CPU": 1}], name="in-state")
    assert group.wait(30)
    (row,) = rows("placement_groups", name="in-state", state="CREATED")
    assert row.placement_group_id == group.id.hex()
    util.remove_placement_group(group)


@shows("`state.*`")
def test_state_lists_tasks() -> None:
    with pytest.raises(ValueError):
        get(programs.failing().options(name="in-state").remote())
    assert rows("tasks", name="in-state", state="FAILED")


@shows("`state.*`")
def test_state_summarizes_tasks() -> None:
    get(programs.adder().options(name="summed-up").remote(1))
    assert rows("tasks", name="summed-up", state="FINISHED")
    counted = util.state.summarize_tasks()["cluster"]["summary"]["summed-up"]["state_counts"]
    assert counted == {"FINISHED": 1}


@shows("`state.*`")
def test_state_refuses_wrong_filters() -> None:
    with pytest.raises(ValueError):
        util.state.list_nodes(filters=[("state", "like", "A")])
    with pytest.raises(ValueError):
        util.state.list_nodes(limit=0)
