"""All benchmarks, one file after the other, each in a process of its own; then one table of everything.

``--peers`` asks that Ray be there (``make bench-peers`` sees to it); without it Ray takes part if it is installed.
``--quick`` takes one turn and smaller counts. The exit status tells whether everything ran, not whether targets were
reached: those depend on the machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from harness import RESULTS, Result, table

FILES = ("tasks", "actors", "durable", "objects", "programs", "startup", "sim", "envs")
TIMEOUT_S = 240


def run(name: str, options: list[str], timeout_s: float) -> bool:
    """One file. False if it failed, or took too long."""
    folder = Path(__file__).parent
    path = os.pathsep.join(p for p in (str(folder.parent), os.environ.get("PYTHONPATH", "")) if p)
    environment = {**os.environ, "PYTHONPATH": path}
    (RESULTS / f"{name}.json").unlink(missing_ok=True)
    print(f"== {name}", flush=True)
    try:
        done = subprocess.run([sys.executable, folder / f"{name}.py", *options], env=environment, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        print(f"{name} was stopped after {timeout_s} s", flush=True)
        return False
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", action="store_true", help="fail unless Ray is installed")
    parser.add_argument("--quick", action="store_true", help="one turn, smaller counts")
    arguments = parser.parse_args()
    if arguments.peers and importlib.util.find_spec("ray") is None:
        print("Ray is not installed in this environment; use `make bench-peers`")
        return 1
    started = time.monotonic()
    timeout_s = TIMEOUT_S * (3 if arguments.peers else 1)
    ran = [run(name, ["--quick"] if arguments.quick else [], timeout_s) for name in FILES]
    results = []
    for name in FILES:
        path = RESULTS / f"{name}.json"
        if path.exists():
            results += [Result(**row) for row in json.loads(path.read_text())["rows"]]
    print(f"\n== all, {time.monotonic() - started:.0f} s")
    print(table(results))
    missed = [result.name for result in results if result.reached is False]
    failed = [result.name for result in results if "actorlib" in result.errors]
    print(f"\n{len(results)} rows, {len(missed)} missed what they should reach, {len(failed)} failed")
    return 0 if all(ran) and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
