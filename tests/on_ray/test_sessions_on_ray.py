"""Joining, refusing, and workers that lack this package: sessions on Ray, each in a process of its own."""

from __future__ import annotations

import importlib.metadata
import os
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
import ray

import actorlib

pytestmark = [pytest.mark.usefixtures("on_ray"), pytest.mark.timeout(200)]
WITHIN_S = 150


def run(code: str, python: str = sys.executable, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [python, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, **more)


def address() -> str:
    return str(ray.get_runtime_context().gcs_address)


def test_importing_the_package_never_imports_ray() -> None:
    done = run("import sys, actorlib, actorlib.util; print('ray' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


# -- joining -----------------------------------------------------------------------------------------------------------
def test_another_process_joins_by_the_address() -> None:
    """What it leaves behind is there for others: a detached actor outlives the driver that made it."""
    done = run(f"""
        import os, sys, actorlib

        @actorlib.remote(num_cpus=0)
        class Lasting:
            def __init__(self): self.total = 40
            def add(self, amount): self.total += amount; return self.total

        @actorlib.remote
        def look(): return "colorsys" in sys.modules, os.environ.get("FOR_ALL")

        about = {{"preload": ["colorsys"], "runtime_env": {{"env_vars": {{"FOR_ALL": "yes"}}}}}}
        with actorlib.init({address()!r}, engine="ray", namespace="shared", log_to_driver=False, **about):
            made = Lasting.options(name="lasting", lifetime="detached").remote()
            print("it is", actorlib.get(made.add.remote(2), timeout=60), actorlib.get(look.remote(), timeout=60))
        """)
    assert "it is 42 (True, 'yes')" in done.stdout, done.stderr
    lasting = actorlib.get_actor("lasting", namespace="shared")
    assert actorlib.get(lasting.add.remote(1), timeout=60) == 43
    actorlib.kill(lasting)


def test_what_is_of_another_engine_is_refused() -> None:
    done = run(f"""
        import actorlib

        def refused(use):
            try:
                use()
            except actorlib.exceptions.WrongEngineError as error:
                print(error)

        @actorlib.remote(num_cpus=0)
        class Plain:
            def ping(self): return 1

        @actorlib.remote
        def same(x): return x

        with actorlib.init({address()!r}, engine="ray", log_to_driver=False):
            theirs, actor = actorlib.put(1), Plain.remote()
        with actorlib.init(engine="inline"):
            ours = actorlib.put(2)
            refused(lambda: actorlib.get(theirs))
            refused(lambda: actorlib.put([theirs]))
            refused(lambda: actor.ping.remote())
            refused(lambda: actorlib.to_ray({{"nested": ours}}))
        with actorlib.init({address()!r}, engine="ray", log_to_driver=False):
            refused(lambda: actorlib.get(ours))
            refused(lambda: same.remote(ours))
            refused(lambda: same.remote([ours]))
            refused(lambda: actorlib.put([ours]))
            refused(lambda: actorlib.remote(lambda: ours).remote())
        """)
    lines = done.stdout.splitlines()
    assert len(lines) == 9, (done.stdout, done.stderr)
    assert all("'ray'" in line and "'inline'" in line for line in [*lines[:3], *lines[4:]]) and "'inline'" in lines[3]


# -- refused -----------------------------------------------------------------------------------------------------------
def refusal(arguments: str) -> str:
    """What EngineUnavailableError says when a session can't be."""
    done = run(f"""
        import actorlib
        try:
            actorlib.init({arguments}, engine="ray", log_to_driver=False)
        except actorlib.exceptions.EngineUnavailableError as error:
            print(error)
        """)
    assert done.stdout, done.stderr
    return done.stdout


def test_a_cluster_that_is_not_there() -> None:
    assert "ray start --head" in refusal("'127.0.0.1:1'")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""], ids=["another service", "nothing"])
