"""kill -9 of each kind of process under a mixed workload: what was acknowledged is kept, and nothing is leaked.

Ten seconds after the kill every resource is free again, every value that a caller has seen is there, and new work runs.
``make chaos SECONDS=600`` does it again and again, at random moments; here each kind is killed once.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

import actorlib
from actorlib.transport.drivers.processes import children_of, process_name

KINDS = ("gcs", "worker", "zygote", "node", "driver")
RECOVERY_S = 10.0
SECONDS = float(os.environ.get("ACTORLIB_CHAOS_SECONDS", "0"))

DRIVER = textwrap.dedent("""
    import sys, time, actorlib
    actorlib.init(address=sys.argv[1])
    @actorlib.remote(num_cpus=0.1)
    def nap(): time.sleep(0.2)
    @actorlib.remote(num_cpus=0.1)
    class Mine:
        def ping(self): return 1
    mine = [Mine.remote() for _ in range(2)]
    actorlib.get([m.ping.remote() for m in mine])
    print("at work", flush=True)
    while True:
        actorlib.get([nap.remote() for _ in range(4)])
""")


@actorlib.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, checkpoint=5)
class Account:
    def __init__(self) -> None:
        self.balance = 0

    def deposit(self, amount):
        self.balance += amount
        return self.balance

    def pid(self):
        return os.getpid()


@actorlib.remote(num_cpus=0.2, max_retries=-1)
def square(x):
    return x * x


class Load:
    """Deposits and tasks, whose results must be right however often somebody is killed."""

    def __init__(self) -> None:
        self.accounts = [Account.options(name=f"account-{i}", lifetime="detached").remote() for i in range(3)]
        self.seen = [0, 0, 0]

    def some(self) -> None:
        deposits = [account.deposit.remote(1) for account in self.accounts]
        squares = [square.remote(i) for i in range(5)]
        for i, balance in enumerate(actorlib.get(deposits, timeout=60)):
            assert balance > self.seen[i], f"an acknowledged deposit is gone: {balance} after {self.seen[i]}"
            self.seen[i] = balance
        assert actorlib.get(squares, timeout=60) == [i * i for i in range(5)]


def victim(machines, kind, load, driver):
    """Who is to be killed; on another machine than the head's where there is a choice."""
    if kind == "gcs":
        return machines.gcs_pid()
    if kind == "worker":
        return actorlib.get(load.accounts[0].pid.remote(), timeout=60)
    if kind == "driver":
        return driver.pid
    node = machines.others[0]
    return node.pid if kind == "node" else zygote_of(node.pid)


def zygote_of(node_pid):
    return next(pid for pid in children_of(node_pid) if process_name(pid) == "actorlib:zygote")


def is_whole():
    free, total = actorlib.available_resources(), actorlib.cluster_resources()
    return all(abs(total[name] - free.get(name, 0)) < 1e-6 for name in ("CPU",))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_acknowledged_is_lost_and_nothing_is_leaked(machines, kind):
    machines.start_head()
    machines.add()
    machines.join(namespace="chaos")
    load = Load()
    load.some()
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, machines.head.head], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout.readline() == "at work\n"
        ends_at, kills = time.monotonic() + SECONDS, 0
        while kills == 0 or time.monotonic() < ends_at:
            load.some()
            time.sleep(random.random() * (1 if SECONDS else 0.1))
            os.kill(victim(machines, kind, load, driver), signal.SIGKILL)
            kills += 1
            for _ in range(3):
                load.some()
            if kind == "node":
                replace(machines)
            if kind == "driver":
                break
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()
    deadline = time.monotonic() + RECOVERY_S
    while not is_whole():
        assert time.monotonic() < deadline, (
            f"{actorlib.available_resources()} of {actorlib.cluster_resources()} is free"
        )
        time.sleep(0.1)
    load.some()
    for account in load.accounts:
        actorlib.kill(account)


def replace(machines):
    """Another machine for the one that is gone."""
    gone = machines.others.pop(0)
    gone.process.wait(RECOVERY_S)
    gone.kill()
    machines.wait_for(1)
    machines.add()
    machines.wait_for(2)
