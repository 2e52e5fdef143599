"""What type checkers make of programs that use actorlib: mypy over ``examples/``, against comments in them.

A comment ``# E: text`` expects one error with that text on its line, ``# N: text`` one revealed type with that text.
Nothing else may be reported, anywhere.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = Path(__file__).parent / "examples"
MYPY_S_MAX = 300
REPORTED = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): (?P<kind>error|note): (?P<text>.*)$")
EXPECTED = re.compile(r"# (?P<kind>[EN]): (?P<text>.+)$")


class Remark(NamedTuple):
    """Something said, or to be said, about a line."""

    line: int
    kind: str  # "E": an error, "N": a revealed type
    text: str


def expected_in(path: Path) -> list[Remark]:
    lines = enumerate(path.read_text().splitlines(), 1)
    return [
        Remark(line, found["kind"], found["text"].strip()) for line, text in lines if (found := EXPECTED.search(text))
    ]


@pytest.fixture(scope="module")
def remarks() -> dict[str, list[Remark]]:
    """By file, from one run over all examples. The cache is the one that ``make lint`` keeps."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--no-error-summary", "--show-error-codes"]
    command += ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    files = [str(path.relative_to(ROOT)) for path in sorted(EXAMPLES.glob("*.py"))]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, timeout=MYPY_S_MAX)
    assert done.returncode in (0, 1) and not done.stderr, done.stdout + done.stderr
    said: dict[str, list[Remark]] = defaultdict(list)
    for report in filter(None, map(REPORTED.match, done.stdout.splitlines())):
        text = report["text"]
        if report["kind"] == "error":
            said[report["file"]].append(Remark(int(report["line"]), "E", text))
        elif text.startswith("Revealed type is "):
            said[report["file"]].append(Remark(int(report["line"]), "N", text.removeprefix("Revealed type is ")))
    return said


def compare(expected: list[Remark], said: list[Remark]) -> list[str]:
    """What was expected and not said, and what was said and not expected."""
    left = list(said)
    complaints = []
    for wanted in expected:
        match = next((s for s in left if s[:2] == wanted[:2] and plain(wanted.text) in plain(s.text)), None)
        if match is None:
            complaints.append(f"line {wanted.line}: expected {wanted.kind}: {wanted.text}")
        else:
            left.remove(match)
    return complaints + [f"line {extra.line}: unexpected {extra.kind}: {extra.text}" for extra in left]


def plain(text: str) -> str:
    """Without the modules of names, which are where they are for reasons of their own."""
    return re.sub(r"\b(actorlib|typing|builtins|collections)(\.\w+)*\.(?=\w)", "", text)


@pytest.mark.timeout(MYPY_S_MAX)
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example(path: Path, remarks: dict[str, list[Remark]]) -> None:
    complaints = compare(expected_in(path), remarks[str(path.relative_to(ROOT))])
    assert not complaints, "\n".join(["", *complaints])


@pytest.mark.timeout(MYPY_S_MAX)
def test_nothing_is_said_of_the_package(remarks: dict[str, list[Remark]]) -> None:
    assert set(remarks) <= {str(path.relative_to(ROOT)) for path in EXAMPLES.glob("*.py")}


def test_the_comparison_bites() -> None:
    said = [Remark(3, "E", "no such thing"), Remark(4, "N", '"builtins.int"')]
    assert compare([Remark(3, "E", "such"), Remark(4, "N", '"int"')], said) == []
    assert compare([Remark(3, "E", "such")], said) == ['line 4: unexpected N: "builtins.int"']
    assert len(compare([Remark(2, "E", "such"), Remark(4, "E", "int")], said)) == 4


def test_it_is_marked_as_typed() -> None:
    assert (ROOT / "actorlib" / "py.typed").exists()
