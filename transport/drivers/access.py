"""Who may talk to us over TCP: keys, the handler that ZeroMQ asks about each of them, and what strangers can cost.

Everything on TCP is CURVE; every node and every driver has a key pair of its own (``drivers/keys.py``), so that one can
be revoked. Local sockets (``ipc://``) carry none of this: the 0700 directory that they lie in guards them.

* ``ZapHandler`` answers libzmq's question about each connection (RFC 27, ZAP), and denies by default.
* ``Access`` is what ``drivers/sockets.py`` is given: it puts CURVE on each TCP socket before it binds or connects.

Why a handler of our own: pyzmq's admits NULL clients on a socket that forgot CURVE, and CURVE without a handler admits
any key. Why a thread of its own: a handshake must be answered also while nobody drives the loop or a handler of the
loop takes long, and a third socket in the loop's poll would cost every turn a microsecond for what happens once a
connection. The thread sleeps in poll until somebody knocks.

If the handler is dead, nobody gets in: the domain is enforced, so libzmq refuses what it can't ask about.

Strangers. Before it has proved a key, a connection can make libzmq buffer one frame of up to MAXMSGSIZE (measured: 200
MiB sent, 200 MiB held, where the limit allowed it), for as long as HANDSHAKE_IVL. So both are set, far below what local
sockets have, and ``Handshakes`` bounds how many such connections there are at a time.

Revocation. libzmq has no call that ends one session of a socket that binds. So the TCP connections that may be the
revoked key's (those from the addresses that it was seen at) are shut down under libzmq: their peers dial again by
themselves, sessions go on where they were, and the revoked one meets the handler.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import socket as sockets
import struct
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import zmq
from zmq.utils import z85

from actorlib.transport import limits
from actorlib.transport.drivers.keys import KEY_BYTES, AccessError, Identity, KeyPair
from actorlib.transport.drivers.notice import notice
from actorlib.transport.newcomers import NotHeardOf

DOMAIN = b"actorlib"
ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
SHORT_BYTES_MAX = 255  # of a "short string" of ZAP's
ROLE_PROPERTY = "X-Role"
MONITOR_EVENT = struct.Struct("=HI")
_guard_numbers = itertools.count(1)


# -- asking about connections ------------------------------------------------------------------------------------------
def zap_reply(frames: list[bytes], identify: Callable[[bytes], Identity | None], domain: bytes = DOMAIN) -> list[bytes]:
    """The answer to one ZAP request, whatever it looks like: 200 for a known CURVE key in our domain, 400 otherwise.

    300 ("later") when ``identify`` can't tell (``NotHeardOf``) or fails: unlike 400, it lets the client try again.
    """
    request_id = frames[1] if len(frames) > 1 and len(frames[1]) <= SHORT_BYTES_MAX else b""

    def answer(code: bytes, text: str, identity: Identity | None = None) -> list[bytes]:
        name, properties = b"", b""
        if identity is not None:
            name, role = identity.name.encode(), identity.role.encode()
            properties = bytes([len(ROLE_PROPERTY)]) + ROLE_PROPERTY.encode() + struct.pack(">I", len(role)) + role
        return [ZAP_VERSION, request_id, code, text.encode(), name, properties]

    if len(frames) < 6 or frames[0] != ZAP_VERSION or len(frames[1]) > SHORT_BYTES_MAX:
        return answer(b"400", "malformed request")
    if frames[2] != domain:
        return answer(b"400", "wrong domain")
    if frames[5] != b"CURVE":
        return answer(b"400", "only CURVE is admitted")
    if len(frames) != 7 or len(frames[6]) != KEY_BYTES:
        return answer(b"400", "malformed key")
    try:
        identity = identify(z85.encode(frames[6]))
    except NotHeardOf:
        return answer(b"300", "nothing is known of this key yet")
    except Exception as error:
        notice(f"can't tell whether to admit a key: {error!r}")
        return answer(b"300", "can't tell now")
    return answer(b"200", "OK", identity) if identity is not None else answer(b"400", "unknown or revoked key")


class Handshakes:
    """Counts the connections that have proved nothing yet. Pure; one for each listener.

    libzmq tells which connection was accepted and which has ended, but only *that* one has proved its key, not which.
    Every unproved one is younger than ``limits.handshake_timeout_s``, so among the young ones still open there are as
    many unproved as there are fewer proofs.
    """

    def __init__(self) -> None:
        self._young: dict[int, float] = {}  # by file descriptor: when it was accepted
        self._proved: deque[float] = deque()

    def accepted(self, now: float, fd: int) -> bool:
        """False if that is one too many."""
        self._age(now)
        self._young.pop(fd, None)
        self._young[fd] = now
        return len(self._young) - len(self._proved) <= limits.handshakes_max

    def proved(self, now: float) -> None:
        self._proved.append(now)

    def ended(self, fd: int) -> None:
        self._young.pop(fd, None)

    def _age(self, now: float) -> None:
        oldest = now - limits.handshake_timeout_s
        while self._proved and self._proved[0] < oldest:
            self._proved.popleft()
        while self._young and next(iter(self._young.values())) < oldest:
            del self._young[next(iter(self._young))]


class _Guard:
    """The events of one listener, for ``Handshakes``.

    libzmq's I/O thread blocks, and with it all of the process's sockets, when nobody takes the events (measured: with
    the reading socket closed, or full). So the reading socket has no high-water mark, and it is closed only after the
    events were switched off.
    """

    EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], listener: zmq.Socket[bytes]) -> None:
        endpoint = f"inproc://actorlib-guard-{next(_guard_numbers)}"
        self.listener = listener
        self.handshakes = Handshakes()
        listener.monitor(endpoint, self.EVENTS)
        self.events = context.socket(zmq.PAIR)
        self.events.setsockopt(zmq.RCVHWM, 0)
        self.events.setsockopt(zmq.LINGER, 0)
        self.events.connect(endpoint)

    def on_event(self, frames: list[bytes]) -> None:
        event, value = MONITOR_EVENT.unpack(frames[0])
        if event == zmq.EVENT_ACCEPTED:
            if not self.handshakes.accepted(time.monotonic(), value):
                _shut_down(value, port_of(frames[1].decode()), None)
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.handshakes.proved(time.monotonic())
        elif event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
            self.handshakes.ended(value)


class ZapHandler:
    """Answers, on a thread of its own, whether to admit a key; one for each ZeroMQ context, before its sockets bind.

    Args:
        context: Whose sockets it answers for.
        is_allowed: From a public key (Z85) to whose it is, or None. Called on the handler's thread.

    Example:
        >>> handler = ZapHandler(context, store.identify)
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        is_allowed: Callable[[bytes], Identity | None],
        domain: bytes = DOMAIN,
    ) -> None:
        self._context = context
        self._is_allowed = is_allowed
        self._domain = domain
        self._guards: list[_Guard] = []
        self._addresses: dict[str, set[str]] = {}
        self._lock = threading.RLock()
        self._closing = False
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            self._socket.bind(ZAP_ENDPOINT)
        except zmq.ZMQError:
            self._socket.close()
            raise
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="actorlib-zap", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def guard(self, listener: zmq.Socket[bytes]) -> None:
        """Bound the connections to ``listener`` that have proved nothing. Before it binds, on its own thread."""
        with self._lock:
            self._guards.append(_Guard(self._context, listener))
        os.eventfd_write(self._wake_fd, 1)

    def unguard(self) -> None:
        """Before the listeners are closed, on their own thread."""
        for guard in self._guards:
            guard.listener.monitor(None, 0)  # switched off

    def addresses(self, name: str) -> set[str] | None:
        """Where that key was admitted from; None when there were too many places to remember."""
        with self._lock:
            known = set(self._addresses.get(name, ()))
        return known if len(known) <= limits.access_addresses_max else None

    def close(self) -> None:
        self._closing = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        for guard in self._guards:
            guard.events.close()
        self._guards.clear()
        os.close(self._wake_fd)

    def _run(self) -> None:
        try:
            while not self._closing:
                self._round()
        except zmq.ContextTerminated:
            return
        except Exception:
            notice(f"nobody new is admitted over TCP:\n{traceback.format_exc()}")
        finally:
            with suppress(zmq.ZMQError):
                self._socket.unbind(ZAP_ENDPOINT)  # now, rather than whenever the closed socket is taken apart
            self._socket.close()

    def _round(self) -> None:
        with self._lock:
            guards = {guard.events: guard for guard in self._guards}
        poller = zmq.Poller()
        for source in (self._wake_fd, self._socket, *guards):
            poller.register(source, zmq.POLLIN)
        for source, _ in poller.poll():
            if source is self._socket:
                self._answer()
            elif source in guards:
                guards[source].on_event(source.recv_multipart())
            else:
                os.eventfd_read(self._wake_fd)

    def _answer(self) -> None:
        frames = self._socket.recv_multipart()
        with self._lock:  # so that a revocation finds the address of whoever was admitted just before it
            reply = zap_reply(frames, self._is_allowed, self._domain)
            if reply[2] == b"200":
                seen = self._addresses.setdefault(reply[4].decode(), set())
                if len(seen) <= limits.access_addresses_max:
                    seen.add(frames[3].decode(errors="replace"))
        self._socket.send_multipart(reply)


