"""The calls that wait at a worker, in the order in which they may start.

Calls of one caller start in the order in which they came (sessions keep it). A plain worker has one lane and runs one
call at a time. An actor may have several lanes (concurrency groups), each with a limit on how many of its calls run at
once; order is kept within a lane as far as the limit is 1.

A worker whose user code blocks gives back what has not started, so that nothing queues behind a wait. An actor keeps
its calls: they have nowhere else to go.

Calls with a priority start before those with a lower one that still wait. At a reentrant actor a call that descends
from one that runs here is *returning*: it runs inside that one, as soon as that waits; if it never waits, in turn.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from actorlib.transport.ids import TaskId
from actorlib.transport.link import Link
from actorlib.transport.messages import Call

DEFAULT_LANE = ""
RETURNING = "(returning)"
PRIORITY_KEY, CHAIN_KEY = "priority", "chain"


class Item:
    """A call that waits or runs, and the link on which its result goes back."""

    __slots__ = ("call", "cancelled", "is_looked_after", "lane", "link", "origin", "recursive")

    def __init__(self, link: Link, call: Call, lane: str) -> None:
        self.link = link
        self.call = call
        self.lane = lane
        self.cancelled = False
        self.is_looked_after = False  # its code looks itself whether it was cancelled
        self.recursive = False
        self.origin: Any = None  # who made it, where the actor is durable


class Lane:
    __slots__ = ("limit", "queue", "running")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.queue: deque[Item] = deque()
        self.running = 0


class Mailbox:
    """Queued and running calls of one worker. See the module's docstring."""

    def __init__(self) -> None:
        self.lanes: dict[str, Lane] = {DEFAULT_LANE: Lane(1)}
        self.running: dict[TaskId, Item] = {}
        self.is_actor = False
        self.is_leaving = False  # the node drains: nothing is started here any more
        self.is_held = False  # a durable actor whose log is full starts nothing until it is not
        self.blocked = 0
        self.is_reentrant = False
        self._has_priorities = False  # some call had one; most actors never see any
        self.returning: deque[Item] = deque()

    def become_actor(self, max_concurrency: int, groups: dict[str, int], is_reentrant: bool = False) -> None:
        self.is_actor = True
        self.is_reentrant = is_reentrant
        self.lanes = {DEFAULT_LANE: Lane(max_concurrency)}
        for name, limit in groups.items():
            self.lanes[name] = Lane(limit)

    def push(self, link: Link, call: Call) -> bool:
        """Queue a call. False if it is not taken: user code blocks or the node drains; the call can run elsewhere."""
        if (self.blocked or self.is_leaving) and not self.is_actor:
            return False
        lane = DEFAULT_LANE
        if call.extra is not None and self.is_actor:
            lane = call.extra.get("concurrency_group", DEFAULT_LANE)
            if lane not in self.lanes:
                lane = DEFAULT_LANE
            if self.is_reentrant and any(task_id in self.running for task_id in call.extra.get(CHAIN_KEY, ())):
                self.returning.append(Item(link, call, RETURNING))
                return True
            if call.extra.get(PRIORITY_KEY):
                self._has_priorities = True
        if self._has_priorities:
            self._enqueue(self.lanes[lane].queue, Item(link, call, lane))
        else:
            self.lanes[lane].queue.append(Item(link, call, lane))
        return True

    @staticmethod
    def _enqueue(queue: deque[Item], item: Item) -> None:
        """Behind all calls of its priority and above, before those below."""
        priority = _priority(item)
        place = len(queue)
        while place and _priority(queue[place - 1]) < priority:
            place -= 1
        queue.insert(place, item)

    def pop_returning(self) -> Item | None:
        """A call that the one that waits here is waiting for, directly or not; it counts as running until ``done``."""
        if not self.returning:
            return None
        item = self.returning.popleft()
        self.running[item.call.task_id] = item
        return item

    def is_returning(self, task_id: TaskId) -> bool:
        return any(item.call.task_id == task_id for item in self.returning)

    def put(self, item: Item, first: bool = False) -> None:
        """Queue a call of a durable actor, which has one lane."""
        queue = self.lanes[DEFAULT_LANE].queue
        queue.appendleft(item) if first else queue.append(item)

    def replaced(self, item: Item, link: Link, call: Call) -> None:
        """The same call has come again, from its caller's next life: that is who will have the reply."""
        if self.running.pop(item.call.task_id, None) is not None:
            self.running[call.task_id] = item
        item.link, item.call = link, call

    def pop(self) -> Item | None:
        """The next call that may start now; it counts as running until ``done``."""
        if self.is_held or self.is_leaving:
            return None
        if self.returning and not self.running:  # what they came back to has ended without waiting for them
            queue = self.lanes[DEFAULT_LANE].queue
            while self.returning:
                item = self.returning.pop()
                item.lane = DEFAULT_LANE
                queue.appendleft(item)
        for lane in self.lanes.values():
            if lane.queue and lane.running < lane.limit:
                item = lane.queue.popleft()
                lane.running += 1
                self.running[item.call.task_id] = item
                return item
        return None

    def done(self, item: Item) -> None:
        if item.lane != RETURNING:
            self.lanes[item.lane].running -= 1
        self.running.pop(item.call.task_id, None)

    def can_start(self) -> bool:
        if self.is_held or self.is_leaving:
            return False
        if self.returning and not self.running:
            return True
        return any(lane.queue and lane.running < lane.limit for lane in self.lanes.values())

    def is_empty(self) -> bool:
        return not self.running and not self.returning and not any(lane.queue for lane in self.lanes.values())

    def cancel(self, task_id: TaskId) -> Item | None:
        """Take a queued call out; None if it is not queued (running, done or unknown)."""
        for queue in (self.returning, *(lane.queue for lane in self.lanes.values())):
            for item in queue:
                if item.call.task_id == task_id:
                    queue.remove(item)
                    item.cancelled = True
                    return item
        return None

    def give_back(self, count: int, link: Link | None = None) -> dict[Link, list[TaskId]]:
        """Up to ``count`` calls that have not started, newest first (of one caller, or of all), to be returned."""
        returned: dict[Link, list[TaskId]] = {}
        queue = self.lanes[DEFAULT_LANE].queue
        kept: deque[Item] = deque()
        while queue and count > 0:
            item = queue.pop()
            if link is not None and item.link is not link:
                kept.appendleft(item)
                continue
            returned.setdefault(item.link, []).append(item.call.task_id)
            count -= 1
        queue.extend(kept)
        for ids in returned.values():
            ids.reverse()
        return returned

    def take_all(self) -> dict[Link, list[TaskId]]:
        """All calls of an actor that have not started, by caller, each in order: they go on elsewhere."""
        taken: dict[Link, list[TaskId]] = {}
        for queue in (self.returning, *(lane.queue for lane in self.lanes.values())):
            for item in queue:
                taken.setdefault(item.link, []).append(item.call.task_id)
            queue.clear()
        return taken

    def drop_caller(self, link: Link) -> int:
        """A caller is gone: its queued calls never run. Gives how many there were."""
        dropped = len(self.returning)
        for item in [item for item in self.returning if item.link is link]:
            self.returning.remove(item)
        dropped -= len(self.returning)
        for lane in self.lanes.values():
            before = len(lane.queue)
            lane.queue = deque(item for item in lane.queue if item.link is not link)
            dropped += before - len(lane.queue)
        return dropped

    def check(self) -> None:
        for name, lane in self.lanes.items():
            assert 0 <= lane.running <= lane.limit, f"lane {name!r} runs {lane.running} of {lane.limit}"
        inside = sum(item.lane == RETURNING for item in self.running.values())
        counted = sum(lane.running for lane in self.lanes.values())
        assert counted + inside == len(self.running), "running calls miscounted"


def _priority(item: Item) -> int:
    extra = item.call.extra
    return 0 if extra is None else int(extra.get(PRIORITY_KEY, 0))
