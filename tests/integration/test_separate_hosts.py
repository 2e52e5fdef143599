"""Nodes of one machine that behave as on machines of their own."""

from __future__ import annotations

from actorlib.cluster_utils import Cluster


def test_a_separate_host_shares_no_memory_with_the_others():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        beside = cluster.add_node(num_cpus=1)
        apart = [cluster.add_node(num_cpus=1, separate_host=True) for _ in range(2)]
        assert beside.host_id == cluster.head_node.host_id
        assert len({cluster.head_node.host_id, *(node.host_id for node in apart)}) == 3
    finally:
        cluster.shutdown()
