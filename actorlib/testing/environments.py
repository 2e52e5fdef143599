"""A Gymnasium environment for tests: any spaces, all drawn from its seed and actions, and traps that spring once.

    env = ScriptedEnv(spaces.Discrete(3), spaces.Dict({"a": spaces.Box(0, 1, (2,))}))

The same seed and actions give the same observations, rewards and ends, on every machine, so two ways of running it can
be compared bit for bit. Needs ``pip install actorlib[envs]``.
"""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import time
import zlib
from typing import Any

import gymnasium
import numpy as np


class ScriptedEnv(gymnasium.Env):
    """See the module's docstring.

    Args:
        action_space, observation_space: Any spaces.
        mean_steps: How long an episode is on average.
        trap: A path. When a file is there, the next step removes it and does what it says: ``kill`` (SIGKILL to its own
            process), ``hang``, ``raise`` or ``exit``.
        render_mode: As in Gymnasium.
        child: Start a child process, as simulators do; its pid is ``child_pid``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(
        self,
        action_space: Any,
        observation_space: Any,
        mean_steps: int = 8,
        trap: str = "",
        render_mode: str | None = None,
        child: bool = False,
    ) -> None:
        self.action_space = copy.deepcopy(action_space)
        self.observation_space = copy.deepcopy(observation_space)
        self.mean_steps = mean_steps
        self.trap = trap
        self.render_mode = render_mode
        self.mood = 0
        self.state = 0
        self.child_pid = subprocess.Popen(["sleep", "600"]).pid if child else 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(1 << 31)) + len(options or {})
        return self._observe(), {"began": self.state % 5} if self.state % 2 else {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._spring()
        drawn = int(self.np_random.integers(1 << 16))
        self.state = zlib.crc32(_as_bytes(action), (self.state + drawn + self.mood) & 0xFFFFFFFF)
        info: dict[str, Any] = {}
        if self.state % 3 == 0:
            info = {"state": self.state % 97, "deep": {"half": self.state / 2}}
        is_over, is_cut = self.state % self.mean_steps == 0, self.state % (2 * self.mean_steps) == 1
        return self._observe(), self.state % 1000 / 7, is_over, is_cut, info

    def _observe(self) -> Any:
        self.observation_space.seed(self.state)
        return self.observation_space.sample()

    def render(self) -> Any:
        return np.full((2, 2, 3), self.state % 256, np.uint8)

    def poke(self, strength: int) -> int:
        """Changes the state, so that a call counts in what follows."""
        self.state += strength
        return self.state

    def _spring(self) -> None:
        if not self.trap or not os.path.exists(self.trap):
            return
        with open(self.trap) as source:
            how = source.read().strip()
        os.unlink(self.trap)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exit":
            os._exit(3)
        if how == "hang":
            time.sleep(600)
        raise RuntimeError("the trap was sprung")


def _as_bytes(action: Any) -> bytes:
    if isinstance(action, dict):
        return b"".join(key.encode() + _as_bytes(action[key]) for key in sorted(action))
    if isinstance(action, tuple | list):
        return b"".join(map(_as_bytes, action))
    if isinstance(action, str):
        return action.encode()
    return np.asarray(action).tobytes()
