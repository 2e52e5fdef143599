"""Jobs: one for each driver, from its start until it ends or dies."""

from __future__ import annotations

from typing import Any

from actorlib.gcs.journal import Port
from actorlib.transport import codec
from actorlib.transport.ids import JobId, NodeId
from actorlib.transport.link import Link
from actorlib.transport.messages import Done, JobStarted

TABLE = "jobs"


class Jobs:
    """Running jobs."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self.jobs: dict[JobId, JobStarted] = {}

    def load(self, _key: bytes, value: bytes) -> None:
        (job,) = codec.decode_batch(value)
        self.jobs[job.job_id] = job

    def started(self, link: Link, message: JobStarted) -> None:
        if message.job_id not in self.jobs:
            self.jobs[message.job_id] = message
            self._port.persist(TABLE, message.job_id, codec.encode_batch([message])[0])
        self._port.send(link, Done(message.request_id))

    def take_back(self, key: bytes, kept: bytes | None) -> bool:
        """The disk refused a write: a job that was to start has not. One that has ended has."""
        if kept is None:
            self.jobs.pop(JobId(key), None)
        return kept is None

    def ended(self, job_id: JobId) -> bool:
        """Forget it; False if it was not running."""
        if self.jobs.pop(job_id, None) is None:
            return False
        self._port.persist(TABLE, job_id, None)
        return True

    def on_node(self, node_id: NodeId) -> list[JobStarted]:
        """Those whose driver is there."""
        return [job for job in self.jobs.values() if job.driver.node_id == node_id]

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "job_id": job.job_id.hex(),
                "driver": job.driver.process_id.hex(),
                "namespace": job.namespace,
                "entrypoint": job.entrypoint,
            }
            for job in reversed(self.jobs.values())
        ]
