"""The zygote: a small process that has imported what every worker needs, and forks a worker in milliseconds.

It is forked from the node before that has any thread or ZeroMQ context, stays single-threaded, and talks to the node
over one SOCK_SEQPACKET socket: orders to fork come with the write ends of the worker's stdout and stderr, and who was
started is reported. A worker is forked by a *go-between*, which is gone at once: so the worker is the node's child and
lives on when the zygote dies. The node sees its end through a pidfd, and the kernel kills it with the node. A few
orders that have come together share a go-between, which spares nearly half of the forks.

When the node is gone the socket ends, and so does the zygote. When the zygote is gone the node starts another one; by
then it has threads, so that one is a program of its own, which takes its time to import everything.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgpack

from actorlib.transport.drivers.processes import die_with_parent, set_process_name

MESSAGE_BYTES_MAX = 1 << 20
IDLE_MS = 300
REAPED_WITHIN_MS = 20
ORDERS_TOGETHER_MAX = 4  # the first worker waits for the forks of the others
DEATHS_MAX = 5
"""That many zygotes in a row that died before they could fork, or of it, and there will be no other."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
FAILED_STATUS = 1 << 8
"""The wait status of a process that could not be forked: as if it had ended with 1."""


Order = tuple[dict[str, Any], list[int]]
"""A worker's config, and what its stdout and stderr are to be."""


class Zygote:
    """The zygote's own side."""

    def __init__(self, connection: socket.socket, worker_module: str) -> None:
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._order_of_mine: Order | None = None  # in a worker: what made it
        self._my_go_between = 0  # and who
        self._go_betweens: dict[int, list[bytes]] = {}  # not reaped yet: pid -> whom it forks
        self._module = importlib.import_module(worker_module)
        prepare: Callable[[], None] | None = getattr(self._module, "prepare", None)
        if prepare is not None:
            prepare()
        self._later = list(getattr(self._module, "IMPORTED_LATER", ()))

    def serve(self) -> bool:
        """Until the node is gone. True in each worker that is born: it is to go on with ``become_worker``."""
        self._tell(("ready", b"", 0, 0))
        while True:
            if self._poll.poll(self._patience_ms()):
                if not self._order():
                    return self._order_of_mine is not None
            elif not self._go_betweens:
                self._import_one()
            self._reap()

    def _patience_ms(self) -> int | None:
        if self._go_betweens:
            return REAPED_WITHIN_MS
        return IDLE_MS if self._later else None

    def _import_one(self) -> None:
        """Nobody asks for a worker just now: import what those to come may need."""
        importlib.import_module(self._later.pop(0))
        if not self._later:
            gc.freeze()

    def _reap(self) -> None:
        while self._go_betweens:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            worker_ids = self._go_betweens.pop(pid)
            for worker_id in worker_ids if status else ():
                self._tell(("lost", worker_id, 0, 0))  # unless it was killed after it had reported that one

    def _order(self) -> bool:
        """Carry out what is ordered. False if there will be no more: the node is gone, or this is a worker by now."""
        orders = self._take_orders()
        if not orders:
            return False
        worker_ids = [config["process_id"] for config, _ in orders]
        pid = self._fork(worker_ids)
        if pid == 0:
            self._go_between(orders)
            return False
        if pid > 0:
            self._go_betweens[pid] = worker_ids
        for _, fds in orders:
            _close(fds)
        return True

    def _take_orders(self) -> list[Order]:
        """What is there, up to a limit. Nothing: the node is gone."""
        orders: list[Order] = []
        while not orders or (len(orders) < ORDERS_TOGETHER_MAX and self._poll.poll(0)):
            try:
                data, fds, _, _ = socket.recv_fds(self._connection, MESSAGE_BYTES_MAX, 2)
            except ConnectionResetError:
                return []
            if not data:
                return []
            orders.append((msgpack.unpackb(data, use_list=False), fds))
        return orders

    def _fork(self, worker_ids: list[bytes]) -> int:
        try:
            return os.fork()
        except OSError as error:
            print(f"actorlib: a worker could not be forked: {error}", file=sys.stderr, flush=True)
            for worker_id in worker_ids:
                self._tell(("ended", worker_id, 0, FAILED_STATUS))
            return -1

    def _go_between(self, orders: list[Order]) -> None:
        """Fork the workers and end, which makes them children of the node. Only workers return from here.

        The report comes before the end: the node knows each of its children before it is one.
        """
        me = os.getpid()
        for config, fds in orders:
            worker_id = config["process_id"]
            pid = self._fork([worker_id])
            if pid == 0:
                self._order_of_mine, self._my_go_between = (config, fds), me
                for other, others in orders:
                    if other is not config:
                        _close(others)
                return
            if pid > 0:
                self._tell(("started", worker_id, pid, 0))
        os._exit(0)

    def _tell(self, report: tuple[Any, ...]) -> None:
        try:
            self._connection.send(msgpack.packb(report))
        except OSError:
            os._exit(0)  # the node is gone

    def _wait_for_parent(self) -> None:
        """Until the go-between is gone. Its pidfd tells, once its children have been handed on."""
        try:
            pidfd = os.pidfd_open(self._my_go_between)
        except ProcessLookupError:
            return
        if os.getppid() == self._my_go_between:  # else it has gone, and our parent is the node, or nobody any more
            select.select([pidfd], [], [])
        os.close(pidfd)

    def become_worker(self) -> int:
        """Run what was ordered. Gives the process's exit code."""
        assert self._order_of_mine is not None
        config, fds = self._order_of_mine
        self._connection.close()
        self._wait_for_parent()
        die_with_parent(config["node_pid"])
        os.dup2(fds[0], 1)
        os.dup2(fds[1], 2)
        _close(fds)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        random.seed()
        for name in THREAD_VARIABLES:
            os.environ.pop(name, None)
        gc.enable()
        code: int = self._module.main(config)
        return code


