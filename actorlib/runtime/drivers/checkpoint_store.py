"""Where checkpoints lie that are too large for the GCS's tables: a directory, or any URL that fsspec understands.

A checkpoint is written aside and renamed, chunks before what refers to them, so a crash leaves either all of it or
none. Chunks have the hash of their content as a name and are written once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from actorlib import exceptions
from actorlib.runtime import checkpoint
from actorlib.runtime.drivers.call_log_file import sync_directory

THREADS = 2  # hashing and writing leave Python to others meanwhile


class Store(Protocol):
    is_synced: bool
    """Whether a checkpoint is durable as soon as it is written; else once ``sync`` has returned."""

    def write(self, name: str, data: Any) -> None:
        """All or nothing, and durable once ``sync`` has returned."""

    def sync(self) -> None:
        """What was written is durable from now on."""

    def read(self, name: str) -> Any: ...

    def exists(self, name: str) -> bool: ...

    def names(self, directory: str) -> list[str]: ...

    def remove(self, name: str) -> None: ...


class DirectoryStore:
    """A directory of the file system. Not ``is_synced``: what is written is durable only after ``sync``."""

    def __init__(self, root: str, is_synced: bool = True) -> None:
        self.root = root
        self.is_synced = is_synced
        self._unsynced: list[str] = []
        self._names_in: dict[str, None] = {}  # directories in which names are new

    def _make_folder_of(self, path: str) -> None:
        folder = above = os.path.dirname(path)
        while not os.path.isdir(above):
            above = os.path.dirname(above)
            self._names_in[above] = None
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._names_in[folder] = None

    def write(self, name: str, data: Any) -> None:
        path = os.path.join(self.root, name)
        self._make_folder_of(path)
        aside = f"{path}.{os.getpid()}.part"
        try:
            with open(aside, "wb") as target:
                target.write(data)
                target.flush()
                if self.is_synced:
                    os.fsync(target.fileno())
            os.replace(aside, path)
            self._unsynced += [] if self.is_synced else [path]
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise

    def sync(self) -> None:
        unsynced, self._unsynced = self._unsynced, []
        for path in unsynced:
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        names_in, self._names_in = self._names_in, {}
        for directory in names_in:
            sync_directory(directory)

    def take(self, path: str, name: str) -> None:
        """A file of another store on this machine: the same bytes under two names where that can be, else a copy."""
        target = os.path.join(self.root, name)
        self._make_folder_of(target)
        try:
            os.link(path, target)
        except FileExistsError:
            return
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(path, f"{target}.{os.getpid()}.part")
            os.replace(f"{target}.{os.getpid()}.part", target)
        self._unsynced.append(target)

    def read(self, name: str) -> bytearray:
        with open(os.path.join(self.root, name), "rb", buffering=0) as source:
            data = bytearray(os.fstat(source.fileno()).st_size)
            view, done = memoryview(data), 0
            while done < len(data) and (count := source.readinto(view[done:])):
                done += count
            return data

    def exists(self, name: str) -> bool:
        return os.path.exists(os.path.join(self.root, name))

    def names(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(os.path.join(self.root, directory)))
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.root, name))


class UrlStore:
    """Anything that fsspec reaches (``s3://bucket/path``, ``memory://x``). Needs the extra ``actorlib[store]``."""

    is_synced = True

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise exceptions.CheckpointError(
                f"the checkpoint store {url!r} needs fsspec; install actorlib[store], or name a directory"
            ) from error
        self._system, self._root = fsspec.core.url_to_fs(url)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def write(self, name: str, data: Any) -> None:
        path = self._path(name)
        self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._system.pipe_file(f"{path}.part", bytes(data))
        self._system.mv(f"{path}.part", path)

    def sync(self) -> None:
        """It is, once it is written."""

    def read(self, name: str) -> bytes:
        return bytes(self._system.cat_file(self._path(name)))

    def exists(self, name: str) -> bool:
        self._system.invalidate_cache()  # others write there, too
        return bool(self._system.exists(self._path(name)))

    def names(self, directory: str) -> list[str]:
        self._system.invalidate_cache()
        try:
            return sorted(path.rpartition("/")[2] for path in self._system.ls(self._path(directory), detail=False))
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._path(name))


def open_store(url: str) -> Store:
    """The store that an option names. Raises CheckpointError."""
    return UrlStore(url) if "://" in url else DirectoryStore(os.path.abspath(os.path.expanduser(url)))


def each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """``map``, several at once where there is more than one."""
    todo = list(items)
    if len(todo) < 2:
        return [function(item) for item in todo]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(function, todo))


def chunk_file(folder: str, name: bytes) -> str:
    return f"{folder}/chunk-{name.hex()}"


def write_apart(
    store: Store, url: str, folder: str, number: int, saved: checkpoint.Saved, node_id: bytes = b""
) -> tuple[bytes, int]:
    """Write a checkpoint into a store. Gives the record for the GCS and how many bytes were new. Raises OSError."""
    file = f"{folder}/checkpoint-{number:012d}"
    record, body, chunks = checkpoint.pack_apart(saved, url, file, node_id, each)
    new = [(name, data) for name, data in chunks.items() if not store.exists(chunk_file(folder, name))]
    each(lambda item: store.write(chunk_file(folder, item[0]), item[1]), new)
    store.write(file, body)
    if store.is_synced:
        store.sync()
    return record, len(body) + sum(memoryview(data).nbytes for _, data in new)


def read_apart(record: bytes) -> checkpoint.Saved:
    """A checkpoint that the GCS's record says where to find. Raises TornCheckpoint."""
    place = checkpoint.place_of(record)
    assert place is not None
    folder = place.file.rpartition("/")[0]
    try:
        store = open_store(place.url)
        return checkpoint.unpack_apart(
            record, bytes(store.read(place.file)), lambda name: store.read(chunk_file(folder, name)), each
        )
    except OSError as error:
        raise checkpoint.TornCheckpoint(f"{place.file} can't be read: {error}") from error


def drop_old(store: Store, folder: str, kept: list[int]) -> None:
    """Remove checkpoints that are not kept any more, and chunks that nothing refers to."""
    names = store.names(folder)
    keep = {f"checkpoint-{number:012d}" for number in kept}
    used: set[str] = set()
    for name in names:
        if name.startswith("checkpoint-") and not name.endswith(".part"):
            if name in keep:
                used.update(
                    f"chunk-{chunk.hex()}" for chunk in checkpoint.chunks_of(bytes(store.read(f"{folder}/{name}")))
                )
            else:
                store.remove(f"{folder}/{name}")
    for name in names:
        if name.startswith("chunk-") and name not in used:
            store.remove(f"{folder}/{name}")
