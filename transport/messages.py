"""Every message that processes exchange, in one table.

A message is a NamedTuple: immutable, cheap to make, and msgpack packs it as it is. On the wire it is the array
``[code, *fields]``; a batch is an array of those. ``TABLE`` at the end gives each message its code and direction and
is all that the codec knows. Fields hold only what msgpack can carry: None, bool, int, float, str, bytes, tuples and
dicts with str keys, and ``Address`` or another NamedTuple of this file nested inside (they arrive as such: the codec
rebuilds nested NamedTuples by the field's annotation).

Conventions
-----------
* ``request_id`` ties an answer to its question and is unique per asking process. Handling a request twice has the
  effect of once. Whoever asks may get ``Failure`` in place of the answer.
* Resource amounts are integers in units of 0.0001 (``resources: dict[str, int]``, "CPU", "GPU", "memory", custom).
* A **value** is what an object holds, as it travels:
    - ``bytes``-like: a pickle without out-of-band buffers (large ones travel as frames of their own)
    - ``(VALUE_PARTS, pickle, buffers)``: a pickle and its out-of-band buffers, a tuple of bytes-like
    - ``(VALUE_STORED, node_id, slab_path, offset, size, host_id)``: sealed in a node's shared memory
    - ``(VALUE_ERROR, pickle, text)``: an exception instance, and its text for those who can't unpickle it
    - ``(VALUE_REFS, value, refs)``: one of the above that contains references, ``refs`` a tuple of
      ``(object_id, owner_address)``; only the outermost level
* A **payload** field is bytes-like and opaque: only ``actorlib/serialization.py`` ever unpickles.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from actorlib.transport.ids import ActorId, GroupId, JobId, LeaseId, NodeId, ObjectId, ProcessId, TaskId
from actorlib.transport.link import Address

PROTOCOL_VERSION = 1

INFEASIBLE = "infeasible: "
"""How a reason begins (or what it contains) when nothing that is here could ever meet the demand."""

VALUE_PARTS = 1
VALUE_STORED = 2
VALUE_ERROR = 3
VALUE_REFS = 4

Resources = dict[str, int]
Value = Any
Payload = Any  # bytes-like


class Death(NamedTuple):
    """Why a process is gone, as far as its node could tell."""

    process_id: ProcessId
    node_id: NodeId
    os_pid: int
    exit_code: int | None  # None when a signal ended it or nobody knows
    signal: int | None
    oom: bool
    text: str  # one sentence: 'killed by SIGSEGV', 'exited with status 3 (os._exit or sys.exit in user code)'
    stderr_tail: str  # last lines, faulthandler's stacks among them; at most limits.stderr_tail_bytes_max


class ResultStatus(enum.IntEnum):
    OK = 0
    EXCEPTION = 1  # the user's code raised; every return value is a VALUE_ERROR
    CANCELLED = 2
    SYSTEM_ERROR = 3  # it never ran or can't be told: arguments could not be read, the function could not be loaded
    EXIT = 4  # exit_actor() inside this call


# -- hello ------------------------------------------------------------------------------------------------------------
class Hello(NamedTuple):
    """First message of a session, from the side that dialled."""

    protocol_version: int
    address: Address
    role: str  # "driver", "worker", "node"
    os_pid: int
    job_id: JobId
    python_version: str


class Refused(NamedTuple):
    """In place of a session: why who has said Hello is not talked to. The last message on that connection."""

    reason: str


class Goodbye(NamedTuple):
    """Last message of a process that leaves on purpose: what it held may be let go of now."""

    reason: str


class Failure(NamedTuple):
    """In place of the answer to ``request_id``. ``kind`` names an exception class of actorlib/exceptions.py."""

    request_id: int
    kind: str
    text: str


class Done(NamedTuple):
    """The plain answer to a request that has nothing to tell."""

    request_id: int


# -- process <-> its node: workers ------------------------------------------------------------------------------------
class WorkerReady(NamedTuple):
    """worker -> node, once after the fork: its inbox is bound."""

    address: Address
    os_pid: int


class WorkerBlocked(NamedTuple):
    """worker -> node: user code waits in get/wait; its CPU may be lent."""

    waits_for: tuple[bytes, ...]  # the first few ids, for the reasons shown to users


class WorkerUnblocked(NamedTuple):
    """worker -> node: user code goes on; its CPU is taken back (oversubscribing for a moment if it was lent)."""


class WorkerExiting(NamedTuple):
    """worker -> node: it exits by itself (max_calls reached, exit_actor, handles gone). Answered by Done, for which it
    waits."""

    request_id: int
    reason: str


class StopWorker(NamedTuple):
    """node -> worker: end. With ``if_unused``, a worker whose objects are still needed answers WorkerReady instead."""

    reason: str
    if_unused: bool


class KillProcess(NamedTuple):
    """any local process -> node: SIGKILL that worker (cancel with force)."""

    process_id: ProcessId
    reason: str


class Watch(NamedTuple):
    """process -> node: tell me when that process dies. Answered by ProcessDied, at once if it is unknown or dead."""

    process: Address


class Unwatch(NamedTuple):
    process: Address


class ProcessDied(NamedTuple):
    process_id: ProcessId
    death: Death


class LogLines(NamedTuple):
    """node -> driver: what a worker printed."""

    process_id: ProcessId
    os_pid: int
    label: str  # actor's class or name, or the task's function; "" if none ran
    stream: str  # "out" or "err"
    text: str


# -- process <-> node: leases -----------------------------------------------------------------------------------------
class LeaseRequest(NamedTuple):
    """submitter -> node: a worker that may run tasks of this shape. Idempotent by (sender, request_id)."""

    request_id: int
    job_id: JobId
    resources: Resources
    strategy: tuple[Any, ...]  # see "Strategies" in scheduler/policy.py
    runtime_env: str  # canonical JSON; "" is the node's own
    depth: int  # how many tasks up to the driver; deeper ones are granted first
    priority: int
    backlog: int  # how many tasks wait for it
    locality: tuple[tuple[NodeId, int], ...]  # bytes of arguments by node
    hops: int  # nodes that have passed it on
    label: str  # function or class name, for status


class LeaseGranted(NamedTuple):
    request_id: int
    lease_id: LeaseId
    worker: Address
    accelerators: dict[str, tuple[int, ...]]  # "GPU": indices
    brief: bool  # others wait: good for one batch of calls, as if it were recalled after that


class LeaseSpilled(NamedTuple):
    """Ask that node instead (with hops + 1)."""

    request_id: int
    node: Address


class LeaseWaits(NamedTuple):
    """Why it isn't granted yet; sent when the reason changes. ``infeasible``: no node that is here could ever."""

    request_id: int
    reason: str
    infeasible: bool


