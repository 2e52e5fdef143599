"""Resources and placement groups of the one node that there is inline.

Everything runs one after the other, yet who asks for more than there is must be told, and who asks what is free must
get the truth: so the books are kept as a real node keeps them, with the same exact amounts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from actorlib.engines.registry import Settings
from actorlib.scheduler.policy import matches_labels
from actorlib.scheduler.resources import Pool, fits, show, to_units
from actorlib.transport.ids import GroupId, NodeId

MEMORY_SHARE = 0.7  # of the machine's memory, as a node of its own would offer it
Devices = dict[str, tuple[int, ...]]


def totals(settings: Settings) -> dict[str, int]:
    """What the one node has."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    given: dict[str, float] = {
        "CPU": len(os.sched_getaffinity(0)) if settings.num_cpus is None else settings.num_cpus,
        "memory": int(memory * MEMORY_SHARE),
        **({"GPU": settings.num_gpus} if settings.num_gpus else {}),
        **(settings.resources or {}),
    }
    return {name: to_units(name, amount) for name, amount in given.items()}


class Group:
    """A placement group: its bundles are pools of their own once they are set aside."""

    def __init__(self, group_id: GroupId, bundles: Sequence[dict[str, int]], strategy: str, name: str) -> None:
        self.group_id = group_id
        self.bundles = [dict(bundle) for bundle in bundles]
        self.strategy = strategy
        self.name = name
        self.selectors: list[dict[str, str]] = []
        self.state = "PENDING"
        self.reason = "waiting to be placed"
        self.pools: list[Pool] = []


class Books:
    """Who has what. Not for several threads at once: the engine's lock is held around each call."""

    def __init__(self, node_id: NodeId, total: dict[str, int], labels: dict[str, str]) -> None:
        self.node_id = node_id
        self.labels = labels
        self.pool = Pool(total)
        self.groups: dict[GroupId, Group] = {}
        self._where: dict[bytes, Pool] = {}

    # -- what can't be -------------------------------------------------------------------------------------------------
    def why_never(self, demand: dict[str, int], strategy: tuple[Any, ...]) -> str | None:
        """Why this node can never run it; None if it can."""
        kind = strategy[0]
        have = f"the only node of the inline engine has {show(self.pool.total)}"
        if kind == "node" and strategy[1] != self.node_id and not strategy[2]:
            return f"node {strategy[1].hex()} is not there; inline there is one node, {self.node_id.hex()}"
        if kind == "labels" and not matches_labels(self.labels, strategy[1]):
            return f"no node has labels that match {strategy[1]}; the only node has {self.labels}"
        if kind == "group":
            return self._why_never_in_group(demand, strategy)
        if not fits(demand, self.pool.total):
            return f"no node can ever satisfy a demand of {show(demand)}: {have}"
        return None

    def _why_never_in_group(self, demand: dict[str, int], strategy: tuple[Any, ...]) -> str | None:
        group = self.groups.get(strategy[1])
        if group is None or group.state == "REMOVED":
            return f"placement group {strategy[1].hex()} was removed"
        chosen = group.bundles if strategy[2] < 0 else group.bundles[strategy[2] : strategy[2] + 1]
        if not any(fits(demand, bundle) for bundle in chosen):
            sizes = "; ".join(show(bundle) for bundle in chosen)
            return f"no bundle of its placement group can ever satisfy a demand of {show(demand)}: {sizes}"
        return None

    # -- taking and giving back ----------------------------------------------------------------------------------------
    def take(self, holder: bytes, demand: dict[str, int], strategy: tuple[Any, ...]) -> Devices | None:
        """Take all of ``demand`` or nothing: None while it has to wait."""
        for pool in self._pools(strategy):
            holding = pool.take(holder, demand)
            if holding is not None:
                self._where[holder] = pool
                return holding.devices
        return None

    def _pools(self, strategy: tuple[Any, ...]) -> Iterator[Pool]:
        if strategy[0] != "group":
            yield self.pool
            return
        group = self.groups[strategy[1]]
        yield from group.pools if strategy[2] < 0 else group.pools[strategy[2] : strategy[2] + 1]

    def shrink(self, holder: bytes, to: dict[str, int]) -> None:
        if holder in self._where:
            self._where[holder].shrink(holder, to)

    def release(self, holder: bytes) -> None:
        pool = self._where.pop(holder, None)
        if pool is not None:
            pool.release(holder)

    def lend(self, holder: bytes) -> None:
        """The holder waits for what it has called."""
        if holder in self._where:
            self._where[holder].lend_cpu(holder)

    def reclaim(self, holder: bytes) -> None:
        if holder in self._where:
            self._where[holder].reclaim_cpu(holder)

    # -- placement groups ----------------------------------------------------------------------------------------------
    def add_group(self, group: Group) -> None:
        self.groups[group.group_id] = group
        self.place(group)

    def place(self, group: Group) -> bool:
        """Set its bundles aside if there is room. Whether they are."""
        if group.state != "PENDING":
            return group.state == "CREATED"
        group.reason = self._why_not_placed(group)
        if group.reason:
            return False
        holders = [group.group_id + index.to_bytes(2, "big") for index in range(len(group.bundles))]
        devices = []
        for holder, bundle in zip(holders, group.bundles, strict=True):
            holding = self.pool.take(holder, bundle)
            if holding is None:
                for taken in holders:
                    self.pool.release(taken)
                group.reason = f"waits until {show(bundle)} of {show(self.pool.total)} is free"
                return False
            devices.append(holding.devices)
        group.pools = [Pool(bundle, found) for bundle, found in zip(group.bundles, devices, strict=True)]
        group.state = "CREATED"
        return True

    def _why_not_placed(self, group: Group) -> str:
        asked = ", ".join(f"[{show(bundle)}]" for bundle in group.bundles)
        if group.strategy == "STRICT_SPREAD" and len(group.bundles) > 1:
            return f"infeasible: STRICT_SPREAD {asked} wants {len(group.bundles)} nodes, and inline there is one"
        whole: dict[str, int] = {}
        for bundle in group.bundles:
            for name, amount in bundle.items():
                whole[name] = whole.get(name, 0) + amount
        if not fits(whole, self.pool.total):
            return f"infeasible: {group.strategy} {asked} can't be placed: the only node has {show(self.pool.total)}"
        if not all(matches_labels(self.labels, selector) for selector in group.selectors):
            return f"infeasible: no node has labels that match {group.selectors}; the only node has {self.labels}"
        return ""

    def remove_group(self, group: Group) -> None:
        for index in range(len(group.bundles)):
            self.pool.release(group.group_id + index.to_bytes(2, "big"))
        group.state, group.reason, group.pools = "REMOVED", "removed", []
