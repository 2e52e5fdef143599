"""The zygote: a small process that has imported what every worker needs, and forks a worker in milliseconds.

It is forked from the node before that has any thread or ZeroMQ context, stays single-threaded, and talks to the node
over one SOCK_SEQPACKET socket: orders to fork come with the write ends of the worker's stdout and stderr; started and
ended workers are reported with their wait status. When the node is gone the socket ends, and so does the zygote; the
kernel kills the workers with it.
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

import msgpack

from actorlib.transport.drivers.processes import die_with_parent

MESSAGE_BYTES_MAX = 1 << 20
IDLE_MS = 300
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Zygote:
    """The zygote's own side."""

    def __init__(self, connection: socket.socket, worker_module: str) -> None:
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._children: dict[int, tuple[int, bytes]] = {}  # pidfd -> (pid, worker id)
        self._module = importlib.import_module(worker_module)
        prepare: Callable[[], None] | None = getattr(self._module, "prepare", None)
        if prepare is not None:
            prepare()
        self._later = list(getattr(self._module, "IMPORTED_LATER", ()))

    def serve(self) -> None:
        while True:
            ready = self._poll.poll(IDLE_MS if self._later else None)
            if not ready:
                self._import_one()
            for fd, _ in ready:
                if fd == self._connection.fileno():
                    if not self._order():
                        return
                else:
                    self._ended(fd)

    def _import_one(self) -> None:
        """Nobody asks for a worker just now: import what those to come may need."""
        importlib.import_module(self._later.pop(0))
        if not self._later:
            gc.freeze()

    def _order(self) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(self._connection, MESSAGE_BYTES_MAX, 2)
        except ConnectionResetError:
            return False
        if not data:
            return False
        config = msgpack.unpackb(data, use_list=False)
        pid = os.fork()
        if pid == 0:
            self._become_worker(config, fds)
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (pid, config["process_id"])
        self._poll.register(pidfd, select.POLLIN)
        self._tell(("started", config["process_id"], pid, 0))
        return True

    def _ended(self, pidfd: int) -> None:
        pid, worker_id = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self._tell(("ended", worker_id, pid, status))

    def _tell(self, report: tuple[Any, ...]) -> None:
        try:
            self._connection.send(msgpack.packb(report))
        except OSError:
            os._exit(0)  # the node is gone

    def _become_worker(self, config: dict[str, Any], fds: list[int]) -> None:
        code = 1
        try:
            die_with_parent(config["zygote_pid"])
            self._connection.close()
            for pidfd in self._children:
                os.close(pidfd)
            os.dup2(fds[0], 1)
            os.dup2(fds[1], 2)
            for fd in fds:
                os.close(fd)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            random.seed()
            for name in THREAD_VARIABLES:
                os.environ.pop(name, None)
            gc.enable()
            code = self._module.main(config)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def run_zygote(connection: socket.socket, worker_module: str, parent_pid: int, preload: list[str]) -> None:
    """Become the zygote. Does not return."""
    code = 0
    try:
        gc.disable()  # while modules are imported nothing becomes garbage
        die_with_parent(parent_pid)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, "1")
        for name in ("numpy", "zmq", "msgpack", "cloudpickle", *preload):
            importlib.import_module(name)
        zygote = Zygote(connection, worker_module)
        gc.collect()
        gc.freeze()
        zygote.serve()
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        os._exit(code)


class ZygoteClient:
    """The node's side: forks the zygote, orders workers, hears of their ends."""

    def __init__(self, worker_module: str, preload: list[str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent_pid = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            run_zygote(theirs, worker_module, parent_pid, preload)
        theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._backlog: list[tuple[bytes, tuple[int, int]]] = []

    def fileno(self) -> int:
        return self._socket.fileno()

    def fork(self, config: dict[str, Any], out_fd: int, err_fd: int) -> None:
        """Order a worker. Its output goes to the two descriptors, which are closed here once sent."""
        self._backlog.append((msgpack.packb({**config, "zygote_pid": self.pid}), (out_fd, err_fd)))
        self.flush()

    def flush(self) -> bool:
        """Send what is ordered; False if the socket is full for now."""
        while self._backlog:
            data, fds = self._backlog[0]
            try:
                socket.send_fds(self._socket, [data], list(fds))
            except BlockingIOError:
                return False
            self._backlog.pop(0)
            for fd in fds:
                os.close(fd)
        return True

    def reports(self, handle: Callable[[str, bytes, int, int], None]) -> bool:
        """Pass on what the zygote has to say; False if it is gone."""
        while True:
            try:
                data = self._socket.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            kind, worker_id, pid, status = msgpack.unpackb(data, use_list=False)
            handle(kind, worker_id, pid, status)

    def close(self) -> None:
        self._socket.close()
