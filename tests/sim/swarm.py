"""A swarm of simulated clusters: random workloads under random faults, every run decided by its seed.

``python tests/sim/swarm.py --seconds 180`` runs new seeds for that long and prints what fired how often; ``--seed N``
repeats one run and, where it fails, prints its faults and its story. One run in a hundred is done again in another
process under another PYTHONHASHSEED, and must have the same digest; where it has not, the first difference is printed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import plans
import workloads

from actorlib.testing import simulate
from actorlib.testing.fault_kinds import KINDS
from actorlib.transport.sim.world import START_S, World

LIMIT_S = 600.0
STORY_LINES = 60

Counts = collections.Counter[str]


def run_seed(seed: int, counts: Counts, trace: Path | None = None) -> str:
    """One cluster, from its start to its calm end. Gives the digest; raises what an oracle saw."""
    plan = plans.draw(seed)
    world: Any = None
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: _leave_trace(world, trace))  # after the world's end
        world = stack.enter_context(
            simulate(
                seed=seed,
                nodes=plan.nodes,
                num_cpus=plan.cpus,
                memory_bytes=plan.memory_bytes,
                own_gcs=plan.own_gcs,
            )
        )
        try:
            plan.begin(world)
            chosen = [getattr(workloads, name) for name in plan.workloads]
            workloads.run_all(chosen, plan.rng, counts, world.fired, plan.memory_bytes <= plans.TINY_MEMORY_BYTES)
            plan.end(world)
        except BaseException:
            print(*plan.faults, *world.world.trace[-STORY_LINES:], sep="\n", file=sys.stderr)
            raise
    plan.count(world, counts)
    counts["simulated seconds"] += int(world.world.time - START_S)
    counts["events"] += world.world.events
    digest: str = world.world.digest()
    return digest


def _leave_trace(world: Any, path: Path | None) -> None:
    if path is not None and world is not None:
        path.write_text("\n".join(world.world.trace))


# -- the same again ----------------------------------------------------------------------------------------------------
def elsewhere(seed: int, *options: str) -> subprocess.CompletedProcess[str]:
    """The same seed in a process of its own with other hashes."""
    return subprocess.run(
        [sys.executable, __file__, "--seed", str(seed), *options],
        env={**os.environ, "PYTHONHASHSEED": str(1 + seed % 1000)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def difference(seed: int, digest: str) -> str:
    """Where a run in another process parts from the run here; '' if it went the same way."""
    done = elsewhere(seed)
    if done.returncode == 0 and digest in done.stdout:
        return ""
    with tempfile.TemporaryDirectory() as directory, whole_traces():
        here, there = Path(directory, "here"), Path(directory, "there")
        with contextlib.suppress(AssertionError):
            run_seed(seed, collections.Counter(), here)
        elsewhere(seed, "--trace", str(there))
        return f"seed {seed} went another way in another process; {first_difference(here, there)}\n{done.stderr}"


def first_difference(here: Path, there: Path) -> str:
    lines = [path.read_text().splitlines() if path.exists() else [] for path in (here, there)]
    for number, (one, other) in enumerate(itertools.zip_longest(*lines), 1):
        if one != other:
            return f"the first difference is in line {number} of their traces:\n  here:  {one}\n  there: {other}"
    return "their traces are the same; the digests differ in what the traces don't show"


@contextlib.contextmanager
def whole_traces() -> Iterator[None]:
    before, World.trace_lines_max = World.trace_lines_max, None
    try:
        yield
    finally:
        World.trace_lines_max = before


# -- many --------------------------------------------------------------------------------------------------------------
def swarm(seconds: float, first: int, replay_every: int = 100) -> tuple[int, list[int], Counts]:
    """Seeds from ``first`` on, for ``seconds`` of real time. Gives how many ran, those that failed, what fired."""
    counts: Counts = collections.Counter()
    failed: list[int] = []
    began, seed = time.monotonic(), first
    while time.monotonic() - began < seconds:
        try:
            digest = run_seed(seed, counts)
            if replay_every and seed % replay_every == 0:
                counts["runs repeated elsewhere"] += 1
                differs = difference(seed, digest)
                if differs:
                    raise AssertionError(differs)
        except Exception:
            traceback.print_exc()
            print(f"seed {seed} failed; again: python tests/sim/swarm.py --seed {seed}", file=sys.stderr, flush=True)
            failed.append(seed)
        seed += 1
    return seed - first, failed, counts


def table(counts: Counts) -> str:
    """What fired how often, faults that never did included."""
    for kind in KINDS:
        counts[f"fault {kind}"] += 0
    return "\n".join(f"{count:>12,}  {name}" for name, count in sorted(counts.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=None, help="the first seed; by default the clock's")
    parser.add_argument("--seed", type=int, default=None, help="run this one only")
    parser.add_argument("--trace", type=Path, default=None, help="with --seed: write all that happened to this file")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        counts: Counts = collections.Counter()
        with whole_traces() if arguments.trace is not None else contextlib.nullcontext():
            print(run_seed(arguments.seed, counts, arguments.trace))
        print(dict(counts))
        return 0
    first = int(time.time()) if arguments.first is None else arguments.first
    began = time.monotonic()
    ran, failed, counts = swarm(arguments.seconds, first)
    took_s = time.monotonic() - began
    print(table(counts))
    kinds = sum(counts[f"fault {kind}"] > 0 for kind in KINDS)
    print(f"{counts['events'] / took_s:,.0f} events/s; {kinds} of {len(KINDS)} kinds of fault fired")
    print(f"{ran} runs, {len(failed)} failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
