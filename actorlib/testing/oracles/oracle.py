"""What an oracle is: it watches a simulated cluster from outside and knows one thing that must hold.

Oracles share no code with what they check. Each one says what it watches by overriding hooks; a hook that nobody
overrides costs nothing. What an oracle sees wrong becomes a ``Violation``, which names the oracle and the id of what
it is about and tells that id's story; it is raised where the world's main code waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorlib.runtime.mailbox import Item
    from actorlib.testing.simulated_process import SimWorker
    from actorlib.testing.simulation import Simulation
    from actorlib.transport.ids import ObjectId
    from actorlib.transport.link import Link
    from actorlib.transport.sim.loop import SimLoop


class Violation(AssertionError):
    """Something that must always hold did not.

    Attributes:
        oracle: the name of the one that saw it.
        some_id: of the task, actor, object or process that it is about; empty if it is about none.
    """

    def __init__(self, oracle: str, text: str, some_id: bytes = b"", story: str = "") -> None:
        about = f" ({some_id.hex()})" if some_id else ""
        told = f"\nits story:\n{story}" if story else ""
        super().__init__(f"{oracle}: {text}{about}{told}")
        self.oracle = oracle
        self.some_id = some_id


class Oracle:
    """Derive from it, give it a ``name``, override hooks. An instance belongs to one world."""

    name = ""

    def __init__(self, world: Simulation) -> None:
        self.world = world

    def turned(self, loop: SimLoop) -> None:
        """A process has handled what had come for it."""

    def heard(self, loop: SimLoop, link: Link, message: Any) -> None:
        """A process is about to handle a message."""

    def begins(self, worker: SimWorker, item: Item) -> None:
        """A worker is about to run a call."""

    def made(self, object_id: ObjectId, parts: tuple[Any, ...]) -> None:
        """A process has made the value of an object (its pickle and its buffers)."""

    def got(self, object_id: ObjectId, parts: tuple[Any, ...]) -> None:
        """A process is about to unpickle the value of an object."""

    def raised(self, error: BaseException) -> None:
        """A ``get`` is about to raise."""

    def at_end(self) -> None:
        """The work is done, nothing goes wrong any more, and the cluster has had time to become calm."""

    def see(self, holds: bool, text: str, some_id: bytes = b"") -> None:
        """Say what is wrong, unless it holds."""
        if not holds:
            self.world.violate(Violation(self.name, text, some_id, self.world.story(some_id) if some_id else ""))


HOOKS = ("turned", "heard", "begins", "made", "got", "raised", "at_end")


class Watch:
    """The oracles of a world, by hook."""

    def __init__(self, oracles: list[Oracle]) -> None:
        self.oracles = oracles
        self._by_hook = {
            hook: [getattr(one, hook) for one in oracles if getattr(type(one), hook) is not getattr(Oracle, hook)]
            for hook in HOOKS
        }
        self.turned, self.heard, self.begins = (self._by_hook[hook] for hook in ("turned", "heard", "begins"))
        self.made, self.got, self.raised = (self._by_hook[hook] for hook in ("made", "got", "raised"))

    def at_end(self) -> None:
        for look in self._by_hook["at_end"]:
            look()
