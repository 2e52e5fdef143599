"""``num_hosts=0``: the environments live in the caller's own process, at SyncVectorEnv's speed.

The same methods as with hosts, so that a program needs no second way of writing it. What an environment raises is
raised; a crash takes the program down: that is what hosts are for.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError
from gymnasium.vector import SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState

from actorlib.envs.errors import ResetNeededError
from actorlib.envs.partial_steps import Batch


class InProcessVectorEnv(SyncVectorEnv):
    """See the module's docstring."""

    _pending: Any = None
    _was_reset = False

    def host_pids(self) -> list[int]:
        """No hosts."""
        return []

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._refuse_closed()
        self._was_reset = True
        return super().reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        if self.closed or not self._was_reset:
            self._refuse_closed()
            raise ResetNeededError("step before the first reset: call reset() first")
        return super().step(actions)

    def _refuse_closed(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("the vector environment was closed; make a new one")

    def _begin(self, state: AsyncState, arguments: Any) -> None:
        self._refuse_closed()
        if self._pending is not None:
            pending = self._pending[0].value
            raise AlreadyPendingCallError(f"a call to `{pending}` is pending; take its result first", pending)
        self._pending = (state, arguments)

    def _end(self, state: AsyncState) -> Any:
        self._refuse_closed()
        if self._pending is None or self._pending[0] is not state:
            raise NoAsyncCallError(f"`{state.value}` was not begun", state.value)
        (_, arguments), self._pending = self._pending, None
        return arguments

    def reset_async(self, seed: Any = None, options: dict[str, Any] | None = None) -> None:
        self._begin(AsyncState.WAITING_RESET, (seed, options))

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, dict[str, Any]]:
        seed, options = self._end(AsyncState.WAITING_RESET)
        return self.reset(seed=seed, options=options)

    def step_async(self, actions: Any) -> None:
        self._begin(AsyncState.WAITING_STEP, actions)

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        return self.step(self._end(AsyncState.WAITING_STEP))

    def call_async(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        self._begin(AsyncState.WAITING_CALL, (name, args, kwargs))

    def call_wait(self, timeout: float | None = None) -> tuple[Any, ...]:
        name, args, kwargs = self._end(AsyncState.WAITING_CALL)
        return self.call(name, *args, **kwargs)

    def apply(self, what: Any, indices: Sequence[int], *args: Any, **kwargs: Any) -> list[Any]:
        """Call a method by its name, or a function of the environment, for some environments."""
        results = []
        for index in indices:
            env = self.envs[index]
            found = functools.partial(what, env) if callable(what) else env.get_wrapper_attr(what)
            results.append(found(*args, **kwargs) if callable(found) else found)
        return results

    def send(self, actions: Any, env_ids: Sequence[int] | None = None) -> None:
        """Begin a step of all environments (there is one host at most here: this process)."""
        if env_ids is not None and list(env_ids) != list(range(self.num_envs)):
            raise ValueError("without hosts all environments step together: leave env_ids out")
        self.step_async(actions)

    def recv(self, min_envs: int = 1, timeout: float | None = None) -> Batch:
        """The results of what was sent."""
        import numpy as np

        return Batch(*self.step_wait(timeout), np.arange(self.num_envs))
