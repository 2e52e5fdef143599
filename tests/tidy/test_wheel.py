"""The wheel that users install: what is in it, what it asks for, and that it works away from the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE_REQUIREMENTS = {"pyzmq", "msgpack", "numpy", "lmdb", "psutil", "cloudpickle"}
BUILDING_S_MAX = 180
PROGRAM = """
import actorlib

@actorlib.remote
def double(x: int) -> int:
    return 2 * x

if __name__ == "__main__":
    with actorlib.init(num_cpus=1):
        assert actorlib.get(double.remote(21)) == 42
    print(actorlib.__file__)
"""


def run(command: list[str], where: Path, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run(
        command,
        cwd=where,
        env={**inherited, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        timeout=BUILDING_S_MAX,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return sorted(path for path in set(filter(None, listed.split("\0"))) if os.path.lexists(ROOT / path))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release would be: from what git tracks, the links kept, in a folder of its own."""
    source = tmp_path_factory.mktemp("source")
    for path in tracked():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, source / path, follow_symlinks=False)
    target = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(target),
        ".",
    ]
    run(build, source)
    (built,) = target.glob("*.whl")
    return built


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def requirements_of(wheel: Path) -> tuple[set[str], set[str]]:
    """Names that are always required, and those that only an extra asks for."""
    always, extra = set(), set()
    for line in metadata_of(wheel).get_all("Requires-Dist", []):
        requirement, _, marker = line.partition(";")
        name = "".join(letter if letter.isalnum() or letter in "-_" else " " for letter in requirement).split()[0]
        (extra if "extra" in marker else always).add(name.lower())
    return always, extra


def test_it_has_only_the_package(wheel: Path) -> None:
    """Nothing beside ``actorlib``: a top-level ``scheduler`` would shadow a user's own scheduler.py."""
    assert {name.split("/")[0] for name in names_in(wheel)} == {"actorlib", f"actorlib-{version(wheel)}.dist-info"}
    assert {Path(name).suffix for name in names_in(wheel) if name.startswith("actorlib/")} == {".py", ".typed"}


def version(wheel: Path) -> str:
    return str(metadata_of(wheel)["Version"])


def test_it_has_every_module(wheel: Path) -> None:
    rooms = ("transport/", "store/", "gcs/", "scheduler/")
    wanted = {f"actorlib/{path}" for path in tracked() if path.startswith(rooms) and path.endswith(".py")}
    wanted |= {path for path in tracked() if path.startswith("actorlib/") and path.endswith((".py", "py.typed"))}
    assert wanted == {name for name in names_in(wheel) if name.startswith("actorlib/")}
    for room in (*rooms, "util/", "runtime/drivers/", "py.typed"):
        assert any(name.startswith(f"actorlib/{room}") for name in wanted), room


def test_it_asks_for_little(wheel: Path) -> None:
    always, extra = requirements_of(wheel)
    assert always == CORE_REQUIREMENTS
    assert not extra & CORE_REQUIREMENTS


def test_it_says_what_it_is(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    assert metadata["Name"] == "actorlib"
    assert "Apache-2.0" in (metadata["License-Expression"], metadata["License"])
    assert metadata["Requires-Python"] == ">=3.11"
    assert any(name.endswith("LICENSE") for name in names_in(wheel))


@pytest.mark.timeout(240)
def test_it_works_when_installed(wheel: Path, tmp_path: Path) -> None:
    """In a folder of its own; of this environment it sees only the dependencies, not the editable install."""
    target = tmp_path / "installed"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    run([sys.executable, "-m", "pip", *install], tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    dependencies = next(path for path in sys.path if path.endswith("site-packages"))
    # -S: no .pth files are read, and one of them is the editable install.
    printed = run(
        [sys.executable, "-S", "program.py"], tmp_path, PYTHONPATH=os.pathsep.join([str(target), dependencies])
    )
    assert Path(printed.split()[-1]).is_relative_to(target)
