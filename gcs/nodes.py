"""The nodes of the cluster: who is there, what each has and has free, who is gone for good.

A node that was declared lost stays lost: it comes back as a new one, with a new id. Only the latest views are kept;
they are soft state (nodes register again after a restart of the GCS), so nothing here is persisted.
"""

from __future__ import annotations

from collections.abc import Callable

from actorlib.gcs.journal import Port
from actorlib.transport import limits
from actorlib.transport.ids import NodeId
from actorlib.transport.link import Link
from actorlib.transport.messages import (
    NodeRegister,
    NodeRegistered,
    NodeReport,
    NodesChanged,
    NodesList,
    NodeView,
    ShutdownNode,
)


class Nodes:
    """Views of all nodes, and the links to those that are alive."""

    def __init__(self, port: Port, changed: Callable[[], None], lost: Callable[[NodeId, str], None]) -> None:
        self._port = port
        self._on_changed = changed
        self._on_lost = lost
        self.views: dict[NodeId, NodeView] = {}
        self.links: dict[NodeId, Link] = {}
        self._dirty: dict[NodeId, None] = {}
        self._scheduled = False

    def register(self, link: Link, message: NodeRegister) -> None:
        node_id = message.address.node_id
        known = self.views.get(node_id)
        if known is not None and not known.alive:
            reason = f"it was declared lost ({known.death}); its work went elsewhere, so it has to start anew"
            self._port.send(link, ShutdownNode(reason))
            return
        view = NodeView(
            message.address,
            message.epoch,
            True,
            message.total,
            message.total,
            message.labels,
            message.hostname,
            message.os_pid,
            (),
            "",
        )
        self.views[node_id] = view
        self.links[node_id] = link
        self._port.send(link, NodeRegistered(message.request_id, tuple(self.views.values())))
        self._mark(node_id)
        self._on_changed()

    def report(self, link: Link, message: NodeReport) -> None:
        node_id = link.peer.node_id
        view = self.views.get(node_id)
        if view is None or not view.alive or view.epoch != message.epoch:
            return
        self.views[node_id] = view._replace(available=message.available, waiting=message.waiting)
        self._mark(node_id)
        self._on_changed()

    def list_all(self, link: Link, message: NodesList) -> None:
        self._port.send(link, NodeRegistered(message.request_id, tuple(self.views.values())))

    def lost(self, node_id: NodeId, reason: str) -> None:
        view = self.views.get(node_id)
        if view is None or not view.alive:
            return
        self.views[node_id] = view._replace(alive=False, available={}, waiting=(), death=reason)
        self.links.pop(node_id, None)
        self._mark(node_id)
        self._on_lost(node_id, reason)

    def alive(self) -> list[NodeView]:
        return [view for view in self.views.values() if view.alive]

    def is_alive(self, node_id: NodeId) -> bool:
        view = self.views.get(node_id)
        return view is not None and view.alive

    def _mark(self, node_id: NodeId) -> None:
        """Tell the other nodes, batched: the messages don't grow with the number of reports."""
        self._dirty[node_id] = None
        if not self._scheduled:
            self._scheduled = True
            self._port.call_later(limits.node_report_period_s / 2, self._broadcast)

    def _broadcast(self) -> None:
        self._scheduled = False
        dirty, self._dirty = self._dirty, {}
        for node_id, link in self.links.items():
            others = tuple(self.views[changed] for changed in dirty if changed != node_id)
            if others:
                self._port.send(link, NodesChanged(others))

    def check(self) -> None:
        for node_id, view in self.views.items():
            assert view.alive == (node_id in self.links), "alive without a link, or the reverse"
