"""What the processes of a simulated cluster are made of: drivers and workers on greenlets, with a loop, a store and
environment variables of their world's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import greenlet

from actorlib import serialization
from actorlib.runtime.drivers.cluster_view import ClusterView
from actorlib.runtime.drivers.worker import Worker
from actorlib.runtime.mailbox import Item
from actorlib.testing.memory import MemoryStoreClient
from actorlib.transport import limits, messages
from actorlib.transport.ids import JobId, NodeId, ObjectId, new_process_id
from actorlib.transport.link import Address
from actorlib.transport.messages import Value
from actorlib.transport.sim.loop import SimLoop

if TYPE_CHECKING:
    from actorlib.testing.simulation import Simulation


class ProcessEnds(BaseException):
    """Ends a simulated process from within."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


NO_VARIABLES: dict[str, str] = {}


def exchange_variables(before: dict[str, str | None], there: dict[str, str], wanted: dict[str, str]) -> dict[str, str]:
    """Environment variables of one simulated process for those of another. ``before``: what the real ones were."""
    for name in there:
        earlier = before.pop(name)
        if earlier is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = earlier
    for name, value in wanted.items():
        before[name] = os.environ.get(name)
        os.environ[name] = value
    return wanted


class InWorld:
    """What a simulated process has instead of an operating system."""

    simulation: Simulation

    def _make_loop(self, address: Address, hello: messages.Hello, _trace_dir: str | None) -> Any:
        owner: Any = self
        simulation = self.simulation
        return SimLoop(simulation.world, simulation.network, address, hello, owner.handlers, owner._on_link_down)

    def _make_store(self, node_id: NodeId, host_id: str) -> MemoryStoreClient:
        return MemoryStoreClient(node_id, host_id, self.simulation.memory)

    def _function_id(self, data: bytes) -> bytes:
        """Of its own for each process: whether two pickles of one function are equal depends on what ran before."""
        return hashlib.blake2b(data, digest_size=16, key=self.address.process_id).digest()  # type: ignore[attr-defined]

    # What values go by, so that oracles can see them.
    def make_value(
        self, oid: ObjectId, serialized: serialization.Serialized, inline_bytes_max: int = limits.inline_bytes_max
    ) -> Value:
        # A durable actor's call that nobody saw anything of may come out otherwise when it is run again.
        for look in self.simulation.watch.made if getattr(self, "log", None) is None else ():
            look(oid, (serialized.data, *serialized.buffers))
        return super().make_value(oid, serialized, inline_bytes_max)  # type: ignore[misc]

    def load_value(self, oid: ObjectId, owner: Address, value: Value) -> Any:
        if type(value) is not tuple or value[0] == messages.VALUE_PARTS:
            parts = (value,) if type(value) is not tuple else (value[1], *value[2])
            for look in self.simulation.watch.got:
                look(oid, parts)
        return super().load_value(oid, owner, value)  # type: ignore[misc]

    def _read_stored(self, oid: ObjectId, owner: Address, value: Value) -> tuple[Any, Any]:
        data, buffers = super()._read_stored(oid, owner, value)  # type: ignore[misc]
        for look in self.simulation.watch.got:
            look(oid, (data, *buffers))
        return data, buffers

    def get(self, refs: Any, timeout: float | None) -> list[Any]:
        try:
            return super().get(refs, timeout)  # type: ignore[misc, no-any-return]
        except BaseException as error:
            for look in self.simulation.watch.raised:
                look(error)
            raise

    def drive(self, until: Callable[[], bool], timeout: float | None, refs: Any) -> bool:
        me = greenlet.getcurrent()
        self.simulation.waiting[me] = refs
        try:
            return super().drive(until, timeout, refs)  # type: ignore[misc, no-any-return]
        finally:
            self.simulation.waiting.pop(me, None)

    def os_pid(self) -> int:
        return self.simulation.pid_of(self)


class SimDriver(InWorld, ClusterView):
    """The code in the ``with`` block."""

    def __init__(self, simulation: Simulation, node: Address, gcs: Address) -> None:
        self.simulation = simulation
        process_id = new_process_id(simulation.world.random_bytes)
        address = Address(process_id, node.node_id, f"sim://{process_id.hex()}")
        namespace = f"job-{process_id.hex()}"
        ClusterView.__init__(self, address, "driver", node, gcs, JobId(process_id), "host0", namespace)
        self.can_grow = False
        self.address_info = {"address": gcs.endpoint, "node_id": node.node_id.hex(), "session_dir": "", "node_pid": 0}

    def join(self) -> None:
        def start(request_id: int) -> messages.JobStarted:
            return messages.JobStarted(request_id, self.job_id, self.address, self.namespace, "simulation")

        self.loop.drive(lambda: self.simulation.nodes[0].service.is_registered, None)  # drivers come to nodes that work
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
        variables = serialization.parse_runtime_env(config.get("runtime_env", "")).get("env_vars", {})
        self.environment: dict[str, str] = variables or NO_VARIABLES
        no_lock: Any = contextlib.nullcontext()
        self.mailbox_lock = no_lock  # one thread runs all of it, and nothing waits while it holds a lock
        self.store._placing = no_lock

    def run_call(self, item: Item) -> None:
        for look in self.simulation.watch.begins:
            look(self, item)
        super().run_call(item)
        loop: Any = self.loop
        if loop.is_dead:  # the process was gone before the call was: whatever it caught, nothing more of it runs
            raise greenlet.GreenletExit

    def log_directory(self) -> str:
        return str(self.config["log_dir"])

    def wants_divergence_found(self) -> bool:
        return True

    def open_files(self, path: str) -> Any:
        return self.simulation.memory.disk_of(path), self.simulation.memory.marker(path), "boot"

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
