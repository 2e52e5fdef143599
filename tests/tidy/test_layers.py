"""The house stays in order: who imports whom, what cores may touch, how long things are, what is written down.

Everything here is read from the syntax trees of the files that git tracks; nothing is imported, but for the last test
of docstrings. The reasons are in docs/ARCHITECTURE.md ("The rooms"). An exception to a rule stands in a list at the top
of this file, with its reason.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import actorlib

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("transport", "store", "gcs", "scheduler")

FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 80
LONG_FILES = {
    # One table: every message between processes, with its fields and their meaning. Splitting it would hide the table.
    "transport/messages.py": 1500,
}

# -- (a) which part may import which -----------------------------------------------------------------------------------
MAY_IMPORT = {
    "transport": {"transport"},
    "sim": {"transport", "sim"},
    "store": {"transport", "store"},
    "gcs": {"transport", "gcs"},
    "scheduler": {"transport", "store", "scheduler"},
    "api": {"api"},
    "engines": {"api", "engines"},
    "runtime": {"transport", "store", "gcs", "scheduler", "api", "runtime"},
    "cli": {"transport", "api", "runtime", "cli"},
    "testing": {"transport", "sim", "store", "gcs", "scheduler", "api", "runtime", "testing"},
}

# The API layer reaches the machinery through an Engine. What it knows besides is values and their checks ...
API_MAY_KNOW = {"actorlib.transport.ids", "actorlib.transport.link"}
# ... and, file by file:
API_EXCEPTIONS = {
    "actorlib/api.py": {"actorlib.engines.registry"},  # init() names the engine, the registry starts it
    "actorlib/cluster_utils.py": {
        "actorlib.runtime.drivers.driver",  # a cluster of nodes on this machine, for tests: it starts processes
        "actorlib.runtime.drivers.node_process",
        "actorlib.runtime.drivers.session_file",
    },
    "actorlib/exceptions.py": {"actorlib.transport.messages"},  # the outcomes of calls that become exceptions
    "actorlib/options.py": {"actorlib.scheduler.resources"},  # amounts as exact units: pure functions
    "actorlib/supervision.py": {"actorlib.runtime.supervision"},  # what supervisors decide: a core without I/O
    "actorlib/util/placement_group.py": {"actorlib.scheduler.resources"},
}

# An engine is the API's other side; that of our own runtime starts it.
ENGINE_EXCEPTIONS = {
    "actorlib/engines/on_ray/durable.py": {"actorlib.runtime.drivers.actor_state"},  # an actor's state as bytes
    "actorlib/engines/on_ray/journal.py": {
        "actorlib.runtime.drivers.checkpoint_store"
    },  # files in directories and URLs
    "actorlib/engines/inline/bookkeeping.py": {"actorlib.scheduler.policy", "actorlib.scheduler.resources"},  # pure
    "actorlib/engines/inline/engine.py": {"actorlib.runtime.drivers.actor_state"},  # an actor's state as bytes
    "actorlib/engines/local.py": {"actorlib.runtime.drivers.local_session"},
}
# What holds an engine in the API layer, by the name that it has there.
ENGINE_NAMES = {"engine", "current", "self._engine", "_engine.current()", "engine.current()"}

# -- (b) what cores may import from outside: data, arithmetic and types; nothing that waits, asks or draws ------------
PURE = {
    "__future__", "bisect", "collections", "collections.abc", "dataclasses", "enum", "functools", "hashlib", "heapq",
    "itertools", "math", "msgpack", "operator", "struct", "types", "typing",
}  # fmt: skip
CORE_EXCEPTIONS = {
    "transport/ids.py": {"os"},  # os.urandom, where no source of random bytes is handed in
    "actorlib/runtime/call_log_format.py": {"zlib"},  # checksums: a pure function
}
# Of the API layer, the runtime's cores may know only the plain data of the seam.
CORE_MAY_KNOW_OF_API = {"actorlib.engine"}

# -- (c) who makes ZeroMQ sockets -------------------------------------------------------------------------------------
MAKES_SOCKETS = {
    "transport/drivers/sockets.py",
    # The door's own sockets, inside the process: libzmq's questions about strangers and its events; no peer's frames.
    "transport/drivers/access.py",
    # Asks once whether we would be let in, before there is a process that could have sockets.
    "transport/drivers/knock.py",
}
UNPICKLES = {
    "actorlib/serialization.py",
    "actorlib/inspection.py",  # finds out why something can't be pickled
    "actorlib/by_value.py",  # pickles modules by value
}

# -- (g) errors that nobody hears of ----------------------------------------------------------------------------------
SWALLOWS = {
    # start_local: stops a node while the error that really matters is on its way up.
    ("actorlib/runtime/drivers/local_session.py", "start_local"),
}


class Source(NamedTuple):
    """One tracked Python file."""

    path: str
    tree: ast.Module
    lines: int

    @property
    def part(self) -> str:
        """The part of the house that it belongs to: a key of MAY_IMPORT."""
        return part_of(module_of(self.path))

    @property
    def is_core(self) -> bool:
        return self.part in (*ROOMS, "runtime") and "/drivers/" not in self.path


def module_of(path: str) -> str:
    dotted = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return dotted if dotted.startswith("actorlib") else f"actorlib.{dotted}"


def part_of(module: str) -> str:
    names = module.split(".")
    if names[1:3] == ["transport", "sim"]:
        return "sim"
    return names[1] if len(names) > 1 and names[1] in MAY_IMPORT else "api"


def tracked(*patterns: str) -> list[str]:
    """Tracked files that are there, links left out: each file once."""
    listed = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=True)
    paths = sorted(set(filter(None, listed.stdout.decode().split("\0"))))
    return [path for path in paths if (ROOT / path).is_file() and not (ROOT / path).is_symlink()]


@functools.cache
def sources() -> tuple[Source, ...]:
    found = []
    for path in tracked(*(f"{room}/*.py" for room in (*ROOMS, "actorlib"))):
        text = (ROOT / path).read_text()
        found.append(Source(path, ast.parse(text, path), text.count("\n")))
    assert len(found) > 80, "the house has more files than that: is the list right?"
    return tuple(found)


@functools.cache
def our_modules() -> frozenset[str]:
    return frozenset(module_of(source.path) for source in sources())


def imports_of(source: Source) -> Iterator[tuple[int, str]]:
    """Line and full name of each module that the file imports, also inside functions and for types only."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in our_modules() else base


