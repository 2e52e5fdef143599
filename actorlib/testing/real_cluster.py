"""The same tests on real processes: a cluster on this machine, and the faults that can be done there.

Every node counts as a host of its own. What can go wrong: processes are killed, stopped and continued (SIGSTOP,
SIGCONT), nodes vanish, and what nodes say to each other and to the GCS is late or cut off by a relay in front of their
sockets. Workers are talked to directly; what passes between them and their callers is not touched.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import actorlib
from actorlib import engine as _engine
from actorlib.cluster_utils import Cluster
from actorlib.runtime.drivers.node_process import NodeHandle
from actorlib.testing.fault_plans import Deviation, Fault
from actorlib.testing.recent import PastWorld, Recent
from actorlib.testing.relay import LinkState, Relay
from actorlib.transport.drivers.processes import children_of, process_name
from actorlib.util import state

CALM_WITHIN_S = 30.0
NODES_MAX = 8


class RealNode:
    """One node process and the relay in front of it."""

    def __init__(self, number: int, handle: NodeHandle) -> None:
        self.number = number
        self.handle = handle
        self.node_id = handle.address.node_id
        self.is_alive = True
        self.relay: Relay | None = None

    def workers(self) -> list[int]:
        """Pids of its workers."""
        return sorted(pid for pid in children_of(self.handle.pid) if process_name(pid) == "actorlib:worker")


class RealCluster:
    """What ``simulate(..., mode="process")`` gives: the methods of ``Simulation`` that a real cluster can have."""

    mode = "process"

    def __init__(self, seed: int, nodes: int, num_cpus: float) -> None:
        self.seed = seed
        self.rng = random.Random(f"real {seed}")
        self.num_cpus = num_cpus
        self.plan: list[Fault] = []
        self.fired_plan: list[Fault] = []
        self.fired: collections.Counter[str] = collections.Counter()
        self.trace: list[str] = []
        self.faults_are_over = False
        self.nodes: list[RealNode] = []
        self.began = time.monotonic()
        self._links: dict[tuple[int, int], LinkState] = {}
        self._stopped: collections.Counter[int] = collections.Counter()
        self._timers: list[threading.Timer] = []
        self._lock = threading.RLock()
        self._cluster = Cluster()
        try:
            for _ in range(nodes):
                self.add_node()
            self._cluster.connect()
            self._cluster.wait_for_nodes()
        except BaseException:
            self.end()
            raise

    # -- processes -----------------------------------------------------------------------------------------------------
    def add_node(self, num_cpus: float | None = None) -> RealNode:
        cpus = self.num_cpus if num_cpus is None else num_cpus
        handle = self._cluster.add_node(wait=False, separate_host=bool(self.nodes), num_cpus=cpus)
        node = RealNode(len(self.nodes), handle)
        path = handle.address.endpoint.removeprefix("ipc://")
        node.relay = Relay(path, lambda pid: self.link(self._node_of(pid), node.number), (self.seed, node.number))
        self.nodes.append(node)
        return node

    def living_nodes(self) -> list[RealNode]:
        return [node for node in self.nodes if node.is_alive]

    def _node_of(self, pid: int) -> int:
        """The node that a process belongs to; the driver counts as on the first."""
        pids = {node.handle.pid: node.number for node in self.nodes}
        while pid > 1 and pid not in pids:
            pid = parent_of(pid)
        return pids.get(pid, 0)

    def link(self, one: int, other: int) -> LinkState:
        """How two nodes are connected, by their numbers."""
        return self._links.setdefault((min(one, other), max(one, other)), LinkState())

    def _workers(self) -> list[int]:
        return [pid for node in self.living_nodes() for pid in node.workers()]

    def pid_of_actor(self, handle: Any) -> int | None:
        """The process that hosts an actor now."""
        row = state.get_actor(handle._actor_id.hex())
        if row is None or not row.worker_id:
            return None
        return next((pid for node in self.nodes for pid in node.workers() if listens(pid, row.worker_id)), None)

    # -- faults --------------------------------------------------------------------------------------------------------
    def crash_worker(self) -> bool:
        """Kill a worker, chosen by the seed. False if there is none."""
        workers = self._workers()
        return bool(workers) and self._kill(self.rng.choice(workers))

    def crash_actor(self, handle: Any) -> bool:
        """Kill the process that hosts an actor. False if it has none now."""
        pid = self.pid_of_actor(handle)
        return pid is not None and self._kill(pid)

    def crash_node(self, node: RealNode) -> None:
        """Take a node away at once, workers and all. Not the first, which has the driver and the GCS."""
        if node is self.nodes[0]:
            raise ValueError("node 0 hosts the driver and the GCS; crash another one")
        if node.is_alive:
            node.is_alive = False
            self._note(f"node{node.number} is gone")
            self._cluster.remove_node(node.handle, allow_graceful=False)
            if node.relay is not None:
                node.relay.close()

    def _kill(self, pid: int) -> bool:
        return self._signal(pid, signal.SIGKILL)

    def _signal(self, pid: int, number: signal.Signals) -> bool:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        self._note(f"{number.name} to {pid}")
        return True

    def stop_for(self, pid: int, seconds: float) -> bool:
        """SIGSTOP now, SIGCONT when the time is over."""
        if not self._signal(pid, signal.SIGSTOP):
            return False
        self._stopped[pid] += 1
        self.after(seconds, lambda: self._go_on(pid))
        return True

    def _go_on(self, pid: int) -> None:
        self._stopped[pid] -= 1
        if self._stopped[pid] <= 0:
            self._signal(pid, signal.SIGCONT)

    def cut_for(self, one: int, other: int, seconds: float) -> bool:
        """Nothing passes between two nodes for a while."""
        link = self.link(one, other)
        link.cut_until = max(link.cut_until, time.monotonic() + seconds)
        cut = [node.relay.cut(link) for node in self.nodes if node.relay is not None]
        return any(cut)

    def delay_for(self, one: int, other: int, delay_s: float, jitter_s: float, seconds: float) -> bool:
        """What passes between two nodes is late for a while."""
        link = self.link(one, other)
        link.delay_s, link.jitter_s, link.delayed_until = delay_s, jitter_s, time.monotonic() + seconds
        return True

    def after(self, delay_s: float, fault: Callable[[], Any]) -> None:
        """Call ``fault()`` after ``delay_s`` real seconds, in a thread of its own."""

        def due() -> None:
            with self._lock:
                fault()

        timer = threading.Timer(delay_s, due)
        timer.name = "actorlib-fault"
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def fire(self, fault: Fault) -> bool:
        """Let it go wrong now. False where there is nothing to hit. Raises ValueError for what can't be done here."""
        check_kinds([fault])
        with self._lock:
            hit = REAL_KINDS[fault.kind](self, fault)
        if hit:
            self.fired[fault.kind] += 1
            self.fired_plan.append(replace(fault, at_s=time.monotonic() - self.began))
        return hit

    def schedule(self, plan: Iterable[Fault | Deviation]) -> None:
        """Let each of ``plan`` go wrong when its time comes."""
        items = list(plan)
        check_kinds(items)
        for item in items:
            assert isinstance(item, Fault)
            self.plan.append(item)
            self.after(item.at_s, functools.partial(self._when_due, item))

    def _when_due(self, fault: Fault) -> None:
        if not self.faults_are_over:
            self.fire(fault)

    def calm(self) -> None:
        """From now on nothing goes wrong any more."""
        self.faults_are_over = True
        for link in self._links.values():
            link.cut_until = link.delayed_until = 0.0
        for pid, times in list(self._stopped.items()):
            if times > 0:
                self._signal(pid, signal.SIGCONT)
        self._stopped.clear()

    def _note(self, text: str) -> None:
        self.trace.append(f"{time.monotonic() - self.began:.6f} {text}")

    # -- the end -------------------------------------------------------------------------------------------------------
    def check(self) -> None:
        """The driver's own invariants."""
        running = _engine.current()
        running.loop.run(running.check)  # type: ignore[attr-defined]

    def check_calm(self) -> None:
        """Once nothing goes wrong any more, references and resources come back."""
        self.calm()
        gc.collect()
        deadline = time.monotonic() + CALM_WITHIN_S
        while left := self._left():
            assert time.monotonic() < deadline, left
            time.sleep(0.02)
        self.check()

    def _left(self) -> str:
        table = _engine.current().table  # type: ignore[attr-defined]
        if living := table.living():
            return f"references were not returned: {living}"
        available, total = actorlib.available_resources().get("CPU", 0.0), actorlib.cluster_resources().get("CPU", 0.0)
        return "" if available == total else f"{available} of {total} CPUs came back"

    def past(self) -> PastWorld:
        """What shall be left of this cluster."""
        return PastWorld(self.seed, list(self.plan), self.fired_plan, self.trace, "", "", len(self.trace))

    def end(self) -> None:
        self.faults_are_over = True
        for timer in self._timers:
            timer.cancel()
        self.calm()
        for timer in self._timers:
            timer.join()
        self._cluster.shutdown()
        for node in self.nodes:
            if node.relay is not None and node.is_alive:
                node.relay.close()


