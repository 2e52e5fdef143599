"""Records of tasks and objects: the last event of each, no more than the limit, what was dropped is counted."""

from __future__ import annotations

import pytest

from actorlib.gcs.records import Records
from actorlib.transport import limits
from actorlib.transport.link import Address
from actorlib.transport.messages import ObjectEvents, TaskEvents


def event(n, state="FINISHED", error=""):
    return (n.to_bytes(16, "big"), f"task-{n}", state, float(n), b"worker..", error, 1500)


@pytest.fixture
def three_at_most(monkeypatch):
    monkeypatch.setattr(limits, "task_records_max", 3)


def test_an_event_is_kept_as_a_row():
    records = Records()
    records.add(TaskEvents((event(1, "FAILED", "ValueError: no"),), 0))
    assert records.rows() == [
        {
            "task_id": (1).to_bytes(16, "big").hex(),
            "name": "task-1",
            "state": "FAILED",
            "time_s": 1.0,
            "worker_id": b"worker..".hex(),
            "error": "ValueError: no",
            "duration_us": 1500,
        }
    ]


def test_the_last_event_of_a_task_replaces_the_earlier_ones_and_comes_first():
    records = Records()
    records.add(TaskEvents((event(1, "RUNNING"), event(2)), 0))
    records.add(TaskEvents((event(1, "FINISHED"),), 0))
    assert [(row["name"], row["state"]) for row in records.rows()] == [("task-1", "FINISHED"), ("task-2", "FINISHED")]
    assert records.dropped == 0


def test_the_oldest_records_go_first_and_are_counted(three_at_most):
    records = Records()
    records.add(TaskEvents(tuple(event(n) for n in range(5)), 0))
    assert [row["name"] for row in records.rows()] == ["task-4", "task-3", "task-2"]
    assert records.dropped == 2


def test_a_task_that_is_heard_of_again_is_no_longer_the_oldest(three_at_most):
    records = Records()
    records.add(TaskEvents((event(0), event(1), event(2)), 0))
    records.add(TaskEvents((event(0), event(3)), 0))
    assert [row["name"] for row in records.rows()] == ["task-3", "task-0", "task-2"]


def test_what_a_process_dropped_itself_is_counted_too(three_at_most):
    records = Records()
    records.add(TaskEvents((event(0),), 17))
    records.add(TaskEvents(tuple(event(n) for n in range(1, 4)), 3))
    assert records.dropped == 17 + 3 + 1


def test_the_real_limit_holds():
    records = Records()
    for start in range(0, limits.task_records_max + 2000, 1000):
        records.add(TaskEvents(tuple(event(n) for n in range(start, start + 1000)), 0))
    assert len(records.tasks) == limits.task_records_max and records.dropped == 2000


class FromNode:
    def __init__(self, node_id):
        self.peer = Address(node_id, node_id, "")


def objects_of(records):
    return [(row["object_id"], row["state"], row["node_id"]) for row in records.object_rows()]


def test_objects_are_kept_by_node_until_they_are_freed_or_their_node_is_lost():
    records, here, there = Records(), FromNode(b"here...."), FromNode(b"there...")
    records.add_objects(here, ObjectEvents(((b"one", "SEALED", 5, b"owner"), (b"two", "SEALED", 6, b"owner"))))
    records.add_objects(there, ObjectEvents(((b"one", "COPY", 5, b"owner"),)))
    records.add_objects(here, ObjectEvents(((b"one", "SPILLED", 5, b"owner"), (b"two", "FREED", 0, b""))))
    one = b"one".hex()
    assert objects_of(records) == [(one, "SPILLED", b"here....".hex()), (one, "COPY", b"there...".hex())]
    records.node_lost(b"here....")
    assert objects_of(records) == [(one, "COPY", b"there...".hex())]


def test_no_more_objects_are_kept_than_the_limit(monkeypatch):
    monkeypatch.setattr(limits, "object_records_max", 2)
    records = Records()
    records.add_objects(FromNode(b"node...."), ObjectEvents(tuple((b"%d" % n, "SEALED", 1, b"o") for n in range(5))))
    assert [row[0] for row in objects_of(records)] == [b"4".hex(), b"3".hex()]
