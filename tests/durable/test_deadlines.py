"""A durable actor's call that ran past its deadline and was killed: as if it had crashed its worker."""

from __future__ import annotations

import time

import pytest

import actorlib
from actorlib import exceptions
from actorlib.runtime.call_log import CallLog, Known, Recovery, Reply
from actorlib.runtime.call_log_format import CALL, SKIPPED
from actorlib.testing import simulate
from actorlib.transport import limits
from actorlib.util.state import actor_log

T = 300


def test_a_call_that_is_skipped_is_answered_and_stays_so():
    """The core: what the log tells of it, and that whoever asks again gets the answer that is kept."""
    arguments = (b"", (), 1, {"timeout_s": 0.5})
    log = CallLog()
    log.position = 0
    position = log.begin(b"caller-a", 4, "stuck", arguments, 0)
    log.skip(position, "it ended its worker 3 times in a row")
    records = log.take()
    assert [record[0] for record in records] == [CALL, SKIPPED]
    for _ in range(2):  # also when it is recovered once more
        (logged,) = Recovery(records, 0).calls
        assert (logged.position, logged.sequence) == (1, 4) and "3 times" in logged.skipped
    log.finish(b"caller-a", 4, Reply(2, (b"crashed",), ()))
    assert log.known(b"caller-a", 4) is Known.ANSWERED and log.reply_to(b"caller-a", 4).values == (b"crashed",)


@actorlib.remote(num_cpus=0, checkpoint=100)
class Sticky:
    def __init__(self):
        self.total = 0

    def add(self, amount):
        self.total += amount
        return self.total

    def stuck(self, notes, other):
        actorlib.get(other.add.remote(1))  # before that leaves, it is written that this call runs
        with open(notes, "a") as target:
            target.write("stuck\n")
        while True:
            time.sleep(0.05)


@actorlib.remote(num_cpus=0)
class Caller:
    """Asks once, and says nothing more to that actor."""

    def ask(self, sticky, notes, other):
        try:
            actorlib.get(sticky.stuck.options(timeout_s=2.0).remote(notes, other))
        except exceptions.DeadlineExceededError as error:
            return str(error)


def worker_of(world, handle):
    return next(w for _, w in world.workers.values() if w.spec is not None and w.spec.actor_id == handle._actor_id)


@pytest.mark.parametrize("seed", range(4))
def test_the_third_kill_by_deadline_is_answered_with_worker_crashed_error(seed, tmp_path):
    notes = tmp_path / "notes"
    with simulate(seed=seed) as world:
        sticky, other, caller = Sticky.remote(), Sticky.remote(), Caller.remote()
        assert actorlib.get(sticky.add.remote(1), timeout=T) == 1
        began = time.monotonic()
        assert "timeout_s=2.000" in actorlib.get(caller.ask.remote(sticky, str(notes), other), timeout=T)
        assert time.monotonic() - began < 4.0, "its caller does not wait for the other two"
        assert actorlib.get(sticky.add.remote(1), timeout=T) == 2
        assert len(notes.read_text().split()) == limits.crashes_in_a_row_max == 3
        worker = worker_of(world, sticky)
        reply = worker.log.reply_to(worker_of(world, caller).address.process_id, 0)
        error = worker.load_error(reply.values[0])
        assert isinstance(error, exceptions.WorkerCrashedError) and "3 times in a row" in str(error)
        assert [row.outcome for row in actor_log(sticky) if row.method == "stuck"] == ["SYSTEM_ERROR"]
        world.crash_actor(sticky)
        assert actorlib.get(sticky.add.remote(1), timeout=T) == 3
        assert len(notes.read_text().split()) == 3 and actorlib.get(other.add.remote(1), timeout=T) == 2
        del sticky, other, caller
