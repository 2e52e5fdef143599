"""All benchmarks, one file after the other, each in a process of its own; then one table of everything.

The JSON files under ``results/`` and the table in ``README.md`` are written from what was measured. ``--peers`` asks
that Ray be there (``make bench-peers`` sees to it), and keeps its figures apart, under ``results/peers/``. ``--quick``
takes one turn and smaller counts, and leaves results and table alone. The exit status tells whether everything ran, not
whether targets were reached: those depend on the machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report
from harness import table

SHORT = {
    "cluster": ["--quick"],
    "locality": ["--quick"],
    "reconstruction": ["--quick"],
    "migration": ["--quick"],
    "gcs_restart": ["--actors", "1000", "--kills", "2"],
    "scale_sim": ["--quick"],
}
"""What starts clusters: here in a short form, to see that it works. Its figures come from longer runs of its own."""
TIMEOUT_S = 240
FOLDER = Path(__file__).parent


def run(name: str, options: list[str], results: Path, timeout_s: float) -> bool:
    """One file. False if it failed, or took too long."""
    path = os.pathsep.join(p for p in (str(FOLDER.parent), os.environ.get("PYTHONPATH", "")) if p)
    environment = {**os.environ, "PYTHONPATH": path, "ACTORLIB_BENCH_RESULTS": str(results)}
    (results / f"{name}.json").unlink(missing_ok=True)
    print(f"== {name}", flush=True)
    try:
        done = subprocess.run([sys.executable, FOLDER / f"{name}.py", *options], env=environment, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        print(f"{name} was stopped after {timeout_s} s", flush=True)
        return False
    return done.returncode == 0


def run_all(options: list[str], results: Path, aside: Path, peers: bool) -> list[str]:
    """Everything; the names of what failed."""
    timeout_s = TIMEOUT_S * (3 if peers else 1)
    failed = [name for name in report.FILES if not run(name, options, results, timeout_s)]
    if not peers:
        failed += [name for name, short in SHORT.items() if not run(name, short, aside, timeout_s)]
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", action="store_true", help="fail unless Ray is installed")
    parser.add_argument("--quick", action="store_true", help="one turn, smaller counts")
    arguments = parser.parse_args()
    if arguments.peers and importlib.util.find_spec("ray") is None:
        print("Ray is not installed in this environment; use `make bench-peers`")
        return 1
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        aside = Path(directory)
        kept = FOLDER / "results" / "peers" if arguments.peers else FOLDER / "results"
        results = aside if arguments.quick else kept
        failed = run_all(["--quick"] if arguments.quick else [], results, aside, arguments.peers)
        found = report.rows(report.contents(results))
    if not arguments.quick:
        report.write()
    print(f"\n== all, {time.monotonic() - started:.0f} s")
    print(table(found))
    missed = [result.name for result in found if result.reached is False]
    failed += [result.name for result in found if "actorlib" in result.errors]
    print(f"\n{len(found)} rows, {len(missed)} missed what they should reach; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
