"""A cluster of thousands of nodes in one process: real cores of scheduler and GCS, virtual workers whose tasks last.

Real: each node's ``LeaseTable`` and ``Pool``, the policies, the GCS's ``Nodes``, its ``FailureDetector``. Modelled: the
network (a fixed latency), workers (a task is a duration), submitters (a queue of tasks for each shape, leases that are
asked for and given back as the real submitter does), moving an argument's bytes (at a fixed bandwidth). All nodes share
one table of views, as they were told by the GCS; each has its own, live, of itself.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from actorlib.gcs.nodes import Nodes
from actorlib.scheduler.lease import LeaseTable
from actorlib.scheduler.resources import Pool
from actorlib.transport import limits, messages, pace
from actorlib.transport.failure_detector import FailureDetector, PeerState
from actorlib.transport.ids import JobId, LeaseId, NodeId, ProcessId
from actorlib.transport.link import Address
from actorlib.transport.messages import NodeView

LATENCY_S = 0.0002
START_WORKER_S = 0.004
BANDWIDTH_BYTES_PER_S = 1 << 30
CPUS = 4
DEMAND = {"CPU": 10_000}
MESSAGES_KEPT = 8  # of those that tell a node of others
SUSPECT_AFTER_S, LOST_AFTER_S = 2.0, 5.0


@dataclass(slots=True)
class Peer:
    """What the GCS knows as a link."""

    peer: Address


@dataclass(slots=True, eq=False)
class Task:
    """``near``: where its argument lies; ``tries``: how often its node vanished under it."""

    duration_s: float
    submitted_at: float
    near: NodeId | None = None
    argument_bytes: int = 0
    tries: int = 0


class Clock:
    """Events in order of time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay_s, next(self._numbers), callback))

    def run_until(self, end_s: float) -> None:
        while self._heap and self._heap[0][0] <= end_s:
            self.now, _, callback = heapq.heappop(self._heap)
            self.events += 1
            callback()
        self.now = end_s


