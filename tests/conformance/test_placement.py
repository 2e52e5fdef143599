"""Where things run: resources, groups, strategies, labels, nodes and the context."""

from __future__ import annotations

from typing import Any

import programs
import pytest
from contract import get, shows

import actorlib
from actorlib import util
from actorlib.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)

GROUPS = "PACK, SPREAD, STRICT_PACK, STRICT_SPREAD; atomic; `ready()`, `wait()`; capture child tasks"
STRATEGIES = '`"SPREAD"`, `PlacementGroupSchedulingStrategy`, `NodeAffinitySchedulingStrategy(node_id, soft)`'


def node_of() -> Any:
    @actorlib.remote
    def node() -> str:
        return actorlib.get_runtime_context().get_node_id()

    return node


# -- demands -----------------------------------------------------------------------------------------------------------
@shows("says so within 5 s with the reason and the nodes' totals; raises where no node could ever join")
def test_a_demand_that_can_never_be_met(engine: str) -> None:
    with pytest.raises(actorlib.exceptions.RayError) as caught:
        actorlib.get(programs.adder().options(num_cpus=50).remote(1), timeout=4)
    assert "CPU" in str(caught.value)


@shows("| infeasible demand | waits |")
def test_a_demand_for_what_nobody_has() -> None:
    ref = programs.adder().options(resources={"nowhere": 1}).remote(1)
    with pytest.raises(actorlib.exceptions.RayError):
        actorlib.get(ref, timeout=4)
    actorlib.cancel(ref)


@shows("cluster_resources")
def test_resources_of_the_cluster() -> None:
    total = actorlib.cluster_resources()
    assert total["CPU"] == 4 and total["GPU"] == 2 and total["special"] == 2


@shows("available_resources")
def test_available_resources_are_at_most_the_total() -> None:
    total, free = actorlib.cluster_resources(), actorlib.available_resources()
    assert all(amount <= total[name] + 1e-9 for name, amount in free.items())


@shows("available_resources")
def test_an_actor_takes_what_it_asks_for() -> None:
    @actorlib.remote(num_cpus=0, resources={"special": 1})
    class Holder:
        def ping(self) -> int:
            return 1

    before = wait_for_special(2)
    holder = Holder.remote()
    get(holder.ping.remote())
    assert wait_for_special(1) == 1
    actorlib.kill(holder)
    assert wait_for_special(2) == before


def wait_for_special(wanted: float) -> float:
    import time

    deadline = time.monotonic() + 20
    while (there := actorlib.available_resources().get("special", 0)) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return there


# -- placement groups --------------------------------------------------------------------------------------------------
@pytest.fixture
def group() -> Any:
    made = util.placement_group([{"CPU": 1}, {"CPU": 1}])
    assert made.wait(30)
    yield made
    util.remove_placement_group(made)


def in_group(group: Any, index: int = -1, capture: bool = False) -> PlacementGroupSchedulingStrategy:
    return PlacementGroupSchedulingStrategy(group, index, capture)


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD"])
@shows(GROUPS)
def test_a_group_is_placed(strategy: str) -> None:
    made = util.placement_group([{"CPU": 1}, {"CPU": 1}], strategy=strategy)
    assert made.wait(30)
    util.remove_placement_group(made)


@shows(GROUPS)
def test_a_strict_pack_lies_on_one_node() -> None:
    made = util.placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_PACK")
    assert made.wait(30)
    nodes = util.placement_group_table(made)["bundles_to_node_id"].values()
    assert len(set(nodes)) == 1
    util.remove_placement_group(made)


@shows(GROUPS)
def test_a_strict_spread_lies_on_as_many_nodes_as_bundles() -> None:
    there = sum(row["Alive"] for row in actorlib.nodes())
    made = util.placement_group([{"CPU": 1}] * there, strategy="STRICT_SPREAD")
    assert made.wait(30)
    nodes = util.placement_group_table(made)["bundles_to_node_id"].values()
    assert len(set(nodes)) == there
    util.remove_placement_group(made)
    one_more = util.placement_group([{"CPU": 0.5}] * (there + 1), strategy="STRICT_SPREAD")
    assert not one_more.wait(0.3)
    util.remove_placement_group(one_more)


@shows(GROUPS)
def test_bundles_on_nodes_with_a_label() -> None:
    made = util.placement_group([{"CPU": 1}], bundle_label_selector=[{"zone": "a"}])
    assert made.wait(30)
    assert zone_of(util.placement_group_table(made)["bundles_to_node_id"][0]) == "a"
    util.remove_placement_group(made)


@shows(GROUPS)
def test_ready_is_a_reference(group: Any) -> None:
    ref = group.ready()
    assert isinstance(ref, actorlib.ObjectRef)
    get(ref)


