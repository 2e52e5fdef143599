"""Whatever waits can be asked why, and has an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorlib.testing.oracles.oracle import Oracle
from actorlib.transport.sim.loop import SimLoop

if TYPE_CHECKING:
    from actorlib.testing.simulation import Simulation

EVERY_S = 1.0
TASKS_ASKED_MAX = 50


class Reasons(Oracle):
    """Asks tasks, actors, placement groups and lease requests, every simulated second."""

    name = "reasons"

    def __init__(self, world: Simulation) -> None:
        super().__init__(world)
        self._asked_at = 0.0

    def turned(self, loop: SimLoop) -> None:
        now = self.world.world.time
        if now - self._asked_at < EVERY_S:
            return
        self._asked_at = now
        for process in self.world.processes():
            for task in self.world.pending_tasks(process)[:TASKS_ASKED_MAX]:
                self.see(
                    bool(process.why_task_pending(task)), f"{task.name()} waits, nobody knows for what", task.task_id
                )
        for node in self.world.living_nodes():
            for reason, _ in node.service.leases.reasons():
                self.see(bool(reason), f"a lease request waits at node{node.number} without a reason", node.node_id)
        self._ask_gcs()

    def _ask_gcs(self) -> None:
        gcs = self.world.gcs
        if gcs is None:
            return
        for actor_id, actor in gcs.actors.actors.items():
            waits = actor.state.value in ("PENDING", "RESTARTING")
            self.see(not waits or bool(actor.reason), f"an actor is {actor.state.value} without a reason", actor_id)
        for group_id, group in gcs.groups.groups.items():
            told = group.state == "CREATED" or bool(group.reason)
            self.see(told, f"a placement group is {group.state} without a reason", group_id)
