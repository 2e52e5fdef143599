"""Who gets in over TCP: mechanisms, keys, domains, sockets and handlers; key files, revocation, what strangers cost."""

from __future__ import annotations

import contextlib
import json
import os
import socket as sockets
import struct
import subprocess
import sys
import threading
import time
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
    ZAP_ENDPOINT,
    Access,
    Handshakes,
    ZapHandler,
    end_connections,
    port_of,
    sender_of,
    zap_reply,
)
from actorlib.transport.drivers.keys import HEAD, AccessError, Identity, KeyFile, KeyPair, KeyStore, new_key_pair
from actorlib.transport.drivers.sockets import Sockets
from actorlib.transport.endpoint import parse
from actorlib.transport.ids import new_process_id
from tests.conftest import eventually

pytestmark = pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")
PATIENCE_S = 10.0
RIGHT = "curve, right key"
FAILED = {
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
}


def nobody(_: bytes) -> Identity | None:
    return None


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
    RIGHT: ("curve", "right", "right"),
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
            Access(keys.clients[key], nobody).secure_client(socket, server)
        else:
            socket.curve_serverkey = server
    return socket


class Door:
    """A handler as a column has it, and the sockets that bind there, a fresh one for each client."""

    def __init__(self, keys, kind, column, mechanism="curve", enforce=True):
        self.keys, self.kind, self.mechanism, self.enforce = keys, kind, mechanism, enforce
        self.domain, handler_domain, state = COLUMNS[column]
        self.context = zmq.Context()
        self.handler = ZapHandler(self.context, keys.store.identify, handler_domain) if state != "none" else None
        if state == "dead":
            self.close_handler()

    def bind(self):
        socket = self.context.socket(self.kind.server)
        if self.mechanism == "curve":
            Access(self.keys.head, nobody).secure_server(socket)
        elif self.mechanism == "plain":
            socket.plain_server = True
        socket.zap_domain = self.domain
        if self.mechanism != "curve" or not self.enforce:  # else it is as secure_server has set it
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, int(self.enforce))
        return socket

    def close_handler(self):
        if self.handler is not None:
            self.handler.close()
        self.handler = None

    def put_right(self):
        """The handler that there should have been from the start."""
        self.close_handler()
        self.handler = ZapHandler(self.context, self.keys.store.identify, self.domain)

    def close(self):
        self.close_handler()
        self.context.destroy(linger=0)

    def admits(self, client):
        """True when a message has got through; False when libzmq tells at either end that the handshake failed."""
        outside = zmq.Context()
        inner, outer = self.bind(), make_client(outside, self.kind, self.keys, client)
        monitors = [inner.get_monitor_socket(), outer.get_monitor_socket()]
        try:
            inner.bind("tcp://127.0.0.1:*")
            if outer.type == zmq.ROUTER:
                outer.connect_routing_id = b"peer"
            outer.connect(inner.last_endpoint)
            if not self.kind.server_sends:
                with contextlib.suppress(zmq.Again):  # it was refused already, and libzmq has given up
                    outer.send_multipart([b"peer", b"hello"] if outer.type == zmq.ROUTER else [b"hello"], zmq.NOBLOCK)
            return self._outcome(inner, outer, monitors)
        finally:
            inner.disable_monitor()
            outer.disable_monitor()
            for socket in (inner, outer, *monitors):
                socket.close(linger=0)
            outside.term()

    def _outcome(self, inner, outer, monitors):
        receiver = outer if self.kind.server_sends else inner
        poller = zmq.Poller()
        for source in (*monitors, receiver):
            poller.register(source, zmq.POLLIN)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self.kind.server_sends and inner.poll(0, zmq.POLLOUT):
                inner.send(b"hello", zmq.NOBLOCK)  # again and again: a publisher sends to nobody as well
            for source, _ in poller.poll(20):
                if source is receiver:
                    assert receiver.recv_multipart()[-1] == b"hello"
                    return True
                if recv_monitor_message(source)["event"] in FAILED:
                    return bool(receiver.poll(0))
        raise AssertionError("neither in nor out")


