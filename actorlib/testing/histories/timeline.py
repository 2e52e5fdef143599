"""A history as a picture: one row for each client, a bar for each call, time from left to right, as SVG."""

from __future__ import annotations

import html
from collections.abc import Sequence

from actorlib.testing.histories.linearizability import Outcome
from actorlib.testing.histories.operation import Operation

BAR = 22
GAP = 8
LEFT = 150
TOP = 46
WIDTH_MIN, WIDTH_MAX = 900, 6000
WIDTH_OF_A_CALL = 40
LETTER = 6.2
COLOURS = {"placed": "#cfe3ff", "stuck": "#ffc9c9", "pending": "#eeeeee", "other": "#f4f4f4"}


def draw(
    operations: Sequence[Operation],
    outcome: Outcome | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """The history as the text of an SVG file.

    Args:
        operations: what was recorded.
        outcome: of a check: calls that it placed are blue and numbered, those that nothing explains are red.
        marks: (time, text) of what happened beside the calls, such as faults.
    """
    return Timeline(operations, outcome, marks).svg()


class Timeline:
    """Where everything stands."""

    def __init__(
        self, operations: Sequence[Operation], outcome: Outcome | None, marks: Sequence[tuple[float, str]]
    ) -> None:
        self.operations = sorted(operations, key=lambda operation: operation.began_s)
        times = [one.began_s for one in operations] + [one.ended_s for one in operations if not one.is_pending]
        self.from_s, self.to_s = min(times, default=0.0), max(times, default=1.0)
        span = self.to_s - self.from_s
        self.marks = [(at, text) for at, text in marks if self.from_s - span / 10 <= at <= self.to_s + span / 10]
        for at, _ in self.marks:
            self.from_s, self.to_s = min(self.from_s, at), max(self.to_s, at)
        self.width = max(WIDTH_MIN, min(WIDTH_MAX, WIDTH_OF_A_CALL * len(self.operations)))
        self.place = {} if outcome is None else {one.identity: number for number, one in enumerate(outcome.order, 1)}
        self.stuck = set() if outcome is None else {one.identity for one in outcome.stuck}
        self.title = "" if outcome is None else f"{outcome.verdict.value}: {len(outcome.order)} calls in order"
        self.lanes = self._lanes()

    def _lanes(self) -> list[tuple[str, list[Operation]]]:
        """Rows: calls of one client that overlap lie below each other."""
        clients: dict[str, list[list[Operation]]] = {}
        for one in self.operations:
            lanes = clients.setdefault(f"{one.client} {one.target}".strip(), [])
            free = next((lane for lane in lanes if lane[-1].ended_s < one.began_s), None)
            if free is None:
                lanes.append([one])
            else:
                free.append(one)
        return [(client if not i else "", lane) for client, lanes in clients.items() for i, lane in enumerate(lanes)]

    def x(self, at_s: float) -> float:
        span = (self.to_s - self.from_s) or 1.0
        return LEFT + (self.width - LEFT - 20) * min(1.0, (at_s - self.from_s) / span)

    def svg(self) -> str:
        height = TOP + (BAR + GAP) * len(self.lanes) + 30
        rows = [line for number, lane in enumerate(self.lanes) for line in self._row(number, *lane)]
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{height}" '
                'font-family="monospace" font-size="10">',
                '<rect width="100%" height="100%" fill="white"/>',
                f'<text x="8" y="16" font-size="12">{html.escape(self.title)}</text>',
                *self._axis(height),
                *rows,
                *self._marks(height),
                "</svg>",
                "",
            ]
        )

    def _axis(self, height: int) -> list[str]:
        lines = []
        for tenth in range(0, 11, 2):
            at = self.from_s + (self.to_s - self.from_s) * tenth / 10
            x = self.x(at)
            lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - 20}" stroke="#e0e0e0"/>')
            lines.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{at - self.from_s:.4g} s</text>')
        return lines

    def _marks(self, height: int) -> list[str]:
        lines = []
        for number, (at, text) in enumerate(sorted(self.marks)):
            x = self.x(at)
            dashed = 'stroke="#c00000" stroke-dasharray="3,3"'
            lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 10}" y2="{height - 20}" {dashed}/>')
            y = TOP - 12 - 10 * (number % 2)
            lines.append(f'<text x="{x + 2:.1f}" y="{y}" fill="#c00000">{html.escape(text)}</text>')
        return lines

    def _row(self, number: int, client: str, lane: list[Operation]) -> list[str]:
        y = TOP + (BAR + GAP) * number
        lines = [f'<text x="8" y="{y + 15}">{html.escape(client[:22])}</text>'] if client else []
        for at, one in enumerate(lane):
            until = self.x(lane[at + 1].began_s) if at + 1 < len(lane) else self.width - 4
            lines.extend(self._bar(one, y, until))
        return lines

    def _kind(self, one: Operation) -> str:
        if one.identity in self.place:
            return "placed"
        if one.identity in self.stuck:
            return "stuck"
        return "pending" if one.is_pending else "other"

    def _bar(self, one: Operation, y: float, until: float) -> list[str]:
        """A call; one without an answer is open to the right."""
        x = self.x(one.began_s)
        end = max(x + 3, self.width - 4 if one.is_pending else self.x(one.ended_s))
        dash = ' stroke-dasharray="4,2"' if one.is_pending else ""
        number = f"{self.place[one.identity]}: " if one.identity in self.place else ""
        text, room = f"{number}{one}", int(max(until, end) - x) / LETTER
        shown = text if len(text) <= room else text[: max(0, int(room) - 1)] + "…"
        took = "never answered" if one.is_pending else f"{(one.ended_s - one.began_s) * 1000:.3f} ms"
        about = f"{text}\nfrom {one.began_s - self.from_s:.6f} s, {took}"
        return [
            f'<g><title>{html.escape(about)}</title><rect x="{x:.1f}" y="{y}" width="{end - x:.1f}" height="{BAR}" '
            f'rx="3" fill="{COLOURS[self._kind(one)]}" stroke="#606060"{dash}/>',
            f'<text x="{x + 3:.1f}" y="{y + 15}">{html.escape(shown)}</text></g>',
        ]
