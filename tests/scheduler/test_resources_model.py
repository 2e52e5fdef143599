"""Pools against a model of exact integers, devices included."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.scheduler.resources import UNIT, Pool, to_units

NAMES = ["CPU", "memory", "GPU"]
AMOUNTS = st.one_of(st.integers(0, 3 * UNIT), st.sampled_from([0, 1, UNIT // 2, UNIT, 2 * UNIT]))
DEMANDS = st.dictionaries(st.sampled_from([*NAMES, "lamp"]), AMOUNTS)
STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "release", "lend", "reclaim"]), st.integers(0, 5), DEMANDS), max_size=40
)


@settings(deadline=None, database=None, max_examples=300)
@given(st.integers(0, 4), STEPS)
def test_what_is_out_and_what_is_free_make_up_the_total_after_every_step(gpus, steps):
    total = {"CPU": 3 * UNIT, "memory": 5 * UNIT // 2, "GPU": gpus * UNIT}
    pool, held, lent = Pool(total), {}, set()
    for kind, number, demand in steps:
        holder = b"holder%d" % number
        before = dict(pool.available)
        if kind == "take":
            holding = pool.take(holder, demand)
            fits = all(before.get(name, 0) >= amount for name, amount in demand.items() if amount)
            if holder in held:
                assert holding.resources == held[holder]
            elif holding is None:
                whole = demand.get("GPU", 0)
                assert not fits or whole, "refused though it fits"
                assert pool.available == before
            else:
                assert fits
                held[holder] = dict(demand)
        elif kind == "release":
            assert pool.release(holder) == (held.pop(holder, None) is not None)
            lent.discard(holder)
        elif kind == "lend":
            pool.lend_cpu(holder)
            lent |= {holder} & set(held)
        else:
            pool.reclaim_cpu(holder)
            lent.discard(holder)
        pool.check()
        for name in NAMES:
            out = sum(d.get(name, 0) for h, d in held.items() if not (name == "CPU" and h in lent))
            assert pool.available[name] == total[name] - out
            assert pool.visible()[name] == max(0, total[name] - out)
            assert name == "CPU" or pool.available[name] >= 0
    for holder in list(held):
        pool.release(holder)
    assert {name: pool.available[name] for name in NAMES} == total


@settings(deadline=None, database=None, max_examples=300)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.booleans(), st.sampled_from([1, 2500, 3333, 5000, 9999, 10_000, 20_000])), max_size=30),
)
def test_fractions_of_a_gpu_share_one_device_and_no_device_holds_more_than_one(gpus, steps):
    pool, held = Pool({"GPU": gpus * UNIT}), {}
    load = dict.fromkeys(range(gpus), 0)
    for number, (releases, amount) in enumerate(steps):
        if releases and held:
            holder = next(iter(held))
            picked, share = held.pop(holder)
            pool.release(holder)
            for index in picked:
                load[index] -= share
            continue
        share = min(amount, UNIT)
        room = [index for index, used in load.items() if used + share <= UNIT]
        holding = pool.take(b"%d" % number, {"GPU": amount})
        if len(room) < max(1, amount // UNIT):
            assert holding is None
            continue
        picked = holding.devices["GPU"]
        assert len(set(picked)) == max(1, amount // UNIT) and set(picked) <= set(room)
        if amount < UNIT:
            assert load[picked[0]] == max(load[index] for index in room), "an emptier device was broken into"
        held[b"%d" % number] = picked, share
        for index in picked:
            load[index] += share
        assert pool.available["GPU"] == gpus * UNIT - sum(load.values())
    for holder in held:
        pool.release(holder)
    assert pool.available == {"GPU": gpus * UNIT}
    assert pool.take(b"all", {"GPU": gpus * UNIT}).devices["GPU"] == tuple(range(gpus))


def test_the_devices_of_a_bundle_are_those_that_it_got_from_its_node():
    node = Pool({"GPU": 4 * UNIT})
    node.take(b"other", {"GPU": UNIT})
    holding = node.take(b"bundle", {"GPU": 2 * UNIT})
    bundle = Pool({"GPU": 2 * UNIT}, holding.devices)
    assert holding.devices == {"GPU": (1, 2)}
    assert bundle.take(b"a", {"GPU": UNIT // 2}).devices == {"GPU": (1,)}
    assert bundle.take(b"b", {"GPU": UNIT}).devices == {"GPU": (2,)}
    assert bundle.take(b"c", {"GPU": UNIT}) is None
    half = Pool({"GPU": UNIT // 2}, {"GPU": (3,)})
    assert half.take(b"a", {"GPU": UNIT // 2}).devices == {"GPU": (3,)} and half.take(b"b", {"GPU": 1}) is None


def test_half_a_gpu_on_each_of_two_is_not_one_gpu():
    pool = Pool({"GPU": 2 * UNIT})
    for holder in (b"a", b"b"):
        pool.take(holder, {"GPU": 6_000})
    assert pool.available == {"GPU": 8_000}
    assert pool.take(b"c", {"GPU": 8_000}) is None and pool.available == {"GPU": 8_000}
    pool.check()


@pytest.mark.parametrize("keeps", [0, 1, 2])
def test_who_keeps_less_while_its_cpu_is_lent_does_not_give_it_back_twice(keeps):
    pool = Pool({"CPU": 4 * UNIT, "memory": 9})
    pool.take(b"actor", {"CPU": 2 * UNIT, "memory": 9})
    pool.lend_cpu(b"actor")
    pool.shrink(b"actor", {"CPU": keeps * UNIT, "memory": 4})
    assert pool.available == {"CPU": 4 * UNIT, "memory": 5}
    pool.reclaim_cpu(b"actor")
    assert pool.available == {"CPU": (4 - keeps) * UNIT, "memory": 5}
    pool.check()
    pool.release(b"actor")
    assert pool.available == pool.total


@settings(deadline=None, database=None, max_examples=200)
@given(st.integers(0, 10**9))
def test_every_multiple_of_a_ten_thousandth_is_exact(units):
    assert to_units("CPU", units / UNIT) == units
    assert to_units("CPU", float(Fraction(units, UNIT))) == units
