"""Prints for a driver that does not take them: bounded, the newest kept, and what is missing is counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actorlib.scheduler.drivers.output import Forwarder
from actorlib.scheduler.print_backlog import PrintBacklog
from actorlib.transport import limits
from actorlib.transport.ids import ProcessId
from actorlib.transport.messages import LogLines

PIECE = 64 << 10


def lines(number, size=PIECE):
    return LogLines(ProcessId(b"w" * 8), 7, "f", "out", f"{number:06}\n".ljust(size, "x"))


class Link:
    """A driver that takes what is sent when it is told to."""

    def __init__(self):
        self.sent = []
        self.taken = 0
        self.is_down = False

    def send(self, message):
        self.sent.append(message)

    def bytes_on_the_way(self):
        return sum(len(message.text) for message in self.sent[self.taken :])


class Host:
    """Timers that are fired by hand."""

    def __init__(self):
        self.due = []

    def bytes_on_the_way(self, link):
        return link.bytes_on_the_way()

    def call_later(self, delay_s, callback):
        self.due.append(callback)

    def fire(self):
        due, self.due = self.due, []
        for callback in due:
            callback()


def test_what_a_driver_takes_is_sent_at_once():
    link, host = Link(), Host()
    forwarder = Forwarder(host)
    for number in range(100):
        forwarder.send(link, lines(number))
        link.taken = len(link.sent)
    assert link.sent == [lines(number) for number in range(100)] and not host.due


def test_a_stopped_driver_costs_a_bounded_amount_and_sees_the_newest_when_it_goes_on():
    link, host = Link(), Host()
    forwarder = Forwarder(host)
    for number in range(1000):
        forwarder.send(link, lines(number))
        host.fire()
    on_the_way = len(link.sent)
    assert on_the_way == limits.print_on_the_way_bytes_max // PIECE
    kept = limits.print_backlog_bytes_max // PIECE
    while host.due:
        link.taken = len(link.sent)
        host.fire()
    after = link.sent[on_the_way:]
    dropped = 2 * (1000 - on_the_way - kept)  # two lines in each
    told = f"[actorlib: {dropped} lines of prints were dropped: this program did not take them]\n"
    assert after[0].text.startswith(told) and dropped > 1000
    assert [after[0]._replace(text=after[0].text.removeprefix(told)), *after[1:]] == [
        lines(number) for number in range(1000 - kept, 1000)
    ]


def test_a_driver_that_is_gone_is_forgotten():
    link, host = Link(), Host()
    forwarder = Forwarder(host)
    for number in range(100):
        forwarder.send(link, lines(number))
    link.is_down = True
    host.fire()
    assert not host.due and not forwarder._waiting


@given(st.lists(st.tuples(st.integers(1, 3 << 20), st.booleans())))
def test_it_never_holds_more_than_it_may(steps):
    backlog = PrintBacklog()
    for size, is_taken in steps:
        backlog.add(lines(0, size))
        backlog.check()
        if is_taken:
            taken = backlog.take(size)
            assert len(taken) <= 1 or sum(len(message.text) for message in taken[:-1]) < size
            backlog.check()
