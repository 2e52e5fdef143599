"""The workers of a node: which are starting, idle, at work; which to start, reuse and let go.

A worker that has run code of a job serves only that job from then on: modules it imported and state they keep must not
leak between users. A worker is made for one runtime environment.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Any

from actorlib.transport import limits
from actorlib.transport.ids import JobId, ProcessId
from actorlib.transport.link import Address

UNUSED = "it had been idle for long"
READY_MAX = 2
"""Fresh workers that are kept ready beside the actors."""


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
    WorkerState.STOPPING: {WorkerState.IDLE, WorkerState.DEAD},  # idle: it was to be let go and is still needed
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

    __slots__ = ("is_lasting", "job_id", "request", "runtime_env")

    def __init__(self, request: Any, job_id: JobId, runtime_env: str, is_lasting: bool) -> None:
        self.request = request
        self.is_lasting = is_lasting
        self.job_id = job_id
        self.runtime_env = runtime_env


class WorkerPool:
    """All workers of a node. ``start`` orders a new one and gives its process id."""

    def __init__(self, keep_idle: int, start: Callable[[str], ProcessId], found: Callable[[Any, Worker], bool]) -> None:
        self.workers: dict[ProcessId, Worker] = {}
        self._keep_idle = keep_idle
        self._start = start
        self._found = found
        self._idle: dict[tuple[str, JobId], dict[ProcessId, Worker]] = {}
        self._starting: dict[str, int] = {}
        self._demands: dict[str, deque[Demand]] = {}  # by runtime environment, oldest first

    def prestart(self, count: int) -> None:
        for _ in range(count):
            self._start_one("")

    def _start_one(self, runtime_env: str) -> None:
        process_id = self._start(runtime_env)
        self.workers[process_id] = Worker(process_id, runtime_env)
        self._starting[runtime_env] = self._starting.get(runtime_env, 0) + 1

    def demand(self, request: Any, job_id: JobId, runtime_env: str, is_lasting: bool = False) -> None:
        """A worker for a lease: an idle one that fits, else the next that starts.

        Args:
            is_lasting: It will not come back (an actor has it), so another is made ready in its place.
        """
        demand = Demand(request, job_id, runtime_env, is_lasting)
        worker = self._take_idle(runtime_env, job_id) or self._take_idle(runtime_env, JobId(b""))
        if worker is not None:
            self._give(worker, demand)
            return
        self._demands.setdefault(runtime_env, deque()).append(demand)
        self._start_for_demands(runtime_env)

    def _start_for_demands(self, runtime_env: str) -> None:
        while len(self._demands.get(runtime_env, ())) > self._starting.get(runtime_env, 0):
            self._start_one(runtime_env)

    def _take_idle(self, runtime_env: str, job_id: JobId) -> Worker | None:
        """The worker that became idle last, since its memory is warm."""
        idle = self._idle.get((runtime_env, job_id))
        return idle.popitem()[1] if idle else None

    def _make_idle(self, worker: Worker) -> None:
        self._idle.setdefault((worker.runtime_env, worker.job_id), {})[worker.process_id] = worker

    def _leave_idle(self, worker: Worker) -> None:
        self._idle.get((worker.runtime_env, worker.job_id), {}).pop(worker.process_id, None)

    def _give(self, worker: Worker, demand: Demand) -> bool:
        worker.move(WorkerState.LEASED)
        if self._found(demand.request, worker):
            worker.job_id = demand.job_id
            if demand.is_lasting and not demand.runtime_env:
                self._keep_ready()
            return True
        worker.move(WorkerState.IDLE)
        self._make_idle(worker)
        return False

    def _keep_ready(self) -> None:
        """See to it that a few fresh workers are there for whoever comes next."""
        coming = self._starting.get("", 0) - len(self._demands.get("", ()))
        for _ in range(min(self._keep_idle, READY_MAX) - coming - len(self._idle.get(("", JobId(b"")), ()))):
            self._start_one("")

    def _offer(self, worker: Worker) -> None:
        """An idle worker: for the oldest demand that it fits, else it stays idle."""
        self._make_idle(worker)
        demands = self._demands.get(worker.runtime_env)
        while demands:
            fitting = next((d for d in demands if not worker.job_id or worker.job_id == d.job_id), None)
            if fitting is None:
                return
            demands.remove(fitting)
            self._leave_idle(worker)
            if self._give(worker, fitting):
                return

    def _no_longer_starting(self, worker: Worker) -> None:
        self._starting[worker.runtime_env] -= 1

    def ready(self, process_id: ProcessId, address: Address, os_pid: int, now: float) -> Worker | None:
        """A started worker has reported, or one that was to be let go for being idle is needed for what it owns."""
        worker = self.workers.get(process_id)
        spared = worker is not None and worker.state is WorkerState.STOPPING and worker.reason == UNUSED
        if worker is None or not (spared or worker.state is WorkerState.STARTING):
            return worker
        if worker.state is WorkerState.STARTING:
            self._no_longer_starting(worker)
        worker.address, worker.os_pid, worker.idle_since = address, os_pid, now
        worker.move(WorkerState.IDLE)
        self._offer(worker)
        return worker

    def returned(self, process_id: ProcessId, now: float) -> None:
        worker = self.workers.get(process_id)
        if worker is not None and worker.state is WorkerState.LEASED:
            worker.move(WorkerState.IDLE)
            worker.idle_since = now
            worker.label = ""
            self._offer(worker)

    def _withdraw_worker(self, worker: Worker) -> None:
        if worker.state is WorkerState.STARTING:
            self._no_longer_starting(worker)
        elif worker.state is WorkerState.IDLE:
            self._leave_idle(worker)

    def stopping(self, process_id: ProcessId, reason: str) -> None:
        worker = self.workers.get(process_id)
        if worker is not None and worker.state not in (WorkerState.STOPPING, WorkerState.DEAD):
            self._withdraw_worker(worker)
            worker.move(WorkerState.STOPPING)
            worker.reason = reason

    def died(self, process_id: ProcessId) -> Worker | None:
        worker = self.workers.pop(process_id, None)
        if worker is not None:
            self._withdraw_worker(worker)
            worker.move(WorkerState.DEAD)
        return worker

    def withdraw(self, runtime_env: str) -> list[Any]:
        """Take back the demands for an environment whose workers can't be started; gives their requests."""
        return [demand.request for demand in self._demands.pop(runtime_env, ())]

    def serve(self) -> None:
        """Workers have gone: start others for those who still wait."""
        for runtime_env in list(self._demands):
            self._start_for_demands(runtime_env)

    def too_idle(self, now: float) -> list[Worker]:
        """Workers to let go: idle for long, and more than are kept warm."""
        idle = [worker for worker in self.workers.values() if worker.state is WorkerState.IDLE]
        idle.sort(key=lambda worker: worker.idle_since)
        spare = len(idle) - self._keep_idle
        return [worker for worker in idle[: max(0, spare)] if now - worker.idle_since >= limits.worker_idle_s]

    def of_job(self, job_id: JobId) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.job_id == job_id]

    def check(self) -> None:
        starting = [worker.runtime_env for worker in self.workers.values() if worker.state is WorkerState.STARTING]
        for runtime_env, count in self._starting.items():
            assert count == starting.count(runtime_env), "starting workers miscounted"
        for (runtime_env, job_id), idle in self._idle.items():
            for worker in idle.values():
                assert worker.state is WorkerState.IDLE, f"a worker that is {worker.state.value} is kept as idle"
                assert (worker.runtime_env, worker.job_id) == (runtime_env, job_id), "an idle worker in the wrong place"
        for process_id, worker in self.workers.items():
            assert worker.process_id == process_id and worker.state is not WorkerState.DEAD, "a dead worker is kept"
            assert worker.state in (WorkerState.STARTING, WorkerState.STOPPING) or worker.address is not None, (
                "no address"
            )
