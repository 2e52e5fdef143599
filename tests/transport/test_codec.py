"""The codec: what goes in comes out, and nothing else gets through."""

from __future__ import annotations

import pickle
import typing
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.transport import codec, limits, messages
from actorlib.transport.ids import JobId
from actorlib.transport.link import NOWHERE, Address

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)


def values_for(kind: Any) -> st.SearchStrategy[Any]:
    if kind is Any:
        return plain
    if hasattr(kind, "__supertype__"):
        return st.binary(max_size=16)
    if isinstance(kind, type) and hasattr(kind, "_fields"):
        return instances(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return st.lists(values_for(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(values_for, arguments))
    if origin is dict:
        return st.dictionaries(st.text(max_size=4), values_for(arguments[1]), max_size=3)
    if arguments:
        return st.one_of(*(st.none() if a is type(None) else values_for(a) for a in arguments))
    simple = {
        int: st.integers(-(2**63), 2**63 - 1),
        bool: st.booleans(),
        str: st.text(max_size=8),
        bytes: st.binary(max_size=16),
        float: st.floats(allow_nan=False),
        tuple: plain.map(lambda x: (x,)),
    }
    return simple[kind]


def instances(cls: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    return st.tuples(*(values_for(hints[name]) for name in cls._fields)).map(cls._make)


@pytest.mark.parametrize("cls", [cls for _, cls, _ in messages.TABLE], ids=lambda cls: cls.__name__)
def test_every_message_comes_back_as_it_was(cls):
    @settings(max_examples=15, deadline=None, database=None)
    @given(instances(cls))
    def check(message):
        body, *frames = codec.encode_batch([message, message])
        back = codec.decode_batch(body, frames)
        assert back == [message, message]
        assert type(back[0]) is cls

    check()


def test_nested_tuples_get_their_classes_back():
    address = Address(b"p" * 8, b"n" * 8, "ipc:///x")
    call = messages.Call(b"t" * 16, b"f" * 16, b"", (), 1, 0, None)
    (body,) = codec.encode_batch([messages.RunTasks(b"l", b"j", "", 3, None, (call,)), messages.Watch(address)])
    run, watch = codec.decode_batch(body)
    assert type(run.calls[0]) is messages.Call and type(watch.process) is Address


def test_large_payloads_travel_beside_the_body_and_small_ones_inside():
    large, small = bytes(limits.own_frame_bytes_min), b"tiny"
    message = messages.DebugPing(1, pickle.PickleBuffer(large))
    body, frame = codec.encode_batch([message])
    assert bytes(frame) == large and len(body) < 100
    assert bytes(codec.decode_batch(body, [frame])[0].payload) == large
    assert len(codec.encode_batch([messages.DebugPing(1, pickle.PickleBuffer(small))])) == 1


def test_codes_are_unique_and_every_class_is_in_the_table_once():
    codes = [code for code, _, _ in messages.TABLE]
    classes = [cls for _, cls, _ in messages.TABLE]
    assert len(set(codes)) == len(codes) and len(set(classes)) == len(classes)


@settings(max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=200), st.lists(st.binary(max_size=10), max_size=2))
def test_random_bytes_are_refused_with_the_one_error(body, frames):
    try:
        codec.decode_batch(body, frames)
    except codec.MalformedBatch:
        return
    assert msgpack.unpackb(body, use_list=False, strict_map_key=False) == ()


@settings(max_examples=300, deadline=None, database=None)
@given(st.data())
def test_mutated_batches_never_raise_anything_else(data):
    call = messages.Call(b"t" * 16, "method", b"args", ((b"o", ("p", "n", ""), None),), 1, 0, {"depth": 2})
    (body,) = codec.encode_batch([messages.RunTasks(b"l" * 16, b"j" * 8, "ns", 3, None, (call,)), messages.Done(4)])
    mutable = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        mutable[data.draw(st.integers(0, len(mutable) - 1))] = data.draw(st.integers(0, 255))
    try:
        codec.decode_batch(bytes(mutable))
    except codec.MalformedBatch as error:
        assert str(error)


def test_wrong_shapes_are_refused():
    for item in ([], [5], [999, 1], [4], [4, "x"], [4, 1, 2], "text", None):
        with pytest.raises(codec.MalformedBatch):
            codec.decode_batch(msgpack.packb([item]))
    with pytest.raises(codec.MalformedBatch):
        codec.decode_batch(msgpack.packb([[59, 1, msgpack.ExtType(1, b"\x05\0\0\0")]]))
    with pytest.raises(codec.MalformedBatch):
        codec.decode_batch(b"", [b""] * (limits.frames_per_batch_max + 1))


def test_the_version_is_read_before_anything_else():
    hello = messages.Hello(7, NOWHERE, "node", 1, JobId(b""), "3.11")
    (body,) = codec.encode_batch([hello, messages.Done(1)])
    assert codec.version_of(memoryview(body)) == 7
    for other in (codec.encode_batch([messages.Done(7)])[0], b"", b"\x91", b"\xff" * 64, body[:2]):
        assert codec.version_of(memoryview(other)) is None


def test_what_was_refused_leaves_nothing_in_the_next_batch():
    class Unknown:
        """msgpack asks what to do with it, and nobody knows."""

    encoder = codec.Encoder()
    large = bytes(limits.own_frame_bytes_min)
    with pytest.raises(TypeError):
        encoder.encode([messages.DebugPing(1, codec.InPlace(large)), messages.DebugPing(2, Unknown())])
    assert len(encoder.encode([messages.DebugPing(3, b"x")])) == 1
    body, frame = encoder.encode([messages.DebugPing(4, codec.InPlace(large))])
    assert codec.decode_batch(body, [frame]) == [messages.DebugPing(4, large)]


def test_a_field_of_the_wrong_type_is_refused_as_often_as_it_comes():
    body = msgpack.packb([(codec._CODES[messages.DebugPing][0], "one", b"x")])
    for _ in range(3):
        with pytest.raises(codec.MalformedBatch, match=r"DebugPing\.request_id is a str"):
            codec.decode_batch(body)
        assert codec.decode_batch(codec.encode_batch([messages.DebugPing(1, b"x")])[0])
