"""Finds circles of workers that wait for each other, by edge chasing (Chandy, Misra and Haas 1983, the AND model).

A worker whose code has been blocked for a while sends a ``WaitProbe`` after what it waits for: to the worker where the
awaited call runs or is queued, by way of the owner of its result if that is another process. A worker that gets a
probe and is itself blocked passes it on along its own waits. A probe that comes back to where it began has been round
a circle: everybody in it waits, and for each other.

Of a circle's workers only the one with the largest id raises, so one call fails and the others go on. So a worker
passes on only probes of those with larger ids than its own: along a chain of n waiting workers that makes about n log n
messages, not n squared. Probes are sent again while the wait lasts, less and less often, since the circle may be closed
after the first has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from actorlib.runtime.task import Task, TaskState
from actorlib.store.owner import OwnerTable
from actorlib.transport import limits, messages
from actorlib.transport.ids import ObjectId, TaskId
from actorlib.transport.link import Address
from actorlib.transport.messages import WaitProbe


class Port(Protocol):
    def send_to(self, address: Address, message: tuple[Any, ...]) -> None: ...

    def is_stuck(self, task_id: TaskId) -> bool:
        """Whether that call is here and can't go on before the code that is blocked here does."""

    def running_label(self) -> str:
        """What is blocked here, for people."""

    def deadlocked(self, text: str) -> None:
        """End the wait with DeadlockError."""


class Waits:
    """What this worker's code waits for, and the probes about it."""

    def __init__(self, me: Address, table: OwnerTable, port: Port) -> None:
        self._me = me
        self._table = table
        self._port = port
        self._number = 0
        self._probes = 0  # that this wait has sent
        self._awaited: Sequence[tuple[ObjectId, Address]] = ()

    def begin(self, awaited: Sequence[tuple[ObjectId, Address]]) -> int:
        """The code here blocks. Gives the number of this wait."""
        self._number += 1
        self._probes = 0
        self._awaited = awaited
        return self._number

    def end(self) -> None:
        self._awaited = ()

    def probe(self, number: int) -> float | None:
        """Ask whether this wait is part of a circle. Gives the seconds until it is asked again; None: it is over."""
        if number != self._number or not self._awaited:
            return None
        self._pass_on(self._me, number, ((self._me.process_id, self._port.running_label()),))
        self._probes += 1
        return min(limits.wait_probe_every_s * 2.0 ** max(0, self._probes - 2), limits.wait_probe_every_s_max)

    def _pass_on(self, initiator: Address, number: int, path: tuple[tuple[Any, str], ...]) -> None:
        for oid, owner in self._awaited:
            self._send(WaitProbe(initiator, number, oid, path), owner)

    def _send(self, probe: WaitProbe, owner: Address) -> None:
        entry = self._table.entries.get(probe.object_id)
        if entry is None or entry.value is not None:
            return
        task = entry.task
        if isinstance(task, Task):
            where = task.where
            if task.state is TaskState.IN_FLIGHT and where is not None:
                self._port.send_to(where.worker, probe)
        elif owner.process_id != self._me.process_id:
            self._port.send_to(owner, probe)

    def on_probe(self, probe: messages.WaitProbe) -> None:
        """A probe about an object that this process owns, or whose call is here."""
        entry = self._table.entries.get(probe.object_id)
        if entry is not None and isinstance(entry.task, Task):
            at = getattr(entry.task.where, "worker", None)
            if at is None or at.process_id != self._me.process_id:
                self._send(probe, self._me)
                return
        if not self._awaited or not self._port.is_stuck(TaskId(probe.object_id[:16])):
            return
        if probe.initiator.process_id == self._me.process_id:
            self._came_back(probe)
            return
        is_largest = probe.initiator.process_id > self._me.process_id
        is_new_here = all(at != self._me.process_id for at, _ in probe.path)
        if is_largest and is_new_here and len(probe.path) < limits.wait_probe_path_max:
            path = (*probe.path, (self._me.process_id, self._port.running_label()))
            self._pass_on(probe.initiator, probe.number, path)

    def _came_back(self, probe: WaitProbe) -> None:
        if probe.number != self._number or max(at for at, _ in probe.path) != self._me.process_id:
            return
        names = [label for _, label in probe.path]
        text = (
            f"calls wait for each other in a circle: {' -> '.join([*names, names[0]])}. Let one of them not wait: "
            "return the reference instead of its value, use an async method, or set max_concurrency above 1"
        )
        self._port.deadlocked(text)
