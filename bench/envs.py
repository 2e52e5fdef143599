"""Environment hosts: 8 environments on 2 hosts beside Gymnasium's and Stable-Baselines3's ways, all in one run.

A row's figure is ours; the peers are its details, in steps/s of single environments: ``sync`` (SyncVectorEnv, in the
caller's own process, so no peer of processes), ``async`` (AsyncVectorEnv), ``subproc`` (SubprocVecEnv, where
Stable-Baselines3 is installed). ``x_best_peer`` is ours over the best of those with processes. All sides of a row are
measured in turns within the same seconds. ``cpu_x_best_peer`` compares what a step costs in processor time, of the
caller and all of its processes: unlike the rates it says the same on a busy machine.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import psutil
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from harness import QUICK, Figure, main, rate, row, seconds

import actorlib.envs

ENVS, HOSTS = 8, 2
ROUNDS = 2 if QUICK else 12
SECONDS = 0.1
HAS_SB3 = importlib.util.find_spec("stable_baselines3") is not None


class Pictures(gymnasium.Env[Any, Any]):
    """Observations as Atari's, four frames of 84x84, at no cost of their own."""

    observation_space = spaces.Box(0, 255, (84, 84, 4), np.uint8)
    action_space = spaces.Discrete(6)

    def __init__(self) -> None:
        self.pictures = np.random.default_rng(0).integers(255, size=(2, 84, 84, 4), dtype=np.uint8)
        self.time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.pictures[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self.pictures[self.time % 2], 1.0, self.time % 1000 == 0, False, {}


class Millisecond(Pictures):
    """A simulator that computes for a millisecond."""

    observation_space = spaces.Box(0, 255, (4,), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        seen, info = super().reset(seed=seed)
        return seen[0, 0], info

    def takes_s(self) -> float:
        return 0.001

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        until = time.thread_time() + self.takes_s()
        while time.thread_time() < until:
            continue
        seen, *rest = super().step(action)
        return (seen[0, 0], *rest)


class Uneven(Millisecond):
    """A simulator with a long step now and then, as at a contact or a reset: 0.34 ms in the mean."""

    def takes_s(self) -> float:
        return 0.005 if self.np_random.random() < 0.05 else 0.0001


MAKERS: dict[str, Callable[[], Any]] = {
    "cartpole": lambda: gymnasium.make("CartPole-v1"),
    "pictures": Pictures,
    "pendulum": lambda: gymnasium.make("Pendulum-v1"),
    "millisecond": Millisecond,
    "uneven": Uneven,
}


class Subproc:
    """SB3's SubprocVecEnv with the two methods that are used here."""

    def __init__(self, make: Callable[[], Any]) -> None:
        from stable_baselines3.common.vec_env import SubprocVecEnv

        self.vec = SubprocVecEnv([make] * ENVS, start_method="fork")

    def reset(self, seed: int) -> None:
        self.vec.reset()

    def step(self, actions: Any) -> None:
        self.vec.step(actions)

    def close(self) -> None:
        self.vec.close()


class RayHosts:
    """The usual way with plain actors: each has its share of environments, and sends observations as results."""

    def __init__(self, lib: Any, make: Callable[[], Any]) -> None:
        class Host:
            def __init__(self) -> None:
                self.vec = SyncVectorEnv([make] * (ENVS // HOSTS))

            def reset(self, seed: int) -> Any:
                return self.vec.reset(seed=seed)

            def step(self, actions: Any) -> Any:
                return self.vec.step(actions)

        self.lib, self.hosts = lib, [lib.remote(Host).remote() for _ in range(HOSTS)]

    def reset(self, seed: int) -> None:
        self.lib.get([host.reset.remote(seed) for host in self.hosts])

    def step(self, actions: Any) -> Any:
        parts = np.split(actions, HOSTS)
        results = self.lib.get([host.step.remote(part) for host, part in zip(self.hosts, parts, strict=True)])
        return [np.concatenate([result[column] for result in results]) for column in range(4)]

    def close(self) -> None:
        for host in self.hosts:
            self.lib.kill(host)


def processor_s() -> float:
    """Processor time of this process and all below it."""
    me = psutil.Process()
    return sum(sum(each.cpu_times()[:2]) for each in (me, *me.children(recursive=True)))


def stepper(vec: Any, actions: list[Any], spent: list[tuple[float, int]] | None = None) -> Callable[[], float]:
    """One measurement: steps/s over some time. ``spent`` gets processor time and steps."""
    vec.reset(seed=0)

    def once() -> float:
        before = processor_s()
        count, began = 0, time.perf_counter()
        ended = began + SECONDS
        while time.perf_counter() < ended:
            for action in actions:
                vec.step(action)
            count += len(actions)
        figure = count * ENVS / (time.perf_counter() - began)
        if spent is not None:
            spent.append((processor_s() - before, count * ENVS))
        return figure

    return once


def drawn(make: Callable[[], Any]) -> list[Any]:
    space = SyncVectorEnv([make] * ENVS).action_space
    space.seed(0)
    return [space.sample() for _ in range(32)]


def in_turns(
    sides: dict[str, Callable[[], float]], pick: Callable[[list[float]], float] = max, rounds: int = ROUNDS
) -> dict[str, float]:
    """Each side once a round, many short rounds: all see the same machine, and the best of each its quiet moments."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    return {name: float(pick(figures)) for name, figures in found.items()}


def side_by_side(lib: Any, name: str) -> Figure:
    make = MAKERS[name]
    actions = drawn(make)
    if lib.__name__ == "ray":
        vecs = {"value": RayHosts(lib, make)}
    else:
        vecs = {
            "value": actorlib.envs.make_vec(make, ENVS, num_hosts=HOSTS),
            "in_process": actorlib.envs.make_vec(make, ENVS, num_hosts=0),
            "sync": SyncVectorEnv([make] * ENVS),
            "async": AsyncVectorEnv([make] * ENVS),
        }
        if HAS_SB3:
            vecs["subproc"] = Subproc(make)
    try:
        spent: dict[str, list[tuple[float, int]]] = {side: [] for side in vecs}
        figures = in_turns({side: stepper(vec, actions, spent[side]) for side, vec in vecs.items()})
    finally:
        for vec in vecs.values():
            vec.close()
    peers = [figures[side] for side in ("async", "subproc") if side in figures]
    if peers:
        figures["x_best_peer"] = figures["value"] / max(peers)
        cost = {side: sum(s for s, _ in of) / sum(n for _, n in of) * 1e6 for side, of in spent.items()}
        figures["cpu_us"] = cost["value"]
        figures["cpu_x_best_peer"] = min(cost[side] for side in ("async", "subproc") if side in cost) / cost["value"]
        figures["in_process_x_sync"] = figures["in_process"] / figures["sync"]
    return figures


@row("CartPole, 8 environments, 2 hosts", "steps/s", target=27_740, turns=1, least={"x_best_peer": 2.0})
def cartpole(lib: Any) -> Figure:
    return side_by_side(lib, "cartpole")


@row("84x84x4 bytes, 8 environments, 2 hosts", "steps/s", target=25_680, turns=1, least={"x_best_peer": 2.0})
def pictures(lib: Any) -> Figure:
    return side_by_side(lib, "pictures")


@row("Pendulum, 8 environments, 2 hosts", "steps/s", target=0, turns=1, least={"x_best_peer": 2.0})
def pendulum(lib: Any) -> Figure:
    return side_by_side(lib, "pendulum")


@row("CartPole by send and recv", "steps/s", target=0, turns=1, on_ray=False, least={"x_step": 1.5})
def cartpole_by_send_and_recv(lib: Any) -> Figure:
    return send_and_recv(MAKERS["cartpole"])


@row("uneven environments by send and recv", "steps/s", target=0, turns=1, on_ray=False, least={"x_step": 1.5})
def uneven_by_send_and_recv(lib: Any) -> Figure:
    return send_and_recv(MAKERS["uneven"])


def send_and_recv(make: Callable[[], Any]) -> Figure:
    """The host that is ready first goes on at once, beside steps of all together."""
    actions = drawn(make)
    vec = actorlib.envs.make_vec(make, ENVS, num_hosts=HOSTS)
    in_step = stepper(vec, actions)

    def by_host() -> float:
        vec.send(actions[0])
        share, count = ENVS // HOSTS, 0
        began = time.perf_counter()
        while time.perf_counter() < began + SECONDS:
            for action in actions:
                ids = vec.recv(share).env_ids
                vec.send(action[ids], ids)
                count += len(ids)
        figure = count / (time.perf_counter() - began)
        vec.recv(ENVS)
        return figure

    try:
        figures = in_turns({"value": by_host, "step": in_step}, np.median, 3 * ROUNDS)  # of the best some is luck
    finally:
        vec.close()
    return {**figures, "x_step": figures["value"] / figures["step"]}


@row("environments of 1 ms, 2 hosts", "steps/s", target=0, turns=1, on_ray=False, least={"x_one_core": 1.9})
def milliseconds(lib: Any) -> Figure:
    make = MAKERS["millisecond"]
    actions = drawn(make)[:4]
    vecs = {
        "value": actorlib.envs.make_vec(make, ENVS, num_hosts=HOSTS),
        "one_core": actorlib.envs.make_vec(make, ENVS, num_hosts=0),
    }
    try:
        figures = {side: ENVS / step_s for side, step_s in medians(vecs, actions).items()}
    finally:
        for vec in vecs.values():
            vec.close()
    return {**figures, "x_one_core": figures["value"] / figures["one_core"]}


def medians(vecs: dict[str, Any], actions: list[Any]) -> dict[str, float]:
    """The median time of a step, in seconds: one that the machine disturbs is as long as several that it does not."""
    took: dict[str, list[float]] = {side: [] for side in vecs}
    for vec in vecs.values():
        vec.reset(seed=0)
    for _ in range(ROUNDS):
        for side, vec in vecs.items():
            took[side] += [seconds(lambda vec=vec, action=action: vec.step(action)) for action in actions * 4]
    return {side: float(np.median(times)) for side, times in took.items()}


@row("until a killed host's step is there", "ms", target=500, more_is_better=False, turns=1, on_ray=False)
def recovery(lib: Any) -> Figure:
    import os
    import signal

    vec = actorlib.envs.make_vec(MAKERS["cartpole"], ENVS, num_hosts=HOSTS)
    actions = drawn(MAKERS["cartpole"])
    vec.reset(seed=0)
    took = []
    for number in range(3 if QUICK else 7):
        for action in actions * 20:
            vec.step(action)
        os.kill(vec.host_pids()[number % HOSTS], signal.SIGKILL)
        took.append(1e3 / rate(1, lambda: vec.step(actions[0])))
    vec.close()
    return {"value": float(np.median(took)), "worst_ms": max(took)}


if __name__ == "__main__":
    main(__file__)
