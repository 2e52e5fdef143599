"""Durable actors on Ray: each call's effect on the state happens once, however often the worker dies.

Ray sends a call again when the worker that had it is lost (``max_task_retries=-1``); who made a call and which of that
caller's calls it is travels with it. The host logs each call when it has run and before its reply leaves: caller,
number, method, arguments, and what ``record`` gave. A new worker loads the newest checkpoint, runs the log again with
the recorded inputs, and answers a call that it has seen with the reply that it gave.

Where: a folder for each actor under ``store=`` (a directory that every node sees), else under this host's temporary
folder, which survives the worker and Ray, but not the host. A torn tail of the log is a call that nobody saw.
"""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import time
import zlib
from collections import OrderedDict
from typing import Any

from actorlib import serialization
from actorlib.engines.on_ray.hosting import Note
from actorlib.engines.on_ray.options import refuse
from actorlib.runtime.drivers import actor_state

HEAD = struct.Struct(">II")
REPLIES_KEPT_MAX = 10_000  # of one caller; Ray has far fewer of its calls in flight
Key = tuple[bytes, int]


class Inputs(threading.local):
    """What the running call learns from outside: recorded, or given again."""

    recorded: list[Any] | None = None
    replayed: list[Any] | None = None


INPUTS = Inputs()
CURRENT: list[Durable] = []  # the one of this worker