# -- ending connections ------------------------------------------------------------------------------------------------
def port_of(endpoint: str) -> int:
    """The port of a ``tcp://host:port``."""
    return int(endpoint.rsplit(":", 1)[1])


def _plain_address(text: str) -> str:
    """One way to write each address: a v4 peer of a v6 listener is the v4 peer."""
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _shut_down(fd: int, port: int, addresses: set[str] | None) -> bool:
    """Shut the connection ``fd`` down if it was accepted at ``port``, from one of ``addresses`` (None: from anywhere).

    libzmq may close ``fd`` at any moment and something else may get its number, so it is a duplicate that is looked at
    and shut down.
    """
    try:
        duplicate = os.dup(fd)
    except OSError:
        return False
    try:
        connection = sockets.socket(fileno=duplicate)
    except OSError:  # no socket at all
        os.close(duplicate)
        return False
    with connection:
        try:
            if connection.family not in (sockets.AF_INET, sockets.AF_INET6) or connection.getsockname()[1] != port:
                return False
            peer = _plain_address(connection.getpeername()[0])
            if addresses is not None and peer not in addresses:
                return False
            connection.shutdown(sockets.SHUT_RDWR)
            return True
        except OSError:
            return False  # the listener itself, or a connection that has ended


def end_connections(port: int, addresses: set[str] | None) -> int:
    """Shut down what this process has accepted at a TCP port, see ``_shut_down``. How many there were."""
    wanted = None if addresses is None else {_plain_address(address) for address in addresses}
    return sum(_shut_down(int(fd), port, wanted) for fd in os.listdir("/proc/self/fd"))


