"""The checker: known cases, and against one that tries every order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.testing.histories import (
    IMPOSSIBLE,
    MAYBE,
    NEVER,
    Counter,
    KeyValue,
    Lock,
    Operation,
    PlainModel,
    Queue,
    Raised,
    Register,
    Set,
    Verdict,
    check,
)


def by_brute_force(operations, model):
    """Whether any order of any choice of the pending operations explains them: the definition, word by word."""
    answered = [one for one in operations if not one.is_pending]
    pending = [one for one in operations if one.is_pending]
    for size in range(len(pending) + 1):
        for chosen in itertools.combinations(pending, size):
            if any(explains(order, model) for order in itertools.permutations([*answered, *chosen])):
                return True
    return False


def explains(order, model):
    for at, later in enumerate(order):
        if any(later.ended_s < earlier.began_s for earlier in order[:at]):
            return False
    state = model.initial()
    for one in order:
        state = model.step(state, one)
        if state is IMPOSSIBLE:
            return False
    return True


def calls(kinds, most=5):
    """Histories of a few calls; each kind is (name, arguments, result, as strategies)."""
    one = st.one_of(
        [
            st.builds(
                lambda name, args, result, began, took: Operation(
                    name,
                    args,
                    MAYBE if took is None else result,
                    float(began),
                    NEVER if took is None else float(began + took),
                ),
                st.just(name),
                st.tuples(*arguments),
                result,
                st.integers(0, 6),
                st.one_of(st.none(), st.integers(0, 4), st.integers(0, 4)),
            )
            for name, arguments, result in kinds
        ]
    )
    return st.lists(one, max_size=most)


small = st.integers(0, 2)
REGISTER = [
    ("read", (), st.one_of(st.none(), small)),
    ("write", (small,), st.none()),
    ("compare_and_set", (small, small), st.booleans()),
]
COUNTER = [("add", (), st.one_of(st.none(), st.integers(1, 4))), ("read", (), st.integers(0, 3))]
QUEUE = [("put", (small,), st.none()), ("get", (), st.one_of(st.none(), small))]
SET = [("add", (small,), st.booleans()), ("remove", (small,), st.booleans()), ("contains", (small,), st.booleans())]
KEY_VALUE = [("put", (small, small), st.none()), ("get", (small,), st.one_of(st.none(), small))]
LOCK = [("acquire", (small,), st.booleans()), ("release", (small,), st.booleans())]


class PlainRegister:
    def __init__(self):
        self.value = None

    def read(self):
        return self.value

    def write(self, value):
        self.value = value


class OneKeyForAll(KeyValue):
    """A key-value model without parts, for the brute-force checker."""

    def initial(self):
        return ()

    def step(self, state, operation):
        held = dict(state)
        key = operation.args[0]
        after = super().step(held.get(key), operation)
        return after if after is IMPOSSIBLE else tuple(sorted({**held, key: after}.items()))


@pytest.mark.parametrize(
    ("kinds", "model"),
    [
        (REGISTER, Register()),
        (COUNTER, Counter()),
        (QUEUE, Queue()),
        (LOCK, Lock()),
        (REGISTER[:2], PlainModel(PlainRegister)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
def test_agrees_with_the_definition(kinds, model):
    @settings(max_examples=150, deadline=None, database=None)
    @given(calls(kinds))
    def agrees(operations):
        found = check(operations, model)
        assert (found.verdict is Verdict.LINEARIZABLE) == by_brute_force(operations, model)
        if found.verdict is Verdict.LINEARIZABLE:
            assert explains(found.order, model)

    agrees()


@settings(max_examples=200, deadline=None, database=None)
@given(calls(KEY_VALUE))
def test_parts_judged_apart_agree_with_the_whole(operations):
    apart = check(operations, KeyValue()).verdict
    assert (apart is Verdict.LINEARIZABLE) == by_brute_force(operations, OneKeyForAll())


@settings(max_examples=200, deadline=None, database=None)
@given(calls(SET))
def test_sets_agree_with_the_definition_element_by_element(operations):
    expected = all(by_brute_force([one for one in operations if one.args == (element,)], Set()) for element in range(3))
    assert (check(operations, Set()).verdict is Verdict.LINEARIZABLE) == expected


def test_a_stale_read_is_found_and_named():
    write = Operation("write", (1,), None, 0.0, 1.0)
    stale = Operation("read", (), None, 2.0, 3.0)
    outcome = check([write, stale], Register())
    assert outcome.verdict is Verdict.NOT_LINEARIZABLE
    assert outcome.stuck == (stale,)
    overlapping = Operation("read", (), None, 0.5, 3.0)
    assert check([write, overlapping], Register()).verdict is Verdict.LINEARIZABLE


def test_a_lost_write_may_come_late_but_not_vanish_again():
    lost = Operation("write", (1,), MAYBE, 0.0)
    before, after = Operation("read", (), None, 1.0, 2.0), Operation("read", (), 1, 3.0, 4.0)
    assert check([lost, before, after], Register()).verdict is Verdict.LINEARIZABLE
    assert check([lost, before], Register()).verdict is Verdict.LINEARIZABLE
    gone = Operation("read", (), None, 5.0, 6.0)
    assert check([lost, before, after, gone], Register()).verdict is Verdict.NOT_LINEARIZABLE


def test_an_exception_is_a_result():
    class Account:
        def __init__(self):
            self.balance = 1

        def take(self, amount):
            if amount > self.balance:
                raise ValueError(f"only {self.balance} left")
            self.balance -= amount
            return self.balance

    took = Operation("take", (1,), 0, 0.0, 1.0)
    refused = Operation("take", (1,), Raised("ValueError", ("only 0 left",)), 0.0, 1.0)
    assert check([took, refused], PlainModel(Account)).verdict is Verdict.LINEARIZABLE
    assert check([took, took], PlainModel(Account)).verdict is Verdict.NOT_LINEARIZABLE


def test_a_long_history_is_quick_and_a_hard_one_ends_with_unknown():
    long = [Operation("write" if i % 2 else "read", (i,) if i % 2 else (), None, i, i + 0.5) for i in range(2)]
    for i in range(2, 4000, 2):
        long.append(Operation("write", (i,), None, i, i + 1.5))
        long.append(Operation("read", (), i, i + 1.0, i + 1.9))
    found = check([one for one in long if one.name == "write" or one.began_s > 1], Register())
    assert found.verdict is Verdict.LINEARIZABLE and found.steps < 20_000
    # Everything at once, and a sum that no subset gives: every subset is a state of its own.
    hard = [Operation("add", (1 << i,), None, 0.0, 1.0) for i in range(40)]
    hard.append(Operation("read", (), -1, 0.0, 1.0))
    assert check(hard, Counter(), time_limit_s=0.2).verdict is Verdict.UNKNOWN


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="has no 'jump'; it knows read, write, compare_and_set"):
        check([Operation("jump", (), None, 0.0, 1.0)], Register())
    with pytest.raises(ValueError, match="ended before it began"):
        check([Operation("read", (), None, 1.0, 0.0)], Register())
    with pytest.raises(ValueError, match="PlainRegister has no method 'jump'"):
        check([Operation("jump", (), None, 0.0, 1.0)], PlainModel(PlainRegister))


def test_methods_may_have_other_names():
    operations = [Operation("set", (4,), None, 0.0, 1.0), Operation("get", (), 4, 2.0, 3.0)]
    assert check(operations, Register(read="get", write="set")).verdict is Verdict.LINEARIZABLE
