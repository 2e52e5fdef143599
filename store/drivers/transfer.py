"""Objects on their way between this node and others: carries out what ``pull.py`` and ``serving.py`` ask for.

Chunks are written straight to their place in a slab of this node as they come; to others they leave as frames that
point into the slab, which can't be used again as long as one of them is under way (its mapping holds the slab's lock).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from actorlib.store import slab
from actorlib.store.catalog import Catalog, Slab, StoreFull
from actorlib.store.drivers.shared_memory import ObjectMissing
from actorlib.store.pull import Pulls, Urgency
from actorlib.store.serving import Serving
from actorlib.transport import limits, messages
from actorlib.transport.codec import InPlace
from actorlib.transport.ids import NodeId, ObjectId
from actorlib.transport.link import Address, Handler, Host, Link
from actorlib.transport.messages import Payload, Value


class Reader(Protocol):
    """Who waits for an object."""

    def __call__(self, reason: str, is_full: bool) -> None:
        """``reason`` '': it is here now."""


class Arrival:
    """Memory that an object on its way here is written to."""

    __slots__ = ("offset", "sink", "size", "slab")

    def __init__(self, into: Slab, offset: int, size: int, sink: Any) -> None:
        self.slab = into
        self.offset = offset
        self.size = size
        self.sink = sink


class Transfers:
    """The pulls of a node, and what it serves. See the module's docstring."""

    def __init__(
        self,
        host: Host,
        catalog: Catalog,
        files: Any,
        restore: Callable[[ObjectId], tuple[str, int, int]],
        node_address: Callable[[NodeId], Address | None],
        arrived: Callable[[ObjectId], None],
    ) -> None:
        self._host = host
        self._catalog = catalog
        self._files = files
        self._restore = restore
        self._node_address = node_address
        self._arrived = arrived
        self.pulls = Pulls(host.address.node_id, self)
        self.serving = Serving(_ServingPort(self))
        self._readers: dict[ObjectId, list[Reader]] = {}
        self._arrivals: dict[ObjectId, Arrival] = {}
        self._open: dict[ObjectId, memoryview] = {}
        self._small: tuple[Slab, slab.Filler] | None = None  # where the next small object goes
        self._ticking = False
        self.pulled_bytes = 0
        m = messages
        self.handlers: dict[type, Handler] = {
            m.PullOpen: lambda link, message: self.serving.opened(link.peer, message),
            m.ChunkWanted: lambda link, message: self.serving.wanted(link.peer, message),
            m.PullClosed: lambda link, message: self.serving.closed(link.peer, message),
            m.PullAccepted: lambda link, message: self.pulls.accepted(self._now(), link.peer.node_id, message),
            m.PullRedirected: lambda link, message: self.pulls.redirected(self._now(), link.peer.node_id, message),
            m.PullRefused: lambda link, message: self.pulls.refused(self._now(), link.peer.node_id, message),
            m.Chunk: lambda link, message: self.pulls.chunk(self._now(), link.peer.node_id, message),
        }

    def _now(self) -> float:
        return self._host.now()

    # -- for the store -------------------------------------------------------------------------------------------------
    def fetch(self, object_id: ObjectId, place: Value, urgent: bool, reader: Reader | None) -> None:
        """Copy an object from the node that its value names, or whoever that names; ``reader`` hears how it went."""
        node_id = NodeId(place[1])
        address = self._node_address(node_id)
        if address is None and object_id not in self.pulls.pulls:
            if reader is not None:
                reader(f"node {node_id.hex()[:8]}, where it lay, is not alive", False)
            return
        if reader is not None:
            self._readers.setdefault(object_id, []).append(reader)
        nodes = [address] if address is not None else []
        self.pulls.want(self._now(), object_id, nodes, Urgency.GET if urgent else Urgency.PREFETCH, place)
        self._keep_ticking()

    def _keep_ticking(self) -> None:
        if not self._ticking and self.pulls.pulls:
            self._ticking = True
            self._host.call_later(limits.pull_tick_s, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        self.pulls.tick(self._now())
        self._keep_ticking()

    def freed(self, object_id: ObjectId) -> None:
        """Nobody can reach the object any more, or it is not to lie here."""
        reason = "it was freed"
        self.pulls.drop(object_id, reason)
        self.serving.gone(object_id, reason)

    def node_lost(self, node_id: NodeId) -> None:
        self.pulls.node_lost(self._now(), node_id)
        self.serving.node_lost(node_id)

    # -- pull.Port -----------------------------------------------------------------------------------------------------
    def send(self, node: Address, message: tuple[Any, ...]) -> None:
        self._host.link(node).send(message)

    def begin(self, object_id: ObjectId, size: int) -> str:
        try:
            into, offset = self._take(size)
        except StoreFull as full:
            return str(full)
        self._arrivals[object_id] = Arrival(into, offset, size, self._files.sink(into))
        return ""

    def _take(self, size: int) -> tuple[Slab, int]:
        """Room for an object. Small ones share slabs, as those do that processes write. Raises StoreFull."""
        is_small = slab.is_shared(slab.slab_bytes(size))
        if is_small and self._small is not None:
            into, filler = self._small
            offset = filler.take(size)
            if offset is not None:
                return into, offset
            self._small = None
            self._close_slab(into)
        into = self._catalog.grant(self._host.address.process_id, size)
        if not is_small:
            return into, 0
        filler = slab.Filler(into.size)
        self._small = (into, filler)
        offset = filler.take(size)
        assert offset is not None
        return into, offset

    def write(self, object_id: ObjectId, offset: int, data: Payload) -> None:
        arrival = self._arrivals[object_id]
        arrival.sink.write(arrival.offset + offset, data)
        self.pulled_bytes += len(data)
        self.serving.arrived(object_id, offset)

    def abandon(self, object_id: ObjectId) -> None:
        self.serving.gone(object_id, "it did not arrive where you took it from")
        self._end_arrival(object_id)

    def _end_arrival(self, object_id: ObjectId) -> Arrival:
        arrival = self._arrivals.pop(object_id)
        arrival.sink.close()
        self._close_slab(arrival.slab)
        return arrival

    def _close_slab(self, done: Slab) -> None:
        """Nothing is added to a slab any more once the next small object goes elsewhere and all in it have ended."""
        if self._small is not None and self._small[0] is done:
            return
        if not any(arrival.slab is done for arrival in self._arrivals.values()):
            self._catalog.returned(done.path)

    def complete(self, object_id: ObjectId) -> None:
        arrival = self._end_arrival(object_id)
        if object_id not in self._catalog.objects:  # else it was made here meanwhile
            self._catalog.copied(object_id, arrival.slab.path, arrival.offset, arrival.size)
            self._arrived(object_id)
        self._tell(object_id, "", False)

    def failed(self, object_id: ObjectId, reason: str, is_full: bool) -> None:
        self.serving.gone(object_id, reason)
        self._tell(object_id, reason, is_full)

    def _tell(self, object_id: ObjectId, reason: str, is_full: bool) -> None:
        for reader in self._readers.pop(object_id, ()):
            reader(reason, is_full)

    # -- what serving asks for -----------------------------------------------------------------------------------------
    def open(self, object_id: ObjectId, place: Value) -> tuple[int, int] | str | None:
        pull = self.pulls.filling(object_id)
        try:
            if pull is not None:
                arrival = self._arrivals[object_id]
                view = self._files.map(arrival.slab.path, arrival.offset, arrival.size)
                self._open[object_id] = view
                return pull.size, pull.stamp
            if object_id in self._catalog.objects:
                path, offset, size = self._restore(object_id)
            elif object_id in self.pulls.pulls:
                return None
            elif self._is_ours(place):  # written, and the writer's word that it is has not come yet
                path, offset, size = place[2], place[3], place[4]
            else:
                return f"it is not on node {self._host.address.node_id.hex()[:8]}"
            view = self._files.map(path, offset, size)
            stamp = slab.read_stamp(view, object_id)
        except (ObjectMissing, slab.CorruptObject) as error:
            return f"it can't be read on node {self._host.address.node_id.hex()[:8]}: {error}"
        self._open[object_id] = view
        return size, stamp

    def _is_ours(self, place: Value) -> bool:
        """Whether a value names a place in a slab of this node. What lies there is looked at before it is believed."""
        if type(place) is not tuple or len(place) != 6 or place[0] != messages.VALUE_STORED:
            return False
        return bool(place[1] == self._host.address.node_id and place[2] in self._catalog.by_path)

    def covers(self, object_id: ObjectId, offset: int, length: int) -> bool | None:
        view = self._open.get(object_id)
        if view is None or offset < 0 or not 0 < length <= limits.pull_chunk_bytes or offset + length > len(view):
            return None
        pull = self.pulls.filling(object_id)
        return pull is None or offset not in pull.missing

    def payload(self, object_id: ObjectId, offset: int, length: int) -> Payload:
        return InPlace(self._files.frame(self._open[object_id][offset : offset + length]))

    def close(self, object_id: ObjectId) -> None:
        self._open.pop(object_id, None)

    def answer(self, node: Address, message: tuple[Any, ...]) -> None:
        """To a node that has dialled us."""
        link: Link = self._host.accepted_link(node.process_id) or self._host.link(node)
        link.send(message)

    def check(self) -> None:
        self.pulls.check()
        self.serving.check()
        for object_id in self._arrivals:
            assert self.pulls.filling(object_id) is not None, f"memory is set aside for {object_id.hex()} for nothing"
        for object_id in self._open:
            assert object_id in self.serving.objects, f"{object_id.hex()} is kept readable for nobody"
        for object_id in self._readers:
            assert object_id in self.pulls.pulls, f"somebody waits for {object_id.hex()}, which nobody pulls"


class _ServingPort:
    """What ``Serving`` asks of the transfers: the same, but that its messages go to whoever has dialled."""

    def __init__(self, transfers: Transfers) -> None:
        self.send = transfers.answer
        self.open = transfers.open
        self.covers = transfers.covers
        self.payload = transfers.payload
        self.close = transfers.close
