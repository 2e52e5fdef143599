"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree

import pytest

from actorlib.testing import Deviation, Fault, dump_schedule, load_schedule

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
    drawing = ElementTree.parse(tmp_path / ".actorlib" / "test_it.py_test_bad.timeline.svg")
    assert {"driver", "node0"} <= {element.text for element in drawing.getroot().iter()}
    again = run(tmp_path, *command.split()[2:])
    assert "1 failed" in again.stdout and f"seed was {seed}" in again.stdout, again.stdout


def test_the_fixture_can_be_real_processes(tmp_path):
    (tmp_path / "test_it.py").write_text(textwrap.dedent(TESTS))
    done = run(tmp_path, "--actorlib-mode", "process", "-k", "good")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_a_seed_can_be_given(tmp_path):
    (tmp_path / "test_it.py").write_text(textwrap.dedent(TESTS))
    assert "seed was 77" in run(tmp_path, "--actorlib-seed", "77").stdout


SHRINKS = """
    import time

    import actorlib
    from hypothesis import Phase, given, settings
    from actorlib.testing import faults, simulate

    @actorlib.remote(max_restarts=-1, max_task_retries=-1)
    class Account:
        def __init__(self):
            self.balance = 0

        def deposit(self, amount):
            time.sleep(0.02)
            self.balance += amount
            return self.balance

    @settings(max_examples=100, deadline=None, derandomize=True, phases=[Phase.generate, Phase.shrink])
    @given(faults(kinds=["crash_actor", "pause_worker", "jitter"], max_size=8, within_s=0.2))
    def test_shrinks(plan):
        with simulate(seed=5, faults=plan, check=False):
            account = Account.remote()
            assert [actorlib.get(account.deposit.remote(1), timeout=300) for _ in range(5)] == [1, 2, 3, 4, 5]
"""


def test_the_schedule_that_hypothesis_shrank_is_left_and_replayed(tmp_path):
    (tmp_path / "test_it.py").write_text(textwrap.dedent(SHRINKS))
    done = run(tmp_path)
    left = tmp_path / ".actorlib" / "test_it.py_test_shrinks.schedule.json"
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    plan = load_schedule(left.read_text())
    (fault,) = plan  # of up to eight that were drawn, whichever of three kinds
    assert fault.kind == "crash_actor" and fault.amount == fault.for_s == 0.0 and fault.target == 0
    (command,) = [line for line in done.stdout.splitlines() if line.startswith("again: pytest ")]
    again = run(tmp_path, *command.split()[2:])
    assert "1 failed" in again.stdout and load_schedule(left.read_text()) == plan


ORACLE = """
    import pytest
    from actorlib.testing.oracles.oracle import Violation
    import actorlib

    @actorlib.remote
    def one():
        return 1

    @pytest.mark.actorlib(nodes=1, check=True)
    def test_kept(simulated):
        ref = one.remote()
        assert actorlib.get(ref) == 1 and len(simulated.nodes) == 1
        simulated.violate(Violation("mine", "it is wrong", ref._id))
        actorlib.get(one.remote())
"""


def test_the_story_of_what_an_oracle_names_is_left(tmp_path):
    (tmp_path / "test_it.py").write_text(textwrap.dedent(ORACLE))
    done = run(tmp_path)
    assert "1 failed" in done.stdout and "it is wrong" in done.stdout, done.stdout + done.stderr
    assert "RunTasks" in (tmp_path / ".actorlib" / "test_it.py_test_kept.story.txt").read_text()


def test_schedules_are_json_and_come_back():
    plan = [Fault("crash_worker", 0.5, 3), Deviation(7, 0.25), Fault("loss")]
    assert load_schedule(dump_schedule(plan)) == [plan[0], plan[2], plan[1]]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"version": 99, "faults": []}', "a schedule of version 99, but this actorlib reads version 1"),
        ('{"faults": []}', "it has no version"),
        ("[]", "it has no version"),
        ('{"version": 1, "faults": [{"kind": "earthquake"}]}', "there is no fault 'earthquake'"),
        ('{"version": 1, "faults": [{"kind": "loss", "at_s": "soon"}]}', "at_s can't be 'soon'"),
        ('{"version": 1, "faults": [{"kind": "loss", "when": 1}]}', "not a Fault"),
        ('{"version": 1, "deviations": [{"nth": 1}]}', "not a Deviation"),
        ('{"version": 1, "faults": {}}', "must be lists"),
        ("nonsense", "Expecting value"),
    ],
)
def test_what_is_no_schedule_is_refused(text, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        load_schedule(text)


def test_a_seed_that_is_no_integer_is_refused(tmp_path):
    done = run(tmp_path, "--actorlib-seed", "seven")
    assert "invalid int value: 'seven'" in done.stderr and done.returncode == 4


def test_a_file_that_is_no_replay_is_refused(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    done = run(tmp_path, "--actorlib-replay", "other.json")
    assert "not a replay file" in done.stderr and done.returncode == 4
