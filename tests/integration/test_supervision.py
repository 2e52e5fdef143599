"""monitor, link, supervisors and dead letters, on real processes and in simulation."""

from __future__ import annotations

import os
import signal
import time

import pytest

import actorlib
from actorlib import Child, Supervisor, branch, exceptions
from actorlib.testing import simulate
from tests.conftest import eventually


@actorlib.remote(num_cpus=0)
class Worker:
    """Notes its start and end in a file, if it has one."""

    def __init__(self, path="", name="", fails=False):
        self.path, self.name, self.count = path, name, 0
        self.note("+")
        if fails:
            raise OSError("no such device")

    def note(self, what):
        if self.path:
            with open(self.path, "a") as target:
                target.write(f"{what}{self.name}\n")

    def pid(self):
        return os.getpid()

    def add(self):
        self.count += 1
        return self.count

    def leave(self):
        actorlib.exit_actor()

    def crash(self):
        os._exit(5)

    def __shutdown__(self):
        self.note("-")


@pytest.fixture(scope="module", autouse=True)
def session():
    actorlib.init(num_cpus=2)
    yield
    actorlib.shutdown()


def notes(path):
    return path.read_text().split()


def kill(handle):
    pid = actorlib.get(handle.pid.remote())
    os.kill(pid, signal.SIGKILL)
    return pid


def successor(tree, name, old):
    """The handle of a child that was started again."""

    def look():
        try:
            handle = tree.child(name)
            return handle if handle != old and actorlib.get(handle.pid.remote()) else None
        except (exceptions.ChildNotRunningError, exceptions.ActorDiedError):
            return None

    return eventually(look)


# -- monitor -----------------------------------------------------------------------------------------------------------
def test_a_monitor_tells_how_an_actor_ended():
    handle = Worker.remote()
    down = actorlib.monitor(handle)
    assert actorlib.wait([down], timeout=0.05) == ([], [down])
    pid = kill(handle)
    told = actorlib.get(down, timeout=30)
    assert (told.kind, told.normal, told.pid, told.signal) == ("crashed", False, pid, 9)
    assert "SIGKILL" in told.reason and told.class_name == "Worker"
    assert actorlib.get(actorlib.monitor(handle), timeout=30) == told, "also of one that is dead already"


@pytest.mark.parametrize(
    "end, kind, normal, why",
    [
        (lambda handle: handle.leave.remote(), "exited", True, "exit_actor"),
        (lambda handle: handle.crash.remote(), "crashed", False, "status 5"),
        (actorlib.kill, "killed", False, "kill"),
    ],
)
def test_each_way_to_end_has_a_name(end, kind, normal, why):
    handle = Worker.remote()
    down = actorlib.monitor(handle)
    end(handle)
    told = actorlib.get(down, timeout=30)
    assert (told.kind, told.normal) == (kind, normal) and why in told.reason


def test_a_monitor_does_not_keep_an_actor_alive():
    down = actorlib.monitor(Worker.remote())
    assert actorlib.get(down, timeout=30).kind == "released"


def test_a_constructor_that_raises_is_an_end():
    told = actorlib.get(actorlib.monitor(Worker.remote(fails=True)), timeout=30)
    assert told.kind == "failed" and "no such device" in told.reason


def test_restarts_are_no_end():
    handle = Worker.options(max_restarts=1, max_task_retries=-1).remote()
    down = actorlib.monitor(handle)
    pid = kill(handle)
    assert eventually(lambda: actorlib.get(handle.pid.remote())) != pid
    assert actorlib.wait([down], timeout=0) == ([], [down])
    kill(handle)
    assert "restarted 1 times" in actorlib.get(down, timeout=30).reason


# -- link --------------------------------------------------------------------------------------------------------------
def test_linked_actors_end_together_along_the_whole_chain():
    handles = [Worker.remote() for _ in range(3)]
    actorlib.link(handles[0], handles[1])
    actorlib.link(handles[2], handles[1])
    downs = [actorlib.monitor(handle) for handle in handles]
    kill(handles[0])
    told = actorlib.get(downs, timeout=30)
    assert [down.kind for down in told] == ["crashed", "linked", "linked"]
    assert "SIGKILL" in told[1].reason and told[1].actor_id in told[2].reason
    with pytest.raises(exceptions.ActorDiedError, match=r"linked with Worker .* SIGKILL"):
        actorlib.get(handles[1].pid.remote(), timeout=30)


