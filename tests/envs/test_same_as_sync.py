"""Hosted environments give what SyncVectorEnv gives: every mode, every kind of space, with hosts here or elsewhere."""

from __future__ import annotations

import functools

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import actorlib
from actorlib import envs
from actorlib.envs import channel
from actorlib.envs.snapshot import same
from actorlib.testing.environments import ScriptedEnv


class Weekday(gymnasium.Space):
    """A space of one's own."""

    def __init__(self, seed=None):
        super().__init__(None, None, seed)

    def sample(self, mask=None, probability=None):
        return ("mon", "tue", "wed")[self.np_random.integers(3)]

    def contains(self, x):
        return x in ("mon", "tue", "wed")

    def __eq__(self, other):
        return isinstance(other, Weekday)


SPACES = {
    "box": spaces.Box(-1, 1, (3, 2), np.float32),
    "bytes": spaces.Box(0, 255, (4,), np.uint8),
    "discrete": spaces.Discrete(5, start=2),
    "multi_discrete": spaces.MultiDiscrete([3, 4]),
    "multi_binary": spaces.MultiBinary([2, 3]),
    "dict": spaces.Dict({"b": spaces.Box(0, 1, ()), "a": spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2)))}),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (2,), np.float64))),
    "text": spaces.Text(5),
    "dict_of_text": spaces.Dict({"t": spaces.Text(3), "x": spaces.Box(0, 1, (2,))}),
    "sequence": spaces.Sequence(spaces.Discrete(3)),
    "weekday": Weekday(),
    "graph": spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(3)),
}
MODES = list(AutoresetMode)


@pytest.fixture(scope="module", autouse=True)
def session():
    actorlib.init(num_cpus=2)
    yield
    actorlib.shutdown()


def scripted(action, observation, count, **more):
    return [functools.partial(ScriptedEnv, SPACES[action], SPACES[observation], **more) for _ in range(count)]


def assert_same(one, other, what):
    assert same(_plain(one), _plain(other)), f"{what}:\n{one}\n{other}"


def _plain(value):
    """Graphs are tuples of their own kind; dicts compare whatever the order of their keys."""
    return tuple(value) if isinstance(value, spaces.GraphInstance) else value


def reset_if_over(vec, over):
    return vec.reset(options={"reset_mask": over.copy()})


def assert_alike(hosted, sync, steps=25, seed=5):
    assert hosted.num_envs == sync.num_envs
    for name in ("single_observation_space", "observation_space", "single_action_space", "action_space", "metadata"):
        assert getattr(hosted, name) == getattr(sync, name), name
    assert_same(hosted.reset(seed=seed), sync.reset(seed=seed), "reset")
    sync.action_space.seed(seed)
    for step in range(steps):
        actions = sync.action_space.sample()
        one, other = hosted.step(actions), sync.step(actions)
        assert_same(one, other, f"step {step}")
        over = one[2] | one[3]
        if hosted.metadata["autoreset_mode"] is AutoresetMode.DISABLED and over.any():
            assert_same(reset_if_over(hosted, over), reset_if_over(sync, over), f"reset after {step}")
    assert_same(hosted.call("poke", 3), sync.call("poke", 3), "call")
    hosted.set_attr("mood", list(range(hosted.num_envs)))
    sync.set_attr("mood", list(range(hosted.num_envs)))
    assert hosted.get_attr("mood") == sync.get_attr("mood")
    assert_same(hosted.reset(options={"x": 1}), sync.reset(options={"x": 1}), "reset without a seed")
    actions = sync.action_space.sample()
    assert_same(hosted.step(actions), sync.step(actions), "the last step")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("action, observation", [("discrete", "box"), ("box", "dict"), ("tuple", "text")])
def test_every_mode(mode, action, observation):
    fns = scripted(action, observation, 5)
    hosted = envs.make_vec(fns, num_hosts=2, autoreset_mode=mode)
    try:
        assert_alike(hosted, SyncVectorEnv(fns, autoreset_mode=mode))
    finally:
        hosted.close()


@pytest.mark.parametrize("observation", sorted(SPACES))
def test_every_observation_space(observation):
    fns = scripted("discrete", observation, 3)
    hosted = envs.make_vec(fns, num_hosts=1, on_failure="raise", autoreset_mode="SameStep")
    try:
        assert_alike(hosted, SyncVectorEnv(fns, autoreset_mode="SameStep"), 12)
    finally:
        hosted.close()


