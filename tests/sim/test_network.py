"""What the simulated network does to batches between two hosts."""

from __future__ import annotations

import random

import pytest

from actorlib.transport import messages
from actorlib.transport.ids import JobId, NodeId, ProcessId
from actorlib.transport.link import Address
from actorlib.transport.sim.loop import SimLoop
from actorlib.transport.sim.network import DISTRIBUTIONS, Network
from actorlib.transport.sim.world import World

HERE, THERE = NodeId(b"h" * 8), NodeId(b"t" * 8)


class Pair:
    """Two loops on two hosts; ``arrived`` is when each number came to the second."""

    def __init__(self, seed=1):
        self.world = World(seed)
        self.network = Network(self.world)
        self.arrived = []
        self.one, self.other = self._loop(b"1" * 8, HERE), self._loop(b"2" * 8, THERE)

    def _loop(self, process_id, node_id):
        address = Address(ProcessId(process_id), node_id, f"sim://{process_id}")
        hello = messages.Hello(messages.PROTOCOL_VERSION, address, "node", 1, JobId(b""), "sim")
        handlers = {messages.KvGet: lambda _, message: self.arrived.append((self.world.time, message.request_id))}
        return SimLoop(self.world, self.network, address, hello, handlers, lambda link, reason: None)

    def send(self, number, at):
        def now():
            self.one.link(self.other.address).send(messages.KvGet(number, "", b"key"))
            self.one.call_soon(lambda: None)

        self.world.schedule(at, now)

    def run(self, seconds):
        self.world.sleep(seconds)
        return [number for _, number in self.arrived]


@pytest.fixture
def pair():
    made = Pair()
    yield made
    made.world.end([])


def test_batches_arrive_within_a_moment(pair):
    for number in range(5):
        pair.send(number, 0.01 * number)
    assert pair.run(1.0) == list(range(5))
    assert all(at - 1000 < 0.01 * number + 0.01 for at, number in pair.arrived)


def test_nothing_passes_a_cut_link_until_it_is_mended(pair):
    mend = pair.network.partition(HERE, THERE, both_ways=False)
    pair.send(1, 0.0)
    assert pair.run(5.0) == [] and pair.network.lost > 0
    mend()
    assert pair.run(40.0) == [1]


def test_cuts_that_overlap_end_one_by_one(pair):
    first, second = (pair.network.partition(HERE, THERE) for _ in range(2))
    pair.send(1, 0.0)
    first()
    assert pair.run(5.0) == []
    second()
    assert pair.run(40.0) == [1]
    assert pair.network.is_calm()


def test_a_clogged_link_lets_all_go_at_once(pair):
    burst = pair.network.clog(HERE, THERE)
    for number in range(3):
        pair.send(number, 0.1 * number)
    assert pair.run(1.0) == []
    burst()
    assert pair.run(0.1) == [0, 1, 2]
    assert pair.arrived[-1][0] - pair.arrived[0][0] < 0.001


def test_a_narrow_link_carries_so_many_bytes_a_second(pair):
    pair.network.trouble(HERE, THERE).bytes_per_s = 100.0
    for number in range(3):
        pair.send(number, 0.001 * number)
    assert pair.run(30.0) == [0, 1, 2]
    assert pair.arrived[2][0] - pair.arrived[1][0] > 0.2


def test_a_slow_link_takes_longer_in_its_direction(pair):
    pair.network.trouble(HERE, THERE).extra_s = 0.7
    pair.send(1, 0.0)
    pair.run(2.0)
    assert 0.7 < pair.arrived[0][0] - 1000 < 0.8


def test_loss_duplication_and_reordering_change_nothing_but_the_time(pair):
    weather = pair.network.weather
    weather.loss = weather.duplication = weather.reordering = 0.3
    weather.held_back_s = 0.5
    for number in range(50):
        pair.send(number, 0.01 * number)
    assert pair.run(300.0) == list(range(50))
    assert pair.network.lost > 0 and pair.network.repeated > 0


def test_a_stopped_process_handles_what_came_when_it_goes_on(pair):
    pair.other.pause()
    pair.other.pause()
    pair.send(1, 0.0)
    assert pair.run(1.0) == []
    pair.other.go_on()
    assert pair.run(1.0) == []
    pair.other.go_on()
    assert pair.run(1.0) == [1]


def test_what_is_sent_while_the_disk_stalls_leaves_afterwards(pair):
    def stalled():
        pair.one.stall(2.0)
        pair.one.link(pair.other.address).send(messages.KvGet(1, "", b"key"))
        pair.one.call_soon(lambda: None)

    pair.world.schedule(0.0, stalled)
    pair.run(5.0)
    assert 2.0 <= pair.arrived[0][0] - 1000 < 2.1


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_latencies_are_never_negative_and_differ_by_their_distribution(name):
    rng = random.Random(1)
    drawn = [DISTRIBUTIONS[name](rng) for _ in range(2000)]
    assert min(drawn) >= 0.0
    assert 0.3 < sum(drawn) / len(drawn) < 8.0
    assert (max(drawn) > 20.0) == (name in ("heavy tail", "spikes"))
