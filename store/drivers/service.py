"""The node's store as a service: grants slabs, notes what lies in them, spills and restores."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from actorlib.store.catalog import Catalog, Place, StoreFull
from actorlib.store.drivers.files import SPILL_HEADER, StoreFiles, TornSpill
from actorlib.store.drivers.shared_memory import ObjectMissing
from actorlib.store.drivers.transfer import Transfers
from actorlib.store.reports import ObjectReports
from actorlib.transport import limits, messages
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
        watch: Callable[[Address], None],
        is_lost: Callable[[NodeId], bool],
    ) -> None:
        self._host = host
        self._host_id = host_id
        self._node_address = node_address
        self._all_nodes = all_nodes
        self.files = self._make_files(directory, spill_directory)
        self.catalog = Catalog(capacity_bytes, spill_bytes_max, self.files)
        self._reports = ObjectReports()
        self._watch = watch
        self._is_lost = is_lost
        self._owners: dict[ObjectId, Address] = {}  # of objects that are being copied here
        self._forwarded: dict[int, tuple[Link, int]] = {}
        self._next_forward = 0
        self.transfers = Transfers(host, self.catalog, self.files, self._restore, node_address, self._copied)
        self.handlers: dict[type, Handler] = {
            **self.transfers.handlers,
            messages.CopiesFreed: self._on_copies_freed,
            messages.ObjectsClaimed: self._on_claimed,
            messages.CopyPromoted: lambda _, message: self.catalog.promoted(message.object_id),
            messages.CopyDemoted: lambda _, message: self.catalog.demoted(message.object_id),
            messages.ObjectKeep: self._on_keep,
            messages.SlabRequest: self._on_request,
            messages.SlabReturned: lambda _, message: self.catalog.returned(message.path),
            messages.ObjectsSealed: self._on_sealed,
            messages.ObjectsFreed: self._on_freed,
            messages.ObjectLocate: self._on_locate,
            messages.ObjectLocated: self._on_located,
        }

    def object_changes(self) -> tuple[tuple[Any, ...], ...]:
        """What the cluster's records of objects have not heard yet."""
        return self._reports.changes(self.catalog)

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
        self._look_for_orphans([object_id for object_id, *_ in message.entries])

    def _look_for_orphans(self, object_ids: list[ObjectId]) -> None:
        """What a worker was still writing when the owner died, or was on its way here: nobody will ever free it."""
        orphans = self.catalog.orphans(object_ids)
        if orphans:
            self._host.call_later(limits.orphan_claim_s, lambda: self._free_orphans(orphans))

    def _free_orphans(self, object_ids: list[ObjectId]) -> None:
        for object_id in self.catalog.orphans(object_ids):
            self.catalog.freed(object_id)
            self.transfers.freed(object_id)

    def _on_freed(self, link: Link, message: messages.ObjectsFreed) -> None:
        here = self._host.address.node_id
        if message.node_id in (here, b""):
            for object_id in message.object_ids:
                self.catalog.freed(object_id)
                self.transfers.freed(object_id)
        if message.node_id != here and link.peer.node_id == here:  # from one of our own processes: pass it on
            for address in self._nodes_of(message.node_id):
                self._host.link(address).send(message)

    def _nodes_of(self, node_id: NodeId) -> list[Address]:
        if node_id:
            address = self._node_address(node_id)
            return [address] if address is not None else []
        return [address for address in self._all_nodes() if address.node_id != self._host.address.node_id]

    def _on_claimed(self, _: Link, message: messages.ObjectsClaimed) -> None:
        if message.node_id != self._host.address.node_id:
            for address in self._nodes_of(message.node_id):
                self._host.link(address).send(message)
            return
        for object_id in message.object_ids:
            self.catalog.claimed(object_id, message.owner.process_id)
        self._watch(message.owner)

    def _on_copies_freed(self, _: Link, message: messages.CopiesFreed) -> None:
        for object_id in message.object_ids:
            self.catalog.free_copy(object_id)
            self.transfers.freed(object_id)

    def _on_locate(self, link: Link, message: messages.ObjectLocate) -> None:
        value = self._find(message.object_id)
        if value is not None:
            self._answer(link, message, value)
        elif type(message.value) is not tuple or message.value[0] != VALUE_STORED:
            self._answer(link, message, None)
        elif message.value[5] == self._host_id:
            self._ask_its_node(link, message)
        else:
            self._fetch(link, message)

    def _on_keep(self, link: Link, message: messages.ObjectKeep) -> None:
        """Where it lies now it can't stay: copy it here, also from another node of this host."""
        request_id, object_id, value, owner = message
        wanted = messages.ObjectLocate(request_id, object_id, value, owner, False)
        found = self._find(object_id)
        if found is not None:
            self._answer(link, wanted, found)
        else:
            self._fetch(link, wanted)

    def kept_for_others(self, ours: Collection[ProcessId]) -> dict[ProcessId, list[ObjectId]]:
        """See ``Catalog``."""
        return self.catalog.kept_for_others(ours)

    @staticmethod
    def _answer(link: Link, message: messages.ObjectLocate, value: Value) -> None:
        if message.request_id:
            link.send(messages.ObjectLocated(message.request_id, value))

    def _find(self, object_id: ObjectId) -> Value:
        """Where it lies here; None: it does not."""
        place = self.catalog.find(object_id)
        if place is None:
            return None
        try:
            return self._value_of(object_id, place)
        except TornSpill:
            self.catalog.freed(object_id)
            return None

    # -- between hosts -------------------------------------------------------------------------------------------------
    def _fetch(
        self, link: Link, message: messages.ObjectLocate, tries_left: int = limits.unknown_node_tries_max
    ) -> None:
        """It lies on another machine: copy it here, as soon as we have heard of that machine."""
        object_id, node_id = message.object_id, message.value[1]
        if self._node_address(node_id) is None and not self._is_lost(node_id) and tries_left > 0:
            again = lambda: self._fetch(link, message, tries_left - 1)  # noqa: E731
            self._host.call_later(limits.node_report_period_s, again)
            return
        self._owners[object_id] = message.owner

        def done(reason: str, is_full: bool) -> None:
            self._owners.pop(object_id, None)
            if is_full and message.request_id:
                link.send(messages.Failure(message.request_id, "ObjectStoreFullError", reason))
            else:
                self._answer(link, message, None if reason else self._find(object_id))

        self.transfers.fetch(object_id, message.value, message.urgent, done)

    def _copied(self, object_id: ObjectId) -> None:
        """A copy lies here now: its owner must know, to free it and to fall back on it; and we of its owner's end."""
        owner = self._owners.pop(object_id)
        self.catalog.claimed(object_id, owner.process_id)
        self._look_for_orphans([object_id])
        self._watch(owner)
        self._host.link(owner).send(messages.ObjectCopied(object_id, self._find(object_id)))

    def _restore(self, object_id: ObjectId) -> tuple[str, int, int]:
        value = self._find(object_id)
        if value is None:
            raise ObjectMissing("its spill file is damaged")
        return value[2], value[3], value[4]

    # -- between nodes of one host -------------------------------------------------------------------------------------
    def _ask_its_node(self, link: Link, message: messages.ObjectLocate) -> None:
        """The node that the value names may have spilled or moved it."""
        address = self._node_address(message.value[1])
        if address is None or address.process_id in (self._host.address.process_id, link.peer.process_id):
            self._answer(link, message, None)
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
        """An owner: its objects go. Another node: nothing comes from it any more."""
        for object_id in self.catalog.owned_by(process_id):
            self.transfers.freed(object_id)
        self.transfers.node_lost(NodeId(process_id))
        self.catalog.process_died(process_id)

    def usage(self) -> dict[str, int]:
        return self.catalog.usage()

    def check(self) -> None:
        self.catalog.check()
        self.transfers.check()

    def close(self) -> None:
        self.files.close()
