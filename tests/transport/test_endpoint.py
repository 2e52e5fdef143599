"""Endpoints: written and read, and which way is taken."""

from __future__ import annotations

import pytest

from actorlib.transport.endpoint import Endpoint, parse, way_to
from actorlib.transport.ids import NodeId, ProcessId
from actorlib.transport.link import Address

HERE = Address(ProcessId(b"p" * 8), NodeId(b"n" * 8), "ipc:///tmp/own")
BOTH = Endpoint("ipc:///tmp/x", "tcp://10.0.0.7:41207", "k" * 40)


@pytest.mark.parametrize("endpoint", [Endpoint("ipc:///tmp/x", "", ""), BOTH, BOTH._replace(local="")])
def test_what_is_written_is_read(endpoint):
    assert parse(str(endpoint)) == endpoint


def test_other_strings_are_refused():
    with pytest.raises(ValueError, match="has 2 parts"):
        parse("ipc:///a;tcp://b")


def test_the_local_way_inside_a_node_and_the_other_between_nodes():
    same, other = ProcessId(b"q" * 8), NodeId(b"m" * 8)
    assert way_to(Address(same, HERE.node_id, str(BOTH)), HERE) == (BOTH.local, "")
    assert way_to(Address(same, other, str(BOTH)), HERE) == (BOTH.remote, BOTH.key)
    assert way_to(Address(same, other, BOTH.local), HERE) == (BOTH.local, "")  # nodes of one machine
    assert way_to(Address(same, NodeId(b""), str(BOTH._replace(local=""))), HERE) == (BOTH.remote, BOTH.key)
