"""The loop of a process: its sockets, its timers, and whoever drives them.

**Whoever waits drives.** One thread at a time holds the loop. A thread blocked in ``drive`` turns it itself, so a
synchronous call crosses no thread. Several may wait: one drives, the others are followers, woken when what they wait
for is there or when the driver leaves and one of them must take over. When nobody waits, a helper thread looks after
the sockets: while traffic is recent it looks about once a millisecond, then it blocks in epoll (without holding the
loop) until something arrives. An idle process wakes up for its timers only.

Any thread hands work over with ``post``, which appends to a deque and wakes whoever sleeps in epoll; a thread that has
posted ``limits.flush_after_calls`` items turns the loop itself.

ZeroMQ's file descriptors are edge-triggered in effect: they signal commands, not messages. So both sockets are asked
for their events after anything was sent over them and before anybody blocks. Peers of the same node have a shorter way,
see ``shortcuts.py``: where that is used, the thread that drives writes to and reads from the peer's socket itself.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import zmq
from zmq.backend import zmq_poll

from actorlib.transport import limits, messages
from actorlib.transport.drivers.link_layer import LinkLayer, SocketLink, _call, _nothing
from actorlib.transport.drivers.shortcuts import Shortcuts
from actorlib.transport.drivers.sockets import Sockets
from actorlib.transport.drivers.watchdog import Watchdog
from actorlib.transport.endpoint import parse, way_to
from actorlib.transport.link import Address, Handler, Link

if TYPE_CHECKING:  # only who is on TCP pays for importing it
    from actorlib.transport.drivers.access import Access

HOT_LOOKS = 20
ROUNDS_MAX = 8
SPIN_S = 0.0002
SPIN_CREDIT_MAX = 8
SPIN_CREDIT_MIN = -64
RECEIVE_MAX = 1000
# Plain ints: pyzmq's enums cost half a microsecond at each use.
READABLE = int(zmq.POLLIN)
NOBLOCK = int(zmq.NOBLOCK)
MORE = int(zmq.RCVMORE)
LOOK_EVERY_S = 0.001
PARK_AFTER_LOOKS = 1


class Follower:
    __slots__ = ("until", "wakeup")

    def __init__(self, until: Callable[[], bool]) -> None:
        self.until = until
        self.wakeup = threading.Event()


def _frames_of(socket: Any) -> list[Any]:
    """One message. What is large, as only chunks of objects are, stays where ZeroMQ has it: a view, not a copy."""
    receive, option = socket.recv, socket.getsockopt
    frames: list[Any] = [receive(NOBLOCK)]
    if option(MORE):
        frames.append(receive(NOBLOCK))  # the header and the body: always copied
    while option(MORE):
        frames.append(_bytes_of(receive(NOBLOCK, copy=False)))
    return frames


def _bytes_of(frame: Any) -> Any:
    return frame.bytes if len(frame) < limits.frame_bytes_copied_max else frame.buffer


class Loop(LinkLayer):
    """Carries out ``link.Host`` with real sockets. See the module's docstring."""

    def __init__(
        self,
        address: Address,
        hello: messages.Hello,
        handlers: dict[type, Handler],
        on_link_down: Callable[[Link, str], None],
        trace_dir: str | None = None,
        spin: bool = False,
        access: Access | None = None,
    ) -> None:
        self._access = access
        self._sockets = Sockets(address.process_id, address.endpoint, access)
        address = address._replace(endpoint=self._sockets.endpoint)
        super().__init__(address, hello, handlers, on_link_down, time.monotonic, trace_dir)
        self._followers: list[Follower] = []
        self._readers: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._drives = 0
        self._holder_sleeps = False  # one flag for each who may sleep, written by them alone
        self._helper_sleeps = False
        self._closing = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._both: list[tuple[Any, int]] = [(self._sockets.outbox, READABLE), (self._sockets.inbox, READABLE)]
        self._spin_credit = 1 if spin and len(os.sched_getaffinity(0)) > 1 else SPIN_CREDIT_MIN * 1_000_000
        self._inbox_fd: int = self._sockets.inbox.FD
        self._outbox_fd: int = self._sockets.outbox.FD
        for fd in (self._wake_fd, self._inbox_fd, self._outbox_fd):
            self._epoll.register(fd, select.EPOLLIN)
        self._events: list[tuple[int, int]] = []  # of the last sleep; nobody has looked at them yet
        self._ask_sockets = True  # whether ZeroMQ's sockets may have something that their descriptors don't tell
        self._shortcuts = Shortcuts(self, address.process_id, parse(address.endpoint).local, self._epoll)
        self._parked = False
        self._unpark = threading.Event()
        self._turn_began = 0.0  # kept in debug mode only
        self._watchdog = Watchdog(lambda: (self._owner, self._turn_began)) if self._debug else None
        self._helper: threading.Thread | None = None

    def start_helper(self) -> None:
        """From now on a thread of its own looks after the sockets whenever nobody drives.

        Until then the loop belongs to whoever makes it, who may do without ``run`` and ``post``: dial, send, install
        handlers. What is sent while another thread turns the loop can be lost.
        """
        self._helper = threading.Thread(target=self._help, name="actorlib-loop", daemon=True)
        self._helper.start()

    # -- sockets -------------------------------------------------------------------------------------------------------
    def _connect(self, link: SocketLink) -> None:
        endpoint, server_key = way_to(link.peer, self.address)
        self._sockets.connect(link.name, endpoint, server_key)
        self._ask_sockets = True

    def _disconnect(self, link: SocketLink) -> None:
        self._sockets.disconnect(way_to(link.peer, self.address)[0])
        self._ask_sockets = True

    def _end(self, link: SocketLink, reason: str) -> None:
        self._shortcuts.link_ended(link)
        super()._end(link, reason)

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._readers[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def remove_reader(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    # -- handing work over ---------------------------------------------------------------------------------------------
    def post(self, callback: Callable[[Any], None], argument: Any) -> None:
        """Run ``callback(argument)`` in the loop, in the order posted. Any thread, cheap."""
        posted = self._posted
        posted.append((callback, argument))
        if self._holder_sleeps or self._helper_sleeps:
            if self._owner != threading.get_ident():
                self._wake()
        elif len(posted) >= limits.flush_after_calls:
            self._turn_if_free()

    def _wake(self) -> None:
        try:
            os.eventfd_write(self._wake_fd, 1)
        except BlockingIOError:
            return  # the counter is full, so it is readable
        except OSError:
            if not self._closing:
                raise

    def _turn_if_free(self) -> None:
        if self._owner != threading.get_ident() and not self._closing and self._lock.acquire(blocking=False):
            self._owner = threading.get_ident()
            try:
                self._turn()
            finally:
                self._leave()

    def run(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` in the loop and give its result: for short operations, from any thread."""
        if self._owner == threading.get_ident():
            return function()
        box: list[Any] = []

        def call(_: None) -> None:
            try:
                box.append((True, function()))
            except BaseException as error:
                box.append((False, error))

        self.post(call, None)
        self.drive(lambda: bool(box), None)
        if not box:
            raise RuntimeError("the loop of this process is closed")
        succeeded, result = box[0]
        if not succeeded:
            raise result
        return result

    # -- driving -------------------------------------------------------------------------------------------------------
    def drive(self, until: Callable[[], bool], timeout_s: float | None) -> bool:
        """Turn the loop on this thread until ``until()`` is true; False when the time is over first."""
        me = threading.get_ident()
        if self._owner == me:
            raise RuntimeError("a handler of the loop must not wait for the loop; this is a bug in actorlib")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not until() and not self._closing:
            if self._lock.acquire(blocking=False):
                self._owner = me
                try:
                    return self._drive(until, deadline)
                finally:
                    self._leave()
            if not self._follow(until, deadline):
                return until()
        return until()

    def serve_forever(self, stop: Callable[[], bool]) -> None:
        self.drive(stop, None)

    def _drive(self, until: Callable[[], bool], deadline: float | None) -> bool:
        self._drives += 1
        while True:
            self._turn()
            if until():
                return True
            if self._closing:
                return False
            if self._followers:
                self._wake_followers(only_ready=True)
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return False
            if not self._posted and not self._spin(now):
                self._block(self._patience(now, deadline))

    def _spin(self, now: float) -> bool:
        """Look for a moment before sleeping: waking up costs more than a short answer takes. True if something came.

        Each success earns credit and each failure costs it, so waits that are long are not preceded by spinning.
        """
        if self._spin_credit <= 0:
            self._spin_credit += 1
            return False
        poll = self._epoll.poll
        while time.monotonic() - now < SPIN_S:
            self._events = poll(0)
            if self._posted or self._events:
                self._spin_credit = min(self._spin_credit + 1, SPIN_CREDIT_MAX)
                return True
        self._spin_credit = self._spin_credit - 2 if self._spin_credit > 2 else SPIN_CREDIT_MIN
        return False

    def _leave(self) -> None:
        self._owner = None
        self._lock.release()
        if self._followers:
            self._wake_followers(only_ready=False)
        if self._parked:
            self._parked = False
            self._unpark.set()

    def _wake_followers(self, only_ready: bool) -> None:
        for follower in list(self._followers):
            if not only_ready or follower.until():
                follower.wakeup.set()

    def _follow(self, until: Callable[[], bool], deadline: float | None) -> bool:
        """Another thread drives: wait for it to tell us or to leave. False when the time is over."""
        follower = Follower(until)
        self._followers.append(follower)
        try:
            if self._holder_sleeps or self._helper_sleeps:
                self._wake()
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            # The holder may have left just before we joined: the short wait covers that.
            follower.wakeup.wait(0.05 if remaining is None else min(remaining, 0.05))
        finally:
            self._followers.remove(follower)
        return deadline is None or time.monotonic() < deadline

    def _patience(self, now: float, deadline: float | None) -> float:
        """Seconds until something is due; -1: nothing is."""
        wake_at = deadline if deadline is not None else float("inf")
        if self._timers:
            wake_at = min(wake_at, self._timers[0][0])
        if self._session_sweep_at:
            wake_at = min(wake_at, self._session_sweep_at)
        return -1 if wake_at == float("inf") else max(0.0, wake_at - now)

    def _block(self, patience_s: float) -> None:
        """Sleep until something happens. With the loop held."""
        self._holder_sleeps = True
        try:
            if not self._posted:
                self._events = self._epoll.poll(patience_s)
        finally:
            self._holder_sleeps = False

    def _clear_wake(self) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            return  # somebody else has read it

    def _turn(self) -> bool:
        """One turn of the loop. True if there was anything."""
        if self._watchdog is None:
            return self._work()
        self._turn_began = time.monotonic()
        try:
            return self._work()
        finally:
            self._turn_began = 0.0

    def _work(self) -> bool:
        """Posted work, messages, timers, and what is to be sent for it. True if there was anything.

        Sending over ZeroMQ and dialling swallow the signal of what has arrived meanwhile, so the last round of a turn
        is one in which its sockets were found empty and were not touched after that: not by a timer either.
        """
        busy = self._run_posted()
        for _ in range(ROUNDS_MAX):
            received = self._receive()
            if self._timers or self._session_sweep_at:
                self._run_timers()
            worked = self._run_posted() if self._posted else False
            if self._flush() or received or worked:
                busy = True
            if not self._ask_sockets and not self._posted:
                return busy
        self._posted.append((_call, _nothing))  # more has come meanwhile; let others see it in the next turn
        return True

    # -- the helper ----------------------------------------------------------------------------------------------------
    def _help(self) -> None:
        quiet, seen, same = 0, -1, 0
        while not self._closing:
            if not self._lock.acquire(blocking=False):
                same = same + 1 if seen == self._drives else 0
                seen = self._drives
                if same >= PARK_AFTER_LOOKS:
                    same = 0
                    self._park()
                time.sleep(LOOK_EVERY_S)
                continue
            self._owner = threading.get_ident()
            try:
                busy = not self._closing and self._turn()
            finally:
                self._leave()
            busy = busy or seen != self._drives
            seen = self._drives
            quiet = 0 if busy else quiet + 1
            if quiet <= HOT_LOOKS:
                time.sleep(LOOK_EVERY_S)
            else:
                self._sleep_unheld()

    def _park(self) -> None:
        """Somebody drives for long: wait until they leave."""
        self._unpark.clear()
        self._parked = True
        if self._lock.locked():
            self._unpark.wait()
        self._parked = False

    def _sleep_unheld(self) -> None:
        """Sleep until something happens, and leave it there: whoever holds the loop by then may sleep for the same."""
        self._helper_sleeps = True
        try:
            if not self._posted and not self._closing and not self._lock.locked():
                self._epoll.poll(self._patience(time.monotonic(), None))
        finally:
            self._helper_sleeps = False

    # -- receiving -----------------------------------------------------------------------------------------------------
    def _receive(self) -> bool:
        """Take what is there, fairly from all. True if there was anything."""
        events, self._events = self._events or self._epoll.poll(0), []
        received = False
        for _ in range(RECEIVE_MAX):
            progress = False
            for fd, _mask in events:
                progress |= self._take_from(fd)
            if self._ask_sockets:
                progress |= self._take_from_sockets()
            if not progress or self._closing:
                return received
            received = True
            events = self._epoll.poll(0)
        return True

    def _take_from(self, fd: int) -> bool:
        """What a descriptor that is readable has for us. True if there may be more."""
        if fd in self._shortcuts:
            taken = self._shortcuts.take(fd)
            if taken is not None:
                link, packet = taken
                self._on_batch(link, [link.name, packet])
            return True
        if fd == self._inbox_fd or fd == self._outbox_fd:
            self._ask_sockets = True
        elif fd == self._wake_fd:
            self._clear_wake()
        elif fd == self._shortcuts.listener_fd:
            self._shortcuts.accept()
        elif fd in self._readers:
            self._guard(self._readers[fd])
        return False

    def _take_from_sockets(self) -> bool:
        """All that ZeroMQ has. One poll of both sockets costs what asking one for its events does."""
        inbox = self._sockets.inbox
        for count in range(RECEIVE_MAX):
            ready = zmq_poll(self._both, 0)
            if not ready or self._closing:
                self._ask_sockets = False
                return count > 0
            for socket, _ in ready:
                if socket is inbox:
                    self._take_from_inbox(inbox)
                    continue
                frames = _frames_of(socket)
                if frames[0] in self._named:  # else it is of a link that was dropped meanwhile
                    self._on_batch(self._named[frames[0]], frames)
                if type(frames[-1]) is memoryview:  # large, so more takes its time: what this one asked for leaves now
                    self._flush()
        return True

    def _take_from_inbox(self, inbox: Any) -> None:
        if self._access is None:
            frames = _frames_of(inbox)
            self._on_batch(self._accepted.get(frames[0]) or self._accept(frames[0]), frames)
            return
        parts = inbox.recv_multipart(NOBLOCK, copy=False)
        sender = self._access.sender_of(parts[-1])
        frames = [_bytes_of(part) for part in parts]
        link = self._accepted.get(frames[0])
        if link is None:
            link = self._accept(frames[0])
            link.sender = sender
        elif link.sender != sender:
            # What we would answer goes to whoever took the name over, so there is nobody left to talk to.
            self._refuse(link, f"{sender} speaks under the name of a process of {link.sender}")
            return
        self._on_batch(link, frames)

    def _vouch(self, link: SocketLink, hello: messages.Hello) -> str:
        """Who came over TCP has proved a key; the address that they claim must be of the same key, and the role too."""
        if self._access is None or link.sender is None:
            return ""
        if link.sender.role == "driver" and hello.role != "driver":
            return f"the key {link.sender.name!r} is a driver's, and this is a {hello.role}"
        if not self._access.vouches_for(link.sender, parse(hello.address.endpoint).key):
            return f"its address has another key than {link.sender.name!r}, which it has proved"
        return ""

    def _send_frames(self, link: SocketLink, frames: list[Any]) -> None:
        if link.shortcut is not None and len(frames) == 1 and self._sent_in_shortcut(link, frames[0]):
            return
        if link.may_have_shortcut and link.session.is_under_way(limits.shortcut_after_batches):
            link.may_have_shortcut = False
            if link.peer.node_id == self.address.node_id:
                self._shortcuts.open(link, way_to(link.peer, self.address)[0])
        self._ask_sockets = True
        socket = self._sockets.outbox if link.dialled else self._sockets.inbox
        try:
            large = len(frames) > 1 and any(len(frame) >= limits.frame_bytes_copied_max for frame in frames)
            socket.send_multipart([link.name, *frames], NOBLOCK, copy=not large)
        except zmq.Again:
            return  # the session sends it again
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.ENOTSOCK, zmq.ETERM):
                raise

    def _sent_in_shortcut(self, link: SocketLink, packet: Any) -> bool:
        """False: it has to go over ZeroMQ."""
        if len(packet) > limits.shortcut_packet_bytes_max:
            return False
        try:
            link.shortcut.send(packet)
        except BlockingIOError:
            return False
        except OSError:
            self._shortcuts.close(link.shortcut)
            return False
        return True

    def abandon(self) -> None:
        """In a forked copy of the process: touch nothing from now on, neither sockets nor descriptors."""
        self._closing = True

    # -- the end -------------------------------------------------------------------------------------------------------
    def close(self, goodbye: str = "closing") -> None:
        """Say goodbye, send what is queued, close the sockets. Waiting threads return."""
        if self._closing:
            return
        inside = self._owner == threading.get_ident()
        if not inside:
            self._take_for_closing()
        try:
            for link in list(self._dialled.values()):
                link.send(messages.Goodbye(goodbye))
            self._run_posted()
            self._flush()
            self._closing = True
        finally:
            if not inside:
                self._leave()
        self._wake()
        self._unpark.set()
        if self._helper is not None and self._helper is not threading.current_thread():
            self._helper.join(2.0)
        self._wake_followers(only_ready=False)
        self._shortcuts.close_all()
        self._sockets.close()
        self._epoll.close()
        os.close(self._wake_fd)
        if self._watchdog is not None:
            self._watchdog.close()
        self._close_trace()

    def _take_for_closing(self) -> None:
        while not self._lock.acquire(timeout=0.01):
            self.post(_call, _nothing)
            self._wake()
            if self._closing:
                return
        self._owner = threading.get_ident()
