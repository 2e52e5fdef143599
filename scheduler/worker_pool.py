"""The workers of a node: which are starting, idle, at work; which to start, reuse and let go.

A worker that has run code of a job serves only that job from then on: modules it imported and state they keep must not
leak between users. A worker is made for one runtime environment.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from actorlib.transport import limits
from actorlib.transport.ids import JobId, ProcessId
from actorlib.transport.link import Address


class WorkerState(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    LEASED = "leased"
    STOPPING = "stopping"
    DEAD = "dead"


MOVES = {
    WorkerState.STARTING: {WorkerState.IDLE, WorkerState.LEASED, WorkerState.STOPPING, WorkerState.DEAD},
    WorkerState.IDLE: {WorkerState.LEASED, WorkerState.STOPPING, WorkerState.DEAD},
    WorkerState.LEASED: {WorkerState.IDLE, WorkerState.STOPPING, WorkerState.DEAD},
    WorkerState.STOPPING: {WorkerState.DEAD},
    WorkerState.DEAD: set(),
}


class Worker:
    """One worker process, as its node knows it."""

    __slots__ = ("address", "idle_since", "job_id", "label", "os_pid", "process_id", "reason", "runtime_env", "state")

    def __init__(self, process_id: ProcessId, runtime_env: str) -> None:
        self.process_id = process_id
        self.runtime_env = runtime_env
        self.state = WorkerState.STARTING
        self.job_id = JobId(b"")
        self.address: Address | None = None
        self.os_pid = 0
        self.idle_since = 0.0
        self.label = ""
        self.reason = ""  # why it is being stopped

    def move(self, state: WorkerState) -> None:
        assert state in MOVES[self.state], f"worker {self.process_id.hex()}: {self.state.value} -> {state.value}"
        self.state = state


class Demand:
    """A lease that needs a worker."""

    __slots__ = ("job_id", "request", "runtime_env")

    def __init__(self, request: Any, job_id: JobId, runtime_env: str) -> None:
        self.request = request
        self.job_id = job_id
        self.runtime_env = runtime_env


class WorkerPool:
    """All workers of a node. ``start`` orders a new one and gives its process id."""

    def __init__(self, keep_idle: int, start: Callable[[str], ProcessId], found: Callable[[Any, Worker], bool]) -> None:
        self.workers: dict[ProcessId, Worker] = {}
        self._keep_idle = keep_idle
        self._start = start
        self._found = found
        self._demands: list[Demand] = []

    def prestart(self, count: int) -> None:
        for _ in range(count):
            self._start_one("")

    def _start_one(self, runtime_env: str) -> None:
        process_id = self._start(runtime_env)
        self.workers[process_id] = Worker(process_id, runtime_env)

    def demand(self, request: Any, job_id: JobId, runtime_env: str) -> None:
        """A worker for a lease: an idle one that fits, else the next that starts."""
        self._demands.append(Demand(request, job_id, runtime_env))
        self._serve()

    def _serve(self) -> None:
        for demand in list(self._demands):
            worker = self._idle_for(demand)
            if worker is not None:
                self._demands.remove(demand)
                self._give(worker, demand)
        starting: dict[str, int] = {}
        for worker in self.workers.values():
            if worker.state is WorkerState.STARTING:
                starting[worker.runtime_env] = starting.get(worker.runtime_env, 0) + 1
        for demand in self._demands:
            if starting.get(demand.runtime_env, 0) > 0:
                starting[demand.runtime_env] -= 1
            else:
                self._start_one(demand.runtime_env)

    def _idle_for(self, demand: Demand) -> Worker | None:
        """A worker that has served this job before, rather than a fresh one."""
        fresh = None
        for worker in self.workers.values():
            if worker.state is WorkerState.IDLE and worker.runtime_env == demand.runtime_env:
                if worker.job_id == demand.job_id:
                    return worker
                if not worker.job_id:
                    fresh = worker
        return fresh

    def _give(self, worker: Worker, demand: Demand) -> None:
        worker.move(WorkerState.LEASED)
        if not self._found(demand.request, worker):
            worker.move(WorkerState.IDLE)
            return
        worker.job_id = demand.job_id

    def ready(self, process_id: ProcessId, address: Address, os_pid: int, now: float) -> Worker | None:
        """A started worker has reported."""
        worker = self.workers.get(process_id)
        if worker is None or worker.state is not WorkerState.STARTING:
            return worker
        worker.address, worker.os_pid, worker.idle_since = address, os_pid, now
        worker.move(WorkerState.IDLE)
        self._serve()
        return worker

    def returned(self, process_id: ProcessId, now: float) -> None:
        worker = self.workers.get(process_id)
        if worker is not None and worker.state is WorkerState.LEASED:
            worker.move(WorkerState.IDLE)
            worker.idle_since = now
            worker.label = ""
            self._serve()

    def stopping(self, process_id: ProcessId, reason: str) -> None:
        worker = self.workers.get(process_id)
        if worker is not None and worker.state not in (WorkerState.STOPPING, WorkerState.DEAD):
            worker.move(WorkerState.STOPPING)
            worker.reason = reason

    def died(self, process_id: ProcessId) -> Worker | None:
        worker = self.workers.pop(process_id, None)
        if worker is not None:
            worker.move(WorkerState.DEAD)
        return worker

    def withdraw(self, wanted: Callable[[Any], bool]) -> list[Any]:
        """Take back demands whose start has failed; gives their requests."""
        gone = [demand.request for demand in self._demands if wanted(demand.request)]
        self._demands = [demand for demand in self._demands if not wanted(demand.request)]
        return gone

    def serve(self) -> None:
        """Workers have gone: start others for those who still wait."""
        self._serve()

    def too_idle(self, now: float) -> list[Worker]:
        """Workers to let go: idle for long, and more than are kept warm."""
        idle = [worker for worker in self.workers.values() if worker.state is WorkerState.IDLE]
        idle.sort(key=lambda worker: worker.idle_since)
        spare = len(idle) - self._keep_idle
        return [worker for worker in idle[: max(0, spare)] if now - worker.idle_since >= limits.worker_idle_s]

    def of_job(self, job_id: JobId) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.job_id == job_id]

    def check(self) -> None:
        for process_id, worker in self.workers.items():
            assert worker.process_id == process_id and worker.state is not WorkerState.DEAD, "a dead worker is kept"
            assert worker.state in (WorkerState.STARTING, WorkerState.STOPPING) or worker.address is not None, (
                "no address"
            )
