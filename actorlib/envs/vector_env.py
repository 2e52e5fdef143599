"""A ``gymnasium.vector.VectorEnv`` whose environments live in hosts that may die.

Used like ``AsyncVectorEnv``; the results are those of ``SyncVectorEnv`` with the same seeds and actions, whatever
happens to the hosts meanwhile (``on_failure="restore"``).
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError
from gymnasium.spaces.utils import is_space_dtype_shape_equiv
from gymnasium.vector import AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import batch_differing_spaces, batch_space, concatenate, create_empty_array, iterate

from actorlib.envs import layout
from actorlib.envs.errors import (
    EnvironmentNotRestorableError,
    EnvironmentSpacesError,
    InvalidActionError,
    ResetNeededError,
)
from actorlib.envs.frames import Kind, Reply
from actorlib.envs.keeper import RESTORE, Keeper, Memory
from actorlib.envs.layout import SLOTS, Board
from actorlib.envs.partial_steps import PartialSteps


class HostedVectorEnv(PartialSteps):
    """See the module's docstring; made by ``actorlib.envs.make_vec``, which explains the arguments."""

    def __init__(
        self,
        env_fns: Sequence[Callable[[], Any]],
        num_hosts: int,
        autoreset_mode: AutoresetMode,
        on_failure: str,
        step_timeout_s: float | None,
        copy: bool,
        observation_mode: Any,
        host_options: dict[str, Any],
    ) -> None:
        super().__init__()
        self.num_envs = len(env_fns)
        self.autoreset_mode = autoreset_mode
        self.on_failure = on_failure
        self.copy = copy
        self.observation_mode = observation_mode
        self._state = AsyncState.DEFAULT
        self._was_reset = False
        self._slot = 0
        self._keepers: list[Keeper] = []
        self._memory_fd = -1
        bounds = np.linspace(0, self.num_envs, num_hosts + 1).astype(int).tolist()
        try:
            for begin, end in itertools.pairwise(bounds):
                self._keepers.append(
                    Keeper(env_fns[begin:end], begin, autoreset_mode.value, on_failure, step_timeout_s, host_options)
                )
            self._build()
        except BaseException:
            self.close(terminate=True)
            raise

    # -- building ------------------------------------------------------------------------------------------------------
    def _build(self) -> None:
        for keeper in self._keepers:
            keeper.invite()
        for keeper in self._keepers:
            keeper.begin_building()
        described = [keeper.built() for keeper in self._keepers]
        self.metadata = {**described[0].metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = described[0].render_mode
        self._take_spaces(
            [space for each in described for space in each.observation_spaces],
            [space for each in described for space in each.action_spaces],
        )
        if self.on_failure == RESTORE:
            self._refuse_unrestorable(described)
        self._share()

    def _refuse_unrestorable(self, described: list[Any]) -> None:
        for keeper, each in zip(self._keepers, described, strict=True):
            for index, why in each.unrestorable.items():
                raise EnvironmentNotRestorableError(
                    f"environment {keeper.begin + index} can't be restored after a failure: {why}. Give it (or the "
                    "environment that it wraps) __checkpoint__(self) -> state and __restore__(self, state), or choose "
                    'on_failure="truncate" (its episode ends, new ones go on) or on_failure="raise"'
                )

    def _take_spaces(self, observation_spaces: list[Any], action_spaces: list[Any]) -> None:
        mode = self.observation_mode
        single = mode[1] if isinstance(mode, tuple) else observation_spaces[0]
        for index, (observed, acted) in enumerate(zip(observation_spaces, action_spaces, strict=True)):
            fits = observed == single if mode == "same" else is_space_dtype_shape_equiv(observed, single)
            if not fits:
                raise EnvironmentSpacesError(
                    f"environment {index} has the observation space {observed}, which does not fit {single}. "
                    "Environments of one shape and type whose bounds differ go together with observation_mode="
                    '"different"; others need a wrapper, or a vector environment each'
                )
            if acted != action_spaces[0]:
                raise EnvironmentSpacesError(
                    f"environment {index} has the action space {acted}, the first one {action_spaces[0]}; "
                    "all must have the same: wrap those that differ, or make a vector environment for each kind"
                )
        self.single_action_space, self.single_observation_space = action_spaces[0], single
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        if isinstance(mode, tuple):
            self.observation_space = mode[0]
        elif mode == "same":
            self.observation_space = batch_space(single, self.num_envs)
        else:
            self.observation_space = batch_differing_spaces(observation_spaces)

    def _share(self) -> None:
        """One block of memory for all; hosts elsewhere send what they have, and it is laid down here."""
        space, actions, count = self.single_observation_space, self.action_space, self.num_envs
        size = layout.size_of(space, actions, count)
        self._memory_fd = os.memfd_create("actorlib-envs", os.MFD_CLOEXEC)
        os.ftruncate(self._memory_fd, size)
        self._board = Board(mmap.mmap(self._memory_fd, size), space, actions, count)
        memory = Memory((space, actions, count, size), self._memory_fd)
        for keeper in self._keepers:
            keeper.last_observed = lambda keeper=keeper: self._last_observed(keeper)  # type: ignore[misc]
            keeper.share(memory)
        self._in_arrays = self._board.observations is not None
        self._objects: list[Any] = [None] * count
        self._fast = self._board.actions is not None and all(keeper.shares_memory for keeper in self._keepers)
        self._slots = [0] * len(self._keepers)
        self._busy: dict[int, Reply | None] = {}  # keepers with a result to take, None until it was received
        self._ids = [np.arange(keeper.begin, keeper.end) for keeper in self._keepers]
        for ids in self._ids:
            ids.flags.writeable = False
        self._host_of_ids = {id(ids): index for index, ids in enumerate(self._ids)}
        self._keeper_of = {keeper.begin: index for index, keeper in enumerate(self._keepers)}

    def _last_observed(self, keeper: Keeper) -> list[Any]:
        if not self._in_arrays:
            return self._objects[keeper.begin : keeper.end]
        assert self._board.observations is not None
        index = self._keeper_of[keeper.begin]
        before = self._board.observations[(self._slots[index] - 1) % SLOTS]
        mine = layout.copied(layout.rows(before, keeper.begin, keeper.end))
        return list(iterate(batch_space(self.single_observation_space, keeper.count), mine))

    def host_pids(self) -> list[int]:
        """The process of each host; a host that was restored has a new one."""
        return [keeper.pid for keeper in self._keepers]

    @property
    def host_of_env(self) -> list[int]:
        """For each environment, the index of its host."""
        return [index for index, keeper in enumerate(self._keepers) for _ in range(keeper.count)]

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seeds of the environments' generators."""
        return self.get_attr("np_random_seed")

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """Copies of the environments' generators."""
        return self.get_attr("np_random")

    # -- states --------------------------------------------------------------------------------------------------------
    def _assert_is_running(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError(
                f"{type(self).__name__} was closed; make a new one with actorlib.envs.make_vec"
            )

    def _begin(self, state: AsyncState, name: str) -> None:
        self._assert_is_running()
        if self._state is not AsyncState.DEFAULT or self._busy:
            pending = self._state.value if self._state is not AsyncState.DEFAULT else "send"
            raise AlreadyPendingCallError(
                f"`{name}` was called while a call to `{pending}` is pending; take its result first", pending
            )
        self._state = state

    def _await(self, state: AsyncState, name: str, timeout: float | None) -> list[Reply]:
        """The answers of all hosts. One that failed is dealt with; an error is raised once all have answered."""
        self._assert_is_running()
        if self._state is not state:
            raise NoAsyncCallError(f"`{name}_wait` was called without `{name}_async` before it", state.value)
        deadline = None if timeout is None else time.monotonic() + timeout
        if deadline is not None:
            self._wait_for_all(deadline, name)
        replies: list[Reply] = []
        errors: list[BaseException] = []
        for keeper in self._keepers:
            try:
                replies.append(keeper.finish())
            except Exception as error:
                errors.append(error)
        self._state = AsyncState.DEFAULT
        if errors:
            raise errors[0]
        return replies

    def _wait_for_all(self, deadline: float, name: str) -> None:
        poll = select.poll()
        waiting = {keeper.fileno(): None for keeper in self._keepers if not keeper.is_ready()}
        for fd in waiting:
            poll.register(fd, select.POLLIN)
        while waiting:
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1e3)
            if not ready:
                raise multiprocessing.TimeoutError(
                    f"{len(waiting)} of {len(self._keepers)} hosts have not answered `{name}` yet; "
                    f"`{name}_wait` may be called again"
                )
            for fd, _ in ready:
                poll.unregister(fd)
                waiting.pop(fd, None)

    # -- reset ---------------------------------------------------------------------------------------------------------
    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset all environments, or those of ``options["reset_mask"]``. Gives observations and infos."""
        self.reset_async(seed=seed, options=options)
        return self.reset_wait()

    def reset_async(
        self, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> None:
        """Begin a reset; ``reset_wait`` gives what ``reset`` gives."""
        self._assert_is_running()
        seeds: list[int | None]
        if seed is None:
            seeds = [None] * self.num_envs
        elif isinstance(seed, int | np.integer):
            seeds = [int(seed) + index for index in range(self.num_envs)]
        else:
            seeds = [None if each is None else int(each) for each in seed]
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments; give one seed, or one for each")
        mask = None
        if options is not None and "reset_mask" in options:
            options = dict(options)
            mask = self._checked_mask(options.pop("reset_mask"))
        if mask is not None and not self._was_reset:
            raise ResetNeededError("the first reset must be one of all environments: leave reset_mask out")
        self._begin(AsyncState.WAITING_RESET, "reset_async")
        self._next_slot()
        for keeper in self._keepers:
            begin, end = keeper.begin, keeper.end
            mine = None if mask is None else mask[begin:end].tolist()
            keeper.send(Kind.RESET, self._slot, (seeds[begin:end], options, mine))

    def _checked_mask(self, mask: Any) -> Any:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise TypeError(f"`options['reset_mask']` must be a numpy array of bool, not {kind}")
        if mask.shape != (self.num_envs,):
            raise ValueError(f"`options['reset_mask']` must have the shape ({self.num_envs},), not {mask.shape}")
        if not mask.any():
            raise ValueError("`options['reset_mask']` selects no environment")
        return mask

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, dict[str, Any]]:
        """The result of ``reset_async``. Raises TimeoutError after ``timeout`` seconds; then it may be asked again."""
        replies = self._await(AsyncState.WAITING_RESET, "reset", timeout)
        self._was_reset = True
        infos = self._collected(replies)
        return self._batch(), infos

    # -- step ----------------------------------------------------------------------------------------------------------
    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step of each environment: observations, rewards, terminations, truncations, infos."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Any) -> None:
        """Begin a step; ``step_wait`` gives what ``step`` gives."""
        self._assert_is_running()
        if not self._was_reset:
            raise ResetNeededError("step before the first reset: call reset() first")
        if self._state is not AsyncState.DEFAULT or self._busy:
            self._begin(AsyncState.WAITING_STEP, "step_async")
        if self._fast and self._is_plain(actions):
            self._begin_fast(actions)
        else:
            self._begin_with(self._checked(actions))
        self._state = AsyncState.WAITING_STEP

    def _is_plain(self, actions: Any) -> bool:
        """Exactly what the action space says, so that it can be laid into shared memory as it is."""
        board = self._board.actions
        return type(actions) is np.ndarray and actions.dtype == board.dtype and actions.shape == board.shape

    def _begin_fast(self, actions: Any) -> None:
        self._board.actions[...] = actions
        self._next_slot()
        slot, repeatable = self._slot, None
        if self.on_failure == RESTORE:
            repeatable = actions.copy()
        for keeper in self._keepers:
            mine = None if repeatable is None else repeatable[keeper.begin : keeper.end]
            keeper.send(Kind.STEP, slot, None, mine)

    def _begin_with(self, actions: list[Any]) -> None:
        self._next_slot()
        for keeper in self._keepers:
            keeper.send(Kind.STEP_WITH, self._slot, actions[keeper.begin : keeper.end])

    def _checked(self, actions: Any) -> list[Any]:
        """One action for each environment, as SyncVectorEnv would hand them out."""
        space = self.action_space
        if layout.is_array(space):
            try:
                array = np.asarray(actions)
            except ValueError as error:
                raise InvalidActionError(f"actions are not an array: {error}; expected shape {space.shape}") from None
            if array.shape != space.shape:
                raise InvalidActionError(
                    f"actions have the shape {array.shape}, expected {space.shape}: one row for each of "
                    f"{self.num_envs} environments"
                )
            if not np.can_cast(array.dtype, np.dtype(space.dtype), "same_kind"):
                raise InvalidActionError(
                    f"actions are of type {array.dtype}, expected {space.dtype}: convert them with "
                    f".astype(np.{space.dtype})"
                )
        try:
            found = list(iterate(space, actions))
        except Exception as error:
            raise InvalidActionError(f"actions don't fit {space}: {type(error).__name__}: {error}") from error
        if len(found) != self.num_envs:
            raise InvalidActionError(f"{len(found)} actions for {self.num_envs} environments")
        return found

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """The result of ``step_async``. Raises TimeoutError after ``timeout`` seconds; then it may be asked again."""
        replies = self._await(AsyncState.WAITING_STEP, "step", timeout)
        infos = self._collected(replies)
        board, slot = self._board, self._slot
        return (
            self._batch(),
            board.rewards[slot].copy(),
            board.terminations[slot].copy(),
            board.truncations[slot].copy(),
            infos,
        )

    def _next_slot(self) -> None:
        self._slot = (self._slot + 1) % SLOTS
        self._slots = [self._slot] * len(self._keepers)

    # -- results -------------------------------------------------------------------------------------------------------
    def _collected(self, replies: list[Reply]) -> dict[str, Any]:
        """Lay down what did not come through shared memory; give the infos of all."""
        infos: dict[str, Any] = {}
        for index, reply in enumerate(replies):
            if reply.infos is not None or reply.observations is not None:
                infos = self._laid_down(index, reply, infos)
        return infos

    def _laid_down(self, index: int, reply: Reply, infos: dict[str, Any]) -> dict[str, Any]:
        keeper, slot, board = self._keepers[index], self._slots[index], self._board
        rows = slice(keeper.begin, keeper.end)
        if reply.observations is not None:
            self._objects[rows] = reply.observations
            if board.observations is not None:
                out = layout.rows(board.observations[slot], keeper.begin, keeper.end)
                concatenate(self.single_observation_space, reply.observations, out)
        if reply.flags is not None:
            board.rewards[slot][rows], board.terminations[slot][rows], board.truncations[slot][rows] = reply.flags
        for env, info in reply.infos or ():
            infos = self._add_info(infos, info, keeper.begin + env)
        return infos

    def _batch(self) -> Any:
        board = self._board
        if board.observations is not None:
            current = board.observations[self._slot]
            return layout.copied(current) if self.copy else current
        return self._of_objects(self._objects)

    def _of_objects(self, observations: list[Any]) -> Any:
        """A batch of single observations, put together anew each time: what was returned stays as it was."""
        empty: Any = create_empty_array(self.single_observation_space, n=len(observations), fn=np.zeros)
        return concatenate(self.single_observation_space, observations, empty)

    # -- calls ---------------------------------------------------------------------------------------------------------
    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of each environment, or get an attribute of each."""
        self.call_async(name, *args, **kwargs)
        return self.call_wait()

    def call_async(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        """Begin a call; ``call_wait`` gives what ``call`` gives."""
        self._begin(AsyncState.WAITING_CALL, "call_async")
        for keeper in self._keepers:
            keeper.send(Kind.CALL, self._slot, (name, args, kwargs, None))

    def call_wait(self, timeout: float | None = None) -> tuple[Any, ...]:
        """The results of ``call_async``, one for each environment."""
        replies = self._await(AsyncState.WAITING_CALL, "call", timeout)
        return tuple(result for reply in replies for result in reply.result)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of each environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each environment: one value for all, or a list or tuple with one for each."""
        if not isinstance(values, list | tuple):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"{len(values)} values for {self.num_envs} environments; give one, or one for each")
        self._begin(AsyncState.WAITING_CALL, "set_attr")
        for keeper in self._keepers:
            keeper.send(Kind.SET_ATTRIBUTE, self._slot, (name, list(values[keeper.begin : keeper.end]), None))
        self._await(AsyncState.WAITING_CALL, "set_attr", None)

    def apply(self, what: Any, indices: Sequence[int], *args: Any, **kwargs: Any) -> list[Any]:
        """Call a method by its name, or a function of the environment, for some environments; results in that order.

        A function must be picklable; it runs in the hosts, and is repeated there when an environment is restored.
        """
        chosen = [index in set(indices) for index in range(self.num_envs)]
        self._begin(AsyncState.WAITING_CALL, "apply")
        for keeper in self._keepers:
            mine = chosen[keeper.begin : keeper.end]
            keeper.send(Kind.CALL, self._slot, (what, args, kwargs, mine))
        results = [result for reply in self._await(AsyncState.WAITING_CALL, "call", None) for result in reply.result]
        return [results[index] for index in indices]

    def render(self) -> tuple[Any, ...] | None:
        """The frames of all environments."""
        return self.call("render")

    # -- the end -------------------------------------------------------------------------------------------------------
    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Close the environments and end their hosts; a host that does not within ``timeout`` seconds is killed."""
        for keeper in self._keepers:
            keeper.close(timeout, terminate)
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
            self._memory_fd = -1

    def __del__(self) -> None:
        if not self.closed and getattr(self, "_keepers", None):
            self.close(terminate=True)
