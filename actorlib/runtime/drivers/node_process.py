"""The node's process: how it is launched, what it is made of, how it ends.

``launch_node`` starts ``python -c`` with a configuration on a pipe. The launcher keeps one end of a *life pipe*: when
the launcher is gone, however it went, the node ends everything below it and removes its directories.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

WORKER_MODULE = "actorlib.runtime.drivers.worker"
LAUNCH_TIMEOUT_S = 30.0


@dataclass
class NodeConfig:
    """What a node is to be. ``gcs`` None: it is the head and hosts the GCS."""

    num_cpus: float | None = None
    num_gpus: float = 0
    resources: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    memory: int | None = None
    object_store_memory: int | None = None
    gcs: list[Any] | None = None  # Address with ids in hex
    directory: str | None = None  # the GCS's tables, if they are to outlive the session
    durable: bool = False
    can_grow: bool = True  # whether other nodes may join
    sys_path: list[str] = field(default_factory=list)
    cwd: str = ""
    preload: list[str] = field(default_factory=list)
    host_id: str | None = None  # whose memory it shares; None: that of the machine


class NodeHandle:
    """A node process that this process has started."""

    def __init__(self, process: subprocess.Popen[bytes], life_fd: int, ready: dict[str, Any]) -> None:
        from actorlib.transport.link import Address

        self.process = process
        self._life_fd = life_fd
        self.address = Address(bytes.fromhex(ready["process_id"]), bytes.fromhex(ready["node_id"]), ready["endpoint"])  # type: ignore[arg-type]
        process_id, node_id, endpoint = ready["gcs"]
        self.gcs = Address(bytes.fromhex(process_id), bytes.fromhex(node_id), endpoint)  # type: ignore[arg-type]
        self.session_dir: str = ready["session_dir"]
        self.host_id: str = ready["host_id"]
        self.note: str = ready["note"]

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self, timeout: float = 5.0) -> None:
        """Let go of the node; it ends at once and cleans up."""
        if self._life_fd >= 0:
            os.close(self._life_fd)
            self._life_fd = -1
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self._clean()

    def kill(self) -> None:
        """SIGKILL: as if the machine had gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self._life_fd >= 0:
            os.close(self._life_fd)
            self._life_fd = -1
        self._clean()

    def _clean(self) -> None:
        """Remove what a node that was killed could not remove itself."""
        from actorlib.store.drivers.files import shared_directory, spill_directory

        shutil.rmtree(self.session_dir, ignore_errors=True)
        shutil.rmtree(shared_directory(os.path.basename(self.session_dir)), ignore_errors=True)
        shutil.rmtree(spill_directory(self.session_dir), ignore_errors=True)


def address_to_json(address: Any) -> list[Any]:
    return [address.process_id.hex(), address.node_id.hex(), address.endpoint]


def launch_node(config: NodeConfig) -> NodeHandle:
    """Start a node process and wait until it serves. Raises RuntimeError with what it printed if it can't."""
    life_read, life_write = os.pipe()
    ready_read, ready_write = os.pipe()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    code = f"import sys; sys.path[:0] = {[root]!r}; from actorlib.runtime.drivers.node_process import main; main()"
    settings = json.dumps({**asdict(config), "life_fd": life_read, "ready_fd": ready_write})
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", code, settings],
            pass_fds=(life_read, ready_write),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(life_read)
        os.close(ready_write)
    with os.fdopen(ready_read, "rb") as source:
        line = source.readline()
    answer = json.loads(line) if line else {"error": "it ended without a word; see its output above"}
    if "error" in answer:
        os.close(life_write)
        process.wait(LAUNCH_TIMEOUT_S)
        raise RuntimeError(f"the node could not be started: {answer['error']}")
    return NodeHandle(process, life_write, answer)


