"""How a caller reaches one host: through a socket and shared memory on one machine, by calls of its actor elsewhere.

Both have a descriptor that becomes readable when a reply is there, or when the host is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import tempfile
from collections.abc import Callable
from typing import Any, Protocol

import actorlib
from actorlib import engine, exceptions
from actorlib.envs import frames
from actorlib.envs.frames import Operation, Outcome, PeerGone, Reply
from actorlib.envs.host import UNREACHABLE

SOCKET_NAME = "host"
DEATH_EXPLAINED_TIMEOUT_S = 15.0
ACCEPT_TIMEOUT_S = 120.0


class HostGone(Exception):
    """The host died; the text says how."""


class HostRestarting(HostGone):
    """Its next incarnation is on its way, and the engine refuses calls until it is there. (Ours lets them wait.)"""


class HostSilent(Exception):
    """No reply in time."""


class Channel(Protocol):
    """One connection to one incarnation of a host."""

    shares_memory: bool

    def fileno(self) -> int: ...

    def send(self, operation: Operation) -> None:
        """Raises HostGone."""

    def receive(self, timeout_s: float | None) -> tuple[int, Any]:
        """Outcome and what came with it. Raises HostGone or HostSilent."""

    def outlast(self) -> None:
        """Wait until a host that is being killed is gone."""

    def close(self) -> None: ...


class SocketChannel:
    """See the module's docstring. ``serving`` is the reference of the host's ``serve`` call."""

    shares_memory = True

    def __init__(self, connection: socket.socket, serving: Any) -> None:
        self._connection = connection
        self._serving = serving
        self._timeout_s: float | None = None

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, operation: Operation) -> None:
        try:
            if self._timeout_s is not None:
                self._set_timeout(None)
            frames.send(self._connection, *operation)
        except PeerGone as gone:
            raise self._explained(gone) from None

    def send_descriptor(self, descriptor: int) -> None:
        """After an ATTACH: the memory."""
        try:
            socket.send_fds(self._connection, [b"m"], [descriptor])
        except OSError as error:
            raise self._explained(PeerGone(str(error))) from None

    def receive(self, timeout_s: float | None) -> tuple[int, Any]:
        try:
            if timeout_s != self._timeout_s:
                self._set_timeout(timeout_s)
            outcome, _, _, argument = frames.receive(self._connection)
        except TimeoutError:
            raise HostSilent from None
        except PeerGone as gone:
            raise self._explained(gone) from None
        return outcome, argument

    def _set_timeout(self, timeout_s: float | None) -> None:
        self._connection.settimeout(timeout_s)
        self._timeout_s = timeout_s

    def _explained(self, gone: PeerGone) -> HostGone:
        """The call that served this connection ends with its process, and its error says how that went."""
        try:
            actorlib.get(self._serving, timeout=DEATH_EXPLAINED_TIMEOUT_S)
        except exceptions.GetTimeoutError:
            return HostGone(f"{gone}; nothing is known of its process after {DEATH_EXPLAINED_TIMEOUT_S} s")
        except exceptions.ActorlibError as error:
            return HostGone(str(error))
        return HostGone(f"{gone}; its process ended the connection")

    def outlast(self) -> None:
        with contextlib.suppress(HostGone):
            while True:
                self.receive(None)

    def close(self) -> None:
        self._connection.close()


class CallChannel:
    """Operations as calls of the actor."""

    shares_memory = False

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._reply: Any = None
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._signal

    def send(self, operation: Operation) -> None:
        self._reply = self._handle.request.remote(tuple(operation))
        engine.current().when_ready(self._reply, _bell(self._signal))

    def receive(self, timeout_s: float | None) -> tuple[int, Any]:
        try:
            outcome, argument = actorlib.get(self._reply, timeout=timeout_s)
        except exceptions.GetTimeoutError:
            raise HostSilent from None
        except exceptions.TaskError:
            raise
        except exceptions.ActorlibError as error:
            raise HostGone(str(error)) from None
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._signal)
        return outcome, argument

    def outlast(self) -> None:
        with contextlib.suppress(HostGone, HostSilent):
            self.receive(DEATH_EXPLAINED_TIMEOUT_S)

    def close(self) -> None:
        if self._signal >= 0:
            os.close(self._signal)
            self._signal = -1


class Invitation:
    """Asks an actor's current, or next, incarnation to connect; ``accept`` waits until it has."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        # 0700, so that nobody else can connect; in the session's own directory, which is swept with it.
        where = engine.current().address_info.get("session_dir")
        self._directory = tempfile.TemporaryDirectory(prefix="envs-", dir=where)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = os.path.join(self._directory.name, SOCKET_NAME)
        self._listener.bind(path)
        self._listener.listen(1)
        self._serving = handle.serve.remote(self.place(path))

    def place(self, path: str) -> str:
        """Where the host should look for the socket (a test sends it elsewhere)."""
        return path

    def accept(self) -> Channel:
        """Raises HostGone."""
        try:
            connection = self._accepted()
        finally:
            self.close()
        return CallChannel(self._handle) if connection is None else SocketChannel(connection, self._serving)

    def close(self) -> None:
        """Expect nobody any more."""
        self._listener.close()
        self._directory.cleanup()

    def _accepted(self) -> socket.socket | None:
        """The host's connection; None if it is somewhere else."""
        ended = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            engine.current().when_ready(self._serving, _bell(ended))
            poll = select.poll()
            poll.register(self._listener, select.POLLIN)
            poll.register(ended, select.POLLIN)
            ready = [fd for fd, _ in poll.poll(ACCEPT_TIMEOUT_S * 1e3)]
            if self._listener.fileno() in ready:
                return self._listener.accept()[0]
            self._refused()
            return None
        finally:
            os.close(ended)

    def _refused(self) -> None:
        try:
            answer = actorlib.get(self._serving, timeout=0.0)
        except exceptions.GetTimeoutError as error:
            raise HostGone(f"it did not connect within {ACCEPT_TIMEOUT_S} s: {error}") from None
        except exceptions.ActorUnavailableError as error:
            raise (HostRestarting if "is restarting" in str(error) else HostGone)(str(error)) from None
        except exceptions.ActorlibError as error:
            raise HostGone(str(error)) from None
        if answer != UNREACHABLE:
            raise HostGone(f"its call ended before it connected: {answer}")


def _bell(descriptor: int) -> Callable[[], None]:
    """Rings an eventfd, by a copy of its descriptor: the number may mean something else when a late reply comes."""
    copy = os.dup(descriptor)

    def ring() -> None:
        os.eventfd_write(copy, 1)
        os.close(copy)

    return ring


def reply_of(outcome: int, argument: Any) -> Reply:
    """What a host answered. Raises the error that it reports."""
    if outcome == Outcome.RAISED:
        raise argument
    return frames.NOTHING if argument is None else Reply(*argument)
