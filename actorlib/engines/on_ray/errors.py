"""Ray's exceptions as ours, with Ray's as the cause."""

from __future__ import annotations

from typing import Any

from actorlib import exceptions
from actorlib.engines.on_ray import ends

# By name, since not every version of Ray has every class. The first that fits counts: subclasses stand first.
NAMES = (
    ("ActorUnschedulableError", exceptions.ActorUnschedulableError),
    ("TaskUnschedulableError", exceptions.TaskUnschedulableError),
    ("ActorUnavailableError", exceptions.ActorUnavailableError),
    ("ActorDiedError", exceptions.ActorDiedError),
    ("RayActorError", exceptions.ActorDiedError),
    ("TaskCancelledError", exceptions.TaskCancelledError),
    ("GetTimeoutError", exceptions.GetTimeoutError),
    ("OutOfMemoryError", exceptions.OutOfMemoryError),
    ("NodeDiedError", exceptions.NodeDiedError),
    ("WorkerCrashedError", exceptions.WorkerCrashedError),
    ("LocalRayletDiedError", exceptions.NodeDiedError),
    ("OwnerDiedError", exceptions.OwnerDiedError),
    ("ObjectFetchTimedOutError", exceptions.ObjectFetchTimedOutError),
    (
        "ObjectReconstructionFailedMaxAttemptsExceededError",
        exceptions.ObjectReconstructionFailedMaxAttemptsExceededError,
    ),
    (
        "ObjectReconstructionFailedLineageEvictedError",
        exceptions.ObjectReconstructionFailedLineageEvictedError,
    ),
    ("ObjectReconstructionFailedError", exceptions.ObjectReconstructionFailedError),
    ("ObjectLostError", exceptions.ObjectLostError),
    ("ObjectStoreFullError", exceptions.ObjectStoreFullError),
    ("OutOfDiskError", exceptions.OutOfDiskError),
    ("RuntimeEnvSetupError", exceptions.RuntimeEnvSetupError),
    ("PendingCallsLimitExceeded", exceptions.PendingCallsLimitExceeded),
    ("ActorPlacementGroupRemoved", exceptions.PlacementGroupError),
    ("TaskPlacementGroupRemoved", exceptions.PlacementGroupError),
    ("AsyncioActorExit", exceptions.AsyncioActorExit),
)


def ours(error: BaseException) -> BaseException:
    """What ``get`` raises for what Ray's ``get`` raised."""
    import ray.exceptions as rays

    if isinstance(error, exceptions.ActorlibError) and not isinstance(error, rays.RayError):
        return error
    if isinstance(error, rays.RayTaskError):
        return _task_error(error)
    if not isinstance(error, rays.RayError):
        return error
    known = ends.noted(getattr(error, "actor_id", None)) if isinstance(error, rays.RayActorError) else None
    if known is not None:
        _, reason, said = known
        return _caused(said or exceptions.ActorDiedError(f"the actor is dead: {reason}"), error)
    for name, kind in NAMES:
        theirs = getattr(rays, name, None)
        if theirs is not None and isinstance(error, theirs):
            return _caused(kind(str(error)), error)
    return _caused(exceptions.ActorlibError(f"{type(error).__name__}: {error}"), error)


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def _task_error(error: Any) -> BaseException:
    """The user's exception, in the class that is also the user's; what went wrong below it comes up as it is."""
    cause = error.cause
    if isinstance(cause, exceptions.TaskError) and cause.cause is None:
        return cause
    if isinstance(cause, exceptions.ActorlibError) and not isinstance(cause, exceptions.TaskError):
        return cause
    import ray.exceptions as rays

    name = getattr(error, "function_name", "") or "a task"
    text = getattr(error, "traceback_str", "") or str(error)
    if isinstance(cause, rays.RayTaskError):
        cause = _task_error(cause)
    elif isinstance(cause, rays.RayError):
        inner = ours(cause)
        if not isinstance(inner, exceptions.TaskError) and type(cause).__name__ != "UnserializableException":
            return inner
        cause = None
    pid, node = getattr(error, "pid", 0) or 0, getattr(error, "ip", "") or ""
    return exceptions.make_dual(exceptions.TaskError(name, text, cause, pid, node))
