"""Ray's exceptions as ours, with Ray's as the cause."""

from __future__ import annotations

from typing import Any

from actorlib import exceptions
from actorlib.engines.on_ray import ends

# Ray's base class of actors' errors says that the actor is dead; ours only that something is wrong with it.
OURS = {"RayActorError": exceptions.ActorDiedError}


def kind_of(error: BaseException) -> type[exceptions.ActorlibError]:
    """Our class for one of Ray's: the contract keeps Ray's names, so the nearest of its classes that has one counts."""
    for theirs in type(error).__mro__:
        found = OURS.get(theirs.__name__) or getattr(exceptions, theirs.__name__, None)
        if isinstance(found, type) and issubclass(found, exceptions.ActorlibError):
            return found
    return exceptions.ActorlibError


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
    kind = kind_of(error)
    text = str(error) if kind is not exceptions.ActorlibError else f"{type(error).__name__}: {error}"
    return _caused(kind(text), error)


def behind(error: TypeError) -> BaseException:
    """What of ours is behind Ray's word that something can't be pickled; the word itself if nothing is."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, exceptions.WrongEngineError):
            return cause
        cause = cause.__cause__
    return error


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
