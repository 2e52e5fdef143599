"""The models, step by step."""

from __future__ import annotations

import pytest

from actorlib.testing.histories import (
    IMPOSSIBLE,
    MAYBE,
    Counter,
    KeyValue,
    Lock,
    Operation,
    PlainModel,
    Queue,
    Raised,
    Register,
    Set,
)
from actorlib.testing.histories.plain_model import frozen


def after(model, *steps):
    """The state after (name, args, result) steps, or IMPOSSIBLE."""
    state = model.initial()
    for name, args, result in steps:
        state = model.step(state, Operation(name, args, result))
        if state is IMPOSSIBLE:
            return IMPOSSIBLE
    return state


FAILED = Raised("ValueError", ("no",))


@pytest.mark.parametrize(
    ("model", "steps", "state"),
    [
        (Register(), [("write", (3,), None), ("read", (), 3)], 3),
        (Register(), [("write", (3,), None), ("read", (), 2)], IMPOSSIBLE),
        (Register(), [("write", (3,), FAILED), ("read", (), None)], None),
        (Register(1), [("compare_and_set", (1, 2), True)], 2),
        (Register(1), [("compare_and_set", (0, 2), True)], IMPOSSIBLE),
        (Register(1), [("compare_and_set", (0, 2), MAYBE)], 1),
        (Register(1), [("compare_and_set", (1, 2), FAILED), ("read", (), FAILED)], 1),
        (KeyValue(), [("put", ("a", 1), None), ("get", ("a",), 1), ("delete", ("a",), None)], None),
        (KeyValue(), [("get", ("a",), 1)], IMPOSSIBLE),
        (KeyValue(), [("put", ("a", 1), FAILED), ("delete", ("a",), FAILED)], None),
        (Counter(), [("add", (2,), 2), ("add", (), 3), ("read", (), 3)], 3),
        (Counter(), [("add", (2,), 3)], IMPOSSIBLE),
        (Counter(5), [("add", (2,), FAILED), ("add", (), None), ("add", (), MAYBE)], 7),
        (Queue(), [("put", (1,), None), ("put", (2,), None), ("get", (), 1)], (2,)),
        (Queue(), [("put", (1,), None), ("put", (2,), None), ("get", (), 2)], IMPOSSIBLE),
        (Queue(), [("get", (), None), ("get", (), Raised("Empty")), ("get", (), MAYBE)], ()),
        (Queue(), [("put", (1,), FAILED), ("get", (), 1)], IMPOSSIBLE),
        (Set(), [("add", (1,), True), ("add", (1,), False), ("contains", (1,), True), ("remove", (1,), None)], False),
        (Set(), [("remove", (1,), True)], IMPOSSIBLE),
        (Set(), [("remove", (1,), Raised("KeyError", (1,))), ("add", (1,), FAILED)], False),
        (Lock(), [("acquire", ("a",), True), ("acquire", ("b",), False), ("release", ("a",), None)], ()),
        (Lock(), [("acquire", ("a",), True), ("acquire", ("b",), True)], IMPOSSIBLE),
        (Lock(), [("acquire", ("a",), True), ("release", ("b",), True)], IMPOSSIBLE),
        (Lock(), [("acquire", ("a",), True), ("release", ("a",), False)], IMPOSSIBLE),
        (Lock(), [("acquire", ("a",), MAYBE), ("acquire", ("b",), MAYBE), ("release", ("a",), True)], ()),
        (Lock(), [("release", ("b",), FAILED), ("acquire", ("a",), FAILED), ("release", ("a",), MAYBE)], ()),
        (Lock(), [("acquire", ("a",), False)], IMPOSSIBLE),
    ],
)
def test_steps(model, steps, state):
    assert after(model, *steps) == state


class Box:
    def __init__(self, start=()):
        self.items = list(start)
        self.seen = {"many": set()}

    def put(self, item):
        self.items.append(item)
        self.seen["many"].add(item)

    def first(self):
        return self.items[0]


def test_a_plain_class_is_a_model_and_its_states_are_compared_by_value():
    model = PlainModel(Box, start=[4])
    start = model.initial()
    once = model.step(start, Operation("put", (5,), None))
    assert model.step(once, Operation("first", (), 4)) is not IMPOSSIBLE
    assert model.step(once, Operation("first", (), 5)) is IMPOSSIBLE
    assert start.items == [4]
    again = model.step(model.initial(), Operation("put", (5,), None))
    assert model.fingerprint(once) == model.fingerprint(again) != model.fingerprint(start)
    empty = PlainModel(Box)
    found = empty.step(empty.initial(), Operation("first", (), Raised("IndexError", ("list index out of range",))))
    assert found is not IMPOSSIBLE


def test_frozen_tells_types_apart():
    assert frozen([1]) != frozen((1,)) and frozen(1) != frozen(True) and frozen(bytearray(b"x")) != frozen(b"x")
    assert frozen({"b": [1], "a": {2}}) == frozen({"a": {2}, "b": [1]})
