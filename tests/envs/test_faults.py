"""Hosts that die, hang or raise: what goes on, what is reported, and what is left alone."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading

import gymnasium
import numpy as np
import psutil
import pytest
from gymnasium import spaces
from gymnasium.utils import EzPickle
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import actorlib
from actorlib import envs
from actorlib.envs import channel
from actorlib.envs.snapshot import same
from actorlib.testing.environments import ScriptedEnv

ACTIONS = {
    "discrete": spaces.Discrete(4),
    "box": spaces.Box(-1, 1, (2,), np.float32),
    "dict": spaces.Dict({"a": spaces.Discrete(2), "b": spaces.MultiBinary(3)}),
}
OBSERVATIONS = {
    "box": spaces.Box(-1, 1, (3,), np.float32),
    "dict": spaces.Dict({"x": spaces.Box(0, 255, (2, 2), np.uint8), "y": spaces.Tuple((spaces.Discrete(3),))}),
    "text": spaces.Text(4),
}


@pytest.fixture(scope="module", autouse=True)
def session():
    actorlib.init(num_cpus=2)
    yield
    actorlib.shutdown()


def scripted(count, action="discrete", observation="box", **more):
    return [functools.partial(ScriptedEnv, ACTIONS[action], OBSERVATIONS[observation], **more) for _ in range(count)]


def kill(vec, host):
    pid = vec.host_pids()[host]
    with contextlib.suppress(ProcessLookupError):  # it was killed a moment ago, and not missed yet
        os.kill(pid, signal.SIGKILL)
    return pid


# -- random spaces -----------------------------------------------------------------------------------------------------
SMALL = st.integers(1, 4)
LEAVES = st.one_of(
    SMALL.map(spaces.Discrete),
    st.lists(SMALL, min_size=1, max_size=3).map(spaces.MultiDiscrete),
    SMALL.map(spaces.MultiBinary),
    st.builds(
        lambda shape, kind: spaces.Box(0, 200 if kind is np.uint8 else 1, tuple(shape), kind),
        st.lists(SMALL, max_size=3),
        st.sampled_from([np.float32, np.float64, np.uint8, np.int64]),
    ),
)


def nested(leaves):
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3).map(spaces.Dict),
            st.lists(inner, min_size=1, max_size=3).map(lambda items: spaces.Tuple(tuple(items))),
        ),
        max_leaves=4,
    )


ANY_ACTIONS = nested(LEAVES)
ANY_OBSERVATIONS = nested(st.one_of(LEAVES, st.integers(1, 6).map(spaces.Text)))


# -- restore -----------------------------------------------------------------------------------------------------------
@st.composite
def runs(draw):
    count = draw(st.integers(1, 5))
    hosts = draw(st.integers(1, min(3, count)))
    steps = draw(st.integers(3, 25))
    kills = draw(
        st.lists(st.tuples(st.integers(0, steps - 1), st.integers(0, hosts - 1), st.booleans()), min_size=1, max_size=3)
    )
    return {
        "count": count,
        "hosts": hosts,
        "steps": steps,
        "kills": kills,
        "seed": draw(st.integers(0, 1 << 30)),
        "mode": draw(st.sampled_from(list(AutoresetMode))),
        "action": draw(ANY_ACTIONS),
        "observation": draw(ANY_OBSERVATIONS),
        "far": draw(st.booleans()),
    }


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(run=runs())
def test_a_trajectory_with_faults_equals_the_one_without(run):
    fns = [functools.partial(ScriptedEnv, run["action"], run["observation"])] * run["count"]
    sync = SyncVectorEnv(fns, autoreset_mode=run["mode"])
    place = channel.Invitation.place
    if run["far"]:
        channel.Invitation.place = lambda self, path: path + "-of-another-machine"
    vec = envs.make_vec(fns, num_hosts=run["hosts"], autoreset_mode=run["mode"])
    try:
        assert same(vec.reset(seed=run["seed"]), sync.reset(seed=run["seed"]))
        sync.action_space.seed(run["seed"])
        for step in range(run["steps"]):
            due = [(host, during) for at, host, during in run["kills"] if at == step]
            for host, during in due:
                if not during:
                    kill(vec, host)
            actions = sync.action_space.sample()
            vec.step_async(actions)
            for host, during in due:
                if during:
                    kill(vec, host)
            expected = sync.step(actions)
            assert same(vec.step_wait(), expected), f"step {step}"
            over = expected[2] | expected[3]
            if run["mode"] is AutoresetMode.DISABLED and over.any():
                again = [each.reset(options={"reset_mask": over.copy()}) for each in (vec, sync)]
                assert same(*again), f"reset after {step}"
        assert same(vec.call("poke", 1), sync.call("poke", 1))
    finally:
        vec.close()
        channel.Invitation.place = place


def test_a_long_run_is_repeated_from_a_checkpoint_and_not_from_its_start():
    vec = envs.make_vec("CartPole-v1", 4, num_hosts=1)
    sync = gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="sync")
    keeper = vec._keepers[0]
    try:
        vec.reset(seed=1), sync.reset(seed=1)
        vec.action_space.seed(2)
        longest = 0
        for _ in range(4000):
            actions = vec.action_space.sample()
            one, other = vec.step(actions), sync.step(actions)
            longest = max(longest, len(keeper._since))
        assert longest < 4000, "no checkpoint came meanwhile"
        kill(vec, 0)
        actions = vec.action_space.sample()
        one, other = vec.step(actions), sync.step(actions)
        assert same(one, other)
    finally:
        vec.close()


def test_calls_and_attributes_are_part_of_what_is_repeated():
    fns = scripted(3)
    sync, vec = SyncVectorEnv(fns), envs.make_vec(fns, num_hosts=1)
    try:
        for each in (sync, vec):
            each.reset(seed=4)
            each.set_attr("mood", [1, 2, 3])
            each.call("poke", 9)
        kill(vec, 0)
        assert vec.get_attr("mood") == (1, 2, 3)
        kill(vec, 0)
        actions = vec.action_space.sample()
        assert same(vec.step(actions), sync.step(actions))
        with pytest.raises(AttributeError, match="nothing_like_it"):
            vec.call("nothing_like_it")
        kill(vec, 0)
        assert same(vec.step(actions), sync.step(actions))
    finally:
        vec.close()


@pytest.mark.parametrize("how", ["kill", "exit", "hang", "raise"])
def test_what_happens_once_is_made_good(how, tmp_path):
    trap = tmp_path / "trap"
    fns = [*scripted(2, mean_steps=1000), *scripted(2, mean_steps=1000, trap=str(trap))]
    sync, vec = SyncVectorEnv(scripted(4, mean_steps=1000)), envs.make_vec(fns, num_hosts=2, step_timeout_s=1.0)
    try:
        vec.reset(seed=4), sync.reset(seed=4)
        sync.action_space.seed(4)
        before = vec.host_pids()
        for step in range(8):
            actions = sync.action_space.sample()
            expected = sync.step(actions)
            if step == 5:
                trap.write_text(how)
            assert same(vec.step(actions), expected), f"step {step}"
        after = vec.host_pids()
        assert after[0] == before[0], "the other host was left alone"
        assert (after[1] == before[1]) == (how == "raise")
    finally:
        vec.close()


class Brittle(ScriptedEnv):
    """In a bad mood it fails at one action, whenever it is tried."""

    def __init__(self, how):
        super().__init__(ACTIONS["discrete"], OBSERVATIONS["box"])
        self.how = how

    def step(self, action):
        if self.mood and action == 3 and self.how == "exit":
            print("the simulator gives up", file=sys.stderr, flush=True)
            os._exit(7)
        if self.mood and action == 3:
            raise ZeroDivisionError("three is too much")
        return super().step(action)


@pytest.mark.parametrize("how, kind", [("exit", envs.EnvironmentHostDiedError), ("raise", ZeroDivisionError)])
def test_what_always_fails_is_not_tried_for_ever_and_nothing_is_lost(how, kind):
    sync = SyncVectorEnv(scripted(2))
    vec = envs.make_vec(functools.partial(Brittle, how), 2, num_hosts=1)
    try:
        for each in (vec, sync):
            each.reset(seed=8)
            each.set_attr("mood", 1)
        good = np.array([1, 2])
        vec.step(good), sync.step(good)
        with pytest.raises(kind) as caught:
            vec.step(np.array([1, 3]))
        if how == "exit":
            assert "exited with status 7" in str(caught.value) and "the simulator gives up" in str(caught.value)
            assert "Go on with another action" in str(caught.value)
        assert same(vec.step(good), sync.step(good)), "the environments are where they were before"
    finally:
        vec.close()


class Handle(gymnasium.Env):
    """A simulator that can't be pickled, and says itself what must be kept."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(-1e9, 1e9, (1,), np.float64)

    def __init__(self):
        self.handle = threading.Lock()
        self.position = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = int(self.np_random.integers(1000))
        return np.array([self.position], np.float64), {}

    def step(self, action):
        self.position += int(action) + int(self.np_random.integers(5))
        return np.array([self.position], np.float64), 1.0, False, False, {}


