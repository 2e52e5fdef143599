"""When a durable actor's state is saved, where to, and how it is found again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from actorlib import exceptions, serialization
from actorlib.runtime import checkpoint
from actorlib.runtime.call_log import CallLog
from actorlib.runtime.checkpoint import Meta, Saved, TornCheckpoint
from actorlib.runtime.drivers import actor_state, checkpoint_store
from actorlib.runtime.drivers.calls import CURRENT
from actorlib.runtime.drivers.far_checkpoints import FarCheckpoints
from actorlib.runtime.mailbox import Mailbox
from actorlib.transport import limits, messages
from actorlib.transport.drivers.notice import notice
from actorlib.transport.messages import ActorSpec


class Checkpointing(FarCheckpoints):
    """The part of a worker that saves and finds checkpoints. They are taken between calls."""

    log: CallLog | None = None
    spec: ActorSpec | None
    incarnation: int
    mailbox: Mailbox
    mailbox_lock: Any
    class_version = ""
    epoch = 0
    _store: checkpoint_store.Store | None = None

    def init_checkpointing(self, options: dict[str, Any]) -> None:
        self.checkpoint_options = options
        self._is_apart = False  # the newest checkpoint lies in a store
        self._number = 0  # of the newest checkpoint
        self._kept: dict[int, int] = {}  # number to position
        self._calls_since = 0
        self._not_covered: deque[tuple[int, int]] = deque()  # calls and bytes of checkpoints that were not kept
        self._look_at = 1 if options.get("every_s") else options.get("every_calls") or 1 << 62
        self._bytes_look_at = limits.call_log_bytes_max // 2
        self._saved_at = time.monotonic()
        self._saving = False
        self._wanted_now = False
        self._failed_at = -limits.checkpoint_retry_s
        # What it did last: position, method, caller, sequence, outcome.
        self.last_calls: deque[tuple[int, Any, bytes, int, int]] = deque(maxlen=limits.calls_remembered_max)
        if options.get("every_s"):
            self._tick()

    def _tick(self) -> None:
        """Wake the main thread from time to time, so that an idle actor's last calls are saved as well."""
        self.loop.call_later(self.checkpoint_options["every_s"] / 2, self._tick)

    def say(self, text: str) -> None:
        notice(f"{self.class_name}: {text}")

    # -- saving --------------------------------------------------------------------------------------------------------
    def checkpoint_is_due(self) -> bool:
        """Whether the state is to be saved now (asked between calls)."""
        log = self.log
        if log is None or self._saving:
            return False
        self._count_again(log)
        if not self._calls_since:
            return False
        every_calls, every_s = self.checkpoint_options.get("every_calls"), self.checkpoint_options.get("every_s")
        due = every_calls is not None and self._calls_since >= every_calls
        if not due and every_s:
            due = time.monotonic() - self._saved_at >= every_s
        if not due and not log.wants_checkpoint():
            return False
        return time.monotonic() - self._failed_at >= limits.checkpoint_retry_s

    def save_if_due(self) -> None:
        if self.checkpoint_is_due():
            try:
                self.save(wait=False)
            except Exception as error:
                self._not_kept(repr(error))

    def _count_again(self, log: CallLog) -> None:
        """What a checkpoint was to cover that could not be kept counts against the log's limit, as before."""
        while self._not_covered:
            calls, size = self._not_covered.popleft()
            self._calls_since += calls
            log.bytes_since_checkpoint += size
            self.mailbox.is_held = log.is_full()

    def _not_kept(self, reason: str) -> None:
        """The log goes on, so nothing is lost; it is tried again after a while, also if nothing else happens then."""
        self._failed_at = time.monotonic()
        self._saving = False
        self.loop.post(self._look_again, None)
        self.say(f"no checkpoint could be kept: {reason}; its calls stay in the log, and it is tried again")

    def _look_again(self, _: None) -> None:
        self.loop.call_later(limits.checkpoint_retry_s, _nothing)

    def take_snapshot(self, is_last: bool = False, with_calls: bool = False) -> Saved:
        """``is_last``: this incarnation runs nothing after it, so nobody need look for its log."""
        assert self.log is not None
        data, buffers, refs = actor_state.dump(self.instance)
        size = len(data) + sum(buffer.nbytes for buffer in buffers)
        last_of = self.incarnation if is_last else -1
        meta = Meta(self.log.position, self.epoch, self.class_version, self.class_name, time.time(), size, last_of)
        with self.mailbox_lock:  # the loop lets go of replies meanwhile
            table = self.log.table()
        last_calls = tuple(self.last_calls) if with_calls else ()
        return Saved(meta, table, self.objects_of(refs), data, tuple(buffers), last_calls)

    def objects_of(self, refs: Any) -> tuple[Any, ...]:
        """What to keep of the references in the state."""
        return ()

    def save(self, wait: bool, is_last: bool = False, with_calls: bool = False) -> None:
        """Save the state as it is now; ``with_calls``: and what it did last, for another process to tell.

        Raises CheckpointError if ``wait`` and it could not be kept.
        """
        assert self.spec is not None and self.log is not None
        saved = self.take_snapshot(is_last, with_calls)
        number, position, keep = self._number + 1, saved.meta.position, self.checkpoint_options.get("keep", 2)
        try:
            record = self._record_of(saved, number)
        except OSError as error:
            raise exceptions.CheckpointError(
                f"the checkpoint store {self.store_url()!r} can't be written to: {error}; make room there or name "
                "another one with Checkpoint(store=...)"
            ) from error
        self._number = number
        covers = (self._calls_since, self.log.bytes_since_checkpoint)
        self._calls_since, self.log.bytes_since_checkpoint = 0, 0
        self._saved_at = time.monotonic()
        actor_id, incarnation = self.spec.actor_id, self.incarnation

        def put(request_id: int) -> messages.CheckpointPut:
            return messages.CheckpointPut(request_id, actor_id, incarnation, number, record, keep)

        if wait:
            try:
                self._ask_to_keep(put)
            except exceptions.CheckpointError:
                self._not_covered.append(covers)
                raise
            self._is_kept(number, position, keep)
            return
        self._saving = True
        request_id = self.ids.request_id()
        self._answers[request_id] = lambda answer: self._answered(answer, number, position, keep, covers)
        self.loop.post(self.to_gcs, put(request_id))

    def _ask_to_keep(self, put: Any) -> None:
        try:
            self.ask(self.gcs, put)
        except exceptions.ActorlibError as error:
            raise exceptions.CheckpointError(f"the checkpoint was not kept: {error}") from error

    def store_url(self) -> str:
        """Where large checkpoints go."""
        return self.checkpoint_options.get("store") or self.own_store_url()

    def own_store_url(self) -> str:
        return f"{self.log_directory()}/checkpoints"

    def log_directory(self) -> str:
        """The node's directory for call logs."""
        raise NotImplementedError

    def _record_of(self, saved: Saved, number: int) -> bytes:
        is_shared = bool(self.checkpoint_options.get("store"))
        self._is_apart = is_shared or saved.meta.state_bytes >= limits.checkpoint_in_message_bytes_max
        if not self._is_apart:
            return checkpoint.pack(saved)
        url = self.store_url()
        store = self._store = checkpoint_store.open_store(url)
        if isinstance(store, checkpoint_store.DirectoryStore):
            # The log goes on until the last checkpoint is durable too, so an actor that moves need not wait for that.
            store.is_synced = saved.meta.last_of < 0
        assert self.spec is not None
        node_id = b"" if is_shared else self.node.node_id
        record, _ = checkpoint_store.write_apart(store, url, self.spec.actor_id.hex(), number, saved, node_id)
        return record

    def sync_store(self) -> None:
        """The last checkpoint is durable from now on. Raises OSError."""
        if self._is_apart and self._store is not None:
            self._store.sync()

    def _answered(self, answer: Any, number: int, position: int, keep: int, covers: tuple[int, int]) -> None:
        self._saving = False
        if type(answer) is messages.Failure:
            self._not_covered.append(covers)
            self._not_kept(answer.text)
        else:
            self._is_kept(number, position, keep)

    def _is_kept(self, number: int, position: int, keep: int) -> None:
        """Calls up to the oldest checkpoint that is kept need not stay in the log."""
        self._kept[number] = position
        while len(self._kept) > keep:
            del self._kept[min(self._kept)]
        self.checkpoint_kept(position, min(self._kept.values()) if len(self._kept) >= keep else -1)
        if self._is_apart:
            assert self.spec is not None
            url, folder = self.store_url(), self.spec.actor_id.hex()
            try:
                checkpoint_store.drop_old(checkpoint_store.open_store(url), folder, list(self._kept))
            except (OSError, TornCheckpoint) as error:
                self.say(f"old checkpoints in {url!r} could not be removed: {error}")

    def checkpoint_kept(self, position: int, covered: int) -> None:
        """A checkpoint is durable; the log is needed only from ``covered`` on."""

    def checkpoint_now(self) -> None:
        context = CURRENT.get()
        if self.log is None or context is None or context.run is None:
            raise ValueError("checkpoint_now() is for methods of actors with the option checkpoint=...")
        self._wanted_now = True

    # -- finding -------------------------------------------------------------------------------------------------------
    def checkpoints_of(self, actor_id: Any) -> Iterator[tuple[int, Saved]]:
        """The good checkpoints of an actor, newest first. What can't be read is passed over, and named."""
        newest = self._ask_for_checkpoint(actor_id, -1)
        for number in sorted(newest.numbers, reverse=True):
            answer = newest
            if number != newest.number:
                answer = self._ask_for_checkpoint(actor_id, number)
            try:
                if answer.number < 0:
                    raise TornCheckpoint("its checksum is wrong")
                yield number, read_checkpoint(self.bring_here(bytes(answer.state), number))
            except TornCheckpoint as error:
                self.say(f"checkpoint {number} is torn ({error}); the one before is used")

    def _ask_for_checkpoint(self, actor_id: Any, number: int) -> messages.CheckpointReply:
        answer: messages.CheckpointReply = self.ask(
            self.gcs, lambda request_id: messages.CheckpointGet(request_id, actor_id, number)
        )
        return answer


def read_checkpoint(record: bytes) -> Saved:
    """A checkpoint from what the GCS keeps of it. Raises TornCheckpoint."""
    if checkpoint.place_of(record) is None:
        return checkpoint.unpack(record)
    return checkpoint_store.read_apart(record)


def _nothing() -> None:
    """A timer that only wakes the main thread, which then looks whether a checkpoint is due."""


def pickled(value: Any) -> bytes:
    return serialization.serialize(value, in_band=True).data
