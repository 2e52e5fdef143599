"""The simulated network between simulated loops: how long batches take, and which never come, or come twice.

Two layers. ``Weather`` is how all of the network is: the distribution of latencies, the chance that a batch is lost,
repeated or held back behind others. ``Trouble`` is what one direction between two hosts has: cut, slow, narrow (so many
bytes a second), or clogged (all waits, then comes at once). What stays on one host is never lost.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actorlib.transport.ids import NodeId, ProcessId
from actorlib.transport.sim.world import World

if TYPE_CHECKING:
    from actorlib.transport.drivers.link_layer import SocketLink
    from actorlib.transport.sim.loop import SimLoop

LATENCY_S = 0.0002
JITTER_S = 0.0002
LATENCY_S_MAX = 10.0
TAIL_EXPONENT = 1.2
SPIKE_CHANCE, SPIKE_FACTOR = 0.02, 100.0

# What a batch takes beyond the latency, in multiples of the jitter.
DISTRIBUTIONS: dict[str, Callable[[random.Random], float]] = {
    "exponential": lambda rng: -math.log(1.0 - rng.random()),
    "constant": lambda rng: 1.0,
    "uniform": lambda rng: 2.0 * rng.random(),
    "heavy tail": lambda rng: (1.0 - rng.random()) ** (-1.0 / TAIL_EXPONENT) - 1.0,
    "spikes": lambda rng: SPIKE_FACTOR if rng.random() < SPIKE_CHANCE else rng.random(),
}


@dataclass(slots=True)
class Weather:
    """How the network is at the moment. Chances are per batch, times in seconds."""

    latency_s: float = LATENCY_S
    jitter_s: float = JITTER_S  # batches overtake each other by it
    distribution: str = "exponential"  # of DISTRIBUTIONS
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0  # the chance that a batch is held back ...
    held_back_s: float = 0.0  # ... by up to so much


class Trouble:
    """What is wrong in one direction between two hosts. Counted, so that faults that overlap end one by one."""

    __slots__ = ("bytes_per_s", "clogs", "cuts", "extra_s", "free_at", "waiting")

    def __init__(self) -> None:
        self.cuts = 0
        self.clogs = 0
        self.extra_s = 0.0
        self.bytes_per_s = 0.0  # 0: as wide as one likes
        self.free_at = 0.0  # when the narrow link has carried what was sent so far
        self.waiting: list[Callable[[], None]] = []


class Network:
    """Carries batches between the loops of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.weather = Weather()
        self.loops: dict[ProcessId, SimLoop] = {}
        self.troubles: dict[tuple[NodeId, NodeId], Trouble] = {}
        self.deviations: dict[int, float] = {}  # extra seconds for the batch that is sent as that number
        self.sent = self.lost = self.repeated = 0
        self._names: dict[tuple[ProcessId, ProcessId], bytes] = {}

    def add(self, loop: SimLoop) -> None:
        self.loops[loop.address.process_id] = loop

    def dialled(self, loop: SimLoop, link: SocketLink) -> None:
        self._names[loop.address.process_id, link.peer.process_id] = link.name

    def send(self, loop: SimLoop, link: SocketLink, frames: list[Any]) -> None:
        """One batch over a link, to arrive later, never, or twice."""
        here, there = loop.address, link.peer.process_id
        peer = self.loops.get(there)
        self.sent += 1
        if peer is None:
            return
        rng, weather = self.world.rng, self.weather
        extra = self.deviations.get(self.sent, 0.0) if self.deviations else 0.0
        copies, trouble = 1, None
        pair = (here.node_id, peer.address.node_id)
        if pair[0] != pair[1]:
            trouble = self.troubles.get(pair) if self.troubles else None
            if (trouble is not None and trouble.cuts) or (weather.loss and rng.random() < weather.loss):
                self.lost += 1
                return
            if weather.duplication and rng.random() < weather.duplication:
                copies, self.repeated = 2, self.repeated + 1
            if weather.reordering and rng.random() < weather.reordering:
                extra += rng.random() * weather.held_back_s
        batch = [bytes(frame) for frame in frames]
        if trouble is not None:
            extra += trouble.extra_s
            if trouble.bytes_per_s:
                extra += self._queue(trouble, sum(map(len, batch)))
        if loop.stalled_until > self.world.time:
            extra += loop.stalled_until - self.world.time
        arrive = self._arrival(loop, peer, link, batch)
        for _ in range(copies):
            if trouble is not None and trouble.clogs:
                trouble.waiting.append(arrive)
                continue
            delay = weather.latency_s + DISTRIBUTIONS[weather.distribution](rng) * weather.jitter_s
            self.world.schedule(min(delay, LATENCY_S_MAX) + extra, arrive)

    def _queue(self, trouble: Trouble, size: int) -> float:
        """Seconds until a narrow link has carried this as well."""
        trouble.free_at = max(trouble.free_at, self.world.time) + size / trouble.bytes_per_s
        return trouble.free_at - self.world.time

    def _arrival(self, loop: SimLoop, peer: SimLoop, link: SocketLink, batch: list[bytes]) -> Callable[[], None]:
        here = loop.address.process_id
        if link.dialled:
            return lambda: peer.arrived(here, batch, True)
        named = self._names.get((peer.address.process_id, here), b"")
        return lambda: peer.arrived(named, batch, False)

    # -- faults --------------------------------------------------------------------------------------------------------
    def trouble(self, one: NodeId, other: NodeId) -> Trouble:
        """What is wrong from the first host to the second."""
        return self.troubles.setdefault((one, other), Trouble())

    def partition(self, one: NodeId, other: NodeId, both_ways: bool = True) -> Callable[[], None]:
        """Nothing passes from the first host to the second, or between them. What is given ends it."""
        cut = [self.trouble(one, other), *([self.trouble(other, one)] if both_ways else [])]
        for trouble in cut:
            trouble.cuts += 1

        def mend() -> None:
            for trouble in cut:
                trouble.cuts = max(0, trouble.cuts - 1)

        return mend

    def clog(self, one: NodeId, other: NodeId) -> Callable[[], None]:
        """What is sent from the first host to the second waits. What is given lets it all come at once."""
        trouble = self.trouble(one, other)
        trouble.clogs += 1

        def burst() -> None:
            trouble.clogs = max(0, trouble.clogs - 1)
            if not trouble.clogs:
                self._let_go(trouble)

        return burst

    def _let_go(self, trouble: Trouble) -> None:
        waiting, trouble.waiting = trouble.waiting, []
        for arrive in waiting:
            self.world.schedule(self.weather.latency_s, arrive)

    def is_calm(self) -> bool:
        weather = self.weather
        return not (weather.loss or weather.duplication or weather.reordering) and not any(
            trouble.cuts or trouble.clogs for trouble in self.troubles.values()
        )

    def heal(self) -> None:
        """No link has trouble any more; the weather stays."""
        for trouble in self.troubles.values():
            self._let_go(trouble)
            trouble.cuts = trouble.clogs = 0
        self.troubles.clear()