@pytest.fixture
def door(keys):
    doors = []

    def make(*arguments, **options):
        doors.append(Door(keys, *arguments, **options))
        return doors[-1]

    yield make
    for made in doors:
        made.close()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_right_key_gets_through_where_the_handler_can_say_so_and_nothing_else_anywhere(door, kind, column):
    there = door(KINDS[kind], column)
    came_in = [client for client in CLIENTS if there.admits(client)]
    assert came_in == ([RIGHT] if column in OPEN_COLUMNS else [])


@pytest.mark.parametrize("column", [column for column in COLUMNS if column not in OPEN_COLUMNS])
@pytest.mark.parametrize("kind", KINDS)
def test_what_keeps_the_right_key_out_of_the_closed_columns_is_the_handler_alone(door, kind, column):
    there = door(KINDS[kind], column)
    assert not there.admits(RIGHT)
    there.put_right()
    assert there.admits(RIGHT)
    assert not there.admits("curve, unknown key")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("mechanism", ["none", "plain"])
def test_a_socket_that_forgot_curve_admits_nobody_either(door, mechanism, column, client):
    assert not door(KINDS["router-dealer"], column, mechanism).admits(client)


@pytest.mark.parametrize(("mechanism", "client"), [("curve", "curve, unknown key"), ("none", "none")])
def test_without_enforcement_a_dead_handler_would_let_anybody_in(door, mechanism, client):
    """The fact about libzmq for which ``secure_server`` enforces the domain."""
    assert door(KINDS["router-dealer"], "the handler is dead", mechanism, enforce=False).admits(client)


# -- the handler -------------------------------------------------------------------------------------------------------
GOOD = [b"1.0", b"7", DOMAIN, b"127.0.0.1", b"", b"CURVE", b"k" * 32]


def known(public: bytes) -> Identity | None:
    return Identity("gpu-7", "node") if public == z85.encode(b"k" * 32) else None


def test_a_known_key_is_answered_with_its_name_and_role():
    role = b"\x06X-Role" + struct.pack(">I", 4) + b"node"
    assert zap_reply(GOOD, known) == [b"1.0", b"7", b"200", b"OK", b"gpu-7", role]


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], b"malformed request"),
        ([b""], b"malformed request"),
        (GOOD[:5], b"malformed request"),
        ([b"2.0", *GOOD[1:]], b"malformed request"),
        ([*GOOD[:2], b"actorlib2", *GOOD[3:]], b"wrong domain"),
        ([*GOOD[:2], b"", *GOOD[3:]], b"wrong domain"),
        ([*GOOD[:5], b"NULL"], b"only CURVE is admitted"),
        ([*GOOD[:5], b"PLAIN", b"gpu-7", b"password"], b"only CURVE is admitted"),
        ([*GOOD[:5], b"curve", b"k" * 32], b"only CURVE is admitted"),
        (GOOD[:6], b"malformed key"),
        ([*GOOD[:6], b"k" * 31], b"malformed key"),
        ([*GOOD, b"more"], b"malformed key"),
        ([*GOOD[:6], b"j" * 32], b"unknown or revoked key"),
    ],
)
def test_everything_else_is_refused_with_a_reason(frames, reason):
    reply = zap_reply(frames, known)
    assert reply[2:] == [b"400", reason, b"", b""]
    assert reply[:2] == [b"1.0", frames[1] if len(frames) > 1 else b""]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(GOOD), st.binary(max_size=300)), max_size=9))
def test_whatever_is_asked_the_answer_has_the_form_of_one_and_admits_only_the_known_key(frames):
    reply = zap_reply(frames, known)
    assert len(reply) == 6 and reply[0] == b"1.0" and len(reply[1]) <= 255
    admitted = (
        len(frames) == 7
        and len(frames[1]) <= 255
        and [frames[i] for i in (0, 2, 5, 6)] == [GOOD[i] for i in (0, 2, 5, 6)]
    )
    assert reply[2] == (b"200" if admitted else b"400")


