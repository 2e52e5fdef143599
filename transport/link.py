"""What the machinery sees of the outside world: links to peers, timers, and the place where both are had.

Cores and services are written against these protocols only. ``transport/drivers/loop.py`` carries them out with
sockets; the simulator carries them out with an event heap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from actorlib.transport.ids import NodeId, ProcessId


class Address(NamedTuple):
    """Where a process can be reached: its incarnation, the node it lives on, the endpoint that its inbox binds."""

    process_id: ProcessId
    node_id: NodeId
    endpoint: str


NOWHERE = Address(ProcessId(b""), NodeId(b""), "")


class Link(Protocol):
    """One session with one peer. Whoever dialled asks first; both ends may send at any time.

    ``peer`` is the other end's address. Messages arrive in the order sent, at most once. ``send`` only queues: what
    was queued in one turn of the loop leaves as one batch. Sending on a link that is down does nothing: the loss of
    the peer is reported apart, by ``on_link_down``.
    """

    peer: Address
    is_down: bool
    hello: Any
    """The ``messages.Hello`` of the other end; None on a link that we dialled."""

    def send(self, message: tuple[Any, ...]) -> None: ...


class Timer(Protocol):
    def cancel(self) -> None: ...


class Host(Protocol):
    """The loop as services see it. All callbacks run on the one thread that drives it at the time."""

    address: Address

    def now(self) -> float:
        """Seconds on a monotonic clock."""

    def link(self, address: Address) -> Link:
        """The link that we dial to ``address``, made on first use. Our own address gives a loopback link."""

    def accepted_link(self, process_id: ProcessId) -> Link | None:
        """The link that a peer has dialled to us, if it has."""

    def bytes_on_the_way(self, link: Link) -> int:
        """About how much was sent on a link that the other end has not taken yet."""

    def drop_link(self, process_id: ProcessId, reason: str) -> None:
        """Forget every link with that process, in both directions; ``on_link_down`` fires for each."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer: ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` in the next turn. May be called by any thread; wakes the loop if it is blocked."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever ``fd`` is readable (level triggered)."""

    def remove_reader(self, fd: int) -> None: ...


Handler = Callable[[Link, Any], None]


class Service(Protocol):
    """A part of a process that answers messages: the node's scheduler, its store, the GCS, a worker's mailbox."""

    handlers: dict[type, Handler]

    def process_died(self, process_id: ProcessId, reason: Any) -> None:
        """A process is known dead (its node says so): let go of all that was held for it."""
