"""Whole programs: map-reduce and a parameter server."""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import Figure, main, row, seconds

MAPPERS, REDUCERS, PART_BYTES = 64, 8, 1_000_000
FLOATS = 10_000_000 // 8


def produce(_: int) -> tuple[Any, ...]:
    """One mapper's parts, one for each reducer."""
    return tuple(np.ones(PART_BYTES, np.uint8) for _ in range(REDUCERS))


def reduce(*parts: Any) -> int:
    return sum(int(part[0]) * len(part) for part in parts)


def reduce_list(parts: list[Any]) -> int:
    return reduce(*parts)


def pool_map_reduce(pool: Any) -> Figure:
    def work() -> None:
        rows = list(pool.map(produce, range(MAPPERS)))
        columns = [[parts[r] for parts in rows] for r in range(REDUCERS)]
        assert sum(pool.map(reduce_list, columns)) == MAPPERS * REDUCERS * PART_BYTES

    return seconds(work)


@row("map-reduce: 64 tasks x 8 parts of 1 MB", "s", target=0.2, more_is_better=False, pool=pool_map_reduce)
def map_reduce(lib: Any) -> Figure:
    mapper, reducer = lib.remote(num_returns=REDUCERS)(produce), lib.remote(reduce)

    def work() -> None:
        rows = [mapper.remote(i) for i in range(MAPPERS)]
        totals = [reducer.remote(*[parts[r] for parts in rows]) for r in range(REDUCERS)]
        assert sum(lib.get(totals)) == MAPPERS * REDUCERS * PART_BYTES

    first = seconds(work)
    return {"value": seconds(work), "first_s": first}


class Server:
    """Holds the parameters."""

    def __init__(self) -> None:
        self.parameters = np.zeros(FLOATS)

    def push(self, gradient: Any) -> None:
        self.parameters += gradient

    def pull(self) -> Any:
        return self.parameters


class Learner:
    """Pulls the parameters and pushes a gradient."""

    def __init__(self, library: str, server: Any) -> None:
        import importlib

        self.library = importlib.import_module(library)
        self.server = server
        self.gradient = np.ones(FLOATS)

    def rounds(self, count: int) -> float:
        for _ in range(count):
            self.server.push.remote(self.gradient)
            parameters = self.library.get(self.server.pull.remote())
        return float(parameters[0])


@row("parameter server: 2 workers push and pull 10 MB", "rounds/s", target=100)
def parameter_server(lib: Any) -> Figure:
    """A round: each of the two workers has pushed and pulled once."""
    server = lib.remote(num_cpus=0)(Server).remote()
    learners = [lib.remote(num_cpus=0)(Learner).remote(lib.__name__, server) for _ in range(2)]
    lib.get([learner.rounds.remote(5) for learner in learners])
    count = 30
    return count / seconds(lambda: lib.get([learner.rounds.remote(count) for learner in learners]))


if __name__ == "__main__":
    main(__file__)
