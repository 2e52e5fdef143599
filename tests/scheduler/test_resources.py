"""Exact arithmetic of resources, against plain integers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.scheduler.resources import UNIT, Pool, fits, show, to_units

amounts = st.integers(0, 4 * UNIT)
demands = st.fixed_dictionaries({}, optional={"CPU": amounts, "memory": amounts, "lamp": amounts})


@pytest.mark.parametrize(("amount", "units"), [(1, 10_000), (0.0001, 1), (0.3, 3_000), (0, 0), (1.1, 11_000)])
def test_amounts_are_whole_numbers_of_ten_thousandths(amount, units):
    assert to_units("CPU", amount) == units


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), 0.00001])
def test_other_amounts_are_refused(amount):
    with pytest.raises(ValueError, match="CPU"):
        to_units("CPU", amount)


@pytest.mark.parametrize("amount", ["1", None, True])
def test_what_is_no_number_is_refused(amount):
    with pytest.raises(TypeError, match="CPU"):
        to_units("CPU", amount)


def test_a_holder_takes_once():
    pool = Pool({"CPU": 2 * UNIT})
    assert pool.take(b"a", {"CPU": UNIT}) is pool.take(b"a", {"CPU": UNIT})
    assert pool.available["CPU"] == UNIT
    assert pool.release(b"a") and not pool.release(b"a")
    assert pool.available == pool.total


def test_fractions_share_a_device_and_whole_demands_get_their_own():
    pool = Pool({"GPU": 2 * UNIT})
    first, second = pool.take(b"1", {"GPU": UNIT // 2}), pool.take(b"2", {"GPU": UNIT // 2})
    assert first.devices == second.devices == {"GPU": (0,)}
    assert pool.take(b"3", {"GPU": UNIT}).devices == {"GPU": (1,)}
    assert pool.take(b"4", {"GPU": 1}) is None
    pool.release(b"1")
    assert pool.take(b"5", {"GPU": UNIT}) is None  # half of device 0 is still in use
    assert pool.take(b"6", {"GPU": UNIT // 2}).devices == {"GPU": (0,)}


def test_a_blocked_holder_lends_its_cpu_and_may_overdraw_when_it_goes_on():
    pool = Pool({"CPU": UNIT})
    pool.take(b"parent", {"CPU": UNIT})
    assert pool.take(b"child", {"CPU": UNIT}) is None
    pool.lend_cpu(b"parent")
    assert pool.take(b"child", {"CPU": UNIT}) is not None
    pool.reclaim_cpu(b"parent")
    assert pool.available["CPU"] == -UNIT and pool.visible()["CPU"] == 0
    pool.release(b"child")
    pool.release(b"parent")
    assert pool.available == pool.total


def test_released_while_lent():
    pool = Pool({"CPU": UNIT})
    pool.take(b"parent", {"CPU": UNIT})
    pool.lend_cpu(b"parent")
    pool.release(b"parent")
    assert pool.available == pool.total


def test_show():
    assert show({"CPU": 2 * UNIT, "GPU": UNIT // 2, "none": 0}) == "2 CPU, 0.5 GPU"
    assert show({"memory": (5 << 29) * UNIT}) == "2.5 GiB memory"
    assert show({"memory": (3 << 20) * UNIT}) == "3 MiB memory"
    assert show({}) == "nothing"


@settings(max_examples=300, deadline=None, database=None)
@given(demands, st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("trlcs"), demands), max_size=40))
def test_a_pool_agrees_with_a_simple_model(total, steps):
    pool, held, lent = Pool(total), {}, {}
    for name, action, demand in steps:
        holder = name.encode()
        free = {
            kind: total[kind]
            - sum(other.get(kind, 0) for other in held.values())
            + (sum(lent.values()) if kind == "CPU" else 0)
            for kind in total
        }
        if action == "t":
            taken = pool.take(holder, demand)
            assert (taken is not None) == (holder in held or fits(demand, free))
            if holder not in held and taken is not None:
                held[holder] = dict(demand)
        elif action == "r":
            assert pool.release(holder) == (holder in held)
            held.pop(holder, None)
            lent.pop(holder, None)
        elif action == "l":
            pool.lend_cpu(holder)
            if holder in held:
                lent[holder] = held[holder].get("CPU", 0)
        elif action == "c":
            pool.reclaim_cpu(holder)
            lent.pop(holder, None)
        elif holder not in lent:
            pool.shrink(holder, demand)
            if holder in held:
                held[holder] = {kind: min(amount, demand.get(kind, 0)) for kind, amount in held[holder].items()}
        pool.check()
    for holder in list(held):
        pool.release(holder)
    assert {kind: pool.available[kind] for kind in total} == total


@settings(max_examples=200, deadline=None, database=None)
@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3 * UNIT), st.booleans()), max_size=30))
def test_devices_are_never_given_out_twice(count, steps):
    pool = Pool({"GPU": count * UNIT})
    for name, amount, takes in steps:
        if takes:
            whole = amount if amount < UNIT else amount // UNIT * UNIT
            holding = pool.take(bytes([name]), {"GPU": whole})
            if holding is not None:
                assert len(holding.devices["GPU"]) == -(-holding.resources["GPU"] // UNIT)
        else:
            pool.release(bytes([name]))
        use = {index: 0 for index in range(count)}
        for holding in pool.holdings.values():
            for index in holding.devices["GPU"]:
                use[index] += min(holding.resources["GPU"], UNIT)
        assert all(amount <= UNIT for amount in use.values())
        pool.check()
