"""Eight Gymnasium environments on two hosts, a policy improved on them, and a host killed half-way.

The environments come from ``actorlib.envs.make_vec``. A small NumPy policy is improved by an evolution strategy: each
environment tries perturbed parameters. In mid-episode one host gets SIGKILL; its environments come back from their last
checkpoint and go on. At the end the same program runs undisturbed in this process alone, and every trajectory
(observations, rewards, ends of all steps) must equal the one of the disturbed run bit for bit. What the run claims is
checked at its end; the exit status is 1 if anything of it does not hold.

Run it with ``make demo``, or ``python examples/environment_hosts.py [--quick] [--engine ray]``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

import actorlib
import actorlib.envs

ENVS = 8
HOSTS = 2
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Settings:
    """How one kind of environment's policy is improved."""

    env_id: str
    parameters: int
    spread: float
    rate: float
    iterations: int
    rounds: int  # an iteration tries ENVS perturbed policies in each of so many rounds


# -- the policy --------------------------------------------------------------------------------------------------------
def features(env_id: str, seen: Array) -> Array:
    """What the policy is linear in: one row for each environment."""
    if env_id.startswith("CartPole"):
        return seen.astype(np.float64)
    cosine, sine, speed = (seen[:, column].astype(np.float64) for column in range(3))
    speed = speed / 8.0
    return np.stack([sine, speed, cosine * speed, sine * cosine, speed**3], axis=1)


def actions(env_id: str, parameters: Array, seen: Array) -> Array:
    """Push left or right for CartPole, a torque for Pendulum; each environment by parameters of its own."""
    drive = np.sum(features(env_id, seen) * parameters, axis=1)
    if env_id.startswith("CartPole"):
        return (drive > 0.0).astype(np.int64)
    return (2.0 * np.tanh(drive)).astype(np.float32)[:, None]


# -- one run -----------------------------------------------------------------------------------------------------------
@dataclass
class Run:
    """What was seen: the trajectory of each environment as a running digest, and the mean return of each iteration."""

    trajectories: list[Any] = field(default_factory=lambda: [hashlib.sha256() for _ in range(ENVS)])
    means: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0

    def digests(self) -> list[str]:
        return [digest.hexdigest() for digest in self.trajectories]

    def note(self, observations: Array, *rest: Array) -> None:
        for index, digest in enumerate(self.trajectories):
            digest.update(observations[index].tobytes())
            for array in rest:
                digest.update(array[index].tobytes())


def play(vec: Any, settings: Settings, parameters: Array, seed: int, run: Run, each_step: Callable[[], None]) -> Array:
    """One episode in each environment; gives the returns. Those that are done early go on until all are."""
    seen, _ = vec.reset(seed=seed)
    run.note(seen)
    returns, running = np.zeros(ENVS), np.ones(ENVS, dtype=bool)
    while running.any():
        each_step()
        seen, rewards, terminated, truncated, _ = vec.step(actions(settings.env_id, parameters, seen))
        run.note(seen, rewards, terminated, truncated)
        returns += np.where(running, rewards, 0.0)
        running &= ~(terminated | truncated)
        run.steps += ENVS
    return returns