class LeaseRefused(NamedTuple):
    """It can never be granted. ``kind`` names an exception."""

    request_id: int
    kind: str
    text: str


class LeaseCancelled(NamedTuple):
    """submitter -> node: no longer wanted. A grant that crosses it is returned by the submitter."""

    request_id: int


class LeaseReturned(NamedTuple):
    """submitter -> node: the worker is idle again. ``retire``: don't reuse it (state unknown)."""

    lease_id: LeaseId
    retire: bool


class LeaseRecalled(NamedTuple):
    """node -> submitter: others wait; return it as soon as what is in flight is done."""

    lease_id: LeaseId


class LeaseLost(NamedTuple):
    """node -> submitter: the leased worker died."""

    lease_id: LeaseId
    death: Death


# -- caller <-> worker: calls -----------------------------------------------------------------------------------------
class Call(NamedTuple):
    """One task or actor call, as it lies in a batch. Not a message of its own."""

    task_id: TaskId
    target: Any  # task: function id (16 bytes); actor: method name (str)
    args: Payload  # pickled (args, kwargs); b"" for none; Parts as a value
    # One (object_id, owner_address, value) per top-level reference; None: an earlier call to this worker makes it.
    dependencies: tuple[Any, ...]
    num_returns: int  # -1 streaming, -2 dynamic
    sequence: int  # actor calls: the caller's count for this actor, from 0; tasks: 0
    extra: dict[str, Any] | None  # rare things: name, depth, attempt, code, max_calls, concurrency_group, backpressure


class LeaseTerms(NamedTuple):
    """What a lease gives to the tasks that run on it."""

    resources: Resources
    strategy: tuple[Any, ...]
    accelerators: dict[str, tuple[int, ...]]  # "GPU": indices


class RunTasks(NamedTuple):
    """submitter -> leased worker. ``replies_seen``: results received on this lease so far."""

    lease_id: LeaseId
    job_id: JobId
    namespace: str  # of the job: where names are looked up
    replies_seen: int
    terms: LeaseTerms | None  # with the first calls of a lease
    calls: tuple[Call, ...]


class RunActorCalls(NamedTuple):
    """caller -> actor's worker. ``incarnation``: the one the caller means; another answers ActorCallsRefused.

    To a durable actor, ``replies_seen`` is the sequence up to which the caller has all replies."""

    actor_id: ActorId
    incarnation: int
    replies_seen: int
    calls: tuple[Call, ...]


class CallResult(NamedTuple):
    """The outcome of one call, as it lies in a batch."""

    task_id: TaskId
    status: int
    values: tuple[Value, ...]
    retained: tuple[ObjectId, ...]  # out of the arguments: the worker still holds them, and the caller owns them
    duration_us: int


class CallResults(NamedTuple):
    """worker -> caller."""

    results: tuple[CallResult, ...]


class CallsReturned(NamedTuple):
    """worker -> submitter: these were not started and won't be (it blocks, exits, or was asked to give back)."""

    task_ids: tuple[TaskId, ...]
    blocked: bool  # its user code waits: send nothing more until a result comes


class ActorCallsRefused(NamedTuple):
    """worker -> caller: not the incarnation that you mean, or it is ending."""

    actor_id: ActorId
    task_ids: tuple[TaskId, ...]
    reason: str


class GiveBackCalls(NamedTuple):
    """submitter -> worker: return up to ``count`` calls that have not started, newest first."""

    lease_id: LeaseId
    count: int  # type: ignore[assignment]


class CancelCall(NamedTuple):
    """caller -> worker: queued calls are dropped, a running one is interrupted; the result says CANCELLED."""

    task_id: TaskId
    recursive: bool


class GeneratorItem(NamedTuple):
    """worker -> caller: item ``index`` of a streaming call; its object id is object_id(task_id, index + 1)."""

    task_id: TaskId
    index: int  # type: ignore[assignment]
    value: Value


class GeneratorConsumed(NamedTuple):
    """caller -> worker: how many items the consumer has taken (backpressure), or -1: it lost interest."""

    task_id: TaskId
    count: int  # type: ignore[assignment]


class WaitProbe(NamedTuple):
    """blocked worker -> along what it waits for. ``number``: of the wait; ``path``: who was passed so far, named."""

    initiator: Address
    number: int
    object_id: ObjectId
    path: tuple[tuple[ProcessId, str], ...]


class DebugPing(NamedTuple):
    request_id: int
    payload: Payload


class DebugPong(NamedTuple):
    request_id: int
    payload: Payload


# -- owner <-> borrower: objects --------------------------------------------------------------------------------------
class ObjectWanted(NamedTuple):
    """borrower -> owner: tell me the value once there is one. Answered by ObjectReady for each."""

    object_ids: tuple[ObjectId, ...]


