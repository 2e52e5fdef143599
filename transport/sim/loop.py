"""The loop of a simulated process: the real link layer over the simulated network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import greenlet

from actorlib.transport import messages
from actorlib.transport.drivers.link_layer import LinkLayer, LoopTimer, SocketLink, _call
from actorlib.transport.link import Address, Handler, Link
from actorlib.transport.sim.network import Network
from actorlib.transport.sim.world import Timer, World

ROUNDS_MAX = 10_000


class Gone(BaseException):
    """Raised in a turn of a process that has died in the middle of it: nothing more of that turn happens."""


class Waiter:
    """A greenlet that waits for something, with a limit or for as long as it takes."""

    __slots__ = ("greenlet", "has_limit", "until")

    def __init__(self, until: Callable[[], bool], has_limit: bool) -> None:
        self.until = until
        self.has_limit = has_limit
        self.greenlet = greenlet.getcurrent()


class SimLoop(LinkLayer):
    """Stands in for ``drivers.loop.Loop``. ``failed`` collects what handlers raised: in a simulation that is a bug."""

    def __init__(
        self,
        world: World,
        network: Network,
        address: Address,
        hello: messages.Hello,
        handlers: dict[type, Handler],
        on_link_down: Callable[[Link, str], None],
    ) -> None:
        super().__init__(address, hello, handlers, on_link_down, world.now)
        self.world = world
        self.network = network
        self.is_dead = False
        self.stalled_until = 0.0  # it waits for its disk until then
        self._pauses = 0
        self._held: list[Callable[[], None]] = []  # greenlets of ours that would have gone on meanwhile
        self.failed: list[str] = []
        self.turns = 0
        self._inbox: list[tuple[bytes, list[bytes], bool]] = []
        self._waiters: list[Waiter] = []
        self._turn_due = False
        self._wake_at = float("inf")
        self._alarm: Timer | None = None
        self._name = address.process_id.hex()[:6]
        network.add(self)

    def start_helper(self) -> None:
        return  # the world turns every loop

    # -- carried out over the network ----------------------------------------------------------------------------------
    def _connect(self, link: SocketLink) -> None:
        self.network.dialled(self, link)

    def _disconnect(self, link: SocketLink) -> None:
        return  # the network knows no connections; late batches of the link find no name

    def _send_frames(self, link: SocketLink, frames: list[Any]) -> None:
        if not self.is_dead:
            self.network.send(self, link, frames)

    def arrived(self, name: bytes, batch: list[bytes], at_inbox: bool) -> None:
        if not self.is_dead:
            self._inbox.append((name, batch, at_inbox))
            self._be_due()

    def _report(self, what: str) -> None:
        super()._report(what)
        self.failed.append(what)

    # -- turning -------------------------------------------------------------------------------------------------------
    def post(self, callback: Callable[[Any], None], argument: Any) -> None:
        self._posted.append((callback, argument))
        self._be_due()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> LoopTimer:
        timer = super().call_later(delay_s, callback)
        if self.world.turning is not self:  # else the end of this turn sees to it
            self._be_due()
        return timer

    def _be_due(self) -> None:
        if not self._turn_due and not self.is_dead:
            self._turn_due = True
            self.world.schedule(0.0, self._turn_event)

    def _turn_event(self) -> None:
        self._turn_due = False
        if self.is_dead or self._pauses:
            return
        if self.world.time < self.stalled_until:
            self._turn_due = True
            self.world.schedule_at(self.stalled_until, self._turn_event)
            return
        self.world.turning = self
        try:
            self.turn()
        except Gone:
            self.die()
        self.world.turning = None
        self.turns += 1
        for look in self.world.on_turn:
            look(self)
        if self._waiters:
            self._wake_waiters()

    def turn(self) -> None:
        """What has arrived, what was posted, timers that are due, and what is to be sent for all of it."""
        for _ in range(ROUNDS_MAX):
            inbox, self._inbox = self._inbox, []
            for name, batch, at_inbox in inbox:
                self._take(name, batch, at_inbox)
            self._run_timers()
            if not self._run_posted() and not self._flush() and not inbox:
                break
        self._plan_wake()

    def _take(self, name: bytes, batch: list[bytes], at_inbox: bool) -> None:
        frames = [name, *batch]
        if at_inbox:
            self._on_batch(self._accepted.get(name) or self._accept(name), frames)
        elif name in self._named:
            self._on_batch(self._named[name], frames)

    def _plan_wake(self) -> None:
        at = self._timers[0][0] if self._timers else float("inf")
        if self._session_sweep_at:
            at = min(at, self._session_sweep_at)
        if self._alarm is not None and self._wake_at != at:
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None and at != float("inf"):
            self._wake_at = at
            self._alarm = self.world.schedule_at(at, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self._be_due()

    def _wake_waiters(self) -> None:
        for waiter in list(self._waiters):
            if waiter in self._waiters and waiter.until():
                self._waiters.remove(waiter)
                self.world.resume(waiter.greenlet)
                if self.is_dead:
                    return

    def dispatch(self, link: Link, message: Any) -> None:
        self.world.note(self._name, message)
        for look in self.world.on_message:
            look(self, link, message)
        super().dispatch(link, message)

    # -- waiting -------------------------------------------------------------------------------------------------------
    def drive(self, until: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until ``until()``; the world goes on meanwhile."""
        if until():
            return True
        waiter = Waiter(until, timeout_s is not None)
        over: list[bool] = []

        def time_is_over() -> None:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                over.append(True)
                self.world.resume(waiter.greenlet)

        self._waiters.append(waiter)
        timer = self.world.schedule(timeout_s, time_is_over) if timeout_s is not None else None
        self._be_due()
        try:
            self.world.wait(timed=timer is not None)
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return not over or until()

    def run(self, function: Callable[[], Any]) -> Any:
        self._run_posted()
        result = function()
        self._be_due()
        return result

    # -- what only a real process has ----------------------------------------------------------------------------------
    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        return

    def remove_reader(self, fd: int) -> None:
        return

    def close(self, goodbye: str = "closing") -> None:
        if self.is_dead:
            return
        for link in list(self._dialled.values()):
            link.send(messages.Goodbye(goodbye))
        self.turn()
        self.die()

    def die(self) -> None:
        """As SIGKILL: nothing more is sent, handled or resumed."""
        self.is_dead = True
        self._waiters.clear()
        self._inbox.clear()
        self._posted.clear()
        self._held.clear()

    # -- for whoever watches -------------------------------------------------------------------------------------------
    def told(self) -> str:
        return f"{self.hello.role} {self._name}"

    def sessions(self) -> list[SocketLink]:
        return [*self._dialled.values(), *self._accepted.values()]

    def waits_without_limit(self) -> bool:
        """Whether code of this process waits, and only for others."""
        return bool(self._waiters) and not any(waiter.has_limit for waiter in self._waiters)

    # -- stopped and slow processes ------------------------------------------------------------------------------------
    @property
    def is_paused(self) -> bool:
        return self._pauses > 0

    def pause(self) -> None:
        """As SIGSTOP, until ``go_on`` has been called as often."""
        self._pauses += 1

    def go_on(self) -> None:
        if self._pauses == 0 or self.is_dead:
            return
        self._pauses -= 1
        if self._pauses:
            return
        held, self._held = self._held, []
        for resume in held:
            self.world.schedule(0.0, resume)
        self._posted.append((_call, lambda: None))
        self._turn_due = False
        self._be_due()

    def hold(self, go_on: Callable[[], None]) -> bool:
        """Whether a greenlet of this process has to wait until the process goes on."""
        if self._pauses and not self.is_dead:
            self._held.append(go_on)
        return self._pauses > 0

    def stall(self, seconds: float) -> None:
        """A handler waits for the disk: what it sends leaves afterwards, and nothing else happens here meanwhile."""
        self.stalled_until = max(self.stalled_until, self.world.time) + seconds
