"""Placement groups: bundles of resources that are had all together or not at all.

Two phases: every node sets its bundles aside (prepare), and nobody uses them yet; when all have, they are told to keep
them (commit), else all give them back and it is tried again. A group whose node is lost is RESCHEDULING: its lost
bundles are placed anew, in the same two phases. The others stay where they are, and what runs in them goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from actorlib.gcs.journal import Port
from actorlib.transport import codec, messages
from actorlib.transport.ids import GroupId, JobId, NodeId
from actorlib.transport.link import Link
from actorlib.transport.messages import GroupCreate, GroupView, NodeView, bundle_node

TABLE = "groups"
RETRY_S = 0.2

NOWHERE = NodeId(b"")

Place = Callable[
    [Sequence[dict[str, int]], str, Sequence[NodeView], Sequence[dict[str, str]], Sequence[NodeId]],
    "tuple[NodeId, ...] | str",
]
"""Bundles, strategy, nodes, label selectors, and where bundles lie already: a node for each, or why there is none."""


class Group:
    __slots__ = (
        "answers",
        "attempt",
        "created_by",
        "nodes",
        "phase",
        "reason",
        "spec",
        "state",
        "subscribers",
        "tried",
    )

    def __init__(self, spec: GroupCreate) -> None:
        self.spec = spec
        self.state = "PENDING"
        self.nodes: tuple[NodeId, ...] = (NOWHERE,) * len(spec.bundles)
        self.tried: dict[int, NodeId] = {}  # where those that lie nowhere are to go, while nodes are asked
        self.reason = "waiting to be placed"
        self.attempt = 0
        self.phase = ""  # "prepare", "commit" while nodes are asked
        self.answers: dict[NodeId, bool] = {}
        self.subscribers: dict[bytes, Link] = {}

    def view(self) -> GroupView:
        spec = self.spec
        return GroupView(
            spec.group_id, spec.name, spec.namespace, spec.strategy, self.state, spec.bundles, self.nodes, self.reason
        )

    def on(self, node_id: NodeId) -> list[int]:
        """The bundles that lie there."""
        return [index for index, where in enumerate(self.nodes) if where == node_id]


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
            view = placed[0].group
            group.state, group.nodes, group.reason = view.state, view.nodes, view.reason
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

    def take_back(self, key: bytes, kept: bytes | None) -> bool:
        """The disk refused a write: a group that was to be created is not. What has happened to others has."""
        group = self.groups.pop(GroupId(key), None) if kept is None else None
        if group is not None and group.spec.name:
            self.names.pop((group.spec.namespace, group.spec.name), None)
        return kept is None

    def _persist(self, group: Group) -> None:
        """With its places, once it has them: its bundles stay where they are when the GCS begins anew."""
        record: list[tuple[Any, ...]] = [group.spec]
        if group.state != "PENDING":
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
        placed = self._place(spec.bundles, spec.strategy, self._nodes(), spec.label_selectors, group.nodes)
        if isinstance(placed, str):
            if group.reason != placed:
                group.reason = placed
                self._publish(group)
            return
        group.tried = {index: placed[index] for index in group.on(NOWHERE)}
        group.attempt += 1
        self._ask(group, "prepare")

    @staticmethod
    def _by_node(tried: dict[int, NodeId]) -> dict[NodeId, list[int]]:
        by_node: dict[NodeId, list[int]] = {}
        for index, node_id in tried.items():
            by_node.setdefault(node_id, []).append(index)
        return by_node

    def _ask(self, group: Group, phase: str) -> None:
        group.phase = phase
        group.answers = {}
        for node_id, indexes in self._by_node(group.tried).items():
            message: Any
            if phase == "prepare":
                bundles = tuple((index, group.spec.bundles[index]) for index in indexes)
                message = messages.PrepareBundles(0, group.spec.group_id, group.attempt, bundles)
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
        if len(group.answers) < len(set(group.tried.values())):
            return
        if group.phase == "prepare":
            self._ask(group, "commit")
            return
        group.nodes = tuple(group.tried.get(index, node_id) for index, node_id in enumerate(group.nodes))
        group.tried, group.phase = {}, ""
        group.state = "CREATED"
        group.reason = ""
        self._persist(group)
        self._publish(group)
        self._on_changed()

    def _give_up(self, group: Group, reason: str) -> None:
        """Some node could not: all that were asked give back, and it is tried again."""
        group.reason = f"could not be placed: {reason}"
        self._stop_trying(group)
        self._retry_later()

    def _stop_trying(self, group: Group) -> None:
        tried, group.tried, group.phase = group.tried, {}, ""
        for node_id, indexes in self._by_node(tried).items():
            self._port.to_node(node_id, messages.ReleaseBundles(0, group.spec.group_id, tuple(indexes)))

    # -- ending --------------------------------------------------------------------------------------------------------
    def remove(self, link: Link | None, message: messages.GroupRemove) -> None:
        group = self.groups.pop(message.group_id, None)
        if group is not None:
            for node_id in dict.fromkeys([*group.nodes, *group.tried.values()]):
                if node_id != NOWHERE:
                    self._port.to_node(node_id, messages.ReleaseBundles(0, message.group_id, ()))
            group.nodes, group.tried = (NOWHERE,) * len(group.nodes), {}
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
            if node_id in group.tried.values():
                self._give_up(group, "a node was lost")
            self._lose(group, group.on(node_id), "a node with its bundles was lost")
        self._retry_later()

    def _lose(self, group: Group, indexes: list[int], reason: str) -> None:
        """These bundles lie nowhere any more. The others stay, and so does what runs in them."""
        if indexes:
            self._stop_trying(group)  # with those that are lost now there is a better place for all, perhaps
            group.nodes = tuple(NOWHERE if index in indexes else where for index, where in enumerate(group.nodes))
            group.state, group.reason = "RESCHEDULING", reason
            self._persist(group)
            self._publish(group)
            self._retry_later()

    def homes(self) -> dict[NodeId, None]:
        """The nodes that bundles lie on."""
        return {where: None for group in self.groups.values() for where in group.nodes if where != NOWHERE}

    def reconcile(self, link: Link, node_id: NodeId, held: tuple[tuple[GroupId, tuple[int, ...]], ...]) -> None:
        """A node says which bundles it holds: those that are not known to lie there are given back."""
        holds = dict(held)
        for group in self.groups.values():
            if node_id in group.tried.values():
                self._give_up(group, "a node and the GCS could not talk")
            kept = holds.get(group.spec.group_id, ())
            self._lose(group, [i for i in group.on(node_id) if i not in kept], "a node has let go of its bundles")
        for group_id, indexes in held:
            known = self.groups.get(group_id)
            strange = indexes if known is None else tuple(i for i in indexes if known.nodes[i] != node_id)
            if strange:
                self._port.send(link, messages.ReleaseBundles(0, group_id, () if known is None else strange))

    # -- asking --------------------------------------------------------------------------------------------------------
    def bundle_node(self, group_id: GroupId, index: int) -> NodeId | str | None:
        """The node of a bundle (-1: of any); a reason if it isn't placed; None if there is no such group."""
        group = self.groups.get(group_id)
        return None if group is None else bundle_node(group.view(), index)

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
            assert len(group.nodes) == len(group.spec.bundles), "a place for each bundle, or nowhere"
            assert (group.state == "CREATED") == (NOWHERE not in group.nodes), "created but not placed, or the reverse"
            assert group.phase or not group.tried, "bundles on their way, and nobody is asked"
            assert all(group.nodes[index] == NOWHERE for index in group.tried), "a bundle is placed that has a place"