def run_zygote(connection: socket.socket, worker_module: str, parent_pid: int, preload: list[str]) -> None:
    """Become the zygote, and in its forks the workers. Does not return."""
    code = 0
    try:
        gc.disable()  # while modules are imported nothing becomes garbage
        die_with_parent(parent_pid)
        set_process_name("zygote")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, "1")
        for name in ("numpy", "zmq", "msgpack", "cloudpickle", *preload):
            importlib.import_module(name)
        zygote = Zygote(connection, worker_module)
        gc.collect()
        gc.freeze()
        if zygote.serve():
            code = zygote.become_worker()
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """The program of a later zygote, with its orders from ``_spawn_zygote``."""
    given = json.loads(sys.argv[1])
    connection = socket.socket(fileno=given["fd"])
    run_zygote(connection, given["module"], given["parent_pid"], given["preload"])


class ZygoteClient:
    """The node's side: keeps a zygote alive, orders workers, hears of their ends.

    Args:
        worker_module: whose ``main(config)`` a worker runs.
        preload: modules to import beforehand.
    """

    def __init__(self, worker_module: str, preload: list[str]) -> None:
        self._worker_module = worker_module
        self._preload = preload
        self._epoll = select.epoll()
        self._news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # set while reports wait that were taken in
        self._epoll.register(self._news, select.EPOLLIN)
        self._reports: deque[tuple[str, bytes, int, int]] = deque()
        self._backlog: list[tuple[bytes, bytes, tuple[int, int]]] = []
        self._ordered: dict[bytes, None] = {}
        self._children: dict[int, tuple[bytes, int]] = {}  # pidfd -> (worker id, pid)
        self._is_ready = False
        self._deaths = 0
        self._socket, self.pid = self._fork_zygote()
        self._listen()

    def _fork_zygote(self) -> tuple[socket.socket, int]:
        """The first one, while the node has no thread: what both need is imported once."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            run_zygote(theirs, self._worker_module, parent_pid, self._preload)
        theirs.close()
        return ours, pid

    def _spawn_zygote(self) -> tuple[socket.socket, int]:
        """A later one. The node goes on meanwhile; what it orders waits in the socket."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.set_inheritable(theirs.fileno(), True)
        given = {
            "fd": theirs.fileno(),
            "module": self._worker_module,
            "parent_pid": os.getpid(),
            "preload": self._preload,
        }
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
        command = [sys.executable, "-c", code, json.dumps(given)]
        pid = os.posix_spawn(sys.executable, command, os.environ)
        theirs.close()
        return ours, pid

    def _listen(self) -> None:
        self._is_ready = False
        self._socket.setblocking(False)
        self._epoll.register(self._socket, select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def family(self) -> set[int]:
        """The zygote and all that it has forked. Whoever is a child of the node by now is among them."""
        self._take_in()
        if self._reports:
            os.eventfd_write(self._news, 1)
        return {self.pid, *(pid for _, pid in self._children.values())}

    def fork(self, config: dict[str, Any], out_fd: int, err_fd: int) -> None:
        """Order a worker. Its output goes to the two descriptors, which are closed here once sent."""
        data = msgpack.packb({**config, "node_pid": os.getpid()})
        self._backlog.append((config["process_id"], data, (out_fd, err_fd)))
        self.flush()

    def flush(self) -> None:
        """Send what is ordered, as far as the socket takes it."""
        while self._backlog:
            worker_id, data, fds = self._backlog[0]
            try:
                socket.send_fds(self._socket, [data], list(fds))
            except OSError:
                return  # it is full for now, or the zygote is gone: then this is for the next one
            self._backlog.pop(0)
            self._ordered[worker_id] = None
            _close(fds)

    def reports(self, handle: Callable[[str, bytes, int, int], None]) -> bool:
        """Pass on who has started, who has ended (with the wait status), and who was lost before it was born.

        False if the zygotes die as soon as they are started: there will be no workers any more.
        """
        for fd, _ in self._epoll.poll(0):
            if fd == self._news:
                os.eventfd_read(self._news)
            elif fd in self._children:
                self._child_ended(fd)
        self._take_in()
        self.flush()
        while self._reports:
            handle(*self._reports.popleft())
        return self._deaths < DEATHS_MAX

    def _take_in(self) -> None:
        while True:
            try:
                data = self._socket.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                if self._deaths < DEATHS_MAX:
                    self._replace_zygote()
                return
            self._reported(*msgpack.unpackb(data, use_list=False))

    def _hear_the_last(self) -> None:
        """What a zygote that is gone has told before: who was started must be ended as well."""
        with contextlib.suppress(OSError):  # nothing is left, or there was no zygote any more
            while data := self._socket.recv(MESSAGE_BYTES_MAX):
                self._reported(*msgpack.unpackb(data, use_list=False))

    def _reported(self, kind: str, worker_id: bytes, pid: int, status: int) -> None:
        if kind == "ready":
            self._is_ready = True
            return
        if worker_id not in self._ordered:
            return  # it was started, and whoever forked it was killed before it could end
        del self._ordered[worker_id]
        if kind == "started":
            self._deaths = 0
            pidfd = os.pidfd_open(pid)
            self._children[pidfd] = (worker_id, pid)
            self._epoll.register(pidfd, select.EPOLLIN)
        self._reports.append((kind, worker_id, pid, status))

    def _child_ended(self, pidfd: int) -> None:
        worker_id, pid = self._children[pidfd]
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            return  # its go-between is about to end; then it is ours
        self._forget(pidfd)
        self._reports.append(("ended", worker_id, pid, status))

    def _forget(self, pidfd: int) -> None:
        del self._children[pidfd]
        self._epoll.unregister(pidfd)
        os.close(pidfd)

    def _replace_zygote(self) -> None:
        """The zygote is gone, and so is what it was about to fork. Its workers live on."""
        self._deaths = self._deaths + 1 if self._ordered or not self._is_ready else 0
        self._epoll.unregister(self._socket)
        self._socket.close()
        os.waitpid(self.pid, 0)
        self._reports.extend(("lost", worker_id, 0, 0) for worker_id in self._ordered)
        self._ordered.clear()
        if self._deaths < DEATHS_MAX:
            self._socket, self.pid = self._spawn_zygote()
            self._listen()

    def close(self) -> None:
        """End the zygote and all that it has forked."""
        if self._deaths < DEATHS_MAX:
            # Not by the end of its socket alone: workers of a zygote that was forked later may hold our side open.
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self._hear_the_last()
        self._socket.close()
        for _, pid in self._children.values():
            os.kill(pid, signal.SIGKILL)
        for pidfd, (_, pid) in list(self._children.items()):
            _reap(pid)
            self._forget(pidfd)
        for _, _, fds in self._backlog:
            _close(fds)
        self._epoll.close()
        os.close(self._news)


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _reap(pid: int) -> None:
    """Wait until a killed worker is gone. It is not our child while its go-between lives, nor if it was reaped."""
    while True:
        try:
            os.waitpid(pid, 0)
            return
        except ChildProcessError:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.001)