class ObjectReady(NamedTuple):
    object_id: ObjectId
    value: Value  # a VALUE_ERROR says that there will never be one


class BorrowAdded(NamedTuple):
    """-> owner: ``borrower`` holds references to these. Answered by Done."""

    request_id: int
    object_ids: tuple[ObjectId, ...]
    borrower: Address


class BorrowReleased(NamedTuple):
    """borrower -> owner: none left here."""

    object_ids: tuple[ObjectId, ...]


class ObjectMissing(NamedTuple):
    """reader -> owner: the place that ``value`` names does not hold it. The owner answers ObjectReady anew, after
    recovering it by lineage if it must."""

    object_id: ObjectId
    value: Value


# -- process <-> node: the store --------------------------------------------------------------------------------------
class SlabRequest(NamedTuple):
    """process -> node: memory for an object of ``size`` bytes (or a shared slab if small)."""

    request_id: int
    size: int


class SlabGranted(NamedTuple):
    request_id: int
    path: str
    size: int


class SlabReturned(NamedTuple):
    """process -> node: it will not allocate in this slab any more (its objects stay)."""

    path: str


class ObjectsSealed(NamedTuple):
    """process -> node: (object_id, slab_path, offset, size) of each newly written object, and its owner."""

    entries: tuple[tuple[ObjectId, str, int, int], ...]
    owner: Address


class ObjectsFreed(NamedTuple):
    """owner -> its node -> the node where they lie: nobody can reach these any more."""

    object_ids: tuple[ObjectId, ...]
    node_id: NodeId  # b"": wherever a copy may be


class ObjectLocate(NamedTuple):
    """reader -> node: ``value`` (VALUE_STORED) can't be read where it says; restore it or fetch it here."""

    request_id: int
    object_id: ObjectId
    value: Value
    owner: Address
    urgent: bool  # a blocked get waits for it; else it may be needed soon


class ObjectLocated(NamedTuple):
    """``value`` None: this node hasn't got it and can't get it."""

    request_id: int
    value: Value


class PullOpen(NamedTuple):
    """node -> node: I want to copy that object from you. Answered by PullAccepted, PullRedirected or PullRefused."""

    object_id: ObjectId
    avoid: tuple[NodeId, ...]  # nodes that did not serve: if all others are busy too, take me in spite of it
    place: Value  # the object's value: its node may not have heard of the object yet, but can look there


class PullAccepted(NamedTuple):
    """Ask for chunks now. The same ``stamp`` means the same bytes, wherever they come from."""

    object_id: ObjectId
    size: int
    stamp: int
    holders: tuple[Address, ...]  # nodes that have it whole, as far as the asked one knows


class PullRedirected(NamedTuple):
    """Enough others are being served: take it from one of these, best first."""

    object_id: ObjectId
    holders: tuple[Address, ...]


class PullRefused(NamedTuple):
    """It is not here, or not any more. Also in answer to ChunkWanted."""

    object_id: ObjectId
    reason: str


class ChunkWanted(NamedTuple):
    """Each one asked for and not yet answered is one credit used."""

    object_id: ObjectId
    offset: int
    length: int


class Chunk(NamedTuple):
    object_id: ObjectId
    stamp: int
    offset: int
    data: Payload


class PullClosed(NamedTuple):
    """The puller needs no more of it. ``complete``: it has the whole object and can serve others."""

    object_id: ObjectId
    complete: bool


class ObjectCopied(NamedTuple):
    """node -> owner: a copy lies here now (``value`` says where). An owner that has freed the object answers with
    CopiesFreed."""

    object_id: ObjectId
    value: Value


class CopiesFreed(NamedTuple):
    """owner -> node: drop these copies, if they are still there."""

    object_ids: tuple[ObjectId, ...]


class ObjectsClaimed(NamedTuple):
    """new owner -> its node -> the node where they lie: taken over from an owner that died, they end with ``owner``."""

    object_ids: tuple[ObjectId, ...]
    node_id: NodeId
    owner: Address


class CopyPromoted(NamedTuple):
    """owner -> node: what this object was copied from is lost: your copy is the one to keep."""

    object_id: ObjectId


# -- any process <-> GCS ----------------------------------------------------------------------------------------------
class KvPut(NamedTuple):
    request_id: int
    namespace: str
    key: bytes
    value: Payload
    overwrite: bool


class KvGet(NamedTuple):
    request_id: int
    namespace: str
    key: bytes


class KvDelete(NamedTuple):
    request_id: int
    namespace: str
    key: bytes


class KvKeys(NamedTuple):
    request_id: int
    namespace: str
    prefix: bytes


class KvReply(NamedTuple):
    """``found``: the key was there (before, for puts and deletes)."""

    request_id: int
    found: bool
    value: Payload
    keys: tuple[bytes, ...]


NOT_MADE_AGAIN = {
    b"a": "it was made by an actor's method, which is not called again for others, and is no small value that could be "
    "kept",
    b"g": "it was made by a generator, which is not run again for others, and is no small value that could be kept",
    b"l": "the arguments of the task that made it are too large to be kept, and went with its owner",
    b"p": "it was made by put() and lay in shared memory, which ended with its owner; have a task return what is to "
    "outlive the process that makes it",
    b"r": "it was made by put() and holds references, which ended with its owner",
}
"""Why an object can't be made again when its owner is dead, by the byte that stands for its recipe."""


class LineageKept(NamedTuple):
    """owner -> GCS, batched: how objects can be made again that others refer to; and which of them are freed.

    The payload of a row is a recipe, or one byte of NOT_MADE_AGAIN.
    """

    job_id: JobId
    rows: tuple[tuple[ObjectId, Payload], ...]
    dropped: tuple[ObjectId, ...]


