"""Serving: who is served, who is sent where, and one object on its way to many nodes."""

from __future__ import annotations

import collections

from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.store.pull import Pulls, Urgency
from actorlib.store.serving import Serving
from actorlib.transport import limits, messages
from actorlib.transport.ids import ObjectId
from actorlib.transport.link import Address
from actorlib.transport.messages import Chunk, ChunkWanted, PullAccepted, PullClosed, PullOpen, PullRedirected

STEP = limits.pull_chunk_bytes
OBJECT = ObjectId(b"owner..." + bytes(12))


def address(n):
    name = b"node%04d" % n
    return Address(name, name, f"ipc://{n}")


class Port:
    """The whole object is here."""

    def __init__(self, size=2 * STEP):
        self.size = size
        self.log = []

    def send(self, node, message):
        self.log.append((int(node.node_id[4:]), message))

    def open(self, object_id, place):
        return (self.size, 7) if self.size else "it is not here"

    def covers(self, object_id, offset, length):
        return True

    def payload(self, object_id, offset, length):
        return bytes(length)

    def close(self, object_id):
        self.log.append("close")

    def take(self):
        log, self.log = self.log, []
        return log


def test_two_are_served_and_the_third_is_sent_to_them():
    port = Port()
    serving = Serving(port)
    for n in (1, 2):
        serving.opened(address(n), PullOpen(OBJECT, (), None))
    assert [type(message) for _, message in port.take()] == [PullAccepted, PullAccepted]
    serving.opened(address(3), PullOpen(OBJECT, (), None))
    assert port.take() == [(3, PullRedirected(OBJECT, (address(1), address(2))))]
    serving.opened(address(4), PullOpen(OBJECT, (), None))
    ((_, message),) = port.take()
    assert message.holders[0] == address(2)  # the first was sent somebody already
    serving.opened(address(3), PullOpen(OBJECT, (address(1).node_id, address(2).node_id), None))
    assert type(port.take()[0][1]) is PullAccepted  # nobody is left to send it to
    serving.check()


def test_who_has_it_whole_is_named_and_the_last_to_leave_closes():
    port = Port()
    serving = Serving(port)
    serving.opened(address(1), PullOpen(OBJECT, (), None))
    serving.closed(address(1), PullClosed(OBJECT, True))
    assert port.take()[-1] == "close"
    serving.opened(address(2), PullOpen(OBJECT, (), None))
    assert port.take() == [(2, PullAccepted(OBJECT, 2 * STEP, 7, (address(1),)))]
    serving.node_lost(address(2).node_id)
    assert port.take() == ["close"]
    serving.node_lost(address(1).node_id)
    assert not serving.objects


def test_what_is_freed_is_refused():
    port = Port()
    serving = Serving(port)
    serving.opened(address(1), PullOpen(OBJECT, (), None))
    port.take()
    serving.gone(OBJECT, "it was freed")
    assert port.take() == [(1, messages.PullRefused(OBJECT, "it was freed")), "close"]
    serving.wanted(address(1), ChunkWanted(OBJECT, 0, STEP))
    assert port.take() == [(1, messages.PullRefused(OBJECT, "it is not being served"))]
    port.size = 0
    serving.opened(address(1), PullOpen(OBJECT, (), None))
    assert port.take()[0] == (1, messages.PullRefused(OBJECT, "it is not here"))
    serving.check()


class Net:
    """Nodes with both cores, and the messages between them."""

    def __init__(self, count, chunks):
        self.size = chunks * STEP
        self.queue = collections.deque()
        self.sent = collections.Counter()  # chunks by sender
        self.nodes = [Peer(self, n) for n in range(count)]
        self.nodes[0].whole = True

    def run(self, lost=(), loses_after=None):
        steps = 0
        lost = list(lost)
        while self.queue:
            steps += 1
            if loses_after is not None and steps % loses_after == 0 and lost:
                self.lose(lost.pop())
            self.step()
            assert steps < 100_000, "it goes round in circles"
        return steps

    def step(self):
        sender, receiver, message = self.queue.popleft()
        if not (self.nodes[sender].lost or self.nodes[receiver].lost):
            self.nodes[receiver].handle(address(sender), message)
            self.nodes[receiver].check()

    def lose(self, n):
        self.nodes[n].lost = True
        for peer in self.nodes:
            if not peer.lost:
                peer.pulls.node_lost(0.0, address(n).node_id)
                peer.serving.node_lost(address(n).node_id)


