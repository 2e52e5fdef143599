"""The state of environments as bytes, and whether an environment comes back from it as it was.

A snapshot is a pickle of the environments of one host, wrappers included, and of the two random generators that a
process shares (``random`` and ``numpy.random``). An object inside that has ``__checkpoint__(self) -> state`` and
``__restore__(self, state)`` is not pickled: its state is, and it comes back as that of a newly constructed environment
with ``__restore__`` called on it. That is how a simulator that holds handles of its own says what must be kept.

Some environments can be pickled and still lose their state (those that derive from ``gymnasium.utils.EzPickle`` come
back newly constructed). So before ``restore`` is promised it is tried: a copy is taken out of the middle of an episode,
and both must go on alike, bit for bit.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from actorlib import serialization
from actorlib.exceptions import SerializationError

STEPS_BEFORE = 3
STEPS_AFTER = 3
PROBE_SEED = 7_777

EnvFn = Callable[[], Any]


def has_hooks(item: Any) -> bool:
    cls = type(item)
    return hasattr(cls, "__checkpoint__") and hasattr(cls, "__restore__")


def shared_randomness() -> Any:
    """The state of the generators that all code of a process shares."""
    return random.getstate(), np.random.get_state()


def set_shared_randomness(state: Any) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])


def dump(envs: Sequence[Any], rest: Any) -> bytes:
    """The environments and ``rest`` as bytes. Raises SerializationError."""
    owners = {id(env.unwrapped): index for index, env in enumerate(envs)}

    def stand_in(item: Any) -> Any:
        index = owners.get(id(item))
        return (index, item.__checkpoint__()) if index is not None and has_hooks(item) else None

    return serialization.dump_state((list(envs), rest, shared_randomness()), stand_in)


def load(data: bytes, env_fns: Sequence[EnvFn]) -> tuple[list[Any], Any]:
    """Environments as they were, and what was kept beside them."""
    made: dict[int, Any] = {}

    def resolve(stand_in: Any) -> Any:
        index, state = stand_in
        if index not in made:
            made[index] = env_fns[index]().unwrapped
            made[index].__restore__(state)
        return made[index]

    envs, rest, randomness = serialization.load_state(data, resolve)
    set_shared_randomness(randomness)
    return envs, rest


def why_not_restorable(env: Any, env_fn: EnvFn) -> str:
    """Empty if a copy of this environment goes on as it would itself; else what went wrong. ``env`` is not touched."""
    before = shared_randomness()
    copies: list[Any] = []
    try:
        return _try_out(env, env_fn, copies)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        for each in copies:
            each.close()
        set_shared_randomness(before)


def _try_out(env: Any, env_fn: EnvFn, copies: list[Any]) -> str:
    copies += load(dump([env], None), [env_fn])[0]
    first = copies[0]
    space = copy.deepcopy(first.action_space)
    space.seed(PROBE_SEED)
    actions = [space.sample() for _ in range(STEPS_BEFORE + STEPS_AFTER)]
    try:
        first.reset(seed=PROBE_SEED)
        for action in actions[:STEPS_BEFORE]:
            _step(first, action)
        data = dump([first], None)
        expected = [_step(first, action) for action in actions[STEPS_BEFORE:]]
    except SerializationError:
        raise
    except Exception:
        return ""  # it wants other actions or options than these; nothing speaks against it
    copies += load(data, [env_fn])[0]
    found = [_step(copies[1], action) for action in actions[STEPS_BEFORE:]]
    if all(map(same, expected, found)):
        return ""
    return "it can be pickled, but its copy did not go on as the original did"


def _step(env: Any, action: Any) -> Any:
    observation, reward, terminated, truncated, _ = env.step(action)
    seen = copy.deepcopy((observation, float(reward), bool(terminated), bool(truncated)))
    if terminated or truncated:
        return seen, copy.deepcopy(env.reset()[0])
    return seen, None


def same(one: Any, other: Any) -> bool:
    """Whether two observations (or tuples, lists, dicts of them) are equal bit for bit; NaN equals itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray | np.generic):
        first, second = np.asarray(one), np.asarray(other)
        if first.dtype == object or second.dtype == object:
            return first.shape == second.shape and same(first.tolist(), second.tolist())
        return (first.dtype, first.shape, first.tobytes()) == (second.dtype, second.shape, second.tobytes())
    if isinstance(one, float):
        return one == other or (one != one and other != other)
    return bool(one == other)
