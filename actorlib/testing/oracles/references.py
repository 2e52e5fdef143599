"""When nobody holds a reference any more, every count is back at zero and every object is freed."""

from __future__ import annotations

from typing import Any

from actorlib.runtime.task import Task
from actorlib.testing.oracles.oracle import Oracle
from actorlib.transport.ids import ObjectId


class References(Oracle):
    """Looks at the end: at the tables of the driver and of idle workers, and at the nodes' catalogs."""

    name = "references"

    def at_end(self) -> None:
        for process in self.world.processes():
            if getattr(process, "spec", None) is None:  # an actor may keep what it likes
                living = self._living(process)
                text = f"references of {process.loop.told()} were not returned: {living}"
                self.see(not living, text, next(iter(living), b""))
        for node in self.world.living_nodes():
            objects = node.store.catalog.objects
            first = next(iter(objects), b"")
            self.see(not objects, f"node{node.number}: {len(objects)} objects were not freed", first)

    @staticmethod
    def _living(process: Any) -> dict[ObjectId, int]:
        """What is left but for detached actors, whose creator keeps their arguments for as long as it lives."""
        entries = process.table.entries
        return {
            object_id: count
            for object_id, count in process.table.living().items()
            if not (isinstance(entries[object_id].task, Task) and is_detached(entries[object_id].task))
        }


def is_detached(task: Task) -> bool:
    return bool(getattr(task.options, "detached", False))
