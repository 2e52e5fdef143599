"""Where observations, rewards and actions lie in the memory that the caller shares with its hosts.

One block for all environments, since a batch is then one array that nobody has to put together. Two slots of
observations, used in turn: what was returned stays as it was while the next step is written. Rows belong to hosts; a
host writes only its own.

Observation spaces made of Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple have a layout. Anything else (Text,
Graph, Sequence, spaces of one's own) travels as objects instead.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

SLOTS = 2
ALIGN_BYTES = 64
_ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_KNOWN = (*_ARRAYS, spaces.Dict, spaces.Tuple)


def is_laid_out(space: Any) -> bool:
    """Whether values of ``space`` can lie in arrays. A subclass may mean something else, so it does not count."""
    if type(space) is spaces.Dict:
        return all(map(is_laid_out, space.spaces.values()))
    if type(space) is spaces.Tuple:
        return all(map(is_laid_out, space.spaces))
    return type(space) in _ARRAYS


def is_array(batched: Any) -> bool:
    """Whether a batch of actions is one array."""
    return type(batched) in (spaces.Box, spaces.MultiDiscrete) and batched.dtype is not None


class Cursor:
    """Hands out parts of a block of memory, or counts how large it must be."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory
        self.offset = 0

    def take(self, shape: tuple[int, ...], dtype: Any) -> Any:
        start = self.offset
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self.offset = start + -(-size // ALIGN_BYTES) * ALIGN_BYTES
        if self.memory is None:
            return None
        return np.ndarray(shape, dtype, self.memory, start)


def _batch(space: Any, count: int, cursor: Cursor) -> Any:
    if type(space) is spaces.Dict:
        return {key: _batch(inner, count, cursor) for key, inner in space.spaces.items()}
    if type(space) is spaces.Tuple:
        return tuple(_batch(inner, count, cursor) for inner in space.spaces)
    return cursor.take((count, *space.shape), space.dtype)


class Board:
    """The arrays in one block of shared memory. ``observations`` and ``actions`` are None where objects travel."""

    def __init__(self, memory: Any, space: Any, batched_actions: Any, count: int) -> None:
        cursor = Cursor(memory)
        self.observations: Any = None
        if is_laid_out(space):
            self.observations = [_batch(space, count, cursor) for _ in range(SLOTS)]
        self.rewards = [cursor.take((count,), np.float64) for _ in range(SLOTS)]
        self.terminations = [cursor.take((count,), np.bool_) for _ in range(SLOTS)]
        self.truncations = [cursor.take((count,), np.bool_) for _ in range(SLOTS)]
        self.actions: Any = None
        if is_array(batched_actions):
            self.actions = cursor.take(batched_actions.shape, batched_actions.dtype)
        self.size = cursor.offset


def size_of(space: Any, batched_actions: Any, count: int) -> int:
    """How many bytes a Board takes."""
    return max(ALIGN_BYTES, Board(None, space, batched_actions, count).size)


def rows(batch: Any, begin: int, end: int) -> Any:
    """The same arrays, only these rows of them; no copy."""
    if isinstance(batch, dict):
        return {key: rows(inner, begin, end) for key, inner in batch.items()}
    if isinstance(batch, tuple):
        return tuple(rows(inner, begin, end) for inner in batch)
    return batch[begin:end]


def copied(batch: Any) -> Any:
    """The same structure with arrays of its own."""
    if isinstance(batch, np.ndarray):
        return batch.copy()
    if isinstance(batch, dict):
        return {key: copied(inner) for key, inner in batch.items()}
    return tuple(map(copied, batch))


def joined(batches: list[Any]) -> Any:
    """Batches one after the other, in arrays of their own."""
    first = batches[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(batches)
    if isinstance(first, dict):
        return {key: joined([batch[key] for batch in batches]) for key in first}
    return tuple(joined(list(parts)) for parts in zip(*batches, strict=True))
