"""Eight Gymnasium environments hosted by actors, a policy improved on them, and a host killed half-way.

Each environment lives in an actor of its own. A small NumPy policy is improved by an evolution strategy: tasks try
perturbed parameters on the hosts, one actor holds the parameters. Half-way one host's process gets SIGKILL; the actor
restarts, and its environment goes on from the last checkpoint. What the run claims is checked at its end; the exit
status is 1 if anything of it does not hold.

Run it with ``make demo``, or ``python examples/environment_hosts.py [--quick]``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import signal
import sys
import time
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import psutil

import actorlib

HOSTS = 8
CALLS_PER_CHECKPOINT = 5


# -- the policy --------------------------------------------------------------------------------------------------------
def features(env_id: str, seen: Any) -> np.ndarray[Any, Any]:
    """What the policy is linear in."""
    if env_id.startswith("CartPole"):
        return np.asarray(seen, dtype=np.float64)
    cosine, sine, speed = float(seen[0]), float(seen[1]), float(seen[2]) / 8.0
    return np.array([sine, speed, cosine * speed, sine * cosine, speed**3])


def action(env_id: str, parameters: np.ndarray[Any, Any], seen: Any) -> Any:
    """Push left or right for CartPole, a torque for Pendulum."""
    drive = float(features(env_id, seen) @ parameters)
    if env_id.startswith("CartPole"):
        return int(drive > 0.0)
    return np.array([2.0 * np.tanh(drive)], dtype=np.float32)


@dataclass(frozen=True)
class Settings:
    """How one environment's policy is improved."""

    env_id: str
    parameters: int
    spread: float
    rate: float
    iterations: int
    trials: int  # perturbations an iteration, each tried in both directions


@dataclass(frozen=True)
class Report:
    """What a host tells of itself."""

    pid: int
    steps: int
    state: str  # digest of the environment's state


# -- actors and tasks --------------------------------------------------------------------------------------------------
@actorlib.remote(num_cpus=0, checkpoint=CALLS_PER_CHECKPOINT, max_restarts=-1, max_task_retries=-1)
class EnvironmentHost:
    """One environment. A checkpoint is this instance pickled, the environment and its random numbers included."""

    def __init__(self, env_id: str) -> None:
        self.env_id = env_id
        self.env = gymnasium.make(env_id)
        self.env.reset(seed=0)
        self.steps = 0

    def report(self) -> Report:
        inner: Any = self.env.unwrapped
        state = pickle.dumps((np.asarray(inner.state).tobytes(), inner.np_random.bit_generator.state))
        return Report(os.getpid(), self.steps, hashlib.sha256(state).hexdigest()[:16])

    def episode(self, parameters: np.ndarray[Any, Any], seed: int) -> tuple[float, Report, Report]:
        """Play one episode. Gives its return, and what this host was before and after it."""
        before = self.report()
        seen, _ = self.env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            seen, reward, terminated, truncated, _ = self.env.step(action(self.env_id, parameters, seen))
            total += float(reward)
            self.steps += 1
            over = terminated or truncated
        return total, before, self.report()


@actorlib.remote(num_cpus=0)
class Policy:
    """Holds the parameters and moves them towards what was better."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.parameters = np.zeros(settings.parameters)

    def current(self) -> np.ndarray[Any, Any]:
        return self.parameters

    def improve(self, trials: list[tuple[int, float, float]]) -> None:
        """One step of the evolution strategy: perturbations weighted by how much better one direction was."""
        differences = np.array([plus - minus for _, plus, minus in trials])
        scale = float(np.std(differences)) or 1.0
        step = sum(
            d * noise(seed, self.settings.parameters) for (seed, _, _), d in zip(trials, differences, strict=True)
        )
        self.parameters = self.parameters + self.settings.rate * step / (len(trials) * scale)


def noise(seed: int, size: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(size)


@actorlib.remote(max_retries=-1)
def try_both(
    host: Any, parameters: np.ndarray[Any, Any], spread: float, seed: int
) -> tuple[int, float, float, list[tuple[Report, Report]]]:
    """Try one perturbation in both directions, from the same start."""
    shift = spread * noise(seed, len(parameters))
    refs = [host.episode.remote(parameters + sign * shift, seed) for sign in (1.0, -1.0)]
    (plus, *first), (minus, *second) = actorlib.get(refs)
    return seed, plus, minus, [tuple(first), tuple(second)]  # type: ignore[list-item]


# -- the run -----------------------------------------------------------------------------------------------------------
def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Outcome:
    """What one environment's run showed."""

    env_id: str
    first: float
    last: float
    recovery_ms: float
    continued: str  # empty if the host did not go on from a checkpoint
    steps: int
    seconds: float

    def rose(self) -> bool:
        return self.last > self.first


