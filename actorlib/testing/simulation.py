"""A cluster in one thread: the real runtime on simulated loops, processes, memory and disks.

``simulate`` makes a world with a few nodes and a driver, which is the code in the ``with`` block; the ordinary API
works in it, and so does what user code takes from ``time`` and ``random``. No process, thread or socket is made.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import greenlet

from actorlib import engine as _engine
from actorlib.gcs.drivers.service import GcsService
from actorlib.runtime.drivers.cluster_view import ClusterView
from actorlib.runtime.drivers.head import join_gcs
from actorlib.runtime.drivers.worker import Worker
from actorlib.runtime.mailbox import Item
from actorlib.scheduler.drivers.node import NodeService
from actorlib.scheduler.placement import place_bundles
from actorlib.scheduler.resources import to_units
from actorlib.scheduler.worker_pool import Worker as PooledWorker
from actorlib.store.drivers.service import StoreService
from actorlib.testing.clocks import virtual_time
from actorlib.testing.fault_plans import Deviation, Fault, schedule
from actorlib.testing.memory import HostMemory, MemoryFiles, MemoryJournal, MemoryStoreClient, NoRoom
from actorlib.transport import messages
from actorlib.transport.ids import ActorId, JobId, NodeId, ProcessId, new_process_id
from actorlib.transport.link import Address
from actorlib.transport.sim.loop import SimLoop
from actorlib.transport.sim.network import Network
from actorlib.transport.sim.world import Stuck, World

FORK_S = 0.004
NOTICE_OF_DEATH_S = 0.001
NOTICE_OF_LOST_NODE_S = 0.5
STORE_BYTES = 256 << 20
CALM_WITHIN_S = 60.0
HOST_ID = "simulated"


class ProcessEnds(BaseException):
    """Ends a simulated process from within."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class InWorld:
    """What a simulated process has instead of an operating system."""

    simulation: Simulation

    def _make_loop(self, address: Address, hello: messages.Hello, _trace_dir: str | None) -> Any:
        owner: Any = self
        simulation = self.simulation
        return SimLoop(simulation.world, simulation.network, address, hello, owner.handlers, owner._on_link_down)

    def _make_store(self, node_id: NodeId, host_id: str) -> MemoryStoreClient:
        return MemoryStoreClient(node_id, host_id, self.simulation.memory)

    def os_pid(self) -> int:
        return self.simulation.pid_of(self)


class SimDriver(InWorld, ClusterView):
    """The code in the ``with`` block."""

    def __init__(self, simulation: Simulation, node: Address, gcs: Address) -> None:
        self.simulation = simulation
        process_id = new_process_id(simulation.world.random_bytes)
        address = Address(process_id, node.node_id, f"sim://{process_id.hex()}")
        namespace = f"job-{process_id.hex()}"
        ClusterView.__init__(self, address, "driver", node, gcs, JobId(process_id), HOST_ID, namespace)
        self.can_grow = False
        self.address_info = {"address": gcs.endpoint, "node_id": node.node_id.hex(), "session_dir": "", "node_pid": 0}

    def join(self) -> None:
        def start(request_id: int) -> messages.JobStarted:
            return messages.JobStarted(request_id, self.job_id, self.address, self.namespace, "simulation")

        self.ask(self.gcs, start, timeout_s=30.0)

    def node_lost(self, reason: str) -> None:
        raise AssertionError(f"the driver's node was lost: {reason}")

    def shutdown(self) -> None:
        self.closed = True


class SimWorker(InWorld, Worker):
    """A worker process on greenlets."""

    def __init__(self, simulation: Simulation, config: dict[str, Any], pid: int) -> None:
        self.simulation = simulation
        simulation.pids[config["process_id"]] = pid
        self._main_greenlet: Any = None
        Worker.__init__(self, config)

    def _keep_surroundings(self) -> None:
        return

    def _mend(self) -> None:
        return

    def _interrupt(self, item: Item) -> None:
        if self.runner is not None:
            self.runner.interrupt(item)
        elif self.running_on_main is item:
            self.simulation.world.schedule(0.0, lambda: self._raise_in_main(item))

    def _raise_in_main(self, item: Item) -> None:
        if self.running_on_main is item and not self.loop.is_dead:  # type: ignore[attr-defined]
            self.simulation.world.resume(self._main_greenlet, KeyboardInterrupt())

    def _make_runner(self, is_async: bool, spec: messages.ActorSpec) -> Any:
        from actorlib.testing.runners import GreenletRunner, VirtualAsyncRunner

        if is_async:
            return VirtualAsyncRunner(self)
        return GreenletRunner(self) if spec.max_concurrency > 1 or spec.concurrency_groups else None

    def end_process(self, code: int) -> Any:
        raise ProcessEnds(code << 8)

    def live(self) -> None:
        """The process's main greenlet, from its start to its end."""

        def whole_life() -> None:
            self.run()
            self._flush()
            raise ProcessEnds(0)

        self.simulation.guarded(self, whole_life)


