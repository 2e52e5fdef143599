"""What tasks have done lately and which objects lie where, for people who look.

Bounded, in memory, told in batches, never in the way of a call.
"""

from __future__ import annotations

from typing import Any

from actorlib.transport import limits
from actorlib.transport.ids import NodeId, ObjectId
from actorlib.transport.link import Link
from actorlib.transport.messages import ObjectEvents, TaskEvents


class Records:
    """The last events of tasks, and the newest objects in shared memory and on disk."""

    def __init__(self) -> None:
        self.objects: dict[tuple[NodeId, ObjectId], dict[str, Any]] = {}
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

    def add_objects(self, link: Link, message: ObjectEvents) -> None:
        node_id = link.peer.node_id
        for object_id, state, size, owner in message.rows:
            self.objects.pop((node_id, object_id), None)
            if state != "FREED":
                self.objects[node_id, object_id] = {
                    "object_id": object_id.hex(),
                    "state": state,
                    "size": size,
                    "node_id": node_id.hex(),
                    "owner_id": owner.hex(),
                }
        while len(self.objects) > limits.object_records_max:
            del self.objects[next(iter(self.objects))]

    def node_lost(self, node_id: NodeId) -> None:
        for key in [key for key in self.objects if key[0] == node_id]:
            del self.objects[key]

    def object_rows(self) -> list[dict[str, Any]]:
        return list(reversed(self.objects.values()))

    def rows(self) -> list[dict[str, Any]]:
        return list(reversed(self.tasks.values()))
