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

from actorlib.testing.fault_kinds import KINDS  # noqa: E402

SEEDS = [int(line.split()[0]) for line in (HERE / "regressions" / "seeds.txt").read_text().splitlines()]


@pytest.mark.parametrize("seed", SEEDS)
def test_seeds_that_once_failed(seed):
    swarm.run_seed(seed, collections.Counter())


def test_a_swarm():
    """The same seeds each time, so that a change that breaks something is told from one that meets an old fault."""
    counts = collections.Counter()
    for seed in range(1, 1 + int(os.environ.get("SWARM_SEEDS", "100"))):
        digest = swarm.run_seed(seed, counts)
        differs = swarm.difference(seed, digest) if seed % 100 == 0 else ""
        assert not differs, differs
    assert counts["events"] > 1000
    assert sum(counts[f"fault {kind}"] > 0 for kind in KINDS) >= 24


def test_the_first_difference_of_two_runs_is_found(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_text("one\ntwo\nthree")
    there.write_text("one\n2\nthree")
    assert swarm.first_difference(here, there).endswith("line 2 of their traces:\n  here:  two\n  there: 2")
    there.write_text("one\ntwo")
    assert swarm.first_difference(here, there).endswith("line 3 of their traces:\n  here:  three\n  there: None")
