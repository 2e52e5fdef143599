"""Edge chasing among workers that wait: who finds a circle, and what it costs to find none."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest

from actorlib.runtime.deadlock import Waits
from actorlib.runtime.task import Task, TaskState
from actorlib.transport import limits
from actorlib.transport.ids import NodeId, ObjectId, ProcessId, TaskId
from actorlib.transport.link import Address


class Workers:
    """Workers that own what they wait for; their calls run at other workers. Probes travel one after the other."""

    def __init__(self, count: int, seed: int = 0) -> None:
        ids = [bytes([number // 256, number % 256]) * 4 for number in range(1, count + 1)]
        random.Random(seed).shuffle(ids)
        self.addresses = [Address(ProcessId(name), NodeId(b"n" * 8), "") for name in ids]
        self.tables = [SimpleNamespace(entries={}) for _ in ids]
        self.running: list[set[TaskId]] = [set() for _ in ids]
        self.errors: dict[int, str] = {}
        self.sent = 0
        self._queue: list[tuple[Address, tuple]] = []
        self.waits = [Waits(at, self.tables[i], self._port(i)) for i, at in enumerate(self.addresses)]
        self.numbers = [0] * count

    def _port(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(
            send_to=self._send,
            is_stuck=lambda task_id: task_id in self.running[index],
            running_label=lambda: f"w{index}",
            deadlocked=lambda text: self.errors.setdefault(index, text),
        )

    def _send(self, address: Address, message: tuple) -> None:
        self.sent += 1
        self._queue.append((address, message))

    def block(self, waiter: int, *on: int) -> None:
        awaited = []
        for target in on:
            task_id = TaskId(self.addresses[waiter].process_id + self.addresses[target].process_id)
            task = Task(task_id, "f", None, None, 1, 0, "f")
            task.state = TaskState.IN_FLIGHT
            task.where = SimpleNamespace(worker=self.addresses[target])
            oid = ObjectId(task_id + b"\0" * 4)
            self.tables[waiter].entries[oid] = SimpleNamespace(value=None, task=task)
            self.running[target].add(task_id)
            awaited.append((oid, self.addresses[waiter]))
        self.numbers[waiter] = self.waits[waiter].begin(awaited)

    def probe_all(self) -> None:
        for waits, number in zip(self.waits, self.numbers, strict=True):
            if number:
                assert waits.probe(number) is not None
        at = {address.process_id: index for index, address in enumerate(self.addresses)}
        while self._queue:
            address, message = self._queue.pop(0)
            self.waits[at[address.process_id]].on_probe(message)

    def largest(self, among: range) -> int:
        return max(among, key=lambda index: self.addresses[index].process_id)


@pytest.mark.parametrize("count", [2, 3, 7, 50])
def test_of_a_circle_the_one_with_the_largest_id_raises(count):
    workers = Workers(count)
    for index in range(count):
        workers.block(index, (index + 1) % count)
    workers.probe_all()
    assert list(workers.errors) == [workers.largest(range(count))]
    text = workers.errors[workers.largest(range(count))]
    assert all(f"w{index}" in text for index in range(count)), text


def test_who_waits_for_a_circle_is_not_in_it():
    for seed in range(20):  # whoever has the largest id
        workers = Workers(6, seed)
        workers.block(0, 1)
        workers.block(1, 2)
        for index, on in ((2, 3), (3, 4), (4, 2)):
            workers.block(index, on)
        workers.probe_all()
        assert list(workers.errors) == [workers.largest(range(2, 5))]


def test_a_circle_through_one_of_several_that_are_waited_for():
    for seed in range(20):
        workers = Workers(5, seed)
        workers.block(0, 3, 1)
        workers.block(1, 4, 2)
        workers.block(2, 0)
        workers.probe_all()
        assert list(workers.errors) == [workers.largest(range(3))]


def test_a_long_chain_costs_hardly_more_than_its_length():
    """Each waits for the next, and the last one works: a thousand calls inside of calls."""
    count = 1000
    workers = Workers(count)
    for index in range(count - 1):
        workers.block(index, index + 1)
    workers.probe_all()
    assert not workers.errors
    assert workers.sent < 2 * count * math.log(count), "probes were passed on for nothing"


def test_it_is_asked_again_less_and_less_often():
    workers = Workers(2)
    workers.block(0, 1)
    pauses = [workers.waits[0].probe(workers.numbers[0]) for _ in range(6)]
    assert pauses == [1.0, 1.0, 2.0, 4.0, 4.0, 4.0] and pauses[-1] == limits.wait_probe_every_s_max
    workers.waits[0].end()
    assert workers.waits[0].probe(workers.numbers[0]) is None
    workers.block(0, 1)
    assert workers.waits[0].probe(workers.numbers[0]) == limits.wait_probe_every_s
