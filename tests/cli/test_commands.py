"""The command line, as its user has it: processes, exit codes, what is printed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")
TIMEOUT_S = 60


def actorlib(*arguments, code=0, **options):
    """Run the command; its output, both streams."""
    command = [sys.executable, "-m", "actorlib.cli", *map(str, arguments)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S, **options
    )
    assert done.returncode == code, f"exit code {done.returncode}: {done.stdout}"
    return done.stdout


@contextlib.contextmanager
def another_head(tmp_path):
    """HOST:PORT of one more cluster on this machine."""
    text = actorlib("start", "--head", "--port", 0, "--dir", tmp_path / "other", "--num-cpus", 1)
    address = re.search(r"cluster at (\S+) is up", text)[1]
    try:
        yield address
    finally:
        subprocess.run([sys.executable, "-m", "actorlib.cli", "stop", "--address", address], capture_output=True)


@pytest.fixture
def head(tmp_path):
    """A head that runs on its own; HOST:PORT and its directory."""
    directory = tmp_path / "head"
    text = actorlib("start", "--head", "--port", 0, "--dir", directory, "--num-cpus", 1)
    address = re.search(r"cluster at (\S+) is up", text)[1]
    yield address, directory, text
    subprocess.run([sys.executable, "-m", "actorlib.cli", "stop", "--address", address], capture_output=True)


def test_a_cluster_is_started_joined_shown_used_and_stopped(head, tmp_path):
    address, _, text = head
    line = text.strip().splitlines()[-1].split()
    assert line[:4] == ["actorlib", "start", "--address", address]
    labels = ("--resources", '{"disk": 2}', "--labels", '{"zone": "b"}')
    actorlib(*line[1:], "--num-cpus", 1, *labels)
    shown = actorlib("status", "--address", address)
    assert shown.count("alive") == 2 and "0/2 disk" in shown and "nothing waits" in shown
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, actorlib\n"
        "actorlib.init()\n"
        "@actorlib.remote(resources={'disk': 1})\n"
        "def double(x): return 2 * x\n"
        "print('result', actorlib.get(double.remote(int(sys.argv[1]))), len(actorlib.nodes()))\n"
    )
    assert "result 42 2" in actorlib("run", "--address", address, script, "21")
    with another_head(tmp_path) as other:
        assert "say --address or --all" in actorlib("stop", code=2)
        assert actorlib("stop", "--address", other).count("has ended") == 1
        assert actorlib("status").count("alive") == 2  # of the only one that is left
    assert actorlib("stop", "--address", address).count("has ended") == 2
    assert "no node of" in actorlib("stop", "--address", address, code=1)


def test_what_waits_is_shown_with_the_reason(head, tmp_path):
    address, _, _ = head
    script = tmp_path / "script.py"
    script.write_text(
        "import actorlib\n"
        "from actorlib.util.placement_group import placement_group\n"
        "actorlib.init(address='auto')\n"
        "@actorlib.remote(num_cpus=50)\n"
        "class Wide: pass\n"
        "Wide.options(name='wide', lifetime='detached').remote()\n"
        "placement_group([{'CPU': 70}], name='wider', lifetime='detached')\n"
        "actorlib.nodes()\n"
    )
    actorlib("run", "--address", address, script)
    deadline = time.monotonic() + TIMEOUT_S
    while True:  # the reason comes after a moment
        shown = actorlib("status", "--address", address, env={**os.environ, "COLUMNS": "400"})
        lines = {line.split(":")[0].strip(): line for line in shown.splitlines()}
        if "50 CPU" in lines.get("actor Wide", "") and "70 CPU" in lines.get("placement group wider", ""):
            break
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)


def test_the_last_calls_of_a_durable_actor_are_shown(head, tmp_path):
    address, _, _ = head
    script = tmp_path / "script.py"
    script.write_text(
        "import actorlib\n"
        "@actorlib.remote(num_cpus=0)\n"
        "class Account:\n"
        "    def deposit(self, amount): return 1 / amount\n"
        "with actorlib.init(namespace='bank'):\n"
        "    account = Account.options(name='ada', lifetime='detached', checkpoint=100).remote()\n"
        "    plain = Account.options(name='plain', lifetime='detached').remote()\n"
        "    for amount in (1, 2, 0):\n"
        "        try: actorlib.get(account.deposit.remote(amount))\n"
        "        except ZeroDivisionError: print('divided')\n"
        "    print('caller', account.deposit.remote(3).task_id().hex()[:16])\n"
        "    actorlib.get(account.deposit.remote(4))\n"
    )
    caller = re.search(r"caller (\w+)", actorlib("run", "--address", address, script))[1]
    wide = {**os.environ, "COLUMNS": "200"}
    shown = actorlib("log", "ada", "--address", address, "--limit", 4, env=wide).splitlines()
    rows = [line.split() for line in shown[-4:]]
    assert [(row[0], row[1], row[4]) for row in rows] == [
        ("5", "deposit", "OK"),
        ("4", "deposit", "OK"),
        ("3", "deposit", "EXCEPTION"),
        ("2", "deposit", "OK"),
    ], shown
    assert {row[2] for row in rows} == {caller} and [int(row[3]) for row in rows] == [4, 3, 2, 1]
    assert "is not durable" in actorlib("log", "plain", "--address", address, code=1)
    assert "no actor named 'bob'" in actorlib("log", "bob", "--address", address, code=1)
    assert "no actor named 'ada'" in actorlib("log", "ada", "--namespace", "other", "--address", address, code=1)


def test_a_node_in_the_foreground_ends_with_sigterm_and_leaves_nothing(tmp_path):
    command = [
        sys.executable,
        "-m",
        "actorlib.cli",
        "start",
        "--head",
        "--port",
        "0",
        "--block",
        "--dir",
        tmp_path / "d",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            first = process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    assert "is up" in first and process.returncode == 0, f"{process.returncode}: {first}{said}"


def test_keys_are_made_listed_and_revoked(head):
    _, directory, _ = head
    path = actorlib("keys", "new", "gpu-7", "--dir", directory).strip()
    assert os.stat(path).st_mode & 0o777 == 0o600
    actorlib("keys", "new", "ada", "--role", "driver", "--dir", directory)
    listed = actorlib("keys", "list", "--dir", directory, env={**os.environ, "COLUMNS": "200"})
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        ["node-1", "node"],
        ["gpu-7", "node"],
        ["ada", "driver"],
    ]
    assert "has been told" in actorlib("keys", "revoke", "gpu-7", "--dir", directory)
    assert "revoked" in actorlib("keys", "list", "--dir", directory, env={**os.environ, "COLUMNS": "200"})
    assert "already" in actorlib("keys", "new", "gpu-7", "--dir", directory, code=1)


def test_what_a_killed_node_leaves_is_cleaned_up(head):
    address, _, text = head
    pid = int(re.search(r"pid (\d+)", text)[1])
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "no node" in actorlib("stop", "--address", address, code=1)
