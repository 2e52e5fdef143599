"""Time, randomness, threads and the outside as code in a simulated world sees them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import queue
import random
import sched
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from actorlib import object_ref
from actorlib.testing.patches import Here, Imported, Patch, real_get_ident
from actorlib.testing.refusals import refusals
from actorlib.testing.runners import VirtualLoop
from actorlib.testing.thread_locals import ThreadLocals
from actorlib.testing.threads import Threads, thread_patches
from actorlib.testing.watchdog import watching
from actorlib.transport.sim.world import World

NODE_MASK = (1 << 48) - 1


def _sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    Here.world.sleep(seconds)


def _clock() -> float:
    return Here.world.read_clock()  # type: ignore[no-any-return]


def _clock_ns() -> int:
    return int(Here.world.read_clock() * 1e9)


def _wall() -> float:
    return Here.world.read_wall_clock()  # type: ignore[no-any-return]


def _now(cls: Any, tz: Any = None) -> Any:
    return cls.fromtimestamp(_wall(), tz)


def _utcnow(cls: Any) -> Any:
    return cls.fromtimestamp(_wall(), datetime.UTC).replace(tzinfo=None)


def _today(cls: Any) -> Any:
    return cls.fromtimestamp(_wall())


def _urandom(count: int) -> bytes:
    return Here.world.urandom(count)  # type: ignore[no-any-return]


_seed = random.Random.seed


def _seeded(source: Any, a: Any = None, version: int = 2) -> None:
    """A source without a seed takes its seed from the world, not from the system."""
    _seed(source, int.from_bytes(_urandom(16), "little") if a is None else a, version)


def _new_event_loop(*_: Any) -> Any:
    loop = VirtualLoop(Here.world)
    Here.world.event_loops.append(loop)
    return loop


# What user code imports by name as well: from time import sleep.
BY_NAME = [
    *(Patch(time, name, _clock) for name in ("monotonic", "perf_counter")),
    *(Patch(time, f"{name}_ns", _clock_ns) for name in ("monotonic", "perf_counter")),
    Patch(time, "time", _wall),
    Patch(time, "time_ns", lambda: int(_wall() * 1e9)),
    Patch(time, "sleep", _sleep),
    Patch(os, "urandom", _urandom),
]
CLOCKS_OF_MODULES = [
    Patch(threading, "_time", _clock),
    Patch(queue, "time", _clock),
    Patch(sched, "_time", _clock),
    Patch(random, "_urandom", _urandom),
    Patch(random.Random, "seed", _seeded),
    Patch(uuid, "getnode", lambda: int.from_bytes(f"{Here.world.seed}".encode()[:6], "little") & NODE_MASK),
    Patch(datetime.datetime, "now", lambda *a, **k: _now(*a, **k), classmethod),
    Patch(datetime.datetime, "utcnow", _utcnow, classmethod),
    Patch(datetime.date, "today", _today, classmethod),
    Patch(object_ref, "aside", lambda engine, work: Here.world.spawn(engine, work)),
    Patch(asyncio, "new_event_loop", _new_event_loop),
    Patch(asyncio.events, "new_event_loop", _new_event_loop),
]
ALL = [*CLOCKS_OF_MODULES, *thread_patches(), *refusals()]


@contextlib.contextmanager
def virtual_surroundings(world: World) -> Iterator[None]:
    """Make time, randomness, threads and event loops those of the world, for this thread, while the block runs.

    Other threads go on with the real ones. The states of ``random`` and of ``numpy.random`` are put back at the end.
    """
    random_state, of_numpy = random.getstate(), sys.modules.get("numpy.random")
    numpy_state = of_numpy.get_state() if of_numpy is not None else None
    names, generate = Imported(), uuid._generate_time_safe  # type: ignore[attr-defined]
    world.threads, world.locals = Threads(world), ThreadLocals()
    placed: list[Patch] = []
    try:
        with watching(world):
            for patch in [*BY_NAME, *ALL]:
                patch.put()
                placed.append(patch)
            names.put(BY_NAME)
            uuid._generate_time_safe = uuid._last_timestamp = None  # type: ignore[attr-defined]
            Here.world, Here.thread = world, real_get_ident()
            random.seed(world.seed)
            if of_numpy is not None:
                of_numpy.seed(world.seed % (1 << 32))
            yield
    finally:
        Here.world, Here.thread = None, 0
        names.take_back()
        for patch in reversed(placed):
            patch.take_back()
        uuid._generate_time_safe = generate  # type: ignore[attr-defined]
        world.threads.end()
        random.setstate(random_state)
        if of_numpy is not None:
            of_numpy.set_state(numpy_state)
