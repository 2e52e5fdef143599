"""Durable actors on Ray: each call's effect on the state happens once, however often the worker dies.

Ray sends a call again when the worker that had it is lost (``max_task_retries=-1``); who made a call and which of that
caller's calls it is travels with it. The host logs each call when it has run and before its reply leaves: caller,
number, method, arguments, and what it learned from outside. A new worker loads the newest checkpoint, runs the log
again with that, and answers a call that it has seen with the reply that it gave. ``journal`` says where the log lies.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
import sys
import time
from collections import OrderedDict
from typing import Any, NamedTuple

from actorlib import exceptions, serialization
from actorlib.engines.on_ray import journal
from actorlib.engines.on_ray.hosting import WITH_INSTANCE, Note
from actorlib.engines.on_ray.inputs import RUNNING, Call
from actorlib.runtime.drivers import actor_state

REPLIES_KEPT_MAX = 10_000  # of one caller; Ray has far fewer of its calls in flight
REPLIES_BYTES_MAX = 256 << 20  # of all callers
CALLERS_KEPT_MAX = 10_000
WHO_BYTES = 8  # with these begins a caller's name: the same for all that one process, or one durable actor, calls
TOLD = "rolled back"  # what a call has learned that was not run since its caller had to be told first
CONSTRUCTOR = "constructor"  # in the folder: what the constructor has learned
ROLLED_BACK = "rolled-back"  # in the folder: that something was lost
CURRENT: list[Durable] = []  # the one of this worker


class Record(NamedTuple):
    """A call in the log."""

    caller: bytes
    sequence: int
    method: str
    packed: bytes  # its arguments
    inputs: list[Any]
    good: bool


class Reply(NamedTuple):
    """What a call was answered with: packed, since the state that it may be part of goes on to change."""

    method: str
    good: bool
    packed: bytes


class Saved(NamedTuple):
    """A checkpoint."""

    position: int
    saved_at: float
    class_name: str
    state: bytes
    buffers: list[bytes]
    replies: dict[bytes, OrderedDict[int, Reply]]


class Durable:
    """The instance of a durable actor, its log and its checkpoints."""

    def __init__(self, cls: Any, options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        import ray

        self._cls, self._options = cls, options
        self._actor_id = ray.get_runtime_context().get_actor_id()
        self._journal = journal.open_journal(options, self._actor_id)
        self._replies: OrderedDict[bytes, OrderedDict[int, Reply]] = OrderedDict()
        self._position = self._reply_bytes = 0
        self.instance: Any = None
        CURRENT[:] = [self]
        kept = self._journal.checkpoints()
        self._journal.begin(max(kept, default=0))
        self._rolled_back = self._look_for_losses(ray, kept)
        self._since, self._saved_at = 0, time.monotonic()
        if not kept and options.get("source") is not None:
            self._number = 0
            self._copy(*options["source"])
            self.save()
        else:
            self._number, length = self._load(kept, args, kwargs)
            self._journal.open_log(self._number, length)

    # -- calls ---------------------------------------------------------------------------------------------------------
    def call(self, note: Note | None, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a call, or give the reply that it had."""
        caller, sequence = (note.caller, note.sequence) if note is not None else (b"", 0)
        of_caller = self._replies.get(caller) if caller else None
        known = of_caller.get(sequence) if of_caller is not None else None
        if known is None and self._rolled_back and note is not None and note.again and not self._knows(caller):
            good, reply = self._tell(caller, sequence, method)
        elif known is None:
            good, reply = self._run(caller, sequence, method, args, kwargs)
        elif known.method != method:
            raise exceptions.ReplayDivergedError(f"{method} was called where {known.method} had been, by the same call")
        else:
            good, reply = known.good, serialization.deserialize(known.packed)
        if not good:
            raise reply
        return reply

    def _run(
        self, caller: bytes, sequence: int, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bool, Any]:
        packed = pack((args, kwargs))  # before it runs: it may change what it was given
        RUNNING.call = call = self._voice(caller, sequence, None)
        good, reply, packed_reply = self._outcome(method, args, kwargs)
        RUNNING.call = None
        self._log(Record(caller, sequence, method, packed, call.given, good), packed_reply)
        return good, reply

    def _log(self, record: Record, packed_reply: bytes) -> None:
        """Keep what a call did, before anybody sees it."""
        self._journal.append(pack(tuple(record)))
        try:
            self._journal.check()
        except exceptions.CheckpointError as error:  # Ray sends the call to the other one when this process is gone
            print(f"actorlib: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        self._remember(record.caller, record.sequence, Reply(record.method, record.good, packed_reply))
        self._since += 1
        every_calls, every_s = self._options.get("every_calls"), self._options.get("every_s")
        due = every_calls is not None and self._since >= every_calls
        if due or (every_s and time.monotonic() - self._saved_at >= every_s):
            self.save()

    # -- losses --------------------------------------------------------------------------------------------------------
    def _look_for_losses(self, ray: Any, kept: list[int]) -> bool:
        """Whether this actor ever came back without what it had kept."""
        if self._journal.read(ROLLED_BACK) is not None:
            return True
        if kept or self._journal.read(CONSTRUCTOR) is not None:
            return False
        return bool(ray.get_runtime_context().was_current_actor_reconstructed) and self._lose()

    def _lose(self) -> bool:
        self._journal.write(ROLLED_BACK, pack(time.time()))
        print(f"actorlib: {self._loss()}", file=sys.stderr, flush=True)
        return True

    def _loss(self) -> str:
        return (
            f"{self._cls.__name__} {self._actor_id} begins anew: its log or checkpoints are not there any more. "
            "Give it a store= that outlives its host"
        )

    def _knows(self, caller: bytes) -> bool:
        """Whether it has heard of a caller since something was lost."""
        who = caller[:WHO_BYTES]
        return caller in self._replies or any(each[:WHO_BYTES] == who for each in self._replies)

    def _tell(self, caller: bytes, sequence: int, method: str) -> tuple[bool, Any]:
        error = exceptions.StateRolledBackError(f"{self._loss()}. This call was not run")
        self._log(Record(caller, sequence, method, pack(((), {})), [(TOLD, False, error)], False), pack(error))
        return False, error

    def _voice(self, caller: bytes, sequence: int, inputs: list[Any] | None) -> Call:
        """The running call, with the name under which it calls others: its own, seen from this actor."""
        who = _digest(bytes.fromhex(self._actor_id))
        return Call(who + (_digest(caller) if caller else os.urandom(WHO_BYTES)), sequence, inputs)

    def _outcome(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any, bytes]:
        """Whether it went well, the reply or the error, and that as bytes."""
        try:
            if method == WITH_INSTANCE:
                result = args[0](self.instance, *args[1:], **kwargs)
            else:
                result = getattr(self.instance, method)(*args, **kwargs)
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
            elif hasattr(result, "__aiter__"):
                result = asyncio.run(_all_of(result))
            elif hasattr(result, "__next__"):
                result = list(result)
            return True, result, pack(result)
        except Exception as error:
            name = f"{self._cls.__name__}.{method}"
            seen = exceptions.task_error(error, name, exceptions.traceback_text(error), os.getpid(), b"")
            said = seen if seen.cause is None and not isinstance(error, exceptions.ActorlibError) else error
            return False, said, pack(said)

    def _remember(self, caller: bytes, sequence: int, reply: Reply) -> None:
        self._position += 1
        if not caller:
            return
        replies = self._replies.setdefault(caller, OrderedDict())
        self._replies.move_to_end(caller)
        replies[sequence] = reply
        self._reply_bytes += len(reply.packed)
        while len(replies) > REPLIES_KEPT_MAX or (self._reply_bytes > REPLIES_BYTES_MAX and len(replies) > 1):
            self._reply_bytes -= len(replies.popitem(last=False)[1].packed)
        if len(self._replies) > CALLERS_KEPT_MAX:
            _, dropped = self._replies.popitem(last=False)
            self._reply_bytes -= sum(len(each.packed) for each in dropped.values())

    # -- checkpoints ---------------------------------------------------------------------------------------------------
    def save(self) -> None:
        """Write the state and the table of replies aside, then begin a new log."""
        data, buffers, _ = actor_state.dump(self.instance)
        copies = [bytes(buffer) for buffer in buffers]
        saved = Saved(self._position, time.time(), self._cls.__name__, data, copies, dict(self._replies))
        self._journal.write(f"checkpoint-{self._number + 1:010}", pack(tuple(saved)))
        self._number += 1
        self._journal.open_log(self._number, 0)
        self._since, self._saved_at = 0, time.monotonic()
        self._journal.drop_before(self._number - self._options.get("keep", 2) + 1)

    def _load(self, kept: list[int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
        """The newest good checkpoint, or the constructor; then the logs after it, in order.

        Gives the number of the last log and how many records it has.
        """
        found = 0
        for number in reversed(kept):
            saved = read_checkpoint(self._journal, number)
            if saved is not None:
                found = number
                self._take(saved)
                self._replies = OrderedDict(saved.replies)
                self._reply_bytes = sum(
                    len(each.packed) for kept_of in saved.replies.values() for each in kept_of.values()
                )
                break
        last = max([found, *kept])
        if self.instance is None:
            self._construct(args, kwargs)
            if kept and not self._journal.records(0):  # no checkpoint is good, and the first log went with the oldest
                self._rolled_back = self._lose()
                self._number = last
                self.save()
                return self._number, 0
        records: list[bytes] = []
        for number in range(found, last + 1):
            records = self._journal.records(number)
            for record in records:
                self._replay(unpack(record))
        return last, len(records)

    def _take(self, saved: Saved) -> None:
        self.instance = actor_state.restore(self._cls, saved.state, tuple(saved.buffers))
        self._position = saved.position

    def _construct(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The constructor may learn something, too: that is kept beside the log."""
        kept = self._journal.read(CONSTRUCTOR)
        inputs = None if kept is None else serialization.deserialize(kept)
        RUNNING.call = call = self._voice(self._actor_id.encode(), 0, inputs)
        try:
            self.instance = self._cls(*args, **kwargs)
        finally:
            RUNNING.call = None
        if kept is None:
            self._journal.write(CONSTRUCTOR, pack(call.given))

    def _replay(self, record: Record, is_copy: bool = False) -> None:
        if record.inputs and record.inputs[0][0] == TOLD:
            self._remember(record.caller, record.sequence, Reply(record.method, False, pack(record.inputs[0][2])))
            return
        args, kwargs = serialization.deserialize(record.packed)
        RUNNING.call = self._voice(record.caller, record.sequence, list(record.inputs))
        RUNNING.call.is_copy = is_copy
        good, reply, packed = self._outcome(record.method, args, kwargs)
        RUNNING.call = None
        if not good and isinstance(reply, exceptions.ReplayDivergedError):
            raise reply
        self._remember(record.caller, record.sequence, Reply(record.method, good, packed))

    # -- looking back --------------------------------------------------------------------------------------------------
    def _copy(self, actor_id: str, number: int, position: int | None) -> None:
        """Become another actor as it was: at a checkpoint, then up to a position of its log."""
        source = journal.open_journal(self._options, actor_id)
        saved = read_checkpoint(source, number)
        if saved is None:
            kept = ", ".join(f"{actor_id}/{each}" for each in source.checkpoints()) or "none"
            raise exceptions.CheckpointError(f"there is no good checkpoint '{actor_id}/{number}'; those kept: {kept}")
        self._take(saved)
        for each in range(number, max(source.checkpoints()) + 1):
            for record in source.records(each):
                if position is not None and self._position < position:
                    self._replay(unpack(record), is_copy=True)
        if position is not None and self._position != position:
            raise exceptions.CheckpointError(
                f"position={position}: the log reaches from {saved.position} to {self._position}"
            )
        self._replies.clear()  # nobody has called this one yet

    def log(self, limit: int) -> list[dict[str, Any]]:
        """Rows of the last calls, the newest first."""
        numbers = range(min(self._journal.checkpoints(), default=0), self._number + 1)
        records = [unpack(record) for number in numbers for record in self._journal.records(number)]
        return [
            {
                "position": self._position - back,
                "method": record.method,
                "caller": record.caller.hex(),
                "sequence": record.sequence,
                "outcome": "ok" if record.good else "error",
            }
            for back, record in enumerate(reversed(records[-limit:]))
        ]

    def checkpoints(self) -> list[dict[str, Any]]:
        return rows(self._journal, self._actor_id)


def rows(kept: journal.Journal, actor_id: str) -> list[dict[str, Any]]:
    """What ``handle.checkpoints()`` gives."""
    found = []
    for number in kept.checkpoints():
        row: dict[str, Any] = {"id": f"{actor_id}/{number}", "number": number, "is_good": False}
        saved = read_checkpoint(kept, number)
        if saved is not None:
            size = len(saved.state) + sum(map(len, saved.buffers))
            row.update(position=saved.position, saved_at=saved.saved_at, class_name=saved.class_name)
            row.update(state_bytes=size, is_good=True)
        found.append(row)
    return found


def read_checkpoint(kept: journal.Journal, number: int) -> Saved | None:
    """None if it is not there or torn."""
    packed = kept.read(f"checkpoint-{number:010}")
    return None if packed is None else Saved(*serialization.deserialize(packed))


def unpack(record: bytes) -> Record:
    return Record(*serialization.deserialize(record))


def _digest(name: bytes) -> bytes:
    return hashlib.blake2b(name, digest_size=WHO_BYTES).digest()


def pack(value: Any) -> bytes:
    return serialization.serialize(value, in_band=True).data


async def _all_of(stream: Any) -> list[Any]:
    return [item async for item in stream]
