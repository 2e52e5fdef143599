"""A node of a cluster of machines: as ``actorlib start`` makes it, on TCP, with keys, and a GCS that outlives crashes.

The head has a directory, with the cluster's keys and the GCS's tables, that only one head may use at a time; it keeps
the GCS alive. Any other node knows HOST:PORT and has a key file, and is told the rest when it asks to join.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
from typing import Any

from actorlib.runtime.drivers.gcs_keeper import GCS_MODULE, GcsKeeper
from actorlib.runtime.drivers.node_process import CannotStart, Node
from actorlib.runtime.drivers.session_file import CREDENTIALS, SessionFile, started_at
from actorlib.scheduler.drivers.zygote import ZygoteClient
from actorlib.transport import messages
from actorlib.transport.drivers.credentials import Credentials
from actorlib.transport.drivers.keys import AccessError, Key, KeyFile, KeyStore
from actorlib.transport.drivers.knock import knock, split_host_port
from actorlib.transport.endpoint import Endpoint
from actorlib.transport.ids import NodeId, ProcessId, new_process_id
from actorlib.transport.link import Address, Link

JOIN_TIMEOUT_S = 20.0
CLUSTER_IMPORTS = ["actorlib.transport.drivers.credentials"]


class ClusterNode(Node):
    """See the module's docstring."""

    @classmethod
    def start(cls, settings: dict[str, Any], session_dir: str, worker_module: str) -> ClusterNode:
        """A node that is registered. Whatever is forked is forked before there is a thread."""
        os.makedirs(os.path.join(session_dir, "logs"), mode=0o700, exist_ok=True)
        if settings["is_daemon"]:
            _redirect_output(os.path.join(session_dir, "logs", "node.log"))
        keeper = None if settings["join"] else ZygoteClient(GCS_MODULE, ["lmdb"])
        zygote = ZygoteClient(worker_module, [*CLUSTER_IMPORTS, *settings["preload"]])
        lock = None if settings["join"] else _lock_directory(settings["directory"])
        try:
            node = cls(settings, session_dir, zygote, keeper)
        except (AccessError, ConnectionError, ValueError) as error:
            raise CannotStart(str(error)) from error
        node.lock = lock
        node.wait_until_registered()
        node.listen_to_signals()
        node.session_file().save()
        return node

    def __init__(self, settings: dict[str, Any], session_dir: str, zygote: Any, keeper: ZygoteClient | None) -> None:
        self.lock: Any = None
        self._keeper_zygote = keeper
        self.keeper: GcsKeeper | None = None
        self.credentials = self._make_credentials(settings, session_dir)
        self.credentials.save(os.path.join(session_dir, CREDENTIALS))
        self.head = settings["join"] or f"{settings['ip']}:{settings['port'] or _free_port(settings['ip'])}"
        self._refused = ""
        self._door: ProcessId | None = None
        super().__init__(settings, session_dir, zygote)

    @staticmethod
    def _make_credentials(settings: dict[str, Any], session_dir: str) -> Credentials:
        from pathlib import Path

        ip = settings["ip"]
        if settings["join"]:
            file = KeyFile.load(settings["key_file"])
            if file.role != "node":
                raise AccessError(f"{file.path} is the key of a {file.role}; a node needs one of: actorlib keys new")
            return Credentials(file.keys, file.server, Path(session_dir, "register.json"), ip, True)
        store = KeyStore(os.path.join(settings["directory"], "keys"))
        return Credentials(store.cluster_key(), store.cluster_key().public, store.register.path, ip, False)

    # -- what a node of one machine has otherwise ----------------------------------------------------------------------
    def _make_loop(self, address: Address, access: Any = None) -> Any:
        access, self.register = self.credentials.open()
        address = address._replace(endpoint=self.credentials.inbox(address.endpoint))
        return super()._make_loop(address, access)

    def _worker_config(self) -> dict[str, Any]:
        return {**super()._worker_config(), "credentials": os.path.join(self.session_dir, CREDENTIALS)}

    def _install_handlers(self) -> None:
        super()._install_handlers()
        self.service.inbox = self.credentials.inbox
        if self.keeper is not None:
            self.service.zygotes.append(self.keeper.zygote)
        self.loop.handlers[messages.KeysAllowed] = self._on_keys
        self.loop.handlers[messages.NodeRegistered] = self._on_registered
        self.loop.handlers[messages.KeysChanged] = lambda _, __: None
        self.loop.handlers[messages.Failure] = self._on_failure
        self.loop.handlers[messages.Welcome] = lambda _, __: None

    def _on_registered(self, link: Link, message: messages.NodeRegistered) -> None:
        self.service.handlers[messages.NodeRegistered](link, message)
        if self.keeper is not None:
            self.keeper.served()

    def _find_gcs(self) -> Address:
        return self._ask_to_join() if self.settings["join"] else self._keep_gcs()

    # -- the head ------------------------------------------------------------------------------------------------------
    def _keep_gcs(self) -> Address:
        host, port = split_host_port(self.head)
        local = f"ipc://{self.session_dir}/gcs"
        config = {
            "process_id": new_process_id(),
            "node_id": self.loop.address.node_id,
            "endpoint": self.credentials.inbox(local, port),
            "credentials": os.path.join(self.session_dir, CREDENTIALS),
            "directory": os.path.join(self.settings["directory"], "gcs"),
            "durable": self.settings["durable"],
            "host_id": self.host_id,
            "trace_dir": self.trace_dir,
        }
        assert self._keeper_zygote is not None
        log = os.path.join(self.trace_dir, "gcs.log")
        self.keeper = GcsKeeper(self.loop, self._keeper_zygote, config, log, self._give_up)
        endpoint = Endpoint(local, f"tcp://{host}:{port}", self.credentials.keys.public.decode())
        return Address(config["process_id"], self.loop.address.node_id, str(endpoint))

    def _give_up(self, reason: str) -> None:
        self._refused = reason
        self.service.stopping = reason

    # -- any other -----------------------------------------------------------------------------------------------------
    def _ask_to_join(self) -> Address:
        """The GCS's address, from whoever listens at HOST:PORT and proves the key that our key file names."""
        host, port = split_host_port(self.head)
        remote = f"tcp://{host}:{port}"
        knock(
            remote,
            self.credentials.keys,
            self.credentials.cluster,
            self.settings["join_timeout_s"],
            self.tell_launcher,
        )
        door = Address(new_process_id(), NodeId(b""), str(Endpoint("", remote, self.credentials.cluster.decode())))
        self._door = door.process_id
        answers: list[Any] = []
        self.loop.handlers[messages.Welcome] = lambda _, message: answers.append(message)
        self.loop.handlers[messages.Failure] = lambda _, message: answers.append(message)
        self.loop.link(door).send(messages.Join(1))
        self.loop.drive(lambda: bool(answers) or bool(self._refused), JOIN_TIMEOUT_S)
        if not answers or type(answers[0]) is messages.Failure:
            text = answers[0].text if answers else self._refused or f"no answer within {JOIN_TIMEOUT_S:.0f} s"
            raise CannotStart(f"the cluster at {self.head} did not take this node: {text}")
        self._door = None
        self.loop.drop_link(door.process_id, "it told where the GCS is")
        self._write_register(answers[0].keys)
        gcs: Address = answers[0].gcs
        return gcs

    def _on_link_down(self, link: Link, reason: str) -> None:
        super()._on_link_down(link, reason)
        if link.peer.process_id == self._door:
            self._refused = reason

    def _on_failure(self, _: Link, message: messages.Failure) -> None:
        if not self.service.is_registered:
            self._refused = message.text
        print(f"actorlib: {message.kind}: {message.text}", file=sys.stderr, flush=True)

    # -- keys ----------------------------------------------------------------------------------------------------------
    def _on_keys(self, _: Link, message: messages.KeysAllowed) -> None:
        """Whom the cluster admits from now on: for us and for all processes of this host."""
        if self.settings["join"]:
            self._write_register(message.keys)
        self.register.refresh()
        for link in self.loop.links():
            if link.hello is not None and link.hello.role in ("worker", "driver") and self._is_ours(link):
                link.send(messages.KeysChanged(0))

    def _is_ours(self, link: Link) -> bool:
        is_ours: bool = link.peer.node_id == self.loop.address.node_id
        return is_ours

    def _write_register(self, rows: tuple[tuple[Any, ...], ...]) -> None:
        self.register.write({row[0]: Key(*row) for row in rows})
        self.register.refresh()

    # -- beginning and end ---------------------------------------------------------------------------------------------
    def wait_until_registered(self) -> None:
        self.loop.drive(lambda: self.service.is_registered or bool(self._refused), JOIN_TIMEOUT_S)
        if not self.service.is_registered:
            reason = self._refused or self.service.stopping or f"the GCS did not answer within {JOIN_TIMEOUT_S:.0f} s"
            self.close()
            raise CannotStart(reason)

    def listen_to_signals(self) -> None:
        """SIGTERM drains the node, SIGINT ends it at once. They come through a pipe: the loop may be asleep."""
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(write)

        def arrived() -> None:
            numbers = os.read(read, 64)
            if signal.SIGINT in numbers:
                self.service.stopping = "it was asked to stop"
            elif signal.SIGTERM in numbers:
                self.service.drain(self.settings["drain_deadline_s"], "it was asked to end by SIGTERM")

        self.loop.add_reader(read, arrived)

    def session_file(self) -> SessionFile:
        pid = os.getpid()
        return SessionFile(
            self.session_dir,
            pid,
            started_at(pid),
            self.loop.address,
            self.gcs,
            self.host_id,
            "" if self.settings["join"] else self.settings["directory"],
            self.head,
            self.note,
        )

    def ready(self) -> dict[str, Any]:
        return {**super().ready(), "head": self.head}

    def close(self) -> None:
        super().close()
        if self.keeper is not None:
            self.keeper.close()


def _redirect_output(path: str) -> None:
    """Nobody reads a daemon's output: it goes to a file of its session."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target in (1, 2):
        os.dup2(fd, target)
    os.close(fd)


def _lock_directory(directory: str) -> Any:
    """Held for as long as the head lives.

    Raises:
        CannotStart: Another head uses that directory.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    lock = open(os.path.join(directory, "head.lock"), "a")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise CannotStart(f"another head uses {directory}; stop it, or give this one another --dir") from None
    return lock


def _free_port(ip: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
        probe.bind((ip, 0))
        port: int = probe.getsockname()[1]
        return port
