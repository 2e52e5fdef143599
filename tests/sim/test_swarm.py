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


def test_a_swarm_of_new_seeds():
    seconds = float(os.environ.get("SWARM_SECONDS", "20"))
    ran, failed, counts = swarm.swarm(seconds, int.from_bytes(os.urandom(4), "little"), replay_every=100)
    assert ran > 5 and not failed
    assert counts["events"] > 1000
