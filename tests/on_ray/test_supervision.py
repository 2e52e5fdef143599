"""Monitors, links, supervisors and dead letters on Ray."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

import actorlib
from actorlib import Child, Supervisor, exceptions
from tests.conftest import eventually

pytestmark = [pytest.mark.usefixtures("on_ray"), pytest.mark.timeout(100)]
WITHIN_S = 60


def worker_class() -> Any:
    @actorlib.remote(num_cpus=0)
    class Worker:
        def __init__(self, path: str = "", name: str = "", fails: bool = False) -> None:
            self.path, self.name = path, name
            self.note("+")
            if fails:
                raise OSError("no such device")

        def note(self, what: str) -> None:
            if self.path:
                with open(self.path, "a") as target:
                    target.write(f"{what}{self.name}\n")

        def pid(self) -> int:
            return os.getpid()

        def leave(self) -> None:
            actorlib.exit_actor()

        def crash(self) -> None:
            os._exit(5)

        def __shutdown__(self) -> None:
            self.note("-")

    return Worker


Worker: Any = worker_class()


def get(refs: Any) -> Any:
    return actorlib.get(refs, timeout=WITHIN_S)


def kill(handle: Any) -> None:
    os.kill(get(handle.pid.remote()), signal.SIGKILL)


def successor(tree: Supervisor, name: str, old: Any) -> Any:
    def look() -> Any:
        try:
            handle = tree.child(name)
            return handle if handle != old and get(handle.pid.remote()) else None
        except (exceptions.ChildNotRunningError, exceptions.ActorDiedError):
            return None

    return eventually(look)


@pytest.mark.parametrize(
    "end, kind, normal",
    [
        (lambda handle: handle.leave.remote(), "exited", True),
        (lambda handle: handle.__ray_terminate__.remote(), "exited", True),
        (lambda handle: handle.crash.remote(), "crashed", False),
        (kill, "crashed", False),
        (actorlib.kill, "killed", False),
    ],
)
def test_each_way_to_end_has_a_name(end: Callable[[Any], Any], kind: str, normal: bool) -> None:
    handle = Worker.remote()
    get(handle.pid.remote())
    down = actorlib.monitor(handle)
    assert actorlib.wait([down], timeout=0.3) == ([], [down])
    end(handle)
    told = get(down)
    assert (told.kind, told.normal, told.class_name) == (kind, normal, "Worker") and told.reason
    assert get(actorlib.monitor(handle)) == told, "also of one that is dead already"


def test_a_monitor_does_not_keep_an_actor_alive() -> None:
    down = actorlib.monitor(Worker.remote())
    assert get(down).kind == "released"


def test_a_constructor_that_raises_is_an_end() -> None:
    handle = Worker.remote(fails=True)
    told = get(actorlib.monitor(handle))
    assert told.kind == "failed" and "no such device" in told.reason


def test_linked_actors_end_together_along_the_whole_chain() -> None:
    handles = [Worker.remote() for _ in range(3)]
    get([handle.pid.remote() for handle in handles])
    actorlib.link(handles[0], handles[1])
    actorlib.link(handles[2], handles[1])
    downs = [actorlib.monitor(handle) for handle in handles]
    kill(handles[0])
    told = get(downs)
    assert [down.kind for down in told] == ["crashed", "linked", "linked"]
    assert told[0].actor_id in told[1].reason and told[1].actor_id in told[2].reason
    with pytest.raises(exceptions.ActorDiedError, match="linked with Worker"):
        get(handles[1].pid.remote())


def test_links_outlive_the_watcher() -> None:
    first, second = Worker.remote(), Worker.remote()
    get([first.pid.remote(), second.pid.remote()])
    actorlib.link(first, second)
    down = actorlib.monitor(second)
    watcher = ray.get_actor("actorlib:watcher", namespace="actorlib")
    ray.kill(watcher, no_restart=False)
    kill(first)
    assert get(down).kind == "linked"


def test_a_normal_end_leaves_the_others_alone() -> None:
    first, second = Worker.remote(), Worker.remote()
    get([first.pid.remote(), second.pid.remote()])
    actorlib.link(first, second)
    down = actorlib.monitor(first)
    first.leave.remote()
    assert get(down).normal
    assert get(second.pid.remote())


def test_a_link_with_one_that_is_dead_or_itself() -> None:
    dead, alive = Worker.remote(), Worker.remote()
    get([dead.pid.remote(), alive.pid.remote()])
    actorlib.kill(dead)
    actorlib.link(alive, dead)
    assert get(actorlib.monitor(alive)).kind == "linked"
    with pytest.raises(ValueError, match="itself"):
        actorlib.link(alive, alive)


def test_calls_of_an_actor_that_is_dead_are_dead_letters() -> None:
    handle = Worker.remote()
    get(handle.pid.remote())
    letters: list[Any] = []
    stop = actorlib.on_dead_letter(letters.append)
    get(handle.pid.remote())
    actorlib.kill(handle)
    with pytest.raises(exceptions.ActorDiedError):
        get(handle.pid.remote())
    stop()
    with pytest.raises(exceptions.ActorDiedError):
        get(handle.leave.remote())
    (letter,) = letters
    assert (letter.class_name, letter.method) == ("Worker", "pid") and "kill" in letter.reason


# -- supervisors -------------------------------------------------------------------------------------------------------
def child(path: Path, name: str, **more: Any) -> Child:
    return Child(Worker, (str(path), name), id=name, **more)


@pytest.mark.parametrize(
    "strategy, expected",
    [
        ("one_for_one", ["+b"]),
        ("rest_for_one", ["-c", "+b", "+c"]),
        ("one_for_all", ["-c", "-a", "+a", "+b", "+c"]),
    ],
)
def test_strategies(strategy: str, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "notes"
    tree = Supervisor([child(path, name) for name in "abc"], strategy=strategy)
    assert path.read_text().split() == ["+a", "+b", "+c"]
    path.write_text("")
    old = tree.child("b")
    kill(old)
    successor(tree, "b", old)
    assert path.read_text().split() == expected
    row = tree.children()[1]
    assert row["restarts"] == 1 and row["state"] == "up" and "crashed" in row["last_end"]
    path.write_text("")
    tree.stop()
    assert path.read_text().split() == ["-c", "-b", "-a"]
    assert get(tree.monitor()).normal


def test_too_many_restarts_end_the_supervisor_with_the_reasons(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    tree = Supervisor([child(path, "a"), child(path, "b")], intensity=(1, 60.0))
    old = tree.child("b")
    old.crash.remote()
    successor(tree, "b", old).crash.remote()
    told = get(tree.monitor())
    assert told.kind == "failed" and "2 restarts within 60 s" in told.reason
    with pytest.raises(exceptions.RestartIntensityError, match="intensity"):
        tree.children()
    assert path.read_text().split() == ["+a", "+b", "+b", "-a"]


def test_a_child_that_can_not_be_started(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    broken = Child(Worker, (str(path), "b", True), id="b")
    with pytest.raises(exceptions.SupervisorFailedError, match=r"(?s)'b' can't be started: .*no such device"):
        Supervisor([child(path, "a"), broken])
    eventually(lambda: path.read_text().split() == ["+a", "+b", "-a"])


def test_the_last_handle_of_a_supervisor_takes_the_children_with_it() -> None:
    tree = Supervisor([Child(Worker, id=name) for name in "ab"])
    downs = [tree.monitor(), *(actorlib.monitor(tree.child(name)) for name in "ab")]
    del tree
    assert get(downs)[0].normal


def test_a_monitor_does_not_keep_its_actor_from_leaving() -> None:
    @actorlib.remote(num_cpus=0)
    class Watching:
        def watch(self, other: Any) -> None:
            self.down = actorlib.monitor(other)

        def leave(self) -> None:
            actorlib.exit_actor()

    watched, watching = Worker.remote(), Watching.remote()
    get(watching.watch.remote(watched))
    down = actorlib.monitor(watching)
    watching.leave.remote()
    assert get(down).kind == "exited" and get(watched.pid.remote())
