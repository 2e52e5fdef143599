"""A PettingZoo parallel environment on a host is the one that it would be here, also when the host is killed."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ClosedEnvironmentError

pytest.importorskip("pettingzoo", reason="pettingzoo is an extra of its own: pip install actorlib[pettingzoo]")
from pettingzoo import ParallelEnv  # type: ignore[import-untyped]

import actorlib
from actorlib import envs
from actorlib.envs import pettingzoo
from actorlib.envs.snapshot import same


class Race(ParallelEnv):
    """Agents run; who has arrived leaves."""

    metadata = {"name": "race_v0", "render_modes": ["ansi"]}

    def __init__(self, length=30):
        self.possible_agents = ["hare", "tortoise", "snail"]
        self.agents = []
        self.length = length
        self.render_mode = "ansi"

    def observation_space(self, agent):
        return self._observation_spaces.setdefault(agent, spaces.Box(0, 1e3, (2,), np.float32))

    def action_space(self, agent):
        return self._action_spaces.setdefault(agent, spaces.Discrete(4))

    _observation_spaces: dict = {}
    _action_spaces: dict = {}

    def reset(self, seed=None, options=None):
        self.rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.places = dict.fromkeys(self.agents, 0.0)
        return self._seen(), {agent: {} for agent in self.agents}

    def _seen(self):
        return {agent: np.array([self.places[agent], len(self.agents)], np.float32) for agent in self.agents}

    def step(self, actions):
        for agent in self.agents:
            self.places[agent] += float(actions[agent]) + float(self.rng.random())
        seen = self._seen()
        over = {agent: self.places[agent] > self.length for agent in self.agents}
        rewards = {agent: self.places[agent] / 7 for agent in self.agents}
        result = seen, rewards, over, dict.fromkeys(self.agents, False), {agent: {"n": 1} for agent in self.agents}
        self.agents = [agent for agent in self.agents if not over[agent]]
        return result

    def render(self):
        return str(self.places)

    def state(self):
        return np.array(list(self.places.values()), np.float32)


@pytest.fixture(scope="module", autouse=True)
def session():
    actorlib.init(num_cpus=2)
    yield
    actorlib.shutdown()


def test_it_goes_on_as_here_when_its_host_is_killed():
    here, hosted = Race(), pettingzoo.parallel(Race)
    try:
        assert same(here.reset(seed=4), hosted.reset(seed=4))
        rng, step = np.random.default_rng(1), 0
        while here.agents:
            actions = {agent: int(rng.integers(4)) for agent in here.agents}
            if step % 4 == 2:
                os.kill(hosted.host_pids()[0], signal.SIGKILL)
            assert same(here.step(actions), hosted.step(actions)), f"step {step}"
            assert here.agents == hosted.agents and hosted.render() == here.render()
            assert same(here.state(), hosted.state())
            step += 1
        assert step > 5
    finally:
        hosted.close()


@pytest.mark.filterwarnings("ignore")
def test_it_passes_pettingzoos_own_test():
    from pettingzoo.test import parallel_api_test

    hosted = pettingzoo.parallel(Race)
    try:
        parallel_api_test(hosted, num_cycles=60)
    finally:
        hosted.close()


def test_truncate_ends_the_episode_for_all_agents():
    hosted = pettingzoo.parallel(Race, on_failure="truncate")
    try:
        seen, _ = hosted.reset(seed=1)
        os.kill(hosted.host_pids()[0], signal.SIGKILL)
        observations, rewards, terminations, truncations, infos = hosted.step(dict.fromkeys(hosted.agents, 1))
        assert same(observations, seen) and all(truncations.values()) and not any(terminations.values())
        assert set(rewards.values()) == {0.0} and "SIGKILL" in infos["snail"]["env_failure"] and hosted.agents == []
        assert len(hosted.reset(seed=1)[0]) == 3
        assert len(hosted.step(dict.fromkeys(hosted.agents, 1))[0]) == 3
    finally:
        hosted.close()


def test_bad_input():
    with pytest.raises(ValueError, match="'restore'"):
        pettingzoo.parallel(Race, on_failure="never")
    with pytest.raises(envs.EnvironmentCreationError, match="length"):
        pettingzoo.parallel(lambda: Race(no_length=1))
    hosted = pettingzoo.parallel(Race)
    with pytest.raises(envs.ResetNeededError):
        hosted.step({})
    hosted.close()
    hosted.close()
    with pytest.raises(ClosedEnvironmentError):
        hosted.reset()
