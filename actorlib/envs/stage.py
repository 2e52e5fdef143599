"""The environments of one host, and what can be done with them.

Steps and resets do what Gymnasium's ``SyncVectorEnv`` does, in the same order, for the environments of this host. The
same operations on the same state give the same results, so a host that comes back from a checkpoint and repeats what
was done since is where its predecessor was.

A checkpoint is due when the work since the last one is worth many times what a checkpoint costs (so it costs at most a
few percent, and repeating never takes long), and after each reset, since a reset without a seed can't be repeated.
"""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import concatenate

from actorlib.envs import snapshot
from actorlib.envs.frames import NOTHING, Kind, Operation, Reply
from actorlib.envs.layout import SLOTS

CHECKPOINT_PERIOD_S = 0.05
WORK_PER_CHECKPOINT_COST = 50
OPERATIONS_PER_CHECKPOINT_MAX = 10_000

FAILURE_KEY = "env_failure"


class Description:
    """What a host says of its environments once they are built."""

    def __init__(self, envs: Sequence[Any], pid: int, unrestorable: dict[int, str]) -> None:
        self.observation_spaces = [env.observation_space for env in envs]
        self.action_spaces = [env.action_space for env in envs]
        self.metadata = dict(envs[0].metadata)
        self.render_mode = envs[0].render_mode
        self.pid = pid
        self.unrestorable = unrestorable


