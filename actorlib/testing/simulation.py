"""A cluster in one thread: the real runtime on simulated loops, processes, memory and disks.

``simulate`` makes a world with a few nodes and a driver, which is the code in the ``with`` block; the ordinary API
works in it, and so does what user code takes from ``time`` and ``random``. No process, thread or socket is made.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import itertools
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import greenlet

from actorlib import engine as _engine
from actorlib.by_value import forget_classes
from actorlib.gcs.drivers.service import GcsService
from actorlib.runtime.task import Task
from actorlib.scheduler.resources import to_units
from actorlib.testing.clocks import virtual_surroundings
from actorlib.testing.fault_plans import Deviation, Fault, schedule
from actorlib.testing.memory import HostMemory, MemoryJournal
from actorlib.testing.oracles import Violation, all_oracles
from actorlib.testing.oracles.references import left_over
from actorlib.testing.recent import PastWorld, Recent
from actorlib.testing.simulated_gcs import SimGcs
from actorlib.testing.simulated_node import STORE_BYTES, SimNode
from actorlib.testing.simulated_process import NO_VARIABLES, ProcessEnds, SimDriver, SimWorker, exchange_variables
from actorlib.testing.wait_graph import wait_graph
from actorlib.testing.world_timeline import draw_world
from actorlib.transport.ids import ActorId, ProcessId
from actorlib.transport.link import Address
from actorlib.transport.sim.loop import SimLoop
from actorlib.transport.sim.network import Network, Weather
from actorlib.transport.sim.world import Stuck, World

FORK_S = 0.004
NOTICE_OF_DEATH_S = 0.001
NOTICE_OF_LOST_NODE_S = 0.5
CALM_WITHIN_S = 60.0
COLLECT_EVERY_WORLDS = 10


class Simulation:
    """The world that ``simulate`` gives: its nodes, and what can go wrong with them."""

    mode = "simulation"

    def __init__(
        self,
        seed: int,
        nodes: int,
        num_cpus: float,
        memory_bytes: int = STORE_BYTES,
        own_gcs: bool = False,
        resources: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.world = World(seed)
        self.network = Network(self.world)
        self.memory_bytes = memory_bytes
        self.own_gcs = own_gcs
        self.gcs_process: SimGcs | None = None
        self.fired: collections.Counter[str] = collections.Counter()  # faults that hit something, by kind
        self.plan: list[Fault | Deviation] = []  # what shall go wrong
        self.fired_plan: list[Fault] = []  # what went wrong by the hand of tests and rules, with its time
        self.faults_are_over = False
        self.is_ending = False
        self.disturbed_until = 0.0
        self.memory = HostMemory()
        self.journal = MemoryJournal()
        self.pids: dict[ProcessId, int] = {}
        self.workers: dict[ProcessId, tuple[SimNode, SimWorker]] = {}
        self.ended: dict[str, int] = {}
        self._next_pid = 1000
        self.waiting: dict[Any, Any] = {}  # greenlets that wait for references, and for which
        self._graveyard: list[Any] = []
        self._environment: dict[str, str] = NO_VARIABLES  # variables of the process that runs now
        self._variables: dict[str, str | None] = {}  # and what they were before
        self.violations: list[Violation] = []
        self.world.on_switch = self._switched
        self.world.tell_waits = lambda: wait_graph(self)
        self.world.holds = self._holds
        self.num_cpus = num_cpus
        self.resources = {name: to_units(name, amount) for name, amount in (resources or {}).items()}
        self.labels = dict(labels or {})
        self.nodes: list[SimNode] = []
        for _ in range(nodes):
            self.add_node()
        self.watch = all_oracles(self)
        self.world.on_turn, self.world.on_message = self.watch.turned, self.watch.heard
        self.driver = SimDriver(self, self.nodes[0].loop.address, self.gcs_address)

    # -- processes -----------------------------------------------------------------------------------------------------
    def add_node(self, num_cpus: float | None = None) -> SimNode:
        head = self.nodes[0] if self.nodes else None
        node = SimNode(self, len(self.nodes), head, self.num_cpus if num_cpus is None else num_cpus)
        self.nodes.append(node)
        return node

    def pid_of(self, process: Any) -> int:
        address = getattr(process, "address", None)
        return self.pids.get(address.process_id, 1) if address is not None else 1

    def _switched(self, owner: Any) -> None:
        _engine.Slot.engine = owner
        wanted: dict[str, str] = getattr(owner, "environment", NO_VARIABLES)
        if wanted is not self._environment:
            self._environment = exchange_variables(self._variables, self._environment, wanted)

    @staticmethod
    def _holds(owner: Any, go_on: Callable[[], None]) -> bool:
        return owner is not None and bool(owner.loop.hold(go_on))

    def start_worker(self, node: SimNode, config: dict[str, Any]) -> None:
        self._next_pid += 1
        pid = self._next_pid

        def born() -> None:
            if not node.is_alive:
                return
            if node.starts_to_fail:
                node.starts_to_fail -= 1
                self.pids[config["process_id"]] = pid
                node.service._on_report("exited", config["process_id"], pid, 1 << 8)
                node.loop.call_soon(lambda: None)
                return
            worker = SimWorker(self, config, pid)
            self.workers[worker.address.process_id] = (node, worker)
            node.service._on_report("started", worker.address.process_id, pid, 0)
            worker._main_greenlet = self.world.spawn(worker, worker.live)

        self.world.schedule(FORK_S * (1 + self.world.rng.random()) + node.slow_starts_s, born)

    def guarded(self, worker: SimWorker, function: Any) -> None:
        """Run a greenlet of a worker; where it ends its process, the process ends."""
        try:
            function()
        except ProcessEnds as end:
            self.process_ended(worker.address.process_id, end.status)
        except greenlet.GreenletExit:
            return
        except BaseException:
            traceback.print_exc()
            self.process_ended(worker.address.process_id, 1 << 8)

    def process_ended(self, process_id: ProcessId, status: int) -> None:
        """A worker is gone, for whatever reason: its node hears of it, as from the kernel."""
        found = self.workers.pop(process_id, None)
        if found is None:
            return
        node, worker = found
        worker.loop.die()  # type: ignore[attr-defined]
        self._graveyard.extend(self.world.forget(worker))
        self.world.note(process_id.hex()[:6], f"ended with {status}")

        def heard() -> None:
            if node.is_alive:
                node.service._on_report("exited", process_id, self.pids[process_id], status)
                node.loop.call_soon(lambda: None)

        self.world.schedule(NOTICE_OF_DEATH_S, heard)

    def kill(self, process_id: ProcessId) -> None:
        """SIGKILL to a worker."""
        self.ended["worker killed"] = self.ended.get("worker killed", 0) + 1
        self.world.schedule(0.0, lambda: self.process_ended(process_id, int(signal.SIGKILL)))

    # -- faults --------------------------------------------------------------------------------------------------------
    def crash_worker(self) -> bool:
        """Kill a worker that runs something, chosen by the seed. False if there is none."""
        ids = sorted(pid for pid, (_, worker) in self.workers.items() if worker.mailbox.running or worker.spec)
        if not ids:
            return False
        self.kill(self.world.rng.choice(ids))
        return True

    def crash_actor(self, handle: Any) -> bool:
        """Kill the process that hosts an actor. False if it has none now."""
        for process_id, (_, worker) in list(self.workers.items()):
            if worker.spec is not None and worker.spec.actor_id == ActorId(handle._actor_id):
                self.kill(process_id)
                return True
        return False

    def crash_node(self, node: SimNode) -> None:
        """Power off a machine that is neither the driver's nor the GCS's."""
        if node is self.nodes[0]:
            raise ValueError("node 0 hosts the driver and the GCS; crash another one")
        self.world.note(f"node{node.number}", "loses power")
        self._end_all_of(node)
        self.world.schedule(NOTICE_OF_LOST_NODE_S, lambda: self.lose_sight_of(node, "it lost power"))

    def bring_back_stale(self, node: SimNode, after_s: float) -> None:
        """Power off a machine as ``crash_node`` does; it comes back as from an old snapshot, with the epoch of then."""
        self.crash_node(node)

        def back() -> None:
            self.world.note(f"node{node.number}", "is back with an epoch that is over")
            self.nodes.append(SimNode(self, node.number, self.nodes[0], node.cpus, before=node))

        self.world.schedule(after_s, back)

    def _end_all_of(self, node: SimNode) -> None:
        node.loop.die()
        for process_id, (where, worker) in list(self.workers.items()):
            if where is node:
                worker.loop.die()  # type: ignore[attr-defined]
                self._graveyard.extend(self.world.forget(worker))
                del self.workers[process_id]
        self.memory.lose(node.directory)

    def node_ended(self, node: SimNode, reason: str) -> None:
        """A node ends by itself: told so, since it was taken for lost, or since it has drained. Another one starts on
        its machine. If its last word does not arrive, its silence is noticed."""
        self.world.note(f"node{node.number}", f"ends: {reason}")

        def end() -> None:
            if node.is_alive and node is not self.nodes[0]:
                self._end_all_of(node)
                self.add_node()
                # What it said last may be lost; its end is noticed all the same.
                self.world.schedule(NOTICE_OF_LOST_NODE_S, lambda: self.lose_sight_of(node, f"it has ended: {reason}"))

        self.world.schedule(0.0, end)

    def lose_sight_of(self, node: SimNode, reason: str) -> None:
        """The GCS takes a node for lost, rightly or not."""
        if self.gcs is not None:
            self.gcs.nodes.lost(node.node_id, reason)
            self.gcs_loop.call_soon(lambda: None)

    def crash_gcs(self, for_s: float) -> bool:
        """Kill the GCS, where it is a process of its own; it is back after ``for_s``."""
        gcs = self.gcs_process
        if gcs is None or gcs.service is None:
            return False
        self.world.note("gcs", "is killed")
        gcs.crash()
        self.world.schedule(for_s, gcs.start)
        return True

    def cut_journals_power(self, is_kept: bool, for_s: float) -> bool:
        """The next commit of the GCS's journal, where that is a process of its own, is its last for ``for_s``.

        Args:
            is_kept: whether that commit came to be on the disk before the power went. Nobody hears of it either way.
            for_s: until it is back.
        """
        if self.gcs_process is None or self.gcs_process.service is None:
            return False

        def cut() -> None:
            self.world.note("gcs", f"loses power in a commit that is {'kept' if is_kept else 'lost'}")
            self.crash_gcs(for_s)

        self.journal.cut_power_at_next(is_kept, cut)
        return True

    def after(self, delay_s: float, fault: Any) -> None:
        """Call ``fault()`` after ``delay_s`` simulated seconds."""
        self.world.schedule(delay_s, fault)

    def calm(self) -> None:
        """From now on nothing goes wrong any more: links heal, who is stopped goes on, disks and memory have room."""
        self.faults_are_over = True
        self.disturbed_until = self.world.time
        self.network.heal()
        self.network.weather = Weather()
        for node in self.living_nodes():
            node.calm()
        self.journal.calm()
        for loop in self.loops():
            while loop.is_paused and not loop.is_dead:  # the GCS may have been killed while it was stopped
                loop.go_on()

    # -- for whoever watches -------------------------------------------------------------------------------------------
    @property
    def gcs(self) -> GcsService | None:
        """The GCS, while it runs."""
        return self.nodes[0].gcs if self.gcs_process is None else self.gcs_process.service

    @property
    def gcs_loop(self) -> Any:
        return self.nodes[0].loop if self.gcs_process is None else self.gcs_process.loop

    @property
    def gcs_address(self) -> Address:
        address: Address = self.gcs_loop.address
        return address

    def disks(self) -> list[Any]:
        """What can stall and be full: a disk of each host, and the one of the GCS's journal."""
        return [node.disk for node in self.living_nodes()]

    def living_nodes(self) -> list[SimNode]:
        return [node for node in self.nodes if node.is_alive]

    def living_workers(self) -> list[SimWorker]:
        return [worker for _, worker in self.workers.values()]

    def processes(self) -> list[Any]:
        """Those that can call: the driver and the workers."""
        return [self.driver, *self.living_workers()]

    def process(self, process_id: bytes) -> Any:
        """The driver or worker of that id; None if there is none now."""
        if process_id == self.driver.address.process_id:
            return self.driver
        found = self.workers.get(ProcessId(process_id))
        return None if found is None else found[1]

    def loops(self) -> list[SimLoop]:
        loops = [process.loop for process in (*self.processes(), *self.living_nodes())]
        return [*loops, self.gcs_process.loop] if self.gcs_process is not None else loops

    @staticmethod
    def pending_tasks(process: Any) -> list[Task]:
        """Calls of a process that are not finished."""
        tasks = {entry.task.task_id: entry.task for entry in process.table.entries.values() if entry.task is not None}
        return [task for task in tasks.values() if isinstance(task, Task) and not task.is_finished()]

    def user_code_runs(self) -> bool:
        """Whether some code of the user is at work, or waits for no longer than it wants to."""
        if not self.driver.loop.waits_without_limit():  # type: ignore[attr-defined]
            return True
        return any(
            worker.mailbox.running
            and (len(worker.mailbox.running) > worker.mailbox.blocked or not worker.loop.waits_without_limit())  # type: ignore[attr-defined]
            for worker in self.living_workers()
        )

    def is_calm_outside(self) -> bool:
        """Whether nothing goes wrong now, as far as the world knows."""
        return self.world.time > self.disturbed_until and self.network.is_calm()

    def story(self, some_id: bytes) -> str:
        """What happened to a task, an actor, an object, a node: the messages that spoke of it, and the GCS's notes."""
        lines = self.world.trace_of(some_id)
        told = self.gcs.actors.stories.story(some_id) if self.gcs is not None else ""
        return "\n".join([*lines, *([f"the GCS: {told}"] if told else [])])

    def past(self) -> PastWorld:
        """What shall be left of this world."""
        ids = {violation.some_id for violation in self.violations if violation.some_id}
        stories = "\n\n".join(f"{some_id.hex()}:\n{self.story(some_id)}" for some_id in sorted(ids))
        world = self.world
        return PastWorld(world.seed, self.plan, self.fired_plan, world.trace, draw_world(self), stories, world.events)

    def violate(self, violation: Violation) -> None:
        """An oracle has seen something: the world ends where its main code waits, or at its end."""
        self.violations.append(violation)
        self.world.note("oracle", str(violation).splitlines()[0])
        self.world.schedule(0.0, self.check)

    # -- the end -------------------------------------------------------------------------------------------------------
    def check(self) -> None:
        """Raise what an oracle has seen so far."""
        if self.violations:
            raise self.violations[0]

    def check_calm(self) -> None:
        """Nothing goes wrong any more; once all is quiet the oracles look at what is left."""
        self.calm()
        self.is_ending = True
        gc.collect()
        self.driver.loop.drive(self._is_calm, CALM_WITHIN_S)
        self.watch.at_end()
        self.check()

    def _is_calm(self) -> bool:
        alive = self.living_nodes()
        return (
            not left_over(self.driver)
            and all(node.service.pool.available == node.service.pool.total for node in alive)
            and not any(node.store.catalog.objects for node in alive)
            and not any(left_over(worker) for worker in self.living_workers() if worker.spec is None)
        )

    def end(self) -> None:
        """Let go of every greenlet; nothing that they do can reach anybody any more."""
        for node in self.nodes:
            node.loop.die()
        self.gcs_loop.die()
        for _, worker in self.workers.values():
            worker.loop.die()  # type: ignore[attr-defined]
            self._graveyard.extend(self.world.forget(worker))
        self.driver.loop.die()  # type: ignore[attr-defined]
        self.driver.closed = True
        self.workers.clear()
        self.world.end(self._graveyard)
        self._graveyard.clear()
        for loop in self.world.event_loops:
            loop.close()
        self.world.event_loops.clear()


