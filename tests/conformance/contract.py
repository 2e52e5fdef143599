"""What the cases have in common: the lines of the contract that they show, and the list of differences."""

from __future__ import annotations

import functools
import importlib.metadata
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import actorlib

Case = TypeVar("Case", bound=Callable[..., Any])
HERE = Path(__file__).parent
CONTRACT = HERE.parents[1] / "docs" / "contract.md"
WITHIN_S = 60

get = functools.partial(actorlib.get, timeout=WITHIN_S)


def shows(line: str) -> Callable[[Case], Case]:
    """The words of docs/contract.md that a case shows."""

    def mark(case: Case) -> Case:
        case.__dict__["shows"] = line
        return case

    return mark


def case_of(item: Any) -> str:
    """The name of a case, the same on every engine: ``test_order.py::test_x[value]``."""
    callspec = item.callspec
    parts = [part for part in callspec.id.split("-") if part != str(callspec.params["engine"])]
    others = f"[{'-'.join(parts)}]" if parts else ""
    return f"{Path(item.fspath).name}::{item.function.__name__}{others}"


@functools.cache
def differences() -> dict[tuple[str, str], tuple[str, bool]]:
    """(case, engine) to the reason, and whether the case may be run at all."""
    rows = tomllib.loads((HERE / "differences.toml").read_text()).get("difference", [])
    there = [row for row in rows if "before" not in row or is_older(row["engine"], row["before"])]
    return {(case, row["engine"]): (row["reason"], row.get("run", True)) for row in there for case in row["cases"]}


def is_older(package: str, version: str) -> bool:
    """Whether that package is installed here in a release before that one."""
    try:
        installed = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return [int(part) for part in installed.split(".")[:2]] < [int(part) for part in version.split(".")[:2]]
