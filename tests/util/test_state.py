"""State: rows, filters, limits and summaries."""

from __future__ import annotations

from typing import Any

import pytest

import actorlib
from actorlib import util
from actorlib.util import state
from tests.conftest import eventually

pytestmark = pytest.mark.usefixtures("local")


@actorlib.remote
class Named:
    def ping(self) -> bool:
        return True


@actorlib.remote
def work() -> int:
    return 1


@actorlib.remote
def fail(number: int) -> None:
    raise LookupError(number)


def make_actor(name: str) -> Any:
    actor = Named.options(name=name).remote()
    assert actorlib.get(actor.ping.remote(), timeout=30)
    return actor


def test_actors() -> None:
    first, second = make_actor("first"), make_actor("second")
    rows = state.list_actors(filters=[("name", "=", "FIRST")])
    assert [row["actor_id"] for row in rows] == [first._actor_id.hex()]
    assert rows[0].state == "ALIVE"
    others = state.list_actors(filters=[("name", "!=", "first"), ("state", "=", "alive")])
    assert second._actor_id.hex() in [row.actor_id for row in others]
    assert first._actor_id.hex() not in [row.actor_id for row in others]
    assert len(state.list_actors(limit=1)) == 1


def test_get_actor() -> None:
    actor = make_actor("found")
    row = state.get_actor(actor._actor_id.hex())
    assert row is not None
    assert row.name == "found"
    assert state.get_actor("00" * 16) is None
    actorlib.kill(actor)
    eventually(lambda: state.get_actor(actor._actor_id.hex()).state == "DEAD")  # type: ignore[union-attr]


def test_named_actors() -> None:
    actor = make_actor("here")
    assert util.list_named_actors() == ["here"]
    (entry,) = util.list_named_actors(all_namespaces=True)
    assert entry["name"] == "here"
    assert set(entry) == {"name", "namespace"}
    del actor


def test_nodes() -> None:
    (node,) = state.list_nodes()
    assert node.node_id == actorlib.nodes()[0]["NodeID"]
    assert node.state == "ALIVE"
    assert node.resources_total["CPU"] == 2
    assert state.list_nodes(filters=[("state", "=", "DEAD")]) == []


def test_jobs() -> None:
    (job,) = state.list_jobs()
    assert job.job_id == actorlib.get_runtime_context().get_job_id()


def test_placement_groups() -> None:
    group = util.placement_group([{"CPU": 1}], name="seen")
    assert group.wait(30)
    (row,) = state.list_placement_groups(filters=[("name", "=", "seen")])
    assert (row.placement_group_id, row.state) == (group.id.hex(), "CREATED")
    util.remove_placement_group(group)


def test_objects() -> None:
    kept = actorlib.put(bytes(500_000))
    dropped = [actorlib.put(bytes(600_000))]
    name = dropped[0].hex()
    small = actorlib.put(1)
    known = eventually(lambda: {row.object_id for row in state.list_objects()} >= {kept.hex(), name})
    assert known and small.hex() not in {row.object_id for row in state.list_objects()}
    (row,) = state.list_objects(filters=[("object_id", "=", kept.hex())])
    assert row.state == "SEALED" and row.size >= 500_000
    assert row.node_id == actorlib.get_runtime_context().get_node_id()
    assert row.owner_id == actorlib.get_runtime_context().get_worker_id()
    dropped.clear()
    assert eventually(lambda: name not in {row.object_id for row in state.list_objects()})


def listed_tasks(name: str) -> list[Any]:
    return [row for row in state.list_tasks() if row.name.endswith(name)]


def test_failed_tasks_and_their_summary() -> None:
    refs = [fail.remote(number) for number in range(5)]
    actorlib.wait(refs, num_returns=5, timeout=30)
    rows = eventually(lambda: len(found := listed_tasks("fail")) == 5 and found)
    assert {row.state for row in rows} == {"FAILED"}
    assert all("LookupError" in row.error for row in rows)
    assert listed_tasks("fail")[0].task_id in {ref.task_id().hex() for ref in refs}
    assert len(state.list_tasks(filters=[("state", "=", "failed")], limit=3)) == 3
    summary = state.summarize_tasks()["cluster"]
    (name,) = [name for name in summary["summary"] if name.endswith("fail")]
    assert summary["summary"][name]["state_counts"] == {"FAILED": 5}
    assert summary["total_tasks"] == 5


def test_finished_tasks() -> None:
    assert actorlib.get(work.remote(), timeout=30) == 1
    eventually(lambda: listed_tasks("work"), timeout_s=2)


def test_rows_have_items_and_attributes() -> None:
    row = state.Row(state="ALIVE")
    assert row.state == row["state"] == "ALIVE"
    with pytest.raises(AttributeError, match="the row has state"):
        _ = row.nothing


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, 10_001])
def test_wrong_limits(limit: Any) -> None:
    with pytest.raises(ValueError, match="limit"):
        state.list_nodes(limit=limit)


@pytest.mark.parametrize("given", [("state", "=="), ("state", ">", 1), "state", ("nothing", "=", 1)])
def test_wrong_filters(given: Any) -> None:
    with pytest.raises(ValueError, match="filter"):
        state.list_nodes(filters=[given])
