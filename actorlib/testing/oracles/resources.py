"""Resources return to exactly the total; no lease, worker or lent CPU outlives what it was for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorlib.scheduler.worker_pool import WorkerState
from actorlib.testing.oracles.oracle import Oracle
from actorlib.transport.sim.loop import SimLoop

if TYPE_CHECKING:
    from actorlib.testing.simulated_node import SimNode

TURNS_BETWEEN_LOOKS = 32


class Resources(Oracle):
    """Looks at what is lent now and then, and at every node's pools at the end."""

    name = "resources"

    def turned(self, loop: SimLoop) -> None:
        if loop.turns % TURNS_BETWEEN_LOOKS:
            return
        for node in self.world.living_nodes():
            if node.loop is loop:
                self._look_at_lent(node)

    def _look_at_lent(self, node: SimNode) -> None:
        """A worker that has said that it goes on, and was heard, runs on a CPU of its own."""
        for worker in node.workers():
            if worker._blocked_told or worker.node_link.pending or worker.node_link.session._unacknowledged:
                continue
            name = worker.address.process_id
            lent = any(
                lease.worker == name and lease.pool and lease.pool.holdings[lease_id].lent
                for lease_id, lease in node.service.leases.leases.items()
            )
            self.see(not lent, f"node{node.number} lends the CPU of a worker that runs", name)

    def at_end(self) -> None:
        for node in self.world.living_nodes():
            pool, leases = node.service.pool, node.service.leases
            short = {name: pool.total[name] - free for name, free in pool.available.items() if free != pool.total[name]}
            text = f"node{node.number} misses {short} of {pool.total}; leases: {leases.rows()}"
            self.see(not short, text, node.node_id)
            self.see(not leases.has_waiting(), f"node{node.number}: requests wait for nobody")
            leased = {lease.worker for lease in leases.leases.values()}
            for process_id, worker in node.service.workers.workers.items():
                astray = worker.state is WorkerState.LEASED and process_id not in leased
                self.see(not astray, f"node{node.number} counts a worker as leased that nobody has", process_id)