class SimNodeService(NodeService):
    """The scheduler of a simulated node; its workers are forked into the world."""

    def __init__(
        self,
        node: SimNode,
        gcs: Address,
        total: dict[str, int],
        labels: dict[str, str],
        config: dict[str, Any],
        keep_idle: int,
        others: list[Any],
    ) -> None:
        self._node = node
        node.service = self
        no_zygote: Any = None
        super().__init__(
            node.loop, gcs, total, labels, f"node{node.number}", no_zygote, config, "sim", keep_idle, others
        )

    def _prepare(self) -> None:
        return

    def _new_process_id(self) -> ProcessId:
        return new_process_id(self._node.simulation.world.random_bytes)

    def _count_oom_kills(self) -> int:
        return 0

    def _fork(self, process_id: ProcessId, config: dict[str, Any]) -> None:
        self._node.simulation.start_worker(self._node, config)

    def _signal(self, worker: PooledWorker) -> None:
        self._node.simulation.kill(worker.process_id)

    def _sweep_orphans(self) -> None:
        return

    def _on_hello(self, link: Any, message: messages.Hello) -> None:
        if message.role == "driver" and link.peer.node_id == self.loop.address.node_id:
            self._drivers[link.peer.process_id] = (link, -1)


class SimStoreService(StoreService):
    """The store of a simulated node."""

    def __init__(self, memory: HostMemory, node: SimNode) -> None:
        self._memory = memory
        super().__init__(
            node.loop,
            node.directory,
            "",
            STORE_BYTES,
            STORE_BYTES,
            HOST_ID,
            lambda node_id: node.service.node_address(node_id),
            lambda: node.service.node_addresses(),
        )

    def _make_files(self, directory: str, spill_directory: str) -> Any:
        return MemoryFiles(self._memory, directory)


class SimNode:
    """One machine: its scheduler, its store, and on the first the GCS."""

    def __init__(self, simulation: Simulation, number: int, head: SimNode | None, cpus: float) -> None:
        self.simulation = simulation
        self.number = number
        process_id = new_process_id(simulation.world.random_bytes)
        self.node_id = NodeId(process_id)
        address = Address(process_id, self.node_id, f"sim://node{number}")
        hello = messages.Hello(messages.PROTOCOL_VERSION, address, "node", 1, JobId(b""), "sim")
        self.loop: Any = SimLoop(simulation.world, simulation.network, address, hello, {}, self._on_link_down)
        self.directory = f"node{number}-{process_id.hex()}"
        self.gcs: GcsService | None = None
        if head is None:
            self.gcs = GcsService(self.loop, simulation.journal, place_bundles, NoRoom)
        gcs_address = address if head is None else head.loop.address
        self.store = SimStoreService(simulation.memory, self)
        total = {"CPU": to_units("CPU", cpus), f"node:{number}": 10_000}
        config: dict[str, Any] = {"host_id": HOST_ID, "sys_path": [], "cwd": "", "trace_dir": None}
        others = [self.store] if self.gcs is None else [self.store, self.gcs]
        labels = {"actorlib.io/node-id": process_id.hex()}
        self.service: SimNodeService
        service = SimNodeService(self, gcs_address, total, labels, config, max(1, int(cpus)), others)
        self.loop.handlers.update(self.store.handlers)
        self.loop.handlers.update(service.handlers)
        if self.gcs is not None:
            join_gcs(self.loop, service, self.gcs, lambda _node, _pid: None)
        self.loop.check = self.check
        service.register()

    def _on_link_down(self, link: Any, reason: str) -> None:
        if self.gcs is not None:
            self.gcs.link_down(link, reason)

    def check(self) -> None:
        self.service.check()
        self.store.catalog.check()
        if self.gcs is not None:
            self.gcs.check()

    @property
    def is_alive(self) -> bool:
        return not self.loop.is_dead