def report(complaints: list[str]) -> None:
    assert not complaints, "\n".join(["", *complaints])


# -- the tests ---------------------------------------------------------------------------------------------------------
def test_imports_go_down() -> None:
    complaints = []
    for source in sources():
        allowed_here = {**API_EXCEPTIONS, **ENGINE_EXCEPTIONS}.get(source.path, set())
        for line, module in imports_of(source):
            if module.split(".")[0] != "actorlib" or part_of(module) in MAY_IMPORT[source.part]:
                continue
            if source.part in ("api", "engines") and module in API_MAY_KNOW | allowed_here:
                continue
            complaints.append(f"{source.path}:{line}: {source.part} must not import {module}")
    report(complaints)


def test_the_seam_is_all_that_the_api_asks_of_an_engine() -> None:
    """What the API layer takes from an engine is in the protocol: nothing else can be there with another engine."""
    offered = set(vars(actorlib.engine.Engine)) | set(actorlib.engine.Engine.__annotations__)
    of_the_module = set(vars(actorlib.engine))
    complaints = []
    for source in filter(lambda source: source.part == "api", sources()):
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Attribute) or ast.unparse(node.value) not in ENGINE_NAMES:
                continue
            if node.attr not in offered | of_the_module:
                complaints.append(f"{source.path}:{node.lineno}: {ast.unparse(node)} is not in the Engine protocol")
    report(complaints)


def test_imports_are_written_in_full() -> None:
    """A room imported under a second name would make every class of it exist twice."""
    complaints = []
    for source in sources():
        for line, module in imports_of(source):
            if module.startswith(".") or module.split(".")[0] in ROOMS:
                complaints.append(f"{source.path}:{line}: import {module} as actorlib....")
    report(complaints)


def test_cores_touch_nothing() -> None:
    complaints = []
    for source in filter(lambda source: source.is_core, sources()):
        allowed = PURE | CORE_EXCEPTIONS.get(source.path, set())
        for line, module in imports_of(source):
            if module.split(".")[0] != "actorlib":
                fine = module in allowed
            else:
                api = part_of(module) == "api"
                fine = module in CORE_MAY_KNOW_OF_API if api else "drivers" not in module.split(".")
            if not fine:
                complaints.append(f"{source.path}:{line}: a core must not import {module}")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "print"):
                complaints.append(f"{source.path}:{node.lineno}: a core must not call {node.func.id}()")
    report(complaints)


