"""A node's part in its cluster: it registers, reports what it has free, and knows the other nodes.

``NodeService`` derives from ``Member``: this is what it is towards the GCS and the other nodes; what it does for the
processes of its own machine is in ``node.py``.

The GCS may go away and begin anew. Nothing here waits for it meanwhile. What it must not miss (*facts*: an actor's end,
a job's) is kept until it is acknowledged. When it says that it has begun, or when nothing was heard of it for
``limits.gcs_silence_s``, the node dials it again, says its facts and registers with all that it holds, and has its
processes do the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from actorlib.scheduler.lease import LeaseTable
from actorlib.scheduler.resources import Pool
from actorlib.transport import limits, messages, pace
from actorlib.transport.drivers.loop import Loop
from actorlib.transport.drivers.notice import notice
from actorlib.transport.ids import IdFactory, NodeId
from actorlib.transport.link import Address, Handler, Link
from actorlib.transport.messages import NodeView

LOST_UNTOLD = "it was lost, and the GCS began anew before it had told us"


class Member:
    """One node, as its cluster sees it. See the module's docstring."""

    leases: LeaseTable
    _others: Sequence[Any]  # the other services of the node

    def __init__(
        self, loop: Loop, gcs: Address, pool: Pool, labels: dict[str, str], hostname: str, host_id: str
    ) -> None:
        self.loop = loop
        self.gcs = gcs
        self.pool = pool
        self.labels = labels
        self.hostname = hostname
        self.host_id = host_id
        self.epoch = int(time.time() * 1000) & 0xFFFFFFFF
        self.ids = IdFactory(loop.address.process_id)
        self.stopping: str | None = None
        self.is_registered = False
        self.wants_to_belong = False
        self._views: dict[NodeId, NodeView] = {}
        self._recent: dict[NodeId, None] = {}  # those of which we have heard last
        self._reporting = False
        self._reported: Any = None
        self._facts: dict[int, tuple[Any, ...]] = {}
        self._gcs_heard_at = loop.now()
        self.gcs_boot = 0
        self._was_cut_off = False
        self.inbox: Callable[[str], str] = lambda local: local
        """The endpoint that a worker binds, from its local one: on a cluster of machines it adds one on TCP."""

    def _now(self) -> float:
        return self.loop.now()

    def to_gcs(self, message: tuple[Any, ...]) -> None:
        self.loop.link(self.gcs).send(message)

    def fact(self, message: Any) -> None:
        """What the GCS must hear, whatever becomes of it."""
        request_id = self.ids.request_id()
        self._facts[request_id] = message = message._replace(request_id=request_id)
        self.to_gcs(message)

    def _on_done(self, _: Link, message: messages.Done) -> None:
        self._facts.pop(message.request_id, None)

    # -- joining -------------------------------------------------------------------------------------------------------
    def holdings(self) -> messages.Holdings:
        """All that a GCS which has begun anew has to know of us."""
        raise NotImplementedError

    def register(self) -> None:
        self.wants_to_belong = True
        self.to_gcs(
            messages.NodeRegister(
                self.ids.request_id(),
                self.loop.address,
                self.epoch,
                self.pool.total,
                self.labels,
                self.hostname,
                os.getpid(),
                self.host_id,
                self.holdings(),
            )
        )

    def _dial_again(self, reason: str) -> None:
        self._gcs_heard_at = self._now()
        self._reported = None
        if self._gcs_is_apart():
            self.loop.drop_link(self.gcs.process_id, reason)
        elif self.gcs != self.loop.address:
            self.loop.drop_dialled(self.gcs.process_id, reason)  # what that node has dialled is not to blame
        for message in list(self._facts.values()):
            self.to_gcs(message)
        self.register()
        self.subscribe_again()

    def subscribe_again(self) -> None:
        """To what we want to hear of, beside what every node is told."""

    def of_gcs(self, handler: Handler) -> Handler:
        """A handler for what only the GCS may say: from anybody else it is nothing."""

        def handle(link: Link, message: Any) -> None:
            if link.peer.process_id == self.gcs.process_id:
                handler(link, message)
            else:
                notice(f"ignored a {type(message).__name__} of {link.peer.process_id.hex()[:16]}, which is not the GCS")

        return handle

    def _on_gcs_started(self, _: Link, message: messages.GcsStarted) -> None:
        if message.boot > self.gcs_boot:
            self.gcs_boot = message.boot
            self._dial_again("the GCS has begun anew")
            for link in self.loop.links():
                is_ours = link.peer.node_id == self.loop.address.node_id
                if is_ours and link.hello is not None and link.hello.role in ("worker", "driver"):
                    link.send(message)

    def _on_heartbeat_seen(self, link: Link, message: messages.HeartbeatSeen) -> None:
        self._gcs_heard_at = self._now()
        may_be_another = self._was_cut_off and self._gcs_is_apart()  # than our processes have talked to
        if self.gcs_boot == 0 and not may_be_another:
            self.gcs_boot = message.boot
        self._on_gcs_started(link, messages.GcsStarted(message.boot))

    def _gcs_is_apart(self) -> bool:
        """Whether it is a process of its own, which may begin anew, or lives in a node, which does not."""
        return bytes(self.gcs.process_id) != bytes(self.gcs.node_id)

    def _beat(self) -> None:
        patience_s = limits.gcs_silence_s if self._gcs_is_apart() else limits.node_lost_after_s
        if self._now() - self._gcs_heard_at > patience_s:
            self._was_cut_off = True
            self._dial_again("nothing was heard of the GCS")
        self.to_gcs(messages.Heartbeat(self.epoch))

    def _on_registered(self, _: Link, message: messages.NodeRegistered) -> None:
        self.is_registered = True
        self._see(message.nodes)
        known = {view.address.node_id: None for view in message.nodes}
        gone = [view for node_id, view in self._views.items() if view.alive and node_id not in known]
        self._see([view._replace(alive=False, available={}, death=LOST_UNTOLD) for view in gone])
        self._tell_logs_held()

    def _tell_logs_held(self) -> None:
        """What durable actors have left on our disk may be of some that ended while we were away."""
        for service in self._others:
            held = service.held_logs() if hasattr(service, "held_logs") else ()
            for start in range(0, len(held), limits.logs_held_told_max):
                self.to_gcs(messages.LogsHeld(tuple(held[start : start + limits.logs_held_told_max])))

    def _on_nodes_changed(self, _: Link, message: messages.NodesChanged) -> None:
        self._see(message.nodes)
        self.leases.recheck(self._now())

    def _on_nodes_free(self, _: Link, message: messages.NodesFree) -> None:
        for node_id, available in message.nodes:
            view = self._views.get(node_id)
            if view is not None and view.alive:
                self._views[node_id] = view._replace(available=available)
                self._heard_of(node_id)
        self.leases.recheck(self._now())

    def _heard_of(self, node_id: NodeId) -> None:
        self._recent.pop(node_id, None)
        self._recent[node_id] = None
        if len(self._recent) > limits.views_in_message_max:
            del self._recent[next(iter(self._recent))]

    def _see(self, views: Sequence[NodeView]) -> None:
        for view in views:
            before = self._views.get(view.address.node_id)
            self._views[view.address.node_id] = view
            self._heard_of(view.address.node_id)
            if not view.alive and (before is None or before.alive):
                self._node_lost(view)
            elif view.alive and before is None:
                self._node_came(view)

    def _node_lost(self, view: NodeView) -> None:
        """Another node is gone."""
        raise NotImplementedError

    def _node_came(self, view: NodeView) -> None:
        """Another node is there. What concerns it may have come to us before the news of it."""
        raise NotImplementedError

    # -- the other nodes -----------------------------------------------------------------------------------------------
    def views(self) -> Sequence[NodeView]:
        here = self.loop.address.node_id
        return [self._own_view(), *(view for node_id, view in self._views.items() if node_id != here)]

    def view(self, node_id: NodeId) -> NodeView | None:
        return self._own_view() if node_id == self.loop.address.node_id else self._views.get(node_id)

    def recent_views(self) -> Sequence[NodeView]:
        here = self.loop.address.node_id
        if len(self._views) <= limits.views_in_message_max:
            return self.views()
        return [self._own_view(), *(self._views[node_id] for node_id in self._recent if node_id != here)]

    def _own_view(self) -> NodeView:
        free, drain = self.pool.visible(), self.leases.drain
        address, total = self.loop.address, self.pool.total
        return NodeView(address, self.epoch, True, total, free, self.labels, self.hostname, 0, (), "", drain)

    def node_addresses(self) -> list[Address]:
        return [view.address for view in self._views.values() if view.alive]

    def node_address(self, node_id: NodeId) -> Address | None:
        view = self._views.get(node_id)
        return view.address if view is not None and view.alive else None

    def node_is_lost(self, node_id: NodeId) -> bool:
        """Whether it was there and is gone. A node of which we have not heard yet is not lost."""
        view = self._views.get(node_id)
        return view is not None and not view.alive

    # -- reporting -----------------------------------------------------------------------------------------------------
    def _changed(self) -> None:
        """Resources have moved: tell the GCS, batched."""
        if not self._reporting:
            self._reporting = True
            self.loop.call_later(pace.report_period_s(len(self._views)), self._report)

    def _report(self) -> None:
        self._reporting = False
        report = messages.NodeReport(self.epoch, self.pool.visible(), self.leases.reasons())
        if report != self._reported and self.stopping is None:
            self._reported = report
            self.to_gcs(report)
