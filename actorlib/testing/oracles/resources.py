"""Resources return to exactly the total, and no lease, bundle or waiting request outlives the work."""

from __future__ import annotations

from actorlib.testing.oracles.oracle import Oracle


class Resources(Oracle):
    """Looks at every node's pool at the end."""

    name = "resources"

    def at_end(self) -> None:
        for node in self.world.living_nodes():
            pool, rows = node.service.pool, node.service.leases.rows()
            short = {name: pool.total[name] - free for name, free in pool.available.items() if free != pool.total[name]}
            self.see(not short, f"node{node.number} misses {short} of {pool.total}; leases: {rows}", node.node_id)
            self.see(not node.service.leases.has_waiting(), f"node{node.number}: requests wait for nobody")
