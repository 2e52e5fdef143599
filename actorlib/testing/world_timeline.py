"""What happened last in a simulated world as a picture: a row for each process, a dot for each message, as SVG."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actorlib.testing.simulation import Simulation

DOTS_MAX = 3_000
ROW = 24
LEFT = 170
WIDTH = 1_600
TOP = 50
FAULTS = ("fault", "oracle")


def names_of(simulation: Simulation) -> dict[str, str]:
    """What processes are called, by how the trace calls them."""
    names = {simulation.driver.address.process_id.hex()[:6]: "driver"}
    for node in simulation.nodes:
        names[node.loop.address.process_id.hex()[:6]] = f"node{node.number}"
    for process_id, pid in simulation.pids.items():
        names[process_id.hex()[:6]] = f"worker {pid}"
    return names


def draw_world(simulation: Simulation) -> str:
    """The end of the world's story as the text of an SVG file. Faults and what oracles saw are red lines."""
    records = list(simulation.world.record)[-DOTS_MAX:]
    names = names_of(simulation)
    happened = [
        (since, names.get(who, who), what if isinstance(what, str) else type(what).__name__)
        for since, who, what, _ in records
    ]
    rows = sorted({who for _, who, _ in happened if who not in FAULTS})
    begin, end = (happened[0][0], happened[-1][0]) if happened else (0.0, 1.0)
    span, height = (end - begin) or 1.0, TOP + ROW * len(rows) + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="monospace" '
        'font-size="10">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="16" font-size="12">seed {simulation.world.seed}: {begin:.6f} s to {end:.6f} s, '
        f"the last {len(happened)} of {simulation.world.events} events</text>",
    ]
    for number, who in enumerate(rows):
        y = TOP + ROW * number
        lines.append(f'<text x="8" y="{y + 4}">{html.escape(who[:26])}</text>')
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y}" y2="{y}" stroke="#e0e0e0"/>')
    at = {who: TOP + ROW * number for number, who in enumerate(rows)}
    for since, who, what in happened:
        x = LEFT + (WIDTH - LEFT - 20) * (since - begin) / span
        told = f"<title>{since:.6f} s {html.escape(f'{who} {what}')}</title>"
        if who in FAULTS:
            lines.append(
                f'<g>{told}<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 20}" y2="{height - 20}" stroke="#c00000" '
                f'stroke-dasharray="3,3"/><text x="{x + 2:.1f}" y="{TOP - 22}" fill="#c00000">'
                f"{html.escape(what[:40])}</text></g>"
            )
        else:
            colour = "#c00000" if what.startswith(("ended with", "loses power")) else "#3060c0"
            lines.append(f'<circle cx="{x:.1f}" cy="{at[who]}" r="3" fill="{colour}">{told}</circle>')
    return "\n".join([*lines, "</svg>", ""])
