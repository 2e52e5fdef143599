"""Where a durable actor's log and checkpoints lie on Ray: a folder of its own, in a directory or behind a URL.

In a directory the log is a file to which records are appended; a torn tail is a call that nobody saw. Behind a URL
(anything that fsspec reaches) each record is an object of its own. Log number n has what came after checkpoint n.

Two incarnations can't both go on: each leaves a mark of its own and removes those of others before it reads; each looks
for its mark after it has written a record and before the reply leaves. So either the older one finds its mark gone, or
the newer one finds the record.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from typing import Any

from actorlib import exceptions
from actorlib.engines.on_ray.options import refuse
from actorlib.runtime.drivers.checkpoint_store import DirectoryStore, Store, UrlStore

HEAD = struct.Struct(">II")


class Journal:
    """What both kinds have in common. Names lie under ``actor_id`` in the store."""

    store: Store

    def __init__(self, actor_id: str) -> None:
        self._folder = actor_id
        self._mark = ""

    # -- one incarnation at a time -------------------------------------------------------------------------------------
    def begin(self, number: int) -> None:
        """Take the actor over from whoever wrote here before."""
        self._mark = f"{self._folder}/life-{number:010}-{os.urandom(4).hex()}"
        self.store.write(self._mark, b"")
        for name in self.store.names(self._folder):
            if name.startswith("life-") and f"{self._folder}/{name}" != self._mark:
                self.store.remove(f"{self._folder}/{name}")

    def check(self) -> None:
        """Raises CheckpointError if another incarnation has taken over."""
        if not self.store.exists(self._mark):
            raise exceptions.CheckpointError("this worker was taken for dead, and the actor lives elsewhere now")

    # -- whole files ---------------------------------------------------------------------------------------------------
    def checkpoints(self) -> list[int]:
        """The numbers of those that are there, the oldest first."""
        names = self.store.names(self._folder)
        return sorted(int(name[11:]) for name in names if name.startswith("checkpoint-") and name[11:].isdigit())

    def write(self, name: str, data: bytes) -> None:
        """All or nothing, with a checksum."""
        self.store.write(f"{self._folder}/{name}", framed(data))

    def read(self, name: str) -> bytes | None:
        """None if it is not there or torn."""
        try:
            found = unframed(self.store.read(f"{self._folder}/{name}"))
        except FileNotFoundError:
            return None
        return found[0] if found else None

    def drop_before(self, oldest: int) -> None:
        for name in self.store.names(self._folder):
            kind, _, rest = name.partition("-")
            number = rest.partition("-")[0]
            if kind in ("checkpoint", "log") and number.isdigit() and int(number) < oldest:
                self.store.remove(f"{self._folder}/{name}")

    # -- the log -------------------------------------------------------------------------------------------------------
    def open_log(self, number: int, length: int) -> None:
        """Records go to this log from now on; it has ``length`` of them."""
        raise NotImplementedError

    def append(self, record: bytes) -> None:
        raise NotImplementedError

    def records(self, number: int) -> list[bytes]:
        raise NotImplementedError


class FileJournal(Journal):
    """In a directory."""

    def __init__(self, root: str, actor_id: str, sync: bool) -> None:
        super().__init__(actor_id)
        self.store = DirectoryStore(root)
        self._root, self._sync, self._log = root, sync, -1

    def _path(self, number: int) -> str:
        return os.path.join(self._root, self._folder, f"log-{number:010}")

    def check(self) -> None:
        if not os.path.exists(os.path.join(self._root, self._mark)):
            super().check()

    def open_log(self, number: int, length: int) -> None:
        """What is torn at its end is cut off."""
        if self._log >= 0:
            os.close(self._log)
        self._log = os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(self._log, sum(HEAD.size + len(record) for record in self.records(number)))

    def append(self, record: bytes) -> None:
        """One write; the kernel has it when this returns, and the disk as well if that was asked for."""
        os.write(self._log, framed(record))
        if self._sync:
            os.fsync(self._log)

    def records(self, number: int) -> list[bytes]:
        try:
            with open(self._path(number), "rb") as source:
                return unframed(source.read())
        except FileNotFoundError:
            return []


class UrlJournal(Journal):
    """Behind a URL."""

    def __init__(self, url: str, actor_id: str) -> None:
        super().__init__(actor_id)
        self.store = UrlStore(url)
        self._number, self._length = 0, 0

    def open_log(self, number: int, length: int) -> None:
        self._number, self._length = number, length

    def append(self, record: bytes) -> None:
        self.store.write(f"{self._folder}/log-{self._number:010}-{self._length:010}", framed(record))
        self._length += 1

    def records(self, number: int) -> list[bytes]:
        start = f"log-{number:010}-"
        found = [
            unframed(self.store.read(f"{self._folder}/{name}"))
            for name in self.store.names(self._folder)
            if name.startswith(start) and not name.endswith(".part")
        ]
        return [record for records in found for record in records]


def framed(data: bytes) -> bytes:
    return HEAD.pack(len(data), zlib.crc32(data)) + data


def unframed(data: bytes) -> list[bytes]:
    """The records up to the first that is torn."""
    records, at = [], 0
    while at + HEAD.size <= len(data):
        size, crc = HEAD.unpack_from(data, at)
        record = data[at + HEAD.size : at + HEAD.size + size]
        if len(record) < size or zlib.crc32(record) != crc:
            break
        records.append(record)
        at += HEAD.size + size
    return records


def open_journal(options: dict[str, Any], actor_id: str) -> Journal:
    """An actor's, by its option ``checkpoint=``. Without a store it lies in this host's temporary folder."""
    store = options.get("store")
    if options.get("durability") == "replicated":
        raise refuse(
            'durability="replicated"', 'pass store= with a directory that every node sees, or a URL, and "disk"'
        )
    if store is not None and "://" in store and not store.startswith("file://"):
        return UrlJournal(store, actor_id)
    own = os.path.join(tempfile.gettempdir(), f"actorlib-{os.getuid()}", "on-ray")
    root = own if store is None else os.path.abspath(os.path.expanduser(store.removeprefix("file://")))
    return FileJournal(root, actor_id, sync=options.get("durability") == "disk")
