"""Putting virtual things in the place of real ones, for one thread, for as long as a simulation lasts.

What is replaced asks first who calls: any thread but the simulation's gets the real thing. Methods of types that are
written in C (locks, queues, ``datetime``) are replaced in the type's own dictionary, so that objects which were made
long before, and names that were imported from their modules, are virtual as well. Needs CPython.
"""

from __future__ import annotations

import _thread
import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

real_get_ident = _thread.get_ident

_type_modified: Any = ctypes.pythonapi.PyType_Modified
_type_modified.argtypes, _type_modified.restype = [ctypes.py_object], None

# These measure and guard real runs; they keep the real clock even where they imported it by name.
KEEP_REAL = ("_pytest", "pytest", "hypothesis", "actorlib.testing.real_time")


class Here:
    """The simulation that runs in this process, if one does."""

    world: Any = None
    thread = 0  # the ident of its only thread; 0 is nobody's


def dispatching(real: Any, virtual: Callable[..., Any]) -> Any:
    """A function that is ``virtual`` in the simulation's thread and ``real`` in any other."""

    def choose(*args: Any, **kwargs: Any) -> Any:
        if Here.thread == real_get_ident():
            return virtual(*args, **kwargs)
        return real(*args, **kwargs)

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        try:
            setattr(choose, name, getattr(real, name))
        except (AttributeError, TypeError):
            continue  # a builtin without that name; nothing needs it
    return choose


class Patch:
    """One name that is replaced, on a module or a class."""

    def __init__(self, holder: Any, name: str, virtual: Callable[..., Any], wrap: Any = None) -> None:
        self.holder = holder
        self.name = name
        self.virtual = virtual
        self.wrap = wrap
        self.real: Any = None
        self.standing: Any = None
        self._stands_for: Any = None

    def put(self) -> None:
        if isinstance(self.holder, type):
            names = type_dict(self.holder)
            self.real = names[self.name]
            made = self._made(self.real if self.wrap is None else _of_class(self.real))
            names[self.name] = made if self.wrap is None else self.wrap(made)
            _type_modified(self.holder)
        else:
            self.real = getattr(self.holder, self.name)
            setattr(self.holder, self.name, self._made(self.real))

    def _made(self, real: Any) -> Any:
        """Made once: what user code keeps of it stays the same thing in the next simulation."""
        if self.standing is None or self._stands_for is not real:
            self.standing, self._stands_for = dispatching(real, self.virtual), real
        return self.standing

    def take_back(self) -> None:
        if isinstance(self.holder, type):
            type_dict(self.holder)[self.name] = self.real
            _type_modified(self.holder)
        else:
            setattr(self.holder, self.name, self.real)


def _of_class(method: Any) -> Callable[..., Any]:
    """A class method as a function of the class."""
    return lambda cls, *args, **kwargs: method.__get__(None, cls)(*args, **kwargs)


def type_dict(of: type) -> dict[str, Any]:
    """The dictionary behind a type's read-only ``__dict__``."""
    (found,) = gc.get_referents(of.__dict__)
    return found  # type: ignore[no-any-return]


class Imported:
    """Functions that modules have imported by name, ``from time import sleep``: these names are replaced, too."""

    def __init__(self) -> None:
        self._changed: list[tuple[dict[str, Any], str, Any]] = []

    def put(self, patches: list[Patch]) -> None:
        by_name: dict[str, Patch] = {patch.name: patch for patch in patches}
        for names in list(_namespaces()):
            for name, patch in by_name.items():
                if names.get(name) is patch.real:
                    self._changed.append((names, name, patch.real))
                    names[name] = patch.standing

    def take_back(self) -> None:
        for names, name, real in self._changed:
            names[name] = real
        self._changed.clear()


def _namespaces() -> Iterator[dict[str, Any]]:
    for module_name, module in sys.modules.items():
        if not module_name.startswith(KEEP_REAL):
            names = getattr(module, "__dict__", None)
            if type(names) is dict:
                yield names
