"""Environment hosts: Gymnasium vector environments that don't die with a worker.

    vec = actorlib.envs.make_vec("CartPole-v1", num_envs=8, num_hosts=2)
    observations, infos = vec.reset(seed=0)
    observations, rewards, terminations, truncations, infos = vec.step(vec.action_space.sample())

Needs ``pip install actorlib[envs]``. See docs/envs.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

try:
    import gymnasium
except ImportError as error:
    raise ImportError("actorlib.envs needs Gymnasium: pip install 'actorlib[envs]'") from error

from gymnasium.vector import AutoresetMode, VectorEnv

from actorlib.envs.errors import (
    EnvironmentCreationError,
    EnvironmentHostDiedError,
    EnvironmentHostError,
    EnvironmentNotRestorableError,
    EnvironmentSpacesError,
    InvalidActionError,
    NotWholeHostsError,
    ResetNeededError,
)
from actorlib.envs.in_process import InProcessVectorEnv
from actorlib.envs.keeper import RAISE, RESTORE, TRUNCATE
from actorlib.envs.partial_steps import Batch
from actorlib.envs.vector_env import HostedVectorEnv

ON_FAILURE = (RESTORE, TRUNCATE, RAISE)


class _Maker:
    """Makes one environment in its host."""

    def __init__(self, env: Any, kwargs: dict[str, Any], wrappers: Sequence[Callable[[Any], Any]]) -> None:
        self._env = env
        self._kwargs = kwargs
        self._wrappers = tuple(wrappers)

    def __call__(self) -> Any:
        made = self._env(**self._kwargs) if callable(self._env) else gymnasium.make(self._env, **self._kwargs)
        for wrapper in self._wrappers:
            made = wrapper(made)
        return made


def make_vec(
    env: str | Callable[..., Any] | Sequence[Callable[[], Any]],
    num_envs: int | None = None,
    *,
    num_hosts: int | None = None,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    on_failure: str = RESTORE,
    step_timeout_s: float | None = None,
    copy: bool = True,
    observation_mode: Any = "same",
    wrappers: Sequence[Callable[[Any], Any]] = (),
    host_options: dict[str, Any] | None = None,
    **env_kwargs: Any,
) -> Any:
    """A ``gymnasium.vector.VectorEnv`` whose environments live in hosts: actors, each with some of the environments.

    With the same seeds and actions it gives what ``SyncVectorEnv`` gives, in every autoreset mode.

    Args:
        env: The id of a registered environment, a callable that makes one, or a list of callables, one each.
        num_envs: How many (not with a list).
        num_hosts: Processes to spread them over; default: as many as there are CPUs, at most one for each
            environment. 0: no processes, the environments live in this one.
        autoreset_mode: NEXT_STEP, SAME_STEP or DISABLED (then reset with ``options={"reset_mask": ...}``).
        on_failure: When a host dies, hangs or its environment raises. ``"restore"``: the environments go on where
            they were, bit for bit (they must be picklable, or have ``__checkpoint__`` and ``__restore__``; it is
            tried out at once). ``"truncate"``: new ones take their place, with ``truncated`` True and
            ``info["env_failure"]``. ``"raise"``: EnvironmentHostDiedError, or what the environment raised.
        step_timeout_s: A host that answers no operation for so many seconds counts as hung, and is killed.
        copy: False: observations are views of shared memory, good until the step after next.
        observation_mode: ``"same"``, ``"different"`` (bounds may differ), or (batched space, single space).
        wrappers: Applied to each environment.
        host_options: Options of the hosts' actors, such as ``{"num_cpus": 1, "scheduling_strategy": "SPREAD"}``.
        **env_kwargs: For ``gymnasium.make``, or the callable.

    Raises:
        EnvironmentCreationError: One could not be constructed in its host.
        EnvironmentSpacesError: Their spaces differ.
        EnvironmentNotRestorableError: ``"restore"``, but an environment would not come back as it was.
    """
    env_fns = _env_fns(env, num_envs, env_kwargs, wrappers)
    mode = AutoresetMode(autoreset_mode)
    if on_failure not in ON_FAILURE:
        raise ValueError(f"on_failure={on_failure!r}; it is one of {', '.join(map(repr, ON_FAILURE))}")
    if step_timeout_s is not None and step_timeout_s <= 0:
        raise ValueError(f"step_timeout_s={step_timeout_s}; it must be positive, or None for no limit")
    if num_hosts is None:
        num_hosts = min(len(env_fns), len(os.sched_getaffinity(0)))
    if not 0 <= num_hosts <= len(env_fns):
        raise ValueError(f"num_hosts={num_hosts} for {len(env_fns)} environments; from 0 (none) to one for each")
    is_pair = isinstance(observation_mode, tuple) and len(observation_mode) == 2
    if observation_mode not in ("same", "different") and not is_pair:
        raise ValueError(f"observation_mode={observation_mode!r}; it is 'same', 'different', or a pair of spaces")
    if num_hosts == 0:
        return InProcessVectorEnv(env_fns, copy, observation_mode, mode)
    return HostedVectorEnv(
        env_fns, num_hosts, mode, on_failure, step_timeout_s, copy, observation_mode, host_options or {}
    )


def _env_fns(
    env: Any, num_envs: int | None, env_kwargs: dict[str, Any], wrappers: Sequence[Callable[[Any], Any]]
) -> list[Callable[[], Any]]:
    if isinstance(env, str) or callable(env):
        count = 1 if num_envs is None else num_envs
        if count < 1:
            raise ValueError(f"num_envs={num_envs}; at least one environment is needed")
        return [_Maker(env, env_kwargs, wrappers)] * count
    makers = list(env)
    if not makers or not all(map(callable, makers)):
        raise TypeError("env is an environment's id, a callable, or a list of callables that is not empty")
    if num_envs not in (None, len(makers)):
        raise ValueError(f"num_envs={num_envs}, but {len(makers)} callables were given; leave num_envs out")
    return [_Maker(maker, env_kwargs, wrappers) for maker in makers]


__all__ = [
    "AutoresetMode",
    "Batch",
    "EnvironmentCreationError",
    "EnvironmentHostDiedError",
    "EnvironmentHostError",
    "EnvironmentNotRestorableError",
    "EnvironmentSpacesError",
    "HostedVectorEnv",
    "InProcessVectorEnv",
    "InvalidActionError",
    "NotWholeHostsError",
    "ResetNeededError",
    "VectorEnv",
    "make_vec",
]
