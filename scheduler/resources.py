"""Amounts of resources, exact to 0.0001, and pools of them that never give out more than they have.

Inside, an amount is an integer number of ten-thousandths. Accelerators (GPU, TPU, ...) are also counted by index: a
demand of one or more gets whole devices of its own, a fraction shares one device with others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from actorlib.transport.messages import Resources

UNIT = 10_000
ACCELERATORS = ("GPU", "TPU", "NPU")


def to_units(name: str, amount: float) -> int:
    """A user's amount in units of 0.0001. Raises ValueError if it is negative, not a number or finer than that."""
    if not isinstance(amount, int | float) or isinstance(amount, bool):
        raise TypeError(f"the amount of {name} is a number, not {type(amount).__name__}")
    if math.isnan(amount) or math.isinf(amount) or amount < 0:
        raise ValueError(f"the amount of {name} must be a finite number of at least 0, not {amount}")
    units = round(amount * UNIT)
    if abs(units - amount * UNIT) > 1e-6 * UNIT:
        raise ValueError(f"the amount of {name}, {amount}, is finer than 0.0001")
    return units


def show(resources: Mapping[str, int]) -> str:
    """For people: '2 CPU, 0.5 GPU, 3.5 GiB memory'."""
    return ", ".join(_show_one(name, amount / UNIT) for name, amount in resources.items() if amount) or "nothing"


def _show_one(name: str, amount: float) -> str:
    if name != "memory":
        return f"{amount:g} {name}"
    return f"{amount / (1 << 30):.3g} GiB memory" if amount >= 1 << 27 else f"{amount / (1 << 20):.3g} MiB memory"


def fits(demand: Mapping[str, int], available: Mapping[str, int]) -> bool:
    for name, amount in demand.items():  # noqa: SIM110 (the placement of each request asks this of every node)
        if amount > 0 and available.get(name, 0) < amount:
            return False
    return True


class Holding:
    """What one holder has out of a pool. ``lent``: CPU that it gave back for as long as it is blocked."""

    __slots__ = ("devices", "lent", "resources")

    def __init__(self, resources: Resources, devices: dict[str, tuple[int, ...]]) -> None:
        self.resources = resources
        self.devices = devices
        self.lent = 0


class Pool:
    """The resources of a node, or of a bundle. Holders are named by bytes; taking twice under one name is one take."""

    def __init__(self, total: Resources, devices: dict[str, tuple[int, ...]] | None = None) -> None:
        self.total = dict(total)
        self.available = dict(total)
        self.holdings: dict[bytes, Holding] = {}
        self._devices: dict[str, dict[int, int]] = {}
        for kind in ACCELERATORS:
            count = total.get(kind, 0)
            indices = (devices or {}).get(kind) or tuple(range(-(-count // UNIT)))
            if count:
                self._devices[kind] = {index: min(UNIT, count) for index in indices}

    def take(self, holder: bytes, demand: Resources) -> Holding | None:
        """Take all of ``demand`` or nothing (None)."""
        known = self.holdings.get(holder)
        if known is not None:
            return known
        if not fits(demand, self.available):
            return None
        devices = self._take_devices(demand)
        if devices is None:
            return None
        for name, amount in demand.items():
            if amount:
                self.available[name] -= amount
        holding = self.holdings[holder] = Holding(dict(demand), devices)
        return holding

    def _take_devices(self, demand: Resources) -> dict[str, tuple[int, ...]] | None:
        """Pick devices for each accelerator; None if fractions are scattered so that no device has enough."""
        chosen: dict[str, tuple[int, ...]] = {}
        for kind, free in self._devices.items():
            amount = demand.get(kind, 0)
            if not amount:
                continue
            if amount < UNIT:
                fitting = [index for index, left in free.items() if left >= amount]
                picked = tuple(sorted(fitting, key=lambda index: (free[index], index))[:1])
                need = 1
            else:
                need = -(-amount // UNIT)
                picked = tuple(index for index, left in free.items() if left == UNIT)[:need]
            if len(picked) < need:
                return None
            chosen[kind] = picked
        for kind, picked in chosen.items():
            for index in picked:
                self._devices[kind][index] -= min(demand[kind], UNIT)
        return chosen

    def release(self, holder: bytes) -> bool:
        """Give back all that ``holder`` has; False if it had nothing."""
        holding = self.holdings.pop(holder, None)
        if holding is None:
            return False
        for name, amount in holding.resources.items():
            if amount:
                self.available[name] += amount
        if holding.lent:
            self.available["CPU"] -= holding.lent
        for kind, picked in holding.devices.items():
            for index in picked:
                self._devices[kind][index] += min(holding.resources[kind], UNIT)
        return True

    def lend_cpu(self, holder: bytes) -> None:
        """The holder is blocked: others may use its CPU."""
        holding = self.holdings.get(holder)
        if holding is not None and not holding.lent and holding.resources.get("CPU", 0):
            holding.lent = holding.resources["CPU"]
            self.available["CPU"] += holding.lent

    def reclaim_cpu(self, holder: bytes) -> None:
        """The holder goes on. For a moment more CPU may be in use than there is: available goes below zero."""
        holding = self.holdings.get(holder)
        if holding is not None and holding.lent:
            self.available["CPU"] -= holding.lent
            holding.lent = 0

    def shrink(self, holder: bytes, to: Resources) -> None:
        """Keep only ``to`` of what the holder has (an actor that needed more to be placed than to run)."""
        holding = self.holdings.get(holder)
        if holding is None:
            return
        for name, amount in holding.resources.items():
            keep = min(amount, to.get(name, 0))
            if name not in holding.devices and keep < amount:
                lent_already = max(0, holding.lent - keep) if name == "CPU" else 0
                holding.lent -= lent_already
                self.available[name] += amount - keep - lent_already
                holding.resources[name] = keep

    def visible(self) -> Resources:
        """What is free, as others are told: never below zero."""
        return {name: max(0, amount) for name, amount in self.available.items()}

    def check(self) -> None:
        for name, total in self.total.items():
            held = sum(holding.resources.get(name, 0) for holding in self.holdings.values())
            lent = sum(holding.lent for holding in self.holdings.values()) if name == "CPU" else 0
            assert self.available[name] + held - lent == total, (
                f"{name}: {self.available[name]} + {held} - {lent} != {total}"
            )
            assert held - lent <= total or name == "CPU", f"more {name} given out than there is"
        for kind, free in self._devices.items():
            assert all(0 <= left <= UNIT for left in free.values()), f"a {kind} is given out twice"
