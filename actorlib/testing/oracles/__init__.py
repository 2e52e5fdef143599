"""What must always hold in a simulated cluster, each in a file of its own, apart from what it checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorlib.testing.oracles.oracle import Oracle, Violation, Watch

if TYPE_CHECKING:
    from actorlib.testing.simulation import Simulation


def all_oracles(world: Simulation) -> Watch:
    """A fresh one of each, for one world."""
    from actorlib.testing.oracles.calls import Calls
    from actorlib.testing.oracles.deliveries import Deliveries
    from actorlib.testing.oracles.epochs import Epochs
    from actorlib.testing.oracles.gcs_writes import GcsWrites
    from actorlib.testing.oracles.invariants import Invariants
    from actorlib.testing.oracles.liveness import Liveness
    from actorlib.testing.oracles.reasons import Reasons
    from actorlib.testing.oracles.references import References
    from actorlib.testing.oracles.resources import Resources
    from actorlib.testing.oracles.values import Values

    kinds = (Invariants, GcsWrites, Epochs, Calls, Values, References, Resources, Reasons, Deliveries, Liveness)
    return Watch([kind(world) for kind in kinds])


__all__ = ["Oracle", "Violation", "Watch", "all_oracles"]
