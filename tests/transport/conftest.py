"""Loops on real sockets, closed when the test ends."""

from __future__ import annotations

import os

import pytest

from actorlib.transport import messages
from actorlib.transport.drivers.loop import Loop
from actorlib.transport.ids import JobId, NodeId, new_process_id
from actorlib.transport.link import Address


@pytest.fixture
def loops():
    """Makes a loop: of a process of the node ``node`` whose Hello tells the process number ``os_pid``."""
    made = []
    directory = f"/tmp/actorlib-loop-{os.getpid()}"

    def make(handlers, on_down=lambda link, reason: None, node=b"n" * 8, os_pid=0, helper=True, **options):
        process_id = new_process_id()
        address = Address(process_id, NodeId(node), f"ipc://{directory}/{process_id.hex()}")
        hello = messages.Hello(messages.PROTOCOL_VERSION, address, "driver", os_pid or os.getpid(), JobId(b""), "3.11")
        loop = Loop(address, hello, handlers, on_down, **options)
        made.append(loop)
        if helper:
            loop.start_helper()
        return loop

    yield make
    for loop in made:
        loop.close()
    if made:
        os.rmdir(directory)  # nothing is left in it