class LineageFind(NamedTuple):
    """borrower -> GCS: the owner ``dead`` is gone; ``who`` would take the object over. Answered by LineageFound."""

    request_id: int
    object_id: ObjectId
    who: Address
    dead: ProcessId


class LineageFound(NamedTuple):
    """``owner``: who owns it now; with a payload it is whoever asked; NOWHERE: nobody can, for that reason."""

    request_id: int
    owner: Address
    payload: Payload
    reason: str


class JobStarted(NamedTuple):
    """driver -> GCS; answered by Done."""

    request_id: int
    job_id: JobId
    driver: Address
    namespace: str
    entrypoint: str


class JobEnded(NamedTuple):
    """driver's node -> GCS (answered by Done), and GCS -> every node: its tasks, actors and objects go."""

    job_id: JobId
    reason: str
    request_id: int = 0


class Join(NamedTuple):
    """node -> GCS, dialled by host, port and key alone: who are you, and whom do you admit? Answered by Welcome."""

    request_id: int


class Welcome(NamedTuple):
    request_id: int
    gcs: Address
    keys: tuple[tuple[Any, ...], ...]  # the rows of the register: ``transport/drivers/keys.Key``


class KeysAllowed(NamedTuple):
    """GCS -> nodes: whom the cluster admits from now on."""

    keys: tuple[tuple[Any, ...], ...]


class KeysChanged(NamedTuple):
    """The register was written: look at it. node -> its processes; the command line -> GCS, answered by Done."""

    request_id: int


class Hosted(NamedTuple):
    """An incarnation of an actor, and where it lives; NOWHERE while it is being made."""

    actor_id: ActorId
    incarnation: int
    worker: Address


class Holdings(NamedTuple):
    """What a node has when it registers: nothing when it begins, much when the GCS does."""

    actors: tuple[Hosted, ...]
    processes: tuple[ProcessId, ...]  # its workers and drivers
    groups: tuple[tuple[GroupId, tuple[int, ...]], ...]  # that have bundles there, and which


NO_HOLDINGS = Holdings((), (), ())


class NodeRegister(NamedTuple):
    """node -> GCS; answered by NodeRegistered. Again whenever one of the two has begun anew."""

    request_id: int
    address: Address
    epoch: int
    total: Resources
    labels: dict[str, str]
    hostname: str
    os_pid: int
    host_id: str = ""  # processes with the same one see each other's pids and shared memory
    holds: Holdings = NO_HOLDINGS


class NodeRegistered(NamedTuple):
    request_id: int
    nodes: tuple[NodeView, ...]


class NodeView(NamedTuple):
    address: Address
    epoch: int
    alive: bool
    total: Resources
    available: Resources
    labels: dict[str, str]
    hostname: str
    os_pid: int
    waiting: tuple[tuple[str, int], ...]  # reasons of what waits there, with counts
    death: str
    drain: str = ""  # why it is leaving, or has left
    drained: bool = False  # it has left with nothing remaining on it

    @property
    def state(self) -> str:
        """ALIVE, DRAINING (it takes no work any more), DRAINED or DEAD."""
        if self.alive:
            return "DRAINING" if self.drain else "ALIVE"
        return "DRAINED" if self.drained else "DEAD"

    def takes_work(self) -> bool:
        return self.alive and not self.drain


class DrainNode(NamedTuple):
    """somebody -> GCS: have that node leave, within so many seconds; answered by Done once it has been told."""

    request_id: int
    node_id: NodeId
    deadline_s: float
    reason: str


class MustDrain(NamedTuple):
    """GCS -> node: leave."""

    deadline_s: float
    reason: str


class NodeDrains(NamedTuple):
    """node -> GCS: it is leaving, and is to be given nothing to do any more. Said again until answered by Done."""

    epoch: int
    deadline_s: float
    reason: str
    request_id: int = 0


class NodeDrained(NamedTuple):
    """node -> GCS: it ends now. ``is_empty``: with nothing remaining on it. Said again until answered by Done."""

    epoch: int
    is_empty: bool
    text: str
    request_id: int = 0


class LeaveNode(NamedTuple):
    """node -> worker: start no call any more. An actor's saves its state if it is kept, and ends for another node."""

    reason: str


class WorkerMoves(NamedTuple):
    """worker -> node: as told to, it ends; its actor goes on elsewhere. Answered by Done, for which it waits.

    ``is_apart``: its last checkpoint lies in files of this node, which must stay until the next incarnation has them.
    """

    request_id: int
    reason: str
    is_apart: bool


class CheckpointTaken(NamedTuple):
    """worker -> node: what it began from lies on its own node now; yours is not needed any more."""

    actor_id: ActorId


class StoredRead(NamedTuple):
    """worker -> node: a part of a file of the node's own checkpoint store; answered by StoredPart."""

    request_id: int
    name: str
    offset: int


class StoredPart(NamedTuple):
    request_id: int
    size: int  # of the whole file; -1: it is not there
    data: Payload


class ObjectsLeave(NamedTuple):
    """node that drains -> nodes -> owners: these of yours lie here and must be kept elsewhere."""

    node: Address  # the one that drains
    objects: tuple[tuple[ProcessId, tuple[ObjectId, ...]], ...]  # by owner


class ObjectKeep(NamedTuple):
    """owner -> its node: copy this object, wherever it lies; answered by ObjectLocated (``value`` None: it failed)."""

    request_id: int
    object_id: ObjectId
    value: Value
    owner: Address


class CopyDemoted(NamedTuple):
    """owner -> node: another node keeps this object now; yours is a copy that may be dropped."""

    object_id: ObjectId


class Heartbeat(NamedTuple):
    """node -> GCS, every limits.heartbeat_period_s; answered by HeartbeatSeen."""

    epoch: int


class HeartbeatSeen(NamedTuple):
    boot: int


