"""What the user can ask of the cluster as a whole: nodes, resources, placement groups, state, and the own context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from actorlib import exceptions, serialization
from actorlib.engine import resource_map
from actorlib.object_ref import ObjectRef
from actorlib.runtime.drivers.calls import CURRENT
from actorlib.runtime.drivers.durable_view import DurableView
from actorlib.runtime.drivers.supervising import Supervising
from actorlib.store.owner import Entry
from actorlib.transport import limits, messages
from actorlib.transport.ids import GroupId, NodeId, object_id


class ClusterView(Supervising):
    """The rest of the engine. Drivers and workers derive from this."""

    actor_name = ""
    was_restarted = False
    address_info: dict[str, Any] = {}  # drivers have one

    def own_actor_id(self) -> bytes:
        return self.actor_id

    # -- nodes ---------------------------------------------------------------------------------------------------------
    def _views(self) -> tuple[messages.NodeView, ...]:
        answer = self.ask(self.gcs, messages.NodesList)
        views: tuple[messages.NodeView, ...] = answer.nodes
        return views

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": view.address.node_id.hex(),
                "Alive": view.alive,
                "NodeManagerAddress": "127.0.0.1",
                "NodeManagerHostname": view.hostname,
                "NodeManagerPort": 0,
                "Endpoint": view.address.endpoint,
                "Pid": view.os_pid,
                "Resources": resource_map(view.total.items()) if view.alive else {},
                "Available": resource_map(view.available.items()) if view.alive else {},
                "Labels": dict(view.labels),
                "Epoch": view.epoch,
                "Waiting": {reason: count for reason, count in view.waiting},
                "DeathReason": view.death,
                "State": view.state,
                "DrainReason": view.drain,
                "alive": view.alive,
            }
            for view in self._views()
        ]

    def drain_node(self, node_id: bytes, deadline_s: float | None, reason: str) -> None:
        within_s = limits.drain_deadline_s if deadline_s is None else float(deadline_s)
        self.ask(self.gcs, lambda rid: messages.DrainNode(rid, NodeId(node_id), within_s, reason))

    def cluster_resources(self) -> dict[str, float]:
        return self._sum("total")

    def available_resources(self) -> dict[str, float]:
        """What is free now, asked of each node itself (the GCS's view lags by a moment)."""
        totals: dict[str, int] = {}
        for view in self._views():
            if view.alive:
                answer = self.ask(view.address, messages.NodeStatus, timeout_s=5.0)
                for name, amount in answer.status["available"].items():
                    totals[name] = totals.get(name, 0) + amount
        return {name: amount for name, amount in resource_map(totals.items()).items() if amount > 0}

    def _sum(self, field: str) -> dict[str, float]:
        totals: dict[str, int] = {}
        for view in self._views():
            if view.alive:
                for name, amount in getattr(view, field).items():
                    totals[name] = totals.get(name, 0) + amount
        return resource_map(totals.items())

    def query_state(self, table: str, limit: int) -> list[dict[str, Any]]:
        answer = self.ask(self.gcs, lambda request_id: messages.StateQuery(request_id, table, limit))
        return list(answer.rows)

    def node_status(self) -> dict[str, Any]:
        """What runs and waits at our node."""
        answer = self.ask(self.node, messages.NodeStatus)
        status: dict[str, Any] = answer.status
        return status

    # -- placement groups ----------------------------------------------------------------------------------------------
    def create_group(
        self,
        bundles: Sequence[dict[str, int]],
        strategy: str,
        name: str,
        detached: bool,
        label_selectors: Sequence[dict[str, str]],
    ) -> GroupId:
        group_id = self.ids.group_id()
        self.ask(
            self.gcs,
            lambda request_id: messages.GroupCreate(
                request_id,
                group_id,
                self.job_id,
                tuple(bundles),
                strategy,
                name,
                self.namespace,
                detached,
                self.actor_id,  # type: ignore[arg-type]
                tuple(label_selectors),
            ),
        )
        return group_id

    def remove_group(self, group_id: GroupId) -> None:
        self.ask(self.gcs, lambda request_id: messages.GroupRemove(request_id, group_id))

    def _subscribe_group(self, group_id: GroupId, callback: Callable[[messages.GroupView], None]) -> None:
        def begin(_: None) -> None:
            earlier = self._groups.get(group_id)

            def both(view: messages.GroupView) -> None:
                if earlier is not None:
                    earlier(view)
                callback(view)

            self._groups[group_id] = both
            self.to_gcs(messages.GroupSubscribe(group_id))

        self.loop.post(begin, None)

    def wait_group(self, group_id: GroupId, timeout: float | None) -> bool:
        seen: list[messages.GroupView] = []
        self._subscribe_group(group_id, seen.append)
        self.drive(lambda: bool(seen) and self._is_settled(seen[-1]), timeout, ())
        return bool(seen) and seen[-1].state == "CREATED"

    def _is_settled(self, view: messages.GroupView) -> bool:
        """Placed, gone, or never to be placed."""
        return view.state in ("CREATED", "REMOVED") or (
            not self.can_grow and view.reason.startswith(messages.INFEASIBLE)
        )

    def group_ready_ref(self, group_id: GroupId) -> ObjectRef[Any]:
        oid = object_id(self.ids.task_id(), 0)
        self.table.entries[oid] = Entry()

        def changed(view: messages.GroupView) -> None:
            if view.state == "CREATED":
                self.table.resolve(oid, serialization.serialize(True).data)
            elif view.state == "REMOVED":
                text = f"placement group {group_id.hex()} was removed before it was placed"
                self.table.resolve(oid, self.error_value("PlacementGroupError", text))
            elif self._is_settled(view):
                text = f"placement group {group_id.hex()} can't be placed, and no node can join: {view.reason}"
                self.table.resolve(oid, self.error_value("PlacementGroupError", text))

        self._subscribe_group(group_id, changed)
        return self.new_ref(oid)

    def group_table(self, group_id: GroupId | None, name: str | None) -> list[dict[str, Any]]:
        if name is not None:
            answer = self.ask(self.gcs, lambda request_id: messages.GroupFind(request_id, name, self.namespace))
        else:
            answer = self.ask(self.gcs, messages.GroupList)
        return [self._group_row(view) for view in answer.groups if group_id is None or view.group_id == group_id]

    @staticmethod
    def _group_row(view: messages.GroupView) -> dict[str, Any]:
        return {
            "placement_group_id": view.group_id.hex(),
            "name": view.name,
            "namespace": view.namespace,
            "strategy": view.strategy,
            "state": view.state,
            "bundles": {i: resource_map(bundle.items()) for i, bundle in enumerate(view.bundles)},
            "bundles_to_node_id": {i: node.hex() for i, node in enumerate(view.nodes)},
            "reason": view.reason,
        }

    # -- where am I ----------------------------------------------------------------------------------------------------
    def context(self) -> dict[str, Any]:
        current = CURRENT.get()
        extra = (current.extra if current is not None else None) or {}
        return {
            "job_id": self.job_id,
            "node_id": self.node.node_id,
            "worker_id": self.address.process_id,
            "task_id": current.task_id if current is not None else None,
            "task_name": extra.get("name") or (current.name if current is not None else None),
            "function_name": current.name if current is not None else None,
            "actor_id": self.actor_id or None,
            "actor_name": self.actor_name,
            "namespace": self.namespace,
            "pid": self.os_pid(),
            "resources": self.assigned_resources(),
            "accelerators": self.accelerators(),
            "group_id": self.current_group(),
            "was_restarted": self.was_restarted,
            "current_actor": self.current_actor(),
            "address": self.gcs.endpoint,
            "runtime_env": self.runtime_env,
            "attempt": extra.get("attempt", 0),
            "is_canceled": current.is_canceled if current is not None else _never,
        }

    def assigned_resources(self) -> dict[str, float]:
        return {}

    def accelerators(self) -> dict[str, tuple[int, ...]]:
        return {}

    def current_group(self) -> bytes | None:
        return None

    def current_actor(self) -> Any:
        return None

    def durable(self) -> DurableView:
        return DurableView(self)

    def record_once(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(*args, **kwargs)

    def checkpoint_now(self) -> None:
        raise ValueError("checkpoint_now() is for the methods of an actor; this is not one")

    def shutdown(self) -> None:
        raise exceptions.ActorlibError("a worker can't shut down the session; only its driver can")


def _never() -> bool:
    return False
