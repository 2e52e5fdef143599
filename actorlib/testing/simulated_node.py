"""A simulated machine: the real scheduler and store of a node, on a simulated loop, memory and disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actorlib.gcs.drivers.service import GcsService
from actorlib.runtime.drivers.head import join_gcs
from actorlib.runtime.drivers.log_replica import LogCopies
from actorlib.scheduler.drivers.node import NodeService
from actorlib.scheduler.placement import place_bundles
from actorlib.scheduler.resources import to_units
from actorlib.scheduler.worker_pool import Worker as PooledWorker
from actorlib.store.drivers.service import StoreService
from actorlib.testing.memory import HostMemory, MemoryFiles, NoRoom
from actorlib.testing.simulated_gcs import SimGcs
from actorlib.transport import messages
from actorlib.transport.ids import JobId, NodeId, ProcessId, new_process_id
from actorlib.transport.link import Address
from actorlib.transport.sim.disk import Disk
from actorlib.transport.sim.loop import SimLoop

if TYPE_CHECKING:
    from actorlib.testing.simulation import Simulation

STORE_BYTES = 256 << 20


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
        return self._node.oom_kills

    def _fork(self, process_id: ProcessId, config: dict[str, Any]) -> None:
        self._node.simulation.start_worker(self._node, config)

    def _signal(self, worker: PooledWorker) -> None:
        self._node.simulation.kill(worker.process_id)

    def _stop_worker(self, worker: PooledWorker, reason: str) -> None:
        """Not while oracles wait for references to return: the end of a process would hide one that did not."""
        if not self._node.simulation.is_ending:
            super()._stop_worker(worker, reason)

    def _sweep_orphans(self) -> None:
        return

    def _on_shutdown(self, _: Any, message: messages.ShutdownNode) -> None:
        self._node.simulation.node_ended(self._node, message.reason)

    def leave_cluster(self, reason: str) -> None:
        super().leave_cluster(reason)
        self._node.simulation.node_ended(self._node, reason)

    def _watch_driver(self, process_id: ProcessId, os_pid: int) -> int:
        return -1


class SimStoreService(StoreService):
    """The store of a simulated node."""

    def __init__(self, memory: HostMemory, node: SimNode) -> None:
        self._memory = memory
        self._node = node
        super().__init__(
            node.loop,
            node.directory,
            "",
            node.simulation.memory_bytes,
            STORE_BYTES,
            node.host_id,
            lambda node_id: node.service.node_address(node_id),
            lambda: node.service.node_addresses(),
            lambda process: node.service.watch(process),
            lambda node_id: node.service.node_is_lost(node_id),
        )

    def _make_files(self, directory: str, spill_directory: str) -> Any:
        return MemoryFiles(self._memory, directory, self._node.disk)


class SimNode:
    """One machine: its scheduler, its store, and on the first the GCS, unless that is a process of its own."""

    def __init__(
        self, simulation: Simulation, number: int, head: SimNode | None, cpus: float, before: SimNode | None = None
    ) -> None:
        """``before``: it begins with the identity and the epoch of an earlier life of its machine."""
        self.simulation = simulation
        self.number = number
        self.cpus = cpus
        process_id = new_process_id(simulation.world.random_bytes) if before is None else before.loop.address.process_id
        self.node_id = NodeId(process_id)
        address = Address(process_id, self.node_id, f"sim://node{number}")
        hello = messages.Hello(messages.PROTOCOL_VERSION, address, "node", 1, JobId(b""), "sim")
        self.loop: Any = SimLoop(simulation.world, simulation.network, address, hello, {}, self._on_link_down)
        self.directory = f"node{number}-{process_id.hex()}"
        self.host_id = f"host{number}"
        self.disk = Disk(simulation.world.rng, simulation.world.take_time)
        self.oom_kills = 0  # as the kernel counts them
        self.slow_starts_s = 0.0  # what it takes longer to start a process
        self.starts_to_fail = 0
        self.gcs: GcsService | None = None
        if head is None and simulation.own_gcs:
            simulation.gcs_process = SimGcs(simulation, self.node_id)
        elif head is None:
            self.gcs = GcsService(self.loop, simulation.journal, place_bundles, NoRoom)
        gcs_address = address if head is None else head.loop.address
        if simulation.gcs_process is not None:
            gcs_address = simulation.gcs_process.address
        self.store = SimStoreService(simulation.memory, self)
        total = {"CPU": to_units("CPU", cpus), f"node:{number}": 10_000, **simulation.resources}
        config: dict[str, Any] = {"host_id": self.host_id, "sys_path": [], "cwd": "", "trace_dir": None}
        config["log_dir"] = f"{self.directory}/calls"
        self.log_copies = LogCopies(self.disk, f"{self.directory}/copies", config["log_dir"], self.loop.call_later)
        others: list[Any] = [self.store, self.log_copies]
        if self.gcs is not None:
            others.append(self.gcs)
        labels = {"actorlib.io/node-id": process_id.hex(), **simulation.labels}
        self.service: SimNodeService
        service = SimNodeService(self, gcs_address, total, labels, config, max(1, int(cpus)), others)
        self.loop.handlers.update(self.store.handlers)
        self.loop.handlers.update(self.log_copies.handlers)
        self.loop.handlers.update(service.handlers)
        if self.gcs is not None:
            join_gcs(self.loop, service, self.gcs, lambda _node, _pid: None)
        self.loop.check = self.check
        if before is not None:
            service.epoch = before.service.epoch - 1
        service.register()

    def _on_link_down(self, link: Any, reason: str) -> None:
        if self.gcs is not None:
            self.gcs.link_down(link, reason)

    def check(self) -> None:
        self.service.check()
        self.store.check()
        if self.gcs is not None:
            self.gcs.check()

    @property
    def is_alive(self) -> bool:
        return not self.loop.is_dead

    def workers(self) -> list[Any]:
        """The worker processes that live here now."""
        return [worker for where, worker in self.simulation.workers.values() if where is self]

    def freeze(self) -> Callable[[], None]:
        """Every process of the machine stops, as a virtual machine that is moved. What is given lets them go on."""
        stopped = [self.loop, *(worker.loop for worker in self.workers())]
        for loop in stopped:
            loop.pause()

        def thaw() -> None:
            for loop in stopped:
                loop.go_on()

        return thaw

    def calm(self) -> None:
        """Nothing is wrong with it any more."""
        self.disk.is_full, self.disk.slow_s = False, 0.0
        files: Any = self.store.files
        files.is_full = False
        self.slow_starts_s, self.starts_to_fail = 0.0, 0
