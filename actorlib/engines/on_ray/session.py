"""Starting or joining Ray, and the engine of a process that Ray has started."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import inspect
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from actorlib import api, exceptions, options
from actorlib.engine import Engine, Slot
from actorlib.engines.on_ray.options import refuse
from actorlib.engines.registry import Settings

OLDEST = (2, 49)
CONNECT_S_MAX = 10.0
# How a client of gRPC, which Ray's head speaks, begins: the preface of HTTP/2 and a frame of settings. The answer
# begins with another.
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
FRAME_HEAD_BYTES, KIND_AT, SETTINGS = 9, 3, 4
INSTALL = "pip install 'actorlib[ray]'"
OURS = ("actorlib", "cloudpickle")  # pure Python; what else we need in workers, Ray needs as well


def load_ray() -> Any:
    """Ray, or what to install."""
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise exceptions.EngineUnavailableError(f'engine="ray" needs Ray, which is not installed: {INSTALL}') from error
    version = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if version < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise exceptions.EngineUnavailableError(
            f'engine="ray" needs Ray {wanted} or later, and {ray.__version__} is installed: {INSTALL}'
        )
    return ray


def arguments() -> list[str]:
    """Those of ``ray.init``."""
    return [name for name in inspect.signature(load_ray().init).parameters if name != "kwargs"]


def start(settings: Settings) -> Engine:
    """Start Ray on this machine, or join the cluster at the address; see ``actorlib.init``."""
    ray = load_ray()
    if settings.address is not None and settings.address.startswith("ray://"):
        raise refuse("Ray Client addresses (ray://)", "run the program on a node of the cluster, or submit it as a job")
    was_there = ray.is_initialized()
    if not was_there:
        _connect(ray, settings)
    try:
        missing = _missing_in_workers(ray)
        if missing and was_there:
            raise exceptions.EngineUnavailableError(
                f"Ray runs in this process already, and its workers have no {' and no '.join(missing)}: call "
                'actorlib.init(engine="ray") instead of ray.init(), and they are sent'
            )
        if missing:
            ray.shutdown()
            with tempfile.TemporaryDirectory(prefix="actorlib-package-") as folder:
                _connect(ray, settings, [_copy(name, folder) for name in missing])
    except BaseException:
        if not was_there:
            ray.shutdown()
        raise
    from actorlib.engines.on_ray.engine import RayEngine

    return RayEngine(ends_ray=not was_there)


def _connect(ray: Any, settings: Settings, packages: Sequence[str] = ()) -> None:
    given: dict[str, Any] = {
        "address": settings.address,
        "num_cpus": settings.num_cpus,
        "num_gpus": settings.num_gpus,
        "resources": settings.resources,
        "labels": settings.labels,
        "namespace": settings.namespace,
        "object_store_memory": settings.object_store_memory,
        "include_dashboard": settings.include_dashboard,
        **settings.more,
    }
    arguments = {name: value for name, value in given.items() if value is not None}
    arguments["log_to_driver"] = settings.log_to_driver
    if settings.logging_level is not None:
        arguments["logging_level"] = settings.logging_level
    environment = dict(settings.runtime_env or {})
    preload = [*settings.preload, *environment.pop("preload", ())]
    if preload:
        environment["worker_process_setup_hook"] = _importing(preload)
    options.runtime_env({key: value for key, value in environment.items() if key == "env_vars"})
    if packages:
        environment["py_modules"] = [*environment.get("py_modules", []), *packages]
    if environment:
        arguments["runtime_env"] = environment
    try:
        _knock(settings.address)
        ray.init(**arguments)
    except (ConnectionError, TimeoutError, OSError) as error:
        where = settings.address or "this machine"
        raise exceptions.EngineUnavailableError(
            f"no Ray cluster can be reached at {where}: {error}. Start one with 'ray start --head', or leave out "
            "address="
        ) from error
    except RuntimeError as error:
        if "version" in str(error).lower():  # Ray's own words name both versions
            raise exceptions.EngineUnavailableError(f"this process does not fit the Ray cluster: {error}") from error
        raise


def _knock(address: str | None) -> None:
    """Whether a head of Ray could listen there: Ray itself would try for minutes. Raises OSError."""
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdigit():
        return
    with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S_MAX) as there:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return
        there.sendall(GREETING)
        head = there.recv(FRAME_HEAD_BYTES)
        if len(head) <= KIND_AT or head[KIND_AT] != SETTINGS:
            raise ConnectionError("what listens there does not speak as Ray's head does")


def _importing(modules: list[str]) -> Callable[[], None]:
    """What Ray calls in a worker before it runs anything."""

    def load() -> None:
        import importlib

        for module in modules:
            importlib.import_module(module)

    return load


def _missing_in_workers(ray: Any) -> list[str]:
    """The packages that must be sent along. Asked of one worker, in plain Ray."""

    def look(names: tuple[str, ...]) -> list[str]:
        import importlib.util

        return [name for name in names if importlib.util.find_spec(name) is None]

    missing: list[str] = ray.get(ray.remote(num_cpus=0)(look).remote(OURS), timeout=120)
    return missing


def _copy(package: str, folder: str) -> str:
    """A copy of a package with its links followed, for Ray to send."""
    source = os.path.dirname(str(importlib.import_module(package).__file__))
    ignore = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(source, os.path.join(folder, package), symlinks=False, ignore=ignore)


def attach() -> Engine:
    """The engine of this worker."""
    from actorlib.engines.on_ray.engine import RayEngine

    engine: Any = RayEngine(ends_ray=False)
    Slot.engine = engine
    atexit.unregister(api.shutdown)  # Ray ends its workers; only drivers have a session to end
    return engine  # type: ignore[no-any-return]


def is_worker() -> bool:
    """Whether Ray has started this process to run tasks."""
    ray = sys.modules.get("ray")
    if ray is None or not getattr(ray, "is_initialized", lambda: False)():
        return False
    return bool(ray._private.worker.global_worker.mode == ray._private.worker.WORKER_MODE)
