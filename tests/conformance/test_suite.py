"""The suite itself: its size, what its cases show, and that the list of differences is about cases that there are."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import contract
import pytest

HERE = Path(__file__).parent
ENGINES = {"local", "cluster", "simulation", "inline", "ray"}


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    """Nothing here needs a session."""


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def functions() -> dict[str, ast.FunctionDef]:
    found = {}
    for path in sorted(HERE.glob("test_*.py")):
        if path.name != Path(__file__).name:
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    found[f"{path.name}::{node.name}"] = node
    return found


def lines_shown() -> dict[str, str]:
    """What each case shows, constants resolved."""
    shown = {}
    for path in sorted(HERE.glob("test_*.py")):
        tree = ast.parse(path.read_text())
        constants = {
            node.targets[0].id: ast.literal_eval(node.value)  # type: ignore[attr-defined]
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        }
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef):
                continue
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "shows":
                    value = decorator.args[0]
                    text = constants[value.id] if isinstance(value, ast.Name) else ast.literal_eval(value)
                    shown[f"{path.name}::{node.name}"] = text
    return shown


def test_every_case_shows_a_line_of_the_contract() -> None:
    text = words(contract.CONTRACT.read_text())
    shown = lines_shown()
    assert not [name for name in functions() if name not in shown]
    assert not [(name, line) for name, line in shown.items() if words(line) not in text]


def test_differences_are_about_cases_that_there_are() -> None:
    rows = tomllib.loads((HERE / "differences.toml").read_text()).get("difference", [])
    names = set(functions())
    for row in rows:
        assert (
            set(row) - {"run", "before"} == {"cases", "engine", "reason"}
            and row["engine"] in ENGINES
            and len(row["reason"]) > 20
        )
        assert not [case for case in row["cases"] if case.split("[")[0] not in names]


def test_what_must_be_whole_is_whole() -> None:
    """Our own runtime, on one machine, as a cluster and in simulation, differs from the contract nowhere."""
    assert {engine for _, engine in contract.differences()} <= {"inline", "ray"}


def test_the_others_differ_in_little() -> None:
    import table

    cases, _ = table.current()
    rows = table.differing()
    counts = {engine: sum(len(names) for _, names in rows[engine]) for engine in rows}
    before = sum(count for engine, count in counts.items() if engine.startswith("ray"))
    assert counts["inline"] <= 0.05 * cases and before <= 0.03 * cases


def test_the_page_of_engines_is_current() -> None:
    """Run tests/conformance/table.py if this fails."""
    import table

    cases, inside = table.current()
    assert cases >= 300
    assert inside == table.table(cases)