def test_a_normal_end_leaves_the_others_alone():
    first, second = Worker.remote(), Worker.remote()
    actorlib.link(first, second)
    down = actorlib.monitor(first)
    first.leave.remote()
    assert actorlib.get(down, timeout=30).normal
    assert actorlib.get(second.add.remote(), timeout=30) == 1


def test_a_link_with_one_that_is_dead_already():
    dead, alive = Worker.remote(), Worker.remote()
    down = actorlib.monitor(dead)
    actorlib.kill(dead)
    actorlib.get(down, timeout=30)
    actorlib.link(alive, dead)
    assert actorlib.get(actorlib.monitor(alive), timeout=30).kind == "linked"
    with pytest.raises(ValueError, match="itself"):
        actorlib.link(alive, alive)


# -- dead letters ------------------------------------------------------------------------------------------------------
def test_dead_letters_can_be_listened_to():
    handle = Worker.remote()
    letters = []
    stop = actorlib.on_dead_letter(letters.append)
    down = actorlib.monitor(handle)
    actorlib.get(handle.add.remote())
    actorlib.kill(handle)
    actorlib.get(down, timeout=30)
    with pytest.raises(exceptions.ActorDiedError):
        actorlib.get(handle.add.remote(), timeout=30)
    stop()
    with pytest.raises(exceptions.ActorDiedError):
        actorlib.get(handle.pid.remote(), timeout=30)
    (letter,) = letters
    assert (letter.class_name, letter.method) == ("Worker", "add") and "kill" in letter.reason


# -- supervisors -------------------------------------------------------------------------------------------------------
def child(path, name, **more):
    return Child(Worker, (str(path), name), id=name, **more)


def test_children_start_in_order_and_stop_in_reverse(tmp_path):
    path = tmp_path / "notes"
    tree = Supervisor([child(path, name) for name in "abc"])
    assert notes(path) == ["+a", "+b", "+c"]
    tree.stop()
    assert notes(path) == ["+a", "+b", "+c", "-c", "-b", "-a"]
    assert actorlib.get(tree.monitor(), timeout=30).normal


def test_the_last_handle_of_a_supervisor_takes_the_children_with_it(tmp_path):
    path = tmp_path / "notes"
    tree = Supervisor([child(path, name) for name in "ab"])
    down = tree.monitor()
    del tree
    assert actorlib.get(down, timeout=30).normal
    assert notes(path) == ["+a", "+b", "-b", "-a"]


@pytest.mark.parametrize(
    "strategy, expected",
    [
        ("one_for_one", ["+b"]),
        ("rest_for_one", ["-c", "+b", "+c"]),
        ("one_for_all", ["-c", "-a", "+a", "+b", "+c"]),
    ],
)
def test_strategies(strategy, expected, tmp_path):
    path = tmp_path / "notes"
    tree = Supervisor([child(path, name) for name in "abc"], strategy=strategy)
    path.write_text("")
    old = tree.child("b")
    kill(old)
    successor(tree, "b", old)
    assert notes(path) == expected
    row = tree.children()[1]
    assert row["restarts"] == 1 and row["state"] == "up" and "SIGKILL" in row["last_end"]
    tree.stop()


def test_which_ends_are_made_good(tmp_path):
    path = tmp_path / "notes"
    kinds = {"p": "permanent", "t": "transient", "x": "temporary"}
    tree = Supervisor([child(path, name, restart=kind) for name, kind in kinds.items()], intensity=(9, 5.0))
    old = {name: tree.child(name) for name in kinds}
    for handle in old.values():
        handle.leave.remote()
    successor(tree, "p", old["p"])
    eventually(lambda: [row["state"] for row in tree.children()] == ["up", "absent", "absent"])
    with pytest.raises(exceptions.ChildNotRunningError, match=r"'t' \(transient\) is not running.*exit_actor"):
        tree.child("t")
    with pytest.raises(ValueError, match="'p', 't', 'x'"):
        tree.child("y")
    tree.stop()


def test_a_supervisor_of_supervisors_survives_the_loss_of_a_branch(tmp_path):
    path = tmp_path / "notes"
    tree = Supervisor([child(path, "a"), branch([child(path, "b"), child(path, "c")], id="sub")])
    inner = tree.child("sub")
    b = actorlib.get(inner.child.remote("b"))
    down = actorlib.monitor(b)
    actorlib.kill(inner)
    assert actorlib.get(down, timeout=30).kind == "ownerless", "children don't outlive their supervisor"
    eventually(lambda: notes(path).count("+c") == 2)
    assert notes(path).count("+a") == 1
    tree.stop()
    assert notes(path)[-3:] == ["-c", "-b", "-a"]


