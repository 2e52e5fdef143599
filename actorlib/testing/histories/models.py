"""Sequential specifications: what an object would answer if calls came one at a time.

A model is deterministic: ``step(state, operation)`` gives the state after the operation, or ``IMPOSSIBLE`` where the
operation can't have had the result that was seen. States are immutable values. An operation that raised an exception of
the user's is taken to have had no effect; one whose result is ``MAYBE`` fits wherever it may be done at all.

The names of the actor's methods are given where they differ: ``Register(read="get", write="set")``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from actorlib.testing.histories.operation import IMPOSSIBLE, MAYBE, Operation, Raised

Step = Callable[[Any, Operation], Any]


class Model:
    """Base of models. Derive from it, fill in ``steps``, ``initial`` and perhaps ``key``."""

    steps: dict[str, Step]

    def initial(self) -> Any:
        """The state in which every history starts."""
        raise NotImplementedError

    def step(self, state: Any, operation: Operation) -> Any:
        """The state after the operation, or ``IMPOSSIBLE``. Raises ValueError for one that the model doesn't know."""
        found = self.steps.get(operation.name)
        if found is None:
            raise ValueError(f"{type(self).__name__} has no {operation.name!r}; it knows {', '.join(self.steps)}")
        return found(state, operation)

    def key(self, operation: Operation) -> Hashable:
        """Which part of the object it touches: parts that don't share state are judged apart, which is far faster."""
        return None

    def fingerprint(self, state: Any) -> Hashable:
        """Equal for equal states."""
        return state  # type: ignore[no-any-return]


def argument(operation: Operation, at: int, name: str = "", default: Any = None) -> Any:
    """An argument by its position or its name."""
    if len(operation.args) > at:
        return operation.args[at]
    return operation.kwargs.get(name, default)


def no_effect(operation: Operation) -> bool:
    return isinstance(operation.result, Raised)


def told(result: Any, expected: Any) -> bool:
    """Whether a result fits; methods that change something need not say anything, so None fits, too."""
    return result is MAYBE or result is None or bool(result == expected)


class Register(Model):
    """One value: ``write(value)``, ``read()``, ``compare_and_set(old, new)`` -> whether it was done."""

    def __init__(
        self,
        initial: Any = None,
        read: str = "read",
        write: str = "write",
        compare_and_set: str = "compare_and_set",
    ) -> None:
        self._initial = initial
        self.steps = {read: self._read, write: self._write, compare_and_set: self._compare_and_set}

    def initial(self) -> Any:
        return self._initial

    def _read(self, state: Any, operation: Operation) -> Any:
        fits = operation.result is MAYBE or no_effect(operation) or operation.result == state
        return state if fits else IMPOSSIBLE

    def _write(self, state: Any, operation: Operation) -> Any:
        return state if no_effect(operation) else argument(operation, 0, "value")

    def _compare_and_set(self, state: Any, operation: Operation) -> Any:
        if no_effect(operation):
            return state
        same = state == argument(operation, 0, "old")
        if operation.result is not MAYBE and bool(operation.result) != same:
            return IMPOSSIBLE
        return argument(operation, 1, "new") if same else state


class KeyValue(Model):
    """Many registers by key: ``put(key, value)``, ``get(key)`` (``default`` where there is none), ``delete(key)``."""

    def __init__(self, default: Any = None, get: str = "get", put: str = "put", delete: str = "delete") -> None:
        self._default = default
        self.steps = {get: self._get, put: self._put, delete: self._delete}

    def initial(self) -> Any:
        return self._default

    def key(self, operation: Operation) -> Hashable:
        return argument(operation, 0, "key")  # type: ignore[no-any-return]

    def _get(self, state: Any, operation: Operation) -> Any:
        fits = operation.result is MAYBE or no_effect(operation) or operation.result == state
        return state if fits else IMPOSSIBLE

    def _put(self, state: Any, operation: Operation) -> Any:
        return state if no_effect(operation) else argument(operation, 1, "value")

    def _delete(self, state: Any, operation: Operation) -> Any:
        return state if no_effect(operation) else self._default