@shows(GROUPS)
def test_a_group_that_does_not_fit_waits() -> None:
    made = util.placement_group([{"CPU": 64}])
    assert not made.wait(0.1)
    assert util.placement_group_table(made)["state"] == "PENDING"
    util.remove_placement_group(made)


@shows("reason when pending")
def test_a_pending_group_says_why() -> None:
    made = util.placement_group([{"CPU": 64}])
    made.wait(0.1)
    assert "64" in util.placement_group_table(made)["reason"]
    util.remove_placement_group(made)


@shows(GROUPS)
def test_groups_are_atomic() -> None:
    made = util.placement_group([{"CPU": 1}, {"CPU": 64}])
    assert not made.wait(0.1)
    assert get(programs.adder().options(num_cpus=2).remote(1)) == 1  # nothing was set aside
    util.remove_placement_group(made)


@shows(GROUPS)
def test_a_task_in_a_group(group: Any) -> None:
    @actorlib.remote
    def mine() -> Any:
        return util.get_current_placement_group()

    assert get(mine.options(scheduling_strategy=in_group(group)).remote()).id == group.id
    assert get(mine.remote()) is None


@pytest.mark.parametrize("index", [0, 1])
@shows(GROUPS)
def test_a_task_in_a_bundle(group: Any, index: int) -> None:
    node = node_of()
    where = get(node.options(scheduling_strategy=in_group(group, index)).remote())
    assert where == util.placement_group_table(group)["bundles_to_node_id"][index]


@shows(GROUPS)
def test_an_actor_in_a_group(group: Any) -> None:
    @actorlib.remote(num_cpus=1)
    class Inside:
        def mine(self) -> Any:
            return util.get_current_placement_group()

    inside = Inside.options(scheduling_strategy=in_group(group, 0)).remote()
    assert get(inside.mine.remote()).id == group.id
    actorlib.kill(inside)


@shows("capture child tasks")
def test_children_are_captured(group: Any) -> None:
    @actorlib.remote(num_cpus=0.5)
    def child() -> Any:
        return util.get_current_placement_group()

    @actorlib.remote(num_cpus=0.5)
    def parent() -> Any:
        return actorlib.get(child.remote())

    captured = get(parent.options(scheduling_strategy=in_group(group, -1, True)).remote())
    assert captured is not None and captured.id == group.id
    assert get(parent.options(scheduling_strategy=in_group(group)).remote()) is None


@shows(GROUPS)
def test_a_bundle_is_all_there_is(group: Any) -> None:
    with pytest.raises((ValueError, actorlib.exceptions.RayError)):
        actorlib.get(programs.adder().options(num_cpus=2, scheduling_strategy=in_group(group, 0)).remote(1), timeout=4)


@shows(GROUPS)
def test_an_index_that_there_is_not(group: Any) -> None:
    with pytest.raises(ValueError):
        in_group(group, 5)


@shows(GROUPS)
def test_a_named_group() -> None:
    made = util.placement_group([{"CPU": 1}], name="pair")
    assert made.wait(30)
    assert util.get_placement_group("pair").id == made.id
    util.remove_placement_group(made)


@shows(GROUPS)
def test_a_name_of_a_group_that_there_is_not() -> None:
    with pytest.raises(ValueError):
        util.get_placement_group("nothing-of-this-name")


@shows(GROUPS)
def test_a_removed_group() -> None:
    made = util.placement_group([{"CPU": 1}])
    assert made.wait(30)
    util.remove_placement_group(made)
    assert wait_for_state(made, "REMOVED") == "REMOVED"


def wait_for_state(made: Any, wanted: str) -> str:
    import time

    deadline = time.monotonic() + 20
    while (state := util.placement_group_table(made)["state"]) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return str(state)


@shows(GROUPS)
def test_a_removed_group_gives_back() -> None:
    for _ in range(3):
        made = util.placement_group([{"CPU": 2}], strategy="STRICT_PACK")
        assert made.wait(30)
        util.remove_placement_group(made)


@shows(GROUPS)
def test_a_group_knows_its_bundles(group: Any) -> None:
    assert group.bundle_specs == [{"CPU": 1}, {"CPU": 1}]
    assert group.bundle_count == 2


@shows(GROUPS)
def test_a_group_can_be_passed(group: Any) -> None:
    @actorlib.remote
    def count(given: Any) -> int:
        return given.bundle_count

    assert get(count.remote(group)) == 2


