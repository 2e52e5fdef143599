"""How a durable actor comes to life and back to it: the checkpoint, the log run again, calls that end their worker.

The **epoch** counts how often the actor came back with less than its log once had (the level did not cover the loss).
Its voice, by which others know its calls, is made of its id and the epoch: what it does from then on is new, and is
never taken for what it did in the time that is forgotten.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from actorlib import exceptions, serialization
from actorlib.engine import ActorOptions
from actorlib.runtime import checkpoint
from actorlib.runtime.actor_client import ActorClient
from actorlib.runtime.call_log import CallLog, Logged, Recovery, Reply
from actorlib.runtime.call_log_format import FORMAT_VERSION, HEAD
from actorlib.runtime.drivers import actor_state
from actorlib.runtime.drivers.call_log_file import CallLogFile, FileMarker, Files, Mark, Marker, RealFiles, boot_id
from actorlib.runtime.drivers.calls import CURRENT
from actorlib.runtime.drivers.checkpointing import pickled, read_checkpoint
from actorlib.runtime.drivers.log_replica import LogReplica, read_copy
from actorlib.runtime.drivers.process import DEADLINE_GRACE_S
from actorlib.runtime.drivers.recorded_inputs import RecordedInputs, Run, VoiceIds
from actorlib.runtime.log_copies import reach
from actorlib.runtime.mailbox import Item, Mailbox
from actorlib.runtime.task import Task
from actorlib.store.owner import Entry
from actorlib.transport import limits, messages
from actorlib.transport.ids import ARGUMENTS, PROCESS_ID_BYTES, ActorId, ObjectId, TaskId, object_id
from actorlib.transport.link import NOWHERE, Address, Link
from actorlib.transport.messages import ActorSpec, Call, ResultStatus

NO_CALLER = bytes(8)


class Nobody:
    """Where the reply of a call goes that is run again: it is kept until its caller asks."""

    peer = NOWHERE
    is_down = False
    hello: Any = None

    def send(self, message: tuple[Any, ...]) -> None:
        return


NOBODY: Link = Nobody()


class Origin:
    """Who made a call, and how it runs."""

    __slots__ = ("caller", "run", "sequence")

    def __init__(self, caller: bytes, sequence: int, run: Run | None = None) -> None:
        self.caller = caller
        self.sequence = sequence
        self.run = run


def voice_of(actor_id: ActorId, epoch: int) -> bytes:
    return hashlib.blake2b(actor_id + epoch.to_bytes(4, "big"), digest_size=PROCESS_ID_BYTES).digest()


class ComingBack(RecordedInputs):
    """See the module's docstring. ``durability.py`` has the life in between."""

    mailbox: Mailbox
    mailbox_lock: Any
    stopping: str | None
    config: dict[str, Any]
    voice = b""
    replica: LogReplica | None = None

    # -- what the world gives (a simulation gives something else) ------------------------------------------------------
    def log_directory(self) -> str:
        return str(self.config["log_dir"])

    def open_files(self, path: str) -> tuple[Files, Marker, str]:
        """The disk for a log, what notes the running call, and the name of this boot of the machine."""
        return RealFiles(), FileMarker(os.path.join(path, "running")), boot_id()

    # -- coming to life ------------------------------------------------------------------------------------------------
    def construct(self, item: Item, spec: ActorSpec) -> None:
        if not spec.checkpoint:
            super().construct(item, spec)
            return
        cls: Any = self.function_of(spec.class_id)
        self.class_version = actor_state.class_version(cls, spec.class_id)
        self.held = {}
        self.log = CallLog()
        self.init_checkpointing(spec.checkpoint)
        path = os.path.join(self.log_directory(), spec.actor_id.hex())
        files, self.marker, boot = self.open_files(path)
        self.log_file = CallLogFile(files, path, spec.actor_id)
        self.level = self.choose_level()
        self.log_file.is_synced = self.level != "worker"
        self._suspect: tuple[tuple[bytes, int], int] | None = None
        self._unfinished: Item | None = None
        self._write_again_at = 0.0
        self.loop.before_flush = self.write_log
        self._is_copied = False
        self._come_back(item, spec, cls, boot)

    def choose_level(self) -> str:
        """What the log is to outlive: as asked for, else what the deployment can outlive."""
        wanted = str(self.checkpoint_options.get("durability", "auto"))
        self._known_nodes = self.ask(self.gcs, messages.NodesList).nodes if wanted in ("auto", "replicated") else ()
        if wanted != "auto":
            return wanted
        if sum(view.alive for view in self._known_nodes) > 1:
            return "replicated"
        return "disk" if self.config.get("durable") else "worker"

    def _best_log(self) -> list[Any]:
        """Our own log, or the copy of a node (it may be ours) where that leads further."""
        records = self.log_file.read()
        if (
            not self._known_nodes or not self.incarnation
        ):  # at "auto" it may have been replicated before nodes were lost
            return records
        assert self.spec is not None
        actor_id, incarnation = self.spec.actor_id, self.incarnation
        for view in self._known_nodes:
            if not view.alive:
                continue
            try:
                answer = self.ask(
                    view.address, lambda rid: messages.LogFetch(rid, actor_id, incarnation), limits.log_fetch_timeout_s
                )
            except exceptions.ActorlibError as error:
                self.say(f"node {view.address.node_id.hex()[:8]} did not say whether it has a copy of the log: {error}")
                continue
            copy = read_copy(answer.data)
            if reach(copy) > reach(records):
                records, self._is_copied = copy, True
        return records

    def _come_back(self, item: Item, spec: ActorSpec, cls: Any, boot: str) -> None:
        """From the newest checkpoint that can be used, or the constructor; then the log from there."""
        records = self._best_log()
        failed: Exception | None = None
        for number, saved in self.checkpoints_of(spec.actor_id):
            is_whole = saved.meta.last_of == self.incarnation - 1 >= 0
            recovery = self._begin_epoch(records, saved.meta.position, saved.meta.epoch, boot, is_whole)
            try:
                self._load_checkpoint(cls, saved)
            except Exception as error:
                failed = error
                self.say(
                    f"checkpoint {number} can't be used ({type(error).__name__}: {error}); the one before is tried"
                )
                continue
            self._number = number
            self._kept = {number: saved.meta.position}
            self.loop.run(self._begin_replica)
            self._run_again(recovery)
            return
        if failed is not None:
            raise exceptions.CheckpointError(
                f"no checkpoint of {self.class_name} can be used; the last one tried gave {type(failed).__name__}: "
                f"{failed}. Mend __restore__, or start a copy with actorlib.restore(Class, checkpoint_id)"
            ) from failed
        recovery = self._begin_epoch(records, -1, 0, boot)
        self.loop.run(self._begin_replica)
        if self.checkpoint_options.get("source"):
            self._become_copy(cls, *self.checkpoint_options["source"])
            return
        self._run_constructor(item, spec, recovery)
        self._run_again(recovery)

    def _begin_epoch(self, records: list[Any], after: int, epoch: int, boot: str, is_whole: bool = False) -> Recovery:
        """Which time of its life this is, and whether something of an earlier one is forgotten.

        ``is_whole``: the checkpoint was taken when the incarnation before this one ended, and has all that it did.
        """
        assert self.spec is not None
        recovery = Recovery(records, after)
        head = recovery.head
        epoch = max(head[3], epoch) if head is not None else epoch
        lost = "" if is_whole else self._what_is_lost(recovery, boot)
        if lost:
            epoch = max(epoch + 1, self.incarnation)
            self.say(f"it may have lost its latest calls: {lost}")
        if head is not None and head[4] != self.class_version and recovery.calls:
            raise exceptions.CodeChangedError(
                f"{self.class_name} was changed while {len(recovery.calls)} of its calls lie in the log, which only "
                "the code that wrote them can run again. Put the old code back and take a checkpoint "
                "(handle.upgrade(NewClass) does that by itself), or start from the last checkpoint without them: "
                "actorlib.restore(Class, checkpoint_id)"
            )
        self.epoch = epoch
        self.voice = voice_of(self.spec.actor_id, epoch)
        self.ids = VoiceIds(self.ids, self.voice)
        actor_id = self.spec.actor_id
        self.log_file.head = (HEAD, FORMAT_VERSION, actor_id, epoch, self.class_version, boot, self.level)
        if self._is_copied:
            self._is_copied = False
            self.log_file.forget()
            self.log_file.append([record for record in records if record[0] != HEAD] or [self.log_file.head])
        return recovery

    def _begin_replica(self) -> None:
        if self.level == "replicated":
            self.replica = LogReplica(self)  # type: ignore[arg-type]
            self.loop.gate = self.replica.gate
            self.replica.begin(self._known_nodes)

    def _what_is_lost(self, recovery: Recovery, boot: str) -> str:
        head = recovery.head
        if head is None:
            return "its log is not here" if self.incarnation > 0 else ""
        if recovery.hole is not None:
            return f"its log lacks position {recovery.hole}"
        if head[5] != boot and head[6] == "worker":
            return "the machine was started anew, and its log was not synced (durability='worker')"
        return ""

    def _load_checkpoint(self, cls: Any, saved: checkpoint.Saved) -> None:
        assert self.log is not None
        self.log.load_table(saved.table)
        self.log.position = saved.meta.position
        self.loop.run(lambda: self._bring_back(saved.objects))
        self.instance = actor_state.restore(cls, saved.state, saved.buffers)
        self.last_calls.extend(saved.last_calls)
        self.loop.post(self._let_go_of_brought, [ObjectId(row[0]) for row in saved.objects])

    def _run_constructor(self, item: Item, spec: ActorSpec, recovery: Recovery) -> None:
        """The constructor is the call at position 0."""
        assert self.log is not None
        calls = recovery.calls
        logged = calls.pop(0) if calls and calls[0].position == 0 else None
        self._look_for_poison(recovery)
        if logged is None:
            self.log.begin(NO_CALLER, -1, "__init__", (b"", (), 1, None), 0)
        self.log.position = 0
        self.is_replaying = bool(calls)
        item.origin = Origin(NO_CALLER, -1, Run(0, logged.inputs if logged is not None else None, bool(calls)))
        self.marker.note(NO_CALLER, -1, 0, self._crashes_of(NO_CALLER, -1))
        super().construct(item, spec)
        self.marker.clear()

    def _become_copy(self, cls: Any, source: ActorId, number: int, position: int) -> None:
        """The state of another actor's checkpoint, then its log up to a position, without what the calls sent."""
        assert self.log is not None and self.spec is not None
        answer = self._ask_for_checkpoint(source, number)
        if answer.number < 0:
            raise exceptions.CheckpointError(f"checkpoint {source.hex()}/{number} is not kept any more, or is torn")
        saved = read_checkpoint(self.bring_here(bytes(answer.state), number))
        self._brought = None
        if saved.meta.class_name != self.class_name and not hasattr(cls, "__restore__"):
            raise exceptions.CheckpointError(
                f"checkpoint {source.hex()}/{number} is of a {saved.meta.class_name}, which {self.class_name} can't "
                "take over; give it a __restore__(self, state) that can"
            )
        self.instance = actor_state.restore(cls, saved.state, saved.buffers)
        if position >= 0:
            self._follow_log_of(source, saved, position)
        self.log.callers.clear()
        self.log.position = 0
        self.save(wait=True)

    def _follow_log_of(self, source: ActorId, saved: checkpoint.Saved, position: int) -> None:
        path = os.path.join(self.log_directory(), source.hex())
        files, _, _ = self.open_files(self.log_file.path)
        calls = Recovery(CallLogFile(files, path, source).read(), saved.meta.position).calls
        reached = max([saved.meta.position, *(logged.position for logged in calls)])
        if not saved.meta.position <= position <= reached:
            raise exceptions.CheckpointError(
                f"the log of {source.hex()} leads from this checkpoint to the positions {saved.meta.position} to "
                f"{reached}, not to {position}"
            )
        self.ids = VoiceIds(self.ids, voice_of(source, saved.meta.epoch))
        self.is_replaying = True
        for logged in calls[: position - saved.meta.position]:
            self._replay(logged, Recovery((), -1))
        self.loop.run(self._drop_held)
        self.ids = VoiceIds(self.ids, self.voice)

    def _drop_held(self) -> None:
        self.is_replaying = False
        self.held.clear()

    # -- running the log again -----------------------------------------------------------------------------------------
    def _run_again(self, recovery: Recovery) -> None:
        """All calls of the log but the last, which may have been in the middle: it runs first of all, in full view."""
        assert self.log is not None
        log, calls = self.log, recovery.calls
        self._look_for_poison(recovery)
        last = calls.pop() if calls and not calls[-1].skipped else None
        self.is_replaying = bool(calls)
        for logged in calls:
            self._replay(logged, recovery)
        for caller, sequence, reply in recovery.answered:
            log.finish(caller, sequence, reply)
        for caller, sequence in recovery.settled.items():
            log.settled(caller, sequence)
        for caller in recovery.gone:
            log.callers.pop(caller, None)
        self.loop.run(lambda: self._release_held(None))
        if last is not None:
            log.position = last.position
            item = Item(NOBODY, _call_of(last), "")
            item.origin = Origin(last.caller, last.sequence, Run(last.position, last.inputs, False))
            log.caller(last.caller).waiting[last.sequence] = self._unfinished = item

    def _replay(self, logged: Logged, recovery: Recovery) -> None:
        """Run a call again as it ran, with what it learned then, and nobody looking."""
        assert self.log is not None
        log, caller, sequence = self.log, logged.caller, logged.sequence
        log.position = logged.position
        if logged.skipped:
            reply = self._crash_reply(logged.skipped, logged.arguments[2])
            log.finish(caller, sequence, reply)
            self.last_calls.append((logged.position, logged.target, caller, sequence, reply.status))
            return
        self.marker.note(caller, sequence, logged.position, self._crashes_of(caller, sequence))
        call = _call_of(logged)
        item = Item(NOBODY, call, "")
        run = Run(logged.position, logged.inputs, True)
        item.origin = Origin(caller, sequence, run)
        status, values = self.run_replayed(item)
        self.marker.clear()
        self.last_calls.append((logged.position, logged.target, caller, sequence, int(status)))
        if recovery.is_settled(caller, sequence):
            log.caller(caller).applied = max(sequence, log.caller(caller).applied)
        else:
            log.finish(caller, sequence, Reply(int(status), values, tuple(run.items or ())))

    def run_replayed(self, item: Item) -> tuple[int, tuple[Any, ...]]:
        """Run a call whose inputs are known and that nobody sees. Gives status and values."""
        context = self.context_for(item)
        token = CURRENT.set(context)
        try:
            return int(ResultStatus.OK), self.run_user_code(item, context, [])
        except exceptions.ReplayDivergedError:
            raise
        except BaseException as error:
            status, value = self.failure(item, error, context.name)
            return int(status), (value,) * max(1, item.call.num_returns)
        finally:
            CURRENT.reset(token)

    def take_unfinished(self) -> None:
        """The call that was in the middle when the last incarnation ended goes before all others."""
        if self.log is not None and self._unfinished is not None:
            self.mailbox.put(self._unfinished, first=True)
            self.loop.post(self._see_to_deadline, self._unfinished)
            self._unfinished = None

    def _see_to_deadline(self, item: Item) -> None:
        """Its caller may be gone, or have given it up: nobody else would end a call that never returns."""
        timeout_s = (item.call.extra or {}).get("timeout_s")
        if timeout_s is not None:
            self.loop.call_later(timeout_s + DEADLINE_GRACE_S, lambda: self._end_overdue(item))

    def _end_overdue(self, item: Item) -> None:
        if self.mailbox.running.get(item.call.task_id) is item:
            reason = f"killed, since {item.call.target} ran past its deadline when it was run again"
            self.node_link.send(messages.KillProcess(self.address.process_id, reason))

    # -- calls that end their worker -----------------------------------------------------------------------------------
    def _look_for_poison(self, recovery: Recovery) -> None:
        """A call that was running when the process ended may be to blame; after three times in a row it is."""
        assert self.log is not None
        mark: Mark | None = self.marker.read()
        if mark is None:
            return
        self.marker.clear()
        crashes = mark.crashes + 1
        self._suspect = ((mark.caller, mark.sequence), crashes)
        if crashes < limits.crashes_in_a_row_max:
            return
        text = f"it ended its worker {crashes} times in a row, so it is never run again"
        if mark.caller == NO_CALLER:
            raise exceptions.WorkerCrashedError(f"the constructor of {self.class_name}: {text}")
        found = [c for c in recovery.calls if (c.caller, c.sequence) == (mark.caller, mark.sequence)]
        for logged in found:
            logged.skipped = text
            self.log.skip(logged.position, text)
            self.say(f"{logged.target} at position {logged.position}: {text}")

    def _crashes_of(self, caller: bytes, sequence: int) -> int:
        suspect = self._suspect
        return suspect[1] if suspect is not None and suspect[0] == (caller, sequence) else 0

    def _crash_reply(self, text: str, num_returns: int) -> Reply:
        error = self.error_value("WorkerCrashedError", f"a call to the durable actor {self.class_name}: {text}")
        return Reply(int(ResultStatus.SYSTEM_ERROR), (error,) * max(1, num_returns), ())

    def write_log(self) -> bool:
        """Write what is to be in the log before anything leaves."""
        raise NotImplementedError

    # -- references in the state ---------------------------------------------------------------------------------------
    def adopt_ref(self, oid: ObjectId, owner: Address) -> Any:
        if self.voice and oid[:PROCESS_ID_BYTES] == self.voice:
            owner = self.address  # made here, in an earlier incarnation maybe
        return super().adopt_ref(oid, owner)

    def objects_of(self, refs: Any) -> tuple[Any, ...]:
        rows: list[Any] = []
        for oid in dict.fromkeys(oid for oid, _ in refs):
            entry = self.table.entries.get(oid)
            if oid[:PROCESS_ID_BYTES] != self.voice or entry is None:
                continue
            task = entry.task
            if task is not None and isinstance(task.options, ActorOptions):
                rows.append((oid, b"", "actor"))
            elif entry.value is not None:
                rows.append((oid, self.whole(oid, entry.value), None))
            elif isinstance(task, Task) and task.num_returns >= 0:
                rows.append((oid, None, self._as_data(task)))
        return tuple(rows)

    def _as_data(self, task: Task) -> bytes:
        """How to make a call that is under way once more."""
        where = task.where
        to = (where.actor_id, where.label, where.is_durable) if isinstance(where, ActorClient) else None
        args = self.whole(object_id(task.task_id, ARGUMENTS), task.args)
        plain = (task.task_id, task.target, args, task.options, task.num_returns, task.retries_left, task.label)
        return pickled((*plain, task.dependencies, task.extra, to))

    def _bring_back(self, objects: Any) -> None:
        """Entries for what the state refers to; calls that were under way are made once more, later."""
        tasks: dict[TaskId, Task] = {}
        for oid, value, how in objects:
            entry = self.table.entries[ObjectId(oid)] = Entry(None, 1)
            if how == "actor":
                entry.value = b""
                entry.needs_rare().on_free = lambda oid=oid: self.to_gcs(messages.ActorReleased(ActorId(oid[:16])))
            elif how is None:
                entry.value = value
            else:
                entry.task = self._task_from(how, tasks)

    def _task_from(self, data: bytes, tasks: dict[TaskId, Task]) -> Task:
        *plain, dependencies, extra, to = serialization.deserialize(data)
        task = Task(*plain)
        if task.task_id in tasks:
            return tasks[task.task_id]
        task.dependencies, task.extra = dependencies, extra
        tasks[task.task_id] = task

        def submit(_: Any) -> None:
            if to is None:
                self.submitter.submit(task)
            else:
                client = self.actors.client(ActorId(to[0]), to[1])
                client.is_durable = to[2]
                self.actors.submit(client, task)

        self.held[task.task_id] = (submit, task, task)
        return task

    def _let_go_of_brought(self, oids: list[ObjectId]) -> None:
        for oid in oids:
            self.table.release(oid)


def _call_of(logged: Logged) -> Call:
    """A call as it came, from its record."""
    args, dependencies, num_returns, extra = logged.arguments
    return Call(TaskId(bytes(16)), logged.target, args, dependencies, num_returns, 0, extra)
