"""A Ray cluster of two nodes, one of which is lost. It runs in a process of its own: Ray has one session in each."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(200)

PROGRAM = """
    import sys
    from ray.cluster_utils import Cluster
    import actorlib
    from actorlib import util
    from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    @actorlib.remote(num_cpus=0, resources={"leaves": 1}, max_restarts=-1)
    class Counter:
        def __init__(self): self.total = 0
        def add(self): self.total += 1; return self.total
        def node(self): return actorlib.get_runtime_context().get_node_id()

    @actorlib.remote(num_cpus=0)
    def node(): return actorlib.get_runtime_context().get_node_id()

    def get(refs): return actorlib.get(refs, timeout=90)

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    first = cluster.add_node(num_cpus=1, resources={"leaves": 2}, labels={"zone": "b"})
    with actorlib.init(cluster.address, engine="ray", log_to_driver=False):
        rows = actorlib.nodes()
        nodes = [row["NodeID"] for row in rows]
        where = [NodeAffinitySchedulingStrategy(each, soft=False) for each in nodes]
        assert get([node.options(scheduling_strategy=each).remote() for each in where]) == nodes
        leaving = get(node.options(label_selector={"zone": "b"}).remote())
        assert [row["NodeID"] for row in rows if row["Labels"].get("zone") == "b"] == [leaving]
        group = util.placement_group([{"CPU": 1}] * 2, strategy="STRICT_SPREAD")
        assert group.wait(60)
        assert len(set(util.placement_group_table(group)["bundles_to_node_id"].values())) == 2
        util.remove_placement_group(group)
        durable = Counter.options(checkpoint=actorlib.Checkpoint(every_calls=3, store=sys.argv[1])).remote()
        mortal = Counter.options(max_restarts=0).remote()
        assert get([durable.node.remote(), mortal.node.remote()]) == [leaving] * 2
        down = actorlib.monitor(mortal)
        refs = [durable.add.remote() for _ in range(7)]
        assert get(refs[:5])[-1] == 5
        cluster.remove_node(first, allow_graceful=False)
        second = cluster.add_node(num_cpus=1, resources={"leaves": 2})
        assert sorted(get(refs)) == list(range(1, 8))
        assert get(durable.add.remote()) == 8 and get(durable.node.remote()) != leaving
        told = get(down)
        assert told.kind == "crashed" and not told.normal, told
        print("it went on;", told.reason)
    cluster.shutdown()
"""


def test_a_durable_actor_with_a_store_outlives_its_node(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert "it went on; " in done.stdout, done.stderr
    assert "node" in done.stdout.lower()
