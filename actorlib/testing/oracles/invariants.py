"""Every core's own ``check()`` holds, and no handler raises."""

from __future__ import annotations

from actorlib.testing.oracles.oracle import Oracle
from actorlib.transport.sim.loop import SimLoop

TURNS_BETWEEN_CHECKS = 16


class Invariants(Oracle):
    """Looks at each process every few turns: often enough to come close to the cause, and cheap enough to be on."""

    name = "invariants"

    def turned(self, loop: SimLoop) -> None:
        if loop.failed:
            self.see(False, f"{loop.failed[0]} raised at {loop.told()} (see above)")
        elif loop.turns % TURNS_BETWEEN_CHECKS == 0:
            self._look(loop)

    def _look(self, loop: SimLoop) -> None:
        try:
            if loop.check is not None:
                loop.check()
            for link in loop.sessions():
                link.session.check()
        except AssertionError as error:
            self.see(False, f"at {loop.told()}: {error}")

    def at_end(self) -> None:
        for loop in self.world.loops():
            self.turned(loop)
            self._look(loop)