class GcsStarted(NamedTuple):
    """GCS -> nodes that it knows from before, node -> its processes: it has begun its life number ``boot``. Dial it
    again, say again what is not answered yet, subscribe again."""

    boot: int


class NodeReport(NamedTuple):
    """node -> GCS, batched: at most once in ``pace.report_period_s`` while something changed."""

    epoch: int
    available: Resources
    waiting: tuple[tuple[str, int], ...]


class NodesChanged(NamedTuple):
    """GCS -> nodes: the views of those that came or were lost."""

    nodes: tuple[NodeView, ...]


class NodesFree(NamedTuple):
    """GCS -> nodes: what those of which a view is known have free now. See ``gcs/news.py``."""

    nodes: tuple[tuple[NodeId, Resources], ...]


class NodesList(NamedTuple):
    """-> GCS; answered by NodeRegistered."""

    request_id: int


class ActorSpec(NamedTuple):
    """All that is needed to make an actor, again and again. Opaque payloads stay opaque in the GCS."""

    actor_id: ActorId
    job_id: JobId
    owner: Address
    class_id: bytes  # KV key of the pickled class
    class_name: str
    name: str  # "" for none
    namespace: str
    detached: bool
    args: Payload  # pickled (args, kwargs) as in Call
    dependencies: tuple[Any, ...]  # resolved, as in Call
    methods: tuple[Any, ...]  # what a handle must know: ((name, options dict), ...)
    max_restarts: int
    max_task_retries: int
    max_concurrency: int
    concurrency_groups: dict[str, int]
    resources_to_place: Resources
    resources_to_run: Resources
    strategy: tuple[Any, ...]
    runtime_env: str
    checkpoint: dict[str, Any] | None
    extra: dict[str, Any] | None


class ActorRegister(NamedTuple):
    """creator -> GCS. Answered by ActorRegistered once it is durable; placing goes on after that."""

    request_id: int
    spec: ActorSpec
    get_if_exists: bool


class ActorRegistered(NamedTuple):
    """``spec`` is that of the existing actor when ``existed``."""

    request_id: int
    existed: bool
    spec: ActorSpec


class ActorSubscribe(NamedTuple):
    """process -> GCS: tell me of this actor, now and whenever it changes."""

    actor_id: ActorId


class ActorUpdate(NamedTuple):
    """GCS -> subscribers. ``state``: PENDING, ALIVE, RESTARTING, DEAD. ``error`` is a VALUE_ERROR of the constructor's
    exception, or of what it failed with, or None."""

    actor_id: ActorId
    incarnation: int
    state: str
    worker: Address
    reason: str
    death: Death | None
    error: Value
    restarts_left: int  # -1 infinite
    end: str = ""  # of one that is DEAD: an ``ActorEnd``
    moved: bool = False  # the incarnation before this one left in good order: what it has not answered never began


class ActorEnd:
    """How an actor ended. After an end that is not normal those that are linked with it end, too."""

    EXITED = "exited"  # exit_actor(), or a drain
    RELEASED = "released"  # no handle was left
    KILLED = "killed"  # kill(handle)
    CRASHED = "crashed"  # its process died, and it may not start again
    FAILED = "failed"  # its constructor raised, or it gave up
    UNPLACEABLE = "unplaceable"
    OWNERLESS = "ownerless"  # its owner or its job is gone
    LINKED = "linked"  # one that it was linked with ended so
    NORMAL = (EXITED, RELEASED)
    LOOKED_INTO = (CRASHED, FAILED)  # what it did last may still be asked for


class ActorLink(NamedTuple):
    """-> GCS; answered by Done or Failure (ValueError). An end of one that is not normal is the end of the other."""

    request_id: int
    first: ActorId
    second: ActorId


class ActorLinks(NamedTuple):
    """Part of an actor's record in the GCS: those that it is linked with."""

    others: tuple[ActorId, ...]


class ActorGivesUp(NamedTuple):
    """worker -> GCS; answered by Done. The actor fails for good, with ``error`` (a VALUE_ERROR) for all who call it."""

    request_id: int
    actor_id: ActorId
    incarnation: int
    reason: str
    error: Value


class ActorFind(NamedTuple):
    """-> GCS; answered by ActorRegistered or Failure (kind ValueError)."""

    request_id: int
    name: str
    namespace: str


class ActorList(NamedTuple):
    """-> GCS; answered by ActorNames. ``namespace`` "" lists all."""

    request_id: int
    namespace: str


class ActorNames(NamedTuple):
    request_id: int
    names: tuple[tuple[str, str], ...]  # (namespace, name)


class ActorKill(NamedTuple):
    """-> GCS: end it now. ``no_restart`` False: as if its worker had crashed. Answered by Done."""

    request_id: int
    actor_id: ActorId
    no_restart: bool
    reason: str = ""  # in place of the usual one
    incarnation: int = -1  # only this one is meant; -1: whichever there is


class ActorReleased(NamedTuple):
    """owner -> GCS: the last handle is gone; the actor ends when its queue is drained. Answered by Done."""

    actor_id: ActorId
    request_id: int = 0


class StartActor(NamedTuple):
    """GCS -> node: lease a worker and create it there. Idempotent by (actor_id, incarnation)."""

    spec: ActorSpec
    incarnation: int
    hops: int


class CreateActor(NamedTuple):
    """node -> worker: become this actor."""

    lease_id: LeaseId
    spec: ActorSpec
    incarnation: int
    accelerators: dict[str, tuple[int, ...]]
    gcs: Address


class ActorCreated(NamedTuple):
    """worker -> node -> GCS: the constructor returned."""

    actor_id: ActorId
    incarnation: int
    worker: Address


