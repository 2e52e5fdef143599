"""The GCS as a process of its own: under ``actorlib start --head``, forked by its keeper and forked anew when it ends.

Its process id and its endpoints stay the same from one life to the next, so that whoever was told of it finds it again;
``boot`` counts its lives, and tells one from the other.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

from actorlib.gcs.drivers.lmdb_journal import JournalFull, LmdbJournal, NewerFormat
from actorlib.gcs.drivers.service import GcsService
from actorlib.scheduler.placement import place_bundles
from actorlib.transport import limits, messages
from actorlib.transport.drivers.access import Access
from actorlib.transport.drivers.credentials import Credentials
from actorlib.transport.drivers.keys import AccessError
from actorlib.transport.drivers.loop import Loop
from actorlib.transport.drivers.processes import set_process_name
from actorlib.transport.ids import JobId, NodeId, ProcessId
from actorlib.transport.link import Address, Link


def python_version() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


class GcsProcess:
    """The GCS's service on a loop of its own. ``config`` is what ``GcsKeeper`` forks it with."""

    def __init__(self, config: dict[str, Any]) -> None:
        credentials = Credentials.load(config["credentials"])
        access, self.register = credentials.open()
        self.host_id = config["host_id"]
        self.journal = LmdbJournal(config["directory"], config["durable"])
        self.loop = self._make_loop(config, access)
        self.loop.begin_life(config["boot"])
        self.service = GcsService(self.loop, self.journal, place_bundles, JournalFull)
        self._signature: Any = None
        self._watched: dict[NodeId, None] = {}
        self.loop.handlers.update(self.service.handlers)
        self.loop.handlers.update(
            {
                messages.Join: self._on_join,
                messages.NodeRegister: self._on_register,
                messages.KeysChanged: self._on_keys_changed,
                **self.service.handlers_alone,
            }
        )
        self.loop.check = self.service.check
        self.service.begin()
        for node_id in list(self.service.nodes.awaited):
            self._watch_again(node_id)
        self._look_at_keys()

    def _make_loop(self, config: dict[str, Any], access: Access) -> Loop:
        address = Address(ProcessId(config["process_id"]), NodeId(config["node_id"]), config["endpoint"])
        version = messages.PROTOCOL_VERSION
        hello = messages.Hello(version, address, "gcs", os.getpid(), JobId(b""), python_version())
        trace_dir = config["trace_dir"]
        return Loop(address, hello, {}, self._on_link_down, trace_dir=trace_dir, access=access)

    def _on_link_down(self, link: Link, reason: str) -> None:
        self.service.link_down(link, reason)

    # -- joining -------------------------------------------------------------------------------------------------------
    def _on_join(self, link: Link, message: messages.Join) -> None:
        theirs = link.hello.python_version
        if theirs != python_version():
            text = f"this cluster runs Python {python_version()}, the node that asks to join {theirs}; use the same"
            link.send(messages.Failure(message.request_id, "VersionMismatch", text))
            return
        self._spread_keys()  # who is refused once does not ask again: the others have to know a new key before its use
        link.send(messages.Welcome(message.request_id, self.loop.address, self._rows()))

    def _on_register(self, link: Link, message: messages.NodeRegister) -> None:
        if link.hello.role != "node":
            link.send(messages.Failure(message.request_id, "PermissionError", f"a {link.hello.role} is no node"))
            return
        self.service.handlers[messages.NodeRegister](link, message)
        link.send(messages.KeysAllowed(self._rows()))
        if message.host_id == self.host_id:
            self._watch_node(message.address.node_id, message.os_pid)

    def _watch_again(self, node_id: NodeId) -> None:
        """A node from before: if it was on this machine, the kernel knows whether it still is."""
        host_id, os_pid = self.service.nodes.hosts[node_id]
        if host_id == self.host_id:
            self._watch_node(node_id, os_pid)

    def _watch_node(self, node_id: NodeId, os_pid: int) -> None:
        """A node on this machine: the kernel tells when its process ends."""
        if node_id in self._watched:
            return
        try:
            pidfd = os.pidfd_open(os_pid)
        except OSError:
            self.service.nodes.lost(node_id, f"its process {os_pid} is gone")
            return
        self._watched[node_id] = None

        def ended() -> None:
            self.loop.remove_reader(pidfd)
            os.close(pidfd)
            del self._watched[node_id]
            self.service.nodes.lost(node_id, f"its process {os_pid} ended")

        self.loop.add_reader(pidfd, ended)

    # -- keys ----------------------------------------------------------------------------------------------------------
    def _rows(self) -> tuple[tuple[Any, ...], ...]:
        return tuple(tuple(key) for key in self.register.keys.values())

    def _look_at_keys(self) -> None:
        self._spread_keys()
        self.loop.call_later(limits.heartbeat_period_s, self._look_at_keys)

    def _on_keys_changed(self, link: Link, message: messages.KeysChanged) -> None:
        self._spread_keys()
        link.send(messages.Done(message.request_id))

    def _spread_keys(self) -> None:
        """Look whether the register has changed; if so tell the nodes, which tell their processes."""
        try:
            self.register.refresh()
        except AccessError as error:
            print(f"actorlib: {error}", file=sys.stderr, flush=True)
            return
        rows = self._rows()
        if rows != self._signature:
            self._signature = rows
            for link in self.service.nodes.links.values():
                link.send(messages.KeysAllowed(rows))

    def serve(self) -> None:
        self.loop.serve_forever(lambda: False)


def main(config: dict[str, Any]) -> int:
    """A fresh fork of the keeper becomes the GCS. Gives the process's exit code; the reason is its last line."""
    set_process_name("gcs")
    gc.disable()  # everybody waits for the tables; what they hold stays, so the collector need not look at it again
    try:
        process = GcsProcess(config)
    except (NewerFormat, AccessError, OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    gc.freeze()
    gc.enable()
    process.serve()
    return 0