class Simulation:
    """The world that ``simulate`` gives: its nodes, and what can go wrong with them."""

    def __init__(self, seed: int, nodes: int, num_cpus: float) -> None:
        self.world = World(seed)
        self.network = Network(self.world)
        self.memory = HostMemory()
        self.journal = MemoryJournal()
        self.pids: dict[ProcessId, int] = {}
        self.workers: dict[ProcessId, tuple[SimNode, SimWorker]] = {}
        self.ended: dict[str, int] = {}
        self._next_pid = 1000
        self.event_loops: list[Any] = []  # of async actors; closed when the world ends
        self._graveyard: list[Any] = []
        self.world.on_switch = self._switched
        self.num_cpus = num_cpus
        self.nodes: list[SimNode] = []
        for _ in range(nodes):
            self.add_node()
        head = self.nodes[0].loop.address
        self.driver = SimDriver(self, head, head)

    # -- processes -----------------------------------------------------------------------------------------------------
    def add_node(self, num_cpus: float | None = None) -> SimNode:
        head = self.nodes[0] if self.nodes else None
        node = SimNode(self, len(self.nodes), head, self.num_cpus if num_cpus is None else num_cpus)
        self.nodes.append(node)
        return node

    def pid_of(self, process: Any) -> int:
        address = getattr(process, "address", None)
        return self.pids.get(address.process_id, 1) if address is not None else 1

    @staticmethod
    def _switched(owner: Any) -> None:
        _engine.Slot.engine = owner

    def start_worker(self, node: SimNode, config: dict[str, Any]) -> None:
        self._next_pid += 1
        pid = self._next_pid

        def born() -> None:
            if not node.is_alive:
                return
            worker = SimWorker(self, config, pid)
            self.workers[worker.address.process_id] = (node, worker)
            node.service._on_report("started", worker.address.process_id, pid, 0)
            worker._main_greenlet = self.world.spawn(worker, worker.live)

        self.world.schedule(FORK_S * (1 + self.world.rng.random()), born)

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
        self.world.note(f"worker {process_id.hex()[:6]} ended with {status}")

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
        self.world.note(f"node{node.number} loses power")
        node.loop.die()
        for process_id, (where, worker) in list(self.workers.items()):
            if where is node:
                worker.loop.die()  # type: ignore[attr-defined]
                self._graveyard.extend(self.world.forget(worker))
                del self.workers[process_id]
        self.memory.lose(node.directory)
        gcs = self.nodes[0].gcs
        assert gcs is not None

        def heard() -> None:
            gcs.nodes.lost(node.node_id, "it lost power")
            self.nodes[0].loop.call_soon(lambda: None)

        self.world.schedule(NOTICE_OF_LOST_NODE_S, heard)

    def after(self, delay_s: float, fault: Any) -> None:
        """Call ``fault()`` after ``delay_s`` simulated seconds."""
        self.world.schedule(delay_s, fault)

    # -- oracles -------------------------------------------------------------------------------------------------------
    def check(self) -> None:
        """Every core's invariants, and no handler that raised."""
        loops = [self.driver.loop, *(node.loop for node in self.nodes), *(w.loop for _, w in self.workers.values())]
        for loop in loops:
            failed = loop.failed
            assert not failed, f"{failed[0]} raised (see above)"
        self.driver.check()
        for node in self.nodes:
            if node.is_alive:
                node.check()
        for _, worker in self.workers.values():
            worker.check()

    def check_calm(self) -> None:
        """Once all is quiet: references are back at zero, objects freed, resources whole."""
        gc.collect()
        self.driver.loop.drive(self._is_calm, CALM_WITHIN_S)
        self.check()
        assert not self.driver.table.living(), f"references were not returned: {self.driver.table.living()}"
        for node in self.nodes:
            if node.is_alive:
                pool = node.service.pool
                assert pool.available == pool.total, f"node{node.number}: {pool.available} of {pool.total} came back"
                objects = node.store.catalog.objects
                assert not objects, f"node{node.number}: {len(objects)} objects were not freed"

    def _is_calm(self) -> bool:
        alive = [node for node in self.nodes if node.is_alive]
        return (
            not self.driver.table.living()
            and all(node.service.pool.available == node.service.pool.total for node in alive)
            and not any(node.store.catalog.objects for node in alive)
        )

    def end(self) -> None:
        """Let go of every greenlet; nothing that they do can reach anybody any more."""
        for node in self.nodes:
            node.loop.die()
        for _, worker in self.workers.values():
            worker.loop.die()  # type: ignore[attr-defined]
            self._graveyard.extend(self.world.forget(worker))
        self.driver.loop.die()  # type: ignore[attr-defined]
        self.driver.closed = True
        self.workers.clear()
        self.world.end(self._graveyard)
        self._graveyard.clear()
        for loop in self.event_loops:
            loop.close()
        self.event_loops.clear()


@contextlib.contextmanager
def collection_by_hand() -> Iterator[None]:
    """No garbage collection on its own: when it comes depends on all that the process did before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def simulate(
    seed: int = 0,
    nodes: int = 1,
    num_cpus: float = 2,
    faults: Iterable[Fault | Deviation] = (),
    check: bool = True,
) -> Iterator[Simulation]:
    """Run the block in a simulated cluster. The same seed gives the same run.

    Args:
        seed: decides everything that the world decides.
        nodes: machines; the first one has the driver and the GCS.
        num_cpus: of each machine.
        faults: what goes wrong, and when (see ``actorlib.testing.faults``).
        check: whether the oracles look at the end, once what the block used has been let go.

    Raises:
        AssertionError: an oracle saw something wrong; Stuck: somebody waits for what will never happen.
        RuntimeError: a session runs already.
    """
    if _engine.Slot.engine is not None:
        raise RuntimeError("a session runs already in this process: call actorlib.shutdown() first")
    simulation = Simulation(seed, nodes, num_cpus)
    world = simulation.world
    world.adopt_main(simulation.driver)
    was_closed = _engine.Slot.closed
    with virtual_time(world), collection_by_hand():
        _engine.Slot.engine, _engine.Slot.closed = simulation.driver, False
        try:
            simulation.driver.join()
            schedule(simulation, faults)
            yield simulation
            simulation.check()
            if check:
                simulation.check_calm()
        finally:
            _engine.Slot.engine = None
            simulation.end()
            _engine.Slot.engine, _engine.Slot.closed = None, was_closed
            sys.stdout.flush()


__all__ = ["Simulation", "Stuck", "simulate"]
