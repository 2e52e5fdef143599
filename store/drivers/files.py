"""Slab files and spill files: made, locked, renamed, checked and removed. Carries out ``catalog.Port``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
from typing import Any

from actorlib.store.catalog import Place, Slab
from actorlib.store.drivers.shared_memory import map_object
from actorlib.transport.ids import ObjectId

SPILL_HEADER = struct.Struct("<8sQ32s16x")  # 64 bytes, so that what follows is aligned as in a slab
SHARED_BYTES_MIN = 256 << 20  # less than this in shared memory is not worth having
SPILL_MAGIC = b"ACTORSP1"


class TornSpill(Exception):
    """A spill file that is not what was written."""


class Sink:
    """A slab that is filled piece by piece. Written, not mapped: so no page has to be mapped first."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def write(self, offset: int, data: Any) -> None:
        view = memoryview(data).cast("B")
        while view:
            done = os.pwrite(self._fd, view, offset)
            offset, view = offset + done, view[done:]

    def close(self) -> None:
        os.close(self._fd)


class StoreFiles:
    """The files of one node's store."""

    def __init__(self, directory: str, spill_directory: str) -> None:
        self.directory = directory
        self.spill_directory = spill_directory
        os.makedirs(directory, mode=0o700, exist_ok=True)
        os.makedirs(spill_directory, mode=0o700, exist_ok=True)

    def create(self, number: int, size: int) -> str:
        return self._create_at(os.path.join(self.directory, f"slab-{number}.0"), size)

    @staticmethod
    def _create_at(path: str, size: int) -> str:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # All pages now: a page that can't be had later would be a SIGBUS in the writer.
            os.posix_fallocate(fd, 0, size)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        return path

    def renew(self, slab: Slab) -> str | None:
        base, _, generation = slab.path.rpartition(".")
        path = f"{base}.{int(generation) + 1}"
        try:
            fd = os.open(slab.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # somebody cleaned up behind our back: its objects are lost, its room is not
            return self._create_at(path, slab.size)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(slab.path, path)
            return path
        except BlockingIOError:
            return None
        finally:
            os.close(fd)

    def unlink(self, slab: Slab) -> None:
        os.truncate(slab.path, 0)  # whoever filled it may still map it, and would keep its pages
        os.unlink(slab.path)

    def exists(self, slab: Slab) -> bool:
        return os.path.exists(slab.path)

    def write(self, slab: Slab, data: bytes) -> None:
        with open(slab.path, "r+b") as target:
            target.write(data)

    def read_object(self, slab: Slab, place: Place) -> bytes:
        with open(slab.path, "rb") as source:
            source.seek(place.offset)
            return source.read(place.size)

    def map(self, path: str, offset: int, size: int) -> memoryview:
        """An object's bytes, for as long as the view lives. Raises ObjectMissing or CorruptObject."""
        return map_object(path, offset, size)

    @staticmethod
    def frame(part: memoryview) -> Any:
        """A part of a mapped object as a message may keep it: the mapping sees to it that it stays as it is."""
        return part

    def sink(self, slab: Slab) -> Sink:
        """Where the parts of an object that comes from elsewhere are written."""
        return Sink(slab.path)

    def spill(self, slab: Slab, object_id: ObjectId, place: Place) -> str:
        data = self.read_object(slab, place)
        path = os.path.join(self.spill_directory, object_id.hex())
        try:
            with open(path + ".part", "wb") as target:
                target.write(SPILL_HEADER.pack(SPILL_MAGIC, len(data), hashlib.blake2b(data, digest_size=32).digest()))
                target.write(data)
            os.rename(path + ".part", path)
        except OSError:
            if os.path.exists(path + ".part"):
                os.unlink(path + ".part")
            raise
        return path

    def load_spilled(self, path: str) -> bytes:
        """What was spilled, checked. Raises TornSpill."""
        try:
            with open(path, "rb") as source:
                header, data = source.read(SPILL_HEADER.size), source.read()
        except OSError as error:
            raise TornSpill(f"{path}: {error.strerror}") from error
        if len(header) != SPILL_HEADER.size:
            raise TornSpill(f"{path} is cut short")
        magic, size, checksum = SPILL_HEADER.unpack(header)
        if magic != SPILL_MAGIC or size != len(data) or hashlib.blake2b(data, digest_size=32).digest() != checksum:
            raise TornSpill(f"{path} does not match its checksum")
        return data

    def unspill(self, path: str) -> None:
        if os.path.exists(path):
            os.unlink(path)

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.spill_directory, ignore_errors=True)


def shared_root() -> str:
    """Where memory is shared; ``ACTORLIB_SHARED_MEMORY_DIR`` names another place (huge pages, a container's volume)."""
    return os.environ.get("ACTORLIB_SHARED_MEMORY_DIR", "/dev/shm")


def shared_directory(session: str) -> str:
    return os.path.join(shared_root(), f"actorlib-{session}")


def spill_directory(session_dir: str) -> str:
    """Where objects are spilled: the session's directory, or one under ``ACTORLIB_SPILL_DIR`` (a fast local disk)."""
    root = os.environ.get("ACTORLIB_SPILL_DIR")
    name = f"actorlib-{os.path.basename(session_dir)}"
    return os.path.join(root, name) if root else os.path.join(session_dir, "spill")


def choose_directory(session: str, capacity_bytes: int, fallback: str) -> tuple[str, int, str]:
    """Where slabs go: shared memory if it has room, else a file-backed directory. Gives (directory, capacity, note)."""
    shared = shared_root()
    if os.path.isdir(shared) and os.access(shared, os.W_OK):
        room = os.statvfs(shared)
        available = room.f_bavail * room.f_frsize
        if available >= min(capacity_bytes, SHARED_BYTES_MIN):
            return shared_directory(session), min(capacity_bytes, int(available * 0.9)), ""
        note = f"{shared} has only {available >> 20} MiB free, so objects lie in files under {fallback} (slower)"
    else:
        note = f"there is no {shared}, so objects lie in files under {fallback} (slower)"
    room = os.statvfs(os.path.dirname(fallback))
    return fallback, min(capacity_bytes, int(room.f_bavail * room.f_frsize * 0.8)), note
