"""The one place that makes ZeroMQ contexts and sockets, with the limits that each of them gets."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from actorlib.transport import limits
from actorlib.transport.endpoint import Endpoint, parse
from actorlib.transport.ids import ProcessId

if TYPE_CHECKING:  # only who is on TCP pays for importing it
    from actorlib.transport.drivers.access import Access

CLOSE_LINGER_MS = 200


class Sockets:
    """The two sockets of a process: the inbox, which binds, and the outbox, which connects to every peer.

    Two, because a ROUTER that both binds and connects under mutual ids loses messages in silence when both sides dial.
    With ``access``, whatever of it is on TCP is CURVE; local sockets are as they are without. ``endpoint`` afterwards
    says where the inbox was bound indeed, and with which key (see ``transport/endpoint.py``).
    """

    def __init__(self, process_id: ProcessId, endpoint: str, access: Access | None = None) -> None:
        self.context = zmq.Context(io_threads=1)
        self.context.set(zmq.MAX_SOCKETS, 64)
        self._access = access
        if access is not None:
            access.open(self.context)
        self.inbox = self._router(process_id)
        # A peer that comes back takes its name over, also from a connection that we don't know to be broken yet.
        self.inbox.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.outbox = self._router(process_id)
        self.endpoint = ""
        try:
            self.endpoint = self._bind(endpoint)
        finally:
            if not self.endpoint:
                self.close(linger_ms=0)

    def _router(self, process_id: ProcessId) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.ROUTING_ID, process_id)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.LINGER, CLOSE_LINGER_MS)
        socket.setsockopt(zmq.MAXMSGSIZE, limits.frame_bytes_max)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
        # Sessions bound what is in flight; a high-water mark below would drop or block behind their back.
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        return socket

    def _bind(self, endpoint: str) -> str:
        """The local socket first: what CURVE sets on the inbox holds for what is bound from then on."""
        local, remote, _ = parse(endpoint)
        if local.startswith("tcp://") or (remote and self._access is None):
            raise ValueError(f"{endpoint} is on TCP, and nothing is without keys")
        if local:
            local = self._bind_local(local)
        if self._access is None or not remote:
            return local
        self._access.bind(self.inbox, remote)
        return str(Endpoint(local, self.inbox.getsockopt_string(zmq.LAST_ENDPOINT), self._access.public_key()))

    def _bind_local(self, endpoint: str) -> str:
        if endpoint.startswith("ipc://"):
            directory = Path(endpoint[len("ipc://") :]).parent
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.inbox.bind(endpoint)
        return self.inbox.getsockopt_string(zmq.LAST_ENDPOINT)

    def connect(self, name: bytes, endpoint: str, server_key: str = "") -> None:
        """Dial one way to a peer; what is sent under ``name`` goes there. Over TCP it must prove ``server_key``.

        A name is used once: libzmq aborts the process when a name is given to a second connection, and the first goes
        on for a moment after it was disconnected.

        Raises:
            AccessError: The endpoint is on TCP, and ``access`` does not know its owner's key.
        """
        if self._access is not None:
            self._access.prepare_connect(self.outbox, endpoint, server_key)
        self.outbox.setsockopt(zmq.CONNECT_ROUTING_ID, name)
        self.outbox.connect(endpoint)

    def disconnect(self, endpoint: str) -> None:
        """Let go of a peer at once, also of what is queued for it.

        A connection that lingered would go on dialling, and when the peer is back under the same endpoint it would take
        our name over there from the connection that we have made since.
        """
        self.outbox.setsockopt(zmq.LINGER, 0)
        try:
            self.outbox.disconnect(endpoint)
        except zmq.ZMQError as error:
            if error.errno not in (errno.ENOTCONN, errno.ENOENT):  # it was gone already
                raise
        finally:
            self.outbox.setsockopt(zmq.LINGER, CLOSE_LINGER_MS)

    def close(self, linger_ms: int = CLOSE_LINGER_MS) -> None:
        if self._access is not None:
            self._access.release()
        self.inbox.close(linger=linger_ms)
        self.outbox.close(linger=linger_ms)
        if self._access is not None:
            self._access.close()
        self.context.term()
        local = parse(self.endpoint).local
        if local.startswith("ipc://"):
            path = local[len("ipc://") :]
            with contextlib.suppress(FileNotFoundError):  # a node may be removing the directory of a driver that leaves
                os.unlink(path)