class ActorFailed(NamedTuple):
    """-> GCS: it can't be created: the constructor raised (``error``), or nothing can host it (``reason``)."""

    actor_id: ActorId
    incarnation: int
    reason: str
    error: Value
    request_id: int = 0  # a node's, which says it again until it is answered by Done


class ActorWaits(NamedTuple):
    """node -> GCS: why it isn't placed yet."""

    actor_id: ActorId
    reason: str
    infeasible: bool


class ActorSpilled(NamedTuple):
    """node -> GCS: place it on that node instead."""

    actor_id: ActorId
    incarnation: int
    node: Address
    hops: int


class ActorExited(NamedTuple):
    """node -> GCS: its worker is gone. ``intended``: exit_actor, or stopped on the GCS's order."""

    actor_id: ActorId
    incarnation: int
    intended: bool
    death: Death
    request_id: int = 0  # as in ActorFailed
    moved: bool = False  # it has left a node that drains, by no fault of its own


class StopActor(NamedTuple):
    """GCS -> node: ``kill`` at once, or drain its queue first and then exit."""

    actor_id: ActorId
    incarnation: int
    kill: bool
    reason: str


class DrainAndExit(NamedTuple):
    """node -> worker: no handle is left; run what is queued, then exit."""

    reason: str


class CheckpointPut(NamedTuple):
    """worker -> GCS; answered by Done when durable. Fenced by incarnation."""

    request_id: int
    actor_id: ActorId
    incarnation: int
    number: int  # counts up over the actor's life
    state: Payload
    keep: int


class CheckpointGet(NamedTuple):
    """-> GCS; answered by CheckpointReply with the newest good one (``number`` -1: newest)."""

    request_id: int
    actor_id: ActorId
    number: int


class CheckpointReply(NamedTuple):
    request_id: int
    number: int  # -1: there is none
    state: Payload
    numbers: tuple[int, ...]  # all that are kept


class GroupCreate(NamedTuple):
    """-> GCS; answered by Done when the record is durable; placing goes on."""

    request_id: int
    group_id: GroupId
    job_id: JobId
    bundles: tuple[Resources, ...]
    strategy: str  # PACK, SPREAD, STRICT_PACK, STRICT_SPREAD
    name: str
    namespace: str
    detached: bool
    creator: ActorId  # the actor that made it; b"" for a driver or task
    label_selectors: tuple[dict[str, str], ...]


class GroupRemove(NamedTuple):
    """-> GCS; answered by Done."""

    request_id: int
    group_id: GroupId


class GroupFind(NamedTuple):
    """-> GCS; answered by GroupTable with one row or Failure."""

    request_id: int
    name: str
    namespace: str


class GroupList(NamedTuple):
    request_id: int


class GroupSubscribe(NamedTuple):
    group_id: GroupId


class GroupView(NamedTuple):
    group_id: GroupId
    name: str
    namespace: str
    strategy: str
    state: str  # PENDING, CREATED, REMOVED, RESCHEDULING
    bundles: tuple[Resources, ...]
    nodes: tuple[NodeId, ...]  # where each bundle lies; b"" if nowhere
    reason: str


def bundle_node(view: GroupView, index: int) -> NodeId | str:
    """Where a group's bundle lies (-1: any that lies somewhere), or the reason why it lies nowhere."""
    indexes = (index,) if 0 <= index < len(view.nodes) else range(len(view.nodes))
    reason = f"its placement group is {view.state}: {view.reason}"
    return next((view.nodes[index] for index in indexes if view.nodes[index]), reason)


class GroupTable(NamedTuple):
    request_id: int
    groups: tuple[GroupView, ...]


class GroupUpdate(NamedTuple):
    """GCS -> subscribers."""

    group: GroupView


class PrepareBundles(NamedTuple):
    """GCS -> node, first phase: set the resources aside. Answered by BundlesPrepared."""

    request_id: int
    group_id: GroupId
    attempt: int
    bundles: tuple[tuple[int, Resources], ...]


class BundlesPrepared(NamedTuple):
    request_id: int
    group_id: GroupId
    attempt: int
    ok: bool
    reason: str


class CommitBundles(NamedTuple):
    """GCS -> node, second phase: they may be used. Answered by Done."""

    request_id: int
    group_id: GroupId
    attempt: int


class ReleaseBundles(NamedTuple):
    """GCS -> node: give them back; whatever runs in them is killed. Answered by Done."""

    request_id: int
    group_id: GroupId
    bundles: tuple[int, ...]  # none: all of them, since the group was removed


class TaskEvents(NamedTuple):
    """process -> GCS, batched and bounded: (task_id, name, state, end_time_s (of the clock), worker process id,
    error text, duration_us)."""

    rows: tuple[tuple[Any, ...], ...]
    dropped: int


class ObjectEvents(NamedTuple):
    """node -> GCS, batched and bounded: (object id, state, bytes, process id of the owner) of what has changed."""

    rows: tuple[tuple[Any, ...], ...]


class StateQuery(NamedTuple):
    """-> GCS; ``table`` one of nodes, jobs, actors, groups, tasks, objects, lineage. Answered by StateRows."""

    request_id: int
    table: str
    limit: int


class StateRows(NamedTuple):
    request_id: int
    rows: tuple[dict[str, Any], ...]
    truncated: int


class NodeStatus(NamedTuple):
    """-> node: what runs and waits here; answered by NodeStatusReply."""

    request_id: int


class NodeStatusReply(NamedTuple):
    request_id: int
    status: dict[str, Any]


class ShutdownNode(NamedTuple):
    """driver or GCS -> node."""

    reason: str


class CallsSettled(NamedTuple):
    """caller -> durable actor's worker: ``caller`` has the replies up to ``sequence``; they need not be kept."""

    actor_id: ActorId
    caller: bytes  # a process id, or the voice of a durable actor
    sequence: int


