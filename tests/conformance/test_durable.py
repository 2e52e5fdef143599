"""Durable actors, as far as the public API can show them: what a crash leaves of them."""

from __future__ import annotations

import threading
from typing import Any

import programs
import pytest
from contract import get, shows

import actorlib

DURABLE = "Each call's effect on the state happens exactly once across crashes of the actor"


def crash(handle: Any) -> None:
    actorlib.kill(handle, no_restart=False)


def durable(**options: Any) -> Any:
    return programs.counter_class().options(checkpoint=options.pop("checkpoint", 1), max_task_retries=-1, **options)


@shows("short form `checkpoint=1000` (calls)")
def test_the_state_comes_back() -> None:
    counter = durable().remote()
    assert get([counter.add.remote() for _ in range(5)])[-1] == 5
    crash(counter)
    assert get(counter.add.remote()) == 6


@shows(DURABLE)
def test_nothing_is_lost_or_counted_twice_over_several_crashes() -> None:
    counter = durable().remote()
    for round_ in range(3):
        assert get([counter.add.remote() for _ in range(4)])[-1] == 4 * (round_ + 1)
        crash(counter)
    assert get(counter.read.remote()) == 12


@shows("kept for durable actors, each call's effect exactly once")
def test_calls_that_wait_through_a_crash_run_once() -> None:
    counter = durable().remote()
    get(counter.add.remote())
    crash(counter)
    assert get([counter.add.remote() for _ in range(10)]) == list(range(2, 12))


@shows("Restarts are unlimited unless set.")
def test_restarts_are_unlimited() -> None:
    counter = durable().remote(3)
    for _ in range(4):
        get(counter.read.remote())
        crash(counter)
    assert get(counter.read.remote()) == 3


@shows("Restarts are unlimited unless set.")
def test_restarts_can_be_limited() -> None:
    counter = durable(max_restarts=0).remote(3)
    get(counter.read.remote())
    crash(counter)
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        get(counter.read.remote())


@shows("checkpoint=actorlib.Checkpoint(every_calls=1000")
def test_a_checkpoint_object() -> None:
    counter = durable(checkpoint=actorlib.Checkpoint(every_calls=1, keep=1)).remote()
    get([counter.add.remote() for _ in range(3)])
    crash(counter)
    assert get(counter.read.remote()) == 3


@pytest.mark.parametrize("wrong", [{"every_calls": 0}, {"every_s": -1}, {"keep": 0}], ids=repr)
@shows("checkpoint=actorlib.Checkpoint(every_calls=1000")
def test_a_checkpoint_object_that_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        actorlib.Checkpoint(**wrong)


def custom() -> Any:
    @actorlib.remote(num_cpus=0, checkpoint=1, max_task_retries=-1)
    class Custom:
        def __init__(self) -> None:
            self.value = 0
            self.lock = threading.Lock()  # could not be pickled with the rest

        def __checkpoint__(self) -> Any:
            return {"value": self.value}

        def __restore__(self, state: Any) -> None:
            self.value = state["value"]
            self.lock = threading.Lock()

        def set(self, value: int) -> None:
            self.value = value

        def save(self) -> None:
            actorlib.checkpoint_now()

        def read(self) -> Any:
            with self.lock:
                return self.value

    return Custom


@shows("`__checkpoint__(self) -> state` and `__restore__(self, state)` override.")
def test_the_actors_own_way_to_save_itself() -> None:
    actor = custom().remote()
    get(actor.set.remote(5))
    get(actor.save.remote())
    crash(actor)
    assert get(actor.read.remote()) == 5


@shows("`actorlib.checkpoint_now()` inside a method")
def test_checkpoint_now() -> None:
    actor = custom().remote()
    get(actor.set.remote(7))
    get(actor.save.remote())
    crash(actor)
    assert get(actor.read.remote()) == 7


@shows("`actorlib.checkpoint_now()` inside a method")
def test_checkpoint_now_outside_of_an_actor() -> None:
    with pytest.raises(ValueError):
        actorlib.checkpoint_now()


@shows("`actorlib.checkpoint_now()` inside a method")
def test_checkpoint_now_in_an_actor_that_is_not_durable() -> None:
    @actorlib.remote(num_cpus=0)
    class Plain:
        def save(self) -> None:
            actorlib.checkpoint_now()

    with pytest.raises(ValueError):
        get(Plain.remote().save.remote())


@shows("short form `checkpoint=1000` (calls)")
def test_a_named_durable_actor_comes_back() -> None:
    counter = durable(name="lasting").remote()
    get(counter.add.remote(4))
    crash(counter)
    assert get(actorlib.get_actor("lasting").read.remote()) == 4
    actorlib.kill(counter)


@shows("short form `checkpoint=1000` (calls)")
def test_a_durable_actor_can_be_killed_for_good() -> None:
    counter = durable().remote()
    get(counter.add.remote())
    actorlib.kill(counter)
    with pytest.raises(actorlib.exceptions.ActorDiedError):
        get(counter.read.remote())


@shows("kept for durable actors, each call's effect exactly once")
def test_an_error_leaves_the_state_and_the_order() -> None:
    counter = durable().remote()
    get(counter.add.remote())
    with pytest.raises(KeyError):
        get(counter.fail.remote())
    crash(counter)
    assert get(counter.add.remote()) == 2


@shows("kept for durable actors, each call's effect exactly once")
def test_concurrency_is_refused() -> None:
    for options in ({"max_concurrency": 2}, {"concurrency_groups": {"io": 1}}):
        with pytest.raises(ValueError):
            programs.counter_class().options(checkpoint=1, **options)
