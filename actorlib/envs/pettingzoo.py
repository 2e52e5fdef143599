"""PettingZoo's parallel environments on a host, restored like the others when it dies.

    env = actorlib.envs.pettingzoo.parallel(make_env)
    observations, infos = env.reset(seed=0)

Needs ``pip install actorlib[pettingzoo]``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import AutoresetMode

from actorlib.envs import ON_FAILURE
from actorlib.envs.errors import EnvironmentNotRestorableError, ResetNeededError
from actorlib.envs.frames import Kind
from actorlib.envs.keeper import RESTORE, Keeper
from actorlib.envs.stage import FAILURE_KEY

try:
    from pettingzoo import ParallelEnv
except ImportError as error:
    raise ImportError("actorlib.envs.pettingzoo needs PettingZoo: pip install 'actorlib[pettingzoo]'") from error

STEP_KEY = "parallel_step"


class JointSpace(gymnasium.Space[Any]):
    """One action for each agent."""

    def __init__(self, spaces: dict[str, Any]) -> None:
        super().__init__(None, None)
        self.spaces = spaces

    def seed(self, seed: Any = None) -> Any:
        return [space.seed(seed) for space in self.spaces.values()]

    def sample(self, mask: Any = None, probability: Any = None) -> dict[str, Any]:
        return {agent: space.sample() for agent, space in self.spaces.items()}


class Solo(gymnasium.Env[Any, Any]):
    """A parallel environment as one that a host can have: what it says of its agents travels in the info."""

    def __init__(self, make_env: Callable[[], Any]) -> None:
        self.parallel = make_env()
        agents = list(self.parallel.possible_agents)
        self.metadata = {
            "parallel": dict(self.parallel.metadata),
            "possible_agents": agents,
            "observation_spaces": {agent: self.parallel.observation_space(agent) for agent in agents},
        }
        self.render_mode = getattr(self.parallel, "render_mode", None)
        self.action_space = JointSpace({agent: self.parallel.action_space(agent) for agent in agents})
        self.observation_space = gymnasium.spaces.Text(1)  # nobody asks: observations of agents travel as they are

    @property
    def unwrapped(self) -> Any:
        return self.parallel.unwrapped

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observations, infos = self.parallel.reset(seed=seed, options=options)
        return copy.deepcopy(observations), {STEP_KEY: (infos, list(self.parallel.agents))}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        living = {agent: choice for agent, choice in action.items() if agent in self.parallel.agents}
        observations, *rest = self.parallel.step(living)
        told = {STEP_KEY: (*copy.deepcopy(rest), list(self.parallel.agents))}
        return copy.deepcopy(observations), 0.0, False, False, told

    def get_wrapper_attr(self, name: str) -> Any:
        return getattr(self.parallel, name)

    def render(self) -> Any:
        return self.parallel.render()

    def close(self) -> None:
        self.parallel.close()


class _Maker:
    def __init__(self, make_env: Callable[[], Any]) -> None:
        self._make_env = make_env

    def __call__(self) -> Solo:
        return Solo(self._make_env)


class HostedParallelEnv(ParallelEnv):  # type: ignore[misc]
    """See the module's docstring; made by ``parallel``."""

    def __init__(
        self,
        make_env: Callable[[], Any],
        on_failure: str,
        step_timeout_s: float | None,
        host_options: dict[str, Any],
    ) -> None:
        mode = AutoresetMode.DISABLED.value
        self._keeper = Keeper([_Maker(make_env)], 0, mode, on_failure, step_timeout_s, host_options)
        self._last: Any = {}
        self._was_reset = self._is_closed = False
        self._keeper.last_observed = lambda: [self._last]
        try:
            self._keeper.invite()
            self._keeper.begin_building()
            described = self._keeper.built()
            for why in described.unrestorable.values():
                raise EnvironmentNotRestorableError(
                    f"the environment can't be restored after a failure: {why}. Give it __checkpoint__(self) -> state "
                    'and __restore__(self, state), or choose on_failure="truncate" or "raise"'
                )
        except BaseException:
            self._keeper.close(None, True)
            raise
        self.metadata = described.metadata["parallel"]
        self.possible_agents = list(described.metadata["possible_agents"])
        self.agents: list[str] = []
        self.render_mode = described.render_mode
        self.observation_spaces = described.metadata["observation_spaces"]
        self.action_spaces = described.action_spaces[0].spaces

    def observation_space(self, agent: str) -> Any:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        return self.action_spaces[agent]

    def host_pids(self) -> list[int]:
        """The process of the host."""
        return [self._keeper.pid]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Observations and infos of the agents."""
        self._refuse_closed()
        self._keeper.send(Kind.RESET, 0, ([seed], options, None))
        reply = self._keeper.finish()
        assert reply.observations is not None and reply.infos is not None
        self._was_reset = True
        self._last = reply.observations[0]
        infos, self.agents = reply.infos[0][1][STEP_KEY]
        return self._last, infos

    def step(self, actions: dict[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """Observations, rewards, terminations, truncations and infos of the agents."""
        self._refuse_closed()
        if not self._was_reset:
            raise ResetNeededError("step before the first reset: call reset() first")
        self._keeper.send(Kind.STEP_WITH, 0, [dict(actions)])
        reply = self._keeper.finish()
        assert reply.observations is not None and reply.infos is not None
        info = reply.infos[0][1]
        if FAILURE_KEY in info:
            return self._cut(info[FAILURE_KEY])
        self._last = reply.observations[0]
        rewards, terminations, truncations, infos, self.agents = info[STEP_KEY]
        return self._last, rewards, terminations, truncations, infos

    def _cut(self, reason: str) -> tuple[Any, Any, Any, Any, Any]:
        """The episode ends for all agents; what they saw last is what they see."""
        agents, self.agents = self.agents, []
        seen = {agent: self._last.get(agent) for agent in agents}
        infos = {agent: {FAILURE_KEY: reason} for agent in agents}
        zero, over = dict.fromkeys(agents, 0.0), dict.fromkeys(agents, True)
        return seen, zero, dict.fromkeys(agents, False), over, infos

    def _called(self, name: str) -> Any:
        self._refuse_closed()
        self._keeper.send(Kind.CALL, 0, (name, (), {}, None))
        return self._keeper.finish().result[0]

    def render(self) -> Any:
        return self._called("render")

    def state(self) -> Any:
        """The state of the whole, for environments that have one."""
        return self._called("state")

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise ClosedEnvironmentError("the environment was closed; make a new one")

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._keeper.close(None, False)

    def __del__(self) -> None:
        if hasattr(self, "_keeper") and not self._is_closed:
            self._is_closed = True
            self._keeper.close(None, True)


def parallel(
    make_env: Callable[[], Any],
    *,
    on_failure: str = RESTORE,
    step_timeout_s: float | None = None,
    host_options: dict[str, Any] | None = None,
) -> HostedParallelEnv:
    """A PettingZoo parallel environment on a host of its own.

    Args:
        make_env: Makes the environment, in the host.
        on_failure, step_timeout_s, host_options: As for ``actorlib.envs.make_vec``. With ``"truncate"`` the episode
            ends for all agents, with the reason in each one's ``info["env_failure"]``; then ``reset``.
    """
    if on_failure not in ON_FAILURE:
        raise ValueError(f"on_failure={on_failure!r}; it is one of {', '.join(map(repr, ON_FAILURE))}")
    return HostedParallelEnv(make_env, on_failure, step_timeout_s, host_options or {})
