"""Once nothing goes wrong any more, all work ends, or fails with an error, within 60 simulated seconds.

Work may take as long as its user code runs. So what is counted is time in which calls are unfinished and yet no user
code is at work anywhere: every one of its threads waits, without a limit of its own, for a result that does not come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorlib.testing.oracles.oracle import Oracle
from actorlib.transport.sim.loop import SimLoop

if TYPE_CHECKING:
    from actorlib.testing.simulation import Simulation

EVERY_S = 1.0
WITHIN_S = 60.0


class Liveness(Oracle):
    """Starts to count when faults are over; a world without faults is calm from its beginning."""

    name = "liveness"

    def __init__(self, world: Simulation) -> None:
        super().__init__(world)
        self._looked_at = 0.0
        self._idle_since: float | None = None

    def turned(self, loop: SimLoop) -> None:
        now = self.world.world.time
        if now - self._looked_at < EVERY_S:
            return
        self._looked_at = now
        if not self.world.is_calm_outside() or self.world.user_code_runs():
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since > WITHIN_S:
            self._tell()

    def _tell(self) -> None:
        """The driver waits, and nobody is at work: name what is unfinished, else what is waited for."""
        for process in self.world.processes():
            for task in self.world.pending_tasks(process):
                text = f"{task.name()} of {process.loop.told()} did not end within {WITHIN_S} s"
                self.see(False, f"{text}: {process.why_task_pending(task)}", task.task_id)
                return
        for process in self.world.processes():
            for object_id, entry in process.table.entries.items():
                if entry.value is None and entry.waiters:
                    self.see(False, f"an object did not come to {process.loop.told()} within {WITHIN_S} s", object_id)
                    return
        self.see(False, f"the driver waits for something else than calls and objects for {WITHIN_S} s")
