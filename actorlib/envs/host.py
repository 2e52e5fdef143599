"""The actor that hosts environments.

One call, ``serve``, runs for as long as its caller uses it: it waits at a socket for the next operation, on the main
thread of its process, where simulators expect to be. The kernel closes the socket when either side dies, so the other
knows at once; why, the caller learns from the call that ``serve`` is, as from any lost call of an actor.

A host that can't reach its caller's socket, since it is on another machine, answers operations as ordinary calls.
"""

from __future__ import annotations

import mmap
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from gymnasium.vector import AutoresetMode

import actorlib
from actorlib import exceptions
from actorlib.envs import frames
from actorlib.envs.frames import NOTHING, Kind, Operation, Outcome, PeerGone
from actorlib.envs.layout import SLOTS, Board, rows
from actorlib.envs.stage import Stage

UNREACHABLE = "unreachable"
ENDED = "ended"


class EnvironmentHost:
    """Environments ``first`` and following of a vector environment."""

    def __init__(
        self,
        env_fns: Sequence[Callable[[], Any]],
        first: int,
        mode: str,
        restorable: bool,
        rebuild_on_error: bool,
    ) -> None:
        self.first = first
        self.stage = Stage(env_fns, AutoresetMode(mode), restorable, rebuild_on_error, os.getpid())
        self._board: Board | None = None

    def serve(self, path: str) -> str:
        """Do what comes through the socket at ``path`` until its other end closes."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(path)
            except OSError:
                return UNREACHABLE
            try:
                while self._serve_one(connection):
                    pass
            except PeerGone:
                self.stage.close()
        self._board = None
        return ENDED

    def _serve_one(self, connection: socket.socket) -> bool:
        operation = frames.receive(connection)
        kind = operation.kind
        if kind == Kind.CLOSE:
            self.stage.close()
            frames.send(connection, Outcome.DONE, 0, 0)
            return False
        try:
            reply = self._attach(connection, operation) if kind == Kind.ATTACH else self.stage.handle(operation)
        except Exception as error:
            frames.send(connection, Outcome.RAISED, operation.number, 0, self._failure(error, operation))
            return True
        if reply is NOTHING:
            frames.send(connection, Outcome.DONE, operation.number, 0)
        else:
            frames.send(connection, Outcome.DONE_WITH, operation.number, 0, tuple(reply))
        self.stage.after_reply()
        return True

    def _attach(self, connection: socket.socket, operation: Operation) -> Any:
        """Map the caller's memory; its descriptor follows the message."""
        space, actions, count, size = operation.argument
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        if not descriptors:
            raise PeerGone("no descriptor of shared memory came")
        memory = mmap.mmap(descriptors[0], size)
        os.close(descriptors[0])
        board = self._board = Board(memory, space, actions, count)
        begin, end = self.first, self.first + len(self.stage.env_fns)
        out = [rows(board.observations[slot], begin, end) for slot in range(SLOTS)] if board.observations else None
        flags = (board.rewards, board.terminations, board.truncations)
        mine = tuple([array[begin:end] for array in arrays] for arrays in flags)
        self.stage.attach(space, out, mine, None if board.actions is None else board.actions[begin:end])
        return NOTHING

    def request(self, operation: tuple[Any, ...]) -> tuple[int, Any]:
        """One operation as a call. Gives an Outcome and what belongs to it."""
        done = Operation(*operation)
        if done.kind == Kind.CLOSE:
            self.stage.close()
            return Outcome.DONE, None
        try:
            reply = self.stage.handle(done)
        except Exception as error:
            return Outcome.RAISED, self._failure(error, done)
        self.stage.after_reply()
        return Outcome.DONE_WITH, tuple(reply)

    def _failure(self, error: Exception, operation: Operation) -> exceptions.TaskError:
        last = self.first + len(self.stage.env_fns) - 1
        name = f"{Kind(operation.kind).name.lower()} of environments {self.first} to {last}"
        text = "".join(traceback.format_exception(error))[-50_000:]
        node_id = bytes.fromhex(actorlib.get_runtime_context().get_node_id())
        return exceptions.task_error(error, name, text, os.getpid(), node_id)
