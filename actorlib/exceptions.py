"""All exceptions that users see. Each says what happened, where, and what can be done; all can be pickled.

Every class is also known under the name that Ray gives it (``RayTaskError`` is ``TaskError``, and so on).
"""

from __future__ import annotations

import traceback
from typing import Any

from actorlib.transport.messages import Death

TRACEBACK_CHARACTERS_MAX = 50_000


class ActorlibError(Exception):
    """Base of all errors of actorlib."""


class TaskError(ActorlibError):
    """The user's code raised in a task or an actor's method.

    What ``get`` raises is also an instance of the user's exception class, so ``except ValueError`` works.
    ``cause`` is the original exception, or None if it could not be pickled; ``traceback_text`` is the remote traceback.
    """

    def __init__(self, function: str, traceback_text: str, cause: BaseException | None, pid: int, node: str) -> None:
        # Not super(): in a combined class that would be the user's constructor.
        Exception.__init__(self, function, traceback_text, cause, pid, node)
        self.function_name = function
        self.traceback_text = traceback_text
        self.cause = cause
        self.pid = pid
        self.node = node

    def __str__(self) -> str:
        return f"{self.function_name} raised in process {self.pid} on node {self.node}:\n{self.traceback_text}"

    def __reduce__(self) -> Any:
        return _rebuild_task_error, (self.function_name, self.traceback_text, self.cause, self.pid, self.node)

    def as_instanceof_cause(self) -> BaseException:
        """This error as an instance of the cause's class as well."""
        return make_dual(self)

    make_dual = as_instanceof_cause


def make_dual(error: TaskError) -> TaskError:
    """A TaskError that is also an instance of its cause's class, where Python allows such a class.

    An error that passes through several tasks stays an instance of the class that was raised first.
    """
    cause = error.cause
    first = cause
    while isinstance(first, TaskError):
        first = first.cause
    if cause is None or not isinstance(first, Exception):
        return error
    cause_class = type(first)
    try:
        dual: Any = type(f"TaskError({cause_class.__name__})", (_Dual, cause_class), {"__module__": __name__})
        made: TaskError = dual.__new__(dual)
        made.__dict__.update(getattr(first, "__dict__", {}))
        TaskError.__init__(made, error.function_name, error.traceback_text, cause, error.pid, error.node)
    except TypeError:
        return error  # a class that can't be combined; the plain error carries the cause
    made.args = first.args
    made.__cause__ = cause
    return made


class _Dual(TaskError):
    """Base of the combined classes, which are made anew in each process."""

    def __init__(self, *args: Any) -> None:
        # The cause's own constructor may want anything; state is set by make_dual.
        Exception.__init__(self, *args)

    def __getattr__(self, name: str) -> Any:
        cause = self.__dict__.get("cause")
        if cause is None or name.startswith("__"):
            raise AttributeError(name)
        return getattr(cause, name)


def _rebuild_task_error(function: str, text: str, cause: BaseException | None, pid: int, node: str) -> TaskError:
    return make_dual(TaskError(function, text, cause, pid, node))


class TaskCancelledError(ActorlibError):
    """The task was cancelled."""


class GetTimeoutError(ActorlibError, TimeoutError):
    """The objects were not there in time; the text says what each waits for."""


class WorkerCrashedError(ActorlibError):
    """The worker process died while the task ran; the text says how."""


class OutOfMemoryError(WorkerCrashedError):
    """The kernel killed the worker for lack of memory."""


class NodeDiedError(ActorlibError):
    """The node, or the whole session, is gone."""


class ActorError(ActorlibError):
    """Base of errors of actors."""


class ActorDiedError(ActorError):
    """The actor is dead and will not come back."""


class ActorUnavailableError(ActorError):
    """The actor lost the call and is being restarted."""


class SupervisorFailedError(ActorDiedError):
    """A supervisor could not start its children, or gave up."""


class RestartIntensityError(SupervisorFailedError):
    """A supervisor's children ended more often than its intensity allows; the text names the last ends."""


class ChildNotRunningError(ActorError):
    """A supervisor's child does not run: it has ended and is not started again, or is just being started."""


class ActorUnschedulableError(ActorError):
    """No node can host the actor."""


class TaskUnschedulableError(ActorlibError):
    """No node can ever run the task."""


class ObjectLostError(ActorlibError):
    """The object is lost and can't be made again."""


class ObjectFetchTimedOutError(ObjectLostError):
    """The object could not be fetched in time."""


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The object was freed while a reference to it was on its way outside of our counting."""


class OwnerDiedError(ObjectLostError):
    """The process that owned the object is gone."""


class ObjectReconstructionFailedError(ObjectLostError):
    """The task that makes the object could not be run again."""


class ObjectReconstructionFailedMaxAttemptsExceededError(ObjectReconstructionFailedError):
    """The task that makes the object has no retries left."""


class ObjectReconstructionFailedLineageEvictedError(ObjectReconstructionFailedError):
    """What is needed to run the task again was dropped to save memory."""


class ObjectStoreFullError(ActorlibError):
    """Shared memory and spill space are full; the text names the largest objects."""


class OutOfDiskError(ActorlibError):
    """A disk is full."""


class PendingCallsLimitExceeded(ActorlibError):
    """The actor has max_pending_calls calls waiting."""


class RuntimeEnvSetupError(ActorlibError):
    """A worker could not be prepared, or lacks what the code needs."""


class PlacementGroupError(ActorlibError):
    """The placement group was removed or can't be placed."""


