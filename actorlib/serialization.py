"""Values as bytes and back: the only place that unpickles.

Plain pickle (written in C) is tried first. It pickles functions and classes by reference, which is wrong for what is
defined in ``__main__`` or inside functions: where the pickle mentions ``__main__``, or plain pickle fails, cloudpickle
takes over. Large buffers (numpy arrays) are left out of the pickle, protocol 5, and travel beside it without a copy.

References inside a value are noted while it is pickled, so that whoever sends the value knows what it carries.
"""

from __future__ import annotations

import copyreg
import io
import json
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from actorlib.exceptions import SerializationError, WrongEngineError
from actorlib.transport.ids import ObjectId
from actorlib.transport.link import Address

OUT_OF_BAND_BYTES_MIN = 1024
_PLAIN = (bytes, str, int, float, bool, type(None))


class Serialized(NamedTuple):
    """A pickled value: the pickle, its out-of-band buffers, and the references inside."""

    data: bytes
    buffers: Sequence[memoryview]
    refs: Sequence[tuple[ObjectId, Address]]


class _Collector(threading.local):
    refs: list[tuple[ObjectId, Address]] | None = None


_collector = _Collector()


def note_ref(ref: Any) -> None:
    """A reference is being pickled (called by ``ObjectRef.__reduce__``)."""
    from actorlib import engine

    current = engine.current_or_none()
    if current is not None:
        engine.check_ref(ref, current)
    if _collector.refs is not None:
        _collector.refs.append((ref._id, ref._owner))
    elif current is not None:
        current.pin_forever(ref)


def serialize(value: Any, in_band: bool = False) -> Serialized:
    """Pickle a value. Raises SerializationError, which names the path to what can't be pickled."""
    if type(value) in _PLAIN:
        return Serialized(pickle.dumps(value, 5), (), ())
    buffers: list[memoryview] = []

    def take(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:
            return True
        if raw.nbytes < OUT_OF_BAND_BYTES_MIN:
            return True
        buffers.append(raw)
        return False

    callback = None if in_band else take
    outer, _collector.refs = _collector.refs, []
    try:
        data = _dumps(value, callback, buffers)
        return Serialized(data, buffers, _collector.refs)
    finally:
        _collector.refs = outer


def _dumps(value: Any, callback: Callable[[pickle.PickleBuffer], bool] | None, buffers: list[memoryview]) -> bytes:
    try:
        data = pickle.dumps(value, 5, buffer_callback=callback)
        if b"__main__" not in data and not _by_value_modules():
            return data
    except WrongEngineError:
        raise
    except Exception:
        data = b""  # cloudpickle may know how; if not, its error is the one to show
    from actorlib import by_value

    buffers.clear()
    assert _collector.refs is not None
    _collector.refs.clear()
    try:
        return by_value.dumps(value, callback)
    except Exception as error:
        raise SerializationError(_explain(value, error)) from error


def _by_value_modules() -> bool:
    import sys

    module = sys.modules.get("cloudpickle.cloudpickle")
    return bool(module is not None and getattr(module, "_PICKLE_BY_VALUE_MODULES", None))


def _explain(value: Any, error: BaseException) -> str:
    from actorlib import inspection

    culprits = inspection.find_unpicklable(value)
    where = "; ".join(f"{path or 'the value'} ({kind})" for path, kind in culprits[:3])
    culprit = where or type(value).__name__
    return f"can't be pickled: {error}. Culprit: {culprit}. Leave it out, or make it where it is used"


def deserialize(data: Any, buffers: Sequence[Any] = ()) -> Any:
    """A value from its pickle and buffers. Arrays over read-only buffers are read-only."""
    return pickle.loads(data, buffers=buffers)


def dumps_function(function: Any) -> bytes:
    """A function or class as bytes, by value where it can't be imported. Raises SerializationError."""
    from actorlib import by_value

    outer, _collector.refs = _collector.refs, None
    try:
        return by_value.dumps(function)
    except Exception as error:
        from actorlib import inspection

        culprits = inspection.find_unpicklable_in_function(function)
        where = "; ".join(f"{path} ({kind})" for path, kind in culprits[:3])
        name = getattr(function, "__qualname__", repr(function))
        raise SerializationError(
            f"{name} can't be pickled: {error}. It captures: {where or 'something that holds process state'}. "
            "Pass it as an argument, or make it inside the function"
        ) from error
    finally:
        _collector.refs = outer


def dump_state(value: Any, stand_in: Callable[[Any], Any]) -> bytes:
    """Pickle ``value``, but in place of each object for which ``stand_in`` gives something other than None, that.

    Classes that can't be imported go by value, as everywhere. Raises SerializationError.
    """
    from actorlib import by_value

    try:
        data = _dump_with(pickle.Pickler, value, stand_in)
        if b"__main__" not in data and not _by_value_modules():
            return data
    except Exception:
        data = b""  # as in _dumps: cloudpickle may know how; if not, its error is the one to show
    try:
        return _dump_with(by_value.Pickler, value, stand_in)
    except Exception as error:
        raise SerializationError(_explain(value, error)) from error


def _dump_with(base: Any, value: Any, stand_in: Callable[[Any], Any]) -> bytes:
    target = io.BytesIO()
    pickler = type("StatePickler", (base,), {"persistent_id": lambda _, item: stand_in(item)})
    pickler(target, 5).dump(value)
    return target.getvalue()


class _StateUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes, resolve: Callable[[Any], Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._resolve = resolve

    def persistent_load(self, stand_in: Any) -> Any:
        return self._resolve(stand_in)


def load_state(data: bytes, resolve: Callable[[Any], Any]) -> Any:
    """What ``dump_state`` pickled; ``resolve`` gives the object for each stand-in."""
    return _StateUnpickler(data, resolve).load()


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Pickle instances of ``cls`` as ``serializer(instance)`` and rebuild them with ``deserializer``."""
    copyreg.pickle(cls, lambda instance: (_rebuild_custom, (deserializer, serializer(instance))))


def deregister_serializer(cls: type) -> None:
    copyreg.dispatch_table.pop(cls, None)


def _rebuild_custom(deserializer: Callable[[Any], Any], state: Any) -> Any:
    return deserializer(state)


def parse_runtime_env(text: str) -> dict[str, Any]:
    """A runtime environment from its canonical JSON; '' is the empty one."""
    parsed: dict[str, Any] = json.loads(text) if text else {}
    return parsed


def merge_runtime_envs(below: str, above: str) -> str:
    """What the second says, and where it says nothing what the first says; of variables each one by itself."""
    if not above or not below:
        return above or below
    first, second = parse_runtime_env(below), parse_runtime_env(above)
    merged = {**first, **second}
    if "env_vars" in first:
        merged["env_vars"] = {**first["env_vars"], **second.get("env_vars", {})}
    return json.dumps(merged, sort_keys=True)
