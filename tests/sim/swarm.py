"""A swarm of simulated clusters: random workloads under random faults, every run decided by its seed.

``python tests/sim/swarm.py --seconds 180`` runs new seeds for that long and prints what fired how often; ``--seed N``
repeats one run and, where it fails, prints its story. One run in a hundred is done again in another process under
another PYTHONHASHSEED, and must have the same digest.
"""

from __future__ import annotations

import argparse
import collections
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import plans
import workloads

from actorlib.testing import simulate

LIMIT_S = 600.0
STORY_LINES = 60


def run_seed(seed: int, counts: collections.Counter[str]) -> str:
    """One cluster, from its start to its calm end. Gives the digest; raises what an oracle saw."""
    plan = plans.draw(seed)
    with simulate(seed=seed, nodes=plan.nodes, num_cpus=plan.cpus) as world:
        try:
            plan.begin(world, counts)
            chosen = [getattr(workloads, name) for name in plan.workloads]
            workloads.run_all(chosen, plan.rng, counts)
            plan.end(world)
        except BaseException:
            print("\n".join(list(world.world.trace)[-STORY_LINES:]), file=sys.stderr)
            raise
    digest: str = world.world.digest()
    counts["simulated seconds"] += int(world.world.time - 1000)
    counts["events"] += world.world.events
    return digest


def same_elsewhere(seed: int, digest: str) -> bool:
    """The same seed in a process of its own with other hashes."""
    environment = {**os.environ, "PYTHONHASHSEED": str(1 + seed % 1000)}
    done = subprocess.run(
        [sys.executable, __file__, "--seed", str(seed)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return done.returncode == 0 and digest in done.stdout


def swarm(seconds: float, first: int, replay_every: int = 100) -> tuple[int, list[int], collections.Counter[str]]:
    """Seeds from ``first`` on, for ``seconds`` of real time. Gives how many ran, those that failed, what fired."""
    counts: collections.Counter[str] = collections.Counter()
    failed: list[int] = []
    began, seed = time.monotonic(), first
    while time.monotonic() - began < seconds:
        try:
            digest = run_seed(seed, counts)
            if replay_every and seed % replay_every == 0 and not same_elsewhere(seed, digest):
                raise AssertionError("the same seed went another way in another process")
        except Exception:
            traceback.print_exc()
            print(f"seed {seed} failed; again: python tests/sim/swarm.py --seed {seed}", file=sys.stderr, flush=True)
            failed.append(seed)
        seed += 1
    return seed - first, failed, counts


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=None, help="the first seed; by default the clock's")
    parser.add_argument("--seed", type=int, default=None, help="run this one only")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        counts: collections.Counter[str] = collections.Counter()
        print(run_seed(arguments.seed, counts))
        print(dict(counts))
        return 0
    first = int(time.time()) if arguments.first is None else arguments.first
    ran, failed, counts = swarm(arguments.seconds, first)
    for name, count in sorted(counts.items()):
        print(f"{count:>10,}  {name}")
    print(f"{ran} runs, {len(failed)} failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