class CallerSeen(NamedTuple):
    """caller -> durable actor's new worker, first of all: the last call whose reply ``caller`` has seen."""

    actor_id: ActorId
    caller: bytes
    sequence: int


class ActorUpgrade(NamedTuple):
    """worker of a durable actor -> GCS: its next incarnation is of another class. Answered by Done, once durable."""

    request_id: int
    actor_id: ActorId
    incarnation: int
    class_id: bytes
    class_name: str
    methods: tuple[Any, ...]


class LogAppend(NamedTuple):
    """worker of a durable actor -> another node: a batch of its call log, to be kept. Answered by LogAppended."""

    actor_id: ActorId
    incarnation: int
    number: int
    begins: bool  # what was kept before goes
    data: Payload


class LogAppended(NamedTuple):
    """It is on the disk."""

    actor_id: ActorId
    number: int


class LogRefused(NamedTuple):
    """A newer incarnation lives: this one must end."""

    actor_id: ActorId
    incarnation: int


class LogNotKept(NamedTuple):
    """The batch could not be written."""

    actor_id: ActorId
    reason: str


class LogFetch(NamedTuple):
    """new incarnation -> node: the copy that you have; older incarnations are refused from now on."""

    request_id: int
    actor_id: ActorId
    incarnation: int


class LogCopy(NamedTuple):
    request_id: int
    data: Payload  # b"": there is none


class LogsHeld(NamedTuple):
    """node -> GCS, when it registers: actors of which its disk has something. Answered by LogForget for each that is
    gone: it may have ended while the node was away."""

    actor_ids: tuple[ActorId, ...]


class LogForget(NamedTuple):
    """GCS -> node: the actor has ended for good. ``checkpoints``: those that lie in files as well."""

    actor_id: ActorId
    checkpoints: bool = False


class Direction(enum.Enum):
    """Who sends it to whom."""

    ANY = "any process to any"
    PROCESS_TO_NODE = "driver or worker to its node"
    NODE_TO_PROCESS = "node to a driver or worker"
    CALLER_TO_WORKER = "caller to worker"
    WORKER_TO_CALLER = "worker to caller"
    BORROWER_TO_OWNER = "borrower to owner"
    OWNER_TO_BORROWER = "owner to borrower"
    TO_GCS = "any process to the GCS"
    FROM_GCS = "the GCS to whoever asked or subscribed"
    GCS_TO_NODE = "the GCS to a node"
    NODE_TO_NODE = "node to node"


