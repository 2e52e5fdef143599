"""Calls to an actor that moves: which of them go on, which are lost, and in which order."""

from __future__ import annotations

import pytest

from actorlib.runtime.actor_client import ActorClients
from actorlib.runtime.completion import Completion
from actorlib.runtime.task import Task, TaskState
from actorlib.store.owner import Entry, OwnerTable
from actorlib.transport import messages as m
from actorlib.transport.ids import object_id
from actorlib.transport.link import NOWHERE, Address

ME, ACTOR = Address(b"me......", b"node....", ""), b"actor..........."


class Link:
    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)


class House:
    """The clients of one process, and the actor that they call."""

    def __init__(self):
        self.links, self.to_the_gcs = {}, []
        self.table = OwnerTable(ME, self)
        self.clients = ActorClients(self.table, Completion(self.table, self), self)
        self.client = self.clients.client(ACTOR, "Counter")
        self.client.keeps_order = True

    def link(self, address):
        return self.links.setdefault(address.process_id, Link())

    def drop_link(self, process_id, reason):
        self.links.pop(process_id, None)

    def post_pump(self):
        return

    def to_gcs(self, message):
        self.to_the_gcs.append(message)

    def actor_error(self, update, label, task):
        return (m.VALUE_ERROR, update.state.encode(), update.reason)

    def error_value(self, kind, text):
        return (m.VALUE_ERROR, kind.encode(), text)

    def record(self, *what):
        return

    def deadline_met(self, task):
        return

    def call_later(self, delay_s, callback):
        return None

    def submit(self, number):
        task = Task(number.to_bytes(16, "big"), "add", b"", None, 1, 0, "add")
        self.table.entries[object_id(task.task_id, 0)] = Entry(task)
        self.clients.submit(self.client, task)
        return task

    def update(self, state, incarnation, moved=False):
        worker = self.worker(incarnation) if state == "ALIVE" else NOWHERE
        self.clients.updated(m.ActorUpdate(ACTOR, incarnation, state, worker, "why", None, None, -1, "", moved))
        self.clients.pump()
        self.clients.check()

    @staticmethod
    def worker(incarnation):
        return Address(b"worker%d." % incarnation, b"node....", "")

    def sent(self, incarnation):
        """The numbers of the calls that were sent to that incarnation, in order."""
        sent = self.link(self.worker(incarnation)).sent
        calls = [call for message in sent if type(message) is m.RunActorCalls for call in message.calls]
        return [int.from_bytes(call.task_id, "big") for call in calls]

    def refuse(self, *numbers):
        ids = tuple(number.to_bytes(16, "big") for number in numbers)
        self.clients.refused(self.client, m.ActorCallsRefused(ACTOR, ids, "it leaves"))


@pytest.fixture
def house():
    house = House()
    house.tasks = [house.submit(number) for number in range(6)]
    house.update("ALIVE", 0)
    assert house.sent(0) == [0, 1, 2, 3, 4, 5]
    return house


def test_what_was_refused_in_several_messages_goes_on_in_its_order(house):
    house.refuse(2, 3)
    house.refuse(4, 5)
    house.refuse(0, 1)
    house.submit(6)
    house.update("RESTARTING", 1, moved=True)
    house.update("ALIVE", 1, moved=True)
    assert house.sent(1) == [0, 1, 2, 3, 4, 5, 6]


def test_what_an_actor_that_moved_has_not_answered_never_began_and_goes_on(house):
    house.update("RESTARTING", 1, moved=True)
    house.update("ALIVE", 1, moved=True)
    assert house.sent(1) == [0, 1, 2, 3, 4, 5]
    assert [task.extra for task in house.tasks] == [None] * 6, "moving is no attempt"


@pytest.mark.parametrize(("incarnation", "moved"), [(1, False), (2, True)], ids=["a crash", "a crash, then a move"])
def test_what_was_in_flight_at_a_crash_is_lost_without_retries(house, incarnation, moved):
    house.update("RESTARTING", incarnation, moved)
    assert all(task.state is TaskState.FINISHED for task in house.tasks)