def ask(context, frames):
    with context.socket(zmq.REQ) as asker:
        asker.linger = 0
        asker.connect(ZAP_ENDPOINT)
        asker.send_multipart(frames)
        assert asker.poll(int(PATIENCE_S * 1000))
        return asker.recv_multipart()


def test_malformed_requests_do_not_kill_the_handler(context):
    handler = ZapHandler(context, known)
    try:
        for frames in ([b""], [b"1.0"], [b"\xff" * 1000] * 20, [b"1.0", b"x" * 70_000, *GOOD[2:]], GOOD[:6]):
            assert ask(context, frames)[2] == b"400"
        assert ask(context, GOOD)[2] == b"200"
        assert handler.is_alive()
    finally:
        handler.close()


def test_when_it_cannot_be_told_whose_key_it_is_nobody_gets_in_and_the_handler_lives(context, capfd):
    def broken(_):
        raise AccessError("the register is damaged")

    handler = ZapHandler(context, broken)
    try:
        for _ in range(3):
            assert ask(context, GOOD)[2:4] == [b"300", b"can't tell now"]
        assert handler.is_alive()
    finally:
        handler.close()
    assert "the register is damaged" in capfd.readouterr().err


def test_a_handler_that_dies_of_a_bug_says_so_and_leaves_nobody_in_its_place(context, monkeypatch, capfd):
    def bug(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(access_module, "zap_reply", bug)
    handler = ZapHandler(context, known)
    with context.socket(zmq.REQ) as asker:
        asker.linger = 0
        asker.connect(ZAP_ENDPOINT)
        asker.send_multipart(GOOD)
        assert eventually(lambda: not handler.is_alive())
    handler.close()
    assert "nobody new is admitted" in capfd.readouterr().err


def test_one_context_has_one_handler(context):
    handler = ZapHandler(context, known)
    try:
        with pytest.raises(zmq.ZMQError):
            ZapHandler(context, known)
    finally:
        handler.close()
    ZapHandler(context, known).close()


# -- keys and their files ----------------------------------------------------------------------------------------------
def mode(path):
    return os.stat(path).st_mode & 0o777


def test_the_files_are_ours_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        store = KeyStore(tmp_path / "keys")
        file = store.new("gpu-7", "node")
    finally:
        os.umask(before)
    assert mode(store.directory) == 0o700
    assert {path.name: mode(path) for path in store.directory.iterdir()} == {
        "cluster.key": 0o600,
        "gpu-7.key": 0o600,
        "lock": 0o600,
        "register.json": 0o600,
    }
    assert KeyFile.load(file.path) == file
    assert file.server == store.cluster_key().public


def test_the_cluster_key_is_made_once(tmp_path):
    first, second = KeyStore(tmp_path / "keys"), KeyStore(tmp_path / "keys")
    assert first.cluster_key() == second.cluster_key()
    assert first.cluster_key() != KeyStore(tmp_path / "others").cluster_key()


def test_secrets_are_not_printed(store):
    file = store.new("gpu-7", "node")
    assert file.keys.secret.decode() not in repr(file) + str(file.keys)
    assert file.keys.secret.decode() not in store.register.path.read_text()


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o777])
def test_a_key_file_that_others_can_read_or_write_is_refused(store, bits):
    file = store.new("gpu-7", "node")
    file.path.chmod(bits)
    with pytest.raises(AccessError, match=r"open to others.*chmod 600"):
        KeyFile.load(file.path)


