"""The node's process: how it is launched, what it is made of, how it ends.

``launch_node`` starts ``python -c`` with a configuration on a pipe. The launcher keeps one end of a *life pipe*: when
the launcher is gone, however it went, the node ends everything below it and removes its directories.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from actorlib.runtime.drivers.session_file import address_from_json, address_to_json, base_directory, remove_directories
from actorlib.transport import limits

WORKER_MODULE = "actorlib.runtime.drivers.worker"
LAUNCH_TIMEOUT_S = 30.0
HASH_SEED = "PYTHONHASHSEED"
"""The same for all nodes unless their launcher has one: a durable actor that comes back on another node must find the
order of a set of strings that was made there as it was."""
TIDY_PERIOD_S = 2.0


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
    directory: str | None = None  # the head's, with tables and keys, if they are to outlive the session
    durable: bool = False
    can_grow: bool = True  # whether other nodes may join
    ip: str = ""  # a node of a cluster of machines: where its processes bind
    port: int = 0  # of such a cluster's head
    join: str = ""  # HOST:PORT of the head, for a node that isn't
    key_file: str = ""  # for such a node
    join_timeout_s: float = 20.0  # how long it waits for a head that isn't up yet
    drain_deadline_s: float = limits.drain_deadline_s  # how long it may take to leave after SIGTERM
    is_daemon: bool = False  # it outlives whoever launched it
    sys_path: list[str] = field(default_factory=list)
    cwd: str = ""
    preload: list[str] = field(default_factory=list)
    host_id: str | None = None  # whose memory it shares; None: that of the machine


class CannotStart(Exception):
    """A node can't be what its settings say, for a reason that its user can mend."""


class NodeHandle:
    """A node process that this process has started."""

    def __init__(self, process: subprocess.Popen[bytes], life_fd: int, ready: dict[str, Any]) -> None:
        self.process = process
        self._life_fd = life_fd
        self.address = address_from_json(ready["node"])
        self.gcs = address_from_json(ready["gcs"])
        self.head: str = ready["head"]  # HOST:PORT, of a cluster of machines
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
        remove_directories(self.session_dir)

    def kill(self) -> None:
        """SIGKILL: as if the machine had gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self._life_fd >= 0:
            os.close(self._life_fd)
            self._life_fd = -1
        remove_directories(self.session_dir)


def launch_node(config: NodeConfig) -> NodeHandle:
    """Start a node process and wait until it serves. Raises RuntimeError with what it printed if it can't."""
    return Launch(config).wait()


class Launch:
    """A node process on its way: whoever launches it has things of its own to do until it serves."""

    def __init__(self, config: NodeConfig) -> None:
        life_read, self._life_fd = (-1, -1) if config.is_daemon else os.pipe()
        self._ready_fd, ready_write = os.pipe()
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
        code = f"import sys; sys.path[:0] = {[root]!r}; from actorlib.runtime.drivers.node_process import main; main()"
        is_seeded = HASH_SEED in os.environ
        settings = json.dumps({**asdict(config), "life_fd": life_read, "ready_fd": ready_write, "is_seeded": is_seeded})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, settings],
                pass_fds=(ready_write,) if config.is_daemon else (life_read, ready_write),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={HASH_SEED: "0", **os.environ},
            )
        finally:
            if life_read >= 0:
                os.close(life_read)
            os.close(ready_write)

    def wait(self) -> NodeHandle:
        """Until it serves. Raises RuntimeError with what it said if it can't."""
        answer: dict[str, Any] = {"error": "it ended without a word; see its output above"}
        with os.fdopen(self._ready_fd, "rb") as source:
            for line in source:
                answer = json.loads(line)
                if "progress" not in answer:
                    break
                print(f"actorlib: {answer['progress']}", file=sys.stderr, flush=True)
        if "error" in answer:
            if self._life_fd >= 0:
                os.close(self._life_fd)
            self._process.wait(LAUNCH_TIMEOUT_S)
            raise RuntimeError(f"the node could not be started: {answer['error']}")
        return NodeHandle(self._process, self._life_fd, answer)


