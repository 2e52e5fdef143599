"""Finding what can't be pickled inside a value, by name."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

PATHS_MAX = 10
DEPTH_MAX = 6


def _is_picklable(value: Any) -> bool:
    import cloudpickle

    from actorlib import serialization

    outer, serialization._collector.refs = serialization._collector.refs, []
    try:
        cloudpickle.dumps(value, 5)
    except Exception:
        return False
    finally:
        serialization._collector.refs = outer
    return True


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Named parts of a container or an object."""
    if isinstance(value, dict):
        return [(f"[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [(f"{{{item!r}}}", item) for item in value]
    if inspect.isfunction(value):
        return _captured(value)
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict) and not inspect.isclass(value):
        return [(f".{name}", item) for name, item in attributes.items()]
    return []


def _captured(function: Any) -> list[tuple[str, Any]]:
    try:
        captured = inspect.getclosurevars(function)
    except (TypeError, ValueError):
        return []
    return [
        *((f"<closure {name}>", item) for name, item in captured.nonlocals.items()),
        *((f"<global {name}>", item) for name, item in captured.globals.items()),
    ]


def find_unpicklable(value: Any, path: str = "", depth: int = DEPTH_MAX) -> list[tuple[str, str]]:
    """Paths to the innermost parts that can't be pickled, each with its type's name."""
    if _is_picklable(value):
        return []
    found: list[tuple[str, str]] = []
    if depth > 0:
        for name, part in _parts(value):
            found.extend(find_unpicklable(part, path + name, depth - 1))
            if len(found) >= PATHS_MAX:
                return found
    return found or [(path, type(value).__name__)]


def find_unpicklable_in_function(function: Any) -> list[tuple[str, str]]:
    """The same for what a function or a class's methods capture."""
    functions = [function]
    if inspect.isclass(function):
        functions = [item for item in vars(function).values() if inspect.isfunction(item)]
    found: list[tuple[str, str]] = []
    for item in functions:
        for name, part in _captured(item):
            if not inspect.ismodule(part):
                found.extend(find_unpicklable(part, name))
    return found


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: Any = None
) -> tuple[bool, set[tuple[str, str]]]:
    """Whether an object can be sent to a worker, and what in it can't: pairs of path and type.

    Prints a short report to ``print_file`` (stdout if None), as Ray's function of this name does.
    """
    label = str(name or getattr(base_obj, "__qualname__", type(base_obj).__name__))
    if inspect.isfunction(base_obj) or inspect.isclass(base_obj):
        failures = [] if _is_picklable(base_obj) else find_unpicklable_in_function(base_obj)
        failures = failures or ([] if _is_picklable(base_obj) else [(label, type(base_obj).__name__)])
    else:
        failures = find_unpicklable(base_obj, depth=depth)
    print(f"{label}: {'can be pickled' if not failures else 'can not be pickled'}", file=print_file)
    for path, kind in failures:
        print(f"  {path or label}: {kind}", file=print_file)
    return not failures, set(failures)


def is_plain_picklable(value: Any) -> bool:
    """Whether plain pickle is enough."""
    try:
        pickle.dumps(value, 5)
    except Exception:
        return False
    return True
