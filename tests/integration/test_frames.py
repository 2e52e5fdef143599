"""Bytes that are no messages of ours, at every socket of a session: each is refused, and the session goes on."""

from __future__ import annotations

import contextlib
import glob
import os
import random
import socket
import stat
import struct
import typing

import pytest
import zmq

import actorlib
from actorlib.transport import codec, limits, messages
from actorlib.transport.drivers.shortcuts import SUFFIX
from actorlib.transport.ids import JobId, NodeId, new_process_id
from actorlib.transport.link import Address
from actorlib.transport.session import HEADER, VERSION
from tests.conftest import eventually

pytestmark = pytest.mark.usefixtures("shared_local")

# What ends a process, or joins a node, by order: whoever may enter the directory of the sockets may give such orders.
ORDERS = (
    "NodeRegister",
    "KillProcess",
    "JobEnded",
    "Goodbye",
    "LogRefused",
    "LogNotKept",
    "Refused",
)


@actorlib.remote
def add(a, b):
    return a + b


@actorlib.remote
class Echo:
    def same(self, value):
        return value


@pytest.fixture
def session():
    """A session whose node, driver and workers, an actor's among them, have a socket each; at its end all serve."""
    echo = Echo.remote()
    assert actorlib.get([echo.same.remote(5), add.remote(1, 2)], timeout=20) == [5, 3]
    yield sockets()
    assert actorlib.get([echo.same.remote(i) for i in range(20)], timeout=20) == list(range(20))
    assert actorlib.get([add.remote(i, 1) for i in range(100)], timeout=20) == list(range(1, 101))
    engine = actorlib.engine.Slot.engine
    engine.loop.run(engine.check)
    assert len(actorlib.nodes()) == 1


def sockets() -> list[str]:
    directory = actorlib.engine.Slot.engine.address_info["session_dir"]
    found = [path for path in glob.glob(f"{directory}/*") if os.path.exists(path) and is_socket(path)]
    found = [path for path in found if not path.endswith(SUFFIX)]
    assert len(found) >= 4, "the node, the driver, a worker and an actor"
    return [f"ipc://{path}" for path in sorted(found)]


def shortcuts(endpoints: list[str]) -> list[str]:
    """Their paths. A worker that is just starting binds its shortcut last; one that has ended since has none."""
    paths = [endpoint.removeprefix("ipc://") for endpoint in endpoints]
    assert eventually(lambda: all(os.path.exists(path + SUFFIX) or not os.path.exists(path) for path in paths), 20)
    found = [path + SUFFIX for path in paths if os.path.exists(path + SUFFIX)]
    assert len(found) >= 2, "the node and the driver"
    return found


def is_socket(path: str) -> bool:
    return stat.S_ISSOCK(os.stat(path).st_mode)


def knock(raw: socket.socket, path: str) -> bool:
    """Connect, or False if the socket goes meanwhile: a worker that is starting has bound its path before it listens
    at it, and the path of one that is ending goes after its socket. A queue that is full is asked again as well."""

    def is_settled() -> bool:
        with contextlib.suppress(ConnectionRefusedError, BlockingIOError):
            raw.connect(path)
            return True
        return not os.path.exists(path)

    with contextlib.suppress(FileNotFoundError):
        eventually(is_settled, otherwise=lambda: f"nobody listens at {path}")
        return os.path.exists(path)
    return False


@contextlib.contextmanager
def stranger(endpoint: str):
    """A connection of our own making."""
    process_id = new_process_id()
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 300)
        dealer.setsockopt(zmq.ROUTING_ID, process_id)
        dealer.connect(endpoint)
        yield process_id, dealer


def hello_of(process_id: bytes) -> messages.Hello:
    address = Address(process_id, NodeId(process_id), "")
    return messages.Hello(messages.PROTOCOL_VERSION, address, "worker", os.getpid(), JobId(b"j" * 8), "3.11")


def header(sequence: int) -> bytes:
    return HEADER.pack(VERSION, 0, 0, 1, sequence, 0)


def test_random_frames(session):
    rng = random.Random(7)
    for endpoint in session:
        for _ in range(10):
            with stranger(endpoint) as (_, dealer):
                for _ in range(5):
                    dealer.send_multipart([rng.randbytes(rng.randrange(200)) for _ in range(rng.randrange(1, 4))])


