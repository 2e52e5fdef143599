"""The life of a durable actor in its worker: calls that arrive, run, are logged and answered; and its coming back.

``call_log.py`` has the theory. Here the log is written in the loop, just before the first message leaves that anything
in it could have caused (``LinkLayer.before_flush``): one write for each outgoing batch.

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
from actorlib.runtime.call_log import CallLog, Known, Logged, Recovery, Reply
from actorlib.runtime.call_log_format import FORMAT_VERSION, HEAD
from actorlib.runtime.drivers import actor_state
from actorlib.runtime.drivers.call_log_file import CallLogFile, FileMarker, Files, Mark, Marker, RealFiles, boot_id
from actorlib.runtime.drivers.calls import CURRENT, CallContext
from actorlib.runtime.drivers.checkpointing import pickled
from actorlib.runtime.drivers.recorded_inputs import INDEX_BITS, RecordedInputs, Run, VoiceIds, no_longer_kept, size_of
from actorlib.runtime.mailbox import Item, Mailbox
from actorlib.runtime.task import Task
from actorlib.store.owner import Entry
from actorlib.transport import limits, messages
from actorlib.transport.codec import InPlace
from actorlib.transport.ids import PROCESS_ID_BYTES, ActorId, ObjectId, TaskId, object_id
from actorlib.transport.link import NOWHERE, Address, Link
from actorlib.transport.messages import VALUE_PARTS, VALUE_REFS, ActorSpec, Call, CallResult, ResultStatus, Value

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


class Durability(RecordedInputs):
    """See the module's docstring. Everything here does nothing in a worker whose actor is not durable."""

    mailbox: Mailbox
    mailbox_lock: Any
    stopping: str | None
    config: dict[str, Any]
    voice = b""

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
        self._come_back(item, spec, cls, boot)

    def choose_level(self) -> str:
        """What the log is to outlive: as asked for, else what the deployment can outlive."""
        wanted = str(self.checkpoint_options.get("durability", "auto"))
        if wanted == "replicated":
            raise exceptions.CheckpointError("durability='replicated' is not supported yet; take 'disk' or 'worker'")
        if wanted != "auto":
            return wanted
        return "disk" if self.config.get("durable") else "worker"

    def _come_back(self, item: Item, spec: ActorSpec, cls: Any, boot: str) -> None:
        """From the newest checkpoint that can be used, or the constructor; then the log from there."""
        records = self.log_file.read()
        failed: Exception | None = None
        for number, saved in self.checkpoints_of(spec.actor_id):
            recovery = self._begin_epoch(Recovery(records, saved.meta.position), saved.meta.epoch, boot)
            try:
                self._load_checkpoint(cls, saved)
            except Exception as error:
                failed = error
                self.say(
                    f"checkpoint {number} can't be used ({type(error).__name__}: {error}); the one before is tried"
                )
                continue
            self._number = number
            self._run_again(recovery)
            return
        if failed is not None:
            raise exceptions.CheckpointError(
                f"no checkpoint of {self.class_name} can be used; the last one tried gave {type(failed).__name__}: "
                f"{failed}. Mend __restore__, or start a copy with actorlib.restore(Class, checkpoint_id)"
            ) from failed
        recovery = self._begin_epoch(Recovery(records, -1), 0, boot)
        self._run_constructor(item, spec, recovery)
        self._run_again(recovery)

    def _begin_epoch(self, recovery: Recovery, epoch: int, boot: str) -> Recovery:
        """Which time of its life this is, and whether something of an earlier one is forgotten."""
        assert self.spec is not None
        head = recovery.head
        epoch = max(head[3], epoch) if head is not None else epoch
        lost = self._what_is_lost(recovery, boot)
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
        return recovery

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
            log.waiting[last.caller, last.sequence] = self._unfinished = item

    def _replay(self, logged: Logged, recovery: Recovery) -> None:
        """Run a call again as it ran, with what it learned then, and nobody looking."""
        assert self.log is not None
        log, caller, sequence = self.log, logged.caller, logged.sequence
        log.position = logged.position
        if logged.skipped:
            log.finish(caller, sequence, self._crash_reply(logged.skipped, logged.arguments[2]))
            return
        self.marker.note(caller, sequence, logged.position, self._crashes_of(caller, sequence))
        call = _call_of(logged)
        item = Item(NOBODY, call, "")
        run = Run(logged.position, logged.inputs, True)
        item.origin = Origin(caller, sequence, run)
        context = self.context_for(item)
        token = CURRENT.set(context)
        try:
            status: int = ResultStatus.OK
            values = self.run_user_code(item, context, [])
        except exceptions.ReplayDivergedError:
            raise
        except BaseException as error:
            status, value = self.failure(item, error, context.name)
            values = (value,) * max(1, call.num_returns)
        finally:
            CURRENT.reset(token)
        self.marker.clear()
        if recovery.is_settled(caller, sequence):
            log.caller(caller).applied = max(sequence, log.caller(caller).applied)
        else:
            log.finish(caller, sequence, Reply(int(status), values, tuple(run.items)))

    def take_unfinished(self) -> None:
        """The call that was in the middle when the last incarnation ended goes before all others."""
        if self.log is not None and self._unfinished is not None:
            self.mailbox.put(self._unfinished, first=True)
            self._unfinished = None

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

    # -- calls that arrive ---------------------------------------------------------------------------------------------
    def take_calls(self, link: Link, message: messages.RunActorCalls) -> None:
        """Calls to the durable actor that lives here."""
        assert self.log is not None
        process_id = link.peer.process_id
        if process_id not in self.log.callers:
            self.watch(link.peer)
        self.log.settled(process_id, message.replies_seen)
        with self.mailbox_lock:
            for call in message.calls:
                self._take_call(link, process_id, call)

    def _take_call(self, link: Link, process_id: bytes, call: Call) -> None:
        log, extra = self.log, call.extra
        assert log is not None
        caller, sequence = process_id, call.sequence
        if extra is not None and "voice" in extra:
            caller = call.task_id[:PROCESS_ID_BYTES]
            sequence = int.from_bytes(call.task_id[PROCESS_ID_BYTES:], "big")
        is_readonly = extra is not None and "readonly" in extra
        known = Known.NEW if is_readonly else log.known(caller, sequence)
        if known is Known.NEW:
            found = log.callers.get(caller)
            if found is not None and found.is_behind:
                found.is_behind = False
                self._tell_rolled_back(link, caller, -1 if is_readonly else sequence, call)
                return
            item = Item(link, call, "")
            if not is_readonly:
                item.origin = Origin(caller, sequence)
                log.waiting[caller, sequence] = item
            self.mailbox.put(item)
        elif known is Known.WAITS:
            item = log.waiting[caller, sequence]
            self.mailbox.replaced(item, link, item.call._replace(task_id=call.task_id))
            if item.origin.run is not None:
                self._send_items(link, call.task_id, item.origin.run.items)
        elif known is Known.ANSWERED:
            self._send_reply(link, call.task_id, log.reply_to(caller, sequence))
        else:
            link.send(messages.CallResults((no_longer_kept(call.task_id),)))

    def _tell_rolled_back(self, link: Link, caller: bytes, sequence: int, call: Call) -> None:
        text = (
            f"the durable actor {self.class_name} came back in a state from before calls whose results you have seen: "
            f"more was lost than durability={self.level!r} covers. This call was not run; look at the actor's state "
            "before you go on"
        )
        error = self.error_value("StateRolledBackError", text)
        reply = Reply(int(ResultStatus.SYSTEM_ERROR), (error,) * max(1, call.num_returns), ())
        if sequence >= 0 and self.log is not None:
            self.log.answer(caller, sequence, reply)
        self._send_reply(link, call.task_id, reply)

    def _send_reply(self, link: Link, task_id: TaskId, reply: Reply) -> None:
        """An answer that was kept, to a call that has come again."""
        self._send_items(link, task_id, reply.items)
        values = tuple(map(_as_frames, reply.values))
        result = CallResult(task_id, reply.status, values, (), 0)
        references = [tuple(ref) for value in values if _has_refs(value) for ref in value[2]]
        receiver = tuple((oid, Address(*owner)) for oid, owner in references)
        for oid, owner in receiver:
            self.table.adopt(oid, owner)

        def registered() -> None:
            for oid, _ in receiver:
                self.table.release(oid)
            link.send(messages.CallResults((result,)))

        self.table.register_receiver(receiver, link.peer, registered)

    @staticmethod
    def _send_items(link: Link, task_id: TaskId, items: Any) -> None:
        for index, value in enumerate(items):
            link.send(messages.GeneratorItem(task_id, index, _as_frames(value)))

    def _on_settled(self, _: Link, message: messages.CallsSettled) -> None:
        if self.log is not None:
            self.log.settled(message.caller, message.sequence)

    def _on_seen(self, _: Link, message: messages.CallerSeen) -> None:
        if self.log is not None:
            self.log.seen(message.caller, message.sequence)

    def _on_process_died(self, link: Link, message: messages.ProcessDied) -> None:
        super()._on_process_died(link, message)
        if self.log is not None:
            self.log.gone(message.process_id)

    def cancel_queued(self, link: Link, message: messages.CancelCall) -> bool:
        """A durable actor's call is dropped while it waits; one that runs goes on to its end. False: it is not here."""
        assert self.log is not None
        with self.mailbox_lock:
            item = self.mailbox.cancel(message.task_id)
            is_running = message.task_id in self.mailbox.running
            if item is not None and item.origin is not None:
                self.log.waiting.pop((item.origin.caller, item.origin.sequence), None)
        if item is not None:
            value = self.error_value("TaskCancelledError", "the call was cancelled before it started")
            values = (value,) * max(1, item.call.num_returns)
            result = CallResult(message.task_id, ResultStatus.CANCELLED, values, (), 0)
            link.send(messages.CallResults((result,)))
        return item is not None or is_running

    # -- calls that run ------------------------------------------------------------------------------------------------
    def run_call(self, item: Item) -> None:
        origin = item.origin
        if origin is not None:
            if origin.run is None:
                self._begin(item, origin)
            crashes = 0 if self._suspect is None else self._crashes_of(origin.caller, origin.sequence)
            if crashes:  # if it does so again, the log tells where it stood among the others
                self.loop.run(self.write_log)
            self.marker.note(origin.caller, origin.sequence, origin.run.position, crashes)
        super().run_call(item)

    def _begin(self, item: Item, origin: Origin) -> None:
        assert self.log is not None
        call = item.call
        if type(call.args) is not bytes or call.dependencies:
            call = self._with_whole_arguments(item)
        arguments = (call.args, call.dependencies, call.num_returns, call.extra)
        position = self.log.begin(origin.caller, origin.sequence, call.target, arguments, size_of(call.args))
        origin.run = Run(position, None, False)

    def _with_whole_arguments(self, item: Item) -> Call:
        """The call with all that it is given as bytes, since their owner may be gone when it is run again."""
        call = item.call
        args = call.args
        if type(args) is tuple:
            args = self.whole(object_id(call.task_id, 0xFFFFFFFF), args)
        dependencies = []
        for oid, owner, value in call.dependencies:
            known = self._recent.get(oid) if value is None else value
            if known is None:
                ref = self.adopt_ref(oid, Address(*owner))
                self._await([ref], 1, None)
                known = self.table.entries[oid].value
            dependencies.append((oid, owner, self.whole(oid, known[1] if _has_refs(known) else known)))
        item.call = item.call._replace(args=args, dependencies=tuple(dependencies))
        return item.call

    def context_for(self, item: Item) -> CallContext:
        context = super().context_for(item)
        if item.origin is not None:
            context.run = item.origin.run
        return context

    def finish(
        self, item: Item, context: CallContext, status: int, values: Any, references: Any, took_s: float
    ) -> None:
        if context.run is not None:
            status, values = self._note_finished(item, context.run, int(status), values)
        super().finish(item, context, status, values, references, took_s)

    def _note_finished(self, item: Item, run: Run, status: int, values: Any) -> tuple[int, Any]:
        log, origin = self.log, item.origin
        assert log is not None
        kept = values
        if len(values) != 1 or type(values[0]) is not bytes:
            kept = tuple(self.whole(object_id(item.call.task_id, i), value) for i, value in enumerate(values))
        with self.mailbox_lock:
            log.finish(origin.caller, origin.sequence, Reply(status, kept, tuple(run.items)))
            log.waiting.pop((origin.caller, origin.sequence), None)
        self.marker.clear()
        self._calls_since += 1
        if self._wanted_now:
            self._wanted_now = False
            try:
                self.save(wait=True)
            except exceptions.ActorlibError as error:
                status, values = int(ResultStatus.EXCEPTION), (self.exception_value(error),) * max(1, len(values))
        else:
            self.save_if_due()
        self.mailbox.is_held = log.is_full()
        return status, values

    def checkpoint_kept(self, position: int, covered: int) -> None:
        if covered >= 0:
            self.loop.post(self.log_file.cut, covered)
        self.mailbox.is_held = False
        self.loop.post(self._tell_settled_voice, position)

    def _tell_settled_voice(self, position: int) -> None:
        """What was called up to a checkpoint is never called again, so its replies need not be kept by the callees."""
        upto = (position + 1) << INDEX_BITS
        for client in self.actors.clients.values():
            if client.is_durable and client.link is not None and self.voice in client.seen:
                spoken = [t for t in (*client.in_flight.values(), *client.queue) if t.task_id[:8] == self.voice]
                first = min((int.from_bytes(t.task_id[8:], "big") for t in spoken), default=upto)
                client.link.send(messages.CallsSettled(client.actor_id, self.voice, min(first, upto) - 1))

    # -- generators ----------------------------------------------------------------------------------------------------
    def item_made(self, item: Item, value: Value) -> None:
        if item.origin is not None:
            run: Run = item.origin.run
            run.items.append(self.whole(object_id(item.call.task_id, len(run.items) + 1), value))

    def _send_item(self, item: Item, message: messages.GeneratorItem, references: list[Any]) -> None:
        if item.link is not NOBODY:
            super()._send_item(item, message, references)

    def _may_go_on(self, item: Item, produced: int) -> bool:
        if item.origin is None:
            return super()._may_go_on(item, produced)
        run: Run = item.origin.run
        if run.inputs and run.inputs[0][0] == "stopped" and run.inputs[0][1] == produced:
            run.inputs.popleft()
            return False
        if run.inputs or run.is_replay:
            return True
        goes_on = super()._may_go_on(item, produced)
        if not goes_on:
            self._learn("stopped", produced, None, 0)
        return goes_on

    def _send_with_references(self, done: Any) -> None:
        if done.item.link is not NOBODY:
            super()._send_with_references(done)

    # -- the log on its way to the disk --------------------------------------------------------------------------------
    def write_log(self) -> bool:
        """Called by the loop before anything leaves. False: it can't be written now, so nothing may leave."""
        assert self.log is not None
        if self._write_again_at > self.loop.now():
            return False
        records = self.log.take()
        if not records:
            return True
        try:
            self.log_file.append(records)
        except OSError as error:
            self.log.put_back(records)
            if not self._write_again_at:
                self.say(f"its call log can't be written ({error}); it answers nobody until there is room")
            self._write_again_at = self.loop.now() + limits.log_retry_s
            self.loop.call_later(limits.log_retry_s, _nothing)
            return False
        self._write_again_at = 0.0
        return True

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
        args = self.whole(object_id(task.task_id, 0xFFFFFFFF), task.args)
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

    def check(self) -> None:
        super().check()
        if self.log is not None:
            self.log.check()


def _call_of(logged: Logged) -> Call:
    """A call as it came, from its record."""
    args, dependencies, num_returns, extra = logged.arguments
    return Call(TaskId(bytes(16)), logged.target, args, dependencies, num_returns, 0, extra)


def _has_refs(value: Value) -> bool:
    return type(value) is tuple and value[0] == VALUE_REFS


def _as_frames(value: Value) -> Value:
    """A value that was kept, for a message: its large parts as frames of their own."""
    if type(value) is bytes and len(value) >= limits.own_frame_bytes_min:
        return InPlace(value)
    if type(value) is tuple and value[0] == VALUE_PARTS:
        return (VALUE_PARTS, value[1], tuple(InPlace(buffer) for buffer in value[2]))
    return value


def _nothing() -> None:
    """A timer that only wakes the loop, which then tries again to send."""


__all__ = ["NOBODY", "Durability", "Origin", "voice_of"]