class Stage:
    """See the module's docstring. ``pid`` is told to the caller; ``clock`` measures work."""

    def __init__(
        self,
        env_fns: Sequence[Callable[[], Any]],
        mode: AutoresetMode,
        restorable: bool,
        rebuild_on_error: bool,
        pid: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.env_fns = list(env_fns)
        self.mode = mode
        self.restorable = restorable
        self.rebuild_on_error = rebuild_on_error
        self.envs: list[Any] = []
        count = len(self.env_fns)
        self._pid = pid
        self._clock = clock
        self._observed: list[Any] = [None] * count
        self._over = [False] * count  # as of the last step
        self._seeds: list[int | None] = [None] * count
        self._rebuilt = [0] * count
        self._rewards = [np.zeros(count) for _ in range(SLOTS)]
        self._terminations = [np.zeros(count, np.bool_) for _ in range(SLOTS)]
        self._truncations = [np.zeros(count, np.bool_) for _ in range(SLOTS)]
        self._out: list[Any] | None = None
        self._space: Any = None
        self._actions: Any = None
        self._attached = False
        self._number = 0
        self._work_s = 0.0
        self._operations = 0
        self._cost_s = 0.0
        self._kept: tuple[int, bytes] | None = None
        self._does: dict[int, Callable[[Operation], Reply]] = {
            Kind.BUILD: self._build,
            Kind.RESTORE: self._restore,
            Kind.RESET: self._reset,
            Kind.STEP: self._step_shared,
            Kind.STEP_WITH: self._step_with,
            Kind.CALL: self._call,
            Kind.SET_ATTRIBUTE: self._set_attribute,
            Kind.REPLACE: self._replace,
            Kind.IDENTIFY: lambda _: Reply(result=self._pid),
        }

    def handle(self, operation: Operation) -> Reply:
        """Do it. Raises whatever the environments raise."""
        began = self._clock()
        if operation.number:
            self._number = operation.number  # also if it raises: what it did until then is done
            self._operations += 1
        reply = self._does[operation.kind](operation)
        self._work_s += self._clock() - began
        if self._kept is not None:
            reply, self._kept = reply._replace(checkpoint=self._kept), None
        return reply

    # -- building ------------------------------------------------------------------------------------------------------
    def _build(self, operation: Operation) -> Reply:
        self.close()
        self.envs = []
        for env_fn in self.env_fns:
            self.envs.append(env_fn())
        unrestorable = {}
        if self.restorable and operation.argument:
            for index, (env, env_fn) in enumerate(zip(self.envs, self.env_fns, strict=True)):
                if why := snapshot.why_not_restorable(env, env_fn):
                    unrestorable[index] = why
        if self.restorable and not unrestorable:
            self.take_checkpoint()
        return Reply(result=Description(self.envs, self._pid, unrestorable))

    def attach(self, space: Any, out: list[Any] | None, flags: Any, actions: Any) -> None:
        """Write to these arrays from now on (this host's rows). ``out`` None: observations travel as objects."""
        self._space, self._out, self._actions = space, out, actions
        self._rewards, self._terminations, self._truncations = flags
        self._attached = True

    def close(self) -> None:
        envs, self.envs = self.envs, []
        for env in envs:
            env.close()

    # -- checkpoints ---------------------------------------------------------------------------------------------------
    def after_reply(self) -> None:
        """While the caller thinks: keep the state if it is time; the next reply brings it."""
        if self.restorable and self._number and self._is_due():
            self.take_checkpoint()

    def _is_due(self) -> bool:
        if self._operations >= OPERATIONS_PER_CHECKPOINT_MAX:
            return True
        return self._work_s >= CHECKPOINT_PERIOD_S and self._work_s >= WORK_PER_CHECKPOINT_COST * self._cost_s

    def take_checkpoint(self, number: int | None = None) -> None:
        began = self._clock()
        number = self._number if number is None else number
        rest = (self._observed, self._over, self._seeds, self._rebuilt, number)
        self._kept = (number, snapshot.dump(self.envs, rest))
        self._cost_s = self._clock() - began
        self._work_s = 0.0
        self._operations = 0

    def _restore(self, operation: Operation) -> Reply:
        """Back to a checkpoint, then what was done since. What raised then raises again, and is no failure now."""
        data, since = operation.argument
        self.close()
        self.envs, rest = snapshot.load(data, self.env_fns)
        self._observed, self._over, self._seeds, self._rebuilt, self._number = rest
        self._kept = None
        for done in since:
            try:
                self._does[done.kind](done)
            except Exception:
                if done.kind not in MAY_RAISE:
                    raise
            self._number = done.number
        return NOTHING

    # -- what a vector environment does --------------------------------------------------------------------------------
    def _reset(self, operation: Operation) -> Reply:
        seeds, options, mask = operation.argument
        infos = []
        for index, env in enumerate(self.envs):
            if mask is not None and not mask[index]:
                continue
            self._over[index] = False
            if seeds[index] is not None:
                self._seeds[index] = seeds[index]
            self._observed[index], info = env.reset(seed=seeds[index], options=options)
            if info:
                infos.append((index, info))
        if self.restorable:
            self.take_checkpoint(operation.number)
        return self._observations(operation.slot, infos)

    def _step_shared(self, operation: Operation) -> Reply:
        actions = operation.argument  # when it is repeated; else they are in shared memory
        return self._step(self._actions.copy() if actions is None else actions, operation.slot)

    def _step_with(self, operation: Operation) -> Reply:
        return self._step(operation.argument, operation.slot)

    def _step(self, actions: Any, slot: int) -> Reply:
        """As SyncVectorEnv.step, with ``_over`` for its ``_autoreset_envs``."""
        infos: list[tuple[int, dict[str, Any]]] = []
        observed, over, mode = self._observed, self._over, self.mode
        rewards, terminations, truncations = self._rewards[slot], self._terminations[slot], self._truncations[slot]
        for index, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            if over[index] and mode is not AutoresetMode.SAME_STEP:
                if mode is AutoresetMode.DISABLED:
                    raise AssertionError(
                        f"environment {index} of this host is over: reset it with options={{'reset_mask': ...}} first"
                    )
                observed[index], info = env.reset()
                rewards[index], terminated, truncated = 0.0, False, False
            else:
                try:
                    observed[index], rewards[index], terminated, truncated, info = env.step(action)
                except Exception as error:
                    if not self.rebuild_on_error:
                        raise
                    text = "".join(traceback.format_exception(error))
                    info = self._truncate(index, f"the environment raised:\n{text}", slot)
                    terminated, truncated = False, True
                if mode is AutoresetMode.SAME_STEP and (terminated or truncated):
                    infos.append((index, {"final_obs": observed[index], "final_info": info}))
                    failure = {FAILURE_KEY: info[FAILURE_KEY]} if FAILURE_KEY in info else {}
                    observed[index], info = self.envs[index].reset()
                    info = {**info, **failure}
            terminations[index] = terminated
            truncations[index] = truncated
            over[index] = bool(terminated or truncated)
            if info:
                infos.append((index, info))
        return self._observations(slot, infos, True)

    def _observations(self, slot: int, infos: list[Any], stepped: bool = False) -> Reply:
        if self._out is not None:
            concatenate(self._space, self._observed, self._out[slot])
            return Reply(infos=infos) if infos else NOTHING
        flags = None
        if stepped and not self._attached:
            flags = (self._rewards[slot], self._terminations[slot], self._truncations[slot])
        return Reply(infos=infos, observations=list(self._observed), flags=flags)

    def _call(self, operation: Operation) -> Reply:
        """A method by name, or a function of the environment; of all environments, or of those chosen."""
        what, args, kwargs, chosen = operation.argument
        results: list[Any] = []
        for index, env in enumerate(self.envs):
            if chosen is not None and not chosen[index]:
                results.append(None)
                continue
            found = functools.partial(what, env) if callable(what) else env.get_wrapper_attr(what)
            results.append(found(*args, **kwargs) if callable(found) else found)
        return Reply(result=results)

    def _set_attribute(self, operation: Operation) -> Reply:
        name, values, chosen = operation.argument
        for index, (env, value) in enumerate(zip(self.envs, values, strict=True)):
            if chosen is None or chosen[index]:
                env.set_wrapper_attr(name, value)
        return NOTHING

    # -- failures ------------------------------------------------------------------------------------------------------
    def _truncate(self, index: int, reason: str, slot: int) -> dict[str, Any]:
        """A new environment in the place of one that failed; its episode ends here."""
        self.envs[index] = self.env_fns[index]()
        self._rebuilt[index] += 1
        seed = self._seeds[index]
        if seed is not None:
            self.envs[index].reset(seed=derived_seed(seed, self._rebuilt[index]))
        self._rewards[slot][index] = 0.0
        return {FAILURE_KEY: reason}

    def _replace(self, operation: Operation) -> Reply:
        """New environments for all that a failure has taken: their episodes end here, as truncated."""
        reason, observed, seeds, rebuilt = operation.argument
        self._seeds, self._rebuilt, self._observed = list(seeds), [rebuilt] * len(seeds), list(observed)
        slot, infos = operation.slot, []
        self.close()
        self.envs = [None] * len(self.env_fns)
        for index in range(len(self.envs)):
            info = self._truncate(index, reason, slot)
            self._terminations[slot][index] = False
            self._truncations[slot][index] = True
            self._over[index] = True
            if self.mode is AutoresetMode.SAME_STEP:
                infos.append((index, {"final_obs": self._observed[index], "final_info": info}))
                self._observed[index], fresh = self.envs[index].reset()
                info = {**fresh, **info}
            infos.append((index, info))
        return self._observations(slot, infos, True)


MAY_RAISE = (Kind.CALL, Kind.SET_ATTRIBUTE, Kind.RESET)


def derived_seed(seed: int, count: int) -> int:
    """A seed for the ``count``-th environment that took the place of one that was reset with ``seed``."""
    return int(np.random.SeedSequence([seed, count]).generate_state(1)[0])