class AsyncioActorExit(ActorlibError):
    """An async actor ends."""


class DeadlineExceededError(ActorlibError, TimeoutError):
    """A call was not done within its ``timeout_s``, or within that of the call that made it."""


class DeadlockError(ActorlibError):
    """Actors wait for each other in a circle."""


class StateRolledBackError(ActorlibError):
    """A durable actor came back in a state before calls whose results were seen."""


class CheckpointError(ActorlibError):
    """A checkpoint could not be kept, or can't be used; the text says why and what to do."""


class CodeChangedError(CheckpointError, ActorDiedError):
    """The log of a durable actor was written by other code than there is now, so that it can't come back."""


class ReplayDivergedError(ActorlibError):
    """A method of a durable actor did not do the same when it was run again; the text names call and method."""


class NotSupportedByEngineError(ActorlibError):
    """The engine in use can't do that: which engine, what it can't do, and the way out."""

    def __init__(self, engine: str, what: str, way_out: str) -> None:
        super().__init__(engine, what, way_out)
        self.engine = engine
        self.what = what
        self.way_out = way_out

    def __str__(self) -> str:
        return f"the engine {self.engine!r} can't do this: {self.what}; {self.way_out}"


class WrongEngineError(ActorlibError, TypeError):
    """A reference or a handle of one engine was used while another one runs."""


class EngineUnavailableError(ActorlibError):
    """The engine that was asked for can't be used here; the text says what to install or to start."""


class SerializationError(ActorlibError, TypeError):
    """A value can't be pickled; the text names the path to the culprit."""


_CLASSES: dict[str, type[Exception]] = {
    name: value for name, value in list(globals().items()) if isinstance(value, type) and issubclass(value, Exception)
}
_BUILTIN: dict[str, type[Exception]] = {kind.__name__: kind for kind in (ValueError, TypeError, RuntimeError, KeyError)}

RayError = ActorlibError
RayTaskError = TaskError
RayActorError = ActorError
WorkerDiedError = WorkerCrashedError
LocalRayletDiedError = NodeDiedError
RaySystemError = ActorlibError
PlasmaObjectNotAvailable = ObjectLostError
ObjectFreedError = ObjectLostError
TaskPlacementGroupRemoved = TaskUnschedulableError
ActorPlacementGroupRemoved = ActorUnschedulableError
RaySerializationError = SerializationError


def make(kind: str, text: str) -> Exception:
    """An exception by the name of its class (as it travels in ``Failure`` and ``LeaseRefused``)."""
    found = _CLASSES.get(kind) or _BUILTIN.get(kind) or ActorlibError
    return found(text)


def explain(death: Death) -> str:
    """How a process ended, in words: pid, node, cause, and the last lines of its stderr."""
    text = f"process {death.os_pid} on node {death.node_id.hex()[:8]} {death.text or 'ended for an unknown reason'}"
    tail = death.stderr_tail.strip()
    if tail:
        lines = tail.splitlines()[-20:]
        text += "; its last words on stderr:\n  " + "\n  ".join(lines)
    return text


def traceback_text(error: BaseException) -> str:
    """The user's part of an error's traceback, without our frames above it."""
    try:
        trace = error.__traceback__
        while trace is not None and "actorlib" in trace.tb_frame.f_globals.get("__name__", ""):
            trace = trace.tb_next
        lines = traceback.format_exception(type(error), error, trace or error.__traceback__, limit=-100)
        return "".join(lines)[-TRACEBACK_CHARACTERS_MAX:]
    except Exception as broken:
        return f"{type(error).__name__} (its traceback can't be printed: {broken!r})"


def task_error(error: BaseException, function: str, text: str, pid: int, node_id: bytes) -> TaskError:
    """What user code raised, ready to travel: with the exception itself if it can be pickled both ways."""
    from actorlib import serialization

    cause: BaseException | None = error
    try:
        serialization.deserialize(serialization.serialize(error).data)
    except Exception:
        cause = None
    return TaskError(function, text, cause, pid, node_id.hex()[:8])


def actor_creation_error(error: BaseException, class_name: str) -> ActorDiedError:
    """Why an actor never came to be."""
    cause = getattr(error, "cause", error)
    if isinstance(cause, CodeChangedError):
        return CodeChangedError(f"actor {class_name} did not come back: {cause}")
    return ActorDiedError(f"actor {class_name} could not be created: {error}")
