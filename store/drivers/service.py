"""The node's store as a service: grants slabs, notes what lies in them, spills and restores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actorlib.store.catalog import Catalog, Place, StoreFull
from actorlib.store.drivers.files import SPILL_HEADER, StoreFiles, TornSpill
from actorlib.transport import messages
from actorlib.transport.ids import NodeId, ObjectId, ProcessId
from actorlib.transport.link import Address, Handler, Host, Link
from actorlib.transport.messages import VALUE_STORED, Value


class StoreService:
    """Answers what processes ask of their node's store."""

    def __init__(
        self,
        host: Host,
        directory: str,
        spill_directory: str,
        capacity_bytes: int,
        spill_bytes_max: int,
        host_id: str,
        node_address: Callable[[NodeId], Address | None],
        all_nodes: Callable[[], list[Address]],
    ) -> None:
        self._host = host
        self._host_id = host_id
        self._node_address = node_address
        self._all_nodes = all_nodes
        self.files = self._make_files(directory, spill_directory)
        self.catalog = Catalog(capacity_bytes, spill_bytes_max, self.files)
        self._forwarded: dict[int, tuple[Link, int]] = {}
        self._next_forward = 0
        self.handlers: dict[type, Handler] = {
            messages.SlabRequest: self._on_request,
            messages.SlabReturned: lambda _, message: self.catalog.returned(message.path),
            messages.ObjectsSealed: self._on_sealed,
            messages.ObjectsFreed: self._on_freed,
            messages.ObjectLocate: self._on_locate,
            messages.ObjectLocated: self._on_located,
        }

    def _make_files(self, directory: str, spill_directory: str) -> StoreFiles:
        return StoreFiles(directory, spill_directory)

    def _on_request(self, link: Link, message: messages.SlabRequest) -> None:
        try:
            granted = self.catalog.grant(link.peer.process_id, message.size)
        except StoreFull as full:
            link.send(messages.Failure(message.request_id, "ObjectStoreFullError", str(full)))
            return
        link.send(messages.SlabGranted(message.request_id, granted.path, granted.size))

    def _on_sealed(self, _: Link, message: messages.ObjectsSealed) -> None:
        for object_id, path, offset, size in message.entries:
            self.catalog.sealed(object_id, path, offset, size)

    def _on_freed(self, link: Link, message: messages.ObjectsFreed) -> None:
        here = self._host.address.node_id
        if message.node_id in (here, b""):
            for object_id in message.object_ids:
                self.catalog.freed(object_id)
        if message.node_id != here and link.peer.node_id == here:  # from one of our own processes: pass it on
            for address in self._nodes_of(message.node_id):
                self._host.link(address).send(message)

    def _nodes_of(self, node_id: NodeId) -> list[Address]:
        if node_id:
            address = self._node_address(node_id)
            return [address] if address is not None else []
        return [address for address in self._all_nodes() if address.node_id != self._host.address.node_id]

    def _on_locate(self, link: Link, message: messages.ObjectLocate) -> None:
        place = self.catalog.find(message.object_id)
        if place is None:
            self._ask_its_node(link, message)
            return
        try:
            value = self._value_of(message.object_id, place)
        except TornSpill:
            self.catalog.freed(message.object_id)
            link.send(messages.ObjectLocated(message.request_id, None))
        else:
            link.send(messages.ObjectLocated(message.request_id, value))

    def _ask_its_node(self, link: Link, message: messages.ObjectLocate) -> None:
        """It is not here: the node that the value names may have spilled or moved it."""
        value = message.value
        node_id = value[1] if type(value) is tuple and value[0] == VALUE_STORED else None
        address = self._node_address(node_id) if node_id is not None else None
        if address is None or address.process_id in (self._host.address.process_id, link.peer.process_id):
            link.send(messages.ObjectLocated(message.request_id, None))
            return
        self._next_forward += 1
        self._forwarded[self._next_forward] = (link, message.request_id)
        self._host.link(address).send(message._replace(request_id=self._next_forward))

    def _on_located(self, _: Link, message: messages.ObjectLocated) -> None:
        waiting = self._forwarded.pop(message.request_id, None)
        if waiting is not None:
            waiting[0].send(message._replace(request_id=waiting[1]))

    def _value_of(self, object_id: ObjectId, place: Place) -> Value:
        """Where the object lies now, after restoring it if it was spilled. Raises TornSpill."""
        node_id = self._host.address.node_id
        if place.spilled is not None:
            data = self.files.load_spilled(place.spilled)
            try:
                into = self.catalog.grant(self._host.address.process_id, len(data))
            except StoreFull:  # then it is read where it lies
                return (VALUE_STORED, node_id, place.spilled, SPILL_HEADER.size, place.size, self._host_id)
            self.files.write(into, data)
            self.catalog.restored(object_id, into, 0)
        assert place.slab is not None
        if not self.files.exists(place.slab):
            raise TornSpill(f"{place.slab.path} was removed by somebody else")
        return (VALUE_STORED, node_id, place.slab.path, place.offset, place.size, self._host_id)

    def process_died(self, process_id: ProcessId, _reason: Any) -> None:
        self.catalog.process_died(process_id)

    def usage(self) -> dict[str, int]:
        return self.catalog.usage()

    def close(self) -> None:
        self.files.close()
