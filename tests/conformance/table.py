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


def differing() -> dict[str, list[tuple[str, list[str]]]]:
    """For each engine, also for older releases of what it stands on: reasons and their cases."""
    found: dict[str, list[tuple[str, list[str]]]] = {engine: [] for engine in ENGINES}
    for row in tomllib.loads((HERE / "differences.toml").read_text()).get("difference", []):
        release = f" before {row['before']}" if "before" in row else ""
        found.setdefault(row["engine"] + release, []).append((row["reason"], row["cases"]))
    return found


def table(cases: int) -> str:
    """What stands between the marks."""
    lines = [
        f"{cases} cases, each on every engine:",
        "",
        "| engine | as the contract says | differs |",
        "|---|---|---|",
    ]
    by_engine = differing()
    for engine, rows in by_engine.items():
        newer = engine.partition(" before ")[0]
        all_rows = [*rows, *(by_engine[newer] if newer != engine else ())]
        count = sum(len(names) for _, names in all_rows)
        lines.append(f"| {engine} | {100 * (cases - count) / cases:.1f}% | {count} |")
    lines += ["", "| engine | case | why it differs |", "|---|---|---|"]
    for engine, rows in by_engine.items():
        for reason, names in rows:
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
