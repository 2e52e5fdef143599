"""Work that leaves a node which drains. An actor's state is saved between two calls, and the worker ends.

What waits here goes on at the next incarnation: callers of a durable actor send again by themselves when they hear of
it; to those of any other actor, and of tasks, each call that has not started is given back.
"""

from __future__ import annotations

from actorlib import exceptions
from actorlib.runtime.drivers.durability import Durability
from actorlib.transport import limits, messages
from actorlib.transport.drivers.notice import notice
from actorlib.transport.link import Link


class Leaving(Durability):
    """The part of a worker that leaves. ``Worker`` derives from this."""

    leaving: str | None = None

    def _on_leave_node(self, _: Link, message: messages.LeaveNode) -> None:
        with self.mailbox_lock:
            self.mailbox.is_leaving = True
        if self.spec is None:
            self._give_back_tasks()
        else:
            self.leaving = message.reason

    def may_leave_now(self) -> bool:
        """Whether it is to go, and no call runs."""
        return self.leaving is not None and not self.mailbox.running

    def leave_node(self) -> None:
        """On the main thread, between two calls. Does not return, unless the state can't be saved."""
        assert self.leaving is not None and self.spec is not None
        reason = self.leaving
        if self.log is not None:
            try:
                self.save(wait=True, is_last=True, with_calls=True)
            except Exception as error:
                self._stay(error)
                return
        self.stopping = reason
        self.run_shutdown_hook()

        if self.log is None:
            self._say_all(reason)
        is_apart = self.log is not None and self._is_apart and not self.checkpoint_options.get("store")
        try:  # it must know before this process ends, or it takes that for a crash
            self.ask(self.node, lambda rid: messages.WorkerMoves(rid, reason, is_apart), limits.last_word_s)
        except exceptions.GetTimeoutError:
            notice(f"{self.class_name}: its node did not hear that it leaves; it ends all the same")
        self._flush()
        if self.log is not None:
            self.sync_store()
            self.log_file.forget()  # the checkpoint has all of it
        self.end_process(0)

    def _say_all(self, reason: str) -> None:
        """Until results and refusals are with the callers: what they then still wait for was never begun here."""
        said: list[bool] = []

        def say(_: None) -> None:
            self._send_finished(None)
            self._give_back_all(reason)
            said.append(True)

        self.loop.post(say, None)
        self.loop.drive(lambda: bool(said) and self.loop.has_all_arrived(), None)

    def _stay(self, error: Exception) -> None:
        """It is told once more before the deadline, and then its log is what is left of it."""
        why = str(error) if isinstance(error, exceptions.ActorlibError) else repr(error)
        self.say(f"{self.leaving}, but its state can't be saved, so it stays for now: {why}")
        self.leaving = None
        with self.mailbox_lock:
            self.mailbox.is_leaving = False

    def _give_back_tasks(self) -> None:
        with self.mailbox_lock:
            returned = self.mailbox.give_back(1 << 30)
        for link, ids in returned.items():
            link.send(messages.CallsReturned(tuple(ids), True))

    def _give_back_all(self, reason: str) -> None:
        assert self.spec is not None
        with self.mailbox_lock:
            taken = self.mailbox.take_all()
        for link, ids in taken.items():
            link.send(messages.ActorCallsRefused(self.spec.actor_id, tuple(ids), reason))

    def run_shutdown_hook(self) -> None:
        raise NotImplementedError

    def _flush(self) -> None:
        raise NotImplementedError