@pytest.mark.parametrize("wrong", [[], [{}], [{"CPU": -1}], "CPU", [3]], ids=repr)
@shows(GROUPS)
def test_bundles_that_are_refused(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        util.placement_group(wrong)


@shows(GROUPS)
def test_a_strategy_of_a_group_that_there_is_not() -> None:
    with pytest.raises(ValueError):
        util.placement_group([{"CPU": 1}], strategy="LOOSE")


@shows(GROUPS)
def test_bundles_of_custom_resources() -> None:
    made = util.placement_group([{"CPU": 1, "special": 0.5}])
    assert made.wait(30)
    asked = programs.adder().options(resources={"special": 0.5}, scheduling_strategy=in_group(made, 0))
    assert get(asked.remote(1, 2)) == 3
    util.remove_placement_group(made)


# -- strategies and labels ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("strategy", ["DEFAULT", "SPREAD"])
@shows(STRATEGIES)
def test_a_strategy_by_name(strategy: str) -> None:
    assert get(programs.adder().options(scheduling_strategy=strategy).remote(1, 2)) == 3


@shows(STRATEGIES)
def test_affinity_to_a_node() -> None:
    node = node_of()
    for row in actorlib.nodes():
        if row["Alive"]:
            strategy = NodeAffinitySchedulingStrategy(row["NodeID"], soft=False)
            assert get(node.options(scheduling_strategy=strategy).remote()) == row["NodeID"]


@shows(STRATEGIES)
def test_soft_affinity_to_a_node_that_is_not_there() -> None:
    missing = "a" * len(actorlib.nodes()[0]["NodeID"])
    strategy = NodeAffinitySchedulingStrategy(missing, soft=True)
    assert get(programs.adder().options(scheduling_strategy=strategy).remote(1, 2)) == 3


@shows(STRATEGIES)
def test_hard_affinity_to_a_node_that_is_not_there() -> None:
    missing = "a" * len(actorlib.nodes()[0]["NodeID"])
    strategy = NodeAffinitySchedulingStrategy(missing, soft=False)
    with pytest.raises(actorlib.exceptions.RayError):
        actorlib.get(programs.adder().options(scheduling_strategy=strategy).remote(1), timeout=4)


def zone_of(node_id: str) -> Any:
    return next(row["Labels"].get("zone") for row in actorlib.nodes() if row["NodeID"] == node_id)


@pytest.mark.parametrize("selector", ["a", "in(a,c)", "!b", "!in(b,c)"])
@shows("| | `label_selector` | equals, `!v`, `in(a,b)`, `!in(a,b)` |")
def test_a_label_selector(selector: str) -> None:
    node = node_of()
    assert zone_of(get(node.options(label_selector={"zone": selector}).remote())) == "a"


@shows("| | `label_selector` | equals, `!v`, `in(a,b)`, `!in(a,b)` |")
def test_a_label_that_no_node_has() -> None:
    ref = programs.adder().options(label_selector={"zone": "z"}).remote(1)
    with pytest.raises(actorlib.exceptions.RayError):
        actorlib.get(ref, timeout=4)
    actorlib.cancel(ref)


@pytest.mark.parametrize("condition", [In("a", "c"), NotIn("b")], ids=["In", "NotIn"])
@shows("`NodeLabelSchedulingStrategy`")
def test_hard_labels(condition: Any) -> None:
    strategy = NodeLabelSchedulingStrategy(hard={"zone": condition})
    assert zone_of(get(node_of().options(scheduling_strategy=strategy).remote())) == "a"


@shows("`NodeLabelSchedulingStrategy`")
def test_a_label_that_is_not_there() -> None:
    strategy = NodeLabelSchedulingStrategy(hard={"disk": DoesNotExist(), "zone": Exists()})
    assert zone_of(get(node_of().options(scheduling_strategy=strategy).remote())) in ("a", "b")
    nowhere = NodeLabelSchedulingStrategy(hard={"disk": Exists()})
    ref = programs.adder().options(scheduling_strategy=nowhere).remote(1)
    with pytest.raises(actorlib.exceptions.RayError):
        actorlib.get(ref, timeout=4)
    actorlib.cancel(ref)


@shows("`NodeLabelSchedulingStrategy`")
def test_soft_labels_that_no_node_has() -> None:
    strategy = NodeLabelSchedulingStrategy(hard={"zone": In("a")}, soft={"disk": In("fast")})
    assert zone_of(get(node_of().options(scheduling_strategy=strategy).remote())) == "a"


@shows("`NodeLabelSchedulingStrategy`")
def test_an_actor_by_label() -> None:
    @actorlib.remote(num_cpus=0)
    class Where:
        def node(self) -> str:
            return actorlib.get_runtime_context().get_node_id()

    where = Where.options(label_selector={"zone": "a"}).remote()
    assert zone_of(get(where.node.remote())) == "a"


# -- nodes and the context ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", ["NodeID", "Alive", "Resources", "Labels", "NodeManagerHostname", "NodeManagerAddress"])
@shows("nodes, cluster_resources, available_resources")
def test_a_row_of_nodes(key: str) -> None:
    assert all(key in row for row in actorlib.nodes())


@shows("get_runtime_context")
def test_the_drivers_context() -> None:
    context = actorlib.get_runtime_context()
    assert context.get_job_id() and context.get_node_id() and context.get_worker_id()
    assert context.get_actor_id() is None
    assert context.namespace


def seen_in_a_task(question: str) -> Any:
    @actorlib.remote(num_cpus=1)
    def ask() -> Any:
        return getattr(actorlib.get_runtime_context(), question)()

    return get(ask.remote())


@shows("get_runtime_context")
def test_a_task_is_of_the_drivers_job() -> None:
    assert seen_in_a_task("get_job_id") == actorlib.get_runtime_context().get_job_id()


@shows("get_runtime_context")
def test_a_task_runs_on_a_node() -> None:
    assert seen_in_a_task("get_node_id") in [row["NodeID"] for row in actorlib.nodes()]


@shows("get_runtime_context")
def test_a_task_has_no_actor() -> None:
    assert seen_in_a_task("get_actor_id") is None


@shows("get_runtime_context")
def test_a_task_knows_its_resources() -> None:
    assert seen_in_a_task("get_assigned_resources") == {"CPU": 1}


@shows("get_runtime_context")
def test_a_task_has_no_group() -> None:
    assert seen_in_a_task("get_placement_group_id") is None


@shows("get_runtime_context")
def test_the_namespace_is_inherited() -> None:
    @actorlib.remote
    def mine() -> str:
        return actorlib.get_runtime_context().namespace

    assert get(mine.remote()) == actorlib.get_runtime_context().namespace


@shows("get_runtime_context")
def test_an_actor_knows_itself() -> None:
    @actorlib.remote(num_cpus=0)
    class Look:
        def look(self) -> Any:
            context = actorlib.get_runtime_context()
            return context.get_actor_id(), context.current_actor, context.was_current_actor_reconstructed

    handle = Look.remote()
    actor_id, same, again = get(handle.look.remote())
    assert actor_id and same == handle and again is False


@shows("get_runtime_context")
def test_an_actor_knows_its_name() -> None:
    @actorlib.remote(num_cpus=0)
    class Look:
        def look(self) -> Any:
            return actorlib.get_runtime_context().get_actor_name()

    handle = Look.options(name="looks").remote()
    assert get(handle.look.remote()) == "looks"
    actorlib.kill(handle)


@shows("get_runtime_context")
def test_an_actor_that_came_back_knows_it() -> None:
    @actorlib.remote(num_cpus=0, max_restarts=1, max_task_retries=1)
    class Look:
        def again(self) -> bool:
            return actorlib.get_runtime_context().was_current_actor_reconstructed

    handle = Look.remote()
    assert get(handle.again.remote()) is False
    actorlib.kill(handle, no_restart=False)
    assert get(handle.again.remote()) is True


@shows("get_runtime_context")
def test_an_actors_handle_of_itself_knows_what_others_know() -> None:
    @actorlib.remote(num_cpus=0, concurrency_groups={"aside": 1})
    class Look:
        def me(self) -> Any:
            return actorlib.get_runtime_context().current_actor

        @actorlib.method(num_returns=2, concurrency_group="aside")
        def both(self) -> Any:
            return 1, 2

    handle = Look.remote()
    me = get(handle.me.remote())
    assert get(me.both.remote()) == [1, 2]
    assert get(me.both.options(concurrency_group="aside").remote()) == [1, 2]


@shows("code that looks (`get_runtime_context().is_canceled()`) may end by itself first")
def test_nobody_was_cancelled() -> None:
    @actorlib.remote
    def look() -> bool:
        return actorlib.get_runtime_context().is_canceled()

    assert get(look.remote()) is False
    assert actorlib.get_runtime_context().is_canceled() is False


@shows("get_runtime_context")
def test_current_actor_outside_of_one() -> None:
    with pytest.raises(RuntimeError):
        _ = actorlib.get_runtime_context().current_actor


@shows("get_gpu_ids")
def test_the_driver_has_no_gpu() -> None:
    assert actorlib.get_gpu_ids() == []


@shows("timeline")
def test_the_timeline_is_a_list_of_events(tmp_path: Any) -> None:
    get(programs.adder().remote(1))
    events = actorlib.timeline()
    assert isinstance(events, list)
    actorlib.timeline(str(tmp_path / "timeline.json"))
    assert (tmp_path / "timeline.json").exists()