def _session_directory() -> str:
    base = f"/tmp/actorlib-{os.getuid()}"
    os.makedirs(base, mode=0o700, exist_ok=True)
    if os.stat(base).st_uid != os.getuid():
        raise PermissionError(f"{base} belongs to another user; remove it")
    path = os.path.join(base, f"s-{os.urandom(4).hex()}")
    os.mkdir(path, mode=0o700)
    return path


def _total_resources(settings: dict[str, Any], hostname: str) -> dict[str, int]:
    from actorlib.scheduler.resources import to_units
    from actorlib.transport.drivers.processes import memory_limit_bytes

    cpus = settings["num_cpus"]
    total = {
        "CPU": to_units("CPU", len(os.sched_getaffinity(0)) if cpus is None else cpus),
        "memory": to_units("memory", settings["memory"] or int(memory_limit_bytes() * 0.7)),
        f"node:{hostname}": to_units("node", 1),
    }
    if settings["num_gpus"]:
        total["GPU"] = to_units("GPU", settings["num_gpus"])
    for name, amount in settings["resources"].items():
        total[name] = to_units(name, amount)
    return total


def _host_id() -> str:
    from actorlib.store.drivers.files import shared_root

    shared = shared_root()
    with open("/proc/sys/kernel/random/boot_id") as source:
        return f"{source.read().strip()}-{os.stat(shared).st_dev if os.path.isdir(shared) else 0}"


