"""Actors made again after a fifth of them is killed, with checkpoints and without: Fig. 11b of the OSDI 2018 paper of
Ray, at this machine's size.

Actors are called at a steady rate from one program, for the same time in both halves. At one moment a fifth of them is
killed with SIGKILL. Each call adds to a count that the actor keeps, so the state must be that of all calls once all
are answered. *With checkpoints*: every tenth call is one, and only what came after the last one is run again. *Without*
(one checkpoint would come after more calls than there are): all calls of the actor's life are run again. A call is
told from its re-execution by whether it runs in a later incarnation before calls are answered again; actors count that
themselves, in a file that they share, since what they do while they come back is seen by nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from figure import plot
from harness import RESULTS

import actorlib

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "actor_reconstruction.svg"
EVERY_CALLS = 10
CALL_S = 0.002
NEVER = 1_000_000
SLOTS_S = 0.5


@actorlib.remote(num_cpus=0)
class Counter:
    def __init__(self, notes: str) -> None:
        self.notes = notes
        self.count = 0

    def add(self, number: int) -> int:
        time.sleep(CALL_S)
        self.count += 1
        with open(self.notes, "a", buffering=1) as notes:  # also when it is run again
            notes.write(f"{time.monotonic()} {number}\n")
        return self.count

    def pid(self) -> int:
        return os.getpid()


class Half:
    """One half of the figure: what was called when, run when, and run again."""

    def __init__(self, directory: str, actors: int, every_calls: int) -> None:
        self.notes = [os.path.join(directory, f"{every_calls}-{number}") for number in range(actors)]
        self.actors = [Counter.options(checkpoint=every_calls).remote(notes) for notes in self.notes]
        self.pids = actorlib.get([actor.pid.remote() for actor in self.actors])
        self.called = [0] * actors
        self.answered: list[float] = []
        self.wrong: list[int] = []
        self.killed_at = 0.0

    def kill(self, share: int) -> None:
        self.killed_at = time.monotonic() - self.began
        for number in random.Random(1).sample(range(len(self.actors)), max(1, len(self.actors) // share)):
            os.kill(self.pids[number], signal.SIGKILL)

    def run(self, seconds: float, kill_at: float, share: int) -> None:
        self.began = time.monotonic()
        pending: dict[Any, int] = {}

        def call(number: int) -> None:
            pending[self.actors[number].add.remote(self.called[number])] = number
            self.called[number] += 1

        for number in range(len(self.actors)):
            call(number)
        while (now := time.monotonic() - self.began) < seconds:
            if not self.killed_at and now >= kill_at:
                self.kill(share)
            for ref in actorlib.wait(list(pending), num_returns=1, timeout=0.1)[0]:
                number = pending.pop(ref)
                self.answered.append(time.monotonic() - self.began)
                call(number)
        actorlib.get(list(pending), timeout=120)
        counts = actorlib.get([actor.add.remote(-1) for actor in self.actors], timeout=120)
        self.wrong = [i for i, count in enumerate(counts) if count != self.called[i] + 1]

    def executed(self) -> tuple[list[float], list[float]]:
        """When calls ran for the first time, and when again."""
        first, again = [], []
        for path in self.notes:
            seen: dict[str, None] = {}
            for line in Path(path).read_text().splitlines():
                at, number = line.split()
                (again if number in seen else first).append(float(at) - self.began)
                seen[number] = None
        return first, again


def per_second(times: list[float], seconds: float) -> list[tuple[float, float]]:
    slots = int(seconds / SLOTS_S)
    counts = [0] * slots
    for at in times:
        if 0 <= at < slots * SLOTS_S:
            counts[int(at / SLOTS_S)] += 1
    return [((slot + 0.5) * SLOTS_S, count / SLOTS_S) for slot, count in enumerate(counts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each half")
    parser.add_argument("--actors", type=int, default=20)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.actors = 5.0, 5
    seconds, kill_at = arguments.seconds, arguments.seconds / 2
    result: dict[str, Any] = {"seconds": seconds, "actors": arguments.actors, "killed": arguments.actors // 5}
    lines: dict[str, list[tuple[float, float]]] = {}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as directory, actorlib.init(num_cpus=2):
        for name, every_calls in (("with checkpoints", EVERY_CALLS), ("without", NEVER)):
            half = Half(directory, arguments.actors, every_calls)
            half.run(seconds, kill_at, 5)
            first, again = half.executed()
            back_s = max([at for at in again], default=half.killed_at) - half.killed_at
            print(
                f"{name}: {len(first)} calls, {len(again)} run again after the kill, the last {back_s:.2f} s after it; "
                f"{len(half.wrong)} actors with a wrong count"
            )
            lines[name] = per_second(half.answered, seconds)
            lines[f"{name}: run again"] = per_second(again, seconds)
            result[name] = {
                "calls": len(first),
                "run_again": len(again),
                "last_run_again_after_s": back_s,
                "answered_per_s": lines[name],
                "run_again_per_s": lines[f"{name}: run again"],
            }
            wrong += [f"{name} {number}" for number in half.wrong]
            del half
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "actor_reconstruction.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(FIGURE, "A fifth of the actors is killed", "s", "calls per s", lines, {"killed": kill_at})
    if wrong:
        raise SystemExit(f"wrong counts: {wrong}")


if __name__ == "__main__":
    main()
