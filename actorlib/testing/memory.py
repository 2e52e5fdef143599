"""Shared memory and disks of a simulated host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from actorlib.store import slab
from actorlib.store.catalog import Place, Slab
from actorlib.store.drivers.files import TornSpill
from actorlib.store.drivers.shared_memory import ObjectMissing, StoreClient, _Granted
from actorlib.transport.ids import NodeId, ObjectId
from actorlib.transport.messages import Value


class NoRoom(Exception):
    """The simulated disk is full."""


class MemoryJournal:
    """The GCS's tables on a simulated disk: what was committed is there, at once and for good."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[bytes, bytes]] = {}
        self.commits = 0

    def commit(self, writes: list[tuple[str, bytes, bytes | None]]) -> None:
        self.commits += 1
        for table, key, value in writes:
            rows = self.tables.setdefault(table, {})
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value

    def read(self, table: str, key: bytes) -> bytes | None:
        return self.tables.get(table, {}).get(key)

    def rows(self, table: str) -> Iterable[tuple[bytes, bytes]]:
        return list(self.tables.get(table, {}).items())


class HostMemory:
    """Slabs and spill files by path."""

    def __init__(self) -> None:
        self.slabs: dict[str, bytearray] = {}
        self.spilled: dict[str, bytes] = {}

    def lose(self, directory: str) -> None:
        """A machine loses power: what lay in its directory is gone."""
        for files in (self.slabs, self.spilled):
            for path in [path for path in files if path.startswith(directory)]:
                del files[path]


class MemoryFiles:
    """Stands in for ``StoreFiles``. Readers copy, so no slab is ever held by one."""

    def __init__(self, memory: HostMemory, directory: str) -> None:
        self._memory = memory
        self.directory = directory

    def create(self, number: int, size: int) -> str:
        path = f"{self.directory}/slab-{number}.0"
        self._memory.slabs[path] = bytearray(size)
        return path

    def renew(self, old: Slab) -> str | None:
        base, _, generation = old.path.rpartition(".")
        path = f"{base}.{int(generation) + 1}"
        self._memory.slabs[path] = self._memory.slabs.pop(old.path)
        return path

    def unlink(self, old: Slab) -> None:
        del self._memory.slabs[old.path]

    def exists(self, of: Slab) -> bool:
        return of.path in self._memory.slabs

    def write(self, into: Slab, data: bytes) -> None:
        self._memory.slabs[into.path][: len(data)] = data

    def spill(self, of: Slab, object_id: ObjectId, place: Place) -> str:
        path = f"{self.directory}/spill-{object_id.hex()}"
        self._memory.spilled[path] = bytes(self._memory.slabs[of.path][place.offset : place.offset + place.size])
        return path

    def load_spilled(self, path: str) -> bytes:
        if path not in self._memory.spilled:
            raise TornSpill(f"{path} is gone")
        return self._memory.spilled[path]

    def unspill(self, path: str) -> None:
        self._memory.spilled.pop(path, None)

    def close(self) -> None:
        self._memory.lose(self.directory)


class MemoryStoreClient(StoreClient):
    """Objects in a simulated host's memory. A reader gets a copy of its own, read-only."""

    def __init__(self, node_id: NodeId, host_id: str, memory: HostMemory) -> None:
        super().__init__(node_id, host_id)
        self._memory = memory

    def add_slab(self, path: str, size: int) -> None:
        with self._placing:
            self._granted.append(_Granted(path, size, memoryview(self._memory.slabs[path])))

    def read(self, value: Value, object_id: ObjectId) -> tuple[memoryview, list[memoryview]]:
        _, _, path, offset, size, _ = value
        held: Any = self._memory.slabs.get(path)
        if held is None or len(held) < offset + size:
            raise ObjectMissing(f"{path} is not there")
        try:
            parts = slab.read_parts(memoryview(bytes(held[offset : offset + size])), object_id)
        except slab.CorruptObject as error:
            raise ObjectMissing(str(error)) from error
        return parts[0], parts[1:]
