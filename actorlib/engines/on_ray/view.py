"""What Ray tells of its cluster and of the code that asks, in the forms that our API gives."""

from __future__ import annotations

import functools
import os
import re
from typing import Any

from actorlib.engine import resource_map
from actorlib.engines.on_ray import groups, hosting, watching
from actorlib.engines.on_ray.options import refuse
from actorlib.engines.on_ray.refs import restore_handle


class RayView:
    """The part of the engine that answers questions. The rest of it derives from this."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        about = ray.get_runtime_context()
        self.namespace: str = about.namespace
        self.about_me: tuple[Any, ...] = ()  # what makes a handle of the actor that lives in this process
        self.address_info: dict[str, Any] = {
            "address": about.gcs_address,
            "node_id": about.get_node_id(),
            "session_dir": "",
            "node_pid": None,
        }

    # -- cluster -------------------------------------------------------------------------------------------------------
    def nodes(self) -> list[dict[str, Any]]:
        return [
            {**row, "alive": row["Alive"], "Labels": dict(row.get("Labels") or {}), "Waiting": {}}
            for row in self.ray.nodes()
        ]

    def drain_node(self, node_id: bytes, deadline_s: float | None, reason: str) -> None:
        raise refuse("draining a node", "drain it by Ray's own command, ray drain-node")

    def cluster_resources(self) -> dict[str, float]:
        return dict(self.ray.cluster_resources())

    def available_resources(self) -> dict[str, float]:
        return dict(self.ray.available_resources())

    def why_never(self, demand: dict[str, int]) -> str:
        """The end of a sentence, if no node that is there could ever meet a demand."""
        wanted = resource_map(demand.items())
        nodes = [row["Resources"] for row in self.ray.nodes() if row["Alive"]]
        if any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
            return ", queued or running"
        shown = [{name: node.get(name, 0) for name in wanted} for node in nodes]
        return f": no node can satisfy a demand of {wanted}, they have {shown}"

    def query_state(self, table: str, limit: int) -> list[dict[str, Any]]:
        tables = {
            "nodes": self._node_rows,
            "jobs": self._job_rows,
            "actors": self._actor_rows,
            "groups": lambda: groups.rows(None, None),
            "objects": self._no_object_rows,
            "tasks": self._task_rows,
        }
        if table not in tables:
            raise ValueError(f"there is no table {table!r}; there are {', '.join(tables)}")
        return tables[table]()[:limit]

    def _node_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "node_id": row["NodeID"],
                "alive": row["Alive"],
                "hostname": row["NodeManagerHostname"],
                "total": {name: round(amount * 10_000) for name, amount in row["Resources"].items()},
                "available": {},
                "labels": dict(row.get("Labels") or {}),
                "death": row.get("DeathReasonMessage", ""),
            }
            for row in self.ray.nodes()
        ]

    def _job_rows(self) -> list[dict[str, Any]]:
        rows = self.ray._private.state.jobs()
        return [
            {
                "job_id": row["JobID"],
                "driver": row.get("DriverIPAddress", ""),
                "namespace": self.namespace,
                "entrypoint": row.get("Entrypoint", ""),
            }
            for row in rows
        ]

    def _actor_rows(self) -> list[dict[str, Any]]:
        found = self.ray._private.state.actors()
        return [
            {
                "actor_id": actor_id,
                "class_name": row.get("ActorClassName") or row.get("ClassName") or "",
                "state": row["State"],
                "name": row.get("Name", ""),
                "namespace": self.namespace,
                "job_id": row["JobID"],
                "node_id": row["Address"].get("NodeID", ""),
                "worker_id": row["Address"].get("WorkerID", ""),
                "restarts": row.get("NumRestarts", 0),
                "reason": "",
                "death": "",
            }
            for actor_id, row in found.items()
            if row.get("Name") != watching.NAME
        ]

    def _task_rows(self) -> list[dict[str, Any]]:
        """From the events that Ray's timeline is made of; one row for each attempt that has begun, the newest first."""
        from ray.core.generated.common_pb2 import TaskStatus

        rows = []
        for event in self._task_events():
            reached = event.state_updates.state_ts_ns
            if not reached:
                continue
            state = TaskStatus.Name(max(reached, key=lambda status: (reached[status], status)))
            began_ns, last_ns = reached.get(TaskStatus.RUNNING, 0), max(reached.values())
            row = {"task_id": event.task_id.hex(), "name": event.task_info.name, "state": state}
            row |= {"time_s": last_ns / 1e9, "worker_id": event.state_updates.worker_id.hex()}
            row |= {"error": _without_colours(event.state_updates.error_info.error_message)}
            rows.append({**row, "duration_us": (last_ns - began_ns) // 1000 if began_ns else 0})
        return sorted(rows, key=lambda row: -row["time_s"])

    def _task_events(self) -> list[Any]:
        """Ray before 2.60 gives them packed."""
        state = self.ray._private.state.state
        if hasattr(state, "_get_all_task_events"):
            return list(state._get_all_task_events())
        from ray.core.generated.gcs_pb2 import TaskEvents

        state._check_connected()
        return [TaskEvents.FromString(packed) for packed in state.global_state_accessor.get_task_events()]

    def _no_object_rows(self) -> list[dict[str, Any]]:
        raise refuse("listing objects", "use Ray's own command, ray list objects, or ray memory")

    def lives(self, handle: Any) -> tuple[str, int] | None:
        """An actor's state and how often it came back; None if Ray does not know it."""
        row = self.ray._private.state.actors(handle._actor_id.hex())
        return (row["State"], int(row.get("NumRestarts") or 0)) if row else None

    @functools.cached_property
    def _was_restarted(self) -> bool:
        """Asked once: Ray looks into its tables for it, and it does not change."""
        return bool(self.ray.get_runtime_context().was_current_actor_reconstructed)

    # -- where am I ----------------------------------------------------------------------------------------------------
    def context(self) -> dict[str, Any]:
        about = self.ray.get_runtime_context()
        actor_id, task_id = about.get_actor_id(), about.get_task_id()
        in_worker = self.ray._private.worker.global_worker.mode == self.ray._private.worker.WORKER_MODE
        group = about.get_placement_group_id() if in_worker else None
        accelerators = about.get_accelerator_ids() if in_worker else {}
        return {
            "job_id": bytes.fromhex(about.get_job_id()),
            "node_id": bytes.fromhex(about.get_node_id()),
            "worker_id": bytes.fromhex(about.get_worker_id()),
            "task_id": bytes.fromhex(task_id) if in_worker and task_id else None,
            "task_name": about.get_task_name() if in_worker else None,
            "function_name": hosting.FUNCTION.get(),
            "actor_id": bytes.fromhex(actor_id) if actor_id else None,
            "actor_name": (about.get_actor_name() or "") if actor_id else "",
            "namespace": about.namespace,
            "pid": os.getpid(),
            "resources": about.get_assigned_resources() if in_worker else {},
            "accelerators": {kind: tuple(int(index) for index in ids) for kind, ids in accelerators.items() if ids},
            "group_id": bytes.fromhex(group) if group else None,
            "was_restarted": bool(actor_id) and self._was_restarted,
            "current_actor": restore_handle(about.current_actor, *self.about_me) if self.about_me else None,
            "address": about.gcs_address,
            "runtime_env": about.get_runtime_env_string(),
            "attempt": 0,
            "is_canceled": lambda: in_worker and _is_canceled(about),
        }


def _is_canceled(about: Any) -> bool:
    """In an async actor Ray doesn't say: there asyncio's own cancellation does."""
    if not hasattr(about, "is_canceled"):
        raise refuse("is_canceled()", "catch KeyboardInterrupt, which a cancel raises, or use Ray 2.54 or later")
    try:
        return bool(about.is_canceled())
    except RuntimeError:
        return False


def _without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
