"""Hosts spread over nodes: with shared memory or by messages, and a node lost in mid-run."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

import actorlib
from actorlib import envs
from actorlib.cluster_utils import Cluster
from actorlib.envs import channel
from actorlib.envs.snapshot import same
from actorlib.testing.environments import ScriptedEnv

MAKE = functools.partial(ScriptedEnv, spaces.Discrete(4), spaces.Box(-1, 1, (3,), np.float32))


@pytest.fixture
def cluster():
    """Room for one host on each of three nodes."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        made.add_node(num_cpus=1, separate_host=True)
    made.connect()
    made.wait_for_nodes()
    try:
        yield made
    finally:
        made.shutdown()


def node_of(_env):
    return actorlib.get_runtime_context().get_node_id()


@pytest.mark.parametrize("shares_memory", [True, False])
def test_environments_outlive_the_node_that_they_were_on(cluster, shares_memory, monkeypatch):
    if not shares_memory:
        monkeypatch.setattr(channel.Invitation, "place", lambda self, path: path + "-of-another-machine")
    sync = SyncVectorEnv([MAKE] * 4)
    vec = envs.make_vec(MAKE, 4, num_hosts=2, host_options={"num_cpus": 1})
    try:
        assert same(vec.reset(seed=3), sync.reset(seed=3))
        homes = set(vec.apply(node_of, range(4)))
        assert len(homes) == 2, "two nodes have a host"
        lost = next(node for node in cluster.worker_nodes if node.address.node_id.hex() in homes)
        sync.action_space.seed(3)
        for step in range(12):
            actions = sync.action_space.sample()
            vec.step_async(actions)
            if step == 6:
                cluster.remove_node(lost, allow_graceful=False)
            assert same(vec.step_wait(), sync.step(actions)), f"step {step}"
        assert set(vec.apply(node_of, range(4))) != homes
    finally:
        vec.close()


def test_an_engine_without_processes_has_no_hosts():
    with actorlib.init(engine="inline"):
        with pytest.raises(actorlib.exceptions.NotSupportedByEngineError, match="num_hosts=0"):
            envs.make_vec("CartPole-v1", 2, num_hosts=1)
        vec = envs.make_vec("CartPole-v1", 2, num_hosts=0)
        vec.reset(seed=1)
        vec.close()