_D = Direction
TABLE: tuple[tuple[int, type, Direction], ...] = (
    (1, Hello, _D.ANY),
    (2, Goodbye, _D.ANY),
    (3, Failure, _D.ANY),
    (4, Done, _D.ANY),
    (186, Refused, _D.ANY),
    (10, WorkerReady, _D.PROCESS_TO_NODE),
    (11, WorkerBlocked, _D.PROCESS_TO_NODE),
    (12, WorkerUnblocked, _D.PROCESS_TO_NODE),
    (13, WorkerExiting, _D.PROCESS_TO_NODE),
    (14, StopWorker, _D.NODE_TO_PROCESS),
    (15, KillProcess, _D.PROCESS_TO_NODE),
    (16, Watch, _D.PROCESS_TO_NODE),
    (17, Unwatch, _D.PROCESS_TO_NODE),
    (18, ProcessDied, _D.NODE_TO_PROCESS),
    (19, LogLines, _D.NODE_TO_PROCESS),
    (30, LeaseRequest, _D.PROCESS_TO_NODE),
    (31, LeaseGranted, _D.NODE_TO_PROCESS),
    (32, LeaseSpilled, _D.NODE_TO_PROCESS),
    (33, LeaseWaits, _D.NODE_TO_PROCESS),
    (34, LeaseRefused, _D.NODE_TO_PROCESS),
    (35, LeaseCancelled, _D.PROCESS_TO_NODE),
    (36, LeaseReturned, _D.PROCESS_TO_NODE),
    (37, LeaseRecalled, _D.NODE_TO_PROCESS),
    (38, LeaseLost, _D.NODE_TO_PROCESS),
    (50, RunTasks, _D.CALLER_TO_WORKER),
    (51, RunActorCalls, _D.CALLER_TO_WORKER),
    (52, CallResults, _D.WORKER_TO_CALLER),
    (53, CallsReturned, _D.WORKER_TO_CALLER),
    (54, ActorCallsRefused, _D.WORKER_TO_CALLER),
    (55, GiveBackCalls, _D.CALLER_TO_WORKER),
    (56, CancelCall, _D.CALLER_TO_WORKER),
    (57, GeneratorItem, _D.WORKER_TO_CALLER),
    (58, GeneratorConsumed, _D.CALLER_TO_WORKER),
    (59, DebugPing, _D.ANY),
    (61, WaitProbe, _D.ANY),
    (60, DebugPong, _D.ANY),
    (70, ObjectWanted, _D.BORROWER_TO_OWNER),
    (71, ObjectReady, _D.OWNER_TO_BORROWER),
    (72, BorrowAdded, _D.BORROWER_TO_OWNER),
    (73, BorrowReleased, _D.BORROWER_TO_OWNER),
    (74, ObjectMissing, _D.BORROWER_TO_OWNER),
    (75, ObjectCopied, _D.NODE_TO_PROCESS),
    (76, CopiesFreed, _D.PROCESS_TO_NODE),
    (77, CopyPromoted, _D.PROCESS_TO_NODE),
    (81, ObjectsClaimed, _D.PROCESS_TO_NODE),
    (78, LineageKept, _D.TO_GCS),
    (79, LineageFind, _D.TO_GCS),
    (80, LineageFound, _D.FROM_GCS),
    (90, SlabRequest, _D.PROCESS_TO_NODE),
    (91, SlabGranted, _D.NODE_TO_PROCESS),
    (92, SlabReturned, _D.PROCESS_TO_NODE),
    (93, ObjectsSealed, _D.PROCESS_TO_NODE),
    (94, ObjectsFreed, _D.PROCESS_TO_NODE),
    (95, ObjectLocate, _D.PROCESS_TO_NODE),
    (96, ObjectLocated, _D.NODE_TO_PROCESS),
    (99, PullOpen, _D.NODE_TO_NODE),
    (100, PullAccepted, _D.NODE_TO_NODE),
    (101, PullRedirected, _D.NODE_TO_NODE),
    (102, PullRefused, _D.NODE_TO_NODE),
    (103, ChunkWanted, _D.NODE_TO_NODE),
    (104, Chunk, _D.NODE_TO_NODE),
    (105, PullClosed, _D.NODE_TO_NODE),
    (110, KvPut, _D.TO_GCS),
    (111, KvGet, _D.TO_GCS),
    (112, KvDelete, _D.TO_GCS),
    (113, KvKeys, _D.TO_GCS),
    (114, KvReply, _D.FROM_GCS),
    (115, JobStarted, _D.TO_GCS),
    (116, JobEnded, _D.ANY),
    (117, NodeRegister, _D.TO_GCS),
    (118, NodeRegistered, _D.FROM_GCS),
    (119, NodeReport, _D.TO_GCS),
    (120, NodesChanged, _D.FROM_GCS),
    (210, NodesFree, _D.FROM_GCS),
    (121, NodesList, _D.TO_GCS),
    (122, Heartbeat, _D.TO_GCS),
    (123, HeartbeatSeen, _D.FROM_GCS),
    (124, GcsStarted, _D.ANY),
    (187, Join, _D.TO_GCS),
    (188, Welcome, _D.FROM_GCS),
    (189, KeysAllowed, _D.GCS_TO_NODE),
    (190, KeysChanged, _D.ANY),
    (130, ActorRegister, _D.TO_GCS),
    (131, ActorRegistered, _D.FROM_GCS),
    (132, ActorSubscribe, _D.TO_GCS),
    (133, ActorUpdate, _D.FROM_GCS),
    (134, ActorFind, _D.TO_GCS),
    (135, ActorList, _D.TO_GCS),
    (136, ActorNames, _D.FROM_GCS),
    (137, ActorKill, _D.TO_GCS),
    (138, ActorReleased, _D.TO_GCS),
    (139, StartActor, _D.GCS_TO_NODE),
    (140, CreateActor, _D.NODE_TO_PROCESS),
    (141, ActorCreated, _D.TO_GCS),
    (142, ActorFailed, _D.TO_GCS),
    (143, ActorWaits, _D.TO_GCS),
    (144, ActorSpilled, _D.TO_GCS),
    (145, ActorExited, _D.TO_GCS),
    (146, StopActor, _D.GCS_TO_NODE),
    (147, DrainAndExit, _D.NODE_TO_PROCESS),
    (220, ActorLink, _D.TO_GCS),
    (221, ActorLinks, _D.TO_GCS),
    (222, ActorGivesUp, _D.TO_GCS),
    (150, CheckpointPut, _D.TO_GCS),
    (151, CheckpointGet, _D.TO_GCS),
    (152, CheckpointReply, _D.FROM_GCS),
    (160, GroupCreate, _D.TO_GCS),
    (161, GroupRemove, _D.TO_GCS),
    (162, GroupFind, _D.TO_GCS),
    (163, GroupList, _D.TO_GCS),
    (164, GroupSubscribe, _D.TO_GCS),
    (165, GroupTable, _D.FROM_GCS),
    (166, GroupUpdate, _D.FROM_GCS),
    (167, PrepareBundles, _D.GCS_TO_NODE),
    (168, BundlesPrepared, _D.TO_GCS),
    (169, CommitBundles, _D.GCS_TO_NODE),
    (170, ReleaseBundles, _D.GCS_TO_NODE),
    (180, TaskEvents, _D.TO_GCS),
    (20, ObjectEvents, _D.TO_GCS),
    (181, StateQuery, _D.TO_GCS),
    (182, StateRows, _D.FROM_GCS),
    (183, NodeStatus, _D.PROCESS_TO_NODE),
    (184, NodeStatusReply, _D.NODE_TO_PROCESS),
    (185, ShutdownNode, _D.ANY),
    (215, DrainNode, _D.TO_GCS),
    (226, MustDrain, _D.GCS_TO_NODE),
    (216, NodeDrains, _D.TO_GCS),
    (217, LeaveNode, _D.NODE_TO_PROCESS),
    (218, WorkerMoves, _D.PROCESS_TO_NODE),
    (219, ObjectsLeave, _D.ANY),
    (223, ObjectKeep, _D.PROCESS_TO_NODE),
    (224, CopyDemoted, _D.PROCESS_TO_NODE),
    (225, NodeDrained, _D.TO_GCS),
    (227, CheckpointTaken, _D.ANY),
    (228, StoredRead, _D.ANY),
    (229, StoredPart, _D.ANY),
    (200, CallsSettled, _D.CALLER_TO_WORKER),
    (201, CallerSeen, _D.CALLER_TO_WORKER),
    (202, ActorUpgrade, _D.TO_GCS),
    (203, LogAppend, _D.ANY),
    (204, LogAppended, _D.ANY),
    (205, LogRefused, _D.ANY),
    (206, LogNotKept, _D.ANY),
    (207, LogFetch, _D.ANY),
    (208, LogCopy, _D.ANY),
    (209, LogForget, _D.ANY),
    (240, LogsHeld, _D.TO_GCS),
)
