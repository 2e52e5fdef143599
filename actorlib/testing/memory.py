"""Shared memory and disks of simulated hosts."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from actorlib.runtime.drivers.call_log_file import Mark
from actorlib.store import slab
from actorlib.store.catalog import Place, Slab
from actorlib.store.drivers.files import SPILL_HEADER, SPILL_MAGIC, TornSpill
from actorlib.store.drivers.shared_memory import ObjectMissing, StoreClient, _Granted
from actorlib.transport.ids import NodeId, ObjectId
from actorlib.transport.messages import Value
from actorlib.transport.sim.disk import Disk
from actorlib.transport.sim.loop import Gone


class NoRoom(Exception):
    """The simulated disk is full."""


class MemoryJournal:
    """The GCS's tables on a simulated disk, all or nothing for each commit.

    A ``durable`` one syncs each commit, and keeps it whatever happens. Another one may lose its last commits, in order,
    when the machine loses power; the death of its process loses nothing.
    """

    def __init__(self, durable: bool = True) -> None:
        self.tables: dict[str, dict[bytes, bytes]] = {}
        self.commits = 0
        self.written: dict[tuple[str, bytes], None] = {}  # every row that was ever committed
        self.is_full = False
        self.durable = durable
        self._at_next: tuple[bool, Callable[[], None]] | None = None
        self._undo: list[list[tuple[str, bytes, bytes | None]]] = []  # of each commit that was not synced
        self._undone: list[tuple[str, bytes]] = []

    def commit(self, writes: list[tuple[str, bytes, bytes | None]]) -> None:
        if self.is_full:
            raise NoRoom("the simulated disk is full")
        if self._at_next is not None:
            (is_kept, cut), self._at_next = self._at_next, None
            if is_kept:
                self._commit(writes)
            cut()
            raise Gone
        self._commit(writes)

    def _commit(self, writes: list[tuple[str, bytes, bytes | None]]) -> None:
        self.commits += 1
        if not self.durable:
            self._undo.append([(table, key, self.read(table, key)) for table, key, _ in reversed(writes)])
        for write in writes:
            self._put(*write)

    def _put(self, table: str, key: bytes, value: bytes | None) -> None:
        rows = self.tables.setdefault(table, {})
        self.written[table, key] = None
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value

    def read(self, table: str, key: bytes) -> bytes | None:
        return self.tables.get(table, {}).get(key)

    def rows(self, table: str) -> Iterable[tuple[bytes, bytes]]:
        return sorted(self.tables.get(table, {}).items())  # as LMDB gives them

    def cut_power_at_next(self, is_kept: bool, cut: Callable[[], None]) -> None:
        """The power goes in the middle of the next commit, of which the disk then has all (``is_kept``) or nothing."""
        self._at_next = (is_kept, cut)

    def calm(self) -> None:
        """Nothing is wrong with its disk any more."""
        self.is_full, self._at_next = False, None

    def lose_power(self, share: float) -> None:
        """The last ``share`` (0 to 1) of what was not synced is gone."""
        for _ in range(round(share * len(self._undo))):
            for write in self._undo.pop():
                self._put(*write)
                self._undone.append(write[:2])
        self._undo.clear()

    def take_undone(self) -> list[tuple[str, bytes]]:
        """Rows whose last write a power cut has undone, since the last call."""
        undone, self._undone = self._undone, []
        return undone


class MemoryMarker:
    """Notes the running call of one actor."""

    def __init__(self) -> None:
        self._mark: Mark | None = None

    def read(self) -> Mark | None:
        return self._mark

    def note(self, caller: bytes, sequence: int, position: int, crashes: int) -> None:
        self._mark = Mark(caller, sequence, position, crashes)

    def clear(self) -> None:
        self._mark = None


class HostMemory:
    """Slabs by path, of all hosts, and the disks of the hosts."""

    def __init__(self) -> None:
        self._markers: dict[str, MemoryMarker] = {}
        self.slabs: dict[str, bytearray] = {}
        self.stamps = 0
        self.disks: dict[str, Disk] = {}  # by the directory of the node

    def disk_of(self, path: str) -> Disk | None:
        return self.disks.get(path.partition("/")[0])

    def marker(self, path: str) -> MemoryMarker:
        return self._markers.setdefault(path, MemoryMarker())

    def lose(self, directory: str) -> None:
        """A machine is gone: what lay in its directory as well."""
        for path in [path for path in self.slabs if path.startswith(directory)]:
            del self.slabs[path]
        disk = self.disks.get(directory)
        if disk is not None:
            disk.lose(directory)
        for path in [path for path in self._markers if path.startswith(directory)]:
            del self._markers[path]


class MemorySink:
    """Stands in for ``Sink``."""

    def __init__(self, target: bytearray) -> None:
        self._target = target

    def write(self, offset: int, data: Any) -> None:
        self._target[offset : offset + len(data)] = data

    def close(self) -> None:
        return


class MemoryFiles:
    """Stands in for ``StoreFiles``. Readers copy, so no slab is ever held by one."""

    def __init__(self, memory: HostMemory, directory: str, disk: Disk) -> None:
        self._memory = memory
        self._disk = memory.disks[directory] = disk
        self.directory = directory
        self.is_full = False  # others have filled the memory that this host shares

    def create(self, number: int, size: int) -> str:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
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

    def map(self, path: str, offset: int, size: int) -> memoryview:
        """The object in place, as it is and as it will be while it is filled."""
        held: Any = self._memory.slabs.get(path)
        if held is None and self._disk.exists(path):
            held = self._disk.read(path)
        if held is None or len(held) < offset + size:
            raise ObjectMissing(f"{path} is not there")
        return memoryview(held)[offset : offset + size].toreadonly()

    @staticmethod
    def frame(part: memoryview) -> Any:
        """A copy: there are no locks here that would keep the slab as it is."""
        return bytes(part)

    def sink(self, into: Slab) -> MemorySink:
        return MemorySink(self._memory.slabs[into.path])

    def spill(self, of: Slab, object_id: ObjectId, place: Place) -> str:
        data = bytes(self._memory.slabs[of.path][place.offset : place.offset + place.size])
        path = f"{self.directory}/spill-{object_id.hex()}"
        header = SPILL_HEADER.pack(SPILL_MAGIC, len(data), hashlib.blake2b(data, digest_size=32).digest())
        self._disk.write(path, 0, header + data)
        return path

    def load_spilled(self, path: str) -> bytes:
        try:
            whole = self._disk.read(path)
        except OSError as error:
            raise TornSpill(f"{path} is gone") from error
        data = whole[SPILL_HEADER.size :]
        if len(whole) < SPILL_HEADER.size:
            raise TornSpill(f"{path} is cut short")
        _, size, checksum = SPILL_HEADER.unpack_from(whole)
        if size != len(data) or hashlib.blake2b(data, digest_size=32).digest() != checksum:
            raise TornSpill(f"{path} does not match its checksum")
        return data

    def unspill(self, path: str) -> None:
        self._disk.remove(path)

    def close(self) -> None:
        self._memory.lose(self.directory)


class MemoryStoreClient(StoreClient):
    """Objects in a simulated host's memory. A reader gets a copy of its own, read-only."""

    def __init__(self, node_id: NodeId, host_id: str, memory: HostMemory) -> None:
        self._memory = memory
        super().__init__(node_id, host_id)

    def _first_stamp(self) -> int:
        self._memory.stamps += 1 << 32
        return self._memory.stamps

    def add_slab(self, path: str, size: int) -> None:
        with self._placing:
            self._granted.append(_Granted(path, size, memoryview(self._memory.slabs[path])))

    def read(self, value: Value, object_id: ObjectId) -> tuple[memoryview, list[memoryview]]:
        _, _, path, offset, size, host_id = value
        if host_id != self._host_id:
            raise ObjectMissing("it lies on another machine")
        held: Any = self._memory.slabs.get(path)
        disk = self._memory.disk_of(path)
        if held is None and disk is not None and disk.exists(path):
            held = disk.read(path)
        if held is None or len(held) < offset + size:
            raise ObjectMissing(f"{path} is not there")
        try:
            parts = slab.read_parts(memoryview(bytes(held[offset : offset + size])), object_id)
        except slab.CorruptObject as error:
            raise ObjectMissing(str(error)) from error
        return parts[0], parts[1:]