class Node:
    """One machine: a real lease table over virtual workers."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster = cluster
        name = number.to_bytes(8, "big")
        self.address = Address(ProcessId(name), NodeId(name), f"sim://{number}")
        self.node_id = self.address.node_id
        self.is_alive = True
        self.total = {"CPU": CPUS * 10_000}
        self.pool = Pool(self.total)
        self.table = LeaseTable(self.node_id, self.pool, self)
        self.told: dict[str, int] = dict(self.total)
        self.running: dict[LeaseId, tuple[Driver, Task]] = {}
        self._ahead: dict[NodeId, int] = {}  # CPU sent to others since their views came
        self._told_of: deque[Sequence[NodeId]] = deque(maxlen=MESSAGES_KEPT)
        self._leases = itertools.count(1)

    # -- what the lease table asks of its node -------------------------------------------------------------------------
    def new_lease_id(self) -> LeaseId:
        return LeaseId(self.node_id + next(self._leases).to_bytes(8, "big"))

    def find_worker(self, request: Any) -> None:
        self.cluster.clock.after(START_WORKER_S, lambda: self._found(request))

    def _found(self, request: Any) -> None:
        if self.is_alive:
            worker = Address(ProcessId(request.lease_id), self.node_id, self.address.endpoint)
            self.table.worker_found(request, worker)

    def views(self) -> Sequence[NodeView]:
        shared, at = self.cluster.views, self.cluster.place[self.node_id]
        views = [self._own_view(), *shared[:at], *shared[at + 1 :]]
        for node_id in self._ahead:
            place = self.cluster.place[node_id]
            views[place + 1 if place < at else place] = self._seen(node_id)
        return views

    def view(self, node_id: NodeId) -> NodeView | None:
        return self._own_view() if node_id == self.node_id else self._seen(node_id)

    def recent_views(self) -> Sequence[NodeView]:
        if len(self.cluster.views) <= limits.views_in_message_max:
            return self.views()
        return [self._own_view(), *(self._seen(node_id) for node_id in self._recent() if node_id != self.node_id)]

    def _own_view(self) -> NodeView:
        return self.cluster.view_of(self.node_id)._replace(available=self.pool.visible())

    def _seen(self, node_id: NodeId) -> NodeView:
        """Another node as it was told of, less what was sent to it since."""
        view, units = self.cluster.view_of(node_id), self._ahead.get(node_id, 0)
        if not units:
            return view
        return view._replace(available={"CPU": max(0, view.available.get("CPU", 0) - units)})

    def heard(self, told: Sequence[NodeId]) -> None:
        """The GCS has told it of these. Who was told of is kept; the views themselves are shared by all nodes."""
        self._told_of.appendleft(told)

    def _recent(self) -> Iterable[NodeId]:
        """Those of which it has heard last."""
        told = itertools.chain.from_iterable(self._told_of)
        return dict.fromkeys(itertools.islice(told, limits.views_in_message_max))

    def spilled(self, node_id: NodeId, demand: Any) -> None:
        self._ahead[node_id] = self._ahead.get(node_id, 0) + demand["CPU"]

    def group_node(self, group_id: Any, index: int) -> None:
        return None

    def recall(self, holder: ProcessId, lease_id: LeaseId) -> None:
        self.cluster.count("LeaseRecalled")
        self.cluster.clock.after(LATENCY_S, lambda: self.cluster.drivers[holder].recalled(lease_id))

    # -- to the GCS ----------------------------------------------------------------------------------------------------
    def beat(self) -> None:
        if self.is_alive:
            self.cluster.count("Heartbeat")
            self.cluster.detector.heard(self.cluster.clock.now, self.node_id, 1)
            self.cluster.clock.after(limits.heartbeat_period_s, self.beat)

    def look(self) -> None:
        """Say what is free where that has changed, and try again what waits."""
        if not self.is_alive:
            return
        self._ahead.clear()
        free = self.pool.visible()
        if free != self.told:
            self.told = free
            self.cluster.count("NodeReport")
            self.cluster.gcs.report(Peer(self.address), messages.NodeReport(1, free, ()))  # type: ignore[arg-type]
        if self.table.has_waiting():
            self.table.recheck(self.cluster.clock.now)
        self.cluster.clock.after(pace.report_period_s(self.cluster.count_of_nodes), self.look)


class Queue:
    """Tasks of one shape at one driver."""

    __slots__ = ("asked", "near", "ready")

    def __init__(self, near: NodeId | None) -> None:
        self.near = near
        self.ready: deque[Task] = deque()
        self.asked = 0


class Driver:
    """Whoever submits: as much of a submitter as leases need."""

    def __init__(self, cluster: Cluster, node: Node, aware: bool) -> None:
        self.cluster = cluster
        self.node = node
        self.aware = aware
        self.process_id = ProcessId(b"driver" + node.node_id)
        self.queues: dict[NodeId | None, Queue] = {}
        self._requests = itertools.count(1)
        self._open: dict[int, tuple[Node, Queue]] = {}  # requests without an answer
        self._recalled: set[LeaseId] = set()

    def submit(self, task: Task) -> None:
        near = task.near if self.aware else None
        queue = self.queues.setdefault(near, Queue(near))
        queue.ready.append(task)
        self._ask(queue)

    def _ask(self, queue: Queue) -> None:
        while queue.asked < min(limits.lease_requests_in_flight_max, len(queue.ready)):
            queue.asked += 1
            self._send(self.node, queue, queue.ready[0], 0)

    def _send(self, to: Node, queue: Queue, task: Task, hops: int) -> None:
        locality = ((queue.near, task.argument_bytes),) if queue.near is not None else ()
        request = messages.LeaseRequest(
            next(self._requests), JobId(b"job"), DEMAND, ("default",), "", 0, 0, len(queue.ready), locality, hops, ""
        )
        self.cluster.count("LeaseRequest")
        number = request.request_id
        self._open[number] = (to, queue)

        def answered(answer: Any) -> None:
            self.cluster.count(type(answer).__name__)
            if not isinstance(answer, messages.LeaseWaits):
                self.cluster.clock.after(LATENCY_S, lambda: self._answered(to, number, task, hops, answer))

        def arrive() -> None:
            if to.is_alive:
                to.table.request(self.cluster.clock.now, self.process_id, request, answered)
            elif not self.cluster.gcs.is_alive(to.node_id):
                self.node_lost(to)

        self.cluster.clock.after(LATENCY_S, arrive)

    def node_lost(self, node: Node) -> None:
        """What was asked there is asked again."""
        for number in [number for number, (where, _) in self._open.items() if where is node]:
            _, queue = self._open.pop(number)
            queue.asked -= 1
            self._ask(queue)

    def _answered(self, node: Node, number: int, task: Task, hops: int, answer: Any) -> None:
        if number not in self._open:
            return  # that node was lost meanwhile
        _, queue = self._open.pop(number)
        if isinstance(answer, messages.LeaseSpilled):
            self._send(self.cluster.nodes[answer.node.node_id], queue, task, hops + 1)
        elif isinstance(answer, messages.LeaseGranted):
            queue.asked -= 1
            if answer.brief:
                self._recalled.add(answer.lease_id)
            self._run_next(node, queue, answer.lease_id)

    def _run_next(self, node: Node, queue: Queue, lease_id: LeaseId) -> None:
        cluster = self.cluster
        if not queue.ready or not node.is_alive:
            self._give_back(node, lease_id)
            return
        task = queue.ready.popleft()
        moved = task.argument_bytes if task.near not in (None, node.node_id) else 0
        cluster.bytes_moved += moved
        cluster.count("RunTasks")
        cluster.waits_s.append(cluster.clock.now + LATENCY_S - task.submitted_at)
        node.running[lease_id] = (self, task)
        took = 2 * LATENCY_S + moved / BANDWIDTH_BYTES_PER_S + task.duration_s
        cluster.clock.after(took, lambda: self._done(node, queue, lease_id))
        self._ask(queue)

    def _done(self, node: Node, queue: Queue, lease_id: LeaseId) -> None:
        if node.running.pop(lease_id, None) is None:
            return  # its node vanished under it
        self.cluster.count("CallResults")
        self.cluster.tasks_done += 1
        if lease_id in self._recalled:
            self._give_back(node, lease_id)
            self._ask(queue)
        else:
            self._run_next(node, queue, lease_id)

    def _give_back(self, node: Node, lease_id: LeaseId) -> None:
        self._recalled.discard(lease_id)
        if node.is_alive:
            self.cluster.count("LeaseReturned")
            clock = self.cluster.clock
            clock.after(LATENCY_S, lambda: node.table.returned(clock.now, lease_id) and None)

    def recalled(self, lease_id: LeaseId) -> None:
        self._recalled.add(lease_id)


@dataclass
class Cluster:
    """All of it. Also the port of the GCS's ``Nodes``."""

    count_of_nodes: int
    drivers_every: int = 1
    aware: bool = True
    seed: int = 0
    clock: Clock = field(default_factory=Clock)
    sent: Counter[str] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)
    tasks_done: int = 0
    tasks_lost: int = 0
    bytes_moved: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.gcs = Nodes(self, lambda: None, self._lost)
        self.detector = FailureDetector(suspect_after_s=SUSPECT_AFTER_S, lost_after_s=LOST_AFTER_S)
        self.nodes: dict[NodeId, Node] = {}
        self.views: list[NodeView] = []
        self.place: dict[NodeId, int] = {}
        self.drivers: dict[ProcessId, Driver] = {}
        self._numbers = itertools.count()
        self._last_told: Any = None
        self._last_ids: tuple[NodeId, ...] = ()
        for _ in range(self.count_of_nodes):
            self.add_node()
        for node in list(self.nodes.values())[:: self.drivers_every]:
            driver = Driver(self, node, self.aware)
            self.drivers[driver.process_id] = driver
        self.permanent = {driver.node.node_id for driver in self.drivers.values()}
        self._tick()

    def count(self, kind: str, times: int = 1) -> None:
        self.sent[kind] += times

    def add_node(self) -> Node:
        node = Node(self, next(self._numbers))
        register = messages.NodeRegister(1, node.address, 1, node.total, {}, "", 0)
        self.nodes[node.node_id] = node
        self.place[node.node_id] = len(self.views)
        view = NodeView(node.address, 1, True, node.total, node.total, {}, "", 0, (), "")
        self.views.append(view)
        self.gcs.register(Peer(node.address), register)  # type: ignore[arg-type]
        self.clock.after(self.rng.random() * limits.heartbeat_period_s, node.beat)
        self.clock.after(self.rng.random() * pace.report_period_s(self.count_of_nodes), node.look)
        return node

    # -- the port of the GCS's core ------------------------------------------------------------------------------------
    def send(self, link: Any, message: Any) -> None:
        self.count(type(message).__name__)
        node = self.nodes[link.peer.node_id]
        if isinstance(message, messages.NodesFree):
            told = self._once(message, lambda: self._learn_free(message))
        elif isinstance(message, messages.NodesChanged):
            told = self._once(message, lambda: self._learn(message))
        else:
            return
        self.clock.after(LATENCY_S, lambda: node.heard(told))

    def _once(self, message: Any, learn: Callable[[], None]) -> tuple[NodeId, ...]:
        """What a message tells goes into the views that all nodes share when the first of those who get it does."""
        if message is not self._last_told:
            self._last_told = message
            rows = message.nodes
            self._last_ids = tuple(row.address.node_id if isinstance(row, NodeView) else row[0] for row in rows)
            self.clock.after(LATENCY_S, learn)
        return self._last_ids

    def _learn(self, message: messages.NodesChanged) -> None:
        for view in message.nodes:
            self.views[self.place[view.address.node_id]] = view

    def _learn_free(self, message: messages.NodesFree) -> None:
        for node_id, available in message.nodes:
            place = self.place[node_id]
            if self.views[place].alive:
                self.views[place] = self.views[place]._replace(available=available)

    def view_of(self, node_id: NodeId) -> NodeView:
        return self.views[self.place[node_id]]

    def persist(self, table: str, key: bytes, value: bytes | None) -> None:
        """Who is there is written down; nothing is read back, since the GCS does not begin anew here."""

    def to_node(self, node_id: NodeId, message: Any) -> bool:
        return self.nodes[node_id].is_alive

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.clock.after(delay_s, callback)

    def _tick(self) -> None:
        for change in self.detector.tick(self.clock.now):
            if change.new is PeerState.LOST:
                self.gcs.lost(NodeId(change.peer), "silence")
        self.clock.after(limits.heartbeat_period_s, self._tick)

    # -- churn ---------------------------------------------------------------------------------------------------------
    def vanish(self) -> None:
        """A node that has no driver goes away without a word; another one comes."""
        there = [node for node in self.nodes.values() if node.is_alive and node.node_id not in self.permanent]
        if there:
            self.rng.choice(there).is_alive = False
            self.add_node()

    def _lost(self, node_id: NodeId, reason: str, _planned: bool) -> None:
        """The GCS has noticed: what ran or waited there is to be done again."""
        node = self.nodes[node_id]
        running, node.running = node.running, {}
        for driver, task in running.values():
            self.tasks_lost += 1
            task.tries += 1
            driver.submit(task)
        for driver in self.drivers.values():
            driver.node_lost(node)
