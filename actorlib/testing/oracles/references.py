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
                living = left_over(process)
                text = f"references of {process.loop.told()} were not returned: {living}"
                self.see(not living, text, next(iter(living), b""))
        for node in self.world.living_nodes():
            objects = node.store.catalog.objects
            first = next(iter(objects), b"")
            self.see(not objects, f"node{node.number}: {len(objects)} objects were not freed", first)


def left_over(process: Any) -> dict[ObjectId, int]:
    """References that a process counts, but for detached actors, whose creator keeps their arguments while it lives."""
    entries = process.table.entries
    return {oid: entry.count for oid, entry in entries.items() if not is_detached(entry.task)}


def is_detached(task: Any) -> bool:
    return isinstance(task, Task) and bool(getattr(task.options, "detached", False))
