"""The state of an actor as bytes and back, and which code its class is."""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

from actorlib import serialization


def dump(instance: Any) -> serialization.Serialized:
    """The state of an actor: what ``__checkpoint__`` gives, else its attributes."""
    custom = getattr(instance, "__checkpoint__", None)
    state = custom() if custom is not None else instance.__dict__
    return serialization.serialize((custom is not None, state))


def restore(cls: Any, state: bytes, buffers: tuple[Any, ...]) -> Any:
    """An instance in the state that ``dump`` saw; ``__init__`` is not run. Arrays can be written to."""
    own = [buffer if type(buffer) is bytearray else bytearray(buffer) for buffer in buffers]  # read just now, or copied
    was_custom, loaded = serialization.deserialize(state, own)
    instance = cls.__new__(cls)
    if hasattr(instance, "__restore__"):
        instance.__restore__(loaded)
    elif was_custom:
        raise TypeError(f"{cls.__name__} has __checkpoint__ but no __restore__(self, state) to take it back")
    else:
        instance.__dict__.update(loaded)
    return instance


def class_version(cls: type, class_id: bytes) -> str:
    """Names the code of a class: the hash of its source if that can be read, else of its pickle."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        for part in cls.__mro__[:-1]:
            if part.__module__ != "__main__" and not part.__module__.startswith("actorlib."):
                digest.update(inspect.getsource(part).encode())
            elif part.__module__ == "__main__":
                return class_id.hex()
    except (OSError, TypeError):
        return class_id.hex()
    return digest.hexdigest()
