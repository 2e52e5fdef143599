"""Calls that wait for each other."""

from __future__ import annotations

import time

import pytest

import actorlib


@actorlib.remote
class Peer:
    def __init__(self):
        self.other = None

    def meet(self, other):
        self.other = other

    def ask(self, rounds):
        if rounds == 0:
            return "answered"
        return actorlib.get(self.other.ask.remote(rounds - 1))

    def ask_through_a_task(self):
        return actorlib.get(ask_for.remote(self.other))

    def answer(self):
        return "answered"

    def ask_myself(self):
        return actorlib.get(actorlib.get_runtime_context().current_actor.answer.remote())

    def hand_out(self):
        return [self.other.ask.remote(2)]


@actorlib.remote
def ask_for(actor):
    return actorlib.get(actor.ask.remote(1))


def ring(size):
    peers = [Peer.remote() for _ in range(size)]
    actorlib.get([peer.meet.remote(peers[(i + 1) % size]) for i, peer in enumerate(peers)], timeout=20)
    return peers


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_circle_of_actors_is_told_with_its_members(shared_local, size):
    peers = ring(size)
    with pytest.raises(actorlib.exceptions.DeadlockError) as caught:
        actorlib.get(peers[0].ask.remote(size), timeout=20)
    assert str(caught.value).count("Peer.ask") >= size
    assert actorlib.get([peer.answer.remote() for peer in peers], timeout=20) == ["answered"] * size


def test_an_actor_that_waits_for_itself(shared_local):
    (peer,) = ring(1)
    with pytest.raises(actorlib.exceptions.DeadlockError, match="ask_myself"):
        actorlib.get(peer.ask_myself.remote(), timeout=20)
    assert actorlib.get(peer.answer.remote(), timeout=20) == "answered"


def test_a_circle_through_a_task(shared_local):
    peers = ring(2)
    with pytest.raises(actorlib.exceptions.DeadlockError, match="ask_for"):
        actorlib.get(peers[0].ask_through_a_task.remote(), timeout=20)


def test_a_circle_through_a_reference_that_somebody_else_owns(shared_local):
    first, _ = ring(2)
    (inner,) = actorlib.get(first.hand_out.remote(), timeout=20)  # second asks first, which asks second

    with pytest.raises(actorlib.exceptions.DeadlockError):
        actorlib.get(inner, timeout=20)


def test_long_waits_without_a_circle_are_left_alone(shared_local):
    @actorlib.remote
    def slow():
        time.sleep(2.5)
        return 1

    @actorlib.remote
    class Waiter:
        def wait(self):
            return actorlib.get(slow.remote())

        def through(self, other):
            return actorlib.get(other.wait.remote())

    first, second = Waiter.remote(), Waiter.remote()
    refs = [first.through.remote(second), second.wait.remote()]
    assert actorlib.get(refs, timeout=30) == [1, 1]
