"""A relay in front of a real process's socket: bytes pass later, not at all for a while, or the connection is cut.

It takes the place of the socket's path, and passes on to the socket under its new name. Who connects is known to the
kernel, so that each pair of nodes has a link of its own. Bytes are never lost out of the middle of a stream, as on any
stream; what is cut is dialled again, and sessions send again what was on its way.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Hashable

CHUNK = 1 << 20
BEHIND = "~"
LOOK_EVERY_S = 0.02


class LinkState:
    """How one pair of nodes is connected at the moment. Times are of ``time.monotonic``."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.delayed_until = 0.0
        self.cut_until = 0.0

    def wait_s(self, rng: random.Random) -> float:
        if time.monotonic() >= self.delayed_until:
            return 0.0
        return self.delay_s + (rng.expovariate(1.0 / self.jitter_s) if self.jitter_s else 0.0)

    @property
    def is_cut(self) -> bool:
        return time.monotonic() < self.cut_until


class Relay:
    """In front of one unix socket.

    Args:
        path: of the socket; it must be bound already.
        link_of: gives the link that a connecting process's pid belongs to.
        seed: of the delays.
    """

    def __init__(self, path: str, link_of: Callable[[int], LinkState], seed: Hashable) -> None:
        self._behind = path + BEHIND
        os.rename(path, self._behind)
        self._link_of = link_of
        self._rng = random.Random(f"relay {seed}")
        self._over = threading.Event()
        self._open: dict[LinkState, list[socket.socket]] = {}
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(128)
        self._listener.settimeout(LOOK_EVERY_S)
        self._threads = [threading.Thread(target=self._accept, name="actorlib-relay", daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                caller, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return  # closed
            link = self._link_of(peer_pid(caller))
            behind = socket.socket(socket.AF_UNIX)
            try:
                if link.is_cut:
                    raise ConnectionRefusedError
                behind.connect(self._behind)
            except OSError:
                caller.close()  # as if nobody were there: whoever called will call again
                behind.close()
                continue
            with self._lock:
                self._open.setdefault(link, []).extend((caller, behind))
            self._pump(link, caller, behind)
            self._pump(link, behind, caller)

    def _pump(self, link: LinkState, source: socket.socket, target: socket.socket) -> None:
        def work() -> None:
            with contextlib.suppress(OSError):  # the other direction has closed both ends
                while data := source.recv(CHUNK):
                    self._over.wait(link.wait_s(self._rng))
                    target.sendall(data)
            close_both(source, target)

        thread = threading.Thread(target=work, name="actorlib-relay-link", daemon=True)
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive() or not one.ident] + [thread]
        thread.start()

    def cut(self, link: LinkState) -> bool:
        """Close the connections of a link. Whether there was any."""
        with self._lock:
            sockets = self._open.pop(link, [])
        close_both(*sockets)
        return bool(sockets)

    def close(self) -> None:
        self._over.set()
        self._listener.close()
        for link in list(self._open):
            self.cut(link)
        for thread in list(self._threads):
            thread.join(5.0)


def close_both(*sockets: socket.socket) -> None:
    """Wake whoever reads or writes them, then close."""
    for one in sockets:
        with contextlib.suppress(OSError):  # not connected any more
            one.shutdown(socket.SHUT_RDWR)
        one.close()


def peer_pid(connection: socket.socket) -> int:
    """The process at the other end of a unix socket."""
    pid, _, _ = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)
