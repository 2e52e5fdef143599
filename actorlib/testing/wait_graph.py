"""Who waits for whom, in words: what a world that makes no progress says at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorlib.testing.simulation import Simulation

LINES_MAX = 40
REFERENCES_MAX = 5


def wait_graph(simulation: Simulation) -> str:
    """A line for each greenlet of user code that waits; empty where none does."""
    world = simulation.world
    lines = []
    for waiting, (why, _, since) in world.waits.items():
        refs = simulation.waiting.get(waiting)
        if refs is None and not why:
            continue
        told = why or _references(world._owners.get(waiting), refs)
        lines.append(f"{world.threads.name_of(waiting)}, for {world.time - since:.3f} s: {told}")
    left_out = [f"and {len(lines) - LINES_MAX} others"] if len(lines) > LINES_MAX else []
    return "".join(f"\n  {line}" for line in [*lines[:LINES_MAX], *left_out])


def _references(owner: Any, refs: Any) -> str:
    pending = [ref for ref in refs if not owner.why_pending(ref).endswith(" is ready")]
    if not pending:
        return "waits in a call into the machinery"
    told = [owner.why_pending(ref) for ref in pending[:REFERENCES_MAX]]
    more = f" and {len(pending) - REFERENCES_MAX} more" if len(pending) > REFERENCES_MAX else ""
    return f"waits for {'; '.join(told)}{more}"
