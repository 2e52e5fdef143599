"""pytest: simulated clusters as a fixture, with seeds that can be given and failures that can be replayed.

``simulated`` is a fresh world of three nodes; the mark ``@pytest.mark.actorlib(nodes=5, faults=[...])`` gives it other
arguments of ``simulate``. Each test gets a seed of its own, drawn anew in every run, or the one of
``--actorlib-seed N``; ``--actorlib-mode process`` gives real processes instead.

A test that fails after it had a world, by the fixture or by ``simulate``, leaves its trace, a timeline, its schedule
(the smallest that Hypothesis found, where it drew it) and a replay file in ``--actorlib-dir``, and prints the one
command that repeats it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorlib.testing.recent import PastWorld, Recent

REPLAY_VERSION = 2
DIRECTORY = ".actorlib"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("actorlib", "simulated clusters")
    group.addoption("--actorlib-seed", type=int, default=None, metavar="N", help="the seed of every simulated world")
    group.addoption("--actorlib-replay", default=None, metavar="FILE", help="run the test of a replay file, as it was")
    group.addoption("--actorlib-dir", default=DIRECTORY, metavar="DIR", help="where failures leave their files")
    group.addoption(
        "--actorlib-mode",
        default="simulation",
        choices=("simulation", "process"),
        help="whether the fixture `simulated` is a simulation or a cluster of real processes",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "actorlib(**arguments): arguments of simulate() for the fixture `simulated`")
    replay = config.getoption("--actorlib-replay")
    if replay is None:
        return
    try:
        found = json.loads(Path(replay).read_text())
        if not isinstance(found, dict) or found.get("version") != REPLAY_VERSION:
            raise ValueError("not a replay file of this version of actorlib")
        config.option.actorlib_test = found["test"]
        Recent.replayed = [_world_again(world) for world in found["worlds"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise pytest.UsageError(f"--actorlib-replay {replay}: {error}") from error


def _world_again(found: Any) -> PastWorld:
    from actorlib.testing.schedule_file import schedule_from_data

    if type(found["seed"]) is not int:
        raise ValueError(f"the seed must be an integer, not {found['seed']!r}")
    return PastWorld(found["seed"], schedule_from_data(found["schedule"]))


def pytest_unconfigure() -> None:
    Recent.replayed = []
    Recent.start_over(listens=False)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = getattr(config.option, "actorlib_test", None)
    if wanted is not None:
        others = [item for item in items if item.nodeid != wanted]
        items[:] = [item for item in items if item.nodeid == wanted]
        config.hook.pytest_deselected(items=others)


def _files_begin_with(item: pytest.Item) -> str:
    return re.sub(r"[^\w.-]+", "_", item.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    from actorlib.testing.histories.recorder import Drawings

    Drawings.directory = Path(item.config.getoption("--actorlib-dir"))
    Drawings.prefix = f"{_files_begin_with(item)}."
    Recent.start_over(listens=True)
    Recent.seed = item.config.getoption("--actorlib-seed")


@pytest.fixture
def simulation_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test's world."""
    given = request.config.getoption("--actorlib-seed")
    if given is None and Recent.replayed:
        return Recent.replayed[0].seed
    return int.from_bytes(os.urandom(4), "little") if given is None else int(given)


@pytest.fixture
def simulated(request: pytest.FixtureRequest, simulation_seed: int) -> Iterator[Any]:
    """A simulated cluster of three nodes, for the test that asks for it; or a real one (``--actorlib-mode``)."""
    from actorlib.testing.simulation import simulate

    mark = request.node.get_closest_marker("actorlib")
    arguments = {"nodes": 3, "check": False, "mode": request.config.getoption("--actorlib-mode")}
    arguments.update(mark.kwargs if mark is not None else {})
    with simulate(seed=simulation_seed, **arguments) as world:
        request.node.stash[_WORLD] = world
        yield world
    del request.node.stash[_WORLD]


_WORLD: pytest.StashKey[Any] = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if not report.failed:
        return
    world: Any = item.stash.get(_WORLD, None)
    worlds = [*Recent.worlds, *([world.past()] if hasattr(world, "past") else [])]
    if worlds:
        report.sections.append(("actorlib", _leave_files(item, worlds)))


def _leave_files(item: pytest.Item, worlds: list[PastWorld]) -> str:
    from actorlib.testing.schedule_file import dump_schedule, schedule_to_data

    last = worlds[-1]
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        worlds = [last]  # the others were attempts; Hypothesis ends with the smallest that fails
    directory = Path(item.config.getoption("--actorlib-dir"))
    directory.mkdir(parents=True, exist_ok=True)

    def leave(ending: str, text: str) -> Path:
        path = directory / f"{_files_begin_with(item)}.{ending}"
        path.write_text(text)
        return path

    again = [{"seed": world.seed, "schedule": schedule_to_data(world.plan)} for world in worlds]
    content = {"version": REPLAY_VERSION, "test": item.nodeid, "worlds": again}
    replay = leave("replay.json", json.dumps(content, indent=1) + "\n")
    lines = [
        f"seed {last.seed}, {last.events} events",
        f"trace: {leave('trace.txt', chr(10).join(last.trace) + chr(10))}",
        f"timeline: {leave('timeline.svg', last.drawing)}",
        f"schedule: {leave('schedule.json', dump_schedule([*last.plan, *last.fired]))}",
    ]
    if last.story:
        lines.append(f"story: {leave('story.txt', last.story)}\n{last.story}")
    lines.append(f"again: {shlex.join(['pytest', item.nodeid, '--actorlib-replay', str(replay)])}")
    return "\n".join(lines)
