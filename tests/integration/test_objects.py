"""Objects, references and shared memory on real processes."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest

import actorlib
from actorlib.transport import messages
from tests.conftest import eventually


def engine():
    return actorlib.engine.Slot.engine


def store_usage():
    return engine().node_status()["store"][0]


@actorlib.remote
def make(n):
    return np.arange(n, dtype=np.float64)


@actorlib.remote
def total(array):
    return float(array.sum())


@actorlib.remote
def nested():
    return [actorlib.put(np.ones(100_000)), actorlib.put("small")]


def test_large_arrays_are_read_without_a_copy_and_read_only(local):
    array = np.arange(1_000_000, dtype=np.float64)
    back = actorlib.get(actorlib.put(array), timeout=10)
    assert (back == array).all()
    assert not back.flags.writeable and not back.flags.owndata
    with pytest.raises(ValueError):
        back[0] = 1


def test_large_results_and_arguments(local):
    ref = make.remote(500_000)
    assert actorlib.get(total.remote(ref), timeout=10) == sum(range(500_000))
    assert actorlib.get(total.remote(np.ones(300_000)), timeout=10) == 300_000


def test_a_put_value_does_not_change_with_its_original(local):
    small, large = np.zeros(10), np.zeros(1_000_000)
    refs = actorlib.put(small), actorlib.put(large)
    small[:], large[:] = 1, 1
    assert actorlib.get(refs[0]).sum() == 0 and actorlib.get(refs[1]).sum() == 0


def test_references_inside_values_keep_what_they_refer_to(local):
    outer = nested.remote()
    big, small = actorlib.get(outer, timeout=10)
    del outer
    gc.collect()
    assert actorlib.get(big, timeout=10).sum() == 100_000
    assert actorlib.get(small, timeout=10) == "small"


def test_everything_is_freed_and_every_count_returns_to_zero(local):
    refs = [make.remote(200_000) for _ in range(5)]
    values = actorlib.get([total.remote(ref) for ref in refs], timeout=20)
    assert len(set(values)) == 1
    boxes = actorlib.get([nested.remote() for _ in range(3)], timeout=10)
    held = actorlib.put({"refs": refs, "boxes": boxes})
    assert len(actorlib.get(actorlib.get(held)["refs"], timeout=10)) == 5
    del refs, boxes, held, values
    gc.collect()
    assert eventually(lambda: not engine().table.living()), engine().table.living()
    assert eventually(lambda: store_usage()["objects"] == 0), store_usage()


def test_a_readers_view_does_not_change_when_the_object_is_freed(local):
    ref = actorlib.put(np.full(2_000_000, 7.0))
    view = actorlib.get(ref)
    del ref
    for value in range(5):
        other = actorlib.put(np.full(2_000_000, float(value)))
        del other
    assert (view == 7.0).all()


def test_memory_is_used_again(local):
    array = np.zeros(4_000_000)
    for _ in range(10):
        ref = actorlib.put(array)
        del ref
    assert store_usage()["slab_bytes"] <= 3 * array.nbytes


def test_a_hundred_thousand_refs_in_one_get(local):
    ref = actorlib.put(1)
    assert sum(actorlib.get([ref] * 100_000)) == 100_000


def test_spilling_and_restoring():
    actorlib.init(num_cpus=1, object_store_memory=100 << 20)
    try:
        refs = [actorlib.put(np.full(2_500_000, float(i))) for i in range(10)]  # 20 MB each: twice what there is
        assert store_usage()["spilled_bytes"] > 0
        for i, ref in enumerate(refs):
            array = actorlib.get(ref, timeout=20)
            assert array[0] == i and array[-1] == i
            del array
        del refs, ref
        gc.collect()
        assert eventually(lambda: store_usage()["objects"] == 0 and store_usage()["spilled_bytes"] == 0)
    finally:
        actorlib.shutdown()


def test_an_object_larger_than_the_store():
    actorlib.init(num_cpus=1, object_store_memory=64 << 20)
    try:
        with pytest.raises(actorlib.exceptions.ObjectStoreFullError, match="does not fit"):
            actorlib.put(np.zeros(20_000_000))
        assert actorlib.get(actorlib.put(1)) == 1
    finally:
        actorlib.shutdown()


def test_a_lost_object_is_made_again_by_its_task(local, tmp_path):
    runs = tmp_path / "runs"

    @actorlib.remote
    def counted():
        with open(runs, "a") as target:
            target.write("x")
        return np.ones(1_000_000)

    @actorlib.remote
    def double(array):
        return array * 2

    base = counted.remote()
    doubled = double.remote(base)
    assert actorlib.get(doubled, timeout=10).sum() == 2_000_000
    for path in {engine().table.entries[ref._id].value[2] for ref in (base, doubled)}:
        os.unlink(path)
    engine().store.close()
    assert actorlib.get(doubled, timeout=20).sum() == 2_000_000
    assert runs.read_text() == "xx"


def test_a_lost_put_object_says_so(local):
    ref = actorlib.put(np.ones(300_000))
    os.unlink(engine().table.entries[ref._id].value[2])
    with pytest.raises(actorlib.exceptions.ObjectLostError, match="put"):
        actorlib.get(ref, timeout=10)


def test_the_owner_dies(local):
    @actorlib.remote
    class Owner:
        def make(self):
            return [actorlib.put("mine")]

        def pid(self):
            return os.getpid()

    owner = Owner.remote()
    inner = actorlib.get(owner.make.remote(), timeout=10)[0]
    actorlib.kill(owner)
    with pytest.raises(actorlib.exceptions.OwnerDiedError, match="owned"):
        actorlib.get(inner, timeout=10)


def test_what_a_task_made_outlives_its_owner(local):
    @actorlib.remote
    def array():
        return np.full(300_000, 2.0)

    @actorlib.remote
    def double(value):
        return value * 2

    @actorlib.remote(num_cpus=0)
    class Owner:
        def make(self):
            return [double.remote(array.remote())]

    owner = Owner.remote()
    inner = actorlib.get(owner.make.remote(), timeout=30)[0]
    actorlib.wait([inner], timeout=30)
    query = lambda: engine().ask(engine().gcs, lambda rid: messages.StateQuery(rid, "lineage", 10), 30)  # noqa: E731
    assert eventually(lambda: len(query().rows) == 2)
    actorlib.kill(owner)
    again = double.remote(inner)
    assert actorlib.get(again, timeout=60)[0] == 8.0
    assert actorlib.get(inner, timeout=60)[0] == 4.0
