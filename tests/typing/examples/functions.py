"""Remote functions keep their parameters and results."""

from __future__ import annotations

from typing import Any, reveal_type

import actorlib


@actorlib.remote
def scale(x: int, unit: str = "m", *, factor: float = 1.0) -> float:
    return x * factor


@actorlib.remote(num_cpus=2, max_retries=0)
def describe(x: float) -> str:
    return str(x)


@actorlib.remote
async def fetch(url: str) -> bytes:
    return url.encode()


@actorlib.remote
def parse(text: str) -> Any:
    return text


@actorlib.remote(num_returns=2)
def split(text: str) -> tuple[str, str]:
    return text, text


reveal_type(scale)  # N: RemoteFunction[[x: int, unit: str =, *, factor: float =], float]
reveal_type(scale.remote(1))  # N: ObjectRef[float]
reveal_type(scale.remote(1, "km", factor=2.0))  # N: ObjectRef[float]
reveal_type(scale.remote(x=1))  # N: ObjectRef[float]
reveal_type(scale.function(1))  # N: "float"
reveal_type(describe.remote(1.0))  # N: ObjectRef[str]
reveal_type(fetch.remote("u"))  # N: ObjectRef[bytes]
reveal_type(parse.remote("t"))  # N: ObjectRef[Any]
reveal_type(actorlib.remote(len).remote([]))  # N: ObjectRef[int]

scale.remote()  # E: All overload variants of "remote" of "RemoteFunction" require at least one argument
scale.remote("1")  # E: No overload variant of "remote" of "RemoteFunction" matches argument type "str"
scale.remote(1, 2)  # E: No overload variant
scale.remote(1, factor="2")  # E: No overload variant
scale.remote(1, "m", 2.0)  # E: No overload variant
scale.remote(1, speed=2)  # E: No overload variant
fetch.remote(1)  # E: No overload variant
describe.remote("1")  # E: No overload variant

# A call that gives several references, or none, has a result that only num_returns tells: not known to the checker.
reveal_type(split.remote("t"))  # N: "Any"

# -- options
reveal_type(scale.options(num_cpus=2).remote(1))  # N: ObjectRef[float]
reveal_type(scale.options(num_returns=0).remote(1))  # N: "Any"
reveal_type(parse.options(num_cpus=2).remote("t"))  # N: ObjectRef[Any]
scale.options(num_cpus=2).remote("1")  # E: No overload variant of "remote" of "ConfiguredFunction"
scale.options(num_cpus=2).map([1]).close()  # E: "Iterator[float]" has no attribute "close"

# -- map
reveal_type(scale.map([1, 2]))  # N: Iterator[float]
reveal_type(list(scale.options(num_cpus=2).map(range(3), chunksize=10)))  # N: list[float]
scale.map(3)  # E: expected "Iterable[Any]"