_worlds = itertools.count(1)


@contextlib.contextmanager
def collection_by_hand() -> Iterator[None]:
    """No garbage collection on its own: when it comes depends on all that the process did before.

    What was there before is set aside meanwhile, so that collecting what the world leaves is cheap. A world that has
    ended is one big circle; where one comes after the other, the collector would not have its turn by itself.
    """
    was_enabled, was_frozen = gc.isenabled(), gc.get_freeze_count()
    if next(_worlds) % COLLECT_EVERY_WORLDS == 0 and not was_frozen:
        gc.collect()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        if not was_frozen:
            gc.unfreeze()
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _simulated(make: Callable[[], Simulation], plan: list[Fault | Deviation], check: bool) -> Iterator[Simulation]:
    """See ``simulate``."""
    if _engine.Slot.engine is not None:
        raise RuntimeError("a session runs already in this process: call actorlib.shutdown() first")
    simulation = make()
    simulation.plan = plan
    world = simulation.world
    world.adopt_main(simulation.driver)
    forget_classes()
    was_closed = _engine.Slot.closed
    with virtual_surroundings(world), collection_by_hand():
        _engine.Slot.engine, _engine.Slot.closed = simulation.driver, False
        try:
            simulation.driver.join()
            schedule(simulation, simulation.plan)
            yield simulation
            simulation.check()
            if check:
                simulation.check_calm()
        finally:
            if Recent.listens:
                Recent.ended(simulation.past())
            # Code that unwinds now must not start a real session.
            _engine.Slot.engine, _engine.Slot.closed = None, True
            simulation.end()
            _engine.Slot.engine, _engine.Slot.closed = None, was_closed
            sys.stdout.flush()


