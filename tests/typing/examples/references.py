"""References: what they resolve to, alone, in lists and as arguments."""

from __future__ import annotations

import asyncio
from typing import reveal_type

import actorlib
from actorlib import ObjectRef


@actorlib.remote
def length(text: str) -> int:
    return len(text)


@actorlib.remote
def add(a: int, b: int, c: int = 0) -> int:
    return a + b + c


@actorlib.remote
def total(*parts: int) -> int:
    return sum(parts)


count = length.remote("a")
name = actorlib.put("a")

# -- get
reveal_type(name)  # N: ObjectRef[str]
reveal_type(actorlib.get(count))  # N: "int"
reveal_type(actorlib.get(count, timeout=1))  # N: "int"
reveal_type(actorlib.get([count, count]))  # N: list[int]
reveal_type(actorlib.get((count, count)))  # N: list[int]
reveal_type(actorlib.get([count, name]))  # N: list[object]
actorlib.get(1)  # E: No overload variant of "get"
actorlib.get([1])  # E: Argument 1 to "get" has incompatible type "list[int]"; expected "Sequence[ObjectRef[
actorlib.get(count).upper()  # E: "int" has no attribute "upper"

# -- wait
ready, waiting = actorlib.wait([count], num_returns=1, timeout=0.5)
reveal_type(ready)  # N: list[actorlib.object_ref.ObjectRef[int]]
reveal_type(waiting)  # N: list[actorlib.object_ref.ObjectRef[int]]
actorlib.wait(count)  # E: Argument 1 to "wait" has incompatible type "ObjectRef[int]"
for each in actorlib.as_completed([name]):
    reveal_type(each)  # N: ObjectRef[str]

# -- as arguments: a reference stands for its value, among the first three by position
reveal_type(add.remote(count, 1))  # N: ObjectRef[int]
reveal_type(add.remote(1, count))  # N: ObjectRef[int]
reveal_type(add.remote(1, 2, count))  # N: ObjectRef[int]
reveal_type(add.remote(count, count, count))  # N: ObjectRef[int]
reveal_type(add.options(num_cpus=2).remote(1, count))  # N: ObjectRef[int]
reveal_type(total.remote(*[count, count]))  # N: ObjectRef[int]
# By name, a reference is not understood: a known limit, since ParamSpec can't say "int or a reference to one".
add.remote(1, b=count)  # E: No overload variant


# -- elsewhere
async def awaits() -> None:
    reveal_type(await count)  # N: "int"
    reveal_type(await asyncio.gather(count, name))  # N: tuple[int, str]


reveal_type(count.future().result())  # N: "int"
reveal_type(count.task_id())  # N: TaskID
wider: ObjectRef[object] = count
narrower: ObjectRef[str] = count  # E: expression has type "ObjectRef[int]", variable has type "ObjectRef[str]"
