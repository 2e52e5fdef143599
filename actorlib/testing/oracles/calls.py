"""A call takes effect at most once where that is promised, and one caller's calls start in the order they were made.

Calls of durable actors may start again: their effects are judged by the histories that their tests record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorlib.runtime.mailbox import Item
from actorlib.runtime.task import Task
from actorlib.testing.oracles.oracle import Oracle
from actorlib.transport.ids import TaskId, object_id

if TYPE_CHECKING:
    from actorlib.testing.simulated_process import SimWorker
    from actorlib.testing.simulation import Simulation


class Calls(Oracle):
    """Counts how often user code of each call starts, against what its caller allowed when it first did."""

    name = "calls"

    def __init__(self, world: Simulation) -> None:
        super().__init__(world)
        self._starts: dict[TaskId, int] = {}
        self._allowed: dict[TaskId, int] = {}
        self._last: dict[tuple[bytes, int, bytes], TaskId] = {}
        self._sequences: dict[tuple[bytes, int, bytes], int] = {}

    def begins(self, worker: SimWorker, item: Item) -> None:
        task_id, caller = item.call.task_id, item.link.peer.process_id
        if worker.log is not None:
            if item.origin is not None:
                self._durable(worker, item)
            return
        task = self._task_of(caller, task_id)
        spec = worker.spec
        if task is not None and not (spec is not None and spec.checkpoint):  # a durable actor replays its calls
            self._count(task, task_id)
        if spec is not None and worker.runner is None and not (spec.extra or {}).get("out_of_order"):
            place = (spec.actor_id, worker.incarnation, caller)
            before = self._last.get(place, b"")
            text = f"{item.call.target} of {worker.class_name} starts after a later call of its caller ({before.hex()})"
            self.see(before < task_id, text, task_id)
            self._last[place] = task_id

    def _durable(self, worker: SimWorker, item: Item) -> None:
        place = (worker.actor_id, worker.incarnation, item.origin.caller)
        before, now = self._sequences.get(place, -1), item.origin.sequence
        text = f"{item.call.target} of {worker.class_name} is number {now} of its caller and starts after {before}"
        self.see(before < now, text, item.call.task_id)
        self._sequences[place] = now

    def _task_of(self, caller: bytes, task_id: TaskId) -> Task | None:
        process = self.world.process(caller)
        entry = process.table.entries.get(object_id(task_id, 0)) if process is not None else None
        return entry.task if entry is not None and isinstance(entry.task, Task) else None

    def _count(self, task: Task, task_id: TaskId) -> None:
        starts = self._starts[task_id] = self._starts.get(task_id, 0) + 1
        allowed = self._allowed.setdefault(task_id, allowed_starts(task))
        if allowed:
            self.see(starts <= allowed, f"{task.name()} starts for the {starts}th time; {allowed} are allowed", task_id)


def allowed_starts(task: Task) -> int:
    """How often it may start; 0: as often as it takes. A task that may be retried at all and was in flight behind the
    one that ended its worker may have one more try, since it is not to blame."""
    if task.retries_left < 0:
        return 0
    return task.retries_left + (2 if task.retries_left and isinstance(task.target, bytes) else 1)
