"""The bank of the examples: its bug is found and shrunk, its better version holds."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import pytest

BANK = Path(__file__).resolve().parents[2] / "examples" / "bank.py"
CPU_S_MAX = 30.0


@pytest.fixture(scope="module")
def bank():
    spec = importlib.util.spec_from_file_location("bank", BANK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bank"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bank"]


def test_the_whole_example_finds_shrinks_and_mends(bank, monkeypatch):
    said, plans = [], []
    find = bank.find_the_bug
    monkeypatch.setattr(bank, "find_the_bug", lambda: plans.append(find()) or plans[0])
    began = time.process_time()
    bank.main(said.append)
    assert time.process_time() - began < CPU_S_MAX
    (plan,) = plans
    assert 1 <= len(plan) <= 3
    assert said[0].endswith("300 of 300") and "300 of 300" in said[-2]
    assert bank.money_after(bank.careless_transfer, plan) != 300 == bank.money_after(bank.careful_transfer, plan)
