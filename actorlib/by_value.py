"""Functions and classes as bytes, by value, with the names of the files that they come from.

cloudpickle does the work. From 3.1.3 on it leaves out a code object's file name, so that equal code gives equal bytes;
but then a traceback in a worker shows neither the user's file nor the line, which is what people look for first.
"""

from __future__ import annotations

import collections
import io
import types
from collections.abc import Callable
from typing import Any

import cloudpickle

Buffers = Callable[[Any], Any] | None
_reduce_code: Callable[[Any], tuple[Any, ...]] = cloudpickle.Pickler.dispatch_table[types.CodeType]


def _reduce_code_with_its_file(code: types.CodeType) -> tuple[Any, ...]:
    make, arguments = _reduce_code(code)
    return make, tuple(code.co_filename if argument == "<dynamic-code>" else argument for argument in arguments)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    dispatch_table = collections.ChainMap(
        {types.CodeType: _reduce_code_with_its_file}, cloudpickle.Pickler.dispatch_table
    )


def dumps(value: Any, buffer_callback: Buffers = None) -> bytes:
    """The pickle of ``value`` (protocol 5). Raises whatever pickling it raises."""
    target = io.BytesIO()
    Pickler(target, 5, buffer_callback).dump(value)
    return target.getvalue()


def forget_classes() -> None:
    """Begin anew with the numbers by which a class that comes back is known.

    They are drawn at random. In simulated worlds of one seed they are the same, so that a class of one world would be
    taken for another's.
    """
    cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.clear()
    cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.clear()
