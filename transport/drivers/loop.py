"""The loop of a process: its sockets, its timers, and whoever drives them.

**Whoever waits drives.** One thread at a time holds the loop. A thread blocked in ``drive`` turns it itself, so a
synchronous call crosses no thread. Several may wait: one drives, the others are followers, woken when what they wait
for is there or when the driver leaves and one of them must take over. When nobody waits, a helper thread looks after
the sockets: while traffic is recent it looks about once a millisecond, then it blocks in epoll (without holding the
loop) until something arrives. An idle process wakes up for its timers only.

Any thread hands work over with ``post``, which appends to a deque and wakes whoever sleeps in epoll; a thread that has
posted ``limits.flush_after_calls`` items turns the loop itself.

ZeroMQ's file descriptors are edge-triggered in effect: they signal commands, not messages. So both sockets are asked
for their events after anything was sent and before anybody blocks.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import logging.handlers
import os
import select
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq
from zmq.backend import zmq_poll

from actorlib.transport import codec, limits, messages
from actorlib.transport.drivers.sockets import Sockets
from actorlib.transport.ids import ProcessId
from actorlib.transport.link import Address, Handler, Link
from actorlib.transport.session import HEADER_BYTES, MalformedHeader, NewSession, Session

HOT_LOOKS = 20
ROUNDS_MAX = 8
SPIN_S = 0.0002
SPIN_CREDIT_MAX = 8
SPIN_CREDIT_MIN = -64
RECEIVE_MAX = 1000
# Plain ints: pyzmq's enums cost half a microsecond at each use.
READABLE = int(zmq.POLLIN)
NOBLOCK = int(zmq.NOBLOCK)
LOOK_EVERY_S = 0.001
PARK_AFTER_LOOKS = 5
SLOW_HANDLER_S = 0.05
CHEAP_CHECK_S = 0.0002


class SocketLink:
    """A session with one peer over one of our two sockets."""

    __slots__ = ("dialled", "hello", "is_down", "loop", "name", "peer", "pending", "session")

    def __init__(self, loop: Loop, peer: Address, dialled: bool, nonce: int) -> None:
        self.loop = loop
        self.peer = peer
        self.dialled = dialled
        self.hello: Any = None
        self.is_down = False
        self.pending: list[Any] = []
        self.session = Session(nonce)
        # What our socket calls the connection: a dialled one gets a name that no earlier one had.
        self.name: bytes = peer.process_id + nonce.to_bytes(4, "little") if dialled else peer.process_id

    def send(self, message: tuple[Any, ...]) -> None:
        if not self.is_down:
            if not self.pending:
                self.loop.dirty.append(self)
            self.pending.append(message)


class LoopbackLink:
    """The link of a process with itself: what is sent is handled in the next turn."""

    __slots__ = ("hello", "is_down", "loop", "peer")

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.peer = loop.address
        self.hello = loop.hello
        self.is_down = False

    def send(self, message: tuple[Any, ...]) -> None:
        self.loop.post(self._deliver, message)

    def _deliver(self, message: Any) -> None:
        self.loop.dispatch(self, message)


class LoopTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Follower:
    __slots__ = ("until", "wakeup")

    def __init__(self, until: Callable[[], bool]) -> None:
        self.until = until
        self.wakeup = threading.Event()


class Loop:
    """Carries out ``link.Host`` with real sockets. See the module's docstring."""

    def __init__(
        self,
        address: Address,
        hello: messages.Hello,
        handlers: dict[type, Handler],
        on_link_down: Callable[[Link, str], None],
        helper: bool = True,
        trace_dir: str | None = None,
        spin: bool = False,
    ) -> None:
        self._sockets = Sockets(address.process_id, address.endpoint)
        self.address = address._replace(endpoint=self._sockets.endpoint)
        self.hello = hello._replace(address=self.address)
        self.handlers = handlers
        self.dirty: list[SocketLink] = []
        self.malformed = 0
        self._on_link_down = on_link_down
        self._dialled: dict[ProcessId, SocketLink] = {}
        self._named: dict[bytes, SocketLink] = {}  # the dialled ones by what the outbox calls them
        self._accepted: dict[bytes, SocketLink] = {}
        self._nonces = itertools.count(1)
        self._loopback = LoopbackLink(self)
        self._posted: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._timers: list[tuple[float, int, LoopTimer]] = []
        self._timer_count = itertools.count()
        self._followers: list[Follower] = []
        self._readers: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._drives = 0
        self._sleepers = 0
        self._closing = False
        self._session_sweep_at = 0.0
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._both: list[tuple[Any, int]] = [(self._sockets.outbox, READABLE), (self._sockets.inbox, READABLE)]
        self._spin_credit = 1 if spin and len(os.sched_getaffinity(0)) > 1 else SPIN_CREDIT_MIN * 1_000_000
        self._inbox_fd: int = self._sockets.inbox.FD
        self._outbox_fd: int = self._sockets.outbox.FD
        for fd in (self._wake_fd, self._inbox_fd, self._outbox_fd):
            self._epoll.register(fd, select.EPOLLIN)
        self.check: Callable[[], None] | None = None  # asserts invariants; called in debug mode
        self._check_after = 0.0
        self._debug = os.environ.get("ACTORLIB_DEBUG") == "1"
        self._trace = _open_trace(trace_dir, address.process_id) if self._debug and trace_dir else None
        self._parked = False
        self._unpark = threading.Event()
        self._helper: threading.Thread | None = None
        if helper:
            self._helper = threading.Thread(target=self._help, name="actorlib-loop", daemon=True)
            self._helper.start()

    # -- link.Host -----------------------------------------------------------------------------------------------------
    def now(self) -> float:
        return time.monotonic()

    def link(self, address: Address) -> Link:
        link = self._dialled.get(address.process_id)
        if link is not None:
            return link
        if address.process_id == self.address.process_id:
            return self._loopback
        link = SocketLink(self, address, True, next(self._nonces))
        self._dialled[address.process_id] = link
        if address.endpoint:
            self._named[link.name] = link
            self._sockets.connect(link.name, address.endpoint)
        link.send(self.hello)
        return link

    def links(self) -> list[Link]:
        return [*self._dialled.values(), *self._accepted.values()]

    def accepted_link(self, process_id: ProcessId) -> Link | None:
        """The link that a peer dialled to us, if it has."""
        return self._accepted.get(process_id)

    def drop_link(self, process_id: ProcessId, reason: str) -> None:
        dialled = self._dialled.pop(process_id, None)
        if dialled is not None and self._named.pop(dialled.name, None) is not None:
            self._sockets.disconnect(dialled.peer.endpoint)
        if dialled is not None:
            self._end(dialled, reason)
        self._end_accepted(process_id, reason)

    def _end_accepted(self, process_id: ProcessId, reason: str) -> None:
        link = self._accepted.pop(process_id, None)
        if link is not None:
            self._end(link, reason)

    def _end(self, link: SocketLink, reason: str) -> None:
        if not link.is_down:
            link.is_down = True
            link.pending.clear()
            self._on_link_down(link, reason)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> LoopTimer:
        timer = LoopTimer(callback)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._timer_count), timer))
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.post(_call, callback)

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
        if self._sleepers:
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
        while time.monotonic() - now < SPIN_S:
            if self._posted or self._is_readable():
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
            if self._sleepers:
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
        self._sleepers += 1
        try:
            if self._posted:
                return
            events = self._epoll.poll(patience_s)
        finally:
            self._sleepers -= 1
        self._handle_fds(events)

    def _handle_fds(self, events: list[tuple[int, int]]) -> None:
        for fd, _ in events:
            if fd == self._wake_fd:
                self._clear_wake()
            elif fd in self._readers:
                self._guard(self._readers[fd])

    def _clear_wake(self) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            return  # somebody else has read it

    def _turn(self) -> bool:
        """One turn: posted work, messages, timers, and what is to be sent for it. True if there was anything.

        Sending and dialling swallow the signal of what has arrived meanwhile, so the last round of a turn is one in
        which the sockets were found empty and were not touched after that.
        """
        busy = self._run_posted()
        for _ in range(ROUNDS_MAX):
            received = self._receive()
            if self._timers or self._session_sweep_at:
                self._run_timers()
            worked = self._run_posted() if self._posted else False
            if not self._flush() and not received and not worked:
                return busy
            busy = True
        self._posted.append((_call, _nothing))  # more has come meanwhile; let others see it in the next turn
        return True

    def _run_posted(self) -> bool:
        posted = self._posted
        if not posted:
            return False
        for _ in range(len(posted)):
            callback, argument = posted.popleft()
            try:
                callback(argument)
            except Exception:
                self._report(f"posted {getattr(callback, '__qualname__', callback)}")
        return True

    def _run_timers(self) -> None:
        now = time.monotonic()
        timers = self._timers
        while timers and timers[0][0] <= now:
            callback = heapq.heappop(timers)[2].callback
            if callback is not None:
                self._guard(callback)
        if self._session_sweep_at and now >= self._session_sweep_at:
            self._sweep_sessions(now)

    def _guard(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            self._report(f"callback {getattr(callback, '__qualname__', callback)}")

    def _report(self, what: str) -> None:
        print(f"actorlib: {what} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)

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
        self._sleepers += 1
        try:
            if not self._posted and not self._closing and not self._lock.locked():
                events = self._epoll.poll(self._patience(time.monotonic(), None))
                if any(fd == self._wake_fd for fd, _ in events):
                    self._clear_wake()
                readers = [fd for fd, _ in events if fd in self._readers]
                if readers:
                    self._posted.append((self._run_readers, readers))
        finally:
            self._sleepers -= 1

    def _run_readers(self, fds: list[int]) -> None:
        for fd in fds:
            if fd in self._readers:
                self._readers[fd]()

    # -- receiving -----------------------------------------------------------------------------------------------------
    def _is_readable(self) -> bool:
        return bool(zmq_poll(self._both, 0))

    def _receive(self) -> bool:
        """Take what is there, fairly from both sockets. One poll of both costs what asking one for its events does."""
        inbox = self._sockets.inbox
        for count in range(RECEIVE_MAX):
            ready = zmq_poll(self._both, 0)
            if not ready or self._closing:
                return count > 0
            for socket, _ in ready:
                frames = socket.recv_multipart(NOBLOCK)
                if socket is inbox:
                    self._on_batch(self._accepted.get(frames[0]) or self._accept(frames[0]), frames)
                elif frames[0] in self._named:  # else it is of a link that was dropped meanwhile
                    self._on_batch(self._named[frames[0]], frames)
        return True

    def _accept(self, routing_id: bytes) -> SocketLink:
        peer = Address(ProcessId(routing_id), self.address.node_id, "")
        return SocketLink(self, peer, False, 0)

    def _on_batch(self, link: SocketLink, frames: list[bytes]) -> None:
        try:
            if len(frames) < 2 or len(frames[1]) < HEADER_BYTES:
                raise codec.MalformedBatch("no header")
            now = time.monotonic()
            for batch in link.session.incoming(now, frames[1], frames):
                self._deliver(link, batch)
        except (codec.MalformedBatch, MalformedHeader) as error:
            self._refuse(link, str(error))
            return
        except NewSession:
            if not link.dialled:
                self._end_accepted(link.peer.process_id, "the peer has begun a new session")
                self._on_batch(self._accept(frames[0]), frames)
            return
        if link.session.owes_acknowledgement():
            self._send_frames(link, [link.session.acknowledgement()])
        self._schedule_sweep(link, now)

    def _deliver(self, link: SocketLink, frames: list[bytes]) -> None:
        batch = codec.decode_batch(memoryview(frames[1])[HEADER_BYTES:], frames[2:])
        if link.hello is None and not link.dialled:
            batch = self._greet(link, batch)
        for message in batch:
            self.dispatch(link, message)

    def _greet(self, link: SocketLink, batch: list[Any]) -> list[Any]:
        """The first batch of an accepted link says who it is, and must be telling the truth."""
        hello = batch[0] if batch else None
        if type(hello) is not messages.Hello:
            raise codec.MalformedBatch("a session starts with Hello")
        if hello.address.process_id != link.peer.process_id:
            raise codec.MalformedBatch("the process id in Hello is not that of the connection")
        if hello.protocol_version != messages.PROTOCOL_VERSION:
            raise codec.MalformedBatch(
                f"protocol version {hello.protocol_version}, this process speaks {messages.PROTOCOL_VERSION}"
            )
        link.hello = hello
        link.peer = hello.address
        self._accepted[hello.address.process_id] = link
        return batch if messages.Hello in self.handlers else batch[1:]

    def _refuse(self, link: SocketLink, reason: str) -> None:
        self.malformed += 1
        if self.malformed <= 10:
            name = link.peer.process_id.hex()[:16]
            print(f"actorlib: refused a message of {name}: {reason}", file=sys.stderr, flush=True)
        if link.hello is not None or link.dialled:
            self.drop_link(link.peer.process_id, f"malformed message: {reason}")

    def dispatch(self, link: Link, message: Any) -> None:
        handler = self.handlers.get(type(message))
        if handler is None:
            if type(message) is not messages.Goodbye:
                print(f"actorlib: nobody here handles {type(message).__name__}", file=sys.stderr, flush=True)
            return
        if self._debug:
            self._dispatch_watched(handler, link, message)
            return
        try:
            handler(link, message)
        except Exception as error:
            self._failed(link, message, error)

    def _failed(self, link: Link, message: Any, error: Exception) -> None:
        """A handler raised: that is a bug of ours. Whoever asked gets an answer all the same, so nothing hangs."""
        self._report(f"handling {type(message).__name__}")
        request_id = getattr(message, "request_id", 0)
        if request_id and type(message) is not messages.Failure:
            text = f"internal error while handling {type(message).__name__}: {type(error).__name__}: {error}"
            link.send(messages.Failure(request_id, "ActorlibError", text))

    def _dispatch_watched(self, handler: Handler, link: Link, message: Any) -> None:
        if self._trace is not None:
            self._trace.info("%.6f < %s %s", time.monotonic(), link.peer.process_id.hex()[:8], _shorten(message))
        started = time.monotonic()
        try:
            handler(link, message)
        except Exception as error:
            self._failed(link, message, error)
        now = time.monotonic()
        took_s = now - started
        if self.check is not None and now >= self._check_after:
            self._check(self.check, now)
        if took_s > SLOW_HANDLER_S:
            stack = "".join(traceback.format_stack(limit=8))
            print(f"actorlib: {type(message).__name__} held the loop for {took_s:.3f} s\n{stack}", file=sys.stderr)

    def _check(self, check: Callable[[], None], began: float) -> None:
        """The cores' invariants, after each message as long as that takes at most half of the time."""
        try:
            check()
        except AssertionError:
            self._report("an invariant")
        now = time.monotonic()
        self._check_after = now + (now - began if now - began > CHEAP_CHECK_S else 0.0)

    # -- sending -------------------------------------------------------------------------------------------------------
    def _flush(self) -> bool:
        if not self.dirty:
            return False
        dirty, self.dirty = self.dirty, []
        now = time.monotonic()
        for link in dirty:
            if link.pending and not link.is_down:
                self._flush_link(link, now)
        return True

    def _flush_link(self, link: SocketLink, now: float) -> None:
        while link.pending:
            if not link.session.has_credit():
                self._schedule_sweep(link, now, retry=True)
                return
            batch, link.pending = link.pending[: limits.batch_messages_max], link.pending[limits.batch_messages_max :]
            if self._trace is not None:
                for message in batch:
                    self._trace.info("%.6f > %s %s", now, link.peer.process_id.hex()[:8], _shorten(message))
            frames = codec.encode_batch(batch)
            size = len(frames[0]) if len(frames) == 1 else sum(len(frame) for frame in frames)
            self._send_frames(link, link.session.outgoing(now, frames, size))
            self._schedule_sweep(link, now)

    def _send_frames(self, link: SocketLink, frames: list[Any]) -> None:
        socket = self._sockets.outbox if link.dialled else self._sockets.inbox
        try:
            socket.send_multipart([link.name, *frames], NOBLOCK)
        except zmq.Again:
            return  # the session sends it again
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.ENOTSOCK, zmq.ETERM):
                raise

    def _schedule_sweep(self, link: SocketLink, now: float, retry: bool = False) -> None:
        """See to it that the sessions' deadlines are looked at in time."""
        at = now + 0.01 if retry else link.session.next_deadline()
        if at != float("inf") and (not self._session_sweep_at or at < self._session_sweep_at):
            self._session_sweep_at = at

    def _sweep_sessions(self, now: float) -> None:
        self._session_sweep_at = 0.0
        for link in [*self._dialled.values(), *self._accepted.values()]:
            if link.session.next_deadline() <= now:
                for frames in link.session.on_timer(now):
                    self._send_frames(link, frames)
            if link.pending and link not in self.dirty:
                self.dirty.append(link)
            self._schedule_sweep(link, now)

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
        self._sockets.close()
        self._epoll.close()
        os.close(self._wake_fd)
        if self._trace is not None:
            for handler in self._trace.handlers:
                handler.close()

    def _take_for_closing(self) -> None:
        while not self._lock.acquire(timeout=0.01):
            self.post(_call, _nothing)
            self._wake()
            if self._closing:
                return
        self._owner = threading.get_ident()


def _call(callback: Callable[[], None]) -> None:
    callback()


def _nothing() -> None:
    """Posted where only a wakeup is wanted."""


def _shorten(message: Any) -> str:
    text = repr(message)
    return text if len(text) <= 400 else text[:400] + "..."


def _open_trace(directory: str, process_id: ProcessId) -> logging.Logger:
    """A logger of its own, outside of the user's logging tree, that rotates its file."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, f"trace-{process_id.hex()}.log")
    logger = logging.Logger(f"actorlib.trace.{process_id.hex()}")
    logger.addHandler(logging.handlers.RotatingFileHandler(path, maxBytes=16 << 20, backupCount=2))
    return logger
