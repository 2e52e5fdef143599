"""The swarm finds planted faults: a few of them here, all with ``make sim-planted``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import planted

SOON_FOUND = [
    "a repeated batch is delivered again",
    "kept arguments are not registered",
    "resources are not subtracted",
    "returned leases are forgotten",
    "a name is claimed twice",
    "the newest call runs first",
]


@pytest.mark.parametrize("name", SOON_FOUND)
def test_a_planted_fault_is_found(name):
    found = planted.hunt(name, 0, 60.0)
    assert found.oracle, f"{found.seeds} seeds did not find it"


def test_there_are_many_and_each_names_what_it_changes():
    assert len(planted.PLANTED) >= 30
    for owner, method, _ in planted.PLANTED.values():
        assert hasattr(owner, method), f"{owner.__name__}.{method} is gone"
