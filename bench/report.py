"""Writes the table in ``bench/README.md`` from the JSON files, so that it can't be older than the figures.

``run.py`` calls this after each whole run; ``python bench/report.py`` does it alone. Ratios to Ray are those of the
last ``make bench-peers``, in which both took turns.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import Result, number

FILES = ("tasks", "actors", "objects", "programs", "startup", "durable", "sim", "envs")
FOLDER = Path(__file__).parent
BEGINS, ENDS = "<!-- the table begins -->", "<!-- the table ends -->"
FLOORS = {
    "ping_pong_us": ("ping-pong", "us"),
    "memcpy_gb_s": ("memcpy", "GB/s"),
    "fresh_tmpfs_gb_s": ("fresh pages", "GB/s"),
}


def contents(results: Path) -> list[dict[str, Any]]:
    """What the files there hold, in the order of ``FILES``."""
    paths = [results / f"{name}.json" for name in FILES]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def rows(found: list[dict[str, Any]]) -> list[Result]:
    return [Result(**row) for content in found for row in content["rows"]]


def _figure(result: Result) -> str:
    if result.actorlib is None:
        return "failed"
    details = result.details.get("actorlib", {})
    tail = next((f", p99 {number(details[name])} {name[4:]}" for name in ("p99_us", "p99_ms") if name in details), "")
    first = f" ({number(details['first_s'])} s the first time)" if "first_s" in details else ""
    return f"{number(result.actorlib)} {result.unit}{tail}{first}"


def _to_reach(result: Result) -> str:
    floor = result.details.get("floor")
    return f"{result.claim}: {number(result.target)} {result.unit}" if floor else result.claim or number(result.target)


def _reached(result: Result) -> str:
    if result.reached is None:
        return "?"
    return "yes" if result.reached else f"**no**: {', '.join(result.missed)}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{number(ratio)}x"


def table(ours: list[Result], peers: list[Result]) -> list[str]:
    """The rows as Markdown."""
    beside_ray = {result.name: result.ratio("ray") for result in peers}
    lines = ["| work | to reach | measured | reached | beside the pool | beside Ray |", "|---|---|---|---|---|---|"]
    for result in ours:
        cells = (result.name, _to_reach(result), _figure(result), _reached(result), _times(result.ratio("pool")))
        lines.append(f"| {' | '.join((*cells, _times(beside_ray.get(result.name))))} |")
    return lines


def conditions(found: list[dict[str, Any]]) -> str:
    """On what, when, and what the floors were meanwhile."""
    machines = [content["machine"] for content in found]
    floors = [
        floors for content in found for floors in (content["floors"], content.get("floors_after", content["floors"]))
    ]
    ranges = [
        f"{name} {number(min(one[key] for one in floors))} to {number(max(one[key] for one in floors))} {unit}"
        for key, (name, unit) in FLOORS.items()
    ]
    times = sorted(machine["measured"] for machine in machines if "measured" in machine)
    when = f", from {times[0]} to {times[-1]}" if times else ""
    loads = [machine["load_before"] for machine in machines]
    quick = " Some of it is of quick runs." if any(content["quick"] for content in found) else ""
    return (
        f"Measured on {machines[0]['cores']} cores, Python {machines[0]['python']}, 2 workers{when}; medians of turns. "
        f"Floors in that run: {', '.join(ranges)}. Load average before each file: {number(min(loads))} to "
        f"{number(max(loads))}.{quick}"
    )


def write() -> None:
    """Put the table into the README, in place of the one before."""
    ours = contents(FOLDER / "results")
    if not ours:
        return
    peers = contents(FOLDER / "results" / "peers")
    told = conditions(ours)
    if peers:
        versions = sorted({content["ray"] for content in peers if content.get("ray")})
        loads = [content["machine"]["load_before"] for content in peers]
        told += (
            f" Ratios to Ray {', '.join(versions)} are of another run, in which both took turns, at a load average of "
            f"{number(min(loads))} to {number(max(loads))}."
        )
    path = FOLDER / "README.md"
    before, _, rest = path.read_text().partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    text = "\n".join([told, "", *table(rows(ours), rows(peers))])
    path.write_text(f"{before}{BEGINS}\n{text}\n{ENDS}{after}")


if __name__ == "__main__":
    write()
