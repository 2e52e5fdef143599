"""actorlib.util: all its names are there, lazily, and functions win over submodules of their name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from actorlib import util


@pytest.mark.parametrize("name", util.__all__)
def test_each_name_is_there(name: str) -> None:
    assert getattr(util, name) is not None
    assert name in dir(util)


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = util.nothing


def test_placement_group_is_the_function() -> None:
    import actorlib.util.placement_group  # noqa: F401 - importing the submodule must not replace the function

    assert callable(util.placement_group)


def test_importing_util_loads_little() -> None:
    code = (
        "import sys, actorlib.util; "
        "print([n for n in ('joblib', 'multiprocessing', 'actorlib.util.queue') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_serializers() -> None:
    import threading

    from actorlib import serialization

    class Held:
        def __init__(self, value: int) -> None:
            self.value = value
            self.lock = threading.Lock()

    assert not util.inspect_serializability(Held(1), print_file=sys.stderr)[0]
    util.register_serializer(Held, serializer=lambda held: held.value, deserializer=Held)
    again = serialization.deserialize(serialization.serialize(Held(3)).data)
    assert again.value == 3
    util.deregister_serializer(Held)
    with pytest.raises(TypeError):
        serialization.serialize(Held(1))
