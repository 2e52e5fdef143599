"""Who belongs to the cluster from moment to moment: heartbeats, losses, and what a GCS that begins anew must find out.

**Losses.** Each node says every ``limits.heartbeat_period_s`` that it lives. Silence makes it suspected and then lost
(``transport/failure_detector.py``); what a lost node says later is answered with the order to end, because its work
went elsewhere. On the GCS's own machine the kernel tells at once when a node's process has ended.

**Beginning anew.** The tables are as they were at the last commit; what they say of nodes may be out of date. So the
nodes that were there are *awaited*: each is told that the GCS has begun (``GcsStarted``) and registers again with what
it holds. What it says is compared with the tables (``reconcile``): actors that ended meanwhile are restarted or dead,
those that nobody wants any more are stopped, owners and drivers that are gone take with them what goes with them. A
node that does not register in time is lost. Once nobody is awaited, what is not placed anywhere is placed.

What happened while the GCS was away does not count against an actor: if its node is gone, it is restarted without
using up a restart, and so are detached actors of a cluster that was stopped as a whole.
"""

from __future__ import annotations

from actorlib.gcs.actors import Actors
from actorlib.gcs.journal import Port
from actorlib.gcs.nodes import LATER_LIFE, Nodes
from actorlib.gcs.placement_groups import PlacementGroups
from actorlib.transport.failure_detector import FailureDetector, PeerState, Verdict
from actorlib.transport.ids import NodeId
from actorlib.transport.link import Link
from actorlib.transport.messages import Heartbeat, HeartbeatSeen, MustDrain, NodeRegister, ShutdownNode

META = "meta"
BOOT = b"boot"


class Membership:
    """See the module's docstring."""

    def __init__(self, port: Port, nodes: Nodes, actors: Actors, groups: PlacementGroups) -> None:
        self._port = port
        self._nodes = nodes
        self._actors = actors
        self._groups = groups
        self.detector = FailureDetector()
        self.boot = 0
        self._is_settled = True
        self._to_drain: dict[NodeId, tuple[float, str]] = {}  # who was told to: until when, and why

    def begin(self, now: float, boots_before: bytes | None) -> None:
        """The tables are loaded. What refers to nodes that nobody awaits is over."""
        self.boot = int(boots_before or b"0") + 1
        self._port.persist(META, BOOT, str(self.boot).encode())
        for node_id in self._nodes.awaited:
            self.detector.heard(now, node_id, self._nodes.views[node_id].epoch)
        for node_id in {**self._actors.homes(), **self._groups.homes()}:
            if not self._nodes.is_known(node_id):
                self._groups.node_lost(node_id)
                self._actors.node_lost(node_id, "it was stopped, with the whole cluster", planned=True)
        self._is_settled = False
        self._settle()

    def _settle(self) -> None:
        if not self._is_settled and not self._nodes.awaited:
            self._is_settled = True
            self._actors.settle()

    # -- signs of life -------------------------------------------------------------------------------------------------
    def registered(self, now: float, link: Link, message: NodeRegister) -> bool:
        """A node that registers, perhaps again. False if it was declared lost."""
        node_id = message.address.node_id

        def reconcile() -> None:
            self.detector.heard(now, node_id, message.epoch)
            self._groups.reconcile(link, node_id, message.holds.groups)
            self._actors.reconcile(link, node_id, message.holds.actors)

        registered = self._nodes.register(link, message, reconcile)
        if registered and node_id in self._to_drain and not self._nodes.views[node_id].drain:
            deadline, reason = self._to_drain[node_id]  # the order may have been lost with its last session
            self._port.send(link, MustDrain(max(0.0, deadline - now), reason))
        self._settle()
        return registered

    def heartbeat(self, now: float, link: Link, message: Heartbeat) -> None:
        """Answered only on the session under which the node is registered: without an answer it registers again."""
        node_id = link.peer.node_id
        fence = self._nodes.is_fenced(node_id)
        if fence or self.detector.heard(now, node_id, message.epoch) is Verdict.FENCED:
            self._port.send(link, ShutdownNode(fence or LATER_LIFE))
        elif self._nodes.links.get(node_id) is link:
            self._port.send(link, HeartbeatSeen(self.boot))

    def tick(self, now: float) -> None:
        for change in self.detector.tick(now):
            if change.new is PeerState.LOST:
                self._nodes.lost(
                    NodeId(change.peer), f"nothing was heard of it: {self.detector.story(change.peer)[-1]}"
                )

    def node_lost(self, now: float, node_id: NodeId, reason: str, planned: bool) -> None:
        """For ``Nodes``: whatever the cause, its life is over and its work is to go elsewhere."""
        self._to_drain.pop(node_id, None)
        self.detector.declare_lost(now, node_id, self._nodes.views[node_id].epoch, reason)
        self._groups.node_lost(node_id)
        self._actors.node_lost(node_id, reason, planned=planned)
        self._settle()

    def drain(self, now: float, node_id: NodeId, deadline_s: float, reason: str) -> bool:
        """Tell a node to leave. False if it can't be reached."""
        known, _ = self._to_drain.get(node_id, (float("inf"), ""))
        if not self._port.to_node(node_id, MustDrain(deadline_s, reason)):
            return False
        if now + deadline_s < known:
            self._to_drain[node_id] = (now + deadline_s, reason)
        return True

    def check(self) -> None:
        self.detector.check()
