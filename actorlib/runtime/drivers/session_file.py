"""Sessions on this machine: what a node that was started by itself leaves in its directory for others to find.

``actorlib stop`` and ``status``, and drivers that join with ``init(address="auto")``, look through the directories of
this user's sessions. A file may outlive its node (SIGKILL), so the process it names is checked by its start time too.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any, NamedTuple

from actorlib.transport.link import Address

FILE = "session.json"
CREDENTIALS = "credentials.json"


class SessionFile(NamedTuple):
    """One node of a cluster on this machine."""

    directory: str
    pid: int
    started_at: float  # of the process, as the kernel counts it
    node: Address
    gcs: Address
    host_id: str
    head_directory: str  # "" unless it is the head
    address: str  # HOST:PORT of the head
    note: str

    def save(self) -> None:
        """Write it as a whole, readable by us only."""
        path = os.path.join(self.directory, FILE)
        entry = {**self._asdict(), "node": address_to_json(self.node), "gcs": address_to_json(self.gcs)}
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as target:
            json.dump(entry, target)
        os.replace(f"{path}.new", path)

    @property
    def is_head(self) -> bool:
        return bool(self.head_directory)

    @property
    def credentials(self) -> str:
        return os.path.join(self.directory, CREDENTIALS)

    def is_alive(self) -> bool:
        return started_at(self.pid) == self.started_at


def started_at(pid: int) -> float:
    """When a process started, to tell it from a later one of the same pid; 0.0 if there is none."""
    import psutil

    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return 0.0


def address_to_json(address: Address) -> list[Any]:
    return [address.process_id.hex(), address.node_id.hex(), address.endpoint]


def address_from_json(parts: list[Any]) -> Address:
    process_id, node_id, endpoint = parts
    return Address(bytes.fromhex(process_id), bytes.fromhex(node_id), endpoint)  # type: ignore[arg-type]


def base_directory() -> str:
    return f"/tmp/actorlib-{os.getuid()}"


def _read_all() -> list[SessionFile]:
    found = []
    base = base_directory()
    for name in os.listdir(base) if os.path.isdir(base) else ():
        try:
            with open(os.path.join(base, name, FILE)) as source:
                entry = json.load(source)
        except (FileNotFoundError, NotADirectoryError):
            continue  # an embedded session, or one that is just beginning or ending
        entry["node"], entry["gcs"] = address_from_json(entry["node"]), address_from_json(entry["gcs"])
        found.append(SessionFile(**entry))
    return sorted(found, key=lambda session: session.started_at)


def sessions() -> list[SessionFile]:
    """The nodes of clusters that run on this machine for this user, the oldest first."""
    return [session for session in _read_all() if session.is_alive()]


def remove_directories(session_dir: str) -> None:
    """Remove what a node that was killed could not remove itself."""
    from actorlib.store.drivers.files import shared_directory, spill_directory

    for path in (session_dir, shared_directory(os.path.basename(session_dir)), spill_directory(session_dir)):
        shutil.rmtree(path, ignore_errors=True)


def remove_leftovers() -> None:
    """Clean up after nodes of clusters that were killed."""
    for session in _read_all():
        if not session.is_alive():
            remove_directories(session.directory)


def find(address: str) -> SessionFile:
    """The node on this machine by which a driver joins: of the cluster at ``HOST:PORT``, or of the only one.

    Raises:
        ConnectionError: There is none, or ``"auto"`` and there are several.
    """
    running = sessions()
    heads = dict.fromkeys(session.address for session in running)
    if address == "auto":
        address = os.environ.get("ACTORLIB_ADDRESS", "auto")
    if address == "auto":
        if not running:
            raise ConnectionError("no cluster's node runs on this machine; start one with: actorlib start --head")
        if len(heads) > 1:
            raise ConnectionError(f"nodes of several clusters run here, choose one: address= {' or '.join(heads)}")
        return running[0]
    for session in running:
        if session.address == address:
            return session
    known = f"; the nodes that do are of {', '.join(heads)}" if heads else ""
    raise ConnectionError(
        f"no node of the cluster at {address} runs on this machine{known}; start one with: "
        f"actorlib start --address {address} --key FILE (--num-cpus 0 to lend nothing)"
    )