def test_the_same_goes_for_the_store_and_its_own_files(store):
    for name in ("cluster.key", "register.json"):
        store.new(f"before-{name}", "node")
        (store.directory / name).chmod(0o644)
        with pytest.raises(AccessError, match="open to others"):
            KeyStore(store.directory)
        (store.directory / name).chmod(0o600)
    store.directory.chmod(0o755)
    with pytest.raises(AccessError, match="chmod 700"):
        KeyStore(store.directory)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"{}", b"\xff" * 10, b'{"public": 1}', b"x" * (limits.key_file_bytes_max + 1)],
    ids=["empty", "cut", "list", "nothing in it", "binary", "number", "too long"],
)
def test_a_damaged_key_file_is_refused(store, damage):
    file = store.new("gpu-7", "node")
    file.path.write_bytes(damage)
    with pytest.raises(AccessError, match="damaged"):
        KeyFile.load(file.path)


@pytest.mark.parametrize("field", ["public", "secret", "server"])
@pytest.mark.parametrize("value", ["", "a" * 39, "~" * 40, "é" * 40, "0" * 40])
def test_a_key_that_is_none_or_does_not_fit_the_other_is_refused(store, field, value):
    file = store.new("gpu-7", "node")
    entry = json.loads(file.path.read_text())
    file.path.write_text(json.dumps({**entry, field: value}))
    if field == "server" and value == "0" * 40:
        assert KeyFile.load(file.path).server == b"0" * 40  # it can't be told from a key
        return
    with pytest.raises(AccessError, match="damaged"):
        KeyFile.load(file.path)


def test_a_missing_key_file_is_named(tmp_path):
    with pytest.raises(AccessError, match=r"can't read .*nowhere.key: No such file"):
        KeyFile.load(tmp_path / "nowhere.key")


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "with space", "x" * 65, "new\nline", HEAD, "cluster"])
def test_names_that_can_do_harm_are_refused(store, name):
    with pytest.raises(AccessError, match="can't name a key"):
        store.new(name, "node")
    assert store.list() == ()


def test_names_are_used_once_and_roles_are_known(store, monkeypatch):
    store.new("gpu-7", "node")
    with pytest.raises(AccessError, match="never used"):
        store.new("gpu-7", "driver")
    store.revoke("gpu-7")
    with pytest.raises(AccessError, match="never used"):
        store.new("gpu-7", "node")
    with pytest.raises(AccessError, match="not for 'root'"):
        store.new("gpu-8", "root")
    with pytest.raises(AccessError, match="no key named 'gpu-8'"):
        store.revoke("gpu-8")
    monkeypatch.setattr(limits, "access_keys_max", 1)
    with pytest.raises(AccessError, match="full"):
        store.new("gpu-9", "node")


def test_who_is_allowed(store):
    assert store.allowed() == {store.cluster_key().public: (HEAD, HEAD)}
    node, driver = store.new("gpu-7", "node"), store.new("ada", "driver")
    assert store.identify(node.keys.public) == ("gpu-7", "node")
    assert store.identify(driver.keys.public) == ("ada", "driver")
    store.revoke("gpu-7")
    assert store.identify(node.keys.public) is None
    assert store.identify(new_key_pair().public) is None
    assert set(store.allowed().values()) == {(HEAD, HEAD), ("ada", "driver")}
    assert [(key.name, key.role, key.revoked_at > 0) for key in store.list()] == [
        ("gpu-7", "node", True),
        ("ada", "driver", False),
    ]
    assert not node.path.exists() and driver.path.exists()


def test_a_revocation_is_on_disk_and_reaches_other_processes_once(store):
    told = []
    watching = KeyStore(store.directory, on_revoked=told.append)
    node, other = store.new("gpu-7", "node"), store.new("gpu-8", "node")
    assert watching.identify(node.keys.public) is not None
    code = "import sys; from actorlib.transport.drivers.keys import KeyStore; KeyStore(sys.argv[1]).revoke('gpu-7')"
    subprocess.run([sys.executable, "-c", code, str(store.directory)], check=True, timeout=30)
    assert watching.identify(node.keys.public) is None
    assert watching.refresh() == ()
    watching.revoke("gpu-7")
    watching.revoke("gpu-8")
    assert told == ["gpu-7", "gpu-8"]
    assert KeyStore(store.directory).identify(other.keys.public) is None


