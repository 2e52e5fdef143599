"""A plain Python class as the model of an actor: usually the actor's own class, run one call at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import Any

from actorlib.testing.histories.models import Model
from actorlib.testing.histories.operation import IMPOSSIBLE, MAYBE, Operation, Raised


class PlainModel(Model):
    """Calls go to an instance of ``cls``; results must be equal, exceptions of the same class and arguments.

    The class is copied before each step (``copy.deepcopy``), so it must hold nothing but data.

    Args:
        cls: the class, or an ``ActorClass`` made of it.
        args, kwargs: of its constructor.
        key: gives the part of the object that an operation touches, if parts are independent.

    Example:
        >>> recorded.assert_linearizable(PlainModel(Account, balance=10))
    """

    def __init__(self, cls: Any, *args: Any, key: Callable[[Operation], Hashable] | None = None, **kwargs: Any) -> None:
        self._make: Callable[[], Any] = lambda: getattr(cls, "cls", cls)(*args, **kwargs)
        self._key = key

    def initial(self) -> Any:
        return self._make()

    def key(self, operation: Operation) -> Hashable:
        return None if self._key is None else self._key(operation)

    def step(self, state: Any, operation: Operation) -> Any:
        after = copy.deepcopy(state)
        method = getattr(after, operation.name, None)
        if method is None:
            raise ValueError(f"the model {type(after).__name__} has no method {operation.name!r}")
        try:
            result = method(*copy.deepcopy(operation.args), **copy.deepcopy(operation.kwargs))
        except Exception as error:
            result = Raised.of(error)
        return after if operation.result is MAYBE or operation.result == result else IMPOSSIBLE

    def fingerprint(self, state: Any) -> Hashable:
        return frozen(state.__reduce_ex__(2)[2:])


def frozen(value: Any) -> Hashable:
    """An immutable image of data: equal for equal data. What can't be looked into is equal to itself alone."""
    if isinstance(value, dict):
        return dict, frozenset((frozen(key), frozen(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(frozen(item) for item in value)
    if isinstance(value, set | frozenset):
        return set, frozenset(frozen(item) for item in value)
    if isinstance(value, bytearray):
        return bytearray, bytes(value)
    try:
        hash(value)
    except TypeError:
        return id(type(value)), frozen(value.__reduce_ex__(2)[1:3])
    return type(value), value


__all__ = ["PlainModel"]
