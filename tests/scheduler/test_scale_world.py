"""The large cluster of virtual workers behaves: cores stay sound, work is done, churn is survived, locality helps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def scale_sim():
    sys.path.insert(0, str(BENCH))
    try:
        import scale_sim

        yield scale_sim
    finally:
        sys.path.remove(str(BENCH))


def test_tasks_start_as_they_come(scale_sim):
    row = scale_sim.run(20, 20.0)
    rate = scale_sim.LOAD * 20 * scale_sim.CPUS / scale_sim.TASK_S
    assert 0.7 * rate < row["tasks_per_s"] < 1.3 * rate
    assert row["wait_p50_ms"] < 50 and row["messages_per_task"] < 15


def test_locality_saves_bytes(scale_sim):
    aware = scale_sim.run(20, 20.0, arguments=True)
    unaware = scale_sim.run(20, 20.0, arguments=True, aware=False)
    assert aware["moved_gib"] < unaware["moved_gib"] / 2


def test_what_ran_on_nodes_that_vanish_is_done_again(scale_sim, monkeypatch):
    monkeypatch.setattr(scale_sim, "CHURN_PER_MINUTE", 1.0)
    row = scale_sim.run(20, 30.0, churns=True)
    assert row["tasks_lost"] > 0 and row["tasks_per_s"] > 2


def test_messages_for_a_task_do_not_grow_with_the_nodes_nor_does_what_one_of_them_tells(scale_sim, monkeypatch):
    from actorlib.transport import limits
    from actorlib.transport.messages import NodesFree

    told = []
    world = sys.modules["scale_world"]
    monkeypatch.setattr(limits, "views_in_message_max", 16)
    monkeypatch.setattr(world.Cluster, "_learn_free", _counting(told, world.Cluster._learn_free))
    few, many = scale_sim.run(20, 5.0), scale_sim.run(200, 5.0)
    assert many["messages_per_task"] < 1.5 * few["messages_per_task"]
    assert many["wait_p99_ms"] < 50
    assert told and max(len(message.nodes) for message in told) <= 16 and type(told[0]) is NodesFree


def _counting(told, learn):
    return lambda cluster, message: (told.append(message), learn(cluster, message))


def test_the_picture_is_drawn_and_the_table_printed(scale_sim, capsys):
    rows = scale_sim.measure({5: 5.0})
    assert len(rows) == 4 and "churn" in capsys.readouterr().out
    picture = scale_sim.plot(rows)
    assert picture.startswith("<svg") and picture.count("<polyline") >= 12 and "messages for each task" in picture
