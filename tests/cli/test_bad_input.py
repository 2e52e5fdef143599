"""What users get wrong at the command line: each a clear line, an exit code, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading

import lmdb
import pytest

from actorlib.transport.drivers.keys import KeyStore, new_key_pair

pytest.importorskip("click")
pytest.importorskip("rich")
TIMEOUT_S = 90


def actorlib(*arguments, code=0):
    command = [sys.executable, "-m", "actorlib.cli", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S)
    assert done.returncode == code, f"exit code {done.returncode}: {done.stdout}"
    assert "Traceback" not in done.stdout
    return " ".join(done.stdout.split())


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bad") / "head"
    text = actorlib("start", "--head", "--port", 0, "--dir", directory, "--num-cpus", 1)
    address = re.search(r"cluster at (\S+) is up", text)[1]
    yield address, directory
    actorlib("stop", "--address", address)


def join(address, key, *more, code=1):
    return actorlib("start", "--address", address, "--key", key, "--wait", 1, *more, code=code)


@contextlib.contextmanager
def stranger(greeting):
    """A port at which somebody else answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    callers.append(connection)
                    connection.sendall(greeting)

        callers = []
        answering = threading.Thread(target=answer)
        answering.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        answering.join()
        for connection in callers:
            connection.close()


def rewritten(path, target, **changes):
    target.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    target.chmod(0o600)
    return target


def test_keys_that_are_not_admitted(head, tmp_path):
    address, directory = head
    store = KeyStore(directory / "keys")
    good = store.new("good", "node").path
    pair, other = new_key_pair(), new_key_pair()
    text = {"public": pair.public.decode(), "secret": pair.secret.decode()}
    unknown = rewritten(good, tmp_path / "unknown.key", **text)
    assert "does not know our key, or it was revoked" in join(address, unknown)
    elsewhere = rewritten(good, tmp_path / "elsewhere.key", server=other.public.decode())
    assert "does not prove the key" in join(address, elsewhere)
    revoked = rewritten(store.new("revoked", "node").path, tmp_path / "revoked.key")
    actorlib("keys", "revoke", "revoked", "--dir", directory)
    assert "does not know our key, or it was revoked" in join(address, revoked)
    assert "is the key of a driver" in join(address, store.new("ada", "driver").path)
    damaged = tmp_path / "damaged.key"
    damaged.write_text("{}")
    damaged.chmod(0o600)
    assert "is no key file" in join(address, damaged)
    good.chmod(0o644)
    assert "is open to others" in join(address, good)


def test_no_key_and_no_file(head, tmp_path):
    address, _ = head
    assert "--address needs --key" in actorlib("start", "--address", address, code=2)
    assert "can't read" in join(address, tmp_path / "nothing.key")


def test_places_where_there_is_no_head(head, tmp_path):
    _, directory = head
    key = KeyStore(directory / "keys").new("lost", "node").path
    assert "nobody listened" in join("127.0.0.1:1", key)
    assert "is not HOST:PORT" in join("127.0.0.1", key, code=2)
    for greeting in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
        with stranger(greeting) as port:
            assert "does not" in join(f"127.0.0.1:{port}", key)
    assert "no node of" in actorlib("stop", "--address", "127.0.0.1:1", code=1)
    assert "no node of the cluster at 127.0.0.1:1" in actorlib("status", "--address", "127.0.0.1:1", code=1)
    assert "is no head's directory" in actorlib("keys", "list", "--dir", tmp_path, code=1)


def test_a_head_that_is_not_up_yet_is_waited_for(tmp_path):
    store = KeyStore(tmp_path / "head" / "keys")
    key = store.new("early", "node").path
    from actorlib.runtime.drivers.cluster_node import _free_port

    address = f"127.0.0.1:{_free_port('127.0.0.1')}"
    command = ["-m", "actorlib.cli", "start", "--address", address, "--key", key, "--wait", "60", "--num-cpus", "1"]
    early = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert f"waiting for tcp://{address}" in early.stderr.readline()
        actorlib("start", "--head", "--port", address.split(":")[1], "--dir", tmp_path / "head", "--num-cpus", 1)
        out, _ = early.communicate(timeout=TIMEOUT_S)
        assert early.returncode == 0 and "is up" in out
    finally:
        early.kill()
        early.wait()
        actorlib("stop", "--address", address)


def test_two_heads_with_one_directory(head):
    _, directory = head
    assert "another head uses" in actorlib("start", "--head", "--port", 0, "--dir", directory, code=1)


def test_a_port_that_is_taken(head, tmp_path):
    port = head[0].split(":")[1]
    text = actorlib("start", "--head", "--port", port, "--dir", tmp_path / "other", code=1)
    assert "in use" in text and "could not be started" in text


def test_a_directory_of_a_newer_version(tmp_path):
    directory = tmp_path / "gcs"
    directory.mkdir(parents=True)
    with lmdb.open(str(directory), max_dbs=2) as journal, journal.begin(write=True) as transaction:
        transaction.put(b"format", b"99", db=journal.open_db(b"meta", txn=transaction))
    text = actorlib("start", "--head", "--port", 0, "--dir", tmp_path, code=1)
    assert "written in format 99" in text and "install the newer actorlib" in text


def test_arguments_that_do_not_parse(tmp_path):
    common = ("start", "--head", "--port", 0, "--dir", tmp_path)
    assert "no address of this machine" in actorlib(*common, "--node-ip", "192.0.2.1", code=2)
    assert "can't be used" in actorlib(*common, "--resources", "disk=2", code=2)
    assert "can't be used" in actorlib(*common, "--resources", '{"CPU": 2}', code=2)
    assert "can't be used" in actorlib(*common, "--labels", '{"zone": 1}', code=2)
    assert "--num-cpus" in actorlib(*common, "--num-cpus", "-1", code=2)
    assert "either --head, or --address" in actorlib("start", code=2)
    assert os.listdir(tmp_path) == []
