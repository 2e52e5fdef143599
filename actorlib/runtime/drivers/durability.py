"""The life of a durable actor in its worker: calls that arrive, run, are logged and answered; and its coming back.

``call_log.py`` has the theory. Here the log is written in the loop, just before the first message leaves that anything
in it could have caused (``LinkLayer.before_flush``): one write for each outgoing batch.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable
from typing import Any

from actorlib import exceptions
from actorlib.runtime.call_log import Known, Reply
from actorlib.runtime.drivers import actor_state, divergence
from actorlib.runtime.drivers.calls import CallContext
from actorlib.runtime.drivers.coming_back import NOBODY, ComingBack, Origin
from actorlib.runtime.drivers.durable_view import LOG_METHOD, UPGRADE_METHOD
from actorlib.runtime.drivers.execution import result_id
from actorlib.runtime.drivers.recorded_inputs import INDEX_BITS, Run, no_longer_kept, size_of
from actorlib.runtime.mailbox import Item
from actorlib.transport import limits, messages
from actorlib.transport.codec import InPlace
from actorlib.transport.ids import ARGUMENTS, PROCESS_ID_BYTES, TaskId, object_id
from actorlib.transport.link import Address, Link
from actorlib.transport.messages import VALUE_PARTS, VALUE_REFS, Call, CallResult, ResultStatus, Value


class Durability(ComingBack):
    """See the module's docstring. Everything here does nothing in a worker whose actor is not durable."""

    _shadow: Any = None

    # -- calls that arrive ---------------------------------------------------------------------------------------------
    def take_calls(self, link: Link, message: messages.RunActorCalls) -> None:
        """Calls to the durable actor that lives here."""
        assert self.log is not None
        process_id = link.peer.process_id
        if process_id not in self.log.callers:
            self.watch(link.peer)
        with self.mailbox_lock:
            self.log.settled(process_id, message.replies_seen)
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
                (found or log.caller(caller)).waiting[sequence] = item
            self.mailbox.put(item)
        elif known is Known.WAITS:
            item = log.callers[caller].waiting[sequence]
            self.mailbox.replaced(item, link, item.call._replace(task_id=call.task_id))
            if item.origin.run is not None:
                self._send_items(link, call.task_id, item.origin.run.items or ())
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
            with self.mailbox_lock:
                self.log.settled(message.caller, message.sequence)

    def _on_seen(self, _: Link, message: messages.CallerSeen) -> None:
        if self.log is not None:
            with self.mailbox_lock:
                self.log.seen(message.caller, message.sequence)

    def _on_process_died(self, link: Link, message: messages.ProcessDied) -> None:
        super()._on_process_died(link, message)
        if self.log is not None:
            with self.mailbox_lock:
                self.log.gone(message.process_id)
        if self.replica is not None:
            self.replica.node_gone(message.process_id)

    def cancel_queued(self, link: Link, message: messages.CancelCall) -> bool:
        """A durable actor's call is dropped while it waits; one that runs goes on to its end. False: it is not here."""
        assert self.log is not None
        with self.mailbox_lock:
            item = self.mailbox.cancel(message.task_id)
            is_running = message.task_id in self.mailbox.running
            if item is not None and item.origin is not None:
                self.log.caller(item.origin.caller).waiting.pop(item.origin.sequence, None)
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
            args = self.whole(object_id(call.task_id, ARGUMENTS), args)
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
        elif self.looks_for_divergence and self._shadow is not None:
            found = divergence.difference(divergence.state_of(self.instance), divergence.state_of(self._shadow))
            if found:
                self._shadow = divergence.make_shadow(self.instance)
                status, values = self._diverged(item, "it is readonly, but it changed the state", found)
        super().finish(item, context, status, values, references, took_s)

    def _note_finished(self, item: Item, run: Run, status: int, values: Any) -> tuple[int, Any]:
        log, origin = self.log, item.origin
        assert log is not None
        if self.looks_for_divergence:
            status, values = self._look_for_divergence(item, run, status, values)
        kept = values
        if len(values) != 1 or type(values[0]) is not bytes:
            kept = tuple(self.whole(result_id(item.call, i), value) for i, value in enumerate(values))
        with self.mailbox_lock:
            log.finish(origin.caller, origin.sequence, Reply(status, kept, tuple(run.items or ())))
        self.marker.clear()
        self.last_calls.append((run.position, item.call.target, origin.caller, origin.sequence, status))
        self._calls_since += 1
        if self._wanted_now:
            self._wanted_now = False
            try:
                self.save(wait=True)
            except exceptions.ActorlibError as error:
                status, values = int(ResultStatus.EXCEPTION), (self.exception_value(error),) * max(1, len(values))
        elif self._calls_since >= self._look_at or log.bytes_since_checkpoint >= self._bytes_look_at:
            self.save_if_due()
            self.mailbox.is_held = log.is_full()
        return status, values

    def checkpoint_kept(self, position: int, covered: int) -> None:
        if covered >= 0:
            self.loop.post(self._cut, covered)
        self.mailbox.is_held = False
        self.loop.post(self._tell_settled_voice, position)

    def _cut(self, covered: int) -> None:
        self.log_file.cut(covered)
        if self.replica is not None:
            self.replica.cut()

    def wait_for_copies(self) -> None:
        """Before the process ends: what it has to say depends on what another node is about to acknowledge."""
        replica = self.replica
        if replica is not None:
            self.loop.drive(replica.gate.is_open, limits.log_fetch_timeout_s)

    def _on_log_appended(self, link: Link, message: messages.LogAppended) -> None:
        if self.replica is not None:
            self.replica.on_appended(link, message)

    def _on_log_not_kept(self, link: Link, message: messages.LogNotKept) -> None:
        if self.replica is not None:
            self.replica.on_not_kept(link, message)

    def _on_log_refused(self, _: Link, message: messages.LogRefused) -> None:
        """Somebody has taken us for dead, and our next incarnation lives: nothing of ours may be seen any more."""
        if message.incarnation == self.incarnation:
            self.stopping = "a newer incarnation of the actor has taken over"

    def _tell_settled_voice(self, position: int) -> None:
        """What was called up to a checkpoint is never called again, so its replies need not be kept by the callees."""
        upto = (position + 1) << INDEX_BITS
        for client in self.actors.clients.values():
            if client.is_durable and client.link is not None and self.voice in client.seen:
                spoken = [t for t in (*client.in_flight.values(), *client.queue) if t.task_id[:8] == self.voice]
                first = min((int.from_bytes(t.task_id[8:], "big") for t in spoken), default=upto)
                client.link.send(messages.CallsSettled(client.actor_id, self.voice, min(first, upto) - 1))

    # -- divergence ----------------------------------------------------------------------------------------------------
    def start_looking(self) -> None:
        """From now on each call is run twice; see ``divergence.py``."""
        if self.log is not None and self.wants_divergence_found():
            self._shadow = self._new_shadow()
            self.looks_for_divergence = True

    def wants_divergence_found(self) -> bool:
        return os.environ.get("ACTORLIB_DEBUG") == "1"

    def _new_shadow(self) -> Any:
        try:
            return divergence.make_shadow(self.instance)
        except Exception as error:
            self.say(f"whether it diverges can't be seen, since its state can't be copied: {error}")
            return None

    def _look_for_divergence(self, item: Item, run: Run, status: int, values: Any) -> tuple[int, Any]:
        if self._shadow is None or run.index or run.items:
            self._shadow = self._new_shadow()
            return status, values
        again = Item(NOBODY, item.call._replace(task_id=TaskId(bytes(16))), "")
        again.origin = Origin(item.origin.caller, item.origin.sequence, Run(run.position, deque(run.learned), True))
        living, self.instance = self.instance, self._shadow
        try:
            outcome, given = self.run_replayed(again)
        except exceptions.ReplayDivergedError as error:
            return self._diverged(item, str(error), "")
        finally:
            self.instance = living
        found = divergence.of_replies(status, values, outcome, given)
        found = found or divergence.difference(divergence.state_of(living), divergence.state_of(self._shadow))
        if not found:
            return status, values
        self._shadow = self._new_shadow()
        return self._diverged(item, "run a second time from the same state, it does not do the same", found)

    def _diverged(self, item: Item, what: str, found: str) -> tuple[int, Any]:
        position = "" if item.origin is None else f" (position {item.origin.run.position})"
        error = exceptions.ReplayDivergedError(
            f"{self.class_name}.{item.call.target}{position}: {what}{': ' if found else ''}{found}. What it takes from "
            "outside (time, randomness, the order of a set of strings, module globals) must come through "
            "actorlib.record(fn), or a crash brings back another state"
        )
        return int(ResultStatus.EXCEPTION), (self.exception_value(error),) * max(1, item.call.num_returns)

    # -- what is asked from outside ------------------------------------------------------------------------------------
    def method_of(self, name: str) -> Callable[..., Any]:
        if name == LOG_METHOD:
            return self._last_calls
        if name == UPGRADE_METHOD:
            return self._upgrade
        return super().method_of(name)

    def _last_calls(self, limit: int) -> list[dict[str, Any]]:
        rows = []
        for position, target, caller, sequence, status in itertools.islice(reversed(self.last_calls), limit):
            outcome = ResultStatus(status).name
            rows.append(
                {
                    "position": position,
                    "method": target,
                    "caller": caller.hex(),
                    "sequence": sequence,
                    "outcome": outcome,
                }
            )
        return rows

    def _upgrade(self, class_id: bytes, class_name: str, methods: Any) -> None:
        """Take a checkpoint that the next incarnation begins with, as an instance of another class."""
        assert self.spec is not None
        cls: Any = self.function_of(class_id)
        saved = self.take_snapshot()
        actor_state.restore(cls, saved.state, tuple(bytes(buffer) for buffer in saved.buffers))
        self.save(wait=True, with_calls=True)
        actor_id, incarnation, wire = self.spec.actor_id, self.incarnation, _as_tuples(methods)
        self.ask(
            self.gcs,
            lambda rid: messages.ActorUpgrade(rid, actor_id, incarnation, class_id, class_name, wire),
        )
        self.stopping = f"it goes on as a {class_name}"

    # -- generators ----------------------------------------------------------------------------------------------------
    def item_made(self, item: Item, value: Value) -> None:
        if item.origin is not None:
            run: Run = item.origin.run
            if run.items is None:
                run.items = []
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
        if self.replica is not None:
            self.replica.send(records)
        return True

    def check(self) -> None:
        super().check()
        if self.log is not None:
            self.log.check()


def _has_refs(value: Value) -> bool:
    return type(value) is tuple and value[0] == VALUE_REFS


def _as_frames(value: Value) -> Value:
    """A value that was kept, for a message: its large parts as frames of their own."""
    if type(value) is bytes and len(value) >= limits.own_frame_bytes_min:
        return InPlace(value)
    if type(value) is tuple and value[0] == VALUE_PARTS:
        return (VALUE_PARTS, value[1], tuple(InPlace(buffer) for buffer in value[2]))
    return value


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _nothing() -> None:
    """A timer that only wakes the loop, which then tries again to send."""
