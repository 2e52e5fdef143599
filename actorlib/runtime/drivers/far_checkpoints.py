"""Checkpoints that lie on another node's disk: brought here when the actor comes to life here.

Checkpoints too large for the GCS lie in files of the node that took them, unless a store for all was named. When the
actor moves, its next worker brings these files to its own node (the same bytes under a second name where both nodes
share a disk, else in parts over the network), begins from them, and once it serves has them made durable and the GCS
told where they lie now. Then the other node may go.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

from actorlib import exceptions
from actorlib.runtime import checkpoint
from actorlib.runtime.checkpoint import Place, TornCheckpoint
from actorlib.runtime.drivers.checkpoint_store import DirectoryStore, chunk_file
from actorlib.runtime.drivers.execution import Execution
from actorlib.transport import limits, messages
from actorlib.transport.ids import NodeId
from actorlib.transport.link import Address
from actorlib.transport.messages import ActorSpec


class Brought:
    """A checkpoint whose files were brought here, and that the GCS still knows elsewhere."""

    def __init__(self, store: DirectoryStore, number: int, record: bytes, source: NodeId) -> None:
        self.store = store
        self.number = number
        self.record = record
        self.source = source


class FarCheckpoints(Execution):
    """The worker's side."""

    spec: ActorSpec | None
    incarnation: int
    checkpoint_options: dict[str, Any]
    _number: int
    _brought: Brought | None = None

    def own_store_url(self) -> str:
        """The directory for checkpoints on this node."""
        raise NotImplementedError

    def bring_here(self, record: bytes, number: int) -> bytes:
        """The record of a checkpoint whose files can be read here. Raises TornCheckpoint."""
        place = checkpoint.place_of(record)
        if place is None or not place.node_id or place.node_id == self.node.node_id:
            return record
        url = self.own_store_url()
        store = DirectoryStore(os.path.abspath(url), is_synced=False)
        folder = place.file.rpartition("/")[0]
        try:
            self._bring(store, place, place.file)
            for name in checkpoint.chunks_of(bytes(store.read(place.file))):
                if not store.exists(chunk_file(folder, name)):
                    self._bring(store, place, chunk_file(folder, name))
        except (OSError, exceptions.ActorlibError) as error:
            raise TornCheckpoint(f"{place.file} can't be had from node {place.node_id.hex()[:8]}: {error}") from error
        here = checkpoint.moved(record, url, self.node.node_id)
        self._brought = Brought(store, number, here, NodeId(place.node_id))
        return here

    def _bring(self, store: DirectoryStore, place: Place, name: str) -> None:
        try:
            store.take(os.path.join(place.url, name), name)
        except FileNotFoundError:
            self._fetch_file(store, NodeId(place.node_id), name)

    def _node_address(self, node_id: NodeId) -> Address | None:
        views = self.ask(self.gcs, messages.NodesList).nodes
        return next((view.address for view in views if view.address.node_id == node_id and view.alive), None)

    def _fetch_file(self, store: DirectoryStore, node_id: NodeId, name: str) -> None:
        """In parts. Raises FileNotFoundError if that node, or the file, is not there."""
        address = self._node_address(node_id)
        if address is None:
            raise FileNotFoundError("that node is not alive")
        data = bytearray()
        while True:
            part = self.ask(address, self._wants(name, len(data)), limits.log_fetch_timeout_s)
            if part.size < 0:
                raise FileNotFoundError("it is not there")
            data += part.data
            if len(data) >= part.size or not len(part.data):
                break
        store.write(name, data)

    @staticmethod
    def _wants(name: str, offset: int) -> Callable[[int], messages.StoredRead]:
        return lambda request_id: messages.StoredRead(request_id, name, offset)

    # -- once it serves ------------------------------------------------------------------------------------------------
    def keep_brought(self) -> None:
        """Have what was brought made durable, beside the calls that run already, and tell where it lies now."""
        brought = self._brought
        if brought is None:
            return

        def sync() -> None:
            with contextlib.suppress(OSError):  # then the GCS goes on knowing it where it was
                brought.store.sync()
                self.loop.post(self._tell_where, brought)

        threading.Thread(target=sync, name="actorlib-checkpoint", daemon=True).start()

    def _tell_where(self, brought: Brought) -> None:
        assert self.spec is not None
        actor_id = self.spec.actor_id

        def kept(answer: Any) -> None:
            if type(answer) is not messages.Failure:
                self._tell_source(brought)

        if self._number != brought.number:  # a later checkpoint is under way
            self._tell_source(brought)
            return
        request_id = self.ids.request_id()
        self._answers[request_id] = kept
        keep = self.checkpoint_options.get("keep", 2)
        put = messages.CheckpointPut(request_id, actor_id, self.incarnation, brought.number, brought.record, keep)
        self.to_gcs(put)

    def _tell_source(self, brought: Brought) -> None:
        """The node that had it may go."""
        assert self.spec is not None
        actor_id = self.spec.actor_id
        self._brought = None

        def known(answer: Any) -> None:
            for view in getattr(answer, "nodes", ()):
                if view.address.node_id == brought.source and view.alive:
                    self.link(view.address).send(messages.CheckpointTaken(actor_id))

        self.ask_gcs(messages.NodesList, known)
