"""Once nothing goes wrong any more, all work ends, or fails with an error, within 60 simulated seconds.

Work may take as long as its user code runs. So what is counted is time in which calls are unfinished and yet no user
code is at work anywhere: every one of its threads waits, without a limit of its own, for a result that does not come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorlib.runtime.task import Task
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
        if not self.world.is_calm_outside() or self.world.user_code_runs() or not self._pending():
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since > WITHIN_S:
            process, task = self._pending()[0]
            why = process.why_task_pending(task)
            text = f"{task.name()} of {process.loop.told()} did not end within {WITHIN_S} s"
            self.see(False, f"{text}: {why}", task.task_id)

    def _pending(self) -> list[tuple[Any, Task]]:
        return [(process, task) for process in self.world.processes() for task in self.world.pending_tasks(process)]