class HandleWithHooks(Handle):
    def __checkpoint__(self):
        return self.position, self.np_random.bit_generator.state

    def __restore__(self, state):
        self.position, generator = state
        self.np_random.bit_generator.state = generator


class Forgetful(EzPickle, ScriptedEnv):
    """Can be pickled, and comes back as if newly made."""

    def __init__(self, action_space, observation_space):
        EzPickle.__init__(self, action_space, observation_space)
        ScriptedEnv.__init__(self, action_space, observation_space)


def limited(env):
    return gymnasium.wrappers.TimeLimit(env, 7)


def test_state_hooks_are_used_and_wrappers_keep_their_own_state():
    vec = envs.make_vec(HandleWithHooks, 2, num_hosts=1, wrappers=[limited])
    sync = SyncVectorEnv([lambda: limited(HandleWithHooks())] * 2)
    try:
        vec.reset(seed=1), sync.reset(seed=1)
        for step in range(20):
            if step % 5 == 3:
                kill(vec, 0)
            actions = np.array([step % 2, 1])
            assert same(vec.step(actions), sync.step(actions)), f"step {step}"
    finally:
        vec.close()


FORGETFUL = functools.partial(Forgetful, ACTIONS["discrete"], OBSERVATIONS["box"])


@pytest.mark.parametrize("make, why", [(Handle, "lock"), (FORGETFUL, "did not go on|Error")])
def test_what_can_not_be_restored_is_refused_at_once(make, why):
    with pytest.raises(envs.EnvironmentNotRestorableError, match=why) as caught:
        envs.make_vec(make, 2, num_hosts=1)
    assert "__checkpoint__" in str(caught.value) and 'on_failure="truncate"' in str(caught.value)
    vec = envs.make_vec(make, 2, num_hosts=1, on_failure="truncate")
    vec.close()


