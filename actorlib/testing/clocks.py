"""Time and randomness as code in a simulated world sees them."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

from actorlib.transport.sim.world import World


@contextlib.contextmanager
def virtual_time(world: World) -> Iterator[None]:
    """Make ``time``, ``random`` and ``os.urandom`` those of the world, for this thread, for as long as the block runs.

    Other threads go on with the real ones. The state of ``random`` is put back at the end.
    """
    thread = threading.get_ident()
    state = random.getstate()
    patched: list[tuple[Any, str, Any]] = []

    def patch(module: Any, name: str, virtual: Any) -> None:
        real = getattr(module, name)

        def choose(*args: Any, **kwargs: Any) -> Any:
            here = threading.get_ident() == thread
            return virtual(*args, **kwargs) if here else real(*args, **kwargs)

        choose.__name__ = name
        patched.append((module, name, real))
        setattr(module, name, choose)

    for name in ("monotonic", "perf_counter"):
        patch(time, name, world.read_clock)
        patch(time, f"{name}_ns", lambda: int(world.read_clock() * 1e9))
    patch(time, "time", world.read_wall_clock)
    patch(time, "time_ns", lambda: int(world.read_wall_clock() * 1e9))
    patch(time, "sleep", world.sleep)
    patch(os, "urandom", world.urandom)
    random.seed(world.seed)
    try:
        yield
    finally:
        for module, name, real in reversed(patched):
            setattr(module, name, real)
        random.setstate(state)
