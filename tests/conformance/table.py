"""Writes the table of differences into docs/engines.md: ``python tests/conformance/table.py``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "engines.md"
ENGINES = ("local", "cluster", "simulation", "inline", "ray")
BEGIN, END = "<!-- differences: begin -->\n", "<!-- differences: end -->\n"


def number_of_cases() -> int:
    """As pytest counts them for one engine, the suite's tests of itself left out."""
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", str(HERE)],
        cwd=ROOT,
        env={**os.environ, "ACTORLIB_CONFORMANCE_ENGINES": "inline"},
        capture_output=True,
        text=True,
        check=True,
    )
    return len([line for line in listed.stdout.splitlines() if "::" in line and "test_suite.py" not in line])


def differing(engine: str) -> list[tuple[str, list[str]]]:
    """Reasons and their cases."""
    rows = tomllib.loads((HERE / "differences.toml").read_text()).get("difference", [])
    return [(row["reason"], row["cases"]) for row in rows if row["engine"] == engine]


def table(cases: int) -> str:
    """What stands between the marks."""
    lines = [
        f"{cases} cases, each on every engine:",
        "",
        "| engine | as the contract says | differs |",
        "|---|---|---|",
    ]
    for engine in ENGINES:
        count = sum(len(names) for _, names in differing(engine))
        lines.append(f"| {engine} | {100 * (cases - count) / cases:.1f}% | {count} |")
    lines += ["", "| engine | case | why it differs |", "|---|---|---|"]
    for engine in ENGINES:
        for reason, names in differing(engine):
            for name in names:
                words = name.split("::test_")[1].replace("_", " ")
                lines.append(f"| {engine} | {words} | {reason} |")
    return "\n".join(lines) + "\n"


def current() -> tuple[int, str]:
    """The number of cases and the text that the page has now."""
    text = PAGE.read_text()
    inside = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    found = re.match(r"(\d+) cases", inside)
    return int(found[1]) if found else 0, inside


def main() -> None:
    text = PAGE.read_text()
    _, inside = current()
    PAGE.write_text(text.replace(BEGIN + inside + END, BEGIN + table(number_of_cases()) + END))


if __name__ == "__main__":
    main()
