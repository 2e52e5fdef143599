"""No node acts under an epoch that is over: what was lost, or has a later life, is never taken for alive again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorlib.testing.oracles.oracle import Oracle
from actorlib.transport import messages
from actorlib.transport.link import Link
from actorlib.transport.sim.loop import SimLoop

if TYPE_CHECKING:
    from actorlib.testing.simulation import Simulation


class Epochs(Oracle):
    """Looks at the GCS's table of nodes, and listens to what nodes are told of each other."""

    name = "epochs"

    def __init__(self, world: Simulation) -> None:
        super().__init__(world)
        self._highest: dict[bytes, int] = {}
        self._over: dict[tuple[bytes, bytes], int] = {}  # by who was told, and of whom

    def heard(self, loop: SimLoop, link: Link, message: Any) -> None:
        if type(message) is messages.NodesChanged:
            for view in message.nodes:
                self._told(loop, view)

    def _told(self, loop: SimLoop, view: messages.NodeView) -> None:
        key = (loop.address.process_id, view.address.node_id)
        if not view.alive:
            self._over[key] = max(view.epoch, self._over.get(key, 0))
        elif key in self._over:
            self.see(view.epoch > self._over[key], "a node that was lost is alive under the same epoch", key[1])

    def turned(self, loop: SimLoop) -> None:
        gcs = self.world.gcs
        if gcs is None or loop is not self.world.gcs_loop or gcs.backlog.writes:
            return  # what is not written yet may not come to be
        for node_id in gcs.nodes.links:
            epoch, highest = gcs.nodes.views[node_id].epoch, self._highest.get(node_id, 0)
            self.see(epoch >= highest, f"a node is alive under epoch {epoch}, and was under {highest}", node_id)
            self._highest[node_id] = epoch
