"""Whether a durable actor's methods do the same when they are run again: looked at in debug mode and in simulation.

Beside the living actor stands a *shadow*, restored from the same state as a checkpoint would be. Each logged call is
run on it as well, with what the living one had learned, and state and reply are compared. A call that makes calls,
tasks or objects is not run twice; the shadow is made anew after it.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from actorlib import serialization
from actorlib.runtime.drivers import actor_state
from actorlib.transport import limits
from actorlib.transport.messages import VALUE_ERROR

SET_GROWN_BY = 1000
PLAIN = (bool, int, str, bytes, type(None), complex)
DEPTH_MAX = 200


def state_of(instance: Any) -> Any:
    """What a checkpoint of the actor would have."""
    custom = getattr(instance, "__checkpoint__", None)
    return custom() if custom is not None else instance.__dict__


def make_shadow(instance: Any) -> Any:
    """An actor in the same state that shares nothing with it; None where its ``__restore__`` gives another state."""
    data, buffers, _ = actor_state.dump(instance)
    shadow = actor_state.restore(type(instance), data, tuple(bytes(buffer) for buffer in buffers))
    if difference(state_of(instance), state_of(shadow)):
        return None
    shift_sets(state_of(shadow), {})
    return shadow


def shift_sets(value: Any, seen: dict[int, Any]) -> None:
    """Give the sets in a state another order, as they may have in another process or after a checkpoint.

    A set that was larger once keeps its larger table, in which its items lie in other places. Sets of numbers alone are
    left as they are: programs rely on the order that small ones seem to have.
    """
    if isinstance(value, PLAIN) or id(value) in seen or len(seen) > limits.shadow_objects_max:
        return
    seen[id(value)] = value
    if isinstance(value, set):
        if not all(isinstance(item, int | float) for item in value):
            fillers = [object() for _ in range(SET_GROWN_BY + 4 * len(value))]
            value.update(fillers)
            for filler in fillers:  # one by one: else the table is made small again
                value.discard(filler)
    elif isinstance(value, dict):
        for item in value.values():
            shift_sets(item, seen)
    elif isinstance(value, list | tuple | deque):
        for item in value:
            shift_sets(item, seen)
    else:
        for item in getattr(value, "__dict__", {}).values():
            shift_sets(item, seen)


def difference(one: Any, other: Any, path: str = "", seen: dict[tuple[int, int], None] | None = None) -> str:
    """Where two values differ, in words; empty if they don't."""
    seen = {} if seen is None else seen
    if one is other or (id(one), id(other)) in seen or len(seen) > 1_000_000:
        return ""
    if type(one) is not type(other):
        return f"{path or 'it'} is a {type(one).__name__} here and a {type(other).__name__} there"
    if isinstance(one, PLAIN):
        return "" if one == other else f"{path or 'it'} is {one!r} here and {other!r} there"[:300]
    if isinstance(one, float):
        return "" if one == other or (one != one and other != other) else f"{path or 'it'} is {one!r}, not {other!r}"
    seen[id(one), id(other)] = None
    if isinstance(one, np.ndarray):
        same = one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
        return "" if same else f"the array {path} differs"
    if isinstance(one, dict):
        return _of_dicts(one, other, path, seen)
    if isinstance(one, list | tuple | deque):
        if len(one) != len(other):
            return f"{path or 'it'} has {len(one)} items here and {len(other)} there"
        found = (difference(a, b, f"{path}[{i}]", seen) for i, (a, b) in enumerate(zip(one, other, strict=True)))
        return next(filter(None, found), "")
    if isinstance(one, set | frozenset):
        return "" if one == other else f"the set {path} differs"
    return _of_objects(one, other, path, seen)


def _of_dicts(one: dict[Any, Any], other: dict[Any, Any], path: str, seen: dict[tuple[int, int], None]) -> str:
    if list(map(repr, one)) != list(map(repr, other)):
        return f"{path or 'it'} has the keys {list(one)!r} here and {list(other)!r} there"[:300]
    found = (
        difference(a, b, f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]", seen)
        for (key, a), b in zip(one.items(), other.values(), strict=True)
    )
    return next(filter(None, found), "").removeprefix(".")


def _of_objects(one: Any, other: Any, path: str, seen: dict[tuple[int, int], None]) -> str:
    inside = getattr(one, "__dict__", None)
    if inside:
        return difference(inside, other.__dict__, path, seen)
    try:
        equal = bool(one == other) or serialization.serialize(one).data == serialization.serialize(other).data
    except Exception:
        return ""  # nobody can tell
    return "" if equal else f"{path or 'it'} is {one!r} here and {other!r} there"[:300]


def of_replies(status: int, values: Any, again_status: int, again_values: Any) -> str:
    """How two replies differ, in words."""
    if int(status) != int(again_status):
        return "it raises once and not the other time"
    for one, other in zip(values, again_values, strict=False):
        error = type(one) is tuple and one[0] == VALUE_ERROR
        if (one[2] != other[2]) if error else (one != other):
            return "it gives another result"
    return ""
