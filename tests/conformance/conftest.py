"""One suite, every engine: each case runs on all of them, in one session per engine and module.

``ACTORLIB_CONFORMANCE_ENGINES`` chooses (names with commas); by default all that need nothing but this package. Where
an engine differs from the contract, ``differences.toml`` says so with the reason; a case that is listed there and
passes fails the suite.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorlib
from actorlib.cluster_utils import Cluster
from actorlib.testing import simulate

sys.path.insert(0, str(Path(__file__).parent))

import contract

ENGINES = ("local", "cluster", "simulation", "inline", "ray")
CHOSEN = tuple(os.environ.get("ACTORLIB_CONFORMANCE_ENGINES", "local,cluster,simulation,inline").split(","))
# What every engine has in all: 4 CPU, 2 GPU, 2 of "special", and a node in zone a.
CPUS, GPUS, SPECIAL = 4, 2, 2


@contextlib.contextmanager
def local() -> Iterator[None]:
    with actorlib.init(num_cpus=CPUS, num_gpus=GPUS, resources={"special": SPECIAL}, labels={"zone": "a"}):
        yield


@contextlib.contextmanager
def inline() -> Iterator[None]:
    about: dict[str, Any] = {"resources": {"special": SPECIAL}, "labels": {"zone": "a"}}
    with actorlib.init(engine="inline", num_cpus=CPUS, num_gpus=GPUS, **about):
        yield


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    half = {"num_cpus": CPUS // 2, "num_gpus": GPUS // 2, "resources": {"special": SPECIAL // 2}}
    made = Cluster(initialize_head=True, head_node_args={**half, "labels": {"zone": "a"}})
    try:
        made.add_node(**half, labels={"zone": "b"})
        made.connect()
        made.wait_for_nodes()
        yield
    finally:
        made.shutdown()


@contextlib.contextmanager
def simulation() -> Iterator[None]:
    about: dict[str, Any] = {"resources": {"GPU": GPUS, "special": SPECIAL, "memory": 8 << 30}, "labels": {"zone": "a"}}
    with simulate(seed=8, nodes=1, num_cpus=CPUS, check=False, **about):
        yield
    gc.collect()  # what the world left ends now, not in the middle of whatever comes next


@contextlib.contextmanager
def ray() -> Iterator[None]:
    """Starting Ray takes seconds: one session for all modules, ended with the tests."""
    if not actorlib.is_initialized():
        about: dict[str, Any] = {"resources": {"special": SPECIAL}, "labels": {"zone": "a"}}
        actorlib.init(engine="ray", num_cpus=CPUS, num_gpus=GPUS, include_dashboard=False, log_to_driver=False, **about)
    yield


def pytest_sessionfinish() -> None:
    if CHOSEN == ("ray",):
        actorlib.shutdown()


@pytest.fixture(scope="module", params=CHOSEN, autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The session in which the module's cases run."""
    with globals()[request.param]():
        yield request.param


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is listed as a difference must differ."""
    differences = contract.differences()
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None or "engine" not in callspec.params:
            continue
        reason, run = differences.get((contract.case_of(item), callspec.params["engine"]), ("", True))
        if reason:
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason, run=run))
