"""The driver: the user's process, and the session that it starts or joins."""

from __future__ import annotations

import faulthandler
import os
import shutil
import sys
import tempfile
from typing import Any

from actorlib.runtime.drivers.cluster_view import ClusterView
from actorlib.runtime.drivers.node_process import NodeHandle
from actorlib.runtime.drivers.session_file import base_directory, find
from actorlib.transport import messages
from actorlib.transport.drivers.notice import notice
from actorlib.transport.ids import JobId, new_process_id
from actorlib.transport.link import Address

GOODBYE_TIMEOUT_S = 1.0


class Driver(ClusterView):
    """The engine in the user's process."""

    def __init__(
        self,
        handle: NodeHandle | None,
        node: Address,
        gcs: Address,
        directory: str,
        host_id: str,
        namespace: str | None,
        log_to_driver: bool,
        node_pid: int | None = None,
        credentials: Any = None,
    ) -> None:
        process_id = new_process_id()
        inbox = f"ipc://{directory}/{process_id.hex()}"
        address = Address(process_id, node.node_id, credentials.inbox(inbox) if credentials is not None else inbox)
        job_id = JobId(process_id)
        trace_dir = os.path.join(directory, "logs")
        namespace = namespace or f"job-{process_id.hex()}"
        super().__init__(address, "driver", node, gcs, job_id, host_id, namespace, trace_dir, credentials)
        self._node_handle = handle
        self._log_to_driver = log_to_driver
        self._node_pidfd = -1
        if os.environ.get("ACTORLIB_DEBUG") == "1" and not faulthandler.is_enabled():
            faulthandler.enable()
        self.can_grow = handle is None
        self.handlers[messages.LogLines] = self._on_log
        self.address_info = {
            "address": gcs.endpoint,
            "node_id": node.node_id.hex(),
            "session_dir": directory,
            "node_pid": handle.pid if handle is not None else node_pid,
        }
        if node_pid is not None:
            self._node_pidfd = os.pidfd_open(node_pid)
            self.loop.add_reader(self._node_pidfd, self._node_ended)
        self.loop.start_helper()
        if handle is not None and handle.note:
            notice(f"{handle.note}")
        self.ask(
            self.gcs,
            lambda rid: messages.JobStarted(rid, job_id, self.address, self.namespace, " ".join(sys.argv[:1])),
            timeout_s=30.0,
        )

    def _on_log(self, _: Any, message: messages.LogLines) -> None:
        if self._log_to_driver:
            label = f"{message.label} " if message.label else ""
            target = sys.stderr if message.stream == "err" else sys.stdout
            for line in message.text.split("\n"):
                print(f"({label}pid={message.os_pid}) {line}", file=target)
            target.flush()

    def _node_ended(self) -> None:
        self.loop.remove_reader(self._node_pidfd)
        self.node_lost("its process ended")

    def node_lost(self, reason: str) -> None:
        """Everything that waits fails with the reason; nothing hangs."""
        if self.closed:
            return
        text = (
            f"the node of this session is gone ({reason}); call actorlib.shutdown() and actorlib.init() to start anew"
        )
        notice(f"{text}")
        self.closed = True
        error = self.error_value("NodeDiedError", text)
        for object_id, entry in list(self.table.entries.items()):
            if entry.value is None:
                self.table.resolve(object_id, error)
        self.fail_questions("NodeDiedError", text)

    def shutdown(self) -> None:
        if not self.closed:
            self.loop.run(self._take_leave)
        self.closed = True
        if self._node_pidfd >= 0:
            self.loop.run(lambda: self.loop.remove_reader(self._node_pidfd))
            os.close(self._node_pidfd)
        self.loop.close("the driver has ended")
        self.store.close()
        if self._node_handle is not None:
            self._node_handle.stop()

    def _take_leave(self) -> None:
        """Fail what still waits in this process, so that other threads return, then go."""
        self.closed = True
        self.submitter.close()
        error = self.error_value("TaskCancelledError", "the session was shut down")
        for object_id, entry in list(self.table.entries.items()):
            if entry.value is None and entry.waiters:
                self.table.resolve(object_id, error)


def join(address: str) -> dict[str, Any]:
    """Read what is needed to join from an address as ``cluster_utils.Cluster.address`` gives it."""
    parts = address.split("|")
    if len(parts) != 6:
        raise ValueError(
            f"address={address!r} is not the address of a cluster; take cluster.address of a cluster_utils.Cluster"
        )
    node_pid, node_nid, node_endpoint, gcs_pid, gcs_endpoint, host_id = parts
    return {
        "node": Address(bytes.fromhex(node_pid), bytes.fromhex(node_nid), node_endpoint),  # type: ignore[arg-type]
        "gcs": Address(bytes.fromhex(gcs_pid), bytes.fromhex(gcs_pid), gcs_endpoint),  # type: ignore[arg-type]
        "host_id": host_id,
    }


def address_of(handle: NodeHandle) -> str:
    """The address by which drivers join the cluster through this node."""
    node, gcs = handle.address, handle.gcs
    return "|".join(
        (node.process_id.hex(), node.node_id.hex(), node.endpoint, gcs.process_id.hex(), gcs.endpoint, handle.host_id)
    )


def join_cluster(address: str, key: str | None, namespace: str | None, log_to_driver: bool) -> Driver:
    """Join the cluster of a ``Cluster``'s address, or by a node on this machine the one at HOST:PORT (or "auto").

    Raises:
        ConnectionError: No node of that cluster runs here. AccessError: the key can't be used.
    """
    credentials: Any = None
    pid: int | None = None
    if "|" in address:
        found = join(address)
        node, gcs, host_id = found["node"], found["gcs"], found["host_id"]
    else:
        session = find(address)
        node, gcs, host_id, pid = session.node, session.gcs, session.host_id, session.pid
        credentials = _credentials(session.credentials, key)
    directory = tempfile.mkdtemp(prefix="s-d", dir=base_directory())
    try:
        driver = Driver(None, node, gcs, directory, host_id, namespace, log_to_driver, pid, credentials)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    _with_directory(driver, directory)
    if key is not None:
        try:  # it may be so new that nodes have not heard of it; who is refused once does not ask again
            driver.ask(gcs, messages.KeysChanged, timeout_s=30.0)
        except BaseException:
            driver.shutdown()
            raise
    return driver


def _credentials(path: str, key: str | None) -> Any:
    from actorlib.transport.drivers.credentials import Credentials
    from actorlib.transport.drivers.keys import KeyFile

    credentials = Credentials.load(path)
    return credentials if key is None else credentials.with_key(KeyFile.load(key))


def _with_directory(driver: Driver, directory: str) -> Driver:
    """A joined driver has a directory of its own, which goes with it."""
    shutdown = driver.shutdown

    def shutdown_and_clean() -> None:
        shutdown()
        shutil.rmtree(directory, ignore_errors=True)

    driver.shutdown = shutdown_and_clean  # type: ignore[method-assign]
    return driver
