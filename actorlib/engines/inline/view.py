"""What the inline engine tells of its one node: resources, state, placement groups, and where a call runs."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from actorlib import exceptions
from actorlib.engine import resource_map
from actorlib.engines.inline.actors import InlineActor
from actorlib.engines.inline.bookkeeping import Books, Group
from actorlib.engines.inline.calls import CURRENT, Call
from actorlib.engines.inline.outcomes import InlineHandle, InlineRef, Outcome
from actorlib.transport.ids import ActorId, GroupId, IdFactory, JobId, NodeId, ObjectId, ProcessId, object_id


class InlineView:
    """The part of the engine that answers questions. The rest of it derives from this."""

    books: Books
    ids: IdFactory
    job_id: JobId
    node_id: NodeId
    process_id: ProcessId
    namespace: str
    runtime_env: str
    actors: dict[ActorId, InlineActor]
    gone: deque[dict[str, Any]]
    records: deque[dict[str, Any]]
    _books_lock: Any
    _group_waiters: dict[GroupId, list[Outcome]]

    if TYPE_CHECKING:

        def new_outcome(self, oid: ObjectId, call: Call | None = None) -> Outcome: ...

        def callers_wait(self, parent: Call | None) -> Any: ...

        def drive(self, until: Callable[[], bool], timeout: float | None, what: str) -> bool: ...

        def _place_waiting(self) -> None: ...

        def _handle(self, actor: InlineActor, life: InlineRef | None) -> InlineHandle: ...

    # -- cluster -------------------------------------------------------------------------------------------------------
    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": self.node_id.hex(),
                "Alive": True,
                "NodeManagerAddress": "127.0.0.1",
                "NodeManagerHostname": socket.gethostname(),
                "NodeManagerPort": 0,
                "Endpoint": "inline",
                "Pid": os.getpid(),
                "Resources": self.cluster_resources(),
                "Available": self.available_resources(),
                "Labels": dict(self.books.labels),
                "Epoch": 0,
                "Waiting": {},
                "DeathReason": "",
                "alive": True,
            }
        ]

    def drain_node(self, node_id: bytes, deadline_s: float | None, reason: str) -> None:
        way_out = "use init() or cluster_utils.Cluster, which have nodes that could leave"
        raise exceptions.NotSupportedByEngineError("inline", "draining a node", way_out)

    def cluster_resources(self) -> dict[str, float]:
        return resource_map(self.books.pool.total.items())

    def available_resources(self) -> dict[str, float]:
        return {name: amount for name, amount in resource_map(self.books.pool.visible().items()).items() if amount > 0}

    def query_state(self, table: str, limit: int) -> list[dict[str, Any]]:
        tables: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "nodes": self._node_rows,
            "jobs": self._job_rows,
            "actors": lambda: [
                *(actor_row(self, actor) for actor in reversed(self.actors.values())),
                *reversed(self.gone),
            ],
            "groups": lambda: [_group_row(group) for group in self.books.groups.values() if group.state != "REMOVED"],
            "tasks": lambda: list(reversed(self.records)),
            "objects": list,
        }
        if table not in tables:
            raise ValueError(f"there is no table {table!r}; there are {', '.join(tables)}")
        return tables[table]()[:limit]

    def _node_rows(self) -> list[dict[str, Any]]:
        pool = self.books.pool
        row = {"node_id": self.node_id.hex(), "alive": True, "hostname": socket.gethostname(), "death": ""}
        return [{**row, "total": dict(pool.total), "available": pool.visible(), "labels": dict(self.books.labels)}]

    def _job_rows(self) -> list[dict[str, Any]]:
        entrypoint = " ".join(sys.argv[:1])
        row = {"job_id": self.job_id.hex(), "driver": self.process_id.hex()}
        return [{**row, "namespace": self.namespace, "entrypoint": entrypoint}]

    def record(self, call: Call, error: str) -> None:
        took_s = time.perf_counter() - call.started_s if call.started_s else 0.0
        self.records.append(
            {
                "task_id": call.task_id.hex(),
                "name": call.name,
                "state": call.state,
                "time_s": time.time(),
                "worker_id": self.process_id.hex(),
                "error": error,
                "duration_us": int(took_s * 1e6),
            }
        )

    # -- placement groups ----------------------------------------------------------------------------------------------
    def create_group(
        self,
        bundles: Sequence[dict[str, int]],
        strategy: str,
        name: str,
        detached: bool,
        label_selectors: Sequence[dict[str, str]],
    ) -> GroupId:
        living = [group for group in self.books.groups.values() if group.state != "REMOVED"]
        if name and any(group.name == name for group in living):
            raise ValueError(f"the placement group name {name!r} is taken; remove that group or choose another name")
        group = Group(self.ids.group_id(), bundles, strategy, name)
        group.selectors = [dict(selector) for selector in label_selectors]
        with self._books_lock, self.callers_wait(CURRENT.get()):
            self.books.add_group(group)
        return group.group_id

    def _group_settled(self, group: Group) -> None:
        for outcome in self._group_waiters.pop(group.group_id, []):
            if group.state == "CREATED":
                outcome.resolve(True)
            else:
                outcome.fail(
                    exceptions.PlacementGroupError(
                        f"placement group {group.group_id.hex()} was removed before it was placed"
                    )
                )

    def remove_group(self, group_id: GroupId) -> None:
        group = self.books.groups.get(group_id)
        if group is None or group.state == "REMOVED":
            return
        for actor in list(self.actors.values()):
            if actor.options.strategy[0] == "group" and actor.options.strategy[1] == group_id:
                actor.die("its placement group was removed", kind="killed")
        with self._books_lock:
            self.books.remove_group(group)
        self._group_settled(group)
        self._place_waiting()

    def wait_group(self, group_id: GroupId, timeout: float | None) -> bool:
        group = self.books.groups.get(group_id)
        if group is None:
            return False
        self.drive(lambda: group.state != "PENDING", timeout, "the placement group")
        return group.state == "CREATED"

    def group_ready_ref(self, group_id: GroupId) -> InlineRef:
        outcome = self.new_outcome(object_id(self.ids.task_id(), 0))
        group = self.books.groups.get(group_id) or Group(group_id, (), "", "")
        self._group_waiters.setdefault(group_id, []).append(outcome)
        if group.state != "PENDING":
            self._group_settled(group)
        return InlineRef(outcome)

    def group_table(self, group_id: GroupId | None, name: str | None) -> list[dict[str, Any]]:
        groups = [group for group in self.books.groups.values() if group.state != "REMOVED"]
        chosen = [group for group in groups if group_id in (None, group.group_id) and name in (None, group.name)]
        return [
            {
                **_group_row(group),
                "namespace": self.namespace,
                "bundles": {i: resource_map(bundle.items()) for i, bundle in enumerate(group.bundles)},
                "bundles_to_node_id": {i: self.node_id.hex() for i in range(len(group.pools))},
            }
            for group in chosen
        ]

    # -- where am I ----------------------------------------------------------------------------------------------------
    def context(self) -> dict[str, Any]:
        call = CURRENT.get()
        actor = call.actor if call is not None else None
        resources: dict[str, int] = {}
        if call is not None:
            resources = call.resources if actor is None else actor.options.resources_to_run
        group = call.strategy[1] if call is not None and call.strategy[0] == "group" else None
        return {
            "job_id": self.job_id,
            "node_id": self.node_id,
            "worker_id": self.process_id if actor is None else actor.actor_id[-8:],
            "task_id": call.task_id if call is not None else None,
            "task_name": call.name if call is not None else None,
            "function_name": _function_name(call),
            "actor_id": actor.actor_id if actor is not None else None,
            "actor_name": actor.options.name if actor is not None else "",
            "namespace": self.namespace if actor is None else actor.namespace,
            "pid": os.getpid(),
            "resources": resource_map(resources.items()),
            "accelerators": call.devices if call is not None else {},
            "group_id": group,
            "was_restarted": actor is not None and actor.restarts > 0,
            "current_actor": self._handle(actor, None) if actor is not None else None,
            "address": "inline",
            "runtime_env": call.runtime_env if call is not None else self.runtime_env,
            "is_canceled": lambda: call is not None and call.cancelled,
            "attempt": call.attempt if call is not None else 0,
        }


def _function_name(call: Call | None) -> str | None:
    if call is None:
        return None
    return call.function if isinstance(call.function, str) else getattr(call.function, "__qualname__", call.name)


def actor_row(engine: InlineView, actor: InlineActor) -> dict[str, Any]:
    return {
        "actor_id": actor.actor_id.hex(),
        "class_name": actor.class_name,
        "state": actor.state,
        "name": actor.options.name,
        "namespace": actor.namespace,
        "job_id": engine.job_id.hex(),
        "node_id": engine.node_id.hex(),
        "worker_id": engine.process_id.hex(),
        "restarts": actor.restarts,
        "reason": actor.reason,
        "death": actor.reason if actor.state == "DEAD" else "",
    }


def _group_row(group: Group) -> dict[str, Any]:
    return {
        "placement_group_id": group.group_id.hex(),
        "name": group.name,
        "state": group.state,
        "strategy": group.strategy,
        "reason": group.reason,
    }
