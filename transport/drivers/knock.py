"""Knocking: whether somebody listens at HOST:PORT, proves the key that we expect, and lets ours in.

Once a session is dialled, libzmq tries again for ever and says nothing of why. So whoever joins knocks first, on a
socket of its own, and reads libzmq's events: each way in which a handshake can fail becomes an error that says what to
do. A head that isn't up yet is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import zmq
from zmq.utils.monitor import recv_monitor_message

from actorlib.transport.drivers.access import Access
from actorlib.transport.drivers.keys import AccessError, KeyPair

PROGRESS_EVERY_S = 2.0
EVENTS = (
    zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
STRANGER = (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)


def split_host_port(text: str) -> tuple[str, int]:
    """The two parts of HOST:PORT; an IPv6 address is in brackets, which stay. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError(f"{text!r} is not HOST:PORT, as in 10.0.0.7:6390")
    return host, int(port)


def knock(
    endpoint: str,
    keys: KeyPair,
    server_key: bytes,
    timeout_s: float,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Wait until somebody at ``endpoint`` lets us in.

    Args:
        endpoint: ``tcp://host:port``.
        keys: Ours. server_key: The public key that they must prove.
        progress: Told every few seconds what is waited for.

    Raises:
        AccessError: They refuse our key, or are not who we expect.
        ConnectionError: Nobody listened in time.
    """
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    try:
        Access(keys, lambda _: None).secure_client(socket, server_key)
        socket.setsockopt(zmq.LINGER, 0)
        monitor = socket.get_monitor_socket(EVENTS)
        socket.connect(endpoint)
        _listen(monitor, endpoint, timeout_s, progress)
        socket.disable_monitor()
    finally:
        context.destroy(linger=0)


def _listen(
    monitor: zmq.Socket[bytes], endpoint: str, timeout_s: float, progress: Callable[[str], None] | None
) -> None:
    began = told = time.monotonic()
    connected = False
    while (now := time.monotonic()) - began < timeout_s:
        if progress is not None and now - told >= PROGRESS_EVERY_S:
            told = now
            progress(f"waiting for {endpoint} to answer ({now - began:.0f} of {timeout_s:.0f} s)")
        if not monitor.poll(200):
            continue
        event = recv_monitor_message(monitor)["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise AccessError(
                f"the cluster at {endpoint} does not know our key, or it was revoked; "
                "make a new one at the head: actorlib keys new NAME"
            )
        if event in STRANGER:
            raise AccessError(
                f"who listens at {endpoint} does not prove the key that our key file names: it is another cluster, "
                "or the port is not that of a head"
            )
        connected = connected or event == zmq.EVENT_CONNECTED
    if connected:
        raise AccessError(f"who listens at {endpoint} does not answer as a head does; is the port right?")
    raise ConnectionError(f"nobody listened at {endpoint} within {timeout_s:.0f} s: is the head up, the port right?")
