"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

TESTS = """
    import actorlib
    import time

    @actorlib.remote
    def double(value):
        time.sleep(1)
        return 2 * value

    def test_good(simulated):
        assert actorlib.get(double.remote(4)) == 8
        simulated.crash_worker()

    def test_bad(simulated, simulation_seed):
        assert actorlib.get(double.remote(4)) == 8
        assert simulated.world.seed == simulation_seed
        assert False, f"seed was {simulation_seed}"
"""


def run(path, *options):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
    )


def test_a_failure_leaves_its_files_and_the_command_that_repeats_it(tmp_path):
    (tmp_path / "test_it.py").write_text(textwrap.dedent(TESTS))
    done = run(tmp_path)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    (command,) = [line for line in done.stdout.splitlines() if line.startswith("again: pytest ")]
    (seed,) = {line.split()[-1] for line in done.stdout.splitlines() if line.startswith("E") and "seed was" in line}
    assert "RunTasks" in (tmp_path / ".actorlib" / "test_it.py_test_bad.trace.txt").read_text()
    again = run(tmp_path, *command.split()[2:])
    assert "1 failed, 1 deselected" in again.stdout and f"seed was {seed}" in again.stdout, again.stdout


def test_a_seed_can_be_given(tmp_path):
    (tmp_path / "test_it.py").write_text(textwrap.dedent(TESTS))
    assert "seed was 77" in run(tmp_path, "--actorlib-seed", "77").stdout


def test_a_file_that_is_no_replay_is_refused(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    done = run(tmp_path, "--actorlib-replay", "other.json")
    assert "not a replay file" in done.stderr and done.returncode == 4
