"""The calls that wait at a worker, in the order in which they may start.

Calls of one caller start in the order in which they came (sessions keep it). A plain worker has one lane and runs one
call at a time. An actor may have several lanes (concurrency groups), each with a limit on how many of its calls run at
once; order is kept within a lane as far as the limit is 1.

A worker whose user code blocks gives back what has not started, so that nothing queues behind a wait. An actor keeps
its calls: they have nowhere else to go.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from actorlib.transport.ids import TaskId
from actorlib.transport.link import Link
from actorlib.transport.messages import Call

DEFAULT_LANE = ""


class Item:
    """A call that waits or runs, and the link on which its result goes back."""

    __slots__ = ("call", "cancelled", "lane", "link", "origin", "recursive")

    def __init__(self, link: Link, call: Call, lane: str) -> None:
        self.link = link
        self.call = call
        self.lane = lane
        self.cancelled = False
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
        self.is_held = False  # a durable actor whose log is full starts nothing until it is not
        self.blocked = 0

    def become_actor(self, max_concurrency: int, groups: dict[str, int]) -> None:
        self.is_actor = True
        self.lanes = {DEFAULT_LANE: Lane(max_concurrency)}
        for name, limit in groups.items():
            self.lanes[name] = Lane(limit)

    def push(self, link: Link, call: Call) -> bool:
        """Queue a call. False if it is not taken: user code blocks, and the call can run elsewhere."""
        if self.blocked and not self.is_actor:
            return False
        lane = DEFAULT_LANE
        if call.extra is not None and self.is_actor:
            lane = call.extra.get("concurrency_group", DEFAULT_LANE)
            if lane not in self.lanes:
                lane = DEFAULT_LANE
        self.lanes[lane].queue.append(Item(link, call, lane))
        return True

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
        if self.is_held:
            return None
        for lane in self.lanes.values():
            if lane.queue and lane.running < lane.limit:
                item = lane.queue.popleft()
                lane.running += 1
                self.running[item.call.task_id] = item
                return item
        return None

    def done(self, item: Item) -> None:
        self.lanes[item.lane].running -= 1
        self.running.pop(item.call.task_id, None)

    def can_start(self) -> bool:
        return not self.is_held and any(lane.queue and lane.running < lane.limit for lane in self.lanes.values())

    def is_empty(self) -> bool:
        return not self.running and not any(lane.queue for lane in self.lanes.values())

    def cancel(self, task_id: TaskId) -> Item | None:
        """Take a queued call out; None if it is not queued (running, done or unknown)."""
        for lane in self.lanes.values():
            for item in lane.queue:
                if item.call.task_id == task_id:
                    lane.queue.remove(item)
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

    def drop_caller(self, link: Link) -> int:
        """A caller is gone: its queued calls never run. Gives how many there were."""
        dropped = 0
        for lane in self.lanes.values():
            before = len(lane.queue)
            lane.queue = deque(item for item in lane.queue if item.link is not link)
            dropped += before - len(lane.queue)
        return dropped

    def check(self) -> None:
        for name, lane in self.lanes.items():
            assert 0 <= lane.running <= lane.limit, f"lane {name!r} runs {lane.running} of {lane.limit}"
        assert sum(lane.running for lane in self.lanes.values()) == len(self.running), "running calls miscounted"
