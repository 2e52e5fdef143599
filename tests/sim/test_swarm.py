"""The swarm, shortened (``make sim SECONDS=...`` runs it for longer), and the seeds that once failed."""

from __future__ import annotations

import collections
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import swarm  # noqa: E402

SEEDS = [int(line.split()[0]) for line in (HERE / "regressions" / "seeds.txt").read_text().splitlines()]


@pytest.mark.parametrize("seed", SEEDS)
def test_seeds_that_once_failed(seed):
    swarm.run_seed(seed, collections.Counter())


def test_a_swarm():
    """The same seeds each time, so that a change that breaks something is told from one that meets an old fault."""
    counts = collections.Counter()
    for seed in range(1, 1 + int(os.environ.get("SWARM_SEEDS", "400"))):
        digest = swarm.run_seed(seed, counts)
        assert seed % 100 or swarm.same_elsewhere(seed, digest), f"seed {seed} went another way in another process"
    assert counts["events"] > 1000