@pytest.mark.parametrize("action", [name for name in sorted(SPACES) if name not in ("graph", "sequence")])
def test_every_action_space(action):
    fns = scripted(action, "box", 3)
    hosted = envs.make_vec(fns, num_hosts=1, on_failure="raise")
    try:
        assert_alike(hosted, SyncVectorEnv(fns), 12)
    finally:
        hosted.close()


@pytest.mark.parametrize("mode", MODES)
def test_hosts_that_can_not_share_memory_send_messages(mode, monkeypatch):
    """As on another machine, where the caller's socket is not to be found."""
    monkeypatch.setattr(channel.Invitation, "place", lambda self, path: path + "-of-another-machine")
    fns = scripted("discrete", "dict", 3)
    hosted = envs.make_vec(fns, num_hosts=2, autoreset_mode=mode)
    try:
        assert not any(keeper.shares_memory for keeper in hosted._keepers)
        assert_alike(hosted, SyncVectorEnv(fns, autoreset_mode=mode))
    finally:
        hosted.close()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0"])
@pytest.mark.parametrize("hosts", [0, 2])
def test_registered_environments(env_id, hosts):
    hosted = envs.make_vec(env_id, 3, num_hosts=hosts)
    sync = gymnasium.make_vec(env_id, 3, vectorization_mode="sync")
    try:
        assert_same(hosted.reset(seed=1), sync.reset(seed=1), "reset")
        sync.action_space.seed(1)
        for step in range(250):
            actions = sync.action_space.sample()
            assert_same(hosted.step(actions), sync.step(actions), f"step {step}")
    finally:
        hosted.close()


@pytest.mark.parametrize("hosts", [0, 1, 3])
def test_render_gives_what_each_environment_draws(hosts):
    fns = scripted("discrete", "box", 3, render_mode="rgb_array")
    hosted, sync = envs.make_vec(fns, num_hosts=hosts), SyncVectorEnv(fns)
    try:
        assert hosted.render_mode == sync.render_mode == "rgb_array"
        for each in (hosted, sync):
            each.reset(seed=2)
            each.step(np.array([2, 3, 4]))
        drawn = hosted.render()
        assert len(drawn) == 3 and same(drawn, sync.render())
        hosted.step(np.array([2, 2, 2])), sync.step(np.array([2, 2, 2]))
        assert same(hosted.render(), sync.render()) and not same(hosted.render(), drawn)
    finally:
        hosted.close()


@pytest.mark.parametrize(
    "wrapper", ["RecordEpisodeStatistics", "NormalizeObservation", "NormalizeReward", "DictInfoToList"]
)
def test_gymnasiums_wrappers_of_vector_environments_do_the_same_with_it(wrapper):
    fns = scripted("discrete", "box", 4, mean_steps=5)
    wrap = getattr(gymnasium.wrappers.vector, wrapper)
    hosted, sync = wrap(envs.make_vec(fns, num_hosts=2)), wrap(SyncVectorEnv(fns))

    def comparable(result):
        *rest, infos = result
        return (*rest, _without_times(infos))

    try:
        assert same(comparable(hosted.reset(seed=3)), comparable(sync.reset(seed=3)))
        sync.action_space.seed(3)
        for step in range(30):
            actions = sync.action_space.sample()
            assert same(comparable(hosted.step(actions)), comparable(sync.step(actions))), f"step {step}"
    finally:
        hosted.close()


def _without_times(infos):
    """An episode's duration is not the same twice."""
    if isinstance(infos, list | tuple):
        return [_without_times(info) for info in infos]
    return {
        key: {inner: item for inner, item in value.items() if inner.strip("_") != "t"} if key == "episode" else value
        for key, value in infos.items()
    }


class OfOne(gymnasium.Env):
    """A vector environment of one as a plain environment, for Gymnasium's check of these."""

    def __init__(self, vec):
        self.vec = vec
        self.observation_space, self.action_space = vec.single_observation_space, vec.single_action_space
        self.metadata, self.render_mode = {"render_modes": []}, None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        observations, _ = self.vec.reset(seed=seed, options=options)
        return observations[0], {}

    def step(self, action):
        observations, rewards, terminated, truncated, _ = self.vec.step(np.array([action]))
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("hosts", [0, 1])
def test_gymnasiums_own_check_of_an_environment_passes_through_a_host(env_id, hosts):
    """Seeds, determinism, types, spaces, and that nothing which was returned is written to again."""
    vec = envs.make_vec(env_id, 1, num_hosts=hosts)
    try:
        check_env(OfOne(vec), skip_render_check=True, skip_close_check=True)
    finally:
        vec.close()