# -- truncate ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("how", ["kill", "hang", "raise"])
def test_truncate_ends_the_episodes_of_the_failed_host_only(mode, how, tmp_path):
    trap = tmp_path / "trap"
    fns = [*scripted(2, mean_steps=1000), *scripted(2, mean_steps=1000, trap=str(trap))]
    sync = SyncVectorEnv(scripted(4, mean_steps=1000), autoreset_mode=mode)
    vec = envs.make_vec(fns, num_hosts=2, autoreset_mode=mode, on_failure="truncate", step_timeout_s=1.0)
    try:
        vec.reset(seed=6), sync.reset(seed=6)
        actions = np.array([1, 2, 3, 0])
        last, last_sync = vec.step(actions), sync.step(actions)
        assert same(last, last_sync)
        expected = sync.step(actions)
        trap.write_text(how)
        observations, rewards, terminated, truncated, infos = vec.step(actions)
        assert same(observations[:2], expected[0][:2]) and same(rewards[:2], expected[1][:2])
        failed = [2] if how == "raise" else [2, 3]  # an exception concerns its own environment alone
        assert truncated.tolist() == [index in failed for index in range(4)] and not terminated.any()
        assert all(rewards[index] == 0 for index in failed)
        word = {"kill": "SIGKILL", "hang": "step_timeout_s=1.0", "raise": "the trap was sprung"}[how]
        for index in failed:
            assert word in infos["env_failure"][index]
            before = infos["final_obs"][index] if mode is AutoresetMode.SAME_STEP else observations[index]
            assert same(before, last[0][index]), "what was seen last"
        if mode is AutoresetMode.DISABLED:
            vec.reset(options={"reset_mask": truncated})
        observations, rewards, terminated, truncated, infos = vec.step(actions)
        assert same(observations[:2], sync.step(actions)[0][:2])
        assert not truncated.any() and "env_failure" not in infos
    finally:
        vec.close()


def test_truncate_outside_of_a_step_is_told_by_the_next_one():
    vec = envs.make_vec(scripted(2, mean_steps=1000), num_hosts=2, on_failure="truncate")
    try:
        vec.reset(seed=2)
        kill(vec, 1)
        assert vec.get_attr("mood") == (0, 0)
        _, _, _, truncated, infos = vec.step(np.array([0, 0]))
        assert truncated.tolist() == [False, True] and "SIGKILL" in infos["env_failure"][1]
        kill(vec, 0)
        assert vec.reset(seed=2)[0].shape == (2, 3)
        assert not vec.step(np.array([0, 0]))[3].any(), "a reset has nothing to tell"
    finally:
        vec.close()


# -- raise -------------------------------------------------------------------------------------------------------------
def test_raise_says_why_and_a_reset_builds_anew():
    vec = envs.make_vec(scripted(4), num_hosts=2, on_failure="raise")
    try:
        vec.reset(seed=2)
        pid = kill(vec, 1)
        with pytest.raises(envs.EnvironmentHostDiedError, match="SIGKILL") as caught:
            vec.step(np.zeros(4, np.int64))
        assert str(pid) in str(caught.value) and "reset()" in str(caught.value)
        with pytest.raises(envs.EnvironmentHostDiedError, match="reset"):
            vec.step(np.zeros(4, np.int64))
        again = vec.reset(seed=2)
        assert same(again, SyncVectorEnv(scripted(4)).reset(seed=2))
        assert vec.host_pids()[1] != pid
        vec.step(np.zeros(4, np.int64))
    finally:
        vec.close()


def test_children_of_a_host_end_with_it():
    vec = envs.make_vec(scripted(2, child=True), num_hosts=2, on_failure="truncate")
    try:
        vec.reset(seed=1)
        first, second = vec.get_attr("child_pid")
        assert psutil.pid_exists(first) and psutil.pid_exists(second)
        kill(vec, 0)
        vec.step(np.zeros(2, np.int64))
        assert not psutil.pid_exists(first) and psutil.pid_exists(second)
    finally:
        vec.close()