def main() -> None:
    """The node process."""
    settings = json.loads(sys.argv[1])
    ready_fd = settings["ready_fd"]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        session_dir = _session_directory()
    except OSError as error:
        os.write(ready_fd, json.dumps({"error": str(error)}).encode() + b"\n")
        sys.exit(1)
    try:
        _serve(settings, session_dir)
    except BaseException as error:
        os.write(ready_fd, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        raise
    finally:
        shutil.rmtree(session_dir, ignore_errors=True)


def _serve(settings: dict[str, Any], session_dir: str) -> None:
    from actorlib.scheduler.drivers.zygote import ZygoteClient
    from actorlib.transport.drivers import processes

    processes.become_subreaper()
    processes.raise_fd_limit()
    sys.path[:0] = [path for path in settings["sys_path"] if path not in sys.path]
    zygote = ZygoteClient(WORKER_MODULE, settings["preload"])
    node = Node(settings, session_dir, zygote)
    os.write(settings["ready_fd"], json.dumps(node.ready()).encode() + b"\n")
    os.close(settings["ready_fd"])
    try:
        node.loop.serve_forever(lambda: node.service.stopping is not None)
    finally:
        node.close()


class Node:
    """A node's services on one loop."""

    def __init__(self, settings: dict[str, Any], session_dir: str, zygote: Any) -> None:
        from actorlib.runtime.drivers.head import join_gcs
        from actorlib.scheduler.drivers.node import NodeService
        from actorlib.store.drivers.files import choose_directory, spill_directory
        from actorlib.store.drivers.service import StoreService
        from actorlib.transport import messages
        from actorlib.transport.drivers.loop import Loop
        from actorlib.transport.drivers.processes import memory_limit_bytes
        from actorlib.transport.ids import JobId, NodeId, new_process_id
        from actorlib.transport.link import Address

        self.session_dir = session_dir
        process_id = new_process_id()
        address = Address(process_id, NodeId(process_id), f"ipc://{session_dir}/node")
        hello = messages.Hello(
            messages.PROTOCOL_VERSION,
            address,
            "node",
            os.getpid(),
            JobId(b""),
            f"{sys.version_info[0]}.{sys.version_info[1]}",
        )
        trace_dir = os.path.join(session_dir, "logs")
        self.loop = Loop(address, hello, {}, self._on_link_down, helper=False, trace_dir=trace_dir)
        self.host_id = settings["host_id"] or _host_id()
        capacity = settings["object_store_memory"] or int(memory_limit_bytes() * 0.3)
        directory, capacity, self.note = choose_directory(
            os.path.basename(session_dir), capacity, os.path.join(session_dir, "objects")
        )
        spill_to = spill_directory(session_dir)
        spill_bytes = int(shutil.disk_usage(os.path.dirname(spill_to)).free * 0.8)
        self.store = StoreService(
            self.loop,
            directory,
            spill_to,
            capacity,
            spill_bytes,
            self.host_id,
            lambda node_id: self.service.node_address(node_id),
            lambda: self.service.node_addresses(),
        )
        self.gcs_service: Any = None
        if settings["gcs"] is None:
            self.gcs = self.loop.address
            self._host_gcs(settings)
        else:
            head, node_id, endpoint = settings["gcs"]
            self.gcs = Address(bytes.fromhex(head), NodeId(bytes.fromhex(node_id)), endpoint)  # type: ignore[arg-type]
        others = [self.store] if self.gcs_service is None else [self.store, self.gcs_service]
        hostname = socket.gethostname()
        total = _total_resources(settings, hostname)
        labels = {"actorlib.io/node-id": process_id.hex(), **settings["labels"]}
        worker_config = {
            "host_id": self.host_id,
            "sys_path": settings["sys_path"],
            "cwd": settings["cwd"],
            "trace_dir": trace_dir,
            "can_grow": settings["can_grow"],
        }
        keep = max(1, -(-total["CPU"] // 10_000))
        self.service = NodeService(
            self.loop, self.gcs, total, labels, hostname, zygote, worker_config, session_dir, keep, others
        )
        self.loop.handlers.update(self.store.handlers)
        self.loop.handlers.update(self.service.handlers)
        if self.gcs_service is not None:
            join_gcs(self.loop, self.service, self.gcs_service, self._watch_node)
        self._life_fd = settings["life_fd"]
        self.loop.add_reader(self._life_fd, self._launcher_gone)
        self.loop.check = self._check
        self.service.register()
        self.service.workers.prestart(min(keep, 64))

    def _check(self) -> None:
        self.service.check()
        self.store.catalog.check()
        if self.gcs_service is not None:
            self.gcs_service.check()

    def _host_gcs(self, settings: dict[str, Any]) -> None:
        from actorlib.gcs.drivers.lmdb_journal import JournalFull, LmdbJournal
        from actorlib.gcs.drivers.service import GcsService
        from actorlib.scheduler.placement import place_bundles

        self.journal = LmdbJournal(settings["directory"] or os.path.join(self.session_dir, "gcs"), settings["durable"])
        self.gcs_service = GcsService(self.loop, self.journal, place_bundles, JournalFull, settings["can_grow"])

    def _watch_node(self, node_id: Any, os_pid: int) -> None:
        """A node on this machine: the kernel tells when its process ends."""
        try:
            pidfd = os.pidfd_open(os_pid)
        except OSError:
            self.gcs_service.nodes.lost(node_id, "its process was gone when it registered")
            return

        def ended() -> None:
            self.loop.remove_reader(pidfd)
            os.close(pidfd)
            self.gcs_service.nodes.lost(node_id, f"its process {os_pid} ended")

        self.loop.add_reader(pidfd, ended)

    def _launcher_gone(self) -> None:
        self.loop.remove_reader(self._life_fd)
        self.service.stopping = "the process that started it is gone"

    def _on_link_down(self, link: Any, reason: str) -> None:
        if self.gcs_service is not None:
            self.gcs_service.link_down(link, reason)

    def ready(self) -> dict[str, Any]:
        address = self.loop.address
        return {
            "process_id": address.process_id.hex(),
            "node_id": address.node_id.hex(),
            "endpoint": address.endpoint,
            "gcs": address_to_json(self.gcs),
            "session_dir": self.session_dir,
            "host_id": self.host_id,
            "note": self.note,
        }

    def close(self) -> None:
        self.service.stop()
        self.loop.close()
        self.store.close()
        if self.gcs_service is not None:
            self.journal.close()


def wait_for(condition: Any, timeout_s: float) -> bool:
    """Poll a condition; for callers that have no loop yet."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
