"""actorlib: tasks, actors and objects across the cores of a machine and the machines of a cluster."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from actorlib import actor, engine, exceptions, remote_function
from actorlib.actor import ActorClass, ActorHandle, exit_actor, method, restore
from actorlib.api import (
    as_completed,
    available_resources,
    cancel,
    checkpoint_now,
    cluster_resources,
    get,
    get_actor,
    init,
    is_initialized,
    kill,
    nodes,
    put,
    record,
    remote,
    shutdown,
    timeline,
    wait,
)
from actorlib.object_ref import ObjectRef, ObjectRefGenerator
from actorlib.options import Checkpoint
from actorlib.remote_function import RemoteFunction
from actorlib.runtime_context import get_gpu_ids, get_runtime_context
from actorlib.transport.ids import ActorID, JobID, NodeID, ObjectID, PlacementGroupID, TaskID, WorkerID

if TYPE_CHECKING:
    from actorlib.supervision import Child, DeadLetter, Down, Supervisor, branch, link, monitor, on_dead_letter

__version__ = "0.1.0"
_OF_SUPERVISION = ("Child", "DeadLetter", "Down", "Supervisor", "branch", "link", "monitor", "on_dead_letter")


def __getattr__(name: str) -> Any:
    """Rooms that few programs enter are imported when they do."""
    if name in ("from_ray", "to_ray"):
        return getattr(importlib.import_module("actorlib.engines.on_ray.refs"), name)
    if name in ("util", "cluster_utils", "dag", "envs"):
        return importlib.import_module(f"actorlib.{name}")
    if name in _OF_SUPERVISION:
        return getattr(importlib.import_module("actorlib.supervision"), name)
    raise AttributeError(f"module 'actorlib' has no attribute {name!r}")


__all__ = [
    "ActorClass",
    "ActorHandle",
    "ActorID",
    "Checkpoint",
    "Child",
    "DeadLetter",
    "Down",
    "JobID",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "RemoteFunction",
    "Supervisor",
    "TaskID",
    "WorkerID",
    "__version__",
    "actor",
    "as_completed",
    "available_resources",
    "branch",
    "cancel",
    "checkpoint_now",
    "cluster_resources",
    "engine",
    "exceptions",
    "exit_actor",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "link",
    "method",
    "monitor",
    "nodes",
    "on_dead_letter",
    "put",
    "record",
    "remote",
    "remote_function",
    "restore",
    "shutdown",
    "timeline",
    "wait",
]