class Counter(Model):
    """A number: ``add(amount=1)`` -> the new value, or None; ``read()`` -> the value."""

    def __init__(self, initial: int = 0, add: str = "add", read: str = "read") -> None:
        self._initial = initial
        self.steps = {add: self._add, read: self._read}

    def initial(self) -> Any:
        return self._initial

    def _add(self, state: Any, operation: Operation) -> Any:
        if no_effect(operation):
            return state
        new = state + argument(operation, 0, "amount", 1)
        return new if told(operation.result, new) else IMPOSSIBLE

    def _read(self, state: Any, operation: Operation) -> Any:
        fits = operation.result is MAYBE or no_effect(operation) or operation.result == state
        return state if fits else IMPOSSIBLE


class Queue(Model):
    """First in, first out: ``put(item)``; ``get()`` -> an item, or ``empty`` (or an exception) where there is none."""

    def __init__(self, empty: Any = None, put: str = "put", get: str = "get") -> None:
        self._empty = empty
        self.steps = {put: self._put, get: self._get}

    def initial(self) -> Any:
        return ()

    def _put(self, state: Any, operation: Operation) -> Any:
        return state if no_effect(operation) else (*state, argument(operation, 0, "item"))

    def _get(self, state: Any, operation: Operation) -> Any:
        result = operation.result
        if not state:
            fits = result is MAYBE or isinstance(result, Raised) or result == self._empty
            return state if fits else IMPOSSIBLE
        return state[1:] if result is MAYBE or result == state[0] else IMPOSSIBLE


class Set(Model):
    """``add(element)`` and ``remove(element)`` -> whether that changed anything, or None; ``contains(element)``."""

    def __init__(self, add: str = "add", remove: str = "remove", contains: str = "contains") -> None:
        self.steps = {add: self._add, remove: self._remove, contains: self._contains}

    def initial(self) -> Any:
        return False  # of one element: whether it is in

    def key(self, operation: Operation) -> Hashable:
        return argument(operation, 0, "element")  # type: ignore[no-any-return]

    def _add(self, state: Any, operation: Operation) -> Any:
        if no_effect(operation):
            return state
        return True if told(operation.result, not state) else IMPOSSIBLE

    def _remove(self, state: Any, operation: Operation) -> Any:
        if no_effect(operation):
            return IMPOSSIBLE if state else state  # as ``set.remove``: it raises only where nothing is there
        return False if told(operation.result, state) else IMPOSSIBLE

    def _contains(self, state: Any, operation: Operation) -> Any:
        fits = operation.result is MAYBE or no_effect(operation) or bool(operation.result) == state
        return state if fits else IMPOSSIBLE


class Lock(Model):
    """``acquire(who)`` -> True, or False where somebody holds it; ``release(who)`` by whoever holds it.

    Without ``who`` anybody may release. An ``acquire`` that returned None waited until it had the lock.
    """

    def __init__(self, acquire: str = "acquire", release: str = "release") -> None:
        self.steps = {acquire: self._acquire, release: self._release}

    def initial(self) -> Any:
        return ()  # or (who,)

    def _acquire(self, state: Any, operation: Operation) -> Any:
        if no_effect(operation):
            return state
        refused = operation.result is False
        if state:
            # One whose answer is lost was refused, or has not come to its turn yet.
            return state if refused or operation.result is MAYBE else IMPOSSIBLE
        return IMPOSSIBLE if refused else (argument(operation, 0, "who"),)

    def _release(self, state: Any, operation: Operation) -> Any:
        refused = no_effect(operation) or operation.result is False
        holds = bool(state) and state[0] == argument(operation, 0, "who")
        if holds:
            return IMPOSSIBLE if refused else ()
        return state if refused or operation.result is MAYBE else IMPOSSIBLE
