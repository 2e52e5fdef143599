"""Once all is calm, what was sent is acknowledged: no session keeps much that its peer has received long ago."""

from __future__ import annotations

from actorlib.testing.oracles.oracle import Oracle
from actorlib.transport import limits

ON_THEIR_WAY = 16  # batches, more than which nobody sends in the time that an acknowledgement takes


class Deliveries(Oracle):
    """Looks at the end, at the sessions between processes that live. What is on its way just then may be open."""

    name = "deliveries"

    def at_end(self) -> None:
        loops = {loop.address.process_id: loop for loop in self.world.loops() if not loop.is_dead}
        for loop in loops.values():
            for link in loop.sessions():
                peer = loops.get(link.peer.process_id)
                if peer is not None and link.dialled:
                    kept = len(link.session._unacknowledged)
                    text = f"{loop.told()} keeps {kept} batches for {peer.told()} that nobody acknowledges"
                    self.see(kept <= limits.session_ack_every_batches + ON_THEIR_WAY, text, link.peer.process_id)
