"""What a GCS that is killed costs: the longest wait of calls that need it, of calls that don't, and of those who die.

A head and a node on loopback, each as ``actorlib start`` makes them, with ``--actors`` living actors in the tables (of
a node that this program plays, since so many processes would measure the machine). The GCS is killed with SIGKILL again
and again, while one thread asks it and another calls an actor. Windows in which nothing happens, and in which a process
that nobody needs computes for as long as the GCS takes to start, show what of it is the machine's.

    python bench/gcs_restart.py --actors 10000 --kills 5
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import actorlib
from actorlib.runtime.drivers.node_process import NodeConfig, NodeHandle, launch_node
from actorlib.runtime.drivers.session_file import find
from actorlib.transport import messages
from actorlib.transport.drivers.loop import Loop
from actorlib.transport.endpoint import parse
from actorlib.transport.ids import JobId, NodeId, new_process_id
from actorlib.transport.link import Address

WINDOW_S = 2.5
LOAD_CPU_S = 0.2
BURNERS: list[subprocess.Popen[bytes]] = []


class PlayedNode:
    """A node with many living actors and no process but this one. It says what a node says."""

    def __init__(self, directory: str, gcs: Address, actors: int) -> None:
        process_id = new_process_id()
        self.address = Address(process_id, NodeId(process_id), f"ipc://{directory}/played")
        hello = messages.Hello(messages.PROTOCOL_VERSION, self.address, "node", os.getpid(), JobId(b""), "")
        self.gcs = gcs._replace(endpoint=parse(gcs.endpoint).local)
        self.boot = 0
        self.loop = Loop(self.address, hello, {}, lambda _, __: None)
        self.loop.handlers.update(
            {
                messages.GcsStarted: self._started,
                messages.HeartbeatSeen: self._seen,
                messages.StartActor: self._start,
                **{
                    kind: lambda _, __: None
                    for kind in (messages.NodesChanged, messages.NodesFree, messages.KeysAllowed)
                },
                **{kind: lambda _, __: None for kind in (messages.NodeRegistered, messages.JobEnded)},
                **{kind: lambda _, __: None for kind in (messages.StopActor, messages.ActorRegistered)},
            }
        )
        self.loop.start_helper()
        self.hosted: list[messages.Hosted] = []
        self.loop.run(self._register)
        self.loop.run(self._beat)
        self.loop.run(lambda: [self._make(number) for number in range(actors)] and None)

    def _say(self, message: tuple) -> None:
        self.loop.link(self.gcs).send(message)

    def _register(self) -> None:
        holds = messages.Holdings(tuple(self.hosted), (), ())
        total = {"played": 10_000}
        self._say(messages.NodeRegister(1, self.address, 1, total, {}, "played", os.getpid(), "elsewhere", holds))

    def _make(self, number: int) -> None:
        spec = messages.ActorSpec(
            number.to_bytes(16, "big"), JobId(b"j" * 8), self.address, b"c" * 16, "Played", f"actor-{number}", "played",
            True, b"a" * 200, (), (), -1, 0, 1, {}, {"played": 0}, {}, ("default",), "",
            None, {},
        )  # fmt: skip
        self._say(messages.ActorRegister(number + 10, spec, False))

    def _start(self, link: object, order: messages.StartActor) -> None:
        actor_id = order.spec.actor_id
        self.hosted.append(messages.Hosted(actor_id, order.incarnation, self.address))
        self._say(messages.ActorCreated(actor_id, order.incarnation, self.address))

    def _seen(self, link: object, message: messages.HeartbeatSeen) -> None:
        self.boot = self.boot or message.boot

    def _started(self, link: object, message: messages.GcsStarted) -> None:
        if message.boot > self.boot:
            self.boot = message.boot
            self.loop.drop_link(self.gcs.process_id, "it has begun anew")
            self._register()

    def _beat(self) -> None:
        self._say(messages.Heartbeat(1))
        self.loop.call_later(0.5, self._beat)


class Watched(threading.Thread):
    """Does something again and again, and keeps how long each took and when it ended."""

    def __init__(self, act) -> None:
        super().__init__(daemon=True)
        self.act, self.over = act, False
        self.took: list[float] = []

    def run(self) -> None:
        while not self.over:
            began = time.perf_counter()
            self.act()
            self.took.append(time.perf_counter() - began)
            time.sleep(0.001)

    def window_ms(self) -> list[float]:
        """How long each took since the last look."""
        took, self.took = self.took, []
        return [one * 1000 for one in took]


@actorlib.remote(num_cpus=0)
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def pid(self) -> int:
        return os.getpid()

    def hold(self) -> None:
        time.sleep(600)


def launch(**given) -> NodeHandle:
    paths = list(dict.fromkeys(path or os.getcwd() for path in sys.path))
    return launch_node(NodeConfig(ip="127.0.0.1", durable=True, sys_path=paths, cwd=os.getcwd(), **given))


def gcs_pid(head: NodeHandle) -> int:
    import psutil

    for child in psutil.Process(head.pid).children(recursive=True):
        try:
            if any("/gcs/lock.mdb" in os.readlink(entry) for entry in Path(f"/proc/{child.pid}/fd").iterdir()):
                return child.pid
        except OSError:
            continue
    raise RuntimeError("there is no GCS")


def burn() -> None:
    """What the start of a GCS costs in processor time, in a process that nobody needs."""
    code = f"import time\nwhile time.process_time() < {LOAD_CPU_S}: pass"
    BURNERS.append(subprocess.Popen([sys.executable, "-S", "-c", code]))


def kills(head: NodeHandle, count: int) -> dict[str, float]:
    counter = Counter.remote()
    actorlib.get(counter.add.remote())
    asks = Watched(lambda: actorlib.get_actor("actor-1", namespace="played"))
    calls = Watched(lambda: actorlib.get(counter.add.remote()))
    for watched in (asks, calls):
        watched.start()
    time.sleep(1.0)
    disturbances = {
        "undisturbed": lambda: None,
        "a stranger computes as long": burn,
        "the GCS was killed": lambda: os.kill(gcs_pid(head), signal.SIGKILL),
    }
    asked: dict[str, list[list[float]]] = {name: [] for name in disturbances}
    called: dict[str, list[list[float]]] = {name: [] for name in disturbances}
    for _ in range(count):
        for name, disturb in disturbances.items():
            asks.window_ms(), calls.window_ms()
            disturb()
            time.sleep(WINDOW_S)
            while not asks.took:
                time.sleep(0.01)  # a question that takes longer than the window belongs to it
            asked[name].append(asks.window_ms())
            called[name].append(calls.window_ms())
    for watched in (asks, calls):
        watched.over = True
        watched.join()
    stalls = [max(window) for window in asked["the GCS was killed"]]
    found = {
        "longest question to the GCS, undisturbed, ms": max(max(window) for window in asked["undisturbed"]),
        "longest question to the GCS, it was killed, ms (median)": statistics.median(stalls),
        "longest question to the GCS, it was killed, ms (worst)": max(stalls),
    }
    for name, windows in called.items():
        every = sorted(one for window in windows for one in window)
        found[f"actor call, {name}, ms (median)"] = statistics.median(every)
        found[f"actor call, {name}, ms (99.9%)"] = every[len(every) * 999 // 1000]
        found[f"longest actor call, {name}, ms (median of windows)"] = statistics.median(map(max, windows))
        found[f"longest actor call, {name}, ms (worst)"] = every[-1]
    return found


def deaths(other: NodeHandle) -> dict[str, float]:
    """From the kill to the error in the caller's hands."""
    here, there = Counter.remote(), Counter.options(resources={"there": 0.1}).remote()
    pid = actorlib.get(here.pid.remote())
    actorlib.get(there.pid.remote())
    found = {}
    for name, actor, kill in (
        ("dead worker to its error, ms", here, lambda: os.kill(pid, signal.SIGKILL)),
        ("dead node (all of its processes) to its error, ms", there, other.kill),
    ):
        held = actor.hold.remote()
        time.sleep(0.5)
        began = time.perf_counter()
        kill()
        try:
            actorlib.get(held, timeout=60)
        except actorlib.exceptions.ActorError:
            found[name] = (time.perf_counter() - began) * 1000
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--actors", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=5)
    chosen = parser.parse_args()
    from actorlib.transport.drivers.keys import KeyStore

    with tempfile.TemporaryDirectory() as made:
        directory = Path(made, "head")
        head = launch(num_cpus=1, directory=str(directory))
        key = KeyStore(directory / "keys").new("other", "node").path
        other = launch(num_cpus=1, join=head.head, key_file=str(key), resources={"there": 1})
        actorlib.init(address=head.head)
        played = PlayedNode(made, find(head.head).gcs, chosen.actors)
        while len(played.hosted) < chosen.actors:
            time.sleep(0.05)
        time.sleep(1.0)
        found = {"actors in the tables": chosen.actors, **kills(head, chosen.kills), **deaths(other)}
        for name, value in found.items():
            print(f"{name:72} {value:10.1f}")
        print(json.dumps(found))
        for burner in BURNERS:
            burner.wait()
        played.loop.close()
        actorlib.shutdown()
        head.stop()


if __name__ == "__main__":
    main()
