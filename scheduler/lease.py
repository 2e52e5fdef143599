"""Leases: who may use which worker, for which resources, and who waits for what.

Theory of operation
-------------------
A request is known by (who asks, its request id) and is handled once, whatever arrives twice. It goes
WAITING -> STARTING (its resources are set aside, a worker is being found) -> GRANTED -> gone. Requests wait in order of
depth (a task deep down a tree first: its ancestors wait for it), priority, how much their sender was served already,
and age.

While requests wait that would fit if others gave back, leases are *recalled*: their holders send nothing more on them
and return them. Nobody is asked to give back for more of the same to themselves. A lease that is granted while others
wait is *brief*: recalled from the start, good for what its holder sends at once.

A request is told why it waits once it has waited for ``limits.lease_wait_told_after_s``: most never need to know.

A node that *drains* grants nothing: what waits is passed on as soon as another node could ever run it, and every lease
is recalled.

A worker that is blocked lends its CPU. A request that no node could ever satisfy is reported after
``limits.infeasible_after_s``, since nodes may be about to join; one that another node can serve now is passed on
(spillback).
"""

from __future__ import annotations

import bisect
import enum
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from actorlib.scheduler import policy
from actorlib.scheduler.resources import Holding, Pool, fits, show
from actorlib.transport import limits, messages
from actorlib.transport.ids import GroupId, JobId, LeaseId, NodeId, ProcessId
from actorlib.transport.messages import LeaseRequest, NodeView, Resources

HOPS_MAX = 3
OTHERS_LOOKED_AT = 16


class RequestState(enum.Enum):
    WAITING = "waiting"
    STARTING = "starting"
    GRANTED = "granted"


class Request:
    """One demand for a worker, from its arrival until the lease is given back."""

    __slots__ = (
        "_shape",
        "accelerators",
        "answer",
        "arrived_at",
        "holder",
        "infeasible",
        "is_actor",
        "key",
        "lease_id",
        "looked_at",
        "message",
        "order",
        "pool",
        "reason",
        "recalled",
        "state",
        "told_at",
        "worker",
    )

    def __init__(self, holder: ProcessId, message: LeaseRequest, answer: Callable[[Any], None], is_actor: bool) -> None:
        self.holder = holder
        self.message = message
        self.answer = answer
        self.is_actor = is_actor
        self.key = (holder, message.request_id)
        self.order: tuple[int, int, int, int] = (0, 0, 0, 0)
        self.arrived_at = 0.0
        self.state = RequestState.WAITING
        self.lease_id = LeaseId(b"")
        self.worker: ProcessId | None = None
        self.pool: Pool | None = None
        self.accelerators: dict[str, tuple[int, ...]] = {}
        self.reason = ""
        self.told_at = self.looked_at = float("-inf")  # when it heard the reason; when we last worked it out
        self.infeasible = False
        self.recalled = False
        strategy = tuple(tuple(part.items()) if isinstance(part, dict) else part for part in message.strategy)
        near = policy.preferred(message.locality)
        self._shape = (tuple(sorted(message.resources.items())), strategy, message.runtime_env, near)

    def shape(self) -> tuple[Any, ...]:
        return self._shape


class Port(Protocol):
    """What the table asks of its node."""

    def new_lease_id(self) -> LeaseId: ...

    def find_worker(self, request: Request) -> None:
        """Give the request a worker, now or later, through ``worker_found``."""

    def views(self) -> Sequence[NodeView]:
        """All nodes, this one with what is free right now."""

    def view(self, node_id: NodeId) -> NodeView | None:
        """One of them."""

    def recent_views(self) -> Sequence[NodeView]:
        """This node and some others, those of which it has heard last; all, where there are few."""

    def spilled(self, node_id: NodeId, demand: Resources) -> None:
        """A demand was sent to that node: until it reports, its view has that much less free."""

    def group_node(self, group_id: GroupId, index: int) -> NodeId | str | None:
        """Where a group's bundles lie if not here: a node, None if it was removed, or the reason why it waits."""

    def recall(self, holder: ProcessId, lease_id: LeaseId) -> None: ...