# -- for Sockets -------------------------------------------------------------------------------------------------------
class Access:
    """What ``Sockets`` needs to be on TCP: our keys, and whom to admit.

    Args:
        keys: Our own pair: what we prove as a client, and what our clients expect of us as a server.
        is_allowed: Whom to admit (``Register.identify``). Called on the ZAP handler's thread.

    One for each ``Sockets``. ``drop(name)`` ends the connections of a revoked key.
    """

    def __init__(
        self,
        keys: KeyPair,
        is_allowed: Callable[[bytes], Identity | None],
    ) -> None:
        self._keys = keys
        self._is_allowed = is_allowed
        self._ports: list[int] = []
        self.handler: ZapHandler | None = None

    # -- securing one socket -------------------------------------------------------------------------------------------
    def secure_server(self, socket: zmq.Socket[bytes]) -> None:
        """What ``socket`` binds from now on admits CURVE keys that the handler knows, and nothing else."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        _bound_frames(socket)

    def secure_client(self, socket: zmq.Socket[bytes], server_public_key: bytes) -> None:
        """What ``socket`` connects to from now on has to prove that key; we prove ours."""
        socket.setsockopt(zmq.CURVE_SERVER, 0)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
        socket.setsockopt(zmq.CURVE_SERVERKEY, server_public_key)
        _bound_frames(socket)

    def plain_client(self, socket: zmq.Socket[bytes]) -> None:
        """What ``socket`` connects to from now on is local."""
        socket.setsockopt(zmq.CURVE_SERVER, 0)  # back to the mechanism NULL, also after secure_client
        socket.setsockopt(zmq.MAXMSGSIZE, limits.frame_bytes_max)

    # -- securing all of a process's -----------------------------------------------------------------------------------
    def open(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Before the first socket binds."""
        self.handler = ZapHandler(context, self._is_allowed)

    def bind(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        """Bind over TCP. (A local endpoint is bound without us; on the same socket, before: the domain stays set.)"""
        self.secure_server(socket)
        if self.handler is not None:
            self.handler.guard(socket)
        socket.bind(endpoint)
        self._ports.append(port_of(socket.getsockopt_string(zmq.LAST_ENDPOINT)))

    def prepare_connect(self, socket: zmq.Socket[bytes], endpoint: str, server_key: str) -> None:
        """Make ``socket`` ready to connect to ``endpoint``, whose owner must prove ``server_key``.

        Raises:
            AccessError: It is on TCP, and nobody has told which key its owner has.
        """
        if not endpoint.startswith("tcp://"):
            self.plain_client(socket)
        elif server_key:
            self.secure_client(socket, server_key.encode())
        else:
            raise AccessError(f"the key of {endpoint} is not known, so it can't be told from an impostor")

    def public_key(self) -> str:
        """What we prove."""
        return self._keys.public.decode()

    def vouches_for(self, identity: Identity, public_key: str) -> bool:
        """Whether that key is the one that ``identity`` has proved."""
        return self._is_allowed(public_key.encode()) == identity

    def drop(self, name: str) -> int:
        """End the connections that may be that key's, after it was revoked: for ``on_revoked``. Any thread.

        Others from the same address are ended too; they come back by themselves. How many there were.
        """
        addresses = self.handler.addresses(name) if self.handler is not None else None
        return sum(end_connections(port, addresses) for port in self._ports)

    @staticmethod
    def sender_of(frame: zmq.Frame) -> Identity | None:
        return sender_of(frame)

    def release(self) -> None:
        """Before the sockets are closed, on their own thread."""
        if self.handler is not None:
            self.handler.unguard()

    def close(self) -> None:
        """After the sockets were closed, before their context ends."""
        if self.handler is not None:
            self.handler.close()
            self.handler = None


def _bound_frames(socket: zmq.Socket[bytes]) -> None:
    socket.setsockopt(zmq.HANDSHAKE_IVL, int(limits.handshake_timeout_s * 1000))
    socket.setsockopt(zmq.MAXMSGSIZE, limits.tcp_frame_bytes_max)


def sender_of(frame: zmq.Frame) -> Identity | None:
    """Who has proved a key on the connection that ``frame`` came by; None: a local one. (Receive with copy=False.)"""
    try:
        return Identity(str(frame.get("User-Id")), str(frame.get(ROLE_PROPERTY)))
    except zmq.ZMQError:
        return None
