"""The links of a process and what waits on them: sessions, dispatch to handlers, timers, posted work.

``LinkLayer`` knows neither sockets nor threads: ``drivers/loop.py`` carries it over ZeroMQ, ``sim/loop.py`` over a
simulated network. Everything here runs on whoever drives the process at the time.
"""

from __future__ import annotations

import heapq
import itertools
import os
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from actorlib.transport import codec, limits, messages
from actorlib.transport.drivers.notice import notice
from actorlib.transport.ids import ProcessId
from actorlib.transport.link import Address, Handler, Link
from actorlib.transport.session import HEADER_BYTES, MalformedHeader, NewSession, Session

CHEAP_CHECK_S = 0.0002
NONCES_OF_A_LIFE_BITS = 20
LIVES_BITS = 12  # so that a nonce has 32


class SocketLink:
    """A session with one peer over one of our two sockets."""

    __slots__ = (
        "dialled",
        "hello",
        "is_down",
        "loop",
        "may_have_shortcut",
        "name",
        "peer",
        "pending",
        "sender",
        "session",
        "shortcut",
    )

    def __init__(self, loop: LinkLayer, peer: Address, dialled: bool, nonce: int) -> None:
        self.loop = loop
        self.peer = peer
        self.dialled = dialled
        self.hello: Any = None
        self.sender: Any = None  # who has proved a key for it; None: it is local, or we dialled it
        self.is_down = False
        self.shortcut: Any = None  # of drivers/shortcuts.py: the short way to a peer of the same node
        self.may_have_shortcut = dialled
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

    def __init__(self, loop: LinkLayer) -> None:
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


class Gate(Protocol):
    """Holds back messages that must not leave yet; ``LinkLayer.release`` sends them later."""

    def hold(self, dirty: list[Any]) -> list[Any]:
        """Of links with pending messages, those whose messages may leave now."""


