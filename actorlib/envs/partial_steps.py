"""Steps of some environments at a time: ``send`` begins them, ``recv`` gives those that are ready first.

While the caller thinks about one batch, the hosts of the others work. The environments of one host step together, so
what is sent is always that of whole hosts.
"""

from __future__ import annotations

import multiprocessing
import select
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.error import AlreadyPendingCallError
from gymnasium.vector import VectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import batch_space, iterate

from actorlib.envs import layout
from actorlib.envs.errors import InvalidActionError, NotWholeHostsError, ResetNeededError
from actorlib.envs.frames import Kind, Reply
from actorlib.envs.keeper import RESTORE, Keeper
from actorlib.envs.layout import SLOTS, Board


class Batch(NamedTuple):
    """What ``recv`` gives: rows of the environments ``env_ids``, in that order."""

    observations: Any
    rewards: Any
    terminations: Any
    truncations: Any
    infos: dict[str, Any]
    env_ids: Any


class PartialSteps(VectorEnv):
    """See the module's docstring. The attributes are ``HostedVectorEnv``'s."""

    on_failure: str
    copy: bool
    _state: AsyncState
    _was_reset: bool
    _keepers: list[Keeper]
    _keeper_of: dict[int, int]
    _busy: dict[int, Reply | None]
    _slots: list[int]
    _ids: list[Any]
    _host_of_ids: dict[int, int]
    _board: Board
    _objects: list[Any]
    _fast: bool

    def _assert_is_running(self) -> None:
        raise NotImplementedError

    def _begin(self, state: AsyncState, name: str) -> None:
        raise NotImplementedError

    def _laid_down(self, index: int, reply: Reply, infos: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def _of_objects(self, observations: list[Any]) -> Any:
        raise NotImplementedError

    # -- some at a time ------------------------------------------------------------------------------------------------
    def send(self, actions: Any, env_ids: Sequence[int] | None = None) -> None:
        """Begin a step of some environments: all those of one or several hosts. ``recv`` gives results.

        Args:
            actions: One action for each of ``env_ids``, in that order.
            env_ids: As a ``recv`` gave them, or part of ``range(num_envs)`` that whole hosts make up; None: all.

        Raises NotWholeHostsError, InvalidActionError, ResetNeededError, and AlreadyPendingCallError for environments
        whose last step was not taken with ``recv`` yet.
        """
        self._assert_is_running()
        if not self._was_reset:
            raise ResetNeededError("send before the first reset: call reset() first")
        if self._state is not AsyncState.DEFAULT:
            self._begin(self._state, "send")
        if env_ids is None:
            env_ids = range(self.num_envs)
        host = self._host_of_ids.get(id(env_ids))  # what recv() gave for one host comes back as it was
        if host is not None and host not in self._busy:
            ids, chosen = env_ids, [host]
        else:
            ids = [int(each) for each in env_ids]
            chosen = self._whole_hosts(ids)
        array = actions if type(actions) is np.ndarray and self._fast else None
        if array is not None and array.dtype == self._board.actions.dtype and len(array) == len(ids):
            self._send_fast(array, chosen)
        else:
            self._send_with(actions, ids, chosen)

    def _whole_hosts(self, ids: list[int]) -> list[int]:
        chosen, at = [], 0
        while at < len(ids):
            index = self._keeper_of.get(ids[at], -1)
            keeper = self._keepers[index]
            if index < 0 or ids[at : at + keeper.count] != list(range(keeper.begin, keeper.end)):
                groups = [list(range(each.begin, each.end)) for each in self._keepers]
                raise NotWholeHostsError(
                    f"env_ids={ids} are not whole hosts; the environments of one host step together: {groups}"
                )
            if index in self._busy or index in chosen:
                raise AlreadyPendingCallError(f"environments {ids[at]} and following have a step pending", "send")
            chosen.append(index)
            at += keeper.count
        return chosen

    def _send_fast(self, array: Any, chosen: list[int]) -> None:
        if array.shape[1:] != self._board.actions.shape[1:]:
            raise InvalidActionError(f"actions have the shape {array.shape}, expected {self._board.actions.shape}")
        at = 0
        for index in chosen:
            keeper = self._keepers[index]
            mine = array[at : at + keeper.count]
            at += keeper.count
            self._board.actions[keeper.begin : keeper.end] = mine
            self._busy[index] = None
            self._slots[index] = (self._slots[index] + 1) % SLOTS
            keeper.send(Kind.STEP, self._slots[index], None, mine.copy() if self.on_failure == RESTORE else None)

    def _send_with(self, actions: Any, ids: Sequence[int], chosen: list[int]) -> None:
        whole = batch_space(self.single_action_space, len(ids))
        try:
            found = list(iterate(whole, actions))
        except Exception as error:
            raise InvalidActionError(f"actions don't fit {whole}: {type(error).__name__}: {error}") from error
        if len(found) != len(ids):
            raise InvalidActionError(f"{len(found)} actions for {len(ids)} environments")
        at = 0
        for index in chosen:
            keeper = self._keepers[index]
            self._busy[index] = None
            self._slots[index] = (self._slots[index] + 1) % SLOTS
            keeper.send(Kind.STEP_WITH, self._slots[index], found[at : at + keeper.count])
            at += keeper.count

    def recv(self, min_envs: int = 1, timeout: float | None = None) -> Batch:
        """The results of the first environments that are ready, at least ``min_envs``, in the order of their ids.

        Raises TimeoutError after ``timeout`` seconds, ValueError if fewer than ``min_envs`` were sent.
        """
        self._assert_is_running()
        sent = sum(self._keepers[index].count for index in self._busy)
        if not 0 < min_envs <= sent:
            raise ValueError(f"min_envs={min_envs}, but {sent} environments have a step under way; send() some first")
        ready = sorted(self._first_ready(min_envs, timeout))
        for index in ready:
            if self._busy[index] is None:
                del self._busy[index]  # if it raises, its step is over; the results of the others can still be had
                self._busy[index] = self._keepers[index].finish()
        infos: dict[str, Any] = {}
        for index in ready:
            reply = self._busy.pop(index)
            assert reply is not None
            if reply.infos is not None or reply.observations is not None:
                infos = self._laid_down(index, reply, infos)
        return self._received(ready, infos)

    def _first_ready(self, min_envs: int, timeout: float | None) -> list[int]:
        poll = select.poll()
        by_fd, ready, count = {}, [], 0
        for index in self._busy:
            keeper = self._keepers[index]
            if keeper.is_ready() or self._busy[index] is not None:
                ready.append(index)
                count += keeper.count
            else:
                by_fd[keeper.fileno()] = index
                poll.register(keeper.fileno(), select.POLLIN)
        deadline = None if timeout is None else time.monotonic() + timeout
        limits = [keeper.step_timeout_s for keeper in self._keepers if keeper.step_timeout_s is not None]
        while count < min_envs:
            patience = limits[0] if limits else None
            if deadline is not None:
                left = max(0.0, deadline - time.monotonic())
                patience = left if patience is None else min(left, patience)
            found = poll.poll(None if patience is None else patience * 1e3)
            if not found:
                if deadline is not None and time.monotonic() >= deadline:
                    raise multiprocessing.TimeoutError(f"{count} of {min_envs} environments were ready in {timeout} s")
                found = [(fd, 0) for fd in by_fd if by_fd[fd] not in ready][:1]  # it hangs: finish() sees to it
            for fd, _ in found:
                poll.unregister(fd)
                ready.append(by_fd[fd])
                count += self._keepers[by_fd[fd]].count
        return ready

    def _received(self, ready: list[int], infos: dict[str, Any]) -> Batch:
        board = self._board
        flags = (board.rewards, board.terminations, board.truncations)
        if len(ready) == 1:
            keeper, slot = self._keepers[ready[0]], self._slots[ready[0]]
            begin, end = keeper.begin, keeper.end
            rewards, terminations, truncations = (array[slot][begin:end].copy() for array in flags)
            ids = self._ids[ready[0]]
            if board.observations is not None:
                seen = layout.rows(board.observations[slot], begin, end)
                seen = layout.copied(seen) if self.copy else seen
                return Batch(seen, rewards, terminations, truncations, infos, ids)
        else:
            parts = [(self._slots[index], self._keepers[index]) for index in ready]
            rewards, terminations, truncations = (
                np.concatenate([array[slot][keeper.begin : keeper.end] for slot, keeper in parts]) for array in flags
            )
            ids = np.concatenate([self._ids[index] for index in ready])
            if board.observations is not None:
                rows = [layout.rows(board.observations[slot], each.begin, each.end) for slot, each in parts]
                return Batch(layout.joined(rows), rewards, terminations, truncations, infos, ids)
        seen = self._of_objects([self._objects[index] for index in ids])
        return Batch(seen, rewards, terminations, truncations, infos, ids)
