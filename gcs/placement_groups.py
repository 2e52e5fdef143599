"""Placement groups: bundles of resources that are had all together or not at all.

Two phases: every node sets its bundles aside (prepare); when all have, they are told to keep them (commit), else all
give them back and it is tried again. A group whose node is lost is RESCHEDULING: its lost bundles are placed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from actorlib.gcs.journal import Port
from actorlib.transport import codec, messages
from actorlib.transport.ids import GroupId, JobId, NodeId
from actorlib.transport.link import Link
from actorlib.transport.messages import GroupCreate, GroupView, NodeView

TABLE = "groups"
RETRY_S = 0.2

Place = Callable[
    [Sequence[dict[str, int]], str, Sequence[NodeView], Sequence[dict[str, str]]], "tuple[NodeId, ...] | str"
]


class Group:
    __slots__ = ("answers", "attempt", "created_by", "nodes", "phase", "reason", "spec", "state", "subscribers")

    def __init__(self, spec: GroupCreate) -> None:
        self.spec = spec
        self.state = "PENDING"
        self.nodes: tuple[NodeId, ...] = ()
        self.reason = "waiting to be placed"
        self.attempt = 0
        self.phase = ""  # "prepare", "commit" while nodes are asked
        self.answers: dict[NodeId, bool] = {}
        self.subscribers: dict[bytes, Link] = {}

    def view(self) -> GroupView:
        spec = self.spec
        nodes = self.nodes if self.state == "CREATED" else (NodeId(b""),) * len(spec.bundles)
        return GroupView(
            spec.group_id, spec.name, spec.namespace, spec.strategy, self.state, spec.bundles, nodes, self.reason
        )


class PlacementGroups:
    """All placement groups. See the module's docstring."""

    def __init__(
        self, port: Port, place: Place, nodes: Callable[[], list[NodeView]], changed: Callable[[], None]
    ) -> None:
        self._port = port
        self._place = place
        self._nodes = nodes
        self._on_changed = changed
        self.groups: dict[GroupId, Group] = {}
        self.names: dict[tuple[str, str], GroupId] = {}
        self._retry_scheduled = False

    def load(self, _key: bytes, value: bytes) -> None:
        spec, *placed = codec.decode_batch(value)
        group = Group(spec)
        if placed:
            group.state, group.nodes, group.reason = "CREATED", placed[0].group.nodes, ""
        self.groups[spec.group_id] = group
        if spec.name:
            self.names[spec.namespace, spec.name] = spec.group_id

    def create(self, link: Link, message: GroupCreate) -> None:
        if message.group_id not in self.groups:
            key = (message.namespace, message.name)
            if message.name and key in self.names:
                text = f"the placement group name {message.name!r} is taken; remove that group or choose another name"
                self._port.send(link, messages.Failure(message.request_id, "ValueError", text))
                return
            group = Group(message)
            self.groups[message.group_id] = group
            if message.name:
                self.names[key] = message.group_id
            self._persist(group)
            self._try(group)
        self._port.send(link, messages.Done(message.request_id))

    def _persist(self, group: Group) -> None:
        """With its places, once it has them: its bundles stay where they are when the GCS begins anew."""
        record: list[tuple[Any, ...]] = [group.spec]
        if group.state == "CREATED":
            record.append(messages.GroupUpdate(group.view()))
        self._port.persist(TABLE, group.spec.group_id, codec.encode_batch(record)[0])

    # -- placing -------------------------------------------------------------------------------------------------------
    def retry(self) -> None:
        """Something has changed: try those that wait."""
        for group in list(self.groups.values()):
            if group.state in ("PENDING", "RESCHEDULING") and not group.phase:
                self._try(group)

    def _retry_later(self) -> None:
        if not self._retry_scheduled:
            self._retry_scheduled = True
            self._port.call_later(RETRY_S, self._retry_now)

    def _retry_now(self) -> None:
        self._retry_scheduled = False
        self.retry()

    def _try(self, group: Group) -> None:
        spec = group.spec
        placed = self._place(spec.bundles, spec.strategy, self._nodes(), spec.label_selectors)
        if isinstance(placed, str):
            if group.reason != placed:
                group.reason = placed
                self._publish(group)
            return
        group.nodes = placed
        group.attempt += 1
        self._ask(group, "prepare")

    def _by_node(self, group: Group) -> dict[NodeId, list[tuple[int, dict[str, int]]]]:
        by_node: dict[NodeId, list[tuple[int, dict[str, int]]]] = {}
        for index, (node_id, bundle) in enumerate(zip(group.nodes, group.spec.bundles, strict=True)):
            by_node.setdefault(node_id, []).append((index, bundle))
        return by_node

    def _ask(self, group: Group, phase: str) -> None:
        group.phase = phase
        group.answers = {}
        for node_id, bundles in self._by_node(group).items():
            message: Any
            if phase == "prepare":
                message = messages.PrepareBundles(0, group.spec.group_id, group.attempt, tuple(bundles))
            else:
                message = messages.CommitBundles(0, group.spec.group_id, group.attempt)
            if not self._port.to_node(node_id, message):
                self._give_up(group, "a node was lost")
                return

    def prepared(self, link: Link, message: messages.BundlesPrepared) -> None:
        group = self.groups.get(message.group_id)
        if group is None or group.attempt != message.attempt or not group.phase:
            return
        if not message.ok:
            self._give_up(group, message.reason)
            return
        group.answers[link.peer.node_id] = True
        if len(group.answers) < len(set(group.nodes)):
            return
        if group.phase == "prepare":
            self._ask(group, "commit")
            return
        group.phase = ""
        group.state = "CREATED"
        group.reason = ""
        self._persist(group)
        self._publish(group)
        self._on_changed()

    def _give_up(self, group: Group, reason: str) -> None:
        """Some node could not: all give back, and it is tried again."""
        group.phase = ""
        group.reason = f"could not be placed: {reason}"
        self._release(group)
        self._retry_later()

    def _release(self, group: Group) -> None:
        for node_id in dict.fromkeys(group.nodes):
            self._port.to_node(node_id, messages.ReleaseBundles(0, group.spec.group_id))
        group.nodes = ()

    # -- ending --------------------------------------------------------------------------------------------------------
    def remove(self, link: Link | None, message: messages.GroupRemove) -> None:
        group = self.groups.pop(message.group_id, None)
        if group is not None:
            self._release(group)
            group.state, group.reason, group.phase = "REMOVED", "removed", ""
            self._port.persist(TABLE, message.group_id, None)
            if group.spec.name:
                self.names.pop((group.spec.namespace, group.spec.name), None)
            self._publish(group)
            self._on_changed()
        if link is not None:
            self._port.send(link, messages.Done(message.request_id))

    def job_ended(self, job_id: JobId) -> None:
        for group in list(self.groups.values()):
            if group.spec.job_id == job_id and not group.spec.detached:
                self.remove(None, messages.GroupRemove(0, group.spec.group_id))

    def node_lost(self, node_id: NodeId) -> None:
        for group in self.groups.values():
            if node_id in group.nodes:
                self._reschedule(group, "a node with its bundles was lost")
        self._retry_later()

    def _reschedule(self, group: Group, reason: str) -> None:
        self._release(group)
        group.state, group.reason, group.phase = "RESCHEDULING", reason, ""
        self._persist(group)
        self._publish(group)

    def homes(self) -> dict[NodeId, None]:
        """The nodes that bundles lie on."""
        return {node_id: None for group in self.groups.values() for node_id in group.nodes}

    def reconcile(self, link: Link, node_id: NodeId, held: tuple[GroupId, ...]) -> None:
        """A node says whose bundles it holds: those that are not known to lie there are given back."""
        for group_id in held:
            group = self.groups.get(group_id)
            if group is None or node_id not in group.nodes:
                self._port.send(link, messages.ReleaseBundles(0, group_id))
        for group in self.groups.values():
            if node_id in group.nodes and group.spec.group_id not in held:
                if group.phase:
                    self._give_up(group, "a node and the GCS could not talk")
                elif group.state == "CREATED":
                    self._reschedule(group, "a node has let go of its bundles")
                    self._retry_later()

    # -- asking --------------------------------------------------------------------------------------------------------
    def bundle_node(self, group_id: GroupId, index: int) -> NodeId | str | None:
        """The node of a bundle (-1: of the first); a reason if it isn't placed; None if there is no such group."""
        group = self.groups.get(group_id)
        if group is None:
            return None
        if group.state != "CREATED":
            return f"its placement group is {group.state}: {group.reason}"
        return group.nodes[index if 0 <= index < len(group.nodes) else 0]

    def subscribe(self, link: Link, message: messages.GroupSubscribe) -> None:
        group = self.groups.get(message.group_id)
        if group is None:
            view = GroupView(message.group_id, "", "", "", "REMOVED", (), (), "there is no such placement group")
            self._port.send(link, messages.GroupUpdate(view))
            return
        group.subscribers[link.peer.process_id] = link
        self._port.send(link, messages.GroupUpdate(group.view()))

    def _publish(self, group: Group) -> None:
        for link in group.subscribers.values():
            self._port.send(link, messages.GroupUpdate(group.view()))

    def find(self, link: Link, message: messages.GroupFind) -> None:
        group_id = self.names.get((message.namespace, message.name))
        if group_id is None:
            text = f"there is no placement group named {message.name!r} in namespace {message.namespace!r}"
            self._port.send(link, messages.Failure(message.request_id, "ValueError", text))
        else:
            self._port.send(link, messages.GroupTable(message.request_id, (self.groups[group_id].view(),)))

    def list_all(self, link: Link, message: messages.GroupList) -> None:
        self._port.send(link, messages.GroupTable(message.request_id, tuple(g.view() for g in self.groups.values())))

    def check(self) -> None:
        for group in self.groups.values():
            assert group.state != "CREATED" or len(group.nodes) == len(group.spec.bundles), "created but not placed"
