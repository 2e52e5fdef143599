"""What can't work is refused at once, by a typed error that says what to do."""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading

import gymnasium
import numpy as np
import pytest
from gymnasium import error as gymnasium_error
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv

import actorlib
from actorlib import envs
from actorlib.testing.environments import ScriptedEnv

BOX = spaces.Box(-1, 1, (3,), np.float32)


@pytest.fixture(scope="module", autouse=True)
def session():
    actorlib.init(num_cpus=2)
    yield
    actorlib.shutdown()


@pytest.fixture(scope="module")
def boxed():
    """Two environments with Box actions on one host."""
    vec = envs.make_vec(functools.partial(ScriptedEnv, spaces.Box(-1, 1, (2,), np.float32), BOX), 2, num_hosts=1)
    vec.reset(seed=1)
    yield vec
    vec.close()


def impossible():
    raise FileNotFoundError("no such scene: desert.xml")


def fatal():
    os._exit(9)


@pytest.mark.parametrize("make, why", [(impossible, "no such scene: desert.xml"), (fatal, "exited with status 9")])
@pytest.mark.parametrize("on_failure", ["restore", "truncate"])
def test_an_environment_that_can_not_be_constructed(make, why, on_failure):
    fine = functools.partial(ScriptedEnv, spaces.Discrete(2), BOX)
    with pytest.raises(envs.EnvironmentCreationError, match=why) as caught:
        envs.make_vec([fine, make], num_hosts=2, on_failure=on_failure)
    assert "environments 1 to 1" in str(caught.value)


def test_hosts_that_can_not_be_started():
    with pytest.raises(envs.EnvironmentCreationError, match="unobtainium"):
        envs.make_vec("CartPole-v1", 4, num_hosts=2, host_options={"resources": {"unobtainium": 1}})


def test_an_environment_that_is_not_registered():
    with pytest.raises(envs.EnvironmentCreationError, match="NoSuchThing"):
        envs.make_vec("NoSuchThing-v0", 2, num_hosts=1)


def test_spaces_that_differ():
    fns = [functools.partial(ScriptedEnv, spaces.Discrete(2), space) for space in (BOX, spaces.Box(-2, 1, (3,)))]
    with pytest.raises(envs.EnvironmentSpacesError, match=r'environment 1 .*observation_mode="different"'):
        envs.make_vec(fns, num_hosts=2)
    vec = envs.make_vec(fns, num_hosts=2, observation_mode="different")
    assert vec.observation_space == SyncVectorEnv(fns, observation_mode="different").observation_space
    vec.close()
    fns = [functools.partial(ScriptedEnv, spaces.Discrete(2), space) for space in (BOX, spaces.Box(-1, 1, (4,)))]
    with pytest.raises(envs.EnvironmentSpacesError):
        envs.make_vec(fns, num_hosts=1, observation_mode="different")
    fns = [functools.partial(ScriptedEnv, spaces.Discrete(count), BOX) for count in (2, 3)]
    with pytest.raises(RuntimeError, match="environment 1 has the action space"):
        envs.make_vec(fns, num_hosts=1)


@pytest.mark.parametrize(
    "actions, why",
    [
        (np.zeros((3, 2), np.float32), r"shape \(3, 2\), expected \(2, 2\)"),
        (np.zeros(2, np.float32), r"shape \(2,\)"),
        (0, r"shape \(\)"),
        ([[0.0, 0.0], [0.0]], "not an array"),
        (np.array([["a", "b"], ["c", "d"]]), r"astype\(np.float32\)"),
        (np.zeros((2, 2), complex), "complex128, expected float32"),
        (None, "shape"),
    ],
)
def test_actions_of_the_wrong_shape_or_type(boxed, actions, why):
    with pytest.raises(envs.InvalidActionError, match=why) as caught:
        boxed.step(actions)
    assert isinstance(caught.value, gymnasium_error.InvalidAction)
    boxed.step(np.zeros((2, 2), np.float32))


def test_actions_of_another_type_of_the_same_kind_arrive_as_they_are(boxed):
    sync = SyncVectorEnv([functools.partial(ScriptedEnv, spaces.Box(-1, 1, (2,), np.float32), BOX)] * 2)
    boxed.reset(seed=1), sync.reset(seed=1)
    for actions in (np.full((2, 2), 0.1), [[0.1, 0.2], [0.3, 0.4]], np.full((2, 2), 0.1, np.float16)):
        assert np.array_equal(boxed.step(actions)[0], sync.step(actions)[0])


