"""The simulated network: latency, loss, duplication, reordering, partitions, slow links, between simulated loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actorlib.transport.ids import NodeId, ProcessId
from actorlib.transport.sim.world import World

if TYPE_CHECKING:
    from actorlib.transport.drivers.link_layer import SocketLink
    from actorlib.transport.sim.loop import SimLoop


@dataclass(slots=True)
class Weather:
    """How the network is at the moment. Chances are per batch, times in seconds."""

    latency_s: float = 0.0002
    jitter_s: float = 0.0002  # mean of an exponential distribution; batches overtake each other by it
    loss: float = 0.0
    duplication: float = 0.0


class Network:
    """Carries batches between the loops of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.weather = Weather()
        self.loops: dict[ProcessId, SimLoop] = {}
        self.cut: set[tuple[NodeId, NodeId]] = set()  # nothing passes from the first to the second
        self.slow: dict[tuple[NodeId, NodeId], float] = {}  # extra seconds
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
        pair = (here.node_id, peer.address.node_id)
        rng, weather = self.world.rng, self.weather
        local = pair[0] == pair[1]
        if pair in self.cut or (not local and rng.random() < weather.loss):
            self.lost += 1
            return
        extra = self.slow.get(pair, 0.0) + self.deviations.get(self.sent, 0.0)
        copies = 1
        if not local and rng.random() < weather.duplication:
            copies, self.repeated = 2, self.repeated + 1
        batch = [bytes(frame) for frame in frames]
        for _ in range(copies):
            delay = weather.latency_s + rng.expovariate(1.0) * weather.jitter_s + extra
            self._deliver(loop, peer, link.dialled, link.name, batch, delay)

    def _deliver(
        self, loop: SimLoop, peer: SimLoop, dialled: bool, name: bytes, batch: list[bytes], delay: float
    ) -> None:
        here = loop.address.process_id
        if dialled:
            arrive = lambda: peer.arrived(here, batch, True)  # noqa: E731
        else:
            named = self._names.get((peer.address.process_id, here), b"")
            arrive = lambda: peer.arrived(named, batch, False)  # noqa: E731
        self.world.schedule(delay, arrive)

    # -- faults --------------------------------------------------------------------------------------------------------
    def partition(self, one: NodeId, other: NodeId, both_ways: bool = True) -> None:
        self.cut.add((one, other))
        if both_ways:
            self.cut.add((other, one))

    def heal(self) -> None:
        self.cut.clear()
        self.slow.clear()
