"""Graphs of calls made with ``.bind()`` and run with ``.execute()``.

A node is executed once for each ``execute``, however many others use its result; edges are ObjectRefs, so nothing is
fetched in between. Actors bound into a graph are created once and kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class DAGNode:
    """A call that is not made yet."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args = args
        self._kwargs = kwargs

    def execute(self, *inputs: Any, **named: Any) -> Any:
        """Make the calls that this node needs, and its own. Gives its ObjectRef (a handle for a class)."""
        return self._evaluate({}, inputs, named)

    def _evaluate(self, done: dict[int, Any], inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if id(self) not in done:
            args = tuple(_resolve(arg, done, inputs, named) for arg in self._args)
            kwargs = {name: _resolve(arg, done, inputs, named) for name, arg in self._kwargs.items()}
            done[id(self)] = self._run(args, kwargs, inputs, named)
        return done[id(self)]

    def _run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        raise TypeError(f"{type(self).__name__} can't be executed by itself")


def _resolve(value: Any, done: dict[int, Any], inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if isinstance(value, DAGNode):
        return value._evaluate(done, inputs, named)
    if isinstance(value, list):
        return [_resolve(item, done, inputs, named) for item in value]
    return value


class FunctionNode(DAGNode):
    """A task."""

    def __init__(self, call: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._call = call
        self._name = name

    def _run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        return self._call(*args, **kwargs)


class MethodNode(FunctionNode):
    """A call of an actor that exists."""


class ClassNode(FunctionNode):
    """An actor, created when the graph is first executed."""

    _handle: Any = None

    def _run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        if self._handle is None:
            self._handle = self._call(*args, **kwargs)
        return self._handle

    def __getattr__(self, name: str) -> _UnboundMethod:
        if name.startswith("_"):
            raise AttributeError(name)
        return _UnboundMethod(self, name)


class _UnboundMethod:
    """A method of an actor that is part of the graph."""

    def __init__(self, owner: ClassNode, name: str) -> None:
        self._owner = owner
        self._name = name

    def bind(self, *args: Any, **kwargs: Any) -> ClassMethodNode:
        return ClassMethodNode(self._owner, self._name, args, kwargs)


class ClassMethodNode(DAGNode):
    """A call of an actor that is part of the graph."""

    def __init__(self, owner: ClassNode, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__((owner, *args), kwargs)
        self._name = name

    def _run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        handle, *rest = args
        return getattr(handle, self._name).remote(*rest, **kwargs)


class InputNode(DAGNode):
    """What ``execute`` is given. ``with InputNode() as x:`` reads well; ``x[0]`` and ``x.name`` pick one of several."""

    def __init__(self) -> None:
        super().__init__((), {})

    def __enter__(self) -> InputNode:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __getitem__(self, key: Any) -> InputAttributeNode:
        return InputAttributeNode(key)

    def __getattr__(self, name: str) -> InputAttributeNode:
        if name.startswith("_"):
            raise AttributeError(name)
        return InputAttributeNode(name)

    def _run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        if len(inputs) == 1 and not named:
            return inputs[0]
        raise TypeError(f"the graph takes one input, {len(inputs)} positional and {len(named)} named were given")


class InputAttributeNode(DAGNode):
    """One of several inputs."""

    def __init__(self, key: Any) -> None:
        super().__init__((), {})
        self._key = key

    def _run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        if isinstance(self._key, str) and self._key in named:
            return named[self._key]
        if isinstance(self._key, int) and len(inputs) > 1:
            return inputs[self._key]
        only = inputs[0]
        return getattr(only, self._key) if isinstance(self._key, str) and hasattr(only, self._key) else only[self._key]


class MultiOutputNode(DAGNode):
    """Several results at once: ``execute`` gives a list."""

    def __init__(self, outputs: list[Any]) -> None:
        super().__init__(tuple(outputs), {})

    def _run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        return list(args)
