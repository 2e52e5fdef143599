"""The start of a session of our own: the node's process and what the driver needs are on their way at the same time."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from actorlib.runtime.drivers.node_process import Launch, NodeConfig

if TYPE_CHECKING:
    from actorlib.runtime.drivers.driver import Driver


def start_local(
    address: str | None,
    num_cpus: float | None,
    num_gpus: float,
    resources: dict[str, float],
    labels: dict[str, str],
    namespace: str | None,
    runtime_env: str,
    object_store_memory: int | None,
    log_to_driver: bool,
    preload: list[str],
    key: str | None,
) -> Driver:
    """Start a node of our own, or join a cluster, and connect to it."""
    if address is not None:
        from actorlib.runtime.drivers.driver import join_cluster

        driver = join_cluster(address, key, namespace, log_to_driver)
        driver.runtime_env = runtime_env
        return driver
    config = NodeConfig(
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        resources=resources,
        labels=labels,
        object_store_memory=object_store_memory,
        sys_path=list(dict.fromkeys(path or os.getcwd() for path in sys.path)),
        cwd=os.getcwd(),
        preload=preload,
        can_grow=False,
    )
    launch = Launch(config)
    from actorlib.runtime.drivers.driver import Driver  # a good part of what starting takes; the node starts meanwhile

    handle = launch.wait()
    try:
        driver = Driver(
            handle,
            handle.address,
            handle.gcs,
            handle.session_dir,
            handle.host_id,
            namespace,
            log_to_driver,
            handle.pid,
        )
        driver.runtime_env = runtime_env
        return driver
    except BaseException:
        with contextlib.suppress(Exception):
            handle.stop()
        raise
