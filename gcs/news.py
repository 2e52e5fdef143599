"""What nodes are told of each other: who came and went at once, and what the others have free a part at a time.

If each node were told of each change, what is sent would grow with the square of the nodes. So:

* **Who came and who is lost** is told to everybody, whole (``NodesChanged``): that is rare, and must not be missed.
* **What is free** is told as a difference (``NodesFree``), in *rounds*. A round has the nodes that changed before it
  began, in parts of ``limits.views_in_message_max``, and takes as many ticks as it has parts. In each tick every node
  is told of one part, different nodes of different ones; at its end everybody has heard of all. So a message is
  bounded, whoever shares a part shares the message, and nodes that look for room at the same time know of different
  ones and don't all go to the same (as with random probes: Ousterhout et al., "Sparrow", SOSP 2013).

Where no more than ``limits.views_in_message_max`` nodes change, a round has one part: everybody is told of everything
within half a period of reports.
"""

from __future__ import annotations

from collections.abc import Iterable

from actorlib.gcs.journal import Port
from actorlib.transport import limits, pace
from actorlib.transport.ids import NodeId
from actorlib.transport.link import Link
from actorlib.transport.messages import NodesChanged, NodesFree, NodeView


def seat(node_id: NodeId) -> int:
    """Which part a node is told of first; the same whoever else comes or goes, so that it misses none of a round."""
    return sum(node_id)


class News:
    """What is still to be told. ``views`` and ``links`` are those of ``Nodes``, which alone changes them."""

    def __init__(self, port: Port, views: dict[NodeId, NodeView], links: dict[NodeId, Link]) -> None:
        self._port = port
        self._views = views
        self._links = links
        self._moved: dict[NodeId, None] = {}  # came, or went
        self._changed: dict[NodeId, None] = {}  # has more or less free; not in the round that goes on
        self._parts: list[list[NodeId]] = []
        self._ticks = 0  # of this round
        self._scheduled = False

    def moved(self, node_id: NodeId) -> None:
        """It came or went: everybody has to know."""
        self._moved[node_id] = None
        self._schedule()

    def changed(self, node_id: NodeId) -> None:
        """Something else is free there."""
        self._changed[node_id] = None
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._port.call_later(pace.report_period_s(len(self._links)) / 2, self._tick)

    def _tick(self) -> None:
        self._scheduled = False
        self._tell_who_moved()
        if not self._parts:
            self._begin_round()
        self._tell_what_is_free()
        if self._parts or self._changed:
            self._schedule()

    def _tell_who_moved(self) -> None:
        moved, self._moved = self._moved, {}
        about = [node_id for node_id in moved if node_id in self._views]
        self._send(NodesChanged(tuple(self._views[node_id] for node_id in about)), about, self._links)

    def _begin_round(self) -> None:
        changed, self._changed = list(self._changed), {}
        size = limits.views_in_message_max
        self._parts = [changed[at : at + size] for at in range(0, len(changed), size)]
        self._ticks = 0

    def _tell_what_is_free(self) -> None:
        groups: list[list[NodeId]] = [[] for _ in self._parts]
        if len(groups) > 1:
            for node_id in self._links:
                groups[(seat(node_id) + self._ticks) % len(groups)].append(node_id)
        elif groups:
            groups = [list(self._links)]
        for part, to in zip(self._parts, groups, strict=True):
            about = [node_id for node_id in part if node_id in self._links]
            self._send(NodesFree(tuple((node_id, self._views[node_id].available) for node_id in about)), about, to)
        self._ticks += 1
        if self._ticks >= len(self._parts):
            self._parts = []

    def _send(self, message: NodesChanged | NodesFree, about: list[NodeId], to: Iterable[NodeId]) -> None:
        """To each of them, but for one that would hear of nobody but itself."""
        alone = about[0] if len(about) == 1 else None
        for node_id in to if about else ():
            if node_id != alone:
                self._port.send(self._links[node_id], message)
