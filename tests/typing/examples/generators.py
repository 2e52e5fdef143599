"""Streaming calls give references one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from typing import reveal_type

import actorlib
from actorlib import ObjectRefGenerator


@actorlib.remote
def count_to(n: int) -> Iterator[int]:
    yield from range(n)


@actorlib.remote
def spell(word: str) -> Generator[str, None, None]:
    yield from word


@actorlib.remote(num_cpus=1)
async def listen(port: int) -> AsyncIterator[bytes]:
    yield b""


reveal_type(count_to.remote(3))  # N: ObjectRefGenerator[int]
reveal_type(spell.remote("a"))  # N: ObjectRefGenerator[str]
reveal_type(listen.remote(1))  # N: ObjectRefGenerator[bytes]
reveal_type(count_to.options(num_cpus=2).remote(3))  # N: ObjectRefGenerator[int]
count_to.remote("3")  # E: No overload variant

for ref in count_to.remote(3):
    reveal_type(ref)  # N: ObjectRef[int]
    reveal_type(actorlib.get(ref))  # N: "int"


async def hears(items: ObjectRefGenerator[bytes]) -> None:
    async for ref in items:
        reveal_type(await ref)  # N: "bytes"


reveal_type(count_to.remote(3).completed())  # N: ObjectRef[int]
reveal_type(next(count_to.remote(3)))  # N: ObjectRef[int]
actorlib.get(count_to.remote(3))  # E: No overload variant of "get"
