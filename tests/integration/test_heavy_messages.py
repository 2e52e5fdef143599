"""Much at once that is small each: together it is more than one message may be."""

from __future__ import annotations

import numpy as np
import pytest

import actorlib
from actorlib.transport import limits

pytestmark = pytest.mark.usefixtures("shared_local")

EACH_BYTES = 95_000
COUNT = limits.batch_body_bytes_max // EACH_BYTES + 50


@actorlib.remote
def total_size(*values):
    return sum(map(len, values))


@actorlib.remote(num_cpus=0)
class Measure:
    def size(self, value):
        return len(value)


def test_calls_that_wait_for_their_actor_to_be_made():
    measure, value = Measure.remote(), bytes(EACH_BYTES)
    refs = [measure.size.remote(value) for _ in range(COUNT)]
    assert actorlib.get(refs, timeout=60) == [EACH_BYTES] * COUNT


def test_tasks_in_one_window():
    value = bytes(EACH_BYTES)
    actorlib.get([total_size.remote(b"") for _ in range(100)], timeout=60)  # it is known to be fast
    assert actorlib.get([total_size.remote(value) for _ in range(2 * COUNT)], timeout=60) == [EACH_BYTES] * 2 * COUNT


def test_arguments_of_one_call():
    parts = [actorlib.put(bytes(EACH_BYTES)) for _ in range(COUNT)]
    assert actorlib.get(total_size.remote(*parts), timeout=60) == COUNT * EACH_BYTES


def test_items_of_one_generator():
    @actorlib.remote
    def items():
        for _ in range(COUNT):
            yield bytes(EACH_BYTES)

    assert sum(len(actorlib.get(ref, timeout=60)) for ref in items.remote()) == COUNT * EACH_BYTES


@pytest.mark.parametrize("count", [COUNT, "dynamic"])
def test_results_of_one_call(count):
    @actorlib.remote(num_returns=count)
    def several():
        return [bytes(EACH_BYTES)] * COUNT

    refs = several.remote() if count != "dynamic" else actorlib.get(several.remote(), timeout=60)
    assert sum(map(len, actorlib.get(refs, timeout=60))) == COUNT * EACH_BYTES


def test_a_function_that_captures_a_large_array_says_so():
    array = np.ones(limits.function_bytes_max // 8 + 1)

    @actorlib.remote
    def uses():
        return array.sum()

    with pytest.raises(ValueError, match=r"uses is 32 MB when pickled.*put\(\)"):
        uses.remote()
