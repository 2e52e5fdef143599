"""What belongs to a thread of the interpreter, kept apart for each greenlet: ``threading.local``, asyncio's loop.

The values of ``threading.local`` objects lie in a dictionary of the interpreter's thread. Whoever leaves it to
another greenlet takes them along, and brings them back.
"""

from __future__ import annotations

import asyncio
import ctypes
from typing import Any

_find_dict: Any = ctypes.pythonapi.PyThreadState_GetDict
_find_dict.restype = ctypes.c_void_p  # a borrowed reference
PREFIX = "thread.local."

Kept = tuple[dict[str, Any], Any]


def thread_dict() -> dict[str, Any]:
    """The dictionary of the thread that asks."""
    return ctypes.cast(_find_dict(), ctypes.py_object).value  # type: ignore[no-any-return]


class ThreadLocals:
    """Takes them out and puts them in, for the thread that made it."""

    def __init__(self) -> None:
        self._all = thread_dict()

    def take(self) -> Kept:
        """Take out what belongs to whoever runs."""
        values = self._all
        mine = {name: values.pop(name) for name in list(values) if type(name) is str and name.startswith(PREFIX)}
        loop = asyncio._get_running_loop()
        if loop is not None:
            asyncio._set_running_loop(None)
        return mine, loop

    def put(self, kept: Kept) -> None:
        """Put in what ``take`` gave, for whoever runs from now on."""
        mine, loop = kept
        self._all.update(mine)
        asyncio._set_running_loop(loop)
