"""Our own runtime as an engine: a node on this machine, or a cluster that is joined by its address."""

from __future__ import annotations

import os

from actorlib import options
from actorlib.engine import Engine
from actorlib.engines.registry import Settings
from actorlib.runtime.drivers.local_session import start_local


def start(settings: Settings) -> Engine:
    """Start a node of our own, or join the cluster at ``settings.address``."""
    describes_a_node = settings.num_cpus is not None or settings.num_gpus is not None or bool(settings.resources)
    address = settings.address
    if address is None and not describes_a_node:
        address = os.environ.get("ACTORLIB_ADDRESS")
    if address is not None and describes_a_node:
        raise ValueError("num_cpus, num_gpus and resources describe a node of our own; leave them out with address=")
    return start_local(
        address=address,
        num_cpus=settings.num_cpus,
        num_gpus=settings.num_gpus or 0,
        resources=settings.resources or {},
        labels=settings.labels or {},
        namespace=settings.namespace,
        runtime_env=options.runtime_env(settings.runtime_env),
        object_store_memory=settings.object_store_memory,
        log_to_driver=settings.log_to_driver,
        preload=settings.preload,
        key=settings.key,
    )
