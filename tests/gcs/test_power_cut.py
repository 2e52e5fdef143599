"""The power fails while the GCS's journal is written: every commit that was acknowledged is found afterwards."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

COMMITS = 30
CUTS = 100
CODE = """
import sys
from actorlib.gcs.drivers.lmdb_journal import LmdbJournal
journal = LmdbJournal(sys.argv[1], sys.argv[2] == "durable")
for number in range(int(sys.argv[3])):
    rows = [("kv", b"%d-%d" % (number, row), b"%d " % number * 300) for row in range(1 + number % 5)]
    rows.append(("actors", b"changing", b"%d " % number * (1 + 1000 * (number % 3))))
    journal.commit(rows)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
journal.close()
"""


# LMDB maps what it opens, and what is not as its head says may end the process: each look has one of its own.
CHECK = """
import os, resource, sys
from actorlib.gcs.drivers.lmdb_journal import LmdbJournal

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

def holds(directory, last):
    journal = LmdbJournal(directory, False)
    for number in range(last + 1):
        for row in range(1 + number % 5):
            if journal.read("kv", b"%d-%d" % (number, row)) != b"%d " % number * 300:
                return False
    changing = journal.read("actors", b"changing")
    return changing is not None and int(changing.split()[0]) >= last

for line in sys.stdin:
    directory, last = line.split()
    pid = os.fork()
    if pid == 0:
        sys.stderr = open(os.devnull, "w")
        os._exit(0 if holds(directory, int(last)) else 1)
    print("holds" if os.waitpid(pid, 0)[1] == 0 else "lost", flush=True)
"""


def recorder():
    spec = importlib.util.spec_from_file_location("power_cut", Path(__file__).with_name("power_cut.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["power_cut"] = module
    spec.loader.exec_module(module)
    return module


power_cut = recorder()


def run(directory, durability):
    directory.mkdir()
    try:
        return power_cut.record(CODE, "data.mdb", str(directory), durability, str(COMMITS))
    except (OSError, NotImplementedError) as error:
        pytest.skip(f"what is written can't be recorded here: {error}")


def losses(log, directory, seed, cuts=CUTS):
    """Images, of cuts at random points, in which an acknowledged commit is not there, whole."""
    rng = random.Random(seed)
    first = next(i for i, entry in enumerate(log) if isinstance(entry, power_cut.Acknowledged))
    asked = []
    for trial in range(cuts):
        cut = rng.randint(first + 1, len(log))
        last = max(entry.number for entry in log[:cut] if isinstance(entry, power_cut.Acknowledged))
        where = directory / f"{trial}"
        where.mkdir()
        (where / "data.mdb").write_bytes(power_cut.image(log, cut, rng))
        asked.append((where, last))
    lines = "".join(f"{where} {last}\n" for where, last in asked)
    looked = subprocess.run([sys.executable, "-c", CHECK], input=lines, capture_output=True, text=True, check=True)
    answers = looked.stdout.split()
    assert len(answers) == cuts, looked.stderr
    return [ask for ask, answer in zip(asked, answers, strict=True) if answer == "lost"]


def test_every_acknowledged_commit_outlives_a_power_cut(tmp_path):
    log = run(tmp_path / "run", "durable")
    assert sum(isinstance(entry, power_cut.Acknowledged) for entry in log) == COMMITS
    assert losses(log, tmp_path, seed=1) == []


def test_without_sync_the_same_test_finds_losses(tmp_path):
    """That it can fail: the embedded journal, which promises nothing of the kind."""
    assert losses(run(tmp_path / "run", "embedded"), tmp_path, seed=1, cuts=20)
