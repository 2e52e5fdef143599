"""What the GCS refuses, and how it says so."""

from __future__ import annotations

from actorlib.transport.messages import Failure, KvGet, KvPut, KvReply, NodeRegister, ShutdownNode


def test_a_key_that_the_disk_would_refuse_is_refused_and_nothing_else_is_lost(house):
    house.tell("driver", KvPut(1, "n", b"k" * 600, b"v", True), turn=False)
    house.tell("driver", KvPut(2, "with\0nul", b"k", b"v", True), turn=False)
    house.tell("driver", KvPut(3, "n", b"k", b"v", True))
    first, second, third = house.link("driver").take()
    assert type(first) is type(second) is Failure and "bytes" in first.text
    assert third == KvReply(3, False, b"", ())
    house.tell("driver", KvGet(4, "n", b"k"))
    assert house.link("driver").take() == [KvReply(4, True, b"v", ())]


def test_a_node_that_was_declared_lost_has_to_start_anew(house):
    node = house.add_node("node1")
    house.node_lost("node1")
    house.tell("node1", NodeRegister(2, node.peer, 2, {"CPU": 1}, {}, "node1", 1))
    (answer,) = node.take(ShutdownNode)
    assert "declared lost" in answer.reason and "start anew" in answer.reason
    assert not house.gcs.nodes.is_alive(node.peer.node_id)