class Progress:
    """One line that is written over on a terminal; a line now and then elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()

    def show(self, text: str, always: bool = False) -> None:
        if self.live:
            print(f"\r\x1b[K{text}", end="\n" if always else "", flush=True)
        elif always:
            print(text, flush=True)


def kill_and_wait(host: Any, pid: int) -> tuple[float, Report]:
    """SIGKILL this one process; give the milliseconds until its successor answered, and what it said."""
    started = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    while True:
        report = actorlib.get(host.report.remote(), timeout=30)
        if report.pid != pid:
            return (time.perf_counter() - started) * 1e3, report


def where_it_went_on(known: dict[int, str], restored: Report) -> str:
    """A sentence if the restored environment is exactly what it was after some earlier call, else nothing."""
    latest = max(known, default=0)
    if restored.steps > latest > 0:
        return f"went on at step {restored.steps}, after a call whose answer was lost with the process"
    if restored.steps == 0 or known.get(restored.steps) != restored.state:
        return ""
    return f"went on at step {restored.steps} of {latest}, environment state {restored.state} as it was then"


def run(settings: Settings, progress: Progress) -> Outcome:
    """Improve a policy on one kind of environment, and kill a host half-way."""
    hosts = [EnvironmentHost.remote(settings.env_id) for _ in range(HOSTS)]
    policy = Policy.remote(settings)
    reports: list[Report] = actorlib.get([host.report.remote() for host in hosts])
    pids = [report.pid for report in reports]
    victim = HOSTS // 2
    known: dict[int, str] = {}  # the victim's states by step, as they were before it was killed
    means: list[float] = []
    steps = 0
    recovery_ms, continued = float("nan"), ""
    started = time.perf_counter()
    for iteration in range(settings.iterations):
        parameters = policy.current.remote()
        seeds = [iteration * settings.trials + k for k in range(settings.trials)]
        chosen = [seed % HOSTS for seed in seeds]
        refs = [
            try_both.remote(hosts[h], parameters, settings.spread, seed) for h, seed in zip(chosen, seeds, strict=True)
        ]
        if iteration == settings.iterations // 2:
            time.sleep(0.02)  # its calls are under way
            recovery_ms, restored = kill_and_wait(hosts[victim], pids[victim])
            progress.show(
                f"{settings.env_id}: killed host {victim} (pid {pids[victim]}) with SIGKILL; its successor (pid "
                f"{restored.pid}) answered after {recovery_ms:.0f} ms",
                always=True,
            )
            pids[victim] = restored.pid
        results = actorlib.get(refs, timeout=60)
        stories = [(h, before, after) for h, result in zip(chosen, results, strict=True) for before, after in result[3]]
        steps += sum(after.steps - before.steps for _, before, after in stories)
        if iteration == settings.iterations // 2:
            old = {after.steps: after.state for h, _, after in stories if h == victim and after.pid != pids[victim]}
            new = [before for h, before, after in stories if h == victim and after.pid == pids[victim]]
            first_seen = min([restored, *new], key=lambda report: report.steps)
            continued = where_it_went_on(known | old, first_seen)
        elif iteration < settings.iterations // 2:
            known |= {after.steps: after.state for h, _, after in stories if h == victim}
        actorlib.get(policy.improve.remote([result[:3] for result in results]))
        means.append(float(np.mean([(plus + minus) / 2 for _, plus, minus, _ in results])))
        seconds = time.perf_counter() - started
        progress.show(
            f"{settings.env_id}: iteration {iteration + 1}/{settings.iterations}, {steps / seconds:,.0f} steps/s, mean "
            f"return {means[-1]:.1f}, {sum(map(is_running, pids))}/{HOSTS} hosts live",
            always=(iteration + 1) % 10 == 0 or iteration + 1 == settings.iterations,
        )
    few = max(3, settings.iterations // 8)
    first, last = float(np.mean(means[:few])), float(np.mean(means[-few:]))
    return Outcome(settings.env_id, first, last, recovery_ms, continued, steps, time.perf_counter() - started)


def claim(holds: bool, text: str) -> bool:
    print(f"  {'ok    ' if holds else 'FAILED'} {text}")
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer iterations")
    quick = parser.parse_args().quick
    runs = [
        Settings("CartPole-v1", 4, spread=0.5, rate=0.5, iterations=12 if quick else 30, trials=16),
        Settings("Pendulum-v1", 5, spread=0.5, rate=0.4, iterations=16 if quick else 40, trials=16),
    ]
    started = time.perf_counter()
    actorlib.init(num_cpus=2)
    progress = Progress()
    outcomes = [run(settings, progress) for settings in runs]
    family = psutil.Process().children(recursive=True)
    actorlib.shutdown()
    _, left = psutil.wait_procs(family, timeout=2)
    print("\nProof:")
    held = []
    for outcome in outcomes:
        rate = outcome.steps / outcome.seconds
        held.append(
            claim(outcome.rose(), f"{outcome.env_id}: mean return rose, {outcome.first:.1f} -> {outcome.last:.1f}")
        )
        held.append(
            claim(
                bool(outcome.continued),
                f"{outcome.env_id}: the killed host {outcome.continued or 'lost its environment'}",
            )
        )
        held.append(
            claim(outcome.recovery_ms < 30_000, f"{outcome.env_id}: recovery took {outcome.recovery_ms:.0f} ms")
        )
        print(f"         {outcome.steps:,} steps at {rate:,.0f} steps/s")
    held.append(claim(not left, f"no process left of the {len(family)} that ran" + (f": {left}" if left else "")))
    seconds = time.perf_counter() - started
    held.append(claim(seconds < 120, f"all of it took {seconds:.1f} s"))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
