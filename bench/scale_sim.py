"""How the scheduler behaves as nodes grow, with virtual workers: throughput, waits, messages, locality, churn.

Prints a table, writes it as JSON, and draws ``docs/scale_sim.svg``. What is real and what is modelled stands in
``scale_world.py`` and in docs/testing.md. Seconds are simulated ones, unless it says processor seconds.

    python bench/scale_sim.py            10, 100 and 1 000 nodes, about a minute of a free core
    python bench/scale_sim.py --large    10 000 nodes as well, for fewer simulated seconds
    python bench/scale_sim.py --quick    10 and 50 nodes, in a second or two
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

from scale_world import CPUS, Cluster, Task

ROOT = Path(__file__).resolve().parents[1]
LOAD = 0.7  # of all CPUs
TASK_S = 10.0  # mean of an exponential distribution
ARGUMENT_BYTES = 256 << 20
CHURN_PER_MINUTE = 0.05
VIEW_MESSAGES = ("NodeReport", "NodesChanged", "NodesFree")
Row = dict[str, float]


def load(cluster: Cluster, until_s: float, with_arguments: bool) -> None:
    """Tasks arrive at every driver, each at random times."""
    rate = LOAD * cluster.count_of_nodes * CPUS / TASK_S
    drivers = list(cluster.drivers.values())
    places = list(cluster.nodes)
    rng = cluster.rng

    def arrive() -> None:
        near = rng.choice(places) if with_arguments else None
        size = ARGUMENT_BYTES if with_arguments else 0
        rng.choice(drivers).submit(Task(rng.expovariate(1 / TASK_S), cluster.clock.now, near, size))
        if cluster.clock.now < until_s:
            cluster.clock.after(rng.expovariate(rate), arrive)

    cluster.clock.after(rng.expovariate(rate), arrive)


def churn(cluster: Cluster) -> None:
    """5% of the nodes vanish in a minute, at random times; as many come."""

    def again() -> None:
        cluster.vanish()
        cluster.clock.after(cluster.rng.expovariate(rate), again)

    rate = cluster.count_of_nodes * CHURN_PER_MINUTE / 60.0
    cluster.clock.after(cluster.rng.expovariate(rate), again)


def run(nodes: int, seconds: float, aware: bool = True, arguments: bool = False, churns: bool = False) -> Row:
    """One cluster under load. Gives what was measured."""
    began = time.process_time()
    cluster = Cluster(nodes, drivers_every=2 if churns else 1, aware=aware, seed=nodes)
    load(cluster, seconds, arguments)
    if churns:
        churn(cluster)
    cluster.clock.run_until(seconds)
    spent = time.process_time() - began
    waits = sorted(cluster.waits_s) or [0.0]
    by_task = ("LeaseRequest", "LeaseGranted", "LeaseSpilled", "LeaseReturned", "LeaseRecalled", "RunTasks")
    started = len(cluster.waits_s) or 1
    for node in cluster.nodes.values():
        node.pool.check()
        node.table.check()
    return {
        "nodes": nodes,
        "simulated_s": seconds,
        "tasks_per_s": len(cluster.waits_s) / seconds,
        "wait_p50_ms": 1000 * statistics.median(waits),
        "wait_p99_ms": 1000 * waits[int(len(waits) * 0.99)],
        "messages_per_task": (sum(cluster.sent[kind] for kind in by_task) + cluster.tasks_done) / started,
        "view_messages_per_node_s": sum(cluster.sent[k] for k in VIEW_MESSAGES) / nodes / seconds,
        "moved_gib": cluster.bytes_moved / (1 << 30),
        "tasks_lost": cluster.tasks_lost,
        "events_per_cpu_s": cluster.clock.events / spent,
        "faster_than_real": seconds / spent,
    }


COLUMNS = (
    ("nodes", "nodes", "{:.0f}"),
    ("case", "case", "{}"),
    ("tasks_per_s", "tasks/s", "{:.1f}"),
    ("wait_p50_ms", "p50 ms", "{:.1f}"),
    ("wait_p99_ms", "p99 ms", "{:.1f}"),
    ("messages_per_task", "msgs/task", "{:.2f}"),
    ("view_messages_per_node_s", "views/node/s", "{:.1f}"),
    ("moved_gib", "moved GiB", "{:.1f}"),
    ("tasks_lost", "lost, redone", "{:.0f}"),
    ("faster_than_real", "x real time", "{:.1f}"),
)
CASES: dict[str, dict[str, bool]] = {
    "plain": {},
    "aware": {"arguments": True},
    "unaware": {"arguments": True, "aware": False},
    "churn": {"churns": True},
}


def measure(sizes: dict[int, float]) -> list[dict[str, Any]]:
    """All cases for each size, printed as they come."""
    print("  ".join(f"{head:>12}" for _, head, _ in COLUMNS))
    rows: list[dict[str, Any]] = []
    for nodes, seconds in sizes.items():
        for case, settings in CASES.items():
            row: dict[str, Any] = {"case": case, **run(nodes, seconds, **settings)}
            rows.append(row)
            print("  ".join(f"{shape.format(row[name]):>12}" for name, _, shape in COLUMNS), flush=True)
    return rows


# -- the plot ----------------------------------------------------------------------------------------------------------
PANELS = (
    ("tasks_per_s", "tasks started each second"),
    ("wait_p99_ms", "wait for a worker, 99th percentile, ms"),
    ("messages_per_task", "messages for each task"),
    ("moved_gib", "argument bytes moved, GiB"),
)
COLOURS = {"plain": "#3060c0", "aware": "#208040", "unaware": "#c06020", "churn": "#a02020"}
WIDTH, HEIGHT, LEFT, TOP = 360, 260, 60, 40


def plot(rows: list[dict[str, Any]]) -> str:
    """Four panels over the number of nodes, both axes logarithmic, as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{2 * HEIGHT + 20}" '
        'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for number, (name, title) in enumerate(PANELS):
        parts.append(f'<g transform="translate({WIDTH * (number % 2)},{HEIGHT * (number // 2)})">')
        parts.extend(_panel(rows, name, title))
        parts.append("</g>")
    for number, (case, colour) in enumerate(COLOURS.items()):
        parts.append(f'<text x="{LEFT + 90 * number}" y="{2 * HEIGHT + 12}" fill="{colour}">{case}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(rows: list[dict[str, Any]], name: str, title: str) -> list[str]:
    points = [(row["case"], row["nodes"], row[name]) for row in rows if row[name] > 0]
    if not points:
        return []
    xs, ys = [math.log10(n) for _, n, _ in points], [math.log10(value) for _, _, value in points]
    low, high = math.floor(min(ys)), math.ceil(max(ys) + 1e-9)
    wide, tall = WIDTH - LEFT - 20, HEIGHT - TOP - 40

    def place(nodes: float, value: float) -> tuple[float, float]:
        x = (math.log10(nodes) - min(xs)) / ((max(xs) - min(xs)) or 1)
        y = (math.log10(value) - low) / ((high - low) or 1)
        return LEFT + wide * x, TOP + tall * (1 - y)

    parts = [f'<text x="{LEFT}" y="{TOP - 14}">{title}</text>']
    for power in range(low, high + 1):
        _, y = place(10 ** min(xs), 10.0**power)
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e0e0e0"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for nodes in sorted({n for _, n, _ in points}):
        x, _ = place(nodes, 10.0**low)
        parts.append(f'<text x="{x:.1f}" y="{TOP + tall + 16}" text-anchor="middle">{nodes:.0f}</text>')
    for case, colour in COLOURS.items():
        line = [place(n, value) for which, n, value in sorted(points) if which == case]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.extend(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in line)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="small clusters only, no plot")
    parser.add_argument("--large", action="store_true", help="10 000 nodes as well")
    parser.add_argument("--json", type=Path, help="where the rows are written")
    parser.add_argument("--plot", type=Path, help="where the picture is written")
    given = parser.parse_args()
    sizes = {10: 20.0, 50: 20.0} if given.quick else {10: 60.0, 100: 60.0, 1_000: 10.0}
    if given.large:
        sizes[10_000] = 6.0
    rows = measure(sizes)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    if given.plot:
        given.plot.write_text(plot(rows))


if __name__ == "__main__":
    main()
