"""A simulated GCS in a process of its own, which can crash and come back with what its journal has.

Its process id stays the same from one life to the next, so that whoever was told of it finds it again.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from actorlib.gcs.drivers.service import GcsService
from actorlib.scheduler.placement import place_bundles
from actorlib.testing.memory import NoRoom
from actorlib.transport import messages
from actorlib.transport.ids import JobId, NodeId, new_process_id
from actorlib.transport.link import Address, Link
from actorlib.transport.sim.loop import Gone, SimLoop

if TYPE_CHECKING:
    from actorlib.testing.simulation import Simulation


class SimGcs:
    """See the module's docstring. ``service`` is None while it is down."""

    def __init__(self, simulation: Simulation, host: NodeId) -> None:
        self._simulation = simulation
        self.address = Address(new_process_id(simulation.world.random_bytes), host, "sim://gcs")
        self.lives = 0
        self.loop: Any
        self.service: GcsService | None = None
        self.start()

    def start(self) -> None:
        """A life begins: with the tables that the journal has, and without links."""
        self.lives += 1
        simulation = self._simulation
        hello = messages.Hello(messages.PROTOCOL_VERSION, self.address, "gcs", 2, JobId(b""), "sim")
        self.loop = SimLoop(simulation.world, simulation.network, self.address, hello, {}, self._on_link_down)
        self.loop.begin_life(self.lives)
        service = self.service = GcsService(self.loop, simulation.journal, place_bundles, NoRoom)
        self.loop.handlers.update(service.handlers)
        self.loop.handlers.update(service.handlers_alone)
        self.loop.check = service.check
        with contextlib.suppress(Gone):  # killed again by what it does first
            service.begin()

    def _on_link_down(self, link: Link, reason: str) -> None:
        if self.service is not None:
            self.service.link_down(link, reason)

    def crash(self) -> None:
        """As SIGKILL. What it had not committed was told to nobody."""
        self.loop.die()
        self.service = None
