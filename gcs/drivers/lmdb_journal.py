"""The GCS's tables on disk, in LMDB: one transaction for all that is written in a turn of the loop."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import lmdb

from actorlib.transport import limits

FORMAT_VERSION = 1
TABLES = ("kv", "jobs", "actors", "groups", "checkpoints", "lineage", "nodes", "answers", "meta")


class JournalFull(Exception):
    """Nothing was written: the disk or the map is full."""


class NewerFormat(Exception):
    """The directory was written by a newer version."""


class LmdbJournal:
    """``durable`` False leaves out the sync: an embedded session, which dies with its driver, needs none."""

    def __init__(self, directory: str, durable: bool) -> None:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._env = lmdb.open(
            directory,
            map_size=limits.lmdb_map_bytes,
            max_dbs=len(TABLES),
            sync=durable,
            metasync=durable,
            writemap=False,
            max_readers=8,
            mode=0o600,
        )
        self._is_closed = False
        self._tables = {name: self._env.open_db(name.encode()) for name in TABLES}
        self._check_version()

    def _check_version(self) -> None:
        with self._env.begin(write=True) as transaction:
            found = transaction.get(b"format", db=self._tables["meta"])
            if found is not None and int(found) > FORMAT_VERSION:
                raise NewerFormat(
                    f"this directory was written in format {int(found)}, this version reads up to {FORMAT_VERSION}; "
                    "install the newer actorlib or use another directory"
                )
            transaction.put(b"format", str(FORMAT_VERSION).encode(), db=self._tables["meta"])

    def commit(self, writes: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        """Write all or nothing. Raises JournalFull."""
        try:
            with self._env.begin(write=True) as transaction:
                for table, key, value in writes:
                    if value is None:
                        transaction.delete(key, db=self._tables[table])
                    else:
                        transaction.put(key, value, db=self._tables[table])
        except (lmdb.MapFullError, lmdb.DiskError, OSError) as error:
            raise JournalFull(str(error)) from error
        except lmdb.Error as error:
            if type(error) is not lmdb.Error or self._is_closed:  # else it is what the system said to a write
                raise
            raise JournalFull(str(error)) from error

    def read(self, table: str, key: bytes) -> bytes | None:
        with self._env.begin() as transaction:
            found = transaction.get(key, db=self._tables[table])
            return None if found is None else bytes(found)

    def rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        with self._env.begin() as transaction:
            for key, value in transaction.cursor(db=self._tables[table]):
                yield bytes(key), bytes(value)

    def close(self) -> None:
        self._is_closed = True
        self._env.close()
