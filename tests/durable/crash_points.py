"""Crashes of simulated durable actors at the points where they hurt most."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import greenlet

from actorlib.runtime.drivers.durability import Durability

POINTS = {
    "before a call begins": ("_begin", "before"),
    "when a call has begun": ("_begin", "after"),
    "when a call is done": ("_note_finished", "before"),
    "between a call and its reply": ("_note_finished", "after"),
    "before the log is written": ("write_log", "before"),
    "between the log and what leaves": ("write_log", "after"),
    "before a checkpoint is taken": ("save", "before"),
    "when a checkpoint is on its way": ("save", "after"),
    "before the log is cut": ("checkpoint_kept", "before"),
    "when the log is cut": ("checkpoint_kept", "after"),
    "while calls are run again": ("_replay", "before"),
    "when calls were run again": ("take_unfinished", "before"),
}


def crash(worker: Any) -> None:
    """SIGKILL, here and now: nothing more is sent or written."""
    worker.loop.die()
    worker.simulation.kill(worker.address.process_id)
    stay_dead(worker)


def stay_dead(worker: Any) -> None:
    if greenlet.getcurrent() is worker._main_greenlet:
        worker.simulation.world.wait()


@contextlib.contextmanager
def crashing(rng: random.Random, points: list[str], crashes: int, every: int) -> Iterator[Counter[str]]:
    """Let up to ``crashes`` durable actors crash at these points, at one of ``every`` times that one is passed."""
    hit: Counter[str] = Counter()
    real = {name: getattr(Durability, name) for name, _ in POINTS.values()}

    def passes(worker: Any, name: str, when: str) -> bool:
        for point in points:
            if POINTS[point] == (name, when) and hit.total() < crashes and rng.randrange(every) == 0:
                hit[point] += 1
                crash(worker)
                return True
        return False

    def watch(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.log is None or (name == "write_log" and not self.log.pending):
                return real[name](self, *args, **kwargs)
            if self.loop.is_dead:
                stay_dead(self)
                return False
            if passes(self, name, "before"):
                return False
            result = real[name](self, *args, **kwargs)
            if passes(self, name, "after"):
                return False
            return result

        return method

    for name in real:
        setattr(Durability, name, watch(name))
    try:
        yield hit
    finally:
        for name, method in real.items():
            setattr(Durability, name, method)
