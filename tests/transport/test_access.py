"""Who gets in over TCP: the matrix of mechanisms, keys, domains, sockets and handlers; revocation; what strangers cost."""

from __future__ import annotations

import itertools
import json
import os
import socket as sockets
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from actorlib.transport import limits
from actorlib.transport.drivers import access as access_module
from actorlib.transport.drivers.access import (
    DOMAIN,
    HEAD,
    ZAP_ENDPOINT,
    Access,
    AccessError,
    Handshakes,
    Identity,
    KeyFile,
    KeyPair,
    KeyStore,
    ZapHandler,
    end_connections,
    new_key_pair,
    port_of,
    sender_of,
    zap_reply,
)
from actorlib.transport.drivers.sockets import Sockets
from actorlib.transport.ids import new_process_id

pytestmark = pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")
PATIENCE_S = 10.0
FAILED = {
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
}


def nobody(_: bytes) -> Identity | None:
    return None


def eventually(condition, timeout_s=PATIENCE_S):
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@pytest.fixture(autouse=True)
def closes_its_file_descriptors():
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


@pytest.fixture
def store(tmp_path):
    return KeyStore(tmp_path / "keys")


@pytest.fixture
def context():
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


# -- the matrix --------------------------------------------------------------------------------------------------------
class Kind(NamedTuple):
    """A pair of sockets; the one that binds is the one that CURVE and ZAP guard."""

    server: int
    client: int
    server_sends: bool = False


KINDS = {
    "router-dealer": Kind(zmq.ROUTER, zmq.DEALER),
    "router-router": Kind(zmq.ROUTER, zmq.ROUTER),
    "dealer-dealer": Kind(zmq.DEALER, zmq.DEALER),
    "rep-req": Kind(zmq.REP, zmq.REQ),
    "pull-push": Kind(zmq.PULL, zmq.PUSH),
    "push-pull": Kind(zmq.PUSH, zmq.PULL, True),
    "pub-sub": Kind(zmq.PUB, zmq.SUB, True),
}
CLIENTS = {  # mechanism, its key, the key that it expects of the server
    "none": ("none", None, None),
    "plain": ("plain", None, None),
    "curve, right key": ("curve", "right", "right"),
    "curve, unknown key": ("curve", "unknown", "right"),
    "curve, revoked key": ("curve", "revoked", "right"),
    "curve, no key": ("curve", None, "right"),
    "curve, right key, wrong server key": ("curve", "right", "wrong"),
    "curve, head's public key with another secret": ("curve", "stolen public", "right"),
}
COLUMNS = {  # the server's domain, the handler's domain, the handler
    "all as it should be": (DOMAIN, DOMAIN, "alive"),
    "a domain of its own for both": (b"other", b"other", "alive"),
    "the server in another domain": (b"other", DOMAIN, "alive"),
    "the handler for another domain": (DOMAIN, b"other", "alive"),
    "the handler is dead": (DOMAIN, DOMAIN, "dead"),
    "there was never a handler": (DOMAIN, DOMAIN, "none"),
}
OPEN_COLUMNS = ("all as it should be", "a domain of its own for both")


class Keys(NamedTuple):
    head: KeyPair
    clients: dict[str, KeyPair]
    store: KeyStore


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    store = KeyStore(tmp_path_factory.mktemp("matrix") / "keys")
    right, revoked = store.new("right", "node"), store.new("revoked", "node")
    store.revoke("revoked")
    stolen = KeyPair(store.cluster_key().public, new_key_pair().secret)
    pairs = {"right": right.keys, "revoked": revoked.keys, "unknown": new_key_pair(), "stolen public": stolen}
    return Keys(store.cluster_key(), pairs, store)


def make_client(context, kind, keys, client):
    mechanism, key, server_key = CLIENTS[client]
    socket = context.socket(kind.client)
    socket.linger = 0
    if kind.client == zmq.SUB:
        socket.subscribe(b"")
    if mechanism == "plain":
        socket.plain_username, socket.plain_password = b"right", b"right"
    elif mechanism == "curve":
        server = keys.head.public if server_key == "right" else new_key_pair().public
        if key is not None:
            Access(keys.clients[key], nobody, lambda _: None).secure_client(socket, server)
        else:
            socket.curve_serverkey = server
    return socket


@contextmanager
def a_server(context, kind, keys, column, secure=True):
    """A socket that binds, its monitor, and the handler as the column says."""
    domain, handler_domain, handler_state = COLUMNS[column]
    handler = ZapHandler(context, keys.store.identify, handler_domain) if handler_state != "none" else None
    if handler is not None and handler_state == "dead":
        handler.close()
        handler = None
    server = context.socket(kind.server)
    server.linger = 0
    if secure:
        Access(keys.head, nobody, lambda _: None).secure_server(server)
    server.zap_domain = domain
    monitor = server.get_monitor_socket()
    server.bind("tcp://127.0.0.1:*")
    try:
        yield server, monitor
    finally:
        server.disable_monitor()
        monitor.close(0)
        server.close(0)
        if handler is not None:
            handler.close()


def gets_through(server, monitor, client, kind):
    """True when a message has arrived; False when libzmq tells at either end that the handshake failed."""
    watched = client.get_monitor_socket()
    sender, receiver = (server, client) if kind.server_sends else (client, server)
    client.connect(server.last_endpoint)
    poller = zmq.Poller()
    for source in (monitor, watched, receiver):
        poller.register(source, zmq.POLLIN)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < deadline:
            with_route = [b"peer", b"hello"] if sender.type == zmq.ROUTER else [b"hello"]
            if kind.server_sends or not sender_has_sent(sender):
                try:
                    sender.send_multipart(with_route, zmq.NOBLOCK)
                    sent.add(sender)
                except zmq.Again:
                    pass  # nobody is connected
            for source, _ in poller.poll(20):
                if source is receiver:
                    assert receiver.recv_multipart()[-1] == b"hello"
                    return True
                event = recv_monitor_message(source)["event"]
                if event in FAILED:
                    return bool(receiver.poll(0))
        raise AssertionError("neither in nor out")
    finally:
        sent.discard(sender)
        client.disable_monitor()
        watched.close(0)


sent: set[zmq.Socket] = set()


def sender_has_sent(sender):
    return sender in sent


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_right_key_gets_through_and_only_where_the_handler_can_say_so(keys, kind, column):
    came_in = []
    for client in CLIENTS:
        inside, outside = zmq.Context(), zmq.Context()
        try:
            with a_server(inside, KINDS[kind], keys, column) as (server, monitor):
                socket = make_client(outside, KINDS[kind], keys, client)
                if socket.type == zmq.ROUTER:
                    socket.connect_routing_id = b"peer"
                if gets_through(server, monitor, socket, KINDS[kind]):
                    came_in.append(client)
        finally:
            outside.destroy(linger=0)
            inside.destroy(linger=0)
    assert came_in == (["curve, right key"] if column in OPEN_COLUMNS else [])
