"""Tests of the engine on Ray: only where Ray is installed (``make test-ray`` makes such an environment)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

import actorlib

collect_ignore_glob = [] if importlib.util.find_spec("ray") else ["test_*.py"]


@pytest.fixture(scope="module")
def on_ray() -> Iterator[None]:
    if not actorlib.is_initialized():
        actorlib.init(engine="ray", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
