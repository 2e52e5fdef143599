"""Calls and results leave in messages that nobody refuses for their size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorlib.runtime.portions import portions, weight, weight_of_call, weight_of_result
from actorlib.transport import limits, messages
from actorlib.transport.ids import ObjectId, TaskId
from actorlib.transport.link import NOWHERE
from actorlib.transport.messages import VALUE_PARTS, VALUE_REFS


@given(st.lists(st.integers(0, limits.message_bytes_max * 2), min_size=1, max_size=20))
def test_all_of_them_in_their_order_and_none_too_heavy(sizes: list[int]) -> None:
    parts = list(portions(sizes, lambda size: size))
    assert [size for part in parts for size in part] == sizes
    assert all(part for part in parts)
    assert all(len(part) == 1 or sum(part) <= limits.message_bytes_max for part in parts)


@pytest.mark.parametrize(
    ("value", "size"),
    [(b"12345", 5), ((VALUE_PARTS, b"12", (b"345", b"6")), 6), ((VALUE_REFS, b"12", ((b"o", b"a"),)), 66), (None, 256)],
)
def test_what_values_weigh(value: messages.Value, size: int) -> None:
    assert weight(value) == size


def test_what_calls_and_results_weigh() -> None:
    dependencies = ((ObjectId(b"o"), NOWHERE, b"123"), (ObjectId(b"p"), NOWHERE, None))
    assert weight_of_call(messages.Call(TaskId(b"t"), "f", b"12", (), 1, 0, None)) == 2
    assert weight_of_call(messages.Call(TaskId(b"t"), "f", b"12", dependencies, 1, 0, None)) == 2 + 3 + 256
    assert weight_of_result(messages.CallResult(TaskId(b"t"), 0, (b"123",), (), 1)) == 3
    assert weight_of_result(messages.CallResult(TaskId(b"t"), 0, (b"123", None), (), 1)) == 3 + 256
