"""Stable-Baselines3 on environment hosts: like its DummyVecEnv, and PPO learns while a host is killed.

Runs where Stable-Baselines3 is installed (``make test-sb3``); it brings PyTorch, which is too large for every run.
"""

from __future__ import annotations

import functools
import os
import signal

import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is an extra of its own: make test-sb3")
from stable_baselines3 import PPO  # type: ignore[import-not-found,unused-ignore]
from stable_baselines3.common.callbacks import BaseCallback  # type: ignore[import-not-found,unused-ignore]
from stable_baselines3.common.monitor import Monitor  # type: ignore[import-not-found,unused-ignore]
from stable_baselines3.common.vec_env import DummyVecEnv  # type: ignore[import-not-found,unused-ignore]

import actorlib
from actorlib.envs.sb3 import VecEnv
from actorlib.envs.snapshot import same
from actorlib.testing.environments import ScriptedEnv

pytestmark = pytest.mark.filterwarnings("ignore")
MAKE = functools.partial(ScriptedEnv, spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32), render_mode="rgb_array")


@pytest.fixture(scope="module", autouse=True)
def session():
    actorlib.init(num_cpus=2)
    yield
    actorlib.shutdown()


@pytest.mark.parametrize("hosts", [0, 2])
def test_it_is_like_their_own(hosts):
    theirs, ours = DummyVecEnv([MAKE] * 4), VecEnv(MAKE, 4, num_hosts=hosts)
    try:
        for vec in (theirs, ours):
            vec.seed(3)
        assert same(theirs.reset(), ours.reset()) and theirs.reset_infos == ours.reset_infos
        rng = np.random.default_rng(0)
        for step in range(40):
            actions = rng.integers(3, size=4)
            if hosts and step % 13 == 5:
                os.kill(ours.host_pids()[1], signal.SIGKILL)
            expected, found = theirs.step(actions), ours.step(actions)
            assert same(expected[0], found[0]) and same(expected[1], found[1]) and same(expected[2], found[2])
            for one, other in zip(expected[3], found[3], strict=True):
                assert one.keys() == other.keys() and all(same(one[key], other[key]) for key in one), f"step {step}"
            assert theirs.reset_infos == ours.reset_infos
        assert theirs.env_method("poke", 2, indices=[1, 3]) == ours.env_method("poke", 2, indices=[1, 3])
        ours.set_attr("mood", 7, indices=2)
        assert ours.get_attr("mood") == [0, 0, 7, 0]
        assert ours.env_is_wrapped(Monitor) == [False] * 4
        assert len(ours.get_images()) == 4
        with pytest.raises(TypeError, match="autoreset_mode"):
            VecEnv(MAKE, 2, autoreset_mode="NextStep")
    finally:
        ours.close()


class Killer(BaseCallback):
    """Kills a host now and then."""

    def __init__(self, vec):
        super().__init__()
        self.vec, self.pids = vec, []

    def _on_step(self):
        if self.n_calls % 300 == 150:
            self.pids.append(self.vec.host_pids()[0])
            os.kill(self.pids[-1], signal.SIGKILL)
        return True


@pytest.fixture
def one_thread():
    """Small networks; more threads than that only wait for each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.timeout(400)
def test_ppo_learns_the_same_with_a_host_killed_meanwhile(one_thread):
    learned = []
    for kills in (False, True):
        vec = VecEnv("CartPole-v1", 4, num_hosts=2, wrappers=[Monitor])
        try:
            model = PPO("MlpPolicy", vec, n_steps=128, batch_size=128, seed=5, device="cpu")
            killer = Killer(vec)
            model.learn(4096, callback=killer if kills else None)
            assert len(set(killer.pids)) == (3 if kills else 0)
            returns = [episode["r"] for episode in model.ep_info_buffer]
            learned.append([value.detach().numpy().copy() for value in model.policy.parameters()])
        finally:
            vec.close()
        assert np.mean(returns) > 30, "a policy that has learned nothing falls over after about 20 steps"
    assert all(map(same, *learned)), "training took the same course, bit for bit"