class Durable:
    """The instance of a durable actor, its log and its checkpoints."""

    def __init__(self, cls: Any, options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        import ray

        self._cls = cls
        self._every_calls, self._every_s = options.get("every_calls"), options.get("every_s")
        self._keep, self._sync = options.get("keep", 2), options.get("durability") == "disk"
        self._folder = folder_of(options, ray.get_runtime_context().get_actor_id())
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._replies: dict[bytes, OrderedDict[int, tuple[bool, Any]]] = {}
        self._since, self._saved_at = 0, time.monotonic()
        self._number = self._load(args, kwargs)
        self._log = self._open()
        CURRENT[:] = [self]

    # -- calls ---------------------------------------------------------------------------------------------------------
    def call(self, note: Note | None, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a call, or give the reply that it had."""
        key = (note.caller, note.sequence) if note is not None else (b"", 0)
        of_caller = self._replies.get(key[0]) if key[0] else None
        known = of_caller.get(key[1]) if of_caller is not None else None
        if known is None:
            known = self._run(key, method, args, kwargs)
        good, reply = known
        if not good:
            raise reply
        return reply

    def _run(self, key: Key, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any]:
        packed = pack((args, kwargs))  # before it runs: it may change what it was given
        INPUTS.recorded = []
        outcome = self._outcome(method, args, kwargs)
        record = pack((key, method, packed, INPUTS.recorded))
        INPUTS.recorded = None
        self._write(record)
        self._remember(key, outcome)
        self._since += 1
        due = self._every_calls is not None and self._since >= self._every_calls
        if due or (self._every_s and time.monotonic() - self._saved_at >= self._every_s):
            self.save()
        return outcome

    def _outcome(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any]:
        try:
            result = getattr(self.instance, method)(*args, **kwargs)
            return True, list(result) if hasattr(result, "__next__") else result
        except Exception as error:
            return False, error

    def _remember(self, key: Key, outcome: tuple[bool, Any]) -> None:
        if key[0]:
            replies = self._replies.setdefault(key[0], OrderedDict())
            replies[key[1]] = outcome
            if len(replies) > REPLIES_KEPT_MAX:
                replies.popitem(last=False)

    def record_once(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if INPUTS.replayed is not None:
            return INPUTS.replayed.pop(0)
        value = function(*args, **kwargs)
        if INPUTS.recorded is not None:
            INPUTS.recorded.append(value)
        return value

    # -- the log -------------------------------------------------------------------------------------------------------
    def _open(self) -> int:
        return os.open(self._path("log", self._number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _path(self, kind: str, number: int) -> str:
        return os.path.join(self._folder, f"{kind}-{number:010}")

    def _write(self, record: bytes) -> None:
        """One write; the kernel has it when this returns, and the disk as well if that was asked for."""
        os.write(self._log, HEAD.pack(len(record), zlib.crc32(record)) + record)
        if self._sync:
            os.fsync(self._log)

    def _read_log(self, number: int) -> list[bytes]:
        """Its records up to a torn tail, which is cut."""
        path = self._path("log", number)
        if not os.path.exists(path):
            return []
        with open(path, "rb") as source:
            data = source.read()
        records, at = [], 0
        while at + HEAD.size <= len(data):
            size, crc = HEAD.unpack_from(data, at)
            record = data[at + HEAD.size : at + HEAD.size + size]
            if len(record) < size or zlib.crc32(record) != crc:
                break
            records.append(record)
            at += HEAD.size + size
        os.truncate(path, at)
        return records

    # -- checkpoints ---------------------------------------------------------------------------------------------------
    def save(self) -> None:
        """Write the state and the table of replies aside, then begin a new log."""
        data, buffers, _ = actor_state.dump(self.instance)
        saved = pack((data, [bytes(buffer) for buffer in buffers], self._replies))
        target = self._path("checkpoint", self._number + 1)
        with open(target + ".new", "wb") as file:
            file.write(HEAD.pack(len(saved) & 0xFFFFFFFF, zlib.crc32(saved)) + saved)
            file.flush()
            if self._sync:
                os.fsync(file.fileno())
        os.replace(target + ".new", target)
        os.close(self._log)
        self._number += 1
        self._log = self._open()
        self._since, self._saved_at = 0, time.monotonic()
        self._drop_old()

    def _drop_old(self) -> None:
        oldest = self._number - self._keep + 1
        for name in os.listdir(self._folder):
            kind, _, number = name.partition("-")
            if number.isdigit() and int(number) < oldest and kind in ("checkpoint", "log"):
                os.unlink(os.path.join(self._folder, name))

    def _load(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """The newest good checkpoint, or the constructor; then the logs after it, in order. Gives the last number."""
        numbers = sorted(
            int(n[11:]) for n in os.listdir(self._folder) if n.startswith("checkpoint-") and n[11:].isdigit()
        )
        found = 0
        self.instance: Any = None
        for number in reversed(numbers):
            with open(self._path("checkpoint", number), "rb") as source:
                whole = source.read()
            saved = whole[HEAD.size :]
            if len(whole) > HEAD.size and HEAD.unpack_from(whole)[1] == zlib.crc32(saved):
                data, buffers, self._replies = serialization.deserialize(saved)
                self.instance = actor_state.restore(self._cls, data, tuple(buffers))
                found = number
                break
        if self.instance is None:
            self._construct(args, kwargs)
        last = max([found, *numbers])
        for number in range(found, last + 1):
            for record in self._read_log(number):
                self._replay(record)
        return last

    def _construct(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The constructor may record too: its inputs are kept beside the log."""
        path = os.path.join(self._folder, "constructor")
        if os.path.exists(path):
            with open(path, "rb") as source:
                INPUTS.replayed = serialization.deserialize(source.read())
        INPUTS.recorded = []
        CURRENT[:] = [self]
        self.instance = self._cls(*args, **kwargs)
        recorded, INPUTS.recorded, replayed = INPUTS.recorded, None, INPUTS.replayed
        INPUTS.replayed = None
        if replayed is None:
            with open(path + ".new", "wb") as target:
                target.write(pack(recorded))
            os.replace(path + ".new", path)

    def _replay(self, record: bytes) -> None:
        key, method, packed, inputs = serialization.deserialize(record)
        args, kwargs = serialization.deserialize(packed)
        INPUTS.replayed = list(inputs)
        CURRENT[:] = [self]
        self._remember(key, self._outcome(method, args, kwargs))
        INPUTS.replayed = None


def pack(value: Any) -> bytes:
    return serialization.serialize(value, in_band=True).data


def folder_of(options: dict[str, Any], actor_id: str) -> str:
    """Where an actor's log and checkpoints lie."""
    store = options.get("store")
    if options.get("durability") == "replicated":
        raise refuse('durability="replicated"', 'pass store= with a directory that every node sees, and "disk"')
    if store is not None and "://" in str(store) and not str(store).startswith("file://"):
        raise refuse(f"store={store!r} of a durable actor", "pass a directory, on a file system that every node sees")
    base = str(store).removeprefix("file://") if store is not None else ""
    return os.path.join(base or os.path.join(tempfile.gettempdir(), f"actorlib-{os.getuid()}", "on-ray"), actor_id)