def test_a_body_that_is_none_behind_a_good_header(session):
    rng = random.Random(8)
    bodies = [b"", b"\xc1", b"\x91" * 2000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x91\x91\xcd\xff\xff"]
    bodies += [rng.randbytes(60) for _ in range(20)]
    for endpoint in session:
        for body in bodies:
            with stranger(endpoint) as (_, dealer):
                dealer.send(header(1) + body)


def test_who_lies_about_itself(session):
    for endpoint in session:
        for liar in (
            hello_of(b"x" * 8),
            hello_of(b"x" * 8)._replace(protocol_version=999),
            messages.DebugPing(1, b"no greeting"),
        ):
            with stranger(endpoint) as (_, dealer):
                dealer.send(header(1) + codec.encode_batch([liar])[0])


def test_mutated_messages_of_a_known_peer(session, capfd):
    rng = random.Random(9)
    call = messages.Call(b"t" * 16, "method", b"args", ((b"o", ("p", "n", ""), None),), 1, 0, {"depth": 2})
    lease = messages.LeaseRequest(1, b"j" * 8, {"CPU": 10_000}, ("default",), "", 1, 0, 1, (), 0, "f")
    for endpoint in session:
        with stranger(endpoint) as (process_id, dealer):
            dealer.send(header(1) + codec.encode_batch([hello_of(process_id)])[0])
            for number in range(200):
                batch = [messages.RunTasks(b"l" * 16, b"j" * 8, "n", 3, None, (call,)), lease, messages.Done(4)]
                body = bytearray(codec.encode_batch(batch)[0])
                for _ in range(rng.randrange(1, 5)):
                    body[rng.randrange(len(body))] = rng.randrange(256)
                dealer.send(header(2 + number) + bytes(body))


def test_amounts_that_are_no_numbers_never_reach_the_scheduler(session):
    lease = messages.LeaseRequest(1, b"j" * 8, {"CPU": "one"}, ("default",), "", 1, 0, 1, (), 0, "f")
    with pytest.raises(codec.MalformedBatch, match="an item is a str, not int"):
        codec.decode_batch(codec.encode_batch([lease])[0])
    for endpoint in session:
        with stranger(endpoint) as (process_id, dealer):
            dealer.send(header(1) + codec.encode_batch([hello_of(process_id), lease])[0])


def test_each_message_from_somebody_it_does_not_come_from(session, capfd):
    """Well formed, but out of place: an answer to nothing, a call to no actor, a lease of nobody."""
    for endpoint in session:
        for code, kind, _ in messages.TABLE:
            if code >= 100 or kind.__name__ in ORDERS or kind is messages.Hello:  # above: what only the GCS may say
                continue
            with stranger(endpoint) as (process_id, dealer):
                dealer.send(header(1) + codec.encode_batch([hello_of(process_id), plain_instance(kind)])[0])


def plain_instance(kind):
    """The message with the plainest value in each field."""

    def plain(annotation):
        if hasattr(annotation, "__supertype__"):
            return bytes(8)
        if isinstance(annotation, type) and hasattr(annotation, "_fields"):
            return plain_instance(annotation)
        if typing.get_origin(annotation) is not None:
            arguments = typing.get_args(annotation)
            return None if type(None) in arguments else typing.get_origin(annotation)()
        return {typing.Any: b"", int: 1 << 40, bool: False, str: "x", bytes: b"x", float: 0.5, tuple: (), dict: {}}[
            annotation
        ]

    hints = typing.get_type_hints(kind)
    return kind._make([plain(hints[name]) for name in kind._fields])


def test_batches_above_the_limits(session):
    for endpoint in session[:2]:
        with stranger(endpoint) as (process_id, dealer):
            dealer.send(header(1) + codec.encode_batch([hello_of(process_id)])[0])
            dealer.send(header(2) + bytes(limits.batch_body_bytes_max + 1), copy=False)
        with stranger(endpoint) as (process_id, dealer):
            dealer.send(header(1) + codec.encode_batch([hello_of(process_id)])[0])
            dealer.send_multipart([header(2) + b"\x90", *[b""] * (limits.frames_per_batch_max + 1)])


def test_a_frame_that_is_announced_as_larger_than_any_may_be_ends_the_connection(session):
    """By hand, in the bytes of ZMTP 3.0: nothing of that size is ever sent or allocated."""
    for endpoint in session:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.settimeout(20)
            if not knock(raw, endpoint.removeprefix("ipc://")):
                continue
            raw.sendall(b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31))
            ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
            raw.sendall(b"\x04" + bytes([len(ready)]) + ready)
            raw.sendall(b"\x02" + struct.pack(">Q", limits.frame_bytes_max + 1))
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                while raw.recv(4096):
                    continue  # its greeting; then it hangs up


def test_raw_bytes_that_are_not_even_zmtp(session):
    rng = random.Random(10)
    for endpoint in session:
        for _ in range(5):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    if knock(raw, endpoint.removeprefix("ipc://")):
                        raw.sendall(rng.randbytes(500))


def test_strangers_at_the_shortcuts(session):
    """Names of nobody, of others, and no names at all: each is hung up on."""
    rng = random.Random(11)
    driver = actorlib.engine.Slot.engine.address.process_id
    names = [b"x", rng.randbytes(12), driver + bytes(4), driver + b"\1\0\0\0", rng.randbytes(60_000)]
    for path in shortcuts(session):
        for name in names:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
                raw.settimeout(20)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    if knock(raw, path):
                        raw.send(name)
                        assert raw.recv(100) == b""


def test_who_knocks_at_a_shortcut_and_says_nothing_keeps_nobody_out(session):
    """More of them than a process has shortcuts: it has no more, and works without."""
    for path in shortcuts(session)[:2]:
        with contextlib.ExitStack() as stack:
            for _ in range(limits.shortcuts_max + 10):
                raw = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                knock(raw, path)
            assert actorlib.get([add.remote(i, 1) for i in range(100)], timeout=20) == list(range(1, 101))


def test_orders_that_only_the_node_or_the_gcs_may_give(session, capfd):
    """Each of them ends what it reaches, or makes it begin anew, when it comes from them; from others it is nothing."""
    orders = [messages.GcsStarted(99), messages.StopWorker("forged", False), messages.DrainAndExit("forged")]
    orders += [messages.ShutdownNode("forged"), plain_instance(messages.CreateActor)]
    pids = sorted(row["pid"] for row in actorlib.engine.Slot.engine.node_status()["workers"])
    for endpoint in session:
        with stranger(endpoint) as (process_id, dealer):
            dealer.send(header(1) + codec.encode_batch([hello_of(process_id), *orders])[0])
    assert actorlib.get([add.remote(i, 1) for i in range(100)], timeout=20) == list(range(1, 101))
    assert set(pids) <= {row["pid"] for row in actorlib.engine.Slot.engine.node_status()["workers"]}
