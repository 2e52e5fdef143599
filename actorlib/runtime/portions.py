"""How much one message takes: calls and results leave in portions that whoever receives them does not refuse.

A value inside a message has at most ``limits.inline_bytes_max``, but a message may carry a thousand of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from actorlib.transport import limits
from actorlib.transport.messages import VALUE_PARTS, VALUE_REFS, Call, CallResult, Value

Item = TypeVar("Item")
SMALL_BYTES = 256
REFERENCE_BYTES = 64


def weight(value: Value) -> int:
    """About how many bytes a value takes in a message."""
    if type(value) is bytes:
        return len(value)
    if type(value) is tuple and value[0] == VALUE_PARTS:
        return len(value[1]) + sum(map(len, value[2]))
    if type(value) is tuple and value[0] == VALUE_REFS:
        return weight(value[1]) + REFERENCE_BYTES * len(value[2])
    return SMALL_BYTES


def weight_of_call(call: Call) -> int:
    size = len(call.args) if type(call.args) is bytes else weight(call.args)
    return size + sum(weight(value) for _, _, value in call.dependencies) if call.dependencies else size


def weight_of_result(result: CallResult) -> int:
    values = result.values
    if len(values) == 1 and type(values[0]) is bytes:
        return len(values[0])
    return sum(map(weight, values))


def portions(items: list[Item], weight_of: Callable[[Item], int]) -> Iterator[tuple[Item, ...]]:
    """The items in their order, as many together as one message takes; one that is too heavy goes alone."""
    if len(items) == 1:
        yield (items[0],)
        return
    first, total = 0, 0
    for index, item in enumerate(items):
        size = weight_of(item)
        if total + size > limits.message_bytes_max and index > first:
            yield tuple(items[first:index])
            first, total = index, 0
        total += size
    yield tuple(items[first:])