class Peer:
    """One node: the port of its two cores. Only which chunks are here counts, not their bytes."""

    def __init__(self, net, n):
        self.net = net
        self.n = n
        self.whole = self.lost = False
        self.here = set()
        self.outcome = None
        self.pulls = Pulls(address(n).node_id, self)
        self.serving = Serving(self)

    def check(self):
        self.pulls.check()
        self.serving.check()

    def handle(self, sender, message):
        kind = type(message)
        if kind in (PullOpen, ChunkWanted, PullClosed):
            method = {PullOpen: "opened", ChunkWanted: "wanted", PullClosed: "closed"}[kind]
            getattr(self.serving, method)(sender, message)
        else:
            method = {PullAccepted: "accepted", PullRedirected: "redirected", Chunk: "chunk"}.get(kind, "refused")
            getattr(self.pulls, method)(0.0, sender.node_id, message)

    def send(self, node, message):
        if type(message) is Chunk:
            self.net.sent[self.n] += 1
        self.net.queue.append((self.n, int(node.node_id[4:]), message))

    def begin(self, object_id, size):
        self.here = set()
        return ""

    def write(self, object_id, offset, data):
        assert offset not in self.here, "a chunk was taken twice"
        self.here.add(offset)
        self.serving.arrived(object_id, offset)

    def abandon(self, object_id):
        self.serving.gone(object_id, "it did not arrive")

    def complete(self, object_id):
        assert len(self.here) * STEP == self.net.size
        self.whole, self.outcome = True, "complete"

    def failed(self, object_id, reason, is_full):
        self.serving.gone(object_id, reason)
        self.outcome = reason

    def open(self, object_id, place):
        if self.whole or self.pulls.filling(object_id):
            return (self.net.size, 7)
        return None if object_id in self.pulls.pulls else "it is not here"

    def covers(self, object_id, offset, length):
        return self.whole or offset in self.here

    def payload(self, object_id, offset, length):
        assert self.covers(object_id, offset, length)
        return bytes(length)

    def close(self, object_id):
        return


def test_one_object_reaches_many_nodes_and_no_node_sends_more_than_a_few_copies():
    net = Net(17, chunks=6)
    for peer in net.nodes[1:]:
        peer.pulls.want(0.0, OBJECT, [address(0)], Urgency.GET)
    net.run()
    assert all(peer.outcome == "complete" for peer in net.nodes[1:])
    assert sum(net.sent.values()) == 16 * 6  # each chunk came once to each
    assert net.sent[0] <= 4 * 6, f"the first node sent {net.sent[0]} chunks"
    assert max(net.sent.values()) <= 4 * 6 and len(net.sent) > 4


@settings(max_examples=60, deadline=None, database=None)
@given(
    count=st.integers(3, 9),
    chunks=st.integers(1, 5),
    lost=st.lists(st.integers(0, 8), max_size=4, unique=True),
    loses_after=st.integers(1, 40),
)
def test_whoever_is_lost_the_others_get_it_while_anybody_has_it(count, chunks, lost, loses_after):
    net = Net(count, chunks)
    for peer in net.nodes[1:]:
        peer.pulls.want(0.0, OBJECT, [address(0)], Urgency.GET)
    net.run([n for n in lost if n < count], loses_after)
    left = [peer for peer in net.nodes[1:] if not peer.lost]
    for _ in range(3):  # silent ones are given up only in time
        for peer in left:
            peer.pulls.tick(1e9)
        net.run()
    assert not any(peer.pulls.pulls for peer in left), "somebody waits forever"
    if not net.nodes[0].lost:
        assert all(peer.outcome == "complete" for peer in left)
