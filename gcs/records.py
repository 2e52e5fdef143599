"""What tasks have done lately, for people who look: bounded, in memory, never in the way of a call."""

from __future__ import annotations

from typing import Any

from actorlib.transport import limits
from actorlib.transport.messages import TaskEvents


class Records:
    """The last events of tasks."""

    def __init__(self) -> None:
        self.tasks: dict[bytes, dict[str, Any]] = {}
        self.dropped = 0

    def add(self, message: TaskEvents) -> None:
        self.dropped += message.dropped
        for row in message.rows:
            task_id, name, state, time_s, worker, error, duration_us = row
            self.tasks.pop(task_id, None)
            self.tasks[task_id] = {
                "task_id": task_id.hex(),
                "name": name,
                "state": state,
                "time_s": time_s,
                "worker_id": worker.hex(),
                "error": error,
                "duration_us": duration_us,
            }
        while len(self.tasks) > limits.task_records_max:
            del self.tasks[next(iter(self.tasks))]
            self.dropped += 1

    def rows(self) -> list[dict[str, Any]]:
        return list(reversed(self.tasks.values()))
