"""The seam between the API and whatever runs it.

The API layer (``api``, ``remote_function``, ``actor``, ``object_ref``, ``util``) turns what the user wrote into the
operations below and reaches a runtime in no other way; ``tests/tidy`` holds it to that. Our own runtime (one machine or
a cluster) is one engine, simulation is that same runtime on simulated drivers; ``actorlib.engines`` has the others. All
methods may be called from any thread.

An engine is made by ``init`` and found by ``current()``; code that runs inside a worker finds that worker's engine.
References and handles belong to the engine that made them: each engine has classes of its own for both (``ref_type``,
``handle_type``), so that one look at the type tells whose they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from actorlib.transport.ids import ActorId, GroupId, ObjectId
from actorlib.transport.link import Address

if TYPE_CHECKING:
    from actorlib.actor import ActorHandle, MethodInfo
    from actorlib.object_ref import ObjectRef, ObjectRefGenerator

STREAMING = -1
DYNAMIC = -2


@dataclass(slots=True)
class FunctionRecord:
    """A remote function, or the class of an actor. ``function_id`` is filled in by the engine at first use."""

    function: Callable[..., Any]
    name: str  # module-qualified, for messages and status
    function_id: bytes = b""
    engine_token: object | None = None  # the engine instance that function_id was exported to


@dataclass(slots=True, frozen=True)
class TaskOptions:
    """Checked and normalised options of one task. Built once per ``options(...)``, shared by all its calls."""

    resources: dict[str, int]  # units of 0.0001
    strategy: tuple[Any, ...] = ("default",)
    runtime_env: str = ""
    num_returns: int = 1
    max_retries: int = 3
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    max_calls: int = 0
    name: str = ""
    timeout_s: float | None = None
    priority: int = 0
    backpressure: int = -1
    shape: tuple[Any, ...] = ()  # hashable (resources, strategy, runtime_env, priority): what a lease must match


@dataclass(slots=True, frozen=True)
class ActorOptions:
    """Checked and normalised options of one actor class."""

    resources_to_place: dict[str, int]
    resources_to_run: dict[str, int]
    strategy: tuple[Any, ...] = ("default",)
    runtime_env: str = ""
    name: str = ""
    namespace: str | None = None
    detached: bool = False
    get_if_exists: bool = False
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int = 1
    concurrency_groups: dict[str, int] = field(default_factory=dict)
    max_pending_calls: int = -1
    out_of_order: bool = False
    checkpoint: dict[str, Any] | None = None  # {"every_calls", "every_s", "keep", ...}
    is_async: bool = False
    priority: int = 0  # of its placement
    timeout_s: float | None = None  # of each of its calls, unless the method says otherwise
    reentrant: bool = False  # a call that comes back along its own chain runs while its caller waits


@dataclass(slots=True, frozen=True)
class MethodOptions:
    """Options of one actor method, from ``@method`` and ``handle.method.options``."""

    num_returns: int = 1
    max_task_retries: int | None = None  # None: the actor's
    retry_exceptions: bool | tuple[type[BaseException], ...] | bytes = False  # bytes: the classes as a pickle
    concurrency_group: str = ""
    timeout_s: float | None = None
    backpressure: int = -1
    name: str = ""
    priority: int = 0  # among the calls that wait at the actor; higher first
    readonly: bool = False  # the state is only looked at: a durable actor does not log the call


class Down(NamedTuple):
    """That an actor is dead, and why: what a monitor gives.

    ``kind`` is one of: exited, released (no handle was left), killed, crashed, failed (its constructor raised, or it
    gave up), unplaceable, ownerless, linked. ``normal`` is True for the first two. The last three fields are of its
    process, as far as they are known.
    """

    actor_id: str
    class_name: str
    kind: str
    reason: str
    normal: bool
    pid: int | None = None
    exit_code: int | None = None
    signal: int | None = None


class DeadLetter(NamedTuple):
    """A call that never reached its actor, since that is dead."""

    actor_id: str
    class_name: str
    method: str
    reason: str


def parse_checkpoint_id(text: str) -> tuple[bytes, int]:
    """The actor and number that an id from ``handle.checkpoints()`` names."""
    found = re.fullmatch(r"((?:[0-9a-f]{2})+)/([0-9]+)", str(text))
    if found is None:
        raise ValueError(f"{text!r} is not the id of a checkpoint; handle.checkpoints() lists them")
    return bytes.fromhex(found[1]), int(found[2])


class DurableActors(Protocol):
    """What an engine that keeps logs and checkpoints of durable actors can do with them."""

    def checkpoints(self, handle: ActorHandle[Any]) -> list[dict[str, Any]]:
        """One row for each checkpoint that is kept, the oldest first."""

    def restore(
        self,
        record: FunctionRecord,
        methods: dict[str, MethodInfo],
        options: ActorOptions,
        checkpoint_id: str,
        position: int | None,
    ) -> ActorHandle[Any]:
        """A new actor in the state of a checkpoint, then of the log up to a position."""

    def log(self, handle: ActorHandle[Any], limit: int) -> list[dict[str, Any]]:
        """The last calls of an actor, the newest first."""

    def upgrade(self, handle: ActorHandle[Any], record: FunctionRecord, methods: dict[str, MethodInfo]) -> None:
        """Go on with another class, from a checkpoint that is taken now."""


class Engine(Protocol):
    """What a runtime does for the API layer."""

    namespace: str
    address_info: dict[str, Any]  # what the context that ``init`` gives shows: address, node_id, session_dir, ...

    @property
    def name(self) -> str:
        """As ``init(engine=...)`` knows it."""

    @property
    def ref_type(self) -> type[ObjectRef[Any]]:
        """The class of its references."""

    @property
    def handle_type(self) -> type[ActorHandle[Any]]:
        """The class of its actors' handles."""

    # -- calls
    def submit(
        self, record: FunctionRecord, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> Any:
        """Start a task. Gives an ObjectRef, a list of them (num_returns > 1), None (0) or an ObjectRefGenerator."""

    def create_actor(
        self,
        record: FunctionRecord,
        methods: dict[str, MethodInfo],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
    ) -> ActorHandle[Any]: ...

    def call(
        self,
        handle: ActorHandle[Any],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: MethodOptions,
    ) -> Any:
        """Call an actor's method; results as in ``submit``."""

    # -- objects
    def put(self, value: Any) -> ObjectRef[Any]: ...

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """The values, in order. Raises the first error by position, or GetTimeoutError."""

    def wait(
        self, refs: Sequence[ObjectRef[Any]], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]: ...

    def when_ready(self, ref: ObjectRef[Any], callback: Callable[[], None]) -> None:
        """Call ``callback`` once, from whichever thread drives, when ``get([ref], 0)`` would not time out."""

    def adopt_ref(self, object_id: ObjectId, owner: Address) -> ObjectRef[Any]:
        """A reference that arrived from elsewhere (called while a value is unpickled)."""

    def pin_forever(self, ref: ObjectRef[Any]) -> None:
        """A reference was pickled outside of our own serialization: nobody can count that copy, so it stays."""

    def next_item(self, generator: ObjectRefGenerator[Any], timeout: float | None) -> ObjectRef[Any] | None:
        """The reference of the next item of a streaming call; None when it has ended. Blocks until one is there
        (``timeout`` None) or raises GetTimeoutError."""

    def when_item(self, generator: ObjectRefGenerator[Any], callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when ``next_item(generator, 0)`` would not time out."""

    def close_generator(self, generator: ObjectRefGenerator[Any]) -> None: ...

    # -- control
    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None: ...

    def kill(self, handle: ActorHandle[Any], no_restart: bool) -> None: ...

    def find_actor(self, name: str, namespace: str | None) -> ActorHandle[Any]:
        """Raises ValueError if there is none."""

    def list_named_actors(self, all_namespaces: bool) -> list[tuple[str, str]]:
        """(namespace, name) pairs."""

    def why_pending(self, ref: ObjectRef[Any]) -> str:
        """One sentence: what the ref waits for."""

    # -- supervision
    def monitor(self, handle: ActorHandle[Any]) -> ObjectRef[Down]:
        """Resolves when the actor is dead for good. It does not keep the actor alive."""

    def link_actors(self, first: ActorHandle[Any], second: ActorHandle[Any]) -> None:
        """An end of one that is not normal is the end of the other. Raises ValueError for actors that are unknown."""

    def listen_to_dead_letters(self, listener: Callable[[DeadLetter], None]) -> Callable[[], None]:
        """Tell ``listener`` of each call of this process that never reached its actor. Gives what ends that."""

    def fail_actor(self, error: Exception) -> NoReturn:
        """End the current actor for good, as failed; who calls it gets ``error``. ValueError outside of one."""

    # -- cluster
    def nodes(self) -> list[dict[str, Any]]:
        """As in Ray: NodeID, Alive, NodeManagerHostname, Resources, Labels, ..."""

    def drain_node(self, node_id: bytes, deadline_s: float | None, reason: str) -> None:
        """Have a node leave; returns once it has been told."""

    def cluster_resources(self) -> dict[str, float]: ...

    def available_resources(self) -> dict[str, float]: ...

    def query_state(self, table: str, limit: int) -> list[dict[str, Any]]:
        """Rows of nodes, jobs, actors, groups, tasks, objects."""

    def create_group(
        self,
        bundles: Sequence[dict[str, int]],
        strategy: str,
        name: str,
        detached: bool,
        label_selectors: Sequence[dict[str, str]],
    ) -> GroupId: ...

    def remove_group(self, group_id: GroupId) -> None: ...

    def wait_group(self, group_id: GroupId, timeout: float | None) -> bool: ...

    def group_ready_ref(self, group_id: GroupId) -> ObjectRef[Any]:
        """Resolves to True when it is placed; to an error if it is removed or can't be."""

    def group_table(self, group_id: GroupId | None, name: str | None) -> list[dict[str, Any]]: ...

    # -- where am I
    def context(self) -> dict[str, Any]:
        """job_id, node_id, worker_id, task_id, actor_id, actor_name, namespace, task_name, function_name, pid,
        resources, accelerators, group_id, was_restarted, current_actor (a handle or None), address, runtime_env,
        is_canceled (a function)."""

    def exit_actor(self) -> None:
        """Raises the exception that ends the current actor after this call; ValueError outside of one."""

    def checkpoint_now(self) -> None: ...

    def record_once(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the function gives; inside a durable actor's method from the log when the method is run again."""

    def durable(self) -> DurableActors:
        """Raises NotSupportedByEngineError where nothing is kept."""

    # -- life
    def shutdown(self) -> None: ...


class Slot:
    """Holds the engine of this process; ``init`` and the worker fill it."""

    engine: Engine | None = None
    auto_init: Callable[[], Engine] | None = None
    closed: bool = False  # shutdown() was called; the next use says so rather than starting anew
    why_closed: str = ""  # if for another reason


def current() -> Engine:
    """The engine in use; starts one with defaults if there is none yet.

    Raises RuntimeError after ``shutdown()``.
    """
    engine = Slot.engine
    if engine is not None:
        return engine
    if Slot.closed:
        raise RuntimeError(
            Slot.why_closed or "actorlib was shut down in this process; call actorlib.init() to start it again"
        )
    if Slot.auto_init is None:
        raise RuntimeError("no engine: call actorlib.init() first")
    return Slot.auto_init()


def current_or_none() -> Engine | None:
    return Slot.engine


def check_ref(ref: ObjectRef[Any], engine: Engine) -> None:
    """Raises WrongEngineError for a reference that another engine made."""
    if type(ref) is not engine.ref_type:
        raise _wrong_engine(ref, "get() its value there and put() it here", engine)


def check_handle(handle: ActorHandle[Any], engine: Engine) -> None:
    """Raises WrongEngineError for an actor's handle that another engine made."""
    if type(handle) is not engine.handle_type:
        raise _wrong_engine(handle, "create the actor with the engine that runs now", engine)


def _wrong_engine(thing: Any, way_out: str, engine: Engine) -> Exception:
    from actorlib.exceptions import WrongEngineError

    return WrongEngineError(
        f"{thing!r} is of the engine {thing.engine_name!r}, but this program runs on {engine.name!r} now; {way_out}"
    )


def several_results(result: Any, count: int) -> tuple[Any, ...]:
    """The values that a call with ``num_returns=count`` returned. Raises ValueError if they are not ``count``."""
    try:
        results = tuple(result)
    except TypeError:
        raise ValueError(
            f"num_returns={count}, but the function returned one {type(result).__name__}; return a tuple of {count}"
        ) from None
    if len(results) != count:
        raise ValueError(f"num_returns={count}, but the function returned {len(results)} values")
    return results


def resource_map(units: Iterable[tuple[str, int]]) -> dict[str, float]:
    """Resource amounts in units of 0.0001 as the floats that users see."""
    return {name: amount / 10_000 for name, amount in units}


__all__ = [
    "DYNAMIC",
    "STREAMING",
    "ActorId",
    "ActorOptions",
    "Engine",
    "FunctionRecord",
    "MethodOptions",
    "Slot",
    "TaskOptions",
    "check_handle",
    "check_ref",
    "current",
    "current_or_none",
    "resource_map",
    "several_results",
]