def _session_directory() -> str:
    base = base_directory()
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
    faulthandler.enable()
    gc.disable()  # while modules are imported nothing becomes garbage
    settings = json.loads(sys.argv[1])
    ready_fd = settings["ready_fd"]
    if not settings["is_seeded"]:  # what user code starts is not concerned
        del os.environ[HASH_SEED]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        session_dir = _session_directory()
    except OSError as error:
        os.write(ready_fd, json.dumps({"error": str(error)}).encode() + b"\n")
        sys.exit(1)
    try:
        _serve(settings, session_dir)
    except CannotStart as error:
        os.write(ready_fd, json.dumps({"error": str(error)}).encode() + b"\n")
        sys.exit(1)
    except BaseException as error:
        if settings["ready_fd"] >= 0:
            os.write(ready_fd, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        raise
    finally:
        remove_directories(session_dir)


def _serve(settings: dict[str, Any], session_dir: str) -> None:
    from actorlib.runtime.drivers import heap
    from actorlib.scheduler.drivers.zygote import ZygoteClient
    from actorlib.transport.drivers import loop as _of_both  # noqa: F401  what the zygote needs as well is imported once
    from actorlib.transport.drivers import processes

    heap.keep_freed_memory()
    processes.become_subreaper()
    processes.set_process_name("node")
    processes.raise_fd_limit()
    sys.path[:0] = [path for path in settings["sys_path"] if path not in sys.path]
    node: Node
    if settings["ip"]:
        from actorlib.runtime.drivers.cluster_node import ClusterNode

        node = ClusterNode.start(settings, session_dir, WORKER_MODULE)
    else:
        node = Node(settings, session_dir, ZygoteClient(WORKER_MODULE, settings["preload"]))
    os.write(settings["ready_fd"], json.dumps(node.ready()).encode() + b"\n")
    os.close(settings["ready_fd"])
    settings["ready_fd"] = -1  # nobody listens there any more
    gc.freeze()
    gc.enable()
    try:
        node.loop.serve_forever(lambda: node.service.stopping is not None)
    finally:
        node.close()


class Node:
    """A node's services on one loop."""

    def __init__(self, settings: dict[str, Any], session_dir: str, zygote: Any) -> None:
        from actorlib.runtime.drivers.stored_files import StoredFiles
        from actorlib.scheduler.drivers.node import NodeService
        from actorlib.transport.ids import NodeId, new_process_id
        from actorlib.transport.link import Address

        self.settings = settings
        self.session_dir = session_dir
        self.trace_dir = os.path.join(session_dir, "logs")
        self.host_id = settings["host_id"] or _host_id()
        self.gcs_service: Any = None
        process_id = new_process_id()
        self.loop = self._make_loop(Address(process_id, NodeId(process_id), f"ipc://{session_dir}/node"))
        self.store = self._make_store()
        self.gcs = self._find_gcs()
        hostname = socket.gethostname()
        total = _total_resources(settings, hostname)
        labels = {"actorlib.io/node-id": process_id.hex(), **settings["labels"]}
        keep = max(1, -(-total["CPU"] // 10_000))
        self.log_copies = self._make_log_copies()
        self.stored_files = StoredFiles(os.path.join(self._log_directory(), "checkpoints"))
        others = [self.store, self.log_copies]
        if self.gcs_service is not None:
            others.append(self.gcs_service)
        config = self._worker_config()
        self.service = NodeService(
            self.loop, self.gcs, total, labels, hostname, zygote, config, session_dir, keep, others
        )
        self._install_handlers()
        self._life_fd = settings["life_fd"]
        if self._life_fd >= 0:
            self.loop.add_reader(self._life_fd, self._launcher_gone)
        self.loop.check = self._check
        self._pulled_bytes = 0
        self._is_untidy = False
        self._tidy()
        self.service.register()
        self.service.workers.prestart(min(keep, 64))

    def _make_loop(self, address: Any, access: Any = None) -> Any:
        from actorlib.transport import messages
        from actorlib.transport.drivers.loop import Loop
        from actorlib.transport.ids import JobId

        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        hello = messages.Hello(messages.PROTOCOL_VERSION, address, "node", os.getpid(), JobId(b""), python)
        return Loop(address, hello, {}, self._on_link_down, trace_dir=self.trace_dir, access=access)

    def _make_store(self) -> Any:
        from actorlib.store.drivers.files import choose_directory, spill_directory
        from actorlib.store.drivers.service import StoreService
        from actorlib.transport.drivers.processes import memory_limit_bytes

        capacity = self.settings["object_store_memory"] or int(memory_limit_bytes() * 0.3)
        directory, capacity, self.note = choose_directory(
            os.path.basename(self.session_dir), capacity, os.path.join(self.session_dir, "objects")
        )
        spill_to = spill_directory(self.session_dir)
        return StoreService(
            self.loop,
            directory,
            spill_to,
            capacity,
            int(shutil.disk_usage(os.path.dirname(spill_to)).free * 0.8),
            self.host_id,
            lambda node_id: self.service.node_address(node_id),
            lambda: self.service.node_addresses(),
            lambda process: self.service.watch(process),
            lambda node_id: self.service.node_is_lost(node_id),
        )

    def _find_gcs(self) -> Any:
        """The GCS's address; without one in the settings we are the head and host it."""
        if self.settings["gcs"] is not None:
            return address_from_json(self.settings["gcs"])
        self._host_gcs(self.settings)
        return self.loop.address

    def _make_log_copies(self) -> Any:
        from actorlib.runtime.drivers.call_log_file import RealFiles
        from actorlib.runtime.drivers.log_replica import LogCopies

        directory = os.path.join(self.settings["directory"] or self.session_dir, "copies")
        return LogCopies(RealFiles(), directory, self._log_directory(), self.loop.call_later)

    def _log_directory(self) -> str:
        return os.path.join(self.settings["directory"] or self.session_dir, "calls")

    def _worker_config(self) -> dict[str, Any]:
        return {
            "host_id": self.host_id,
            "sys_path": self.settings["sys_path"],
            "cwd": self.settings["cwd"],
            "trace_dir": self.trace_dir,
            "credentials": "",
            "can_grow": self.settings["can_grow"],
            "log_dir": self._log_directory(),
            "durable": self.settings["durable"],
        }

    def _install_handlers(self) -> None:
        from actorlib.runtime.drivers.head import join_gcs

        self.loop.handlers.update(self.store.handlers)
        self.loop.handlers.update(self.log_copies.handlers)
        self.loop.handlers.update(self.stored_files.handlers)
        self.loop.handlers.update(self.service.handlers)
        if self.gcs_service is not None:
            join_gcs(self.loop, self.service, self.gcs_service, self._watch_node)
            self.gcs_service.begin()

    def tell_launcher(self, text: str) -> None:
        """What takes its time, while the launcher waits for us."""
        os.write(self.settings["ready_fd"], json.dumps({"progress": text}).encode() + b"\n")

    def _check(self) -> None:
        self.service.check()
        self.store.check()
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

    def _tidy(self) -> None:
        """Chunks that come from other nodes are received into memory that is kept between them: later it goes back."""
        from actorlib.runtime.drivers import heap

        before, self._pulled_bytes = self._pulled_bytes, self.store.transfers.pulled_bytes
        if self._pulled_bytes != before:
            self._is_untidy = True
        elif self._is_untidy:
            self._is_untidy = False
            heap.give_back()
        self.loop.call_later(TIDY_PERIOD_S, self._tidy)

    def _launcher_gone(self) -> None:
        self.loop.remove_reader(self._life_fd)
        self.service.stopping = "the process that started it is gone"

    def _on_link_down(self, link: Any, reason: str) -> None:
        if self.gcs_service is not None:
            self.gcs_service.link_down(link, reason)

    def ready(self) -> dict[str, Any]:
        return {
            "node": address_to_json(self.loop.address),
            "head": "",
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