def test_too_many_restarts_end_the_supervisor_with_the_reasons(tmp_path):
    path = tmp_path / "notes"
    tree = Supervisor([child(path, "a"), child(path, "b")], intensity=(1, 60.0))
    old = tree.child("b")
    old.crash.remote()
    successor(tree, "b", old).crash.remote()
    told = actorlib.get(tree.monitor(), timeout=60)
    assert told.kind == "failed" and "2 restarts within 60 s" in told.reason and "exited with status 5" in told.reason
    with pytest.raises(exceptions.RestartIntensityError, match="intensity"):
        tree.children()
    assert notes(path) == ["+a", "+b", "+b", "-a"]


def test_a_branch_that_gives_up_is_an_end_for_the_supervisor_above(tmp_path):
    path = tmp_path / "notes"
    tree = Supervisor([branch([child(path, "a")], id="sub", intensity=(0, 60.0))])
    sub = tree.child("sub")
    actorlib.get(sub.child.remote("a")).crash.remote()
    eventually(lambda: notes(path).count("+a") == 2)
    row = eventually(lambda: [row for row in tree.children() if row["state"] == "up"])[0]
    assert row["restarts"] == 1 and "gave up" in row["last_end"] and "exited with status 5" in row["last_end"]
    tree.stop()


def test_a_child_that_can_not_be_started(tmp_path):
    path = tmp_path / "notes"
    broken = Child(Worker, (str(path), "b", True), id="b")
    with pytest.raises(exceptions.SupervisorFailedError, match=r"(?s)'b' can't be started: .*no such device"):
        Supervisor([child(path, "a"), broken])
    eventually(lambda: notes(path) == ["+a", "+b", "-a"])


def test_a_child_that_does_not_stop_is_killed(tmp_path):
    @actorlib.remote(num_cpus=0)
    class Stubborn:
        def __shutdown__(self):
            time.sleep(600)

    tree = Supervisor([Child(Stubborn, stop_timeout_s=0.1), child(tmp_path / "notes", "a")])
    down = actorlib.monitor(tree.child("Stubborn"))
    tree.stop()
    assert actorlib.get(down, timeout=30).kind == "killed"


@pytest.mark.parametrize(
    "make, kind, why",
    [
        (lambda: Supervisor([Worker], strategy="all"), ValueError, "'one_for_all'"),
        (lambda: Supervisor([Worker], intensity=(-1, 5.0)), ValueError, "intensity"),
        (lambda: Supervisor([Worker], intensity=(1, 0)), ValueError, "intensity"),
        (lambda: Supervisor([Worker, Worker]), ValueError, "share the id 'Worker'"),
        (lambda: Child(Worker, restart="always"), ValueError, "'transient'"),
        (lambda: Child(Worker, stop_timeout_s=-1), ValueError, "stop_timeout_s"),
        (lambda: Child(dict), TypeError, "actor class"),
    ],
)
def test_bad_input(make, kind, why):
    with pytest.raises(kind, match=why):
        make()


# -- in simulation -----------------------------------------------------------------------------------------------------
@actorlib.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count


@pytest.fixture
def no_session():
    """Simulations stand in for the session; it comes back after them."""
    actorlib.shutdown()
    yield
    actorlib.init(num_cpus=2)


def test_supervision_in_simulation(no_session):
    for seed in range(5):
        with simulate(seed=seed, nodes=3) as world:
            tree = Supervisor(
                [Child(Counter, id="a"), branch([Child(Counter, id="b")], id="sub")], strategy="rest_for_one"
            )
            first = tree.child("a")
            assert actorlib.get(first.add.remote()) == 1
            down = actorlib.monitor(first)
            world.crash_actor(first)
            assert actorlib.get(down).kind == "crashed"
            while (row := tree.children()[0])["restarts"] < 1 or row["state"] != "up":
                time.sleep(0.01)
            assert actorlib.get(tree.child("a").add.remote()) == 1
            linked, other = Counter.remote(), Counter.remote()
            actorlib.link(linked, other)
            actorlib.get([linked.add.remote(), other.add.remote()])
            end = actorlib.monitor(other)
            world.crash_actor(linked)
            assert actorlib.get(end).kind == "linked"
            tree.stop()
            assert actorlib.get(tree.monitor()).normal
            del tree, first, linked, other, down, end