def test_a_write_that_fails_changes_nothing_and_leaves_no_file(store, monkeypatch):
    node = store.new("gpu-7", "node")
    files = sorted(store.directory.iterdir())

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.revoke("gpu-7")
    with pytest.raises(OSError, match="No space"):
        store.new("gpu-8", "node")
    monkeypatch.undo()
    assert sorted(store.directory.iterdir()) == files
    assert KeyStore(store.directory).identify(node.keys.public) == ("gpu-7", "node")
    store.revoke("gpu-7")
    assert store.identify(node.keys.public) is None


def test_it_is_on_disk_before_it_takes_the_place_of_the_old_one(store, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (order.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))), fsync(fd))
    )
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append("replace"), replace(old, new)))
    store.new("gpu-7", "node")
    order.clear()
    store.revoke("gpu-7")
    assert order[0].startswith(".register.json.") and order[1:] == ["replace", "keys"]


def test_many_at_a_time_lose_no_key(store):
    stores = [KeyStore(store.directory) for _ in range(4)]

    def make(number):
        for count in range(5):
            stores[number].new(f"key-{number}-{count}", "node")
            if count % 2:
                stores[(number + 1) % 4].revoke(f"key-{number}-{count}")

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = store.list()
    assert len(keys) == 20 and sum(key.revoked_at > 0 for key in keys) == 8


@pytest.mark.parametrize("damage", ["gone", "newer", "cut", "entries"])
def test_a_register_that_cannot_be_read_admits_nobody_new_and_says_why(store, damage):
    node = store.new("gpu-7", "node")
    assert store.identify(node.keys.public) is not None
    register = store.directory / "register.json"
    texts = {
        "newer": '{"version": 2, "keys": []}',
        "cut": '{"version": 1, "ke',
        "entries": '{"version":1,"keys":[["x"]]}',
    }
    register.unlink() if damage == "gone" else register.write_text(texts[damage])
    wanted = {"gone": "has gone", "newer": "version 2", "cut": "damaged", "entries": "damaged"}[damage]
    for act in (lambda: store.identify(node.keys.public), store.list, lambda: store.new("gpu-8", "node")):
        with pytest.raises(AccessError, match=wanted):
            act()
    if damage == "gone":
        return
    with pytest.raises(AccessError, match=wanted):
        KeyStore(store.directory)


# -- sockets with access -----------------------------------------------------------------------------------------------
class Host:
    """``Sockets`` as a process has them, with its access."""

    def __init__(self, keys, is_allowed, server_keys, endpoint=";tcp://127.0.0.1:*;"):
        self.access = Access(keys, is_allowed)
        self.id = new_process_id()
        self.sockets = Sockets(self.id, endpoint, self.access)
        local, remote, key = parse(self.sockets.endpoint)
        self.endpoint = remote or local
        server_keys[self.endpoint] = key
        self.names, self.server_keys = {}, server_keys

    def dial(self, other):
        self.names[other.id] = other.id + b"1"
        self.sockets.connect(self.names[other.id], other.endpoint, self.server_keys[other.endpoint])

    def send(self, other, text):
        """False when the connection isn't there (yet, or for good)."""
        try:
            self.sockets.outbox.send_multipart([self.names[other.id], text], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            assert error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN)
            return False
        return True

    def receive(self, timeout_s=0.0):
        """The next message: who has proved a key for it, what it says they are called, what it says."""
        if not self.sockets.inbox.poll(int(timeout_s * 1000)):
            return None
        frames = self.sockets.inbox.recv_multipart(copy=False)
        return sender_of(frames[-1]), frames[0].bytes, frames[-1].bytes


