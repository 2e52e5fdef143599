"""The supervisor's decisions: given events, the exact orders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorlib.runtime.supervision import (
    RESTARTS,
    STRATEGIES,
    Began,
    End,
    GiveUp,
    IllegalMove,
    Start,
    Started,
    StartFailed,
    Stop,
    StopAsked,
    Supervision,
    WentDown,
)


def started(strategy="one_for_one", restarts=3, period_s=10.0, **children):
    """A supervisor whose children are all up; ``a="permanent"``."""
    core = Supervision(list(children.items()) or [(name, "permanent") for name in "abc"], strategy, restarts, period_s)
    effects = core.handle(0.0, Began())
    for name in core.children:
        assert effects == [Start(name)]
        effects = core.handle(0.0, Started(name))
    assert effects == []
    core.check()
    return core


def crash(core, name, now=1.0, normal=False):
    return core.handle(now, WentDown(name, normal, "it crashed"))


def follow(core, effects, now=1.0):
    """Carry orders out as if all went well; what was ordered."""
    told = []
    while effects:
        (effect,) = effects
        told.append(effect)
        if isinstance(effect, Start):
            effects = core.handle(now, Started(effect.child))
        elif isinstance(effect, Stop):
            effects = core.handle(now, WentDown(effect.child, True, "stopped"))
        else:
            effects = []
        core.check()
    return told


def test_children_start_in_order_and_stop_in_the_reverse_order():
    core = started()
    assert follow(core, core.handle(1.0, StopAsked())) == [Stop("c"), Stop("b"), Stop("a"), End()]
    assert core.handle(2.0, StopAsked()) == []


@pytest.mark.parametrize(
    "strategy, orders",
    [
        ("one_for_one", [Start("b")]),
        ("one_for_all", [Stop("c"), Stop("a"), Start("a"), Start("b"), Start("c")]),
        ("rest_for_one", [Stop("c"), Start("b"), Start("c")]),
    ],
)
def test_who_goes_down_and_up_with_a_child(strategy, orders):
    core = started(strategy)
    assert follow(core, crash(core, "b")) == orders


@pytest.mark.parametrize("restart, normal, again", [
    ("permanent", True, True), ("permanent", False, True), ("transient", True, False), ("transient", False, True),
    ("temporary", True, False), ("temporary", False, False),
])  # fmt: skip
def test_which_children_start_again(restart, normal, again):
    core = started("one_for_all", a="permanent", b=restart)
    orders = follow(core, crash(core, "b", normal=normal))
    assert orders == ([Stop("a"), Start("a"), Start("b")] if again else [])
    assert core.children["b"].wanted is again


def test_temporary_children_go_down_with_others_and_stay_down():
    core = started("one_for_all", a="permanent", b="temporary")
    assert follow(core, crash(core, "a")) == [Stop("b"), Start("a")]


def test_a_child_that_ended_normally_is_not_woken_by_another():
    core = started("one_for_all", a="permanent", b="transient")
    assert crash(core, "b", normal=True) == []
    assert follow(core, crash(core, "a")) == [Start("a")]


def test_too_many_restarts_end_it_with_the_reasons():
    core = started(restarts=2, period_s=5.0)
    for now in (1.0, 2.0):
        assert follow(core, crash(core, "b", now), now) == [Start("b")]
    *stops, end = follow(core, crash(core, "b", 3.0), 3.0)
    assert stops == [Stop("c"), Stop("a")]
    assert (
        isinstance(end, GiveUp) and "3 restarts within 5 s" in end.reason and "'b' went down: it crashed" in end.reason
    )


def test_restarts_are_forgotten_after_the_period():
    core = started(restarts=1, period_s=5.0)
    for now in (1.0, 6.5, 12.0):
        assert follow(core, crash(core, "a", now), now) == [Start("a")]


def test_no_restart_is_allowed_where_intensity_says_so():
    core = started(restarts=0)
    assert isinstance(follow(core, crash(core, "a"))[-1], GiveUp)


def test_a_first_start_that_fails_stops_what_was_started():
    core = Supervision([("a", "permanent"), ("b", "permanent"), ("c", "permanent")], "one_for_one", 9, 9.0)
    core.handle(0.0, Began())
    core.handle(0.0, Started("a"))
    orders = follow(core, core.handle(0.0, StartFailed("b", "no such file")))
    assert orders == [Stop("a"), GiveUp("child 'b' can't be started: no such file")]


def test_a_later_start_that_fails_is_tried_again_and_counts():
    core = started(restarts=2)
    assert crash(core, "a") == [Start("a")]
    assert core.handle(1.0, StartFailed("a", "busy")) == [Start("a")]
    *_, end = follow(core, core.handle(1.0, StartFailed("a", "busy")))
    assert isinstance(end, GiveUp)


def test_a_child_that_crashes_while_others_are_stopped_is_started_once():
    core = started("one_for_all")
    assert crash(core, "a") == [Stop("c")]
    assert crash(core, "b") == []  # it was to be stopped anyway, and one order is under way
    assert follow(core, core.handle(1.0, WentDown("c", True, "stopped"))) == [Start("a"), Start("b"), Start("c")]
    assert core.children["b"].restarts == 0


def test_a_child_that_crashes_while_another_starts():
    core = started("rest_for_one")
    assert crash(core, "a") == [Stop("c")]
    core.handle(1.0, WentDown("c", True, "stopped"))
    core.handle(1.0, WentDown("b", True, "stopped"))  # Stop("b") was ordered
    assert core.handle(1.0, Started("a")) == [Start("b")]
    assert crash(core, "a") == []
    assert follow(core, core.handle(1.0, Started("b"))) == [Stop("b"), Start("a"), Start("b"), Start("c")]


def test_an_end_that_was_told_already_is_a_bug():
    core = started("one_for_one", a="temporary")
    crash(core, "a")
    with pytest.raises(IllegalMove, match="'a': absent"):
        crash(core, "a")


@given(
    strategy=st.sampled_from(STRATEGIES),
    kinds=st.lists(st.sampled_from(RESTARTS), min_size=1, max_size=5),
    choices=st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.booleans()), max_size=60),
)
def test_whatever_happens_it_settles_or_ends(strategy, kinds, choices):
    core = Supervision([(f"c{i}", kind) for i, kind in enumerate(kinds)], strategy, 5, 10.0)
    up: dict[str, None] = {}
    effects = core.handle(0.0, Began())
    now = 0.0
    ended = None
    for number, fails, normal in [*choices, *[(9, False, True)] * 40]:
        now += 0.1
        core.check()
        assert len(effects) <= 1
        crashed = list(up)[number] if number < len(up) and number < 5 and ended is None else None
        if effects and (crashed is None or number % 2):
            (effect,) = effects
            if isinstance(effect, Start):
                assert list(core.children).index(effect.child) >= 0 and effect.child not in up
                if fails:
                    effects = core.handle(now, StartFailed(effect.child, "no"))
                else:
                    up[effect.child] = None
                    effects = core.handle(now, Started(effect.child))
            elif isinstance(effect, Stop):
                del up[effect.child]
                effects = core.handle(now, WentDown(effect.child, True, "stopped"))
            else:
                ended, effects = effect, []
        elif crashed is not None and number and Stop(crashed) not in effects:
            del up[crashed]
            effects = core.handle(now, WentDown(crashed, normal, "crash")) or effects
    core.check()
    assert not effects
    if ended is not None:
        assert not up and core.is_over
    else:
        assert set(up) == {child.name for child in core.children.values() if child.wanted}
