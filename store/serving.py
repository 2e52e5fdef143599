"""Who copies objects from this node: how many at a time, and where the others are sent.

Theory of operation
-------------------
A node serves one object to at most ``limits.pull_children_max`` others at a time. Whoever comes then is redirected to
a node that came before it: one that has the object by now, or one that is still getting it and hands on each chunk as
it arrives. So one object reaches many nodes over a tree that grows as they come, and no node sends more than a few
copies at a time.

A node is only sent to those that came *before* it, or have the object whole: so nobody waits for somebody who waits
for him. Where that order was broken by losses the puller's patience ends, it names whom to avoid, and with nobody left
to send it to it is served here, busy or not.

Who may be wrong: the object may be freed or fail to arrive here (all that are served are refused, and ask elsewhere).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from actorlib.transport import limits
from actorlib.transport.ids import NodeId, ObjectId
from actorlib.transport.link import Address
from actorlib.transport.messages import (
    Chunk,
    ChunkWanted,
    Payload,
    PullAccepted,
    PullClosed,
    PullOpen,
    PullRedirected,
    PullRefused,
    Value,
)

NAMED_MAX = 3


class Port(Protocol):
    """What serving asks of its node."""

    def send(self, node: Address, message: tuple[Any, ...]) -> None: ...

    def open(self, object_id: ObjectId, place: Value) -> tuple[int, int] | str | None:
        """Keep the object readable from here on; ``place`` is where the puller has heard that it lies.

        Gives (size, stamp), or the reason why it can't be read; None: it is expected here, and nothing has come yet.
        """

    def covers(self, object_id: ObjectId, offset: int, length: int) -> bool | None:
        """Whether those bytes are here already; None: they never will be."""

    def payload(self, object_id: ObjectId, offset: int, length: int) -> Payload: ...

    def close(self, object_id: ObjectId) -> None: ...


class Child:
    """A node that has asked for the object."""

    __slots__ = ("active", "address", "complete", "directed", "parked", "unanswered")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.active = False
        self.complete = False
        self.directed = 0  # how many others were sent to it
        self.unanswered: PullOpen | None = None  # it has asked for what is only expected here
        self.parked: dict[int, int] = {}  # chunks that it wants and that are not here yet


class Served:
    """One object and who has asked for it, in the order they came."""

    __slots__ = ("children", "stamp")

    def __init__(self) -> None:
        self.children: dict[NodeId, Child] = {}
        self.stamp = 0

    def active(self) -> list[Child]:
        return [child for child in self.children.values() if child.active]


class Serving:
    """All objects that others copy from here. See the module's docstring."""

    def __init__(self, port: Port) -> None:
        self.objects: dict[ObjectId, Served] = {}
        self._port = port

    def opened(self, puller: Address, message: PullOpen) -> None:
        object_id = message.object_id
        served = self.objects.get(object_id)
        if served is None:
            served = self.objects[object_id] = Served()
            self._bound()
        child = served.children.setdefault(puller.node_id, Child(puller))
        child.active = child.complete = False
        child.unanswered = None
        child.parked.clear()
        if len(served.active()) >= limits.pull_children_max:
            others = self._others(served, child, message.avoid)
            if others:
                others[0].directed += 1
                named = tuple(other.address for other in others[:NAMED_MAX])
                self._port.send(puller, PullRedirected(object_id, named))
                return
        child.active = True
        self._accept(served, child, message)

    def _accept(self, served: Served, child: Child, message: PullOpen) -> None:
        object_id = message.object_id
        readable = self._port.open(object_id, message.place)
        child.unanswered = message if readable is None else None
        if readable is None:
            return
        if isinstance(readable, str):
            self._end(object_id, readable)
            return
        size, served.stamp = readable
        whole = tuple(
            c.address for c in served.children.values() if c.complete and c.address.node_id not in message.avoid
        )
        self._port.send(child.address, PullAccepted(object_id, size, served.stamp, whole[:NAMED_MAX]))

    @staticmethod
    def _others(served: Served, child: Child, avoid: Iterable[NodeId]) -> list[Child]:
        """Whom a node may be sent to, the least burdened first."""
        found, is_before = [], True
        for node_id, other in served.children.items():
            if other is child:
                is_before = False
            elif (is_before or other.complete) and node_id not in avoid:
                found.append(other)
        return sorted(found, key=lambda other: other.directed)

    def _bound(self) -> None:
        if len(self.objects) > limits.served_objects_max:
            idle = next((oid for oid, served in self.objects.items() if not served.active()), None)
            if idle is not None:
                del self.objects[idle]

    def _child(self, puller: Address, object_id: ObjectId) -> Child | None:
        served = self.objects.get(object_id)
        return served.children.get(puller.node_id) if served is not None else None

    def wanted(self, puller: Address, message: ChunkWanted) -> None:
        child = self._child(puller, message.object_id)
        if child is None or not child.active:
            self._port.send(puller, PullRefused(message.object_id, "it is not being served"))
            return
        is_here = self._port.covers(message.object_id, message.offset, message.length)
        if is_here is None:
            self._port.send(puller, PullRefused(message.object_id, "there is no such chunk"))
        elif is_here:
            self._send(child, message.object_id, message.offset, message.length)
        else:
            child.parked[message.offset] = message.length

    def _send(self, child: Child, object_id: ObjectId, offset: int, length: int) -> None:
        data = self._port.payload(object_id, offset, length)
        self._port.send(child.address, Chunk(object_id, self.objects[object_id].stamp, offset, data))

    def closed(self, puller: Address, message: PullClosed) -> None:
        served = self.objects.get(message.object_id)
        child = self._child(puller, message.object_id)
        if served is None or child is None:
            return
        if message.complete:
            child.active, child.complete = False, True
            child.parked.clear()
        else:
            del served.children[puller.node_id]
        self._close_if_idle(message.object_id, served)

    def _close_if_idle(self, object_id: ObjectId, served: Served) -> None:
        if not served.active():
            self._port.close(object_id)
        if not served.children:
            del self.objects[object_id]

    # -- what happens to the object here -------------------------------------------------------------------------------
    def arrived(self, object_id: ObjectId, offset: int) -> None:
        """A chunk of an object that is still on its way here: hand it on."""
        served = self.objects.get(object_id)
        if served is not None:
            for child in served.active():
                if child.unanswered is not None:
                    self._accept(served, child, child.unanswered)
                length = child.parked.pop(offset, None)
                if length is not None and self.objects.get(object_id) is served:
                    self._send(child, object_id, offset, length)

    def gone(self, object_id: ObjectId, reason: str) -> None:
        """It was freed here, or does not arrive after all."""
        self._end(object_id, reason)

    def _end(self, object_id: ObjectId, reason: str) -> None:
        served = self.objects.pop(object_id, None)
        if served is not None:
            for child in served.active():
                self._port.send(child.address, PullRefused(object_id, reason))
            self._port.close(object_id)

    def node_lost(self, node_id: NodeId) -> None:
        for object_id, served in list(self.objects.items()):
            if served.children.pop(node_id, None) is not None:
                self._close_if_idle(object_id, served)

    def check(self) -> None:
        for object_id, served in self.objects.items():
            assert served.children, f"{object_id.hex()} is served to nobody"
            for child in served.children.values():
                assert not (child.active and child.complete), "served although it has it all"
                assert child.active or not child.parked, "chunks kept for somebody who is not served"
