"""What a caller and a host say to each other: operations one way, replies the other, one at a time.

On one machine they go through a Unix socket: 16 bytes of header, then as many bytes of pickle as it says, none for an
ordinary step. Elsewhere the same operations travel as calls of the host's actor.
"""

from __future__ import annotations

import enum
import socket
import struct
from typing import Any, NamedTuple

from actorlib.serialization import deserialize, serialize

HEADER = struct.Struct("<BBHIQ")  # kind, slot, nothing, number, bytes of payload
PAYLOAD_BYTES_MAX = 8 << 30


class Kind(enum.IntEnum):
    """Operations."""

    BUILD = 1  # construct the environments
    ATTACH = 2  # share memory; its descriptor comes with the next message
    RESTORE = 3  # go back to a checkpoint, then repeat operations
    RESET = 4
    STEP = 5  # actions lie in shared memory
    STEP_WITH = 6  # actions come along
    CALL = 7
    SET_ATTRIBUTE = 8
    REPLACE = 9  # after a failure: freshly built environments take over, the episodes end as truncated
    CLOSE = 10
    IDENTIFY = 11  # which process is it?


class Outcome(enum.IntEnum):
    """Replies."""

    DONE = 1  # and nothing to add: the rest lies in shared memory
    DONE_WITH = 2  # a Reply comes along
    RAISED = 3  # a TaskError comes along


class Operation(NamedTuple):
    """One thing to do. ``number`` counts what changes the environments; 0 for what does not."""

    kind: int
    number: int
    slot: int
    argument: Any


class Reply(NamedTuple):
    """What a host answers, as far as it is not in shared memory."""

    infos: list[tuple[int, dict[str, Any]]] | None = None  # (index in the host, info), in order
    observations: list[Any] | None = None  # one each, where there is no shared memory for them
    flags: tuple[Any, Any, Any] | None = None  # rewards, terminations, truncations, likewise
    result: Any = None
    checkpoint: tuple[int, bytes] | None = None  # number of the last operation that it has in it


NOTHING = Reply()


class PeerGone(Exception):
    """The other side has closed the connection."""


def send(connection: socket.socket, kind: int, number: int, slot: int, argument: Any = None) -> None:
    """One message; ``argument`` None means no payload."""
    payload = b"" if argument is None else pack(argument)
    header = HEADER.pack(kind, slot, 0, number, len(payload))
    try:
        if payload:
            connection.sendall(header + payload if len(payload) < 4096 else header)
            if len(payload) >= 4096:
                connection.sendall(payload)
        else:
            connection.send(header)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise PeerGone(str(error)) from error


def receive(connection: socket.socket) -> Operation:
    """The next message. Raises PeerGone, or TimeoutError where the socket has a timeout."""
    try:
        data = connection.recv(HEADER.size)
        if len(data) != HEADER.size:
            data += _exactly(connection, HEADER.size - len(data)) if data else _gone()
        kind, slot, _, number, size = HEADER.unpack(data)
        if not size:
            return Operation(kind, number, slot, None)
        if size > PAYLOAD_BYTES_MAX:
            raise PeerGone(f"a message of {size} bytes was announced")
        return Operation(kind, number, slot, unpack(_exactly(connection, size)))
    except ConnectionResetError as error:
        raise PeerGone(str(error)) from error


def _gone() -> bytes:
    raise PeerGone("the connection is closed")


def _exactly(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if not count:
            _gone()
        view = view[count:]
    return data


def pack(value: Any) -> bytes:
    return serialize(value, in_band=True).data


def unpack(data: Any) -> Any:
    return deserialize(data)
