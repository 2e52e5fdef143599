"""Faults as data: what goes wrong, when, and for how long, so that Hypothesis can draw it and make it small.

A schedule of faults is a bounded list of ``Fault``; a schedule of messages is a bounded list of ``Deviation`` from the
order in which messages would arrive. Both shrink towards nothing going wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from actorlib.testing.simulation import SimNode, Simulation


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Args:
        kind: one of ``KINDS``.
        at_s: simulated seconds after the start.
        target: which of those it can hit, counted from 0 and round.
        for_s: how long it lasts, where it lasts.
        amount: chance of loss, or seconds of delay.
    """

    kind: str
    at_s: float = 0.0
    target: int = 0
    for_s: float = 1.0
    amount: float = 0.1


@dataclass(frozen=True, slots=True)
class Deviation:
    """The ``nth`` batch that is sent in the world arrives ``delay_s`` later than it would."""

    nth: int
    delay_s: float


def _workers(world: Simulation) -> list[Any]:
    return [world.workers[process_id][1] for process_id in sorted(world.workers)]


def _others(world: Simulation) -> list[SimNode]:
    return [node for node in world.nodes[1:] if node.is_alive]


def _pick(among: list[Any], fault: Fault) -> Any:
    return among[fault.target % len(among)] if among else None


def _crash_worker(world: Simulation, fault: Fault) -> None:
    worker = _pick(_workers(world), fault)
    if worker is not None:
        world.kill(worker.address.process_id)


def _pause_worker(world: Simulation, fault: Fault) -> None:
    worker = _pick(_workers(world), fault)
    if worker is not None:
        worker.loop.pause()
        world.after(fault.for_s, worker.loop.go_on)


def _crash_node(world: Simulation, fault: Fault) -> None:
    node = _pick(_others(world), fault)
    if node is not None:
        world.crash_node(node)
        world.after(fault.for_s, world.add_node)


def _partition(world: Simulation, fault: Fault) -> None:
    node = _pick(_others(world), fault)
    if node is not None:
        pair = (world.nodes[0].node_id, node.node_id)
        world.network.partition(*pair)
        world.after(fault.for_s, lambda: world.network.cut.difference_update({pair, pair[::-1]}))


def _loss(world: Simulation, fault: Fault) -> None:
    world.network.weather.loss = min(0.5, fault.amount)
    world.after(fault.for_s, lambda: setattr(world.network.weather, "loss", 0.0))


def _duplication(world: Simulation, fault: Fault) -> None:
    world.network.weather.duplication = min(0.5, fault.amount)
    world.after(fault.for_s, lambda: setattr(world.network.weather, "duplication", 0.0))


def _jitter(world: Simulation, fault: Fault) -> None:
    calm = world.network.weather.jitter_s
    world.network.weather.jitter_s = fault.amount
    world.after(fault.for_s, lambda: setattr(world.network.weather, "jitter_s", min(calm, 0.001)))


KINDS: dict[str, Callable[[Simulation, Fault], None]] = {
    "crash_worker": _crash_worker,
    "pause_worker": _pause_worker,
    "crash_node": _crash_node,
    "partition": _partition,
    "loss": _loss,
    "duplication": _duplication,
    "jitter": _jitter,
}


def fire(world: Simulation, fault: Fault) -> None:
    """Let it go wrong now. Does nothing where there is nothing to hit."""
    if fault.kind not in KINDS:
        raise ValueError(f"there is no fault {fault.kind!r}; there are {', '.join(KINDS)}")
    world.world.note(f"fault {fault.kind} {fault.target}")
    KINDS[fault.kind](world, fault)


def schedule(world: Simulation, plan: Iterable[Fault | Deviation]) -> None:
    """Let each of ``plan`` go wrong when its time comes."""
    for item in plan:
        if isinstance(item, Deviation):
            world.network.deviations[item.nth] = item.delay_s
        else:
            if item.kind not in KINDS:
                raise ValueError(f"there is no fault {item.kind!r}; there are {', '.join(KINDS)}")
            world.after(item.at_s, lambda fault=item: fire(world, fault))


def one_fault(kinds: Iterable[str] | None = None, within_s: float = 5.0) -> SearchStrategy[Fault]:
    """A Hypothesis strategy for one fault within the first ``within_s`` simulated seconds."""
    from hypothesis import strategies as st

    names = list(KINDS if kinds is None else kinds)
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise ValueError(f"there is no fault {unknown[0]!r}; there are {', '.join(KINDS)}")
    return st.builds(
        Fault,
        kind=st.sampled_from(names),
        at_s=st.floats(0.0, within_s),
        target=st.integers(0, 7),
        for_s=st.floats(0.0, within_s),
        amount=st.floats(0.0, 0.5),
    )


def faults(kinds: Iterable[str] | None = None, max_size: int = 5, within_s: float = 5.0) -> SearchStrategy[list[Fault]]:
    """A Hypothesis strategy for schedules of faults."""
    from hypothesis import strategies as st

    return st.lists(one_fault(kinds, within_s), max_size=max_size)


def schedules(max_size: int = 5, messages: int = 200, delay_s: float = 1.0) -> SearchStrategy[list[Deviation]]:
    """A Hypothesis strategy for deviations from the order of the first ``messages`` batches."""
    from hypothesis import strategies as st

    deviation = st.builds(Deviation, nth=st.integers(0, messages), delay_s=st.floats(0.0, delay_s))
    return st.lists(deviation, max_size=max_size, unique_by=lambda item: item.nth)
