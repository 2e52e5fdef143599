"""The short way between processes of one node: used where it is there, missed by nobody where it is not."""

from __future__ import annotations

import os
import socket

from actorlib.transport import limits, messages
from actorlib.transport.drivers.shortcuts import SUFFIX


def echo(link, message):
    link.send(messages.DebugPong(*message))


class Asker:
    """Asks a server one question after the other, and sees to it that answers come in order."""

    def __init__(self, loop_of, server, **options):
        self.got = []
        self.server = server
        self.loop = loop_of({messages.DebugPong: lambda _, message: self.got.append(message)}, **options)

    def ask(self, payload=b"x"):
        number = len(self.got)
        question = messages.DebugPing(number, payload)
        self.loop.post(lambda _: self.link().send(question), None)
        assert self.loop.drive(lambda: len(self.got) > number, 20)
        assert self.got[number] == (number, payload)

    def link(self):
        return self.loop.link(self.server.address)

    def use_shortcut(self):
        """Ask until there is a shortcut."""
        for _ in range(100):
            self.ask()
            if self.shortcut() is not None:
                return self.shortcut()
        raise AssertionError("there is no shortcut after 100 questions")

    def shortcut(self):
        return self.loop.run(self.link).shortcut


def accepted(server, client):
    return server.run(lambda: server.accepted_link(client.address.process_id))


def test_a_link_gets_a_shortcut_once_both_sides_have_spoken(loops):
    server = loops({messages.DebugPing: echo})
    asker = Asker(loops, server)
    asker.ask()
    assert asker.shortcut() is None, "who is talked to once does without"
    asker.use_shortcut()
    assert accepted(server, asker.loop).shortcut is not None
    for _ in range(100):
        asker.ask()


def test_order_is_kept_between_both_ways(loops):
    """What is too large for the shortcut goes over ZeroMQ, and what is sent after it does not come before it."""
    got = []
    server = loops({messages.DebugPing: lambda link, message: (got.append(message.request_id), echo(link, message))})
    asker = Asker(loops, server)
    asker.use_shortcut()
    del got[:]
    first, link = len(asker.got), asker.loop.run(asker.link)

    def send(number):
        payload = bytes(limits.shortcut_packet_bytes_max + 1) if number % 3 == 0 else b"small"
        link.send(messages.DebugPing(number, payload))

    for number in range(60):
        asker.loop.run(lambda number=number: send(number))
    assert asker.loop.drive(lambda: len(asker.got) == first + 60, 20)
    assert got == list(range(60))
    assert [message.request_id for message in asker.got[first:]] == list(range(60))


def test_a_shortcut_that_is_full_is_gone_round(loops):
    """The server looks at nothing for a while: thousands of batches fit into no shortcut, and none is lost."""
    server = loops({messages.DebugPing: echo}, helper=False)
    asker = Asker(loops, server)

    def turn_both(until):
        for _ in range(10_000):
            if until():
                return True
            server.drive(until, 0.001)
            asker.loop.drive(until, 0.001)
        return False

    for number in range(10):
        asker.loop.post(lambda _, number=number: asker.link().send(messages.DebugPing(number, b"")), None)
        assert turn_both(lambda number=number: len(asker.got) == number + 1)
    assert asker.shortcut() is not None
    for number in range(10, limits.session_batches_in_flight_max):
        asker.loop.run(lambda number=number: asker.link().send(messages.DebugPing(number, bytes(1000))))
    assert turn_both(lambda: len(asker.got) == limits.session_batches_in_flight_max)
    assert [message.request_id for message in asker.got] == list(range(limits.session_batches_in_flight_max))


def test_what_is_lost_with_a_shortcut_is_sent_again(loops):
    server = loops({messages.DebugPing: echo})
    asker = Asker(loops, server)
    shortcut = asker.use_shortcut()
    theirs = accepted(server, asker.loop).shortcut
    shortcut.socket.shutdown(socket.SHUT_RD)  # what the server says in it from now on is lost
    for _ in range(3):
        asker.ask()
    assert asker.shortcut() is None
    assert server.drive(lambda: not theirs.socket.fileno() >= 0, 20), "the server has let go of it as well"


def test_no_shortcut_for_who_is_not_the_process_that_said_hello(loops):
    server = loops({messages.DebugPing: echo})
    asker = Asker(loops, server, os_pid=1)
    for _ in range(20):
        asker.ask()
    assert asker.shortcut() is None and accepted(server, asker.loop).shortcut is None


def test_no_shortcut_between_nodes(loops):
    server = loops({messages.DebugPing: echo}, node=b"m" * 8)
    asker = Asker(loops, server)
    for _ in range(20):
        asker.ask()
    assert asker.shortcut() is None


def test_a_peer_without_shortcuts_is_reached_all_the_same(loops):
    server = loops({messages.DebugPing: echo})
    os.unlink(server.address.endpoint.removeprefix("ipc://") + SUFFIX)
    asker = Asker(loops, server)
    for _ in range(20):
        asker.ask()
    assert asker.shortcut() is None


def test_a_dropped_link_takes_its_shortcut_with_it_and_the_next_one_gets_another(loops):
    server = loops({messages.DebugPing: echo})
    asker = Asker(loops, server)
    first = asker.use_shortcut()
    asker.loop.run(lambda: asker.loop.drop_link(server.address.process_id, "again"))
    second = asker.use_shortcut()
    assert second is not first and first.socket.fileno() < 0


def test_rubbish_in_a_shortcut_ends_the_link(loops, capfd):
    downs = []
    server = loops({messages.DebugPing: echo}, lambda link, reason: downs.append(reason))
    asker = Asker(loops, server)
    asker.use_shortcut().send(b"\0" * 100)
    assert server.drive(lambda: bool(downs), 20)
    assert "malformed" in downs[0]


def test_no_more_shortcuts_than_the_limit(loops, monkeypatch):
    monkeypatch.setattr(limits, "shortcuts_max", 2)
    server = loops({messages.DebugPing: echo})
    askers = [Asker(loops, server) for _ in range(3)]
    for asker in askers:
        for _ in range(20):
            asker.ask()
    assert [asker.shortcut() is not None for asker in askers] == [True, True, False]
