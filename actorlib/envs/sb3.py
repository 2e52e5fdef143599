"""A Stable-Baselines3 ``VecEnv`` whose environments live in hosts.

    from stable_baselines3 import PPO
    from actorlib.envs.sb3 import VecEnv

    model = PPO("MlpPolicy", VecEnv("CartPole-v1", num_envs=8, num_hosts=2))

Needs ``pip install actorlib[sb3]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from actorlib.envs import make_vec

try:
    from stable_baselines3.common.env_util import is_wrapped
    from stable_baselines3.common.vec_env import VecEnv as BaseVecEnv
except ImportError as error:
    raise ImportError("actorlib.envs.sb3 needs Stable-Baselines3: pip install 'actorlib[sb3]'") from error


def _set(env: Any, name: str, value: Any) -> None:
    env.set_wrapper_attr(name, value)


class VecEnv(BaseVecEnv):  # type: ignore[misc, unused-ignore]
    """See the module's docstring. Arguments as for ``make_vec``, without ``autoreset_mode``: SB3 has its own way, which
    is a reset in the same step, with ``terminal_observation`` in the info."""

    def __init__(self, env: Any, num_envs: int | None = None, **options: Any) -> None:
        if "autoreset_mode" in options:
            raise TypeError("autoreset_mode is Stable-Baselines3's own here: leave it out")
        self.vec = make_vec(env, num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **options)
        # SB3 wants an info for each environment rather than arrays of all.
        self.vec._add_info = self._note_info
        super().__init__(self.vec.num_envs, self.vec.single_observation_space, self.vec.single_action_space)

    @staticmethod
    def _note_info(infos: dict[Any, Any], info: dict[str, Any], index: int) -> dict[Any, Any]:
        infos.setdefault(index, {}).update(info)
        return infos

    def host_pids(self) -> list[int]:
        """The process of each host."""
        pids: list[int] = self.vec.host_pids()
        return pids

    def reset(self) -> Any:
        """Reset all environments, with what ``seed`` and ``set_options`` said; gives the observations."""
        options = self._options[0]
        if any(each != options for each in self._options):
            raise ValueError("set_options(): environments of one vector environment are reset with the same options")
        observations, infos = self.vec.reset(seed=list(self._seeds), options=options or None)
        self.reset_infos = [infos.get(index, {}) for index in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        self.vec.step_async(actions)

    def step_wait(self) -> tuple[Any, Any, Any, list[dict[str, Any]]]:
        observations, rewards, terminated, truncated, told = self.vec.step_wait()
        dones = terminated | truncated
        infos = []
        for index in range(self.num_envs):
            info = told.get(index, {})
            if dones[index]:
                failure = {"env_failure": info["env_failure"]} if "env_failure" in info else {}
                last, final = info.pop("final_obs"), info.pop("final_info")
                self.reset_infos[index] = info
                info = {**final, **failure, "terminal_observation": last}
            infos.append({**info, "TimeLimit.truncated": bool(truncated[index] and not terminated[index])})
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        self.vec.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return list(self.vec.apply(attr_name, self._chosen(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        self.vec.apply(_set, self._chosen(indices), attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return list(self.vec.apply(method_name, self._chosen(indices), *args, **kwargs))

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return list(self.vec.apply(is_wrapped, self._chosen(indices), wrapper_class))

    def get_images(self) -> list[Any]:
        return list(self.vec.render() or ())

    def _chosen(self, indices: int | Iterable[int] | None) -> list[int]:
        return [int(index) for index in self._get_indices(indices)]
