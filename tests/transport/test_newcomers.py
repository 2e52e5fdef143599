"""A key that a node has not heard of yet is told to come again, for a moment; strangers gain nothing by that."""

from __future__ import annotations

import time

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from actorlib.transport import limits
from actorlib.transport.drivers.access import Access, ZapHandler
from actorlib.transport.drivers.keys import Identity, KeyStore, Register, new_key_pair
from actorlib.transport.newcomers import Newcomers, NotHeardOf

PATIENCE_MS = 20_000


def test_a_key_may_try_again_for_a_moment_once_in_a_while():
    newcomers = Newcomers()
    allowed = {0.0: True, 2.9: True, 3.0: False, 59.0: False, 60.0: True, 62.9: True, 63.0: False}
    assert {at: newcomers.may_try_again(at, b"key") for at in allowed} == allowed


def test_many_keys_at_a_time_are_refused_as_without_it():
    newcomers = Newcomers()
    keys = [number.to_bytes(4, "big") for number in range(limits.new_keys_waiting_max + 10)]
    assert [newcomers.may_try_again(0.0, key) for key in keys].count(True) == limits.new_keys_waiting_max
    assert not newcomers.may_try_again(limits.new_key_forgotten_s - 1, b"another")
    assert newcomers.may_try_again(limits.new_key_forgotten_s, b"another")


class Node:
    """A node whose register is a copy of a head's."""

    def __init__(self, directory):
        self.store = KeyStore(directory / "keys")
        self.old = self.store.new("old", "node").keys
        self.copy = Register(directory / "copy.json", self.store.cluster_key().public)
        self.hear()
        self.context = zmq.Context()
        self.handler = ZapHandler(self.context, self.copy.identify_or_wait)
        self.socket = self.context.socket(zmq.PULL)
        Access(self.store.cluster_key(), lambda _: None).secure_server(self.socket)
        self.socket.bind("tcp://127.0.0.1:*")
        self.guests = zmq.Context()
        self.dialling = []

    def hear(self):
        """What the head's register says by now."""
        self.store.register.refresh()
        self.copy.write(self.store.register.keys)
        self.copy.refresh()

    def dial(self, keys):
        guest = self.guests.socket(zmq.PUSH)
        Access(keys, lambda _: None).secure_client(guest, self.store.cluster_key().public)
        monitor = guest.get_monitor_socket()
        guest.connect(self.socket.last_endpoint)
        guest.send(b"hello")
        self.dialling.append((guest, monitor))
        return monitor

    def close(self):
        self.guests.destroy(linger=0)
        self.handler.close()
        self.context.destroy(linger=0)


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "handshake_timeout_s", 0.5)  # until then libzmq waits with who is to come again
    made = Node(tmp_path)
    yield made
    made.close()


def wait_for(monitor, event):
    while True:
        assert monitor.poll(PATIENCE_MS), f"event {event} did not come"
        if recv_monitor_message(monitor)["event"] == event:
            return


def test_whoever_dials_before_the_news_of_its_key_is_there_gets_in_when_it_is(node, monkeypatch):
    monkeypatch.setattr(limits, "new_key_grace_s", 20.0)
    keys = node.store.new("new", "node").keys
    monitor = node.dial(keys)
    wait_for(monitor, zmq.EVENT_DISCONNECTED)  # told to come again
    wait_for(monitor, zmq.EVENT_CONNECTED)
    node.hear()
    assert node.socket.poll(PATIENCE_MS) and node.socket.recv() == b"hello"


def test_a_stranger_is_refused_for_good_after_that(node, monkeypatch):
    monkeypatch.setattr(limits, "new_key_grace_s", 0.3)
    wait_for(node.dial(new_key_pair()), zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    assert not node.socket.poll(0)


def test_a_revoked_key_is_no_new_one(node):
    assert node.copy.identify_or_wait(node.old.public) == Identity("old", "node")
    node.store.revoke("old")
    node.hear()
    assert node.copy.identify_or_wait(node.old.public) is None
    began = time.monotonic()
    with pytest.raises(NotHeardOf):
        node.copy.identify_or_wait(new_key_pair().public)
    assert time.monotonic() - began < limits.new_key_grace_s  # it does not wait itself