def simulate(
    seed: int = 0,
    nodes: int = 1,
    num_cpus: float = 2,
    faults: Iterable[Fault | Deviation] = (),
    check: bool = True,
    memory_bytes: int = STORE_BYTES,
    own_gcs: bool = False,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    mode: str = "simulation",
) -> contextlib.AbstractContextManager[Any]:
    """Run the block in a simulated cluster. The same seed gives the same run.

    Args:
        seed: decides everything that the world decides.
        nodes: machines; the first one has the driver and the GCS.
        num_cpus: of each machine.
        faults: what goes wrong, and when (see ``actorlib.testing.faults``).
        check: whether the oracles look at the end as well, once what the block used has been let go.
        memory_bytes: shared memory of each machine.
        mode: "simulation", or "process": a cluster of real processes on this machine, real time, and of the faults
            those that can be done there (see ``actorlib.testing.real_cluster``).
        own_gcs: whether the GCS is a process of its own, as under ``actorlib start``, which can crash and come back.
        resources, labels: of each machine, beside its CPUs.

    Raises:
        Violation: an oracle saw something wrong (see ``actorlib.testing.oracles``).
        Stuck: somebody waits for what will never happen.
        TypeError: the seed is no integer.
        ValueError: there is no such mode, or no such fault in it.
        RuntimeError: a session runs already.
    """
    if type(seed) is not int:
        raise TypeError(f"seed must be an integer, not {seed!r}")
    if mode not in ("simulation", "process"):
        raise ValueError(f"mode must be 'simulation' or 'process', not {mode!r}")
    seed = seed if Recent.seed is None else Recent.seed
    again = Recent.next_replayed()
    if again is not None:
        seed, faults = again.seed, again.plan
    if mode == "process":
        from actorlib.testing.real_cluster import real_cluster

        return real_cluster(seed, nodes, num_cpus, faults, check)

    def make() -> Simulation:
        return Simulation(seed, nodes, num_cpus, memory_bytes, own_gcs, resources, labels)

    return _simulated(make, list(faults), check)


__all__ = ["Simulation", "Stuck", "simulate"]
