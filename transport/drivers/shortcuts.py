"""Shortcuts: the short way between two processes of one node.

A batch over ZeroMQ passes an IO thread at either end: two more threads to wake than there are processes. A *shortcut*
is a Unix socket (SEQPACKET: messages keep their bounds) that the thread which drives the loop writes and reads itself.
It is a way and no more: what is too large for it, or finds it full, goes over ZeroMQ as before, and the sessions put
both in order; what is lost with a shortcut that breaks is sent again by them. So it may be missing, and nothing needs
it.

Whoever dialled a link opens its shortcut, once batches have gone both ways on it, beside the socket that the peer's
inbox binds; it says which link is meant, and uses the shortcut when the peer has said yes. The peer believes it
because the kernel tells whose connection it is: the process that has said Hello on that link, of the same user. There
are no shortcuts between nodes, also not between nodes of one machine.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
from typing import Protocol

from actorlib.transport import limits
from actorlib.transport.drivers.link_layer import SocketLink
from actorlib.transport.ids import ProcessId
from actorlib.transport.link import Link

SUFFIX = ".short"
IPC = "ipc://"
ACCEPTED = b"yes"
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
BACKLOG = 64
NONCE_BYTES = 4


class Links(Protocol):
    """Who knows the links: the loop."""

    def accepted_link(self, process_id: ProcessId) -> Link | None: ...


class Shortcut:
    """One end. ``link`` is None until the other end has said which one it is of."""

    __slots__ = ("fd", "is_open", "link", "receive", "send", "socket")

    def __init__(self, connection: socket.socket, link: SocketLink | None) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.fd = connection.fileno()
        self.send = connection.send
        self.receive = connection.recv_into
        self.link = link
        self.is_open = False  # both ends use it


class Shortcuts:
    """All shortcuts of a process. Called by whoever holds the loop; their descriptors are in the loop's ``epoll``."""

    def __init__(self, links: Links, process_id: ProcessId, endpoint: str, epoll: select.epoll) -> None:
        self._links = links
        self._process_id = process_id
        self._epoll = epoll
        self._path = endpoint.removeprefix(IPC) + SUFFIX if endpoint.startswith(IPC) else ""
        self._shortcuts: dict[int, Shortcut] = {}
        # One place to receive into: allocating that much for each packet takes longer than copying a small one. As a
        # mapping it takes up no more than the largest packet that has come.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._packet = memoryview(mmap.mmap(-1, limits.shortcut_packet_bytes_max, flags))
        self._listener = self._listen() if self._path else None
        self.listener_fd = self._listener.fileno() if self._listener is not None else -1

    def _listen(self) -> socket.socket | None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            listener.bind(self._path)
            listener.listen(BACKLOG)
        except OSError:  # the path is too long, or the file system has no sockets: then there are no shortcuts
            listener.close()
            return None
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        return listener

    def __contains__(self, fd: int) -> bool:
        return fd in self._shortcuts

    # -- the end that dials --------------------------------------------------------------------------------------------
    def open(self, link: SocketLink, endpoint: str) -> None:
        """Try to have a shortcut for a link that we have dialled."""
        if not endpoint.startswith(IPC) or len(self._shortcuts) >= limits.shortcuts_max:
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            connection.connect(endpoint.removeprefix(IPC) + SUFFIX)
            connection.send(self._process_id + link.session.nonce.to_bytes(NONCE_BYTES, "little"))
        except OSError:  # the peer has no shortcuts, or no room for one
            connection.close()
            return
        self._add(Shortcut(connection, link))

    # -- the end that is dialled ---------------------------------------------------------------------------------------
    def accept(self) -> None:
        """Take in those who knock. Which link each of them means is in its first packet."""
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if len(self._shortcuts) >= limits.shortcuts_max:
                connection.close()
            else:
                self._add(Shortcut(connection, None))

    def _admit(self, shortcut: Shortcut, name: bytes) -> None:
        """The first packet has come: is it the process that has dialled that link, and in its present session?"""
        link = self._links.accepted_link(ProcessId(name[:-NONCE_BYTES]))
        nonce = int.from_bytes(name[-NONCE_BYTES:], "little")
        if not isinstance(link, SocketLink) or link.shortcut is not None or not _is_of(shortcut.socket, link, nonce):
            self.close(shortcut)
            return
        shortcut.link = link
        self._use(shortcut)
        with contextlib.suppress(OSError):
            shortcut.send(ACCEPTED)

    # -- both ----------------------------------------------------------------------------------------------------------
    def _add(self, shortcut: Shortcut) -> None:
        self._shortcuts[shortcut.fd] = shortcut
        self._epoll.register(shortcut.fd, select.EPOLLIN)

    def _use(self, shortcut: Shortcut) -> None:
        shortcut.is_open = True
        if shortcut.link is not None:
            shortcut.link.shortcut = shortcut

    def take(self, fd: int) -> tuple[SocketLink, bytes] | None:
        """The next packet of a shortcut that is readable, with its link; None: there is none for a link.

        One at a time: what is left makes the shortcut readable again, and asking until it is empty costs an exception.
        """
        shortcut = self._shortcuts.get(fd)
        if shortcut is None:
            return None  # closed, for something that came just before
        try:
            packet = bytes(self._packet[: shortcut.receive(self._packet)])
        except BlockingIOError:
            return None
        except OSError:
            packet = b""
        if not packet:
            self.close(shortcut)
        elif shortcut.link is None:
            self._admit(shortcut, packet)
        elif shortcut.is_open:
            return shortcut.link, packet
        else:
            self._use(shortcut)  # they have said yes
        return None

    def close(self, shortcut: Shortcut) -> None:
        """What was on its way in it is sent again by the session, if that goes on."""
        if self._shortcuts.pop(shortcut.fd, None) is None:
            return
        self._epoll.unregister(shortcut.fd)
        shortcut.socket.close()
        if shortcut.link is not None and shortcut.link.shortcut is shortcut:
            shortcut.link.shortcut = None

    def link_ended(self, link: SocketLink) -> None:
        for shortcut in [shortcut for shortcut in self._shortcuts.values() if shortcut.link is link]:
            self.close(shortcut)

    def close_all(self) -> None:
        for shortcut in list(self._shortcuts.values()):
            self.close(shortcut)
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(FileNotFoundError):  # a node may be removing the directory of a driver that leaves
                os.unlink(self._path)


def _is_of(connection: socket.socket, link: SocketLink, nonce: int) -> bool:
    """Whether the kernel says that a connection is of the process that has said Hello on a link."""
    if link.hello is None or link.sender is not None or link.session.nonce != nonce:
        return False
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, _ = CREDENTIALS.unpack(credentials)
    return bool(pid == link.hello.os_pid) and uid == os.getuid()
