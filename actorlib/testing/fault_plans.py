"""Faults as data: what goes wrong, when, and for how long, so that Hypothesis can draw it and make it small.

A schedule of faults is a bounded list of ``Fault``; a schedule of messages is a bounded list of ``Deviation`` from the
order in which messages would arrive. Both shrink towards nothing going wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from actorlib.testing.fault_kinds import KINDS
from actorlib.transport.sim.world import START_S

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from actorlib.testing.simulation import Simulation


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Args:
        kind: one of ``KINDS``.
        at_s: simulated seconds after the start.
        target: which of those it can hit, counted from 0 and round.
        for_s: how long it lasts, where it lasts.
        amount: chance of loss, seconds of delay, how narrow, how far, by the kind.
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


def fire(world: Simulation, fault: Fault) -> bool:
    """Let it go wrong now. Gives False where there was nothing to hit; ``world.fired`` counts the others."""
    if world.mode == "process":
        return world.fire(fault)  # type: ignore[no-any-return, attr-defined]
    _known(fault.kind)
    world.world.note("fault", f"{fault.kind} {fault.target}")
    hit = KINDS[fault.kind](world, fault)
    if hit:
        if fault not in world.plan:  # one that a rule or a test lets happen now
            world.fired_plan.append(replace(fault, at_s=world.world.time - START_S))
        world.fired[fault.kind] += 1
        world.disturbed_until = max(world.disturbed_until, world.world.time + fault.for_s)
    return hit


def schedule(world: Simulation, plan: Iterable[Fault | Deviation]) -> None:
    """Let each of ``plan`` go wrong when its time comes, unless the world has been told to be calm by then."""

    def when_due(fault: Fault) -> None:
        if not world.faults_are_over:
            fire(world, fault)

    for item in plan:
        if isinstance(item, Deviation):
            world.network.deviations[item.nth] = item.delay_s
            continue
        _known(item.kind)
        world.disturbed_until = max(world.disturbed_until, world.world.time + item.at_s + item.for_s)
        world.after(item.at_s, lambda fault=item: when_due(fault))


def _known(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"there is no fault {kind!r}; there are {', '.join(KINDS)}")


def one_fault(kinds: Iterable[str] | None = None, within_s: float = 5.0) -> SearchStrategy[Fault]:
    """A Hypothesis strategy for one fault within the first ``within_s`` simulated seconds."""
    from hypothesis import strategies as st

    names = list(KINDS if kinds is None else kinds)
    for name in names:
        _known(name)
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
