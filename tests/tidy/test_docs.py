"""What the texts say is true: links lead somewhere, files exist, examples run, words are the code's words."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE_S_MAX = 60
TEXTS = sorted(path for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in TEXTS]

FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TICKED = re.compile(r"`([^`\n]+)`")
# A path in backticks has a folder and an ending, or ends as a folder: `store/owner.py`, `docs/`.
A_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*(/|/[\w-]+\.(py|md|toml|cfg|json|sh))")

# What a text says that its example prints: ``print(...)  # 285``.
SAID = re.compile(r"^\s*print\(.*\)  # ([\d.\[\], -]+)$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block."""

    language: str
    text: str
    line: int


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(name: str) -> list[Block]:
    text = text_of(name)
    return [Block(m[1].strip(), m[2], text.count("\n", 0, m.start()) + 2) for m in FENCE.finditer(text)]


def prose(name: str) -> str:
    return FENCE.sub("", text_of(name))


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+\s+(.*)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    complaints = []
    for link in LINK.findall(prose(name)):
        if re.match(r"[a-z]+:", link):
            continue  # another site; not asked here
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if not target.exists():
            complaints.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target):
            complaints.append(f"{link}: no such heading")
    assert not complaints


def exists(path: str) -> bool:
    """From the repository on, or from ``actorlib/`` on; a folder that each room has is named by itself: `drivers/`."""
    bases = [ROOT, ROOT / "actorlib"]
    if path.count("/") == 1 and path.endswith("/"):
        bases += [base / room for base in bases for room in ("transport", "runtime")]
    return any((base / path).exists() for base in bases)


@pytest.mark.parametrize("name", NAMES)
def test_named_files_exist(name: str) -> None:
    paths = [ticked for ticked in TICKED.findall(prose(name)) if A_PATH.fullmatch(ticked)]
    assert not [path for path in paths if not exists(path)]


@pytest.mark.parametrize("name", [name for name in NAMES if any(b.language.startswith("python") for b in blocks(name))])
def test_examples_run(name: str, tmp_path: Path) -> None:
    """The blocks of one text are one program, as its reader would type it."""
    program = []
    for block in blocks(name):
        if block.language.startswith("python"):
            compile(block.text, f"{name}:{block.line}", "exec")
            if block.language == "python":
                program.append(block.text)
    (tmp_path / "example.py").write_text("\n".join(program))
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=EXAMPLE_S_MAX,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for said in SAID.findall("".join(program)):
        pattern = re.escape(said).replace(r"\.\.\.", ".*")
        assert any(re.fullmatch(pattern, line) for line in done.stdout.splitlines()), (
            f"{said!r} is not in {done.stdout}"
        )


def test_make_targets_exist() -> None:
    makefile = text_of("Makefile")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    named = {
        target for name in NAMES for target in re.findall(r"(?:`|^)make ([a-z][\w-]*)", text_of(name), re.MULTILINE)
    }
    listed = re.search(r"All targets: (.*)\.$", text_of("README.md"), re.MULTILINE)
    assert listed
    assert named - targets == set()
    assert set(TICKED.findall(listed[1])) == phony == targets


# -- the glossary ------------------------------------------------------------------------------------------------------
def terms() -> list[str]:
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", text_of("docs/glossary.md"), re.MULTILINE)[1:]
    return [term.strip() for row in rows if not set(row) <= set("- ") for term in row.split(",")]


@functools.cache
def words_of_the_code() -> str:
    """All Python of the house, lower case, names taken apart: ``LeaseTable`` and ``lease_table`` give "lease table"."""
    rooms = ("transport", "store", "gcs", "scheduler", "actorlib")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py") if not path.parent.is_symlink()]
    text = "\n".join(path.read_text() for path in files)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).replace("_", " ").lower()


@pytest.mark.parametrize("term", terms())
def test_terms_are_the_codes_words(term: str) -> None:
    assert re.search(rf"\b{re.escape(term.lower())}", words_of_the_code())


def test_terms_stand_in_order_and_once() -> None:
    first = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", text_of("docs/glossary.md"), re.MULTILINE)[1:]
    words = [row.lower() for row in first if not set(row) <= set("- ")]
    assert words == sorted(words)
    assert len({term.lower() for term in terms()}) == len(terms())


def test_every_decision_is_told_alike() -> None:
    """What was decided, why, and what follows; each number once."""
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    numbers = [int(path.name[:4]) for path in decisions]
    assert sorted(set(numbers)) == numbers
    for path in decisions:
        text = path.read_text()
        assert text.startswith(f"# {path.name[:4]}: "), path.name
        assert all(f"**{part}.**" in text for part in ("Decision", "Consequences")), path.name
        assert "**Why" in text, path.name