def test_exceptions_are_still_needed() -> None:
    used = {source.path: {module for _, module in imports_of(source)} for source in sources()}
    given = {**API_EXCEPTIONS, **ENGINE_EXCEPTIONS, **CORE_EXCEPTIONS}
    report([f"{path} no longer imports {module}" for path in given for module in given[path] - used.get(path, set())])


def test_one_place_makes_sockets() -> None:
    complaints = []
    for source in sources():
        if source.path in MAKES_SOCKETS:
            continue
        uses_zmq = any(module.split(".")[0] == "zmq" for _, module in imports_of(source))
        for node in ast.walk(source.tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            called = ast.unparse(node.func)
            if called in ("zmq.Context", "zmq.Context.instance", "zmq.Socket") or (
                uses_zmq and called.endswith(".socket")
            ):
                complaints.append(f"{source.path}:{node.lineno}: {called}() belongs in transport/drivers/sockets.py")
    report(complaints)


def test_one_place_unpickles() -> None:
    complaints = []
    for source in sources():
        for line, module in imports_of(source):
            if module.split(".")[0] in ("pickle", "cloudpickle", "marshal", "dill") and source.path not in UNPICKLES:
                complaints.append(f"{source.path}:{line}: {module} belongs in actorlib/serialization.py")
    report(complaints)


def test_files_are_named_by_a_concept() -> None:
    vague = re.compile(r"(^|/)(utils?|helpers?|common|misc)\.py$")
    report([f"{path}: name the concept" for path in tracked("*.py") if vague.search(path)])


def test_files_and_functions_are_short() -> None:
    complaints = []
    for source in sources():
        most = LONG_FILES.get(source.path, FILE_LINES_MAX)
        if source.lines > most:
            complaints.append(f"{source.path}: {source.lines} lines, at most {most}")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    complaints.append(f"{source.path}:{node.lineno}: {node.name} has {length} lines")
    report(complaints)


def test_every_module_says_what_it_is() -> None:
    report([f"{s.path}: no docstring" for s in sources() if s.tree.body and not ast.get_docstring(s.tree)])


@pytest.mark.parametrize("name", [name for name in actorlib.__all__ if callable(getattr(actorlib, name))])
def test_public_names_have_a_docstring(name: str) -> None:
    """A class may take it from a base of ours, but not from ``bytes`` or ``object``."""
    thing = getattr(actorlib, name)
    owners = [c for c in thing.__mro__ if c.__module__.startswith("actorlib")] if inspect.isclass(thing) else [thing]
    assert any(vars(owner).get("__doc__") if inspect.isclass(owner) else owner.__doc__ for owner in owners)


def test_nothing_is_left_to_do() -> None:
    """No reminders, and no path of the machine that this was written on."""
    # Put together here, so that this file has none of them either.
    forbidden = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b|/wo" r"rk/|/ro" r"ot/")
    complaints = []
    for path in tracked("*"):
        for number, line in enumerate((ROOT / path).read_text(errors="replace").splitlines(), 1):
            if found := forbidden.search(line):
                complaints.append(f"{path}:{number}: {found.group()}")
    report(complaints)


def test_no_error_is_swallowed() -> None:
    complaints = []
    for source in sources():
        for function, line, what in _swallowed(source.tree, "module"):
            if (source.path, function) not in SWALLOWS:
                complaints.append(f"{source.path}:{line}: {what} in {function} hides every error")
    report(complaints)


def _swallowed(node: ast.AST, function: str) -> Iterator[tuple[str, int, str]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function = node.name
    if isinstance(node, ast.ExceptHandler) and (node.type is None or (_catches_all(node.type) and _is_idle(node.body))):
        yield function, node.lineno, "except: pass"
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress") and any(map(_catches_all, node.args)):
        yield function, node.lineno, "suppress"
    for child in ast.iter_child_nodes(node):
        yield from _swallowed(child, function)


def _catches_all(kind: ast.expr) -> bool:
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(ast.unparse(each) in ("Exception", "BaseException") for each in kinds)


def _is_idle(body: list[ast.stmt]) -> bool:
    return all(isinstance(s, ast.Pass | ast.Continue) or ast.unparse(s) == "..." for s in body)
