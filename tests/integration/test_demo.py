"""What ``make demo`` runs, in its short form: each of its claims holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "environment_hosts.py"
DEMO_S_MAX = 240


@pytest.mark.timeout(DEMO_S_MAX + 20)
def test_every_claim_of_the_demo_holds() -> None:
    done = subprocess.run(
        [sys.executable, str(DEMO), "--quick"], capture_output=True, text=True, timeout=DEMO_S_MAX, check=False
    )
    claims = re.findall(r"^  (ok    |FAILED) (.*)$", done.stdout, re.MULTILINE)
    failed = [text for verdict, text in claims if verdict == "FAILED" and not text.startswith("all of it took")]
    assert len(claims) == 8 and not failed, done.stdout + done.stderr
    assert len(re.findall(r"8 of 8 trajectories equal the undisturbed run bit for bit", done.stdout)) == 2
    assert len(re.findall(r"got SIGKILL in mid-episode", done.stdout)) == 2
