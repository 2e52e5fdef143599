"""send and recv: each environment's own trajectory is what it would be if all stepped together."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import AlreadyPendingCallError
from gymnasium.vector import SyncVectorEnv

import actorlib
from actorlib import envs
from actorlib.envs.snapshot import same
from actorlib.testing.environments import ScriptedEnv

ACTION = spaces.Discrete(4)
OBSERVATIONS = {"box": spaces.Box(-1, 1, (3,), np.float32), "text": spaces.Text(4)}


class Slow(ScriptedEnv):
    """Takes its time where its attribute says so."""

    def step(self, action):
        time.sleep(self.mood)
        return super().step(action)


@pytest.fixture(scope="module", autouse=True)
def session():
    actorlib.init(num_cpus=2)
    yield
    actorlib.shutdown()


def made(count, hosts, observation="box", cls=ScriptedEnv, **more):
    fns = [functools.partial(cls, ACTION, OBSERVATIONS[observation])] * count
    return SyncVectorEnv(fns), envs.make_vec(fns, num_hosts=hosts, **more)


@pytest.mark.parametrize("observation", sorted(OBSERVATIONS))
@pytest.mark.parametrize("copy", [True, False])
def test_each_environment_goes_its_own_way(observation, copy):
    sync, vec = made(6, 3, observation, copy=copy)
    rng = np.random.default_rng(1)
    script = rng.integers(4, size=(12, 6))
    try:
        vec.reset(seed=1), sync.reset(seed=1)
        expected = [sync.step(actions) for actions in script]
        steps = [0] * 6
        vec.send(script[0])
        while min(steps) < len(script):
            batch = vec.recv(int(rng.integers(1, 3)))
            for row, env in enumerate(batch.env_ids):
                want = expected[steps[env]]
                assert same(batch.observations[row], want[0][env]), f"environment {env}, step {steps[env]}"
                assert (batch.rewards[row], batch.terminations[row], batch.truncations[row]) == (
                    want[1][env],
                    want[2][env],
                    want[3][env],
                )
                if want[4].get("_state", np.zeros(6, bool))[env]:
                    assert batch.infos["state"][env] == want[4]["state"][env]
                steps[env] += 1
            if rng.random() < 0.3:
                os.kill(vec.host_pids()[vec.host_of_env[batch.env_ids[0]]], signal.SIGKILL)
            again = [env for env in batch.env_ids if steps[env] < len(script)]
            if again:
                vec.send(np.array([script[steps[env]][env] for env in again]), again)
    finally:
        vec.close()


def test_the_first_that_are_ready_come_first():
    _, vec = made(2, 2, cls=Slow)
    try:
        vec.reset(seed=1)
        vec.set_attr("mood", [30, 0])
        vec.send(np.array([0, 0]))
        assert vec.recv().env_ids.tolist() == [1]
        vec.send(np.array([2]), [1])
        assert vec.recv().env_ids.tolist() == [1]
        with pytest.raises(multiprocessing.TimeoutError, match=r"0 of 1 environments"):
            vec.recv(timeout=0.05)
        with pytest.raises(AlreadyPendingCallError):
            vec.step(np.array([0, 0]))
        with pytest.raises(AlreadyPendingCallError):
            vec.send(np.array([0]), [0])
    finally:
        vec.close(terminate=True)


def test_what_is_sent_is_checked():
    _, vec = made(4, 2)
    try:
        with pytest.raises(envs.ResetNeededError):
            vec.send(np.zeros(4, np.int64))
        vec.reset(seed=1)
        with pytest.raises(envs.NotWholeHostsError, match=r"\[\[0, 1\], \[2, 3\]\]"):
            vec.send(np.zeros(2, np.int64), [1, 2])
        with pytest.raises(envs.InvalidActionError, match="3 actions for 4"):
            vec.send([0, 0, 0])
        with pytest.raises(ValueError, match="0 environments have a step under way"):
            vec.recv()
        vec.send([1, 2], [2, 3])
        with pytest.raises(ValueError, match="2 environments have a step under way"):
            vec.recv(3)
        assert vec.recv(2).env_ids.tolist() == [2, 3]
    finally:
        vec.close()


def test_a_silent_host_is_dealt_with_while_others_are_awaited(tmp_path):
    trap = tmp_path / "trap"
    fns = [functools.partial(ScriptedEnv, ACTION, OBSERVATIONS["box"], 1000, trap) for trap in ("", str(trap))]
    sync = SyncVectorEnv([functools.partial(ScriptedEnv, ACTION, OBSERVATIONS["box"], 1000)] * 2)
    vec = envs.make_vec(fns, num_hosts=2, step_timeout_s=0.5)
    try:
        vec.reset(seed=1), sync.reset(seed=1)
        trap.write_text("hang")
        vec.send(np.array([1, 1]))
        batch = vec.recv(2)
        assert same(batch.observations, sync.step(np.array([1, 1]))[0]) and not trap.exists()
    finally:
        vec.close()


class Brittle(ScriptedEnv):
    """One action is too much for it."""

    def step(self, action):
        if action == 3:
            raise ZeroDivisionError("three is too much")
        return super().step(action)


def test_an_error_of_one_leaves_the_results_of_the_others_to_be_had():
    _, vec = made(3, 3, cls=Brittle, on_failure="raise")
    try:
        vec.reset(seed=1)
        vec.send(np.array([0, 3, 0]))
        with pytest.raises(ZeroDivisionError):
            vec.recv(3)
        assert vec.recv(2).env_ids.tolist() == [0, 2]
        vec.send(np.array([1, 1, 1]))
        assert vec.recv(3).env_ids.tolist() == [0, 1, 2]
    finally:
        vec.close()


def test_double_buffering_leaves_the_batch_before_as_it_was():
    _, vec = made(2, 1, copy=False)
    try:
        first, _ = vec.reset(seed=1)
        kept = first.copy()
        second = vec.step(np.array([0, 1]))[0]
        assert same(first, kept) and not same(first, second)
        assert np.shares_memory(vec.step(np.array([0, 1]))[0], first), "two slots, used in turn"
    finally:
        vec.close()
