"""Which engines there are, and how each is started.

An engine's code is imported when it is chosen, so ``import actorlib`` knows nothing of Ray, and a program that runs
inline never loads sockets. The API layer names engines; only this file knows where they live.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from typing import Any

from actorlib.engine import Engine


@dataclass(slots=True)
class Settings:
    """What ``init`` was given, checked as far as all engines agree."""

    address: str | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None
    resources: dict[str, float] | None = None
    labels: dict[str, str] | None = None
    namespace: str | None = None
    runtime_env: dict[str, Any] | None = None
    object_store_memory: int | None = None
    log_to_driver: bool = True
    logging_level: Any = None
    include_dashboard: bool | None = None
    preload: list[str] = field(default_factory=list)
    key: str | None = None
    more: dict[str, Any] = field(default_factory=dict)  # arguments that only some engine knows


# Each module has ``start(settings) -> Engine``; those in TAKES_MORE also ``arguments()``, that init() doesn't know.
ENGINES = {
    "local": "actorlib.engines.local",
    "inline": "actorlib.engines.inline",
    "ray": "actorlib.engines.on_ray",
}
TAKES_MORE = ("ray",)


def check_name(name: Any) -> None:
    """Raises ValueError for an engine that there isn't, with those that there are."""
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")


def further_arguments(name: str) -> list[str]:
    """What an engine takes beside the arguments of ``init``. Those that begin with an underscore are its own matter."""
    found: list[str] = importlib.import_module(ENGINES[name]).arguments() if name in TAKES_MORE else []
    return found


def start(name: str, settings: Settings) -> Engine:
    """Start the engine of that name."""
    check_name(name)
    engine: Engine = importlib.import_module(ENGINES[name]).start(settings)
    return engine


def of_this_process() -> Engine | None:
    """The engine of a process that another engine's cluster has started to run our code; None elsewhere."""
    if "ray" not in sys.modules:
        return None
    from actorlib.engines.on_ray import attach
    from actorlib.engines.on_ray.session import is_worker

    return attach() if is_worker() else None


__all__ = ["ENGINES", "TAKES_MORE", "Settings", "check_name", "further_arguments", "of_this_process", "start"]