def parent_of(pid: int) -> int:
    """0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as source:
            return int(source.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def listens(pid: int, worker_id: str) -> bool:
    """Whether a process holds the socket that is named for a worker."""
    with open("/proc/net/unix") as source:
        inodes = {line.split()[6] for line in source if line.rstrip().endswith(f"/{worker_id}")}
    try:
        held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False  # it ended meanwhile
    return any(f"socket:[{inode}]" in held for inode in inodes)


# -- kinds of fault ----------------------------------------------------------------------------------------------------
def _pick(among: list[Any], fault: Fault) -> Any:
    return among[fault.target % len(among)] if among else None


def _others(cluster: RealCluster) -> list[RealNode]:
    return cluster.living_nodes()[1:]


def _crash_worker(cluster: RealCluster, fault: Fault) -> bool:
    pid = _pick(cluster._workers(), fault)
    return pid is not None and cluster._kill(pid)


def _pause_worker(cluster: RealCluster, fault: Fault) -> bool:
    pid = _pick(cluster._workers(), fault)
    return pid is not None and cluster.stop_for(pid, fault.for_s)


def _pause_node(cluster: RealCluster, fault: Fault) -> bool:
    node = _pick(_others(cluster), fault)
    return node is not None and cluster.stop_for(node.handle.pid, fault.for_s)


def _freeze_host(cluster: RealCluster, fault: Fault) -> bool:
    node = _pick(_others(cluster), fault)
    if node is None:
        return False
    for pid in (node.handle.pid, *children_of(node.handle.pid), *node.workers()):
        cluster.stop_for(pid, fault.for_s)
    return True


def _crash_node(cluster: RealCluster, fault: Fault) -> bool:
    node = _pick(_others(cluster), fault)
    if node is not None:
        cluster.crash_node(node)
    return node is not None


def _add_node(cluster: RealCluster, fault: Fault) -> bool:
    if len(cluster.nodes) >= NODES_MAX:
        return False
    cluster.add_node()
    return True


def _partition(cluster: RealCluster, fault: Fault) -> bool:
    node = _pick(_others(cluster), fault)
    return node is not None and cluster.cut_for(0, node.number, fault.for_s)


def _isolation(cluster: RealCluster, fault: Fault) -> bool:
    node = _pick(_others(cluster), fault)
    if node is None:
        return False
    cut = [cluster.cut_for(node.number, one.number, fault.for_s) for one in cluster.nodes if one is not node]
    return any(cut)


def _slow_link(cluster: RealCluster, fault: Fault) -> bool:
    node = _pick(_others(cluster), fault)
    return node is not None and cluster.delay_for(0, node.number, fault.amount, 0.0, fault.for_s)


def _jitter(cluster: RealCluster, fault: Fault) -> bool:
    node = _pick(_others(cluster), fault)
    return node is not None and cluster.delay_for(0, node.number, 0.0, fault.amount, fault.for_s)


def _loss(cluster: RealCluster, fault: Fault) -> bool:
    """On a stream a loss is a cut; the next connection is good again."""
    node = _pick(_others(cluster), fault)
    return node is not None and cluster.cut_for(0, node.number, 0.0)


REAL_KINDS: dict[str, Callable[[RealCluster, Fault], bool]] = {
    "crash_worker": _crash_worker,
    "pause_worker": _pause_worker,
    "pause_node": _pause_node,
    "freeze_host": _freeze_host,
    "crash_node": _crash_node,
    "add_node": _add_node,
    "partition": _partition,
    "isolation": _isolation,
    "slow_link": _slow_link,
    "jitter": _jitter,
    "loss": _loss,
}


def check_kinds(plan: Iterable[Fault | Deviation]) -> None:
    """Raise ValueError for what can't be done to real processes."""
    for item in plan:
        if isinstance(item, Deviation):
            raise ValueError("the order of single messages can't be changed on real processes: leave deviations out")
        if item.kind not in REAL_KINDS:
            raise ValueError(
                f"the fault {item.kind!r} can't be done to real processes, only in a simulation; there are "
                f"{', '.join(REAL_KINDS)}"
            )


@contextlib.contextmanager
def real_cluster(
    seed: int, nodes: int, num_cpus: float, faults: Iterable[Fault | Deviation], check: bool
) -> Iterator[RealCluster]:
    """``simulate(..., mode="process")``."""
    plan = list(faults)
    check_kinds(plan)
    cluster = RealCluster(seed, nodes, num_cpus)
    try:
        cluster.schedule(plan)
        yield cluster
        if check:
            cluster.check_calm()
    finally:
        if Recent.listens:
            Recent.ended(cluster.past())
        cluster.end()