def test_what_is_no_head_of_ray(answer: bytes) -> None:
    """Ray's own client would go on trying for minutes."""

    def serve() -> None:
        there, _ = listener.accept()
        with there:
            there.recv(100)
            there.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        told = refusal(f"'127.0.0.1:{listener.getsockname()[1]}'")
        server.join(60)
    assert "does not speak as Ray's head does" in told


def test_ray_too_old_or_not_installed() -> None:
    done = run("""
        import sys, types, actorlib
        ray = types.ModuleType("ray"); ray.__version__ = "2.9.0"
        for there in (ray, None):
            sys.modules["ray"] = there
            try:
                actorlib.init(engine="ray")
            except actorlib.exceptions.EngineUnavailableError as error:
                print(error)
        """)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all("actorlib[ray]" in line for line in lines), done.stderr
    assert "2.9.0" in lines[0] and "not installed" in lines[1]


def test_another_version_of_python_is_refused() -> None:
    done = run(f"""
        import actorlib, ray._private.utils as utils
        utils.compute_version_info = lambda: (utils.ray.__version__, "3.99.0")
        try:
            actorlib.init({address()!r}, engine="ray", log_to_driver=False)
        except actorlib.exceptions.EngineUnavailableError as error:
            print(error)
        """)
    assert "does not fit the Ray cluster" in done.stdout and "3.99.0" in done.stdout, done.stderr


# -- workers that lack this package ------------------------------------------------------------------------------------
def needed_by(name: str, found: dict[str, importlib.metadata.Distribution]) -> None:
    """A distribution and those that it can't do without."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return
    if found.setdefault(distribution.name, distribution) is distribution:
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                needed_by(re.split(r"[^\w.-]", requirement, maxsplit=1)[0], found)


def a_python_with_ray_alone(folder: Path) -> str:
    """Where Ray and what it needs is installed, and neither this package nor what it needs beside that."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    found: dict[str, importlib.metadata.Distribution] = {}
    needed_by("ray", found)
    for distribution in found.values():
        for top in {path.parts[0] for path in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(distribution.locate_file(top)))
    return str(folder / "bin" / "python")


def test_workers_that_lack_the_package_get_it_sent(tmp_path: Path) -> None:
    import cloudpickle

    python = a_python_with_ray_alone(tmp_path / "bare")
    ours = tmp_path / "ours"
    ours.mkdir()
    for package in (actorlib, cloudpickle):
        (ours / package.__name__).symlink_to(Path(str(package.__file__)).parent)
    done = run(
        f"""
        import sys
        sys.path.append({str(ours)!r})  # here alone: Ray does not tell its workers
        import actorlib, ray

        @actorlib.remote(num_cpus=0, checkpoint=1)
        class Counter:
            def __init__(self): self.total = 0
            def add(self): self.total += 1; return self.total

        @actorlib.remote
        def where():
            return actorlib.get(inner.remote())

        @actorlib.remote
        def inner():
            return actorlib.__file__

        about = {{"num_cpus": 2, "include_dashboard": False, "log_to_driver": False}}
        with actorlib.init(engine="ray", **about):
            print(actorlib.get(where.remote(), timeout=60))
            print(actorlib.get(Counter.remote().add.remote(), timeout=60))
            try:
                ray.shutdown()
                ray.init(**about)
                actorlib.engine.Slot.engine = None
                actorlib.init(engine="ray")
            except actorlib.exceptions.EngineUnavailableError as error:
                print(error)
        """,
        python,
        cwd=tmp_path,  # the folder in which a driver runs is looked through by its workers
        env={**os.environ, "PYTHONPATH": ""},
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3, (done.stdout, done.stderr)
    assert lines[0].endswith("actorlib/__init__.py") and "py_modules" in lines[0]
    assert lines[1] == "1" and "no actorlib and no cloudpickle" in lines[2]
    assert not list(Path(tempfile.gettempdir()).glob("actorlib-package-*")), "the copy that was sent is gone"