def improve(
    vec: Any, settings: Settings, each_step: Callable[[int], None], each_iteration: Callable[[int, Run], None]
) -> Run:
    """An evolution strategy: parameters move towards the perturbations that were better than their opposites."""
    run, parameters = Run(), np.zeros(settings.parameters)
    started = time.perf_counter()
    for iteration in range(settings.iterations):
        step, spreads, found = np.zeros(settings.parameters), [], []
        for number in range(settings.rounds):
            seed = iteration * settings.rounds + number
            noise = np.random.default_rng(seed).standard_normal((ENVS // 2, settings.parameters))
            tried = parameters + settings.spread * np.concatenate([noise, -noise])
            returns = play(vec, settings, tried, 1000 * seed, run, lambda i=iteration: each_step(i))  # type: ignore[misc]
            differences = returns[: ENVS // 2] - returns[ENVS // 2 :]
            step += differences @ noise
            spreads.append(differences)
            found.append(returns)
        scale = float(np.std(np.concatenate(spreads))) or 1.0
        parameters = parameters + settings.rate * step / (settings.rounds * ENVS // 2 * scale)
        run.means.append(float(np.mean(found)))
        run.seconds = time.perf_counter() - started
        each_iteration(iteration, run)
    return run


# -- what is shown -----------------------------------------------------------------------------------------------------
def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Progress:
    """One line that is written over on a terminal; a line now and then elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()

    def show(self, text: str, always: bool = False) -> None:
        if self.live:
            print(f"\r\x1b[K{text}", end="\n" if always else "", flush=True)
        elif always:
            print(text, flush=True)


class Killer:
    """Kills one host in mid-episode, and measures how long the step takes in which it comes back."""

    STEP = 40  # of the iteration

    def __init__(self, vec: Any, iteration: int) -> None:
        self.vec, self.iteration, self.host = vec, iteration, HOSTS - 1
        self.count = 0
        self.pid = self.successor = 0
        self.killed_at = self.recovery_ms = 0.0

    def each_step(self, iteration: int) -> None:
        if self.killed_at and not self.recovery_ms:
            self.recovery_ms = (time.perf_counter() - self.killed_at) * 1e3
            self.successor = self.vec.host_pids()[self.host]
        if iteration != self.iteration:
            return
        self.count += 1
        if self.count == self.STEP:
            self.pid = self.vec.host_pids()[self.host]
            self.killed_at = time.perf_counter()
            os.kill(self.pid, signal.SIGKILL)

    def came_back(self) -> bool:
        return self.successor not in (0, self.pid)


@dataclass
class Outcome:
    """What one kind of environment showed."""

    settings: Settings
    disturbed: Run
    undisturbed: Run
    killer: Killer
    pids: list[int]  # of all hosts that there were

    def claims(self) -> list[tuple[bool, str]]:
        env_id, run, killer = self.settings.env_id, self.disturbed, self.killer
        few = max(3, self.settings.iterations // 8)
        first, last = float(np.mean(run.means[:few])), float(np.mean(run.means[-few:]))
        equal = sum(one == two for one, two in zip(run.digests(), self.undisturbed.digests(), strict=True))
        return [
            (last > first, f"{env_id}: mean return rose, {first:.1f} -> {last:.1f}"),
            (
                killer.came_back() and killer.recovery_ms < 30_000,
                f"{env_id}: host {killer.host} (pid {killer.pid}) got SIGKILL in mid-episode; the step it died in took "
                f"{killer.recovery_ms:.0f} ms, its successor is pid {killer.successor}",
            ),
            (
                equal == ENVS and run.steps == self.undisturbed.steps,
                f"{env_id}: {equal} of {ENVS} trajectories equal the undisturbed run bit for bit ({run.steps:,} steps, "
                f"digest {run.digests()[-1][:16]} of the last environment on the killed host)",
            ),
        ]


def show(settings: Settings, progress: Progress) -> Outcome:
    """Improve a policy on hosts, one of which is killed; then the same again in this process, left alone."""
    vec = actorlib.envs.make_vec(settings.env_id, ENVS, num_hosts=HOSTS, on_failure="restore")
    killer = Killer(vec, settings.iterations // 2)

    def tell(iteration: int, run: Run) -> None:
        live = sum(map(is_running, vec.host_pids()))
        progress.show(
            f"{settings.env_id}: iteration {iteration + 1}/{settings.iterations}, "
            f"{run.steps / run.seconds:,.0f} steps/s, mean return {run.means[-1]:.1f}, {live}/{HOSTS} hosts live"
            + (f"; host {killer.host} was killed and is back" if iteration == killer.iteration else ""),
            always=(iteration + 1) % 10 == 0 or iteration in (killer.iteration, settings.iterations - 1),
        )

    try:
        disturbed = improve(vec, settings, killer.each_step, tell)
    finally:
        pids = [killer.pid, *vec.host_pids()]
        vec.close()
    progress.show(f"{settings.env_id}: the same in this process, undisturbed")
    alone = actorlib.envs.make_vec(settings.env_id, ENVS, num_hosts=0)
    undisturbed = improve(alone, settings, lambda _: None, lambda *_: None)
    alone.close()
    return Outcome(settings, disturbed, undisturbed, killer, pids)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer iterations")
    parser.add_argument("--engine", default="local", choices=("local", "ray"), help="what runs the hosts")
    given = parser.parse_args()
    quick = given.quick
    runs = [
        Settings("CartPole-v1", 4, spread=0.5, rate=0.5, iterations=6 if quick else 12, rounds=2 if quick else 3),
        Settings("Pendulum-v1", 5, spread=0.5, rate=0.4, iterations=9 if quick else 20, rounds=2 if quick else 3),
    ]
    started = time.perf_counter()
    actorlib.init(engine=given.engine, num_cpus=2, runtime_env={"preload": ["gymnasium.envs.classic_control"]})
    progress = Progress()
    outcomes = [show(settings, progress) for settings in runs]
    family = psutil.Process().children(recursive=True)
    actorlib.shutdown()
    psutil.wait_procs(family, timeout=5)
    pids = [process.pid for process in family] + [pid for outcome in outcomes for pid in outcome.pids]
    left = [pid for pid in pids if is_running(pid)]
    seconds = time.perf_counter() - started
    claims = [claim for outcome in outcomes for claim in outcome.claims()]
    claims.append((not left, f"no process left of the {len(set(pids))} that ran" + (f": {left}" if left else "")))
    claims.append((seconds < 120, f"all of it took {seconds:.1f} s"))
    print("\nProof:")
    for holds, text in claims:
        print(f"  {'ok    ' if holds else 'FAILED'} {text}")
    return 0 if all(holds for holds, _ in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
