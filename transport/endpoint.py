"""Endpoints: the ways to one inbox, written as one string, and which of them to take.

A process that may be called from other hosts binds its inbox twice: at a local socket for those of its own node, and
over TCP for all others. Both are in its address, with the key that it proves over TCP::

    ipc:///tmp/.../4f1c...                                     local only: an embedded session, or nodes of one machine
    ipc:///tmp/.../4f1c...;tcp://10.0.0.7:41207;8kv0t...       both; the last part is a CURVE key, in Z85
    ;tcp://10.0.0.7:6390;8kv0t...                              TCP only: what a key file and HOST:PORT tell of a head

Neither of the three parts can hold a semicolon: paths are ours, and Z85 has none.
"""

from __future__ import annotations

from typing import NamedTuple

from actorlib.transport.link import Address

SEPARATOR = ";"


class Endpoint(NamedTuple):
    """The parts; "" for one that is not there."""

    local: str
    remote: str
    key: str

    def __str__(self) -> str:
        return SEPARATOR.join(self) if self.remote else self.local


def parse(endpoint: str) -> Endpoint:
    """The parts of an endpoint.

    Raises:
        ValueError: It has more or fewer parts than an endpoint.
    """
    parts = endpoint.split(SEPARATOR)
    if len(parts) == 1:
        return Endpoint(endpoint, "", "")
    if len(parts) != 3:
        raise ValueError(f"{endpoint!r} is no endpoint: it has {len(parts)} parts")
    return Endpoint(*parts)


def way_to(peer: Address, own: Address) -> tuple[str, str]:
    """Which way to take to ``peer``, and the key to ask for on it ("": none, it is local).

    The local one inside a node, and where there is no other.
    """
    endpoint = parse(peer.endpoint)
    if endpoint.remote and (peer.node_id != own.node_id or not endpoint.local):
        return endpoint.remote, endpoint.key
    return endpoint.local, ""