class LinkLayer:
    """See the module's docstring. Subclasses give ``_connect``, ``_disconnect``, ``_send_frames`` and ``post``."""

    def __init__(
        self,
        address: Address,
        hello: messages.Hello,
        handlers: dict[type, Handler],
        on_link_down: Callable[[Link, str], None],
        clock: Callable[[], float],
        trace_dir: str | None = None,
    ) -> None:
        self.address = address
        self.hello = hello._replace(address=address)
        self.handlers = handlers
        self.dirty: list[SocketLink] = []
        self.malformed = 0
        self.check: Callable[[], None] | None = None  # asserts invariants; called in debug mode
        self.before_flush: Callable[[], bool] | None = None  # called before anything leaves; False holds it back
        self.gate: Gate | None = None
        self._clock = clock
        self._on_link_down = on_link_down
        self._dialled: dict[ProcessId, SocketLink] = {}
        self._named: dict[bytes, SocketLink] = {}  # the dialled ones by what the outbox calls them
        self._accepted: dict[bytes, SocketLink] = {}
        self._nonces = itertools.count(1)
        self._encoder = codec.Encoder()
        self._loopback = LoopbackLink(self)
        self._posted: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._timers: list[tuple[float, int, LoopTimer]] = []
        self._timer_count = itertools.count()
        self._session_sweep_at = 0.0
        self._check_after = 0.0
        self._debug = os.environ.get("ACTORLIB_DEBUG") == "1"
        self._trace: Any = None
        if self._debug and trace_dir:
            from actorlib.transport.drivers.trace import open_trace

            self._trace = open_trace(trace_dir, address.process_id)

    def begin_life(self, number: int) -> None:
        """For a process whose id is that of an earlier one: its sessions are later than those of all lives before.

        Else a peer would take what this life says first for a repetition of what the last one said first.
        """
        self._nonces = itertools.count(((number % (1 << LIVES_BITS)) << NONCES_OF_A_LIFE_BITS) + 1)

    # -- carried out by subclasses -------------------------------------------------------------------------------------
    def _connect(self, link: SocketLink) -> None:
        raise NotImplementedError

    def _disconnect(self, link: SocketLink) -> None:
        raise NotImplementedError

    def _send_frames(self, link: SocketLink, frames: list[Any]) -> None:
        raise NotImplementedError

    def post(self, callback: Callable[[Any], None], argument: Any) -> None:
        raise NotImplementedError

    def _vouch(self, link: SocketLink, hello: messages.Hello) -> str:
        """What speaks against believing ``hello``; "" if nothing does."""
        return ""

    # -- link.Host -----------------------------------------------------------------------------------------------------
    def now(self) -> float:
        return self._clock()

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
            self._connect(link)
        link.send(self.hello)
        return link

    def has_all_arrived(self) -> bool:
        """Whether those that have dialled us have all that was sent to them."""
        return all(not link.pending and link.session.has_all_arrived() for link in self._accepted.values())

    def links(self) -> list[Link]:
        return [*self._dialled.values(), *self._accepted.values()]

    def accepted_link(self, process_id: ProcessId) -> Link | None:
        """The link that a peer dialled to us, if it has."""
        return self._accepted.get(process_id)

    def bytes_on_the_way(self, link: Link) -> int:
        return link.session.bytes_in_flight() if isinstance(link, SocketLink) else 0

    def drop_link(self, process_id: ProcessId, reason: str) -> None:
        self.drop_dialled(process_id, reason)
        self._end_accepted(process_id, reason)

    def drop_dialled(self, process_id: ProcessId, reason: str) -> None:
        """The link that we have dialled; the peer's own to us stays, since the peer goes on with its session."""
        dialled = self._dialled.pop(process_id, None)
        if dialled is not None and self._named.pop(dialled.name, None) is not None:
            self._disconnect(dialled)
        if dialled is not None:
            self._end(dialled, reason)

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
        heapq.heappush(self._timers, (self._clock() + delay_s, next(self._timer_count), timer))
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.post(_call, callback)

    # -- posted work and timers ----------------------------------------------------------------------------------------
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
        now = self._clock()
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
        notice(f"{what} failed:\n{traceback.format_exc()}")

    # -- receiving -----------------------------------------------------------------------------------------------------
    def _accept(self, routing_id: bytes) -> SocketLink:
        peer = Address(ProcessId(routing_id), self.address.node_id, "")
        return SocketLink(self, peer, False, 0)

    def _on_batch(self, link: SocketLink, frames: list[bytes]) -> None:
        try:
            if len(frames) < 2 or len(frames[1]) < HEADER_BYTES:
                raise codec.MalformedBatch("no header")
            now = self._clock()
            for batch in link.session.incoming(now, frames[1], frames):
                self._deliver(link, batch)
        except (codec.MalformedBatch, MalformedHeader) as error:
            self._refuse(link, str(error))
            return
        except NewSession:
            if not link.dialled:
                self._end_accepted(link.peer.process_id, "the peer has begun a new session")
                later = self._accept(frames[0])
                later.sender = link.sender
                self._on_batch(later, frames)
            return
        if link.session.owes_acknowledgement():
            self._send_frames(link, [link.session.acknowledgement()])
        self._schedule_sweep(link, now)

    def _deliver(self, link: SocketLink, frames: list[bytes]) -> None:
        body = memoryview(frames[1])[HEADER_BYTES:]
        if link.hello is None and not link.dialled:
            self._check_version(link, body)
            batch = self._greet(link, codec.decode_batch(body, frames[2:]))
        else:
            batch = codec.decode_batch(body, frames[2:])
        for message in batch:
            self.dispatch(link, message)

    def _greet(self, link: SocketLink, batch: list[Any]) -> list[Any]:
        """The first batch of an accepted link says who it is, and must be telling the truth."""
        hello = batch[0] if batch else None
        if type(hello) is not messages.Hello:
            raise codec.MalformedBatch("a session starts with Hello")
        if hello.address.process_id != link.peer.process_id:
            raise codec.MalformedBatch("the process id in Hello is not that of the connection")
        doubt = self._vouch(link, hello)
        if doubt:
            self._turn_away(link, doubt)
        link.hello = hello
        link.peer = hello.address
        self._accepted[hello.address.process_id] = link
        return batch if messages.Hello in self.handlers else batch[1:]

    def _check_version(self, link: SocketLink, body: memoryview) -> None:
        """Before anything else is read: what another version says may not be readable at all."""
        version = codec.version_of(body)
        if version is not None and version != messages.PROTOCOL_VERSION:
            text = f"protocol version {version}, this process speaks {messages.PROTOCOL_VERSION}; install one version"
            self._turn_away(link, text)

    def _turn_away(self, link: SocketLink, reason: str) -> NoReturn:
        """Say why, and have no more to do with them."""
        frames = codec.encode_batch([messages.Refused(reason)])
        self._send_frames(link, link.session.outgoing(self._clock(), frames, len(frames[0])))
        raise codec.MalformedBatch(reason)

    def _refuse(self, link: SocketLink, reason: str) -> None:
        self.malformed += 1
        if self.malformed <= 10:
            name = link.peer.process_id.hex()[:16]
            notice(f"refused a message of {name}: {reason}")
        if link.hello is not None or link.dialled:
            self.drop_link(link.peer.process_id, f"malformed message: {reason}")

    def dispatch(self, link: Link, message: Any) -> None:
        handler = self.handlers.get(type(message))
        if handler is None:
            if type(message) is messages.Refused:
                self.drop_link(link.peer.process_id, f"we were refused there: {message.reason}")
            elif type(message) is not messages.Goodbye:
                notice(f"nobody here handles {type(message).__name__}")
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
            self._trace.info("%.6f < %s %s", self._clock(), link.peer.process_id.hex()[:8], _shorten(message))
        try:
            handler(link, message)
        except Exception as error:
            self._failed(link, message, error)
        now = self._clock()
        if self.check is not None and now >= self._check_after:
            self._check(self.check, now)

    def _check(self, check: Callable[[], None], began: float) -> None:
        """The cores' invariants, after each message as long as that takes at most half of the time."""
        try:
            check()
        except AssertionError:
            self._report("an invariant")
        now = self._clock()
        self._check_after = now + (now - began if now - began > CHEAP_CHECK_S else 0.0)

    # -- sending -------------------------------------------------------------------------------------------------------
    def _flush(self) -> bool:
        if not self.dirty or (self.before_flush is not None and not self.before_flush()):
            return False
        dirty, self.dirty = self.dirty, []
        if self.gate is not None:
            self.release([(link, []) for link in dirty if link.pending and link.pending[0] is self.hello])
            dirty = self.gate.hold(dirty)
        now = self._clock()
        for link in dirty:
            if link.pending and not link.is_down:
                self._flush_link(link, now)
        return True

    def release(self, held: list[tuple[Any, list[Any]]]) -> None:
        """Send what the gate has held back, before what came after it. A session starts with Hello all the same."""
        now = self._clock()
        for link, messages_held in held:
            if link.is_down:
                continue
            if link.pending and link.pending[0] is self.hello:
                messages_held = [link.pending.pop(0), *messages_held]
            later, link.pending = link.pending, messages_held
            self._flush_link(link, now)
            if link.pending and not later:
                self.dirty.append(link)
            link.pending.extend(later)

    def _flush_link(self, link: SocketLink, now: float) -> None:
        while link.pending:
            if not link.session.has_credit():
                self._schedule_sweep(link, now, retry=True)
                return
            batch, frames = self._encode_some(link.pending)
            link.pending = link.pending[len(batch) :]
            if self._trace is not None:
                for message in batch:
                    self._trace.info("%.6f > %s %s", now, link.peer.process_id.hex()[:8], _shorten(message))
            size = len(frames[0]) if len(frames) == 1 else sum(len(frame) for frame in frames)
            self._send_frames(link, link.session.outgoing(now, frames, size))
            self._schedule_sweep(link, now)

    def _encode_some(self, pending: list[Any]) -> tuple[list[Any], list[Any]]:
        """The first messages of ``pending``, as many as a batch may hold, and their frames."""
        batch = pending[: limits.batch_messages_max]
        frames = self._encoder.encode(batch)
        while len(batch) > 1 and not codec.is_acceptable(frames):
            batch = batch[: len(batch) // 2]
            frames = self._encoder.encode(batch)
        return batch, frames

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

    def _close_trace(self) -> None:
        if self._trace is not None:
            for handler in self._trace.handlers:
                handler.close()


def _call(callback: Callable[[], None]) -> None:
    callback()


def _nothing() -> None:
    """Posted where only a wakeup is wanted."""


def _shorten(message: Any) -> str:
    text = repr(message)
    return text if len(text) <= 400 else text[:400] + "..."
