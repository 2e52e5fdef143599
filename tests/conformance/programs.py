"""Tasks and actors that several cases use. Made anew for each case, so that they travel by value."""

from __future__ import annotations

import asyncio
from typing import Any

import actorlib


def adder() -> Any:
    @actorlib.remote
    def add(a: Any, b: Any = 0) -> Any:
        return a + b

    return add


def napper() -> Any:
    @actorlib.remote
    def nap(seconds: float) -> str:
        import time

        time.sleep(seconds)
        return "awake"

    return nap


def failing() -> Any:
    @actorlib.remote
    def fail(error: Any = None) -> None:
        raise error if error is not None else ValueError("as asked")

    return fail


def counter_class() -> Any:
    @actorlib.remote(num_cpus=0)
    class Counter:
        def __init__(self, start: int = 0) -> None:
            self.total = start

        def add(self, amount: int = 1) -> int:
            self.total += amount
            return self.total

        def read(self) -> int:
            return self.total

        def fail(self) -> None:
            raise KeyError("inside")

        def nap(self, seconds: float) -> int:
            import time

            time.sleep(seconds)
            return self.total

        def where(self) -> str:
            return actorlib.get_runtime_context().get_worker_id()

        def leave(self) -> None:
            actorlib.actor.exit_actor()

        def count_to(self, n: int) -> Any:
            yield from range(n)

        def echo(self, value: Any) -> Any:
            return value

    return Counter


def async_class() -> Any:
    @actorlib.remote(num_cpus=0)
    class Gate:
        def __init__(self) -> None:
            self.event = asyncio.Event()
            self.entered = 0
            self.most = 0

        async def wait(self) -> str:
            self.entered += 1
            self.most = max(self.most, self.entered)
            await self.event.wait()
            self.entered -= 1
            return "open"

        async def open(self) -> None:
            self.event.set()

        async def waiting(self) -> int:
            return self.entered

        async def most_at_once(self) -> int:
            return self.most

        async def sleep(self, seconds: float) -> str:
            await asyncio.sleep(seconds)
            return "slept"

        async def count_to(self, n: int) -> Any:
            for number in range(n):
                yield number
                await asyncio.sleep(0)

        def plain(self, value: Any) -> Any:
            return value

    return Gate
