"""Batches of messages as bytes, and back, with every byte from outside checked before anything else sees it.

A batch is ``[body, *payload frames]``: the body is a msgpack array of ``(code, *fields)``. An ``InPlace`` payload of
``limits.own_frame_bytes_min`` or more travels as a frame of its own and lies in the body as an ExtType with the
frame's number, so large payloads are never copied into msgpack.

What a message may hold is read from the annotations in ``messages.py`` once, at import: how many fields, which types,
and which nested NamedTuples are to be rebuilt. Anything else is refused as ``MalformedBatch``.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from actorlib.transport import limits, messages
from actorlib.transport.link import Address

FRAME_EXTENSION = 1
TYPES_KEPT_MAX = 256
PACKER_BYTES_KEPT_MAX = 1 << 20
VERSION_BYTES = 32  # the first bytes of a session, in which its version must lie
Decoder = Callable[[Any], Any]


class MalformedBatch(Exception):
    """Bytes that are no batch of messages. The sender is at fault, or is not one of us."""


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def _allowed(kind: Any) -> tuple[type, ...] | None:
    """The exact types that msgpack may give for an annotation; None: anything."""
    if kind is Any:
        return None
    if hasattr(kind, "__supertype__"):
        return (kind.__supertype__,)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        parts = [_allowed(part) for part in typing.get_args(kind)]
        return None if None in parts else tuple(t for part in parts for t in (part or ()))
    if kind is type(None):
        return (type(None),)
    if origin is not None:
        return (origin,)
    if _is_named_tuple(kind):
        return (tuple,)
    if kind is float:
        return (float, int)
    return (kind,)


def _rebuild(kind: Any) -> Decoder | None:
    """How to turn plain tuples back into the NamedTuples of an annotation; None: nothing to do."""
    if _is_named_tuple(kind):
        return _decoder(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        each = _rebuild(arguments[0]) or _check_items(arguments[0])
        return None if each is None else lambda items: tuple([each(item) for item in items]) if items else ()
    if origin is dict and arguments:
        return _check_entries(*arguments)
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            inner = _rebuild(argument)
            if inner is not None:
                return lambda item: None if item is None else inner(item)
    return None


def _check_items(kind: Any) -> Decoder | None:
    allowed = _allowed(kind)
    if allowed is None:
        return None

    def check(item: Any) -> Any:
        if type(item) not in allowed:
            raise MalformedBatch(f"an item is a {type(item).__name__}, not {allowed[0].__name__}")
        return item

    return check


def _check_entries(key_kind: Any, value_kind: Any) -> Decoder:
    """A dict whose keys and values are what the annotation says: handlers calculate with them."""
    check_key = _check_items(key_kind)
    check_value, rebuild_value = _check_items(value_kind), _rebuild(value_kind)

    def check(entries: Any) -> Any:
        for key, value in entries.items():
            if check_key is not None:
                check_key(key)
            if check_value is not None:
                check_value(value)
            if rebuild_value is not None:
                rebuild_value(value)
        return entries

    return check


def _decoder(cls: Any) -> Decoder:
    """A function that checks the fields of one class and makes an instance.

    The types of a message's fields are few in their combinations: those that were found right are looked up at once.
    """
    known = _DECODERS.get(cls)
    if known is not None:
        return known
    hints = typing.get_type_hints(cls)
    allowed = [_allowed(hints[name]) for name in cls._fields]
    rebuilds = [(i, r) for i, name in enumerate(cls._fields) if (r := _rebuild(hints[name])) is not None]
    right: dict[tuple[type, ...], None] = {}
    new = tuple.__new__

    def check(fields: Any, types_of_fields: tuple[type, ...]) -> None:
        if len(fields) != len(allowed):
            raise MalformedBatch(f"{cls.__name__} has {len(allowed)} fields")
        for name, kind, kinds in zip(cls._fields, types_of_fields, allowed, strict=True):
            if kinds is not None and kind not in kinds:
                raise MalformedBatch(f"{cls.__name__}.{name} is a {kind.__name__}")
        if len(right) < TYPES_KEPT_MAX:
            right[types_of_fields] = None

    def decode(fields: Any) -> Any:
        if type(fields) is not tuple:
            raise MalformedBatch(f"{cls.__name__} is not an array")
        types_of_fields = tuple(map(type, fields))
        if types_of_fields not in right:
            check(fields, types_of_fields)
        if not rebuilds:
            return new(cls, fields)
        items = list(fields)
        for index, rebuild in rebuilds:
            items[index] = rebuild(items[index])
        return new(cls, items)

    _DECODERS[cls] = decode
    return decode


_DECODERS: dict[Any, Decoder] = {}
_decoder(Address)


class _ByCode(dict[int, Decoder]):
    """Decoders by code, each made when its message is first seen: a process sees few kinds, and making one is slow."""

    def __missing__(self, code: int) -> Decoder:
        decoder = self[code] = _decoder(_CLASSES[code])  # KeyError: no such message
        return decoder


_CLASSES: dict[int, Any] = {code: cls for code, cls, _ in messages.TABLE}
_BY_CODE = _ByCode()
_CODES: dict[type, tuple[int]] = {cls: (code,) for code, cls, _ in messages.TABLE}


class InPlace:
    """A payload that is sent from where it lies, as a frame of its own if it is large enough to be worth one."""

    __slots__ = ("view",)

    def __init__(self, view: Any) -> None:
        self.view = view


class Encoder:
    """Packs batches, and collects the payloads of one that become frames of their own. For one thread at a time.

    Making a packer takes as long as packing a small batch, so who packs many keeps one.
    """

    def __init__(self) -> None:
        self._frames: list[memoryview] = []
        self._renew()

    def _renew(self) -> None:
        self._packer = msgpack.Packer(default=self._payload, use_bin_type=True)

    def encode(self, batch: Sequence[tuple[Any, ...]]) -> list[Any]:
        """``[body, *payload frames]`` for messages of ``messages.TABLE``."""
        codes = _CODES
        try:
            body = self._packer.pack([codes[type(message)] + message for message in batch])
        except BaseException:
            self._frames = []
            self._renew()  # it has packed some of it
            raise
        if len(body) > PACKER_BYTES_KEPT_MAX:
            self._renew()  # its buffer never shrinks
        frames, self._frames = self._frames, []
        return [body, *frames]

    def _payload(self, item: Any) -> Any:
        view = memoryview(item.view if type(item) is InPlace else item).cast("B")
        if view.nbytes < limits.own_frame_bytes_min:
            return bytes(view)
        self._frames.append(view)
        return msgpack.ExtType(FRAME_EXTENSION, len(self._frames).to_bytes(4, "little"))


def encode_batch(batch: Sequence[tuple[Any, ...]]) -> list[Any]:
    """``[body, *payload frames]`` for messages of ``messages.TABLE``."""
    return Encoder().encode(batch)


def is_acceptable(frames: Sequence[Any]) -> bool:
    """Whether whoever receives an encoded batch would take it, by its size."""
    return len(frames[0]) <= limits.batch_body_bytes_max and len(frames) - 1 <= limits.frames_per_batch_max


def version_of(body: Any) -> int | None:
    """The protocol version in the Hello that ``body`` begins with; None: it does not begin with one.

    Every version's Hello begins with its code and that number, so that two versions can tell each other apart.
    """
    reader = msgpack.Unpacker(max_buffer_size=VERSION_BYTES)
    try:
        reader.feed(bytes(body[:VERSION_BYTES]))
        reader.read_array_header()
        reader.read_array_header()
        code, version = reader.unpack(), reader.unpack()
    except (ValueError, msgpack.UnpackException):
        return None
    return version if code == _CODES[messages.Hello][0] and type(version) is int else None


def decode_batch(body: Any, frames: Sequence[Any] = ()) -> list[Any]:
    """The messages of a batch. Raises MalformedBatch."""
    size = len(body)
    if size > limits.batch_body_bytes_max or len(frames) > limits.frames_per_batch_max:
        raise MalformedBatch("the batch is larger than the limits allow")

    def payload(code: int, data: bytes) -> Any:
        number = int.from_bytes(data, "little")
        if code != FRAME_EXTENSION or not 1 <= number <= len(frames):
            raise MalformedBatch("a payload names a frame that is not there")
        return frames[number - 1]

    try:
        items = msgpack.unpackb(
            body,
            use_list=False,
            raw=False,
            strict_map_key=False,
            ext_hook=payload,
            max_array_len=min(size, limits.elements_per_array_max),
            max_map_len=min(size, limits.elements_per_array_max),
        )
        if type(items) is not tuple:
            raise MalformedBatch("a batch is an array")
        by_code = _BY_CODE
        return [by_code[item[0]](item[1:]) for item in items]
    except MalformedBatch:
        raise
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedBatch(f"{type(error).__name__}: {error}") from error
