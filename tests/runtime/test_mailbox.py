"""The mailbox: order, lanes, what is given back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.runtime.mailbox import Mailbox
from actorlib.transport.messages import Call

A, B = "link of a", "link of b"


def call(number, **extra):
    return Call(b"%016d" % number, "method", b"", (), 1, number, extra or None)


def numbers(items):
    return [int(item.call.task_id) for item in items]


def pop_all(mailbox):
    items = []
    while (item := mailbox.pop()) is not None:
        items.append(item)
    return items


def test_one_at_a_time_in_order():
    mailbox = Mailbox()
    for number in range(3):
        assert mailbox.push(A, call(number))
    first = mailbox.pop()
    assert mailbox.pop() is None and not mailbox.can_start()
    mailbox.done(first)
    assert numbers([first, mailbox.pop()]) == [0, 1]


def test_lanes_have_limits_of_their_own():
    mailbox = Mailbox()
    mailbox.become_actor(1, {"io": 2})
    for number in range(3):
        mailbox.push(A, call(number, concurrency_group="io"))
        mailbox.push(A, call(10 + number))
    assert sorted(numbers(pop_all(mailbox))) == [0, 1, 10]
    mailbox.check()


def test_an_unknown_group_is_the_default_lane():
    mailbox = Mailbox()
    mailbox.become_actor(1, {})
    mailbox.push(A, call(1, concurrency_group="nonsense"))
    assert numbers(pop_all(mailbox)) == [1]


def test_a_cancelled_call_never_starts_and_a_running_one_is_not_in_the_queue():
    mailbox = Mailbox()
    for number in range(2):
        mailbox.push(A, call(number))
    running = mailbox.pop()
    assert mailbox.cancel(running.call.task_id) is None
    assert mailbox.cancel(b"%016d" % 1).cancelled
    mailbox.done(running)
    assert mailbox.pop() is None and mailbox.is_empty()


def test_a_blocked_task_worker_takes_nothing_and_an_actor_does():
    mailbox = Mailbox()
    mailbox.blocked = 1
    assert not mailbox.push(A, call(0))
    mailbox.become_actor(1, {})
    assert mailbox.push(A, call(0))


def test_the_newest_of_one_caller_are_given_back_in_order():
    mailbox = Mailbox()
    for number in range(6):
        mailbox.push(A if number % 2 else B, call(number))
    assert mailbox.give_back(2, A) == {A: [b"%016d" % 3, b"%016d" % 5]}
    mailbox.lanes[""].limit = 10
    assert numbers(pop_all(mailbox)) == [0, 1, 2, 4]


def test_a_callers_end_drops_what_it_had_queued():
    mailbox = Mailbox()
    for number in range(4):
        mailbox.push(A if number < 2 else B, call(number))
    running = mailbox.pop()
    assert mailbox.drop_caller(A) == 1
    mailbox.done(running)
    assert numbers([mailbox.pop()]) == [2]


steps = st.lists(
    st.tuples(st.sampled_from(["push", "pop", "done", "cancel", "back", "drop"]), st.integers(0, 30)), max_size=60
)


@settings(max_examples=300, deadline=None, database=None)
@given(st.integers(1, 3), steps)
def test_every_call_leaves_once_and_each_callers_start_in_order(limit, plan):
    mailbox = Mailbox()
    mailbox.become_actor(limit, {"io": 1})
    pushed, left, running, started = 0, [], [], {}
    for action, choice in plan:
        if action == "push":
            link = (A, B)[choice % 2]
            extra = {"concurrency_group": "io"} if choice % 3 == 0 else {}
            assert mailbox.push(link, call(pushed, **extra))
            pushed += 1
        elif action == "pop":
            item = mailbox.pop()
            if item is not None:
                number = int(item.call.task_id)
                before = started.setdefault((item.link, item.lane), -1)
                assert number > before, "overtaken within its lane"
                started[item.link, item.lane] = number
                running.append(item)
        elif action == "done" and running:
            item = running.pop(choice % len(running))
            mailbox.done(item)
            left.append(int(item.call.task_id))
        elif action == "cancel":
            item = mailbox.cancel(b"%016d" % choice)
            left += numbers([item] if item else [])
        elif action == "back":
            left += [int(task_id) for ids in mailbox.give_back(choice).values() for task_id in ids]
        elif action == "drop":
            gone = [item for lane in mailbox.lanes.values() for item in lane.queue if item.link == A]
            assert mailbox.drop_caller(A) == len(gone)
            left += numbers(gone)
        mailbox.check()
    queued = [item for lane in mailbox.lanes.values() for item in lane.queue]
    assert sorted(left + numbers(queued) + numbers(running)) == list(range(pushed))
    assert mailbox.is_empty() == (not queued and not running)


def test_higher_priorities_start_first_and_equal_ones_in_order():
    mailbox = Mailbox()
    mailbox.become_actor(1, {})
    for number, priority in enumerate([0, 0, 5, -1, 5, 0]):
        mailbox.push(A, call(number, **({"priority": priority} if priority else {})))
    order = []
    while (item := mailbox.pop()) is not None:
        order.append(item)
        mailbox.done(item)
        mailbox.check()
    assert numbers(order) == [2, 4, 0, 1, 5, 3]


def returning(number, *chain):
    return call(number, chain=tuple(b"%016d" % each for each in chain))


def test_a_call_that_descends_from_the_running_one_runs_inside_it():
    mailbox = Mailbox()
    mailbox.become_actor(1, {}, is_reentrant=True)
    mailbox.push(A, call(1))
    outer = mailbox.pop()
    mailbox.push(B, call(2))
    mailbox.push(B, returning(3, 1))
    mailbox.push(B, returning(4, 9))  # descends from a call of somebody else
    assert mailbox.is_returning(b"%016d" % 3) and not mailbox.is_returning(b"%016d" % 4)
    assert mailbox.pop() is None and not mailbox.can_start()
    inner = mailbox.pop_returning()
    assert numbers([inner]) == [3] and mailbox.pop_returning() is None
    mailbox.check()
    mailbox.done(inner)
    mailbox.done(outer)
    mailbox.check()
    first = mailbox.pop()
    mailbox.done(first)
    assert numbers([first, mailbox.pop()]) == [2, 4]


def test_what_came_back_to_a_call_that_has_ended_is_next():
    mailbox = Mailbox()
    mailbox.become_actor(1, {}, is_reentrant=True)
    mailbox.push(A, call(1))
    outer = mailbox.pop()
    mailbox.push(B, call(2))
    mailbox.push(B, returning(3, 1))
    mailbox.push(B, returning(4, 1))
    assert not mailbox.is_empty()
    mailbox.done(outer)
    assert mailbox.can_start()
    order = []
    while (item := mailbox.pop()) is not None:
        order.append(item)
        mailbox.done(item)
        mailbox.check()
    assert numbers(order) == [3, 4, 2] and mailbox.is_empty()


def test_returning_calls_can_be_cancelled_and_go_with_their_caller():
    mailbox = Mailbox()
    mailbox.become_actor(1, {}, is_reentrant=True)
    mailbox.push(A, call(1))
    mailbox.pop()
    mailbox.push(B, returning(3, 1))
    mailbox.push(B, returning(4, 1))
    assert mailbox.cancel(b"%016d" % 3).cancelled
    assert mailbox.drop_caller(B) == 1 and not mailbox.returning


def test_without_leave_a_call_that_comes_back_waits():
    mailbox = Mailbox()
    mailbox.become_actor(1, {})
    mailbox.push(A, call(1))
    mailbox.pop()
    mailbox.push(B, returning(3, 1))
    assert mailbox.pop_returning() is None