@pytest.fixture
def hosts(store):
    """A head, and whoever else is made; all know each other's server keys."""
    server_keys, made = {}, []

    def make(keys=None, is_allowed=None, **options):
        made.append(Host(keys or store.cluster_key(), is_allowed or store.identify, server_keys, **options))
        return made[-1]

    yield make
    for host in made:
        host.sockets.close(linger_ms=0)


def arrives(sender, receiver, text, timeout_s=PATIENCE_S):
    """Say it until it is heard; what the receiver made of it."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        sender.send(receiver, text)
        while (message := receiver.receive(0.02)) is not None:
            if message[2] == text:
                return message
    return None


def test_messages_carry_the_name_that_their_sender_has_proved(hosts, store):
    head, node = hosts(), hosts(store.new("gpu-7", "node").keys)
    node.dial(head)
    assert arrives(node, head, b"hello") == (("gpu-7", "node"), node.id, b"hello")
    head.dial(node)
    assert arrives(head, node, b"welcome") == ((HEAD, HEAD), head.id, b"welcome")


def test_what_a_peer_says_of_its_own_role_is_not_believed(hosts, store, context):
    head = hosts()
    keys = store.new("ada", "driver").keys
    with context.socket(zmq.DEALER) as liar:
        liar.setsockopt(zmq.METADATA, b"X-Role:head")
        Access(keys, nobody).secure_client(liar, store.cluster_key().public)
        liar.connect(head.endpoint)
        liar.send(b"hello")
        assert head.receive(PATIENCE_S)[0] == ("ada", "driver")


def test_local_endpoints_are_as_they_were(tmp_path, hosts, store):
    local, head = hosts(endpoint=f"ipc://{tmp_path}/local"), hosts()
    assert local.sockets.inbox.mechanism == zmq.NULL
    node = hosts(store.new("gpu-7", "node").keys)
    for other in (head, local):  # one outbox: CURVE first, and none after that
        node.dial(other)
    assert arrives(node, local, b"hello") == (None, node.id, b"hello")
    assert arrives(node, head, b"hello") == (("gpu-7", "node"), node.id, b"hello")
    assert node.sockets.outbox.maxmsgsize == limits.frame_bytes_max


def test_nothing_is_on_tcp_without_keys():
    for endpoint in ("tcp://127.0.0.1:*", ";tcp://127.0.0.1:*;"):
        with pytest.raises(ValueError, match="nothing is without keys"):
            Sockets(new_process_id(), endpoint)


def test_without_access_sockets_have_no_curve_and_no_handler(tmp_path):
    plain = Sockets(new_process_id(), f"ipc://{tmp_path}/plain")
    try:
        assert plain.inbox.mechanism == plain.outbox.mechanism == zmq.NULL
        assert plain.inbox.maxmsgsize == limits.frame_bytes_max
        assert not [thread for thread in threading.enumerate() if thread.name == "actorlib-zap"]
    finally:
        plain.close()


def test_nobody_dials_who_can_not_be_told_from_an_impostor(hosts):
    head = hosts()
    with pytest.raises(AccessError, match=r"the key of tcp://127.0.0.1:1 is not known"):
        head.sockets.connect(b"name", "tcp://127.0.0.1:1")


def test_an_address_that_is_not_ours_leaves_nothing_behind(store):
    access = Access(store.cluster_key(), store.identify)
    with pytest.raises(zmq.ZMQError):
        Sockets(new_process_id(), ";tcp://192.0.2.1:*;", access)
    assert access.handler is None


# -- revocation --------------------------------------------------------------------------------------------------------
def test_a_revoked_key_is_cut_off_at_once_and_the_others_come_back(hosts, store):
    head, bad, good = hosts(), hosts(store.new("bad", "node").keys), hosts(store.new("good", "node").keys)
    ended = []
    store.register.on_revoked = lambda name: ended.append((name, head.access.drop(name)))
    for node in (bad, good):
        node.dial(head)
        assert arrives(node, head, b"hello")
    store.revoke("bad")
    assert ended == [("bad", 2)]  # good has the same address
    assert arrives(good, head, b"here again")[0] == ("good", "node")
    assert arrives(bad, head, b"me too", timeout_s=0.5) is None
    assert eventually(lambda: not bad.send(head, b"me too"))
    fresh = hosts(bad.access._keys)
    fresh.dial(head)
    assert arrives(fresh, head, b"a new connection", timeout_s=0.3) is None


def test_a_connection_that_never_sent_anything_is_cut_off_as_well(hosts, store, context):
    head = hosts()
    keys = store.new("quiet", "driver").keys
    with context.socket(zmq.DEALER) as quiet:
        Access(keys, nobody).secure_client(quiet, store.cluster_key().public)
        with quiet.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED) as monitor:
            quiet.connect(head.endpoint)
            assert recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
            store.register.on_revoked = head.access.drop
            store.revoke("quiet")
            assert monitor.poll(int(PATIENCE_S * 1000))
            assert recv_monitor_message(monitor)["event"] == zmq.EVENT_DISCONNECTED
            quiet.disable_monitor()


def test_only_connections_at_our_port_from_those_addresses_are_ended():
    with sockets.create_server(("127.0.0.1", 0)) as listener, sockets.create_server(("127.0.0.1", 0)) as another:
        port = listener.getsockname()[1]
        pairs = [(sockets.create_connection(at.getsockname()), at.accept()[0]) for at in (listener, another)]
        assert end_connections(port, {"192.0.2.1"}) == 0
        assert end_connections(port, set()) == 0
        assert end_connections(port, {"::ffff:127.0.0.1"}) == 1
        assert pairs[0][0].recv(1) == b""
        pairs[1][1].send(b"x")
        assert pairs[1][0].recv(1) == b"x"
        assert end_connections(another.getsockname()[1], None) == 1
        listener.settimeout(PATIENCE_S)
        pairs.append((sockets.create_connection(listener.getsockname()), listener.accept()[0]))  # it listens still
        for ours, theirs in pairs:
            ours.close()
            theirs.close()


def test_a_key_seen_in_too_many_places_is_cut_off_everywhere(context, monkeypatch):
    monkeypatch.setattr(limits, "access_addresses_max", 2)
    handler = ZapHandler(context, known)
    try:
        assert handler.addresses("gpu-7") == set()
        for address in (b"10.0.0.1", b"10.0.0.2", b"10.0.0.2"):
            ask(context, [*GOOD[:3], address, *GOOD[4:]])
        ask(context, [*GOOD[:3], b"10.0.0.9", *GOOD[4:6], b"j" * 32])
        assert handler.addresses("gpu-7") == {"10.0.0.1", "10.0.0.2"}
        ask(context, [*GOOD[:3], b"10.0.0.3", *GOOD[4:]])
        assert handler.addresses("gpu-7") is None
    finally:
        handler.close()


# -- strangers ---------------------------------------------------------------------------------------------------------
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)


def strangers(head, count):
    address = ("127.0.0.1", port_of(head.endpoint))
    return [sockets.create_connection(address, timeout=PATIENCE_S) for _ in range(count)]


def is_closed(connection):
    """Whether the other end has closed it; what it has sent before is thrown away."""
    connection.settimeout(0)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return True


def test_who_says_nothing_is_shown_the_door(hosts, monkeypatch):
    monkeypatch.setattr(limits, "handshake_timeout_s", 0.3)
    (silent,) = strangers(hosts(), 1)
    with silent:
        assert not is_closed(silent)
        assert eventually(lambda: is_closed(silent))


def test_a_trickle_does_not_buy_time(hosts, monkeypatch):
    monkeypatch.setattr(limits, "handshake_timeout_s", 0.3)
    (slow,) = strangers(hosts(), 1)
    with slow:
        for octet in GREETING:
            if is_closed(slow):
                break
            slow.setblocking(True)
            with contextlib.suppress(ConnectionError):
                slow.send(bytes([octet]))
            time.sleep(0.02)
        else:
            raise AssertionError("it was let finish")


@pytest.mark.parametrize("flags", [6, 2], ids=["command", "message"])
def test_an_unproved_connection_cannot_make_us_hold_a_large_frame(hosts, monkeypatch, flags):
    monkeypatch.setattr(limits, "tcp_frame_bytes_max", 1 << 20)
    monkeypatch.setattr(limits, "handshake_timeout_s", PATIENCE_S * 10)  # so that it is not this that ends it
    (greedy,) = strangers(hosts(), 1)
    with greedy:
        greedy.sendall(GREETING + bytes([flags]) + struct.pack(">Q", (1 << 20) + 1))
        assert eventually(lambda: is_closed(greedy))


def test_connections_that_prove_nothing_are_bounded_and_do_not_keep_others_out_for_long(hosts, store, monkeypatch):
    monkeypatch.setattr(limits, "handshakes_max", 5)
    monkeypatch.setattr(limits, "handshake_timeout_s", 1.0)
    head = hosts()
    crowd = strangers(head, 40)
    try:
        assert eventually(lambda: sum(not is_closed(connection) for connection in crowd) <= 5)
        node = hosts(store.new("gpu-7", "node").keys)
        node.dial(head)
        assert arrives(node, head, b"hello")[0] == ("gpu-7", "node")
    finally:
        for connection in crowd:
            connection.close()


def test_many_that_prove_their_keys_at_a_time_are_not_counted_against_each_other(hosts, store, monkeypatch):
    monkeypatch.setattr(limits, "handshakes_max", 5)
    head = hosts()
    nodes = [hosts(store.new(f"gpu-{number}", "node").keys) for number in range(20)]
    for node in nodes:
        node.dial(head)
    for number, node in enumerate(nodes):
        assert arrives(node, head, b"hello %d" % number)[0] == (f"gpu-{number}", "node")


def test_unproved_connections_are_those_accepted_lately_less_the_proofs(monkeypatch):
    monkeypatch.setattr(limits, "handshakes_max", 2)
    monkeypatch.setattr(limits, "handshake_timeout_s", 5.0)
    count = Handshakes()
    assert count.accepted(0.0, 10) and count.accepted(0.1, 11)
    assert not count.accepted(0.2, 12)
    count.ended(12)
    count.proved(0.3)
    assert count.accepted(0.4, 12)
    assert not count.accepted(0.5, 13)
    count.ended(13)
    assert count.accepted(5.05, 14)  # 10 has had its time
    assert not count.accepted(5.05, 15)
    count.ended(15)
    assert count.accepted(11.0, 15) and count.accepted(11.0, 16) and not count.accepted(11.0, 17)


def test_a_stuck_handler_does_not_stop_the_connections_that_there_are(hosts, store):
    """libzmq's I/O thread waits for whoever takes a monitor's events, unless there is room for them without end."""
    stuck, go_on = threading.Event(), threading.Event()
    second = new_key_pair().public

    def is_allowed(public):
        if public == second:
            stuck.set()
            go_on.wait(PATIENCE_S * 10)
        return store.identify(public)

    head, node = hosts(is_allowed=is_allowed), hosts(store.new("gpu-7", "node").keys)
    node.dial(head)
    assert arrives(node, head, b"hello")
    late = zmq.Context()
    try:
        blocker = late.socket(zmq.DEALER)
        blocker.linger = 0
        pair = new_key_pair()
        second = pair.public
        Access(pair, nobody).secure_client(blocker, store.cluster_key().public)
        blocker.connect(head.endpoint)
        assert stuck.wait(PATIENCE_S)
        for _ in range(1500):  # more events than a socket's usual high-water mark
            strangers(head, 1)[0].close()
        assert arrives(node, head, b"still here")
    finally:
        go_on.set()
        late.destroy(linger=0)
