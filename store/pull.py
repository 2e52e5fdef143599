"""Copying objects from other nodes: which node is asked for which bytes, and when.

Theory of operation
-------------------
A node pulls an object once, however many of its processes want it. A pull goes QUEUED -> ASKING (a node that may have
the object was asked to serve it) -> FILLING (chunks are asked for and written to their place in shared memory as they
come, in any order) -> gone: complete, or failed with a reason.

The puller decides everything, so a source keeps hardly any state. *Credit*: a chunk that was asked for and has not
come uses one; the window of a source grows while its chunks come fast and shrinks when they come late, and all pulls
together have ``limits.pull_bytes_in_flight_max``. *Priority*: credit goes first to what a blocked get waits for.
*Several streams*: a large object is taken from two nodes at once where two have it. *Resume*: what has come stays;
a source that is lost, refuses or falls silent gives its open chunks back, and the next one is asked for what is
missing. *Broadcast*: a busy source names others that have the object or are getting it (see ``serving.py``).

Who may be wrong: a source may have dropped the object meanwhile (it refuses), may be slow (silence alone never fails a
pull: where nobody else is left the same node is asked again), may be lost (``node_lost``). An object that was made
again by a retry may have other bytes: each version has a *stamp*, and chunks of different stamps are never mixed.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from actorlib.transport import limits
from actorlib.transport.ids import NodeId, ObjectId
from actorlib.transport.link import Address
from actorlib.transport.messages import (
    Chunk,
    ChunkWanted,
    Payload,
    PullAccepted,
    PullClosed,
    PullOpen,
    PullRedirected,
    PullRefused,
    Value,
)

REDIRECTS_MAX = 50


class Urgency(enum.IntEnum):
    GET = 0  # somebody is blocked until it is here
    PREFETCH = 1  # it will be needed soon


class PullState(enum.Enum):
    QUEUED = "queued"
    ASKING = "asking"
    FILLING = "filling"


MOVES = {
    PullState.QUEUED: {PullState.ASKING},
    PullState.ASKING: {PullState.FILLING},
    PullState.FILLING: {PullState.ASKING},
}


class Port(Protocol):
    """What pulls ask of their node."""

    def send(self, node: Address, message: tuple[Any, ...]) -> None: ...

    def begin(self, object_id: ObjectId, size: int) -> str:
        """Set memory aside for the object. Gives the reason if there is none, else ''."""

    def write(self, object_id: ObjectId, offset: int, data: Payload) -> None: ...

    def abandon(self, object_id: ObjectId) -> None:
        """The memory that was set aside is not needed, or what lies in it is void."""

    def complete(self, object_id: ObjectId) -> None:
        """All bytes are there."""

    def failed(self, object_id: ObjectId, reason: str, is_full: bool) -> None:
        """Nobody has it (or there is no room here: ``is_full``). What was set aside has been abandoned."""


class Source:
    """A node that was asked to serve."""

    __slots__ = ("accepted", "address", "heard_at", "outstanding", "window")

    def __init__(self, address: Address, now: float) -> None:
        self.address = address
        self.accepted = False
        self.heard_at = now
        self.outstanding: dict[int, float] = {}  # offset -> when it was asked for
        self.window = limits.pull_window_chunks_min


class Pull:
    """One object on its way here."""

    __slots__ = (
        "asked",
        "candidates",
        "missing",
        "object_id",
        "order",
        "place",
        "reason",
        "redirects",
        "silent",
        "size",
        "sources",
        "stamp",
        "state",
        "todo",
        "tried",
        "urgency",
    )

    def __init__(self, object_id: ObjectId, urgency: Urgency, order: int) -> None:
        self.object_id = object_id
        self.urgency = urgency
        self.order = order
        self.state = PullState.QUEUED
        self.candidates: list[Address] = []
        self.sources: dict[NodeId, Source] = {}
        self.asked: dict[NodeId, Address] = {}  # all that know of us
        self.tried: dict[NodeId, None] = {}  # have refused
        self.silent: dict[NodeId, None] = {}  # have not answered
        self.redirects = 0
        self.place: Value = None
        self.reason = "no node is known to have it"
        self.size = 0
        self.stamp = 0
        self.missing: dict[int, int] = {}  # offset -> length of each chunk that is not here
        self.todo: deque[int] = deque()  # offsets that nobody was asked for

    def move(self, state: PullState) -> None:
        assert state in MOVES[self.state], f"pull of {self.object_id.hex()}: {self.state.value} -> {state.value}"
        self.state = state

    def rank(self) -> tuple[int, int]:
        return (self.urgency, self.order)


class Pulls:
    """All pulls of one node. See the module's docstring."""

    def __init__(self, node_id: NodeId, port: Port) -> None:
        self.node_id = node_id
        self.pulls: dict[ObjectId, Pull] = {}
        self._port = port
        self._arrivals = 0
        self._bytes_in_flight = 0

    # -- what readers want ---------------------------------------------------------------------------------------------
    def want(
        self, now: float, object_id: ObjectId, nodes: Iterable[Address], urgency: Urgency, place: Value = None
    ) -> None:
        """Copy an object here; ``nodes`` may have it, ``place`` is its value. Asked for again, it may become urgent."""
        pull = self.pulls.get(object_id)
        if pull is None:
            self._arrivals += 1
            pull = self.pulls[object_id] = Pull(object_id, urgency, self._arrivals)
        pull.urgency = min(pull.urgency, urgency)
        pull.place = place if place is not None else pull.place
        self._know(pull, nodes)
        self._open(now)
        self._issue(now)

    def drop(self, object_id: ObjectId, reason: str) -> None:
        """Nobody needs it any more."""
        pull = self.pulls.get(object_id)
        if pull is not None:
            self._fail(pull, reason, False)

    def _know(self, pull: Pull, nodes: Iterable[Address]) -> None:
        known = {address.node_id for address in pull.candidates}
        for address in nodes:
            node_id = address.node_id
            if node_id not in known and node_id not in pull.sources and node_id != self.node_id:
                pull.candidates.append(address)
                known.add(node_id)

    def _open(self, now: float) -> None:
        """Begin what waits, the most urgent first, as far as the limit allows."""
        queued = sorted((p for p in self.pulls.values() if p.state is PullState.QUEUED), key=Pull.rank)
        room = limits.pulls_open_max - (len(self.pulls) - len(queued))
        for pull in queued[: max(0, room)]:
            pull.move(PullState.ASKING)
            self._ask_next(now, pull)

    def _ask_next(self, now: float, pull: Pull) -> None:
        """Ask the next node that may have it; without any, and with none at work, the pull has failed."""
        while pull.candidates:
            address = pull.candidates.pop(0)
            if address.node_id not in pull.tried and address.node_id not in pull.sources:
                self._ask(now, pull, address)
                return
        if not pull.sources:
            self._fail(pull, pull.reason, False)

    def _ask(self, now: float, pull: Pull, address: Address) -> None:
        pull.sources[address.node_id] = Source(address, now)
        pull.asked[address.node_id] = address
        avoid = tuple(node for node in (*pull.tried, *pull.silent) if node != address.node_id)
        self._port.send(address, PullOpen(pull.object_id, avoid, pull.place))

    # -- what sources say ----------------------------------------------------------------------------------------------
    def _find(self, node_id: NodeId, object_id: ObjectId) -> tuple[Pull, Source] | None:
        pull = self.pulls.get(object_id)
        source = pull.sources.get(node_id) if pull is not None else None
        return (pull, source) if pull is not None and source is not None else None

    def accepted(self, now: float, node_id: NodeId, message: PullAccepted) -> None:
        found = self._find(node_id, message.object_id)
        if found is None:
            return
        pull, source = found
        source.accepted, source.heard_at = True, now
        if pull.state is PullState.FILLING and (message.stamp, message.size) != (pull.stamp, pull.size):
            if any(other.accepted for other in pull.sources.values() if other is not source):
                self._dismiss(pull, source)
                return
            self._port.abandon(pull.object_id)
            pull.move(PullState.ASKING)
        if pull.state is PullState.ASKING and not self._begin(pull, message):
            return
        self._know(pull, message.holders)
        may_split = message.holders and message.size >= limits.pull_second_source_bytes_min
        if may_split and len(pull.sources) < limits.pull_sources_max:
            self._ask_next(now, pull)
        self._issue(now)

    def _begin(self, pull: Pull, message: PullAccepted) -> bool:
        reason = self._port.begin(pull.object_id, message.size)
        if reason:
            self._fail(pull, reason, True)
            return False
        pull.move(PullState.FILLING)
        pull.size, pull.stamp = message.size, message.stamp
        step = limits.pull_chunk_bytes
        pull.missing = {at: min(step, message.size - at) for at in range(0, message.size, step)}
        pull.todo = deque(pull.missing)
        for source in pull.sources.values():
            self._forget_outstanding(source)
        return True

    def redirected(self, now: float, node_id: NodeId, message: PullRedirected) -> None:
        found = self._find(node_id, message.object_id)
        if found is None:
            return
        pull, source = found
        self._return_chunks(pull, source)
        pull.redirects += 1
        if pull.redirects > REDIRECTS_MAX:
            pull.tried[node_id] = None
        others = [address for address in message.holders if address.node_id != self.node_id]
        pull.candidates[:0] = [*others, source.address]
        if not pull.sources:
            self._ask_next(now, pull)

    def refused(self, now: float, node_id: NodeId, message: PullRefused) -> None:
        found = self._find(node_id, message.object_id)
        if found is not None:
            self._lose(now, found[0], found[1], message.reason)

    def _lose(self, now: float, pull: Pull, source: Source, reason: str) -> None:
        """That node does not serve it any more: the others are asked for what is missing."""
        pull.tried[source.address.node_id] = None
        pull.reason = reason
        self._return_chunks(pull, source)
        if not pull.sources:
            self._ask_next(now, pull)
        self._open(now)
        self._issue(now)

    def _dismiss(self, pull: Pull, source: Source) -> None:
        self._return_chunks(pull, source)
        pull.tried[source.address.node_id] = None
        pull.asked.pop(source.address.node_id, None)
        self._port.send(source.address, PullClosed(pull.object_id, False))

    def _return_chunks(self, pull: Pull, source: Source) -> None:
        del pull.sources[source.address.node_id]
        pull.todo.extendleft(offset for offset in reversed(source.outstanding) if offset in pull.missing)
        self._forget_outstanding(source)

    def _forget_outstanding(self, source: Source) -> None:
        self._bytes_in_flight -= limits.pull_chunk_bytes * len(source.outstanding)
        source.outstanding.clear()

    def chunk(self, now: float, node_id: NodeId, message: Chunk) -> None:
        found = self._find(node_id, message.object_id)
        if found is None:
            return
        pull, source = found
        if message.stamp != pull.stamp or message.offset not in source.outstanding:
            return
        asked_at = source.outstanding.pop(message.offset)
        self._bytes_in_flight -= limits.pull_chunk_bytes
        source.heard_at = now
        length = len(message.data)
        if length != pull.missing[message.offset]:
            pull.todo.appendleft(message.offset)
            self._lose(now, pull, source, f"it sent {length} bytes for a chunk of {pull.missing[message.offset]}")
            return
        self._adapt(source, now - asked_at)
        self._port.write(pull.object_id, message.offset, message.data)
        del pull.missing[message.offset]
        if not pull.missing:
            self._end(pull, True)
            self._port.complete(pull.object_id)
            self._open(now)
        self._issue(now)

    @staticmethod
    def _adapt(source: Source, took_s: float) -> None:
        if took_s < limits.pull_fast_s:
            source.window = min(source.window + 1, limits.pull_window_chunks_max)
        elif took_s > limits.pull_slow_s:
            source.window = max(source.window - 1, limits.pull_window_chunks_min)

    # -- credit --------------------------------------------------------------------------------------------------------
    def _issue(self, now: float) -> None:
        """Ask for chunks as far as the credit goes, the most urgent pulls first."""
        filling = [p for p in self.pulls.values() if p.todo]
        if len(filling) > 1:
            filling.sort(key=Pull.rank)
        for pull in filling:
            for source in pull.sources.values():
                if not source.accepted:
                    continue
                while pull.todo and len(source.outstanding) < source.window:
                    if self._bytes_in_flight + limits.pull_chunk_bytes > limits.pull_bytes_in_flight_max:
                        return
                    offset = pull.todo.popleft()
                    if not source.outstanding:
                        source.heard_at = now  # it owed us nothing until now
                    source.outstanding[offset] = now
                    self._bytes_in_flight += limits.pull_chunk_bytes
                    self._port.send(source.address, ChunkWanted(pull.object_id, offset, pull.missing[offset]))

    # -- ends ----------------------------------------------------------------------------------------------------------
    def _end(self, pull: Pull, is_complete: bool) -> None:
        for source in pull.sources.values():
            self._forget_outstanding(source)
        for address in pull.asked.values():
            self._port.send(address, PullClosed(pull.object_id, is_complete))
        del self.pulls[pull.object_id]

    def _fail(self, pull: Pull, reason: str, is_full: bool) -> None:
        if pull.state is PullState.FILLING:
            self._port.abandon(pull.object_id)
        self._end(pull, False)
        self._port.failed(pull.object_id, reason, is_full)

    def node_lost(self, now: float, node_id: NodeId) -> None:
        for pull in list(self.pulls.values()):
            pull.tried[node_id] = None
            pull.asked.pop(node_id, None)
            source = pull.sources.get(node_id)
            if source is not None:
                self._lose(now, pull, source, f"node {node_id.hex()[:8]}, which served it, was lost")
        self._open(now)

    def tick(self, now: float) -> None:
        """Nodes that owe an answer for too long: another one is asked, or the same one again."""
        for pull in list(self.pulls.values()):
            for source in list(pull.sources.values()):
                owes = bool(source.outstanding) or not source.accepted
                if owes and now - source.heard_at > limits.pull_answer_timeout_s:
                    self._return_chunks(pull, source)
                    pull.silent[source.address.node_id] = None
                    pull.candidates.append(source.address)
            if not pull.sources and pull.state is not PullState.QUEUED:
                self._ask_next(now, pull)
        self._open(now)
        self._issue(now)

    # -- for whoever is served from here -------------------------------------------------------------------------------
    def filling(self, object_id: ObjectId) -> Pull | None:
        """The pull of an object that is partly here."""
        pull = self.pulls.get(object_id)
        return pull if pull is not None and pull.state is PullState.FILLING else None

    def check(self) -> None:
        asked = 0
        for pull in self.pulls.values():
            outstanding = [offset for source in pull.sources.values() for offset in source.outstanding]
            asked += len(outstanding)
            covered = sorted([*outstanding, *pull.todo])
            assert covered == sorted(pull.missing), f"{pull.object_id.hex()}: a chunk nobody will ask for, or two will"
            assert pull.state is not PullState.QUEUED or not pull.sources, "a queued pull that asks"
        assert self._bytes_in_flight == asked * limits.pull_chunk_bytes, "credit miscounted"
