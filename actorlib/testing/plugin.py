"""pytest: simulated clusters as a fixture, with seeds that can be given and failures that can be replayed.

``simulated`` is a fresh world; each test gets a seed of its own, drawn anew in every run, or the one of
``--actorlib-seed N``. A test that fails in a world leaves its trace and a replay file in ``--actorlib-dir`` and prints
the one command that repeats it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from actorlib.testing.simulation import Simulation

REPLAY_VERSION = 1


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("actorlib", "simulated clusters")
    group.addoption("--actorlib-seed", type=int, default=None, metavar="N", help="the seed of every simulated world")
    group.addoption("--actorlib-replay", default=None, metavar="FILE", help="run the test of a replay file, as it was")
    group.addoption("--actorlib-dir", default=".actorlib", metavar="DIR", help="where failures leave their files")


def pytest_configure(config: pytest.Config) -> None:
    replay = config.getoption("--actorlib-replay")
    if replay is None:
        return
    try:
        found = json.loads(Path(replay).read_text())
    except (OSError, ValueError) as error:
        raise pytest.UsageError(f"--actorlib-replay {replay}: {error}") from error
    if found.get("version") != REPLAY_VERSION:
        raise pytest.UsageError(f"--actorlib-replay {replay}: not a replay file of this version of actorlib")
    config.option.actorlib_seed = found["seed"]
    config.option.actorlib_test = found["test"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = getattr(config.option, "actorlib_test", None)
    if wanted is not None:
        others = [item for item in items if item.nodeid != wanted]
        items[:] = [item for item in items if item.nodeid == wanted]
        config.hook.pytest_deselected(items=others)


@pytest.fixture
def simulation_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test's world."""
    given = request.config.getoption("--actorlib-seed")
    return int.from_bytes(os.urandom(4), "little") if given is None else int(given)


@pytest.fixture
def simulated(request: pytest.FixtureRequest, simulation_seed: int) -> Iterator[Simulation]:
    """A simulated cluster of three nodes, for the test that asks for it."""
    from actorlib.testing.simulation import simulate

    with simulate(seed=simulation_seed, nodes=3, check=False) as world:
        request.node.stash[_WORLD] = world
        yield world


_WORLD: pytest.StashKey[Any] = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    world = item.stash.get(_WORLD, None)
    if report.failed and world is not None:
        report.sections.append(("actorlib", _leave_files(item, world)))


def _leave_files(item: pytest.Item, world: Simulation) -> str:
    directory = Path(item.config.getoption("--actorlib-dir"))
    directory.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "_", item.nodeid)
    seed = world.world.seed
    replay = directory / f"{name}.replay.json"
    replay.write_text(json.dumps({"version": REPLAY_VERSION, "test": item.nodeid, "seed": seed}) + "\n")
    trace = directory / f"{name}.trace.txt"
    trace.write_text("\n".join(world.world.trace) + "\n")
    return (
        f"seed {seed}, {world.world.events} events; the trace of messages is in {trace}\n"
        f"again: pytest --actorlib-replay {replay}"
    )
