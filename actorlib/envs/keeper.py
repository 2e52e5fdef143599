"""Keeps one host going, as its caller sees it: sends operations, notices failures, brings the environments back.

What is needed to bring them back lies here, in the caller: the last checkpoint that the host sent, and the operations
since. So it makes no difference how much of the host's machine is gone.

A failure is a death, a silence longer than ``step_timeout_s`` (then the host is killed), or an exception in a step.

* ``restore``: the next incarnation of the host, wherever it starts, loads the checkpoint, repeats the operations since,
  and then does what was under way. What fails again is not tried for ever: after a few attempts the environments are
  taken back to where they were before it, and the error is raised.
* ``truncate``: new environments take the place of the lost ones and report that their episodes were truncated.
* ``raise``: the error is raised; the next ``reset`` builds the environments anew.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import actorlib
from actorlib import engine, exceptions
from actorlib.envs.channel import (
    CallChannel,
    Channel,
    HostGone,
    HostRestarting,
    HostSilent,
    Invitation,
    SocketChannel,
    reply_of,
)
from actorlib.envs.errors import EnvironmentCreationError, EnvironmentHostDiedError
from actorlib.envs.frames import Kind, Operation, Reply
from actorlib.envs.host import EnvironmentHost

RESTORE, TRUNCATE, RAISE = "restore", "truncate", "raise"
ATTEMPTS_AFTER_DEATH_MAX = 3
ATTEMPTS_AFTER_ERROR_MAX = 1
CLOSE_TIMEOUT_S = 10.0
RESTART_TIMEOUT_S, RESTART_LOOK_S = 60.0, 0.02


class Memory:
    """The block that the caller shares with its hosts: what an ATTACH says, and the descriptor."""

    def __init__(self, argument: tuple[Any, ...], descriptor: int) -> None:
        self.argument = argument
        self.descriptor = descriptor


class Keeper:
    """See the module's docstring. Environments ``begin`` to ``end - 1`` are on this host."""

    def __init__(
        self,
        env_fns: Sequence[Callable[[], Any]],
        begin: int,
        mode: str,
        on_failure: str,
        step_timeout_s: float | None,
        host_options: dict[str, Any],
    ) -> None:
        self.begin, self.end = begin, begin + len(env_fns)
        self.count = len(env_fns)
        self.on_failure = on_failure
        self.step_timeout_s = step_timeout_s
        self.memory: Memory | None = None
        self.pid = 0
        self.deaths = 0
        self.channel: Channel | None = None
        self.last_observed: Callable[[], list[Any]] = list  # set by the vector environment
        self._host_class = actorlib.remote(EnvironmentHost).options(**{"max_restarts": -1, **host_options})
        self._arguments = (list(env_fns), begin, mode, on_failure == RESTORE, on_failure == TRUNCATE)
        self._handle: Any = None
        self._invitation: Invitation | None = None
        self._checkpoint: bytes | None = None
        self._since: deque[Operation] = deque()
        self._number = 0
        self._pending: Operation | None = None
        self._was_reset = False
        self._owes = ""  # a failure outside of a step, to be reported by the next one
        self._seeds: list[int | None] = [None] * self.count
        self.broken = ""

    # -- the beginning -------------------------------------------------------------------------------------------------
    def invite(self) -> None:
        """Start the host; several start side by side."""
        current = engine.current()
        if current.name == "inline":
            raise exceptions.NotSupportedByEngineError(
                current.name, "environment hosts, which are processes", "make_vec(..., num_hosts=0) needs none"
            )
        self._handle = self._host_class.remote(*self._arguments)
        self._invitation = Invitation(self._handle)

    def begin_building(self) -> None:
        assert self._invitation is not None
        try:
            self.channel = self._invitation.accept()
            self._invitation = None
            self.channel.send(Operation(Kind.BUILD, 0, 0, True))
        except HostGone as gone:
            raise self._not_built(str(gone)) from None

    def built(self) -> Any:
        """What the host says of its environments."""
        try:
            reply = self._receive(None)
        except exceptions.TaskError as error:
            raise self._not_built(str(error)) from error
        except (HostGone, HostSilent) as gone:
            raise self._not_built(str(gone)) from None
        self.pid = reply.result.pid
        return reply.result

    def _not_built(self, why: str) -> EnvironmentCreationError:
        return EnvironmentCreationError(
            f"environments {self.begin} to {self.end - 1} can't be constructed in their host: {why}\n"
            "Construct one where the host runs to see what it lacks: files, packages (runtime_env=), a display"
        )

    def share(self, memory: Memory) -> None:
        self.memory = memory
        self._attach()

    def _attach(self) -> None:
        if self.memory is not None and isinstance(self.channel, SocketChannel):
            self.channel.send(Operation(Kind.ATTACH, 0, 0, self.memory.argument))
            self.channel.send_descriptor(self.memory.descriptor)
            self._receive(None)

    @property
    def shares_memory(self) -> bool:
        return self.channel is not None and self.channel.shares_memory

    # -- operations ----------------------------------------------------------------------------------------------------
    def send(self, kind: Kind, slot: int, argument: Any, repeatable: Any = None) -> None:
        """Begin an operation. ``repeatable`` is its argument for a host that has to do it again later."""
        self._number += 1
        number = self._number
        self._pending = Operation(kind, number, slot, argument if repeatable is None else repeatable)
        if kind == Kind.RESET:
            self._note_reset(argument)
        if self.broken:
            if kind != Kind.RESET or argument[2] is not None:
                return  # finish() says why
            self._revive()
        if self._owes and kind in (Kind.STEP, Kind.STEP_WITH):
            return  # finish() truncates
        if self._owes and kind == Kind.RESET and argument[2] is None:
            self._owes = ""
        assert self.channel is not None
        try:
            self.channel.send(Operation(kind, number, slot, argument))
        except HostGone:
            return  # finish() finds out, too, and can do something about it

    def _note_reset(self, argument: Any) -> None:
        for index, seed in enumerate(argument[0]):
            if seed is not None and (argument[2] is None or argument[2][index]):
                self._seeds[index] = seed

    def finish(self, timeout_s: float | None = None) -> Reply:
        """The reply to what was begun. Raises TimeoutError if the *caller's* patience ends; then it may ask again."""
        operation = self._pending
        assert operation is not None
        if self.broken:
            self._pending = None
            raise EnvironmentHostDiedError(self.broken)
        if self._owes and operation.kind in (Kind.STEP, Kind.STEP_WITH):
            reason, self._owes = self._owes, ""
            return self._done(self._replaced(operation, reason, alive=True))
        if timeout_s is not None:
            self._be_patient(timeout_s)
        try:
            reply = self._receive(self.step_timeout_s)
        except HostSilent:
            reply = self._after_death(operation, self._kill_silent())
        except HostGone as gone:
            reply = self._after_death(operation, str(gone))
        except exceptions.TaskError as error:
            reply = self._after_error(operation, error)
        return self._done(reply)

    def _be_patient(self, timeout_s: float) -> None:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        if not poll.poll(timeout_s * 1e3):
            raise TimeoutError(f"no answer of environments {self.begin} to {self.end - 1} within {timeout_s} s")

    def fileno(self) -> int:
        """Readable when ``finish`` has something to do."""
        assert self.channel is not None
        return self.channel.fileno()

    def is_ready(self) -> bool:
        """``finish`` would not wait for a host, whatever ``fileno`` says."""
        return bool(self.broken or self._owes)

    def _done(self, reply: Reply) -> Reply:
        operation, self._pending = self._pending, None
        if self.on_failure == RESTORE and operation is not None:
            self._since.append(operation)
            self._take(reply)
        if operation is not None and operation.kind == Kind.RESET:
            self._was_reset = True
        return reply

    def _take(self, reply: Reply) -> None:
        """Keep a checkpoint that came along; operations that it covers need not be repeated."""
        if reply.checkpoint is not None:
            number, self._checkpoint = reply.checkpoint
            since = self._since
            while since and since[0].number <= number:
                since.popleft()

    def _receive(self, timeout_s: float | None) -> Reply:
        assert self.channel is not None
        outcome, argument = self.channel.receive(timeout_s)
        reply = reply_of(outcome, argument)
        if reply.checkpoint is not None and self._pending is None:
            self._take(reply)
        return reply

    # -- failures ------------------------------------------------------------------------------------------------------
    def _kill_silent(self) -> str:
        actorlib.kill(self._handle, no_restart=False)
        assert self.channel is not None
        self.channel.outlast()
        return f"it did not answer within step_timeout_s={self.step_timeout_s} and was killed"

    def _after_death(self, operation: Operation, reason: str) -> Reply:
        self.deaths += 1
        text = f"host of environments {self.begin} to {self.end - 1} (pid {self.pid}) is gone: {reason}"
        if self.on_failure == RESTORE:
            return self._restored(operation, text, ATTEMPTS_AFTER_DEATH_MAX)
        if self.on_failure == RAISE:
            self._break(text)
            raise EnvironmentHostDiedError(self.broken)
        return self._replaced(operation, text)

    def _break(self, text: str) -> None:
        self._pending = None
        self.broken = f"{text}\nCall reset() to build its environments anew, or close()"

    def _after_error(self, operation: Operation, error: exceptions.TaskError) -> Reply:
        """An exception of user code. Only of a step is it a failure; else it is an answer like any other."""
        if self.on_failure == RESTORE and operation.kind in (Kind.STEP, Kind.STEP_WITH):
            return self._restored(operation, error, ATTEMPTS_AFTER_ERROR_MAX)
        self._done(Reply())
        raise error

    def _restored(self, operation: Operation, failure: str | exceptions.TaskError, attempts: int) -> Reply:
        """Bring the environments back and do ``operation`` again, a few times if need be."""
        for _ in range(attempts):
            try:
                self._bring_back(respawn=isinstance(failure, str))
                self._send_again(operation)
                return self._receive(self.step_timeout_s)
            except HostGone as gone:
                failure = f"{failure}\nIts successor is gone as well: {gone}"
            except HostSilent:
                failure = f"{failure}\nOf its successor: {self._kill_silent()}"
            except exceptions.TaskError as error:
                failure = error
                if attempts == ATTEMPTS_AFTER_ERROR_MAX:
                    break
        self._pending = None
        try:
            self._bring_back(respawn=isinstance(failure, str))
        except (HostGone, HostSilent, exceptions.TaskError) as error:
            self._break(f"{failure}\nand it can't be brought back: {error}")
            raise EnvironmentHostDiedError(self.broken) from None
        if isinstance(failure, str):
            raise EnvironmentHostDiedError(
                f"{failure}\nThe same happened {attempts} times, so it is not tried again; the environments are back "
                "where they were before it. Go on with another action, reset(), or close()"
            )
        raise failure

    def _bring_back(self, respawn: bool) -> None:
        """A host whose environments are as they were before the operation that failed."""
        if respawn:
            self._next_incarnation()
        assert self.channel is not None and self._checkpoint is not None
        self.channel.send(Operation(Kind.RESTORE, 0, 0, (self._checkpoint, list(self._since))))
        self._receive(None)

    def _next_incarnation(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        self.channel = self._accepted()
        self.pid = self._ask_pid()
        self._attach()

    def _accepted(self) -> Channel:
        deadline = time.monotonic() + RESTART_TIMEOUT_S
        while True:
            try:
                return Invitation(self._handle).accept()
            except HostRestarting:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RESTART_LOOK_S)

    def _ask_pid(self) -> int:
        assert self.channel is not None
        self.channel.send(Operation(Kind.IDENTIFY, 0, 0, None))
        return int(self._receive(None).result)

    def _send_again(self, operation: Operation) -> None:
        assert self.channel is not None
        self.channel.send(operation)

    def _rebuild(self) -> None:
        """A host with freshly constructed environments."""
        self._next_incarnation()
        assert self.channel is not None
        self.channel.send(Operation(Kind.BUILD, 0, 0, False))
        try:
            self._receive(None)
        except exceptions.TaskError as error:
            raise self._not_built(str(error)) from error

    def _revive(self) -> None:
        try:
            self._rebuild()
        except (HostGone, HostSilent) as gone:
            raise EnvironmentHostDiedError(f"{self.broken}\nIt can't be built anew: {gone}") from None
        self.broken = ""

    def _replaced(self, operation: Operation, reason: str, alive: bool = False) -> Reply:
        """``truncate``: go on with new environments; a step reports it, anything else is done by the new ones."""
        for _ in range(ATTEMPTS_AFTER_DEATH_MAX):
            try:
                if not alive:
                    self._next_incarnation()
                alive = False
                if operation.kind in (Kind.STEP, Kind.STEP_WITH):
                    argument = (reason, self.last_observed(), self._seeds, self.deaths)
                    self._send_again(operation._replace(kind=Kind.REPLACE, argument=argument))
                    return self._receive(None)
                self._stand_in(operation, reason)
                self._send_again(operation)
                return self._receive(self.step_timeout_s)
            except HostGone as gone:
                reason = f"{reason}\nIts successor is gone as well: {gone}"
            except HostSilent:
                reason = f"{reason}\nOf its successor: {self._kill_silent()}"
            except exceptions.TaskError:
                self._pending = None
                raise
        self._break(reason)
        raise EnvironmentHostDiedError(self.broken)

    def _stand_in(self, operation: Operation, reason: str) -> None:
        """New environments that can do ``operation``, which is no step; the next step tells what happened."""
        self._send_again(Operation(Kind.BUILD, 0, 0, False))
        self._receive(None)
        if operation.kind == Kind.RESET and operation.argument[2] is None:
            return
        if self._was_reset:
            self._send_again(Operation(Kind.RESET, 0, operation.slot, (self._seeds, None, None)))
            self._receive(None)
            self._owes = reason

    # -- the end -------------------------------------------------------------------------------------------------------
    def close(self, timeout_s: float | None, terminate: bool) -> None:
        """End the host; one that does not react in time is killed."""
        if self._invitation is not None:
            self._invitation.close()
            self._invitation = None
        channel, self.channel = self.channel, None
        handle, self._handle = self._handle, None
        if channel is not None:
            try:
                if not terminate and not self.broken:
                    channel.send(Operation(Kind.CLOSE, 0, 0, None))
                    channel.receive(CLOSE_TIMEOUT_S if timeout_s is None else timeout_s)
            except (HostGone, HostSilent, exceptions.ActorlibError):
                terminate = True
            finally:
                channel.close()
        if handle is not None and terminate and actorlib.is_initialized():
            actorlib.kill(handle)


__all__ = ["RAISE", "RESTORE", "TRUNCATE", "CallChannel", "Keeper", "Memory"]