class LeaseTable:
    """All requests and leases of a node. See the module's docstring."""

    def __init__(self, node_id: NodeId, pool: Pool, port: Port) -> None:
        self.node_id = node_id
        self.pool = pool
        self.bundles: dict[tuple[GroupId, int], Pool] = {}
        self._set_aside: dict[tuple[GroupId, int], None] = {}  # of them: they may be taken back, so nobody uses them
        self._port = port
        self._requests: dict[tuple[ProcessId, int], Request] = {}
        self._waiting: list[tuple[tuple[int, int, int, int], Request]] = []
        self.leases: dict[LeaseId, Request] = {}
        self._served: dict[tuple[ProcessId, tuple[Any, ...]], int] = {}
        self._arrivals = 0
        self._turn = 0
        self.drain = ""  # why nothing is granted any more

    # -- requests ------------------------------------------------------------------------------------------------------
    def request(
        self,
        now: float,
        holder: ProcessId,
        message: LeaseRequest,
        answer: Callable[[Any], None],
        is_actor: bool = False,
    ) -> None:
        """A new demand. ``answer`` takes the LeaseGranted, LeaseWaits, LeaseSpilled or LeaseRefused for it."""
        if (holder, message.request_id) in self._requests:
            return
        request = Request(holder, message, answer, is_actor)
        if self._elsewhere(request):
            return
        self._arrivals += 1
        served = self._served.get((holder, request.shape()), 0)
        request.order = (-message.depth, -message.priority, served, self._arrivals)
        request.arrived_at = now
        self._requests[request.key] = request
        bisect.insort(self._waiting, (request.order, request), key=lambda item: item[0])
        self.pump(now)

    def _elsewhere(self, request: Request, has_waited: bool = False) -> bool:
        """Pass a request on (or refuse it) if its strategy, or the room here, says so.

        Whoever was passed on ``HOPS_MAX`` times stays, since views may lag behind; but not for longer than it takes
        them to catch up (``has_waited``).
        """
        message = request.message
        strategy = message.strategy
        if strategy and strategy[0] == "group":
            return self._group_elsewhere(request)
        if strategy and strategy[0] == "node" and not strategy[2]:
            target = self._port.view(strategy[1])
            if target is None or not target.takes_work():
                why = f"drains ({target.drain})" if target is not None and target.alive else "is not alive"
                text = f"node {strategy[1].hex()[:8]}, which the task must run on (soft=False), {why}"
                request.answer(messages.LeaseRefused(message.request_id, "TaskUnschedulableError", text))
                return True
        far = message.hops >= HOPS_MAX or (message.hops and strategy and strategy[0] == "spread")
        if far and not has_waited and self._may_run_here(request):
            return False
        self._turn += 1
        target = self._choose(request)
        if target is None or target.address.node_id == self.node_id:
            return False
        self._port.spilled(target.address.node_id, message.resources)
        request.answer(messages.LeaseSpilled(message.request_id, target.address))
        return True

    def _choose(self, request: Request) -> NodeView | None:
        """The node for a request. Of many nodes some are looked at first, and all only where none of those will do."""
        message = request.message
        demand, strategy = message.resources, message.strategy
        if not strategy or strategy[0] == "default":
            near = policy.preferred(message.locality)
            view = self._port.view(near) if near is not None else None
            if view is not None and policy.has_room(view, demand):
                return view
            found = policy.roomiest(self._port.recent_views(), self.node_id, demand)
            if found is not None:
                return self._port.view(found)
        views = self._port.views()
        chosen = policy.choose(views, self.node_id, demand, strategy, message.locality, self._turn)
        return self._port.view(chosen) if chosen is not None else None

    def _group_elsewhere(self, request: Request) -> bool:
        _, group_id, index = request.message.strategy[:3]
        if self._pools(request):
            return False
        found = self._port.group_node(group_id, index)
        if found is None:
            text = f"placement group {group_id.hex()} was removed"
            request.answer(messages.LeaseRefused(request.message.request_id, "TaskUnschedulableError", text))
            return True
        if isinstance(found, str) or found == self.node_id:
            return False
        target = self._port.view(found)
        if target is None:
            return False
        request.answer(messages.LeaseSpilled(request.message.request_id, target.address))
        return True

    def cancel(self, now: float, holder: ProcessId, request_id: int) -> None:
        request = self._requests.get((holder, request_id))
        if request is not None and request.state is not RequestState.GRANTED:
            self._drop(request)
            self.pump(now)

    def _drop(self, request: Request) -> None:
        self._requests.pop(request.key, None)
        if request.state is RequestState.WAITING:
            self._unqueue(request)
        if request.pool is not None:
            request.pool.release(request.lease_id)
        self.leases.pop(request.lease_id, None)

    def _unqueue(self, request: Request) -> None:
        at = bisect.bisect_left(self._waiting, request.order, key=lambda item: item[0])
        if at < len(self._waiting) and self._waiting[at][1] is request:
            del self._waiting[at]

    # -- granting ------------------------------------------------------------------------------------------------------
    def pump(self, now: float) -> None:
        """Grant what can be granted, in order; tell the others why they wait; recall what would help them."""
        refused: dict[tuple[Any, ...], Request] = {}
        starved: list[Request] = []
        for _, request in list(self._waiting):
            shape = request.shape()
            if shape in refused:
                starved.append(request)
                if refused[shape].reason:
                    self._wait(now, request, refused[shape].reason, refused[shape].infeasible)
                else:
                    self._tell(now, request)
                continue
            if not self._try(request):
                refused[shape] = request
                starved.append(request)
                self._tell(now, request)
        if starved:
            self._recall_for(starved)

    def _may_run_here(self, request: Request) -> bool:
        """Whether its strategy allows this node, whatever is free."""
        if self.drain:
            return False
        strategy = request.message.strategy
        kind = strategy[0] if strategy else "default"
        if kind == "labels":
            return any(v.address.node_id == self.node_id and policy.may_run_on(v, strategy) for v in self._port.views())
        return kind != "node" or bool(strategy[2]) or strategy[1] == self.node_id

    def _has_room(self, request: Request) -> bool:
        demand = request.message.resources
        return self._may_run_here(request) and any(fits(demand, pool.available) for pool in self._pools(request))

    def _try(self, request: Request) -> bool:
        if not self._may_run_here(request):
            return False
        lease_id = self._port.new_lease_id()
        for pool in self._pools(request):
            holding = pool.take(lease_id, request.message.resources)
            if holding is not None:
                self._start(request, pool, lease_id, holding)
                return True
        return False

    def _pools(self, request: Request) -> list[Pool]:
        strategy = request.message.strategy
        if not strategy or strategy[0] != "group":
            return [self.pool]
        _, group_id, index = strategy[:3]
        mine = [key for key in self.bundles if key[0] == group_id and index in (-1, key[1])]
        return [self.bundles[key] for key in mine if key not in self._set_aside]

    def _start(self, request: Request, pool: Pool, lease_id: LeaseId, holding: Holding) -> None:
        self._unqueue(request)
        request.state = RequestState.STARTING
        request.pool, request.lease_id, request.accelerators = pool, lease_id, holding.devices
        self.leases[lease_id] = request
        key = (request.holder, request.shape())
        self._served[key] = self._served.get(key, 0) + 1
        if len(self._served) > 10_000:
            self._served.clear()
        self._port.find_worker(request)

    def worker_found(self, request: Request, worker: Any) -> bool:
        """The pool has a worker (its Address) for a request. False if the request is gone meanwhile."""
        if self.leases.get(request.lease_id) is not request or request.state is not RequestState.STARTING:
            return False
        request.state = RequestState.GRANTED
        request.worker = worker.process_id
        if not request.is_actor:
            waiting = itertools.islice(self._waiting, OTHERS_LOOKED_AT)
            request.recalled = bool(self.drain) or any(self._would_help(request, other) for _, other in waiting)
        request.answer(
            messages.LeaseGranted(
                request.message.request_id, request.lease_id, worker, request.accelerators, request.recalled
            )
        )
        return True

    def worker_failed(self, request: Request, reason: str) -> None:
        """No worker can be had for it."""
        if self.leases.get(request.lease_id) is request:
            self._drop(request)
            request.answer(messages.LeaseRefused(request.message.request_id, "RuntimeEnvSetupError", reason))

    # -- waiting -------------------------------------------------------------------------------------------------------
    def _tell(self, now: float, request: Request) -> None:
        if now - request.arrived_at < limits.lease_wait_told_after_s:
            return
        if now - request.looked_at < limits.lease_wait_told_every_s:
            return
        request.looked_at = now
        demand, strategy = request.message.resources, request.message.strategy
        if strategy and strategy[0] == "group":
            found = self._port.group_node(strategy[1], strategy[2])
            reason = found if isinstance(found, str) else f"waiting for {show(demand)} in its placement group's bundle"
            reason = self._bundle_problem(request) or reason
            if self.drain and self._pools(request):
                reason = f"waiting for its placement group to leave this node, which drains ({self.drain})"
            self._wait(now, request, reason, messages.INFEASIBLE in reason)
            return
        views = self._port.views()
        if not any(policy.is_feasible(view, demand, strategy) for view in views):
            if now - request.arrived_at >= limits.infeasible_after_s:
                self._wait(now, request, policy.why_infeasible(views, demand, strategy), True)
            return
        reason = f"waiting for {show(demand)}; free here: {show(self.pool.visible())}{self._holders()}"
        if self.drain:
            reason = f"waiting for {show(demand)} on another node: this one drains ({self.drain})"
        self._wait(now, request, reason, False)

    def _bundle_problem(self, request: Request) -> str:
        pools = self._pools(request)
        if pools and not any(fits(request.message.resources, pool.total) for pool in pools):
            return (
                f"{messages.INFEASIBLE}a demand of {show(request.message.resources)} is larger than the group's bundles"
            )
        return ""

    def _holders(self) -> str:
        labels = list(dict.fromkeys(lease.message.label for lease in self.leases.values() if lease.message.label))
        return f"; held by {', '.join(labels[:5])}" if labels else ""

    def _wait(self, now: float, request: Request, reason: str, infeasible: bool) -> None:
        if now - request.arrived_at < limits.lease_wait_told_after_s:
            return
        if now - request.told_at < limits.lease_wait_told_every_s and infeasible == request.infeasible:
            return
        if request.reason != reason:
            request.reason, request.infeasible, request.told_at = reason, infeasible, now
            request.answer(messages.LeaseWaits(request.message.request_id, reason, infeasible))

    def tell_starting(self, now: float) -> None:
        """Whose worker takes long to start (a module that it imports does, say) hears what it waits for."""
        for request in self.leases.values():
            is_late = now - request.arrived_at >= limits.worker_start_told_after_s
            if is_late and request.state is RequestState.STARTING:
                self._wait(now, request, "its worker is being started and has not reported yet", False)

    def recheck(self, now: float) -> None:
        """Other nodes have changed, or time has passed: pass on what fits elsewhere now, look at the rest again."""
        for _, request in list(self._waiting):
            has_waited = now - request.arrived_at >= limits.spill_again_after_s
            if not self._has_room(request) and self._elsewhere(request, has_waited):
                self._requests.pop(request.key, None)
                self._unqueue(request)
        self.pump(now)

    def _recall_for(self, starved: list[Request]) -> None:
        wanted = len(starved)
        for lease in self.leases.values():
            if wanted <= 0:
                return
            if lease.state is not RequestState.GRANTED or lease.is_actor or lease.recalled:
                continue
            if (
                lease.pool is not None
                and lease.lease_id in lease.pool.holdings
                and lease.pool.holdings[lease.lease_id].lent
            ):
                continue
            if any(self._would_help(lease, request) for request in starved):
                lease.recalled = True
                wanted -= 1
                self._port.recall(lease.holder, lease.lease_id)

    def _would_help(self, lease: Request, request: Request) -> bool:
        if lease.holder == request.holder and lease.shape() == request.shape():
            return False
        given, free = lease.message.resources, self.pool.available
        return all(
            free.get(name, 0) >= amount or given.get(name, 0) > 0 for name, amount in request.message.resources.items()
        )

    def begin_drain(self, now: float, reason: str) -> None:
        """Grant nothing from now on; have all leases back as soon as what runs on them is done."""
        self.drain = reason
        for lease in self.leases.values():
            if lease.state is RequestState.GRANTED and not lease.is_actor and not lease.recalled:
                lease.recalled = True
                self._port.recall(lease.holder, lease.lease_id)
        self.recheck(now)

    # -- what happens to leases ----------------------------------------------------------------------------------------
    def returned(
        self, now: float, lease_id: LeaseId, free_worker: Callable[[Request], None] | None = None
    ) -> Request | None:
        """``free_worker`` is called before others get what the lease held, so that they can have its worker too."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            self._drop(lease)
            if free_worker is not None:
                free_worker(lease)
            self.pump(now)
        return lease

    def worker_died(self, now: float, worker: ProcessId) -> Request | None:
        """The lease of a dead worker, which is over."""
        lease = next((lease for lease in self.leases.values() if lease.worker == worker), None)
        if lease is not None:
            self._drop(lease)
            self.pump(now)
        return lease

    def holder_died(self, now: float, holder: ProcessId) -> list[Request]:
        """Drop what a dead process asked for and held. Gives its granted leases: their workers must go."""
        mine = [request for request in self._requests.values() if request.holder == holder and not request.is_actor]
        for request in mine:
            self._drop(request)
        if mine:
            self.pump(now)
        return [request for request in mine if request.state is RequestState.GRANTED]

    def blocked(self, now: float, worker: ProcessId, is_blocked: bool) -> None:
        lease = next((lease for lease in self.leases.values() if lease.worker == worker), None)
        if lease is None or lease.pool is None:
            return
        if is_blocked:
            lease.pool.lend_cpu(lease.lease_id)
            self.pump(now)
        else:
            lease.pool.reclaim_cpu(lease.lease_id)

    def shrink(self, now: float, lease_id: LeaseId, to: Resources) -> None:
        lease = self.leases.get(lease_id)
        if lease is not None and lease.pool is not None:
            lease.pool.shrink(lease_id, to)
            self.pump(now)

    # -- placement groups ----------------------------------------------------------------------------------------------
    def prepare_bundles(self, group_id: GroupId, bundles: Sequence[tuple[int, Resources]]) -> str:
        """First phase: set the resources aside, for nobody yet. Gives the reason if they aren't there, else ''."""
        if self.drain:
            return f"node {self.node_id.hex()[:8]} drains ({self.drain})"
        taken: list[int] = []
        for index, bundle in bundles:
            if (group_id, index) in self.bundles:
                continue
            holding = self.pool.take(bundle_holder(group_id, index), bundle)
            if holding is None:
                for done in taken:
                    self._release_bundle(group_id, done)
                return f"node {self.node_id.hex()[:8]} has only {show(self.pool.visible())} free"
            self.bundles[group_id, index] = Pool(bundle, holding.devices)
            self._set_aside[group_id, index] = None
            taken.append(index)
        return ""

    def commit_bundles(self, now: float, group_id: GroupId) -> None:
        """Second phase: all nodes have theirs, so what was set aside here may be used."""
        for key in [key for key in self._set_aside if key[0] == group_id]:
            del self._set_aside[key]
        self.pump(now)

    def _release_bundle(self, group_id: GroupId, index: int) -> None:
        self.bundles.pop((group_id, index), None)
        self._set_aside.pop((group_id, index), None)
        self.pool.release(bundle_holder(group_id, index))

    def release_bundles(self, now: float, group_id: GroupId, indexes: Sequence[int] = ()) -> list[Request]:
        """Give a group's bundles back, or some of them.

        Gives the leases in them: their workers must go. Who has no worker yet asks anew.
        """
        keys = [key for key in self.bundles if key[0] == group_id and (not indexes or key[1] in indexes)]
        pools = [self.bundles[key] for key in keys]
        inside = [lease for lease in self.leases.values() if lease.pool in pools]
        for lease in inside:
            self._drop(lease)
        for group, index in keys:
            self._release_bundle(group, index)
        for _, request in list(self._waiting):
            if request.message.strategy[:2] == ("group", group_id) and self._port.group_node(group_id, -1) is None:
                self._drop(request)
                text = f"placement group {group_id.hex()} was removed"
                request.answer(messages.LeaseRefused(request.message.request_id, "TaskUnschedulableError", text))
        for lease in inside:
            if lease.state is RequestState.STARTING:
                self.request(now, lease.holder, lease.message, lease.answer, lease.is_actor)
        self.pump(now)
        return [lease for lease in inside if lease.state is RequestState.GRANTED]

    # -- inspection ----------------------------------------------------------------------------------------------------
    def reasons(self) -> tuple[tuple[str, int], ...]:
        counts: dict[str, int] = {}
        for _, request in self._waiting:
            reason = f"{request.message.label or 'a task'}: {request.reason or 'about to be placed'}"
            counts[reason] = counts.get(reason, 0) + max(1, request.message.backlog)
        return tuple(list(counts.items())[:20])

    def rows(self) -> tuple[dict[str, Any], ...]:
        """All leases, for people who look."""
        return tuple(
            {
                "lease_id": lease_id.hex(),
                "holder": lease.holder.hex(),
                "worker": (lease.worker or b"").hex(),
                "state": lease.state.value,
                "label": lease.message.label,
                "recalled": lease.recalled,
                "lent": bool(lease.pool is not None and lease.pool.holdings[lease_id].lent),
            }
            for lease_id, lease in self.leases.items()
        )

    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def jobs(self) -> dict[JobId, None]:
        return {request.message.job_id: None for request in self._requests.values()}

    def check(self) -> None:
        self.pool.check()
        for pool in self.bundles.values():
            pool.check()
        assert self._set_aside.keys() <= self.bundles.keys(), "set aside, and not there"
        workers = [lease.worker for lease in self.leases.values() if lease.worker is not None]
        assert len(workers) == len(set(workers)), "a worker is leased twice"
        for lease_id, lease in self.leases.items():
            assert lease.state is not RequestState.WAITING, "a lease that waits"
            assert lease.pool is not None and lease_id in lease.pool.holdings, "a lease without its resources"
        for order, request in self._waiting:
            assert request.state is RequestState.WAITING and request.order == order, "queued but not waiting"


def bundle_holder(group_id: GroupId, index: int) -> bytes:
    return b"bundle" + group_id + index.to_bytes(4, "big")