@pytest.mark.parametrize("hosts", [0, 1])
def test_a_step_before_the_first_reset_and_after_the_end(hosts):
    vec = envs.make_vec("CartPole-v1", 2, num_hosts=hosts)
    assert isinstance(vec, VectorEnv)
    actions = np.zeros(2, np.int64)
    with pytest.raises(gymnasium_error.ResetNeeded, match=r"reset\(\)"):
        vec.step(actions)
    vec.reset(seed=1)
    vec.close()
    vec.close()
    for refused in (lambda: vec.step(actions), vec.reset, lambda: vec.call_async("render"), vec.step_wait):
        with pytest.raises(gymnasium_error.ClosedEnvironmentError):
            refused()


@pytest.mark.parametrize("hosts", [0, 1])
def test_begun_and_awaited_belong_together(hosts):
    vec = envs.make_vec("CartPole-v1", 2, num_hosts=hosts)
    try:
        with pytest.raises(gymnasium_error.NoAsyncCallError):
            vec.reset_wait()
        vec.reset_async(seed=1)
        with pytest.raises(gymnasium_error.AlreadyPendingCallError):
            vec.call_async("render")
        with pytest.raises(gymnasium_error.NoAsyncCallError):
            vec.step_wait()
        vec.reset_wait()
        vec.step_async(np.zeros(2, np.int64))
        with pytest.raises(gymnasium_error.AlreadyPendingCallError):
            vec.step_async(np.zeros(2, np.int64))
        vec.step_wait()
        vec.call_async("get_wrapper_attr", "spec")
        assert len(vec.call_wait()) == 2
        with pytest.raises(ValueError, match="3"):
            vec.set_attr("x", [1, 2, 3])
        with pytest.raises(ValueError, match="3"):
            vec.reset(seed=[1, 2, 3])
    finally:
        vec.close()


def test_patience_may_end_and_begin_again(tmp_path):
    gate = tmp_path / "gate"
    vec = envs.make_vec(functools.partial(Gated, str(gate)), 2, num_hosts=2)
    try:
        vec.reset(seed=1)
        vec.step_async(np.zeros(2, np.int64))
        with pytest.raises(multiprocessing.TimeoutError, match="2 of 2 hosts"):
            vec.step_wait(timeout=0.05)
        gate.write_text("open")
        assert vec.step_wait(timeout=60)[0].shape == (2, 3)
    finally:
        vec.close()


class Gated(ScriptedEnv):
    """Its steps wait until a file is there, once it was reset by a vector environment."""

    def __init__(self, gate):
        super().__init__(spaces.Discrete(2), BOX)
        self.gate = gate

    def reset(self, *, seed=None, options=None):
        self.mood = int(seed == 1 or seed == 2)
        return super().reset(seed=seed, options=options)

    def step(self, action):
        while self.mood and not os.path.exists(self.gate):
            threading.Event().wait(0.005)
        return super().step(action)


@pytest.mark.parametrize(
    "options, kind, why",
    [
        ({"on_failure": "ignore"}, ValueError, "'restore', 'truncate', 'raise'"),
        ({"step_timeout_s": 0}, ValueError, "positive"),
        ({"num_hosts": 3}, ValueError, "from 0"),
        ({"num_hosts": -1}, ValueError, "from 0"),
        ({"num_envs": 0}, ValueError, "at least one"),
        ({"observation_mode": "mixed"}, ValueError, "'different'"),
        ({"autoreset_mode": "sometimes"}, ValueError, "sometimes"),
        ({"host_options": {"num_cpu": 1}}, (ValueError, TypeError), "num_cpu"),
        ({"no_such_argument": 1, "num_hosts": 1}, envs.EnvironmentCreationError, "no_such_argument"),
    ],
)
def test_arguments_that_make_no_sense(options, kind, why):
    with pytest.raises(kind, match=why):
        envs.make_vec("CartPole-v1", **{"num_envs": 2, "num_hosts": 1, **options})
    with pytest.raises(TypeError, match="list of callables"):
        envs.make_vec([])
    with pytest.raises(ValueError, match="leave num_envs out"):
        envs.make_vec([fatal], num_envs=2)


@pytest.mark.parametrize(
    "mask, kind",
    [
        ([True, False], TypeError),
        (np.array([1, 0]), TypeError),
        (np.ones(3, bool), ValueError),
        (np.zeros(2, bool), ValueError),
    ],
)
def test_masks_that_select_nothing_sensible(boxed, mask, kind):
    with pytest.raises(kind, match="reset_mask"):
        boxed.reset(options={"reset_mask": mask})


def test_gymnasiums_own_check_of_a_vector_environment_passes(boxed):
    observations, infos = boxed.reset(seed=3)
    assert observations in boxed.observation_space and isinstance(infos, dict)
    results = boxed.step(boxed.action_space.sample())
    assert results[0] in boxed.observation_space
    assert [array.dtype for array in results[1:4]] == [np.float64, np.bool_, np.bool_]
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(boxed)
    wrapped.reset(seed=1)
    for _ in range(30):
        infos = wrapped.step(wrapped.action_space.sample())[4]
        if "episode" in infos:
            return
    pytest.fail("no episode ended")
