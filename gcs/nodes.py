"""The nodes of the cluster: who is there, what each has and has free, who is gone for good.

A node that was declared lost stays lost: it comes back as a new one, with a new id. Views are soft state. What is
persisted is who is there and who was lost, so that a GCS that begins anew knows whom to wait for: a node is *awaited*
from then on, or from when its connection was cut off, until it registers (again) or is declared lost. An awaited node
is alive for those who look, and is given nothing to do. So is one that *drains*: it has said that it is leaving.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actorlib.gcs.journal import Port
from actorlib.gcs.news import News
from actorlib.transport import codec, limits
from actorlib.transport.ids import NodeId
from actorlib.transport.link import Link
from actorlib.transport.messages import (
    NO_HOLDINGS,
    NodeDrained,
    NodeDrains,
    NodeRegister,
    NodeRegistered,
    NodeReport,
    NodesList,
    NodeView,
    ShutdownNode,
)

TABLE = "nodes"
LATER_LIFE = "a later life of this node has registered"
LOST = b""  # the record of a node that was declared lost


class Nodes:
    """Views of all nodes, and the links to those that are alive."""

    def __init__(self, port: Port, changed: Callable[[], None], lost: Callable[[NodeId, str, bool], None]) -> None:
        self._port = port
        self._on_changed = changed
        self._on_lost = lost
        self.views: dict[NodeId, NodeView] = {}
        self.links: dict[NodeId, Link] = {}
        self.awaited: dict[NodeId, None] = {}
        self.hosts: dict[NodeId, tuple[str, int]] = {}  # machine and pid of those that are not lost
        self._registered: dict[NodeId, NodeRegister] = {}  # as the disk has them
        self._fenced: dict[NodeId, None] = {}
        self._news = News(port, self.views, self.links)

    def load(self, key: bytes, value: bytes) -> None:
        node_id = NodeId(key)
        if value == LOST:
            self._fenced[node_id] = None
            return
        registered, *drains = codec.decode_batch(value)
        self.views[node_id] = self._view(registered, drains[0].reason if drains else "")
        self._registered[node_id] = registered
        self.hosts[node_id] = (registered.host_id, registered.os_pid)
        self.awaited[node_id] = None

    def _persist(self, node_id: NodeId) -> None:
        """What it is, and whether it drains."""
        view = self.views[node_id]
        record: list[Any] = [self._registered[node_id]]
        if view.drain:
            record.append(NodeDrains(view.epoch, 0.0, view.drain))
        self._port.persist(TABLE, node_id, codec.encode_batch(record)[0])

    def is_fenced(self, node_id: NodeId) -> str:
        """Why nothing of that node is to be done any more; "" if it may act."""
        view = self.views.get(node_id)
        if node_id in self._fenced or (view is not None and not view.alive):
            death = view.death if view is not None else "before the GCS began anew"
            return f"it was declared lost ({death}); its work went elsewhere, so it has to start anew"
        return ""

    @staticmethod
    def _view(message: NodeRegister, drain: str = "") -> NodeView:
        return NodeView(
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
            drain,
        )

    def register(self, link: Link, message: NodeRegister, reconcile: Callable[[], None] = lambda: None) -> bool:
        """False if it was declared lost: it is told to end. ``reconcile`` is called before it gets anything to do."""
        node_id = message.address.node_id
        fence = self.is_fenced(node_id)
        known = self.views.get(node_id)
        if not fence and known is not None and message.epoch < known.epoch:
            fence = LATER_LIFE
        if fence:
            self._port.send(link, ShutdownNode(fence))
            return False
        before = self.views.get(node_id)
        self.views[node_id] = self._view(message, before.drain if before is not None else "")
        self.hosts[node_id] = (message.host_id, message.os_pid)
        self.awaited.pop(node_id, None)
        record = message._replace(request_id=0, holds=NO_HOLDINGS)
        if self._registered.get(node_id) != record:  # a node that registers again needs nothing of the disk
            self._registered[node_id] = record
            self._persist(node_id)
        self.links[node_id] = link
        self._port.send(link, NodeRegistered(message.request_id, tuple(self.views.values())))
        self._news.moved(node_id)
        reconcile()
        self._on_changed()
        return True

    def report(self, link: Link, message: NodeReport) -> None:
        node_id = link.peer.node_id
        view = self.views.get(node_id)
        if view is None or not view.alive or view.epoch != message.epoch:
            return
        self.views[node_id] = view._replace(available=message.available, waiting=message.waiting)
        self._news.changed(node_id)
        self._on_changed()

    def list_all(self, link: Link, message: NodesList) -> None:
        self._port.send(link, NodeRegistered(message.request_id, tuple(self.views.values())))

    def drains(self, link: Link, message: NodeDrains) -> None:
        """It is leaving: everybody is told, so that nobody sends it work."""
        node_id = link.peer.node_id
        view = self.views.get(node_id)
        if view is None or not view.alive or view.drain or view.epoch != message.epoch:
            return
        self.views[node_id] = view._replace(drain=message.reason)
        self._persist(node_id)
        self._news.moved(node_id)
        self._on_changed()

    def drained(self, link: Link, message: NodeDrained) -> None:
        """It has left. What still was there goes elsewhere."""
        node_id = link.peer.node_id
        view = self.views.get(node_id)
        if view is not None and view.alive and view.epoch == message.epoch:
            self.views[node_id] = view._replace(drained=message.is_empty)
            self.lost(node_id, message.text, planned=True)

    def lost(self, node_id: NodeId, reason: str, planned: bool = False) -> None:
        """It is over. ``planned``: it has left in good order."""
        view = self.views.get(node_id)
        if view is None or not view.alive:
            return
        self.views[node_id] = view._replace(alive=False, available={}, waiting=(), death=reason)
        self.links.pop(node_id, None)
        planned = planned or node_id in self.awaited
        self.awaited.pop(node_id, None)
        self.hosts.pop(node_id, None)
        self._registered.pop(node_id, None)
        self._fence(node_id)
        self._news.moved(node_id)
        self._on_lost(node_id, reason, planned)

    def _fence(self, node_id: NodeId) -> None:
        self._fenced[node_id] = None
        self._port.persist(TABLE, node_id, LOST)
        while len(self._fenced) > limits.lost_nodes_kept_max:
            oldest = next(iter(self._fenced))
            del self._fenced[oldest]
            self.views.pop(oldest, None)
            self._port.persist(TABLE, oldest, None)

    def cut_off(self, link: Link) -> None:
        """Its session has ended, which says nothing about the node: it may register again, or be declared lost."""
        node_id = link.peer.node_id
        if self.links.get(node_id) is link:
            del self.links[node_id]
            self.awaited[node_id] = None

    def alive(self) -> list[NodeView]:
        """Those that can be given something to do."""
        return [view for node_id, view in self.views.items() if node_id in self.links and not view.drain]

    def takes_work(self, node_id: NodeId) -> bool:
        return node_id in self.links and not self.views[node_id].drain

    def is_alive(self, node_id: NodeId) -> bool:
        return node_id in self.links

    def is_known(self, node_id: NodeId) -> bool:
        """Alive, as far as anybody knows."""
        view = self.views.get(node_id)
        return view is not None and view.alive

    def check(self) -> None:
        for node_id, view in self.views.items():
            assert view.alive == (node_id in self.links or node_id in self.awaited), (
                "alive without a link, or the reverse"
            )
        assert not self.links.keys() & self.awaited.keys(), "awaited, and there"
