"""Where checkpoints lie that are too large for the GCS's tables: a directory, or any URL that fsspec understands.

A checkpoint is written aside and renamed, chunks before what refers to them, so a crash leaves either all of it or
none. Chunks have the hash of their content as a name and are written once.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Protocol

from actorlib import exceptions
from actorlib.runtime import checkpoint


class Store(Protocol):
    def write(self, name: str, data: Any) -> None:
        """All or nothing, and durable."""

    def read(self, name: str) -> bytes: ...

    def exists(self, name: str) -> bool: ...

    def names(self, directory: str) -> list[str]: ...

    def remove(self, name: str) -> None: ...


class DirectoryStore:
    """A directory of the file system."""

    def __init__(self, root: str) -> None:
        self.root = root

    def write(self, name: str, data: Any) -> None:
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        aside = f"{path}.{os.getpid()}.part"
        try:
            with open(aside, "wb") as target:
                target.write(data)
                target.flush()
                os.fsync(target.fileno())
            os.replace(aside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise

    def read(self, name: str) -> bytes:
        with open(os.path.join(self.root, name), "rb") as source:
            return source.read()

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

    def read(self, name: str) -> bytes:
        return bytes(self._system.cat_file(self._path(name)))

    def exists(self, name: str) -> bool:
        return bool(self._system.exists(self._path(name)))

    def names(self, directory: str) -> list[str]:
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


def write_apart(store: Store, url: str, folder: str, number: int, saved: checkpoint.Saved) -> tuple[bytes, int]:
    """Write a checkpoint into a store. Gives the record for the GCS and how many bytes were new. Raises OSError."""
    file = f"{folder}/checkpoint-{number:012d}"
    record, body, chunks = checkpoint.pack_apart(saved, url, file)
    written = len(body)
    for name, data in chunks.items():
        chunk = f"{folder}/chunk-{name.hex()}"
        if not store.exists(chunk):
            store.write(chunk, data)
            written += memoryview(data).nbytes
    store.write(file, body)
    return record, written


def read_apart(record: bytes) -> checkpoint.Saved:
    """A checkpoint that the GCS's record says where to find. Raises TornCheckpoint."""
    place = checkpoint.place_of(record)
    assert place is not None
    url, file, _ = place
    folder = file.rpartition("/")[0]
    try:
        store = open_store(url)
        return checkpoint.unpack_apart(
            record, store.read(file), lambda name: store.read(f"{folder}/chunk-{name.hex()}")
        )
    except OSError as error:
        raise checkpoint.TornCheckpoint(f"{file} can't be read: {error}") from error


def drop_old(store: Store, folder: str, kept: list[int]) -> None:
    """Remove checkpoints that are not kept any more, and chunks that nothing refers to."""
    names = store.names(folder)
    keep = {f"checkpoint-{number:012d}" for number in kept}
    used: set[str] = set()
    for name in names:
        if name.startswith("checkpoint-") and not name.endswith(".part"):
            if name in keep:
                used.update(f"chunk-{chunk.hex()}" for chunk in checkpoint.chunks_of(store.read(f"{folder}/{name}")))
            else:
                store.remove(f"{folder}/{name}")
    for name in names:
        if name.startswith("chunk-") and name not in used:
            store.remove(f"{folder}/{name}")
