"""The node: leases and workers of one machine, tied to real processes.

It answers drivers and workers (leases, watches, kills), carries out the GCS's orders (actors, bundles), and knows how
each worker ended: its exit status, its last words, whether the kernel killed it for memory.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from typing import Any

from actorlib.scheduler.drivers.draining import Draining
from actorlib.scheduler.drivers.output import Forwarder, Stream
from actorlib.scheduler.drivers.zygote import ZygoteClient
from actorlib.scheduler.lease import LeaseTable, Request
from actorlib.scheduler.resources import Pool
from actorlib.scheduler.worker_pool import UNUSED, Worker, WorkerPool
from actorlib.transport import limits, messages
from actorlib.transport.drivers import processes
from actorlib.transport.drivers.loop import Loop
from actorlib.transport.endpoint import parse
from actorlib.transport.ids import ActorId, GroupId, JobId, LeaseId, NodeId, ProcessId, new_process_id
from actorlib.transport.link import NOWHERE, Address, Handler, Link
from actorlib.transport.messages import Death, NodeView, Resources

DRIVER_DIRECTORY = "s-d"  # how the names of such directories begin
Hosted = tuple[ActorId, int]


class Hosting:
    """An actor's incarnation on this node: being placed, or at work."""

    __slots__ = ("intended", "lives_at", "moved", "order", "reason", "request_id", "worker")

    def __init__(self, order: messages.StartActor, request_id: int) -> None:
        self.order = order
        self.request_id = request_id
        self.worker: ProcessId | None = None
        self.lives_at = NOWHERE  # once the constructor has returned
        self.intended = False
        self.moved = False  # it has left, since we drain
        self.reason = ""


class NodeService(Draining):
    """One machine's scheduler. See the module's docstring."""

    def __init__(
        self,
        loop: Loop,
        gcs: Address,
        total: Resources,
        labels: dict[str, str],
        hostname: str,
        zygote: ZygoteClient,
        worker_config: dict[str, Any],
        session_dir: str,
        keep_idle: int,
        others: Sequence[Any],
    ) -> None:
        super().__init__(loop, gcs, Pool(total), labels, hostname, worker_config["host_id"])
        self.leases = LeaseTable(loop.address.node_id, self.pool, self)
        self.workers = WorkerPool(keep_idle, self._start_worker, self._worker_found)
        self.zygotes = [zygote]  # whose families are no orphans
        self._zygote = zygote
        self._worker_config = worker_config
        self._session_dir = session_dir
        self._others = others
        self._streams: dict[ProcessId, tuple[Stream, Stream]] = {}
        self._drivers: dict[ProcessId, tuple[Link, int]] = {}
        self._prints = Forwarder(loop)
        self._watchers: dict[ProcessId, dict[ProcessId, Link]] = {}
        self._watched: dict[ProcessId, Address] = {}
        self._deaths: dict[ProcessId, Death] = {}
        self._hosted: dict[Hosted, Hosting] = {}
        self._actor_of: dict[ProcessId, Hosted] = {}
        self._groups: dict[GroupId, messages.GroupView] = {}
        self._kill_reasons: dict[ProcessId, str] = {}
        self._revoked: dict[ProcessId, Request] = {}  # leases taken away with their group: their holders will be told
        self._start_failures: dict[str, int] = {}
        self._oom_kills = self._count_oom_kills()
        self._telling = False
        self.init_draining()
        self._prepare()
        self._tick()

    # -- what the world gives (a simulation gives something else) ------------------------------------------------------
    def _prepare(self) -> None:
        os.makedirs(os.path.join(self._session_dir, "logs"), mode=0o700, exist_ok=True)
        self.loop.add_reader(self._zygote.fileno(), self._on_zygote)

    def _new_process_id(self) -> ProcessId:
        return new_process_id()

    def _count_oom_kills(self) -> int:
        return processes.oom_kills()

    def _fork(self, process_id: ProcessId, config: dict[str, Any]) -> None:
        """Start a worker process; its end will be reported with its status."""
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        self._streams[process_id] = (
            self._stream(process_id, out_read, "out"),
            self._stream(process_id, err_read, "err"),
        )
        self._zygote.fork(config, out_write, err_write)

    def _watch_driver(self, process_id: ProcessId, os_pid: int) -> int:
        """A descriptor by which the kernel tells the end of a driver; -1 where it can't."""
        try:
            pidfd = os.pidfd_open(os_pid)
        except OSError:
            return -1
        self.loop.add_reader(pidfd, lambda: self._driver_gone(process_id, "it died"))
        return pidfd

    @property
    def handlers(self) -> dict[type, Handler]:
        m = messages
        return {
            **self.draining_handlers,
            m.Hello: self._on_hello,
            m.Goodbye: self._on_goodbye,
            m.WorkerReady: self._on_worker_ready,
            m.WorkerBlocked: lambda link, _: self.leases.blocked(self._now(), link.peer.process_id, True),
            m.WorkerUnblocked: lambda link, _: self.leases.blocked(self._now(), link.peer.process_id, False),
            m.WorkerExiting: self._on_worker_exiting,
            m.KillProcess: lambda _, message: self._kill(message.process_id, message.reason),
            m.Watch: self._on_watch,
            m.Unwatch: self._on_unwatch,
            m.LeaseRequest: self._on_lease_request,
            m.LeaseCancelled: lambda link, message: self.leases.cancel(
                self._now(), link.peer.process_id, message.request_id
            ),
            m.LeaseReturned: self._on_lease_returned,
            m.NodesChanged: self._on_nodes_changed,
            m.NodesFree: self._on_nodes_free,
            m.NodeRegistered: self._on_registered,
            m.GroupUpdate: self._on_group_update,
            m.StartActor: self._on_start_actor,
            m.StopActor: self._on_stop_actor,
            m.ActorCreated: self._on_actor_created,
            m.ActorFailed: self._on_actor_failed,
            m.PrepareBundles: self._on_prepare,
            m.CommitBundles: self._on_commit,
            m.ReleaseBundles: self._on_release,
            m.JobEnded: self._on_job_ended,
            m.NodeStatus: self._on_status,
            m.ShutdownNode: self.of_gcs(self._on_shutdown),
            m.ProcessDied: self._on_process_died_elsewhere,
            m.Done: self._on_done,
            m.HeartbeatSeen: self._on_heartbeat_seen,
            m.GcsStarted: self.of_gcs(self._on_gcs_started),
        }

    def _now(self) -> float:
        return self.loop.now()

    # -- other nodes ---------------------------------------------------------------------------------------------------
    def _node_came(self, view: NodeView) -> None:
        for address in self._watched.values():
            if address.node_id == view.address.node_id and address.process_id != view.address.process_id:
                self.loop.link(view.address).send(messages.Watch(address))

    def _node_lost(self, view: NodeView) -> None:
        """Another node is gone, and with it all of its processes: whoever dealt with them must hear of it."""
        node_id = view.address.node_id
        for process_id, address in list(self._watched.items()):
            if address.node_id == node_id:
                self._process_died(process_id, self._death_with_node(address, view))
        death = Death(view.address.process_id, node_id, view.os_pid, None, None, False, f"was lost: {view.death}", "")
        for link in self.loop.links():
            if link.hello is not None and link.hello.role != "node":
                link.send(messages.ProcessDied(view.address.process_id, death))
        self._process_died(view.address.process_id, death)

    @staticmethod
    def _death_with_node(process: Address, view: NodeView) -> Death:
        text = f"ended with its node {process.node_id.hex()[:8]}: {view.death}"
        return Death(process.process_id, process.node_id, 0, None, None, False, text, "")

    def _tick(self) -> None:
        """What no event brings: the age of demands that nobody can satisfy, idle workers, the report to the GCS."""
        if self.stopping is not None:
            return
        if self.leases.has_waiting():
            self.leases.recheck(self._now())
        self.leases.tell_starting(self._now())
        for worker in self.workers.too_idle(self._now()):
            self._stop_worker(worker, UNUSED)
        self._report()
        for service in self._others:
            rows = service.object_changes() if hasattr(service, "object_changes") else ()
            if rows:
                self.to_gcs(messages.ObjectEvents(rows))
        if self.wants_to_belong:
            self._beat()
        self.loop.call_later(limits.heartbeat_period_s, self._tick)

    def holdings(self) -> messages.Holdings:
        actors = tuple(
            messages.Hosted(actor_id, incarnation, hosting.lives_at)
            for (actor_id, incarnation), hosting in self._hosted.items()
        )
        groups: dict[GroupId, tuple[int, ...]] = {}
        for group_id, index in self.leases.bundles:
            groups[group_id] = (*groups.get(group_id, ()), index)
        return messages.Holdings(actors, (*self.workers.workers, *self._drivers), tuple(groups.items()))

    # -- processes that come -------------------------------------------------------------------------------------------
    def _on_hello(self, link: Link, message: messages.Hello) -> None:
        if link.peer.node_id != self.loop.address.node_id:
            return
        if self.gcs_boot > 1 and self._gcs_is_apart() and message.role in ("worker", "driver"):
            link.send(messages.GcsStarted(self.gcs_boot))  # it may have talked to an earlier one before it greeted us
        if message.role == "driver":
            self._drivers[link.peer.process_id] = (link, self._watch_driver(link.peer.process_id, message.os_pid))

    def _on_goodbye(self, link: Link, message: messages.Goodbye) -> None:
        process_id = link.peer.process_id
        if process_id in self._drivers:
            self._driver_gone(process_id, "it has ended")
        elif process_id not in self.workers.workers:
            self.loop.drop_link(process_id, message.reason)

    def _driver_gone(self, process_id: ProcessId, reason: str) -> None:
        link, pidfd = self._drivers.pop(process_id)
        if pidfd >= 0:
            self.loop.remove_reader(pidfd)
            os.close(pidfd)
        job_id = link.hello.job_id
        self.fact(messages.JobEnded(job_id, f"its driver is gone: {reason}"))
        text = f"the driver is gone: {reason}"
        death = Death(process_id, self.loop.address.node_id, link.hello.os_pid, None, None, False, text, "")
        self._process_died(process_id, death)
        self._end_job(job_id, text)
        self._remove_driver_directory(link.peer.endpoint)

    def _remove_driver_directory(self, endpoint: str) -> None:
        """A driver that has joined has a directory beside ours, which it can't remove when it is killed."""
        directory = os.path.dirname(parse(endpoint).local.removeprefix("ipc://"))
        if os.path.basename(directory).startswith(DRIVER_DIRECTORY) and os.path.dirname(directory) == os.path.dirname(
            self._session_dir
        ):
            shutil.rmtree(directory, ignore_errors=True)

    # -- workers -------------------------------------------------------------------------------------------------------
    def _start_worker(self, runtime_env: str) -> ProcessId:
        process_id = self._new_process_id()
        config = {
            **self._worker_config,
            "process_id": process_id,
            "endpoint": self.inbox(f"ipc://{self._session_dir}/{process_id.hex()}"),
            "runtime_env": runtime_env,
            "node": self.loop.address,
            "gcs": self.gcs,
        }
        self._fork(process_id, config)
        return process_id

    def _stream(self, process_id: ProcessId, fd: int, name: str) -> Stream:
        path = os.path.join(self._session_dir, "logs", f"worker-{process_id.hex()}.{name}")
        stream = Stream(fd, path, lambda text: self._forward(process_id, name, text))

        def readable() -> None:
            if not stream.read():
                self.loop.remove_reader(fd)

        self.loop.add_reader(fd, readable)
        return stream

    def _forward(self, process_id: ProcessId, stream: str, text: str) -> None:
        worker = self.workers.workers.get(process_id)
        if worker is None:
            return
        message = messages.LogLines(process_id, worker.os_pid, worker.label, stream, text)
        for link, _ in self._drivers.values():
            if not worker.job_id or link.hello.job_id == worker.job_id:
                self._prints.send(link, message)

    def _on_zygote(self) -> None:
        if not self._zygote.reports(self._on_report) and self.stopping is None:
            self.stopping = "its zygotes die as soon as they are started, so it can't start workers any more"

    def _on_report(self, kind: str, worker_id: bytes, os_pid: int, status: int) -> None:
        process_id = ProcessId(worker_id)
        if kind == "started":
            worker = self.workers.workers.get(process_id)
            if worker is not None:
                worker.os_pid = os_pid
                if process_id in self._kill_reasons:
                    self._signal(worker)
        elif kind == "lost":
            self._worker_lost(process_id)
        else:
            self._worker_ended(process_id, os_pid, status)

    def _worker_lost(self, process_id: ProcessId) -> None:
        """It was ordered, and the zygote died before it was born: which is no fault of the environment's."""
        self._close_streams(self._streams.pop(process_id))
        self._kill_reasons.pop(process_id, None)
        self.workers.died(process_id)
        self._sweep_orphans()
        self.workers.serve()

    def _on_worker_ready(self, link: Link, message: messages.WorkerReady) -> None:
        worker = self.workers.ready(link.peer.process_id, message.address, message.os_pid, self._now())
        if worker is not None:
            self._start_failures.pop(worker.runtime_env, None)

    def _on_worker_exiting(self, link: Link, message: messages.WorkerExiting) -> None:
        self.workers.stopping(link.peer.process_id, message.reason)
        hosted = self._actor_of.get(link.peer.process_id)
        if hosted is not None:
            self._hosted[hosted].intended = True
            self._hosted[hosted].reason = message.reason
        link.send(messages.Done(message.request_id))

    def _stop_worker(self, worker: Worker, reason: str) -> None:
        self.workers.stopping(worker.process_id, reason)
        link = self.loop.accepted_link(worker.process_id)
        if link is not None:
            link.send(messages.StopWorker(reason, reason == UNUSED))

    def _kill(self, process_id: ProcessId, reason: str) -> None:
        worker = self.workers.workers.get(process_id)
        if worker is not None:
            self._kill_reasons[process_id] = reason
            self.workers.stopping(process_id, reason)
            self._signal(worker)

    def _signal(self, worker: Worker) -> None:
        if worker.os_pid:
            try:
                os.kill(worker.os_pid, signal.SIGKILL)
            except ProcessLookupError:
                return  # it was faster

    def _worker_ended(self, process_id: ProcessId, os_pid: int, status: int) -> None:
        streams = self._streams.pop(process_id, None)
        tail = self._close_streams(streams) if streams is not None else ""
        worker = self.workers.died(process_id)
        death = self._death(process_id, os_pid, status, tail, worker)
        self._sweep_orphans()
        lease = self.leases.worker_died(self._now(), process_id) or self._revoked.pop(process_id, None)
        if lease is not None and not lease.is_actor:
            lease.answer(messages.LeaseLost(lease.lease_id, death))
        self._actor_ended(process_id, death)
        self._process_died(process_id, death)
        if worker is not None and worker.address is None and self.stopping is None:
            self._failed_to_start(worker, death)
        else:
            self.workers.serve()
        self._changed()

    def _close_streams(self, streams: tuple[Stream, Stream]) -> str:
        for stream in streams:
            stream.drain()
            self.loop.remove_reader(stream.fd)
            stream.close()
        return streams[1].tail.decode(errors="replace")

    def _death(self, process_id: ProcessId, os_pid: int, status: int, tail: str, worker: Worker | None) -> Death:
        code, number, text = processes.describe_exit(status)
        reason = self._kill_reasons.pop(process_id, "")
        oom = False
        if number == signal.SIGKILL and not reason:
            kills = self._count_oom_kills()
            oom, self._oom_kills = kills > self._oom_kills, kills
            text += ", by the kernel for lack of memory" if oom else " (from outside of actorlib)"
        elif reason:
            text += f": {reason}"
        elif worker is not None and worker.reason:
            text = f"ended: {worker.reason}"
        elif code is not None:
            text += " (os._exit or sys.exit in user code, or a library that ends its process)"
        return Death(process_id, self.loop.address.node_id, os_pid, code, number, oom, text, tail)

    def _failed_to_start(self, worker: Worker, death: Death) -> None:
        """A worker that never reported: after a few of them whoever waits for one is told, instead of a loop."""
        failures = self._start_failures[worker.runtime_env] = self._start_failures.get(worker.runtime_env, 0) + 1
        if failures < 3:
            self.workers.serve()
            return
        text = f"workers can't be started here: the last one {death.text}; {death.stderr_tail.strip()[-1500:]}"
        for request in self.workers.withdraw(worker.runtime_env):
            self.leases.worker_failed(request, text)
        self._start_failures.pop(worker.runtime_env, None)

    def _sweep_orphans(self) -> None:
        """Children of dead workers have become ours: end them with their parent."""
        children = processes.children_of(os.getpid())
        ours = {pid for zygote in self.zygotes for pid in zygote.family()}  # asked after: who is born now is in both
        for pid in children:
            if pid not in ours:
                try:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                except (ProcessLookupError, ChildProcessError):
                    continue

    # -- deaths --------------------------------------------------------------------------------------------------------
    def _process_died(self, process_id: ProcessId, death: Death) -> None:
        """Everyone who held something for a process that is gone lets go of it."""
        self._deaths[process_id] = death
        while len(self._deaths) > 10_000:
            del self._deaths[next(iter(self._deaths))]
        for lease in self.leases.holder_died(self._now(), process_id):
            if lease.worker is not None:
                self._kill(lease.worker, "the process that had leased it is gone")
        for service in self._others:
            service.process_died(process_id, death)
        if death.node_id == self.loop.address.node_id and self.gcs != self.loop.address:
            self.to_gcs(messages.ProcessDied(process_id, death))
        self._watched.pop(process_id, None)
        for link in self._watchers.pop(process_id, {}).values():
            link.send(messages.ProcessDied(process_id, death))
        for watching in self._watchers.values():
            watching.pop(process_id, None)
        self.loop.drop_link(process_id, death.text)

    def _on_watch(self, link: Link, message: messages.Watch) -> None:
        address = message.process
        process_id = address.process_id
        if process_id in self._deaths:
            link.send(messages.ProcessDied(process_id, self._deaths[process_id]))
            return
        self._watchers.setdefault(process_id, {})[link.peer.process_id] = link
        self._watched[process_id] = address
        if address.node_id != self.loop.address.node_id:
            other = self.node_address(address.node_id)
            if other is not None and other.process_id != link.peer.process_id:
                self.loop.link(other).send(message)
            elif other is None and address.node_id in self._views:
                self._process_died(process_id, self._death_with_node(address, self._views[address.node_id]))
        elif not self._is_here(process_id):
            text = "it is not known to its node: it ended before"
            death = Death(process_id, address.node_id, 0, None, None, False, text, "")
            link.send(messages.ProcessDied(process_id, death))

    def watch(self, process: Address) -> None:
        """A process on another node holds something here, which must come back when it dies there."""
        if process.node_id != self.loop.address.node_id and process.process_id not in self._watched:
            self._watched[process.process_id] = process
            other = self.node_address(process.node_id)
            if other is not None:
                self.loop.link(other).send(messages.Watch(process))
            elif process.node_id in self._views:
                death = self._death_with_node(process, self._views[process.node_id])
                self.loop.call_soon(lambda: self._process_died(process.process_id, death))

    def _is_here(self, process_id: ProcessId) -> bool:
        known = process_id in self.workers.workers or process_id in self._drivers
        return known or process_id == self.loop.address.process_id

    def _on_unwatch(self, link: Link, message: messages.Unwatch) -> None:
        self._watchers.get(message.process.process_id, {}).pop(link.peer.process_id, None)

    def _on_process_died_elsewhere(self, _: Link, message: messages.ProcessDied) -> None:
        """A process on another node that we were asked to watch."""
        self._process_died(message.process_id, message.death)

    # -- leases --------------------------------------------------------------------------------------------------------
    def new_lease_id(self) -> LeaseId:
        return self.ids.lease_id()

    def _on_lease_request(self, link: Link, message: messages.LeaseRequest) -> None:
        holder = link.peer
        self.watch(holder)
        self.leases.request(self._now(), holder.process_id, message, link.send)
        if self.leases.has_waiting() and not self._telling:
            self._telling = True
            self.loop.call_later(limits.lease_wait_told_after_s, self._tell)
        self._changed()

    def _tell(self) -> None:
        """What has waited for a moment is told why."""
        self._telling = False
        if self.leases.has_waiting():
            self.leases.recheck(self._now())

    def _on_lease_returned(self, _: Link, message: messages.LeaseReturned) -> None:
        def free_worker(lease: Request) -> None:
            if lease.worker is None:
                return
            if message.retire:
                self._kill(lease.worker, "its lease was given back while it was at work")
            else:
                self.workers.returned(lease.worker, self._now())

        self.leases.returned(self._now(), message.lease_id, free_worker)
        self._changed()

    def find_worker(self, request: Request) -> None:
        message = request.message
        self.workers.demand(request, message.job_id, message.runtime_env, request.is_actor)
        self._changed()

    def _worker_found(self, request: Request, worker: Worker) -> bool:
        assert worker.address is not None
        worker.label = request.message.label
        return self.leases.worker_found(request, worker.address)

    def recall(self, holder: ProcessId, lease_id: LeaseId) -> None:
        link = self.loop.accepted_link(holder)
        if link is not None:
            link.send(messages.LeaseRecalled(lease_id))

    def spilled(self, node_id: NodeId, demand: Resources) -> None:
        view = self._views[node_id]
        left = {name: max(0, amount - demand.get(name, 0)) for name, amount in view.available.items()}
        self._views[node_id] = view._replace(available=left)

    def group_node(self, group_id: GroupId, index: int) -> NodeId | str | None:
        view = self._groups.get(group_id)
        if view is None:
            self._groups[group_id] = messages.GroupView(group_id, "", "", "", "PENDING", (), (), "")
            self.to_gcs(messages.GroupSubscribe(group_id))
            return "waiting to hear where its placement group is"
        if view.state == "REMOVED":
            return None
        return messages.bundle_node(view, index)

    def subscribe_again(self) -> None:
        for group_id in self._groups:
            self.to_gcs(messages.GroupSubscribe(group_id))
        for actor_id in self._underway:
            self.to_gcs(messages.ActorSubscribe(actor_id))

    def _on_group_update(self, _: Link, message: messages.GroupUpdate) -> None:
        self._groups[message.group.group_id] = message.group
        self.leases.recheck(self._now())

    # -- actors --------------------------------------------------------------------------------------------------------
    def _on_start_actor(self, link: Link, message: messages.StartActor) -> None:
        spec = message.spec
        hosted: Hosted = (spec.actor_id, message.incarnation)
        if hosted in self._hosted:
            return
        request_id = self.ids.request_id()
        hosting = self._hosted[hosted] = Hosting(message, request_id)
        request = messages.LeaseRequest(
            request_id,
            spec.job_id,
            spec.resources_to_place,
            spec.strategy,
            spec.runtime_env,
            1,
            (spec.extra or {}).get("priority", 0),
            1,
            (),
            message.hops,
            spec.class_name,
        )
        here = self.loop.address.process_id
        self.leases.request(
            self._now(), here, request, lambda answer: self._actor_answer(hosting, answer), is_actor=True
        )

    def _actor_answer(self, hosting: Hosting, answer: Any) -> None:
        spec, incarnation = hosting.order.spec, hosting.order.incarnation
        kind = type(answer)
        if kind is messages.LeaseGranted:
            self._actor_granted(hosting, answer)
        elif kind is messages.LeaseWaits:
            self.to_gcs(messages.ActorWaits(spec.actor_id, answer.reason, answer.infeasible))
        elif kind is messages.LeaseSpilled:
            self._hosted.pop((spec.actor_id, incarnation), None)
            self.to_gcs(messages.ActorSpilled(spec.actor_id, incarnation, answer.node, hosting.order.hops + 1))
        elif kind is messages.LeaseRefused:
            self._hosted.pop((spec.actor_id, incarnation), None)
            prefix = messages.INFEASIBLE if answer.kind == "TaskUnschedulableError" else ""
            self.to_gcs(messages.ActorFailed(spec.actor_id, incarnation, prefix + answer.text, None))

    def _actor_granted(self, hosting: Hosting, granted: messages.LeaseGranted) -> None:
        spec, incarnation = hosting.order.spec, hosting.order.incarnation
        process_id = granted.worker.process_id
        hosting.worker = process_id
        self._actor_of[process_id] = (spec.actor_id, incarnation)
        link = self.loop.accepted_link(process_id)
        if link is None:
            return  # it is dead; its end will be reported
        self.workers.workers[process_id].label = spec.name or spec.class_name
        order = messages.CreateActor(granted.lease_id, spec, incarnation, granted.accelerators, self.gcs)
        link.send(order)
        self.loop.call_soon(lambda: self.leases.shrink(self._now(), granted.lease_id, spec.resources_to_run))

    def _on_actor_created(self, _: Link, message: messages.ActorCreated) -> None:
        hosting = self._hosted.get((message.actor_id, message.incarnation))
        if hosting is not None:
            hosting.lives_at = message.worker
        self.to_gcs(message)

    def _on_actor_failed(self, link: Link, message: messages.ActorFailed) -> None:
        hosting = self._hosted.get((message.actor_id, message.incarnation))
        if hosting is not None:
            hosting.intended = True
        self.fact(message)
        self._kill(link.peer.process_id, "its actor's constructor failed")

    def _on_stop_actor(self, _: Link, message: messages.StopActor) -> None:
        hosting = self._hosted.get((message.actor_id, message.incarnation))
        if hosting is None:
            return
        hosting.intended = True
        hosting.reason = message.reason
        if hosting.worker is None:
            self._hosted.pop((message.actor_id, message.incarnation), None)
            here = self.loop.address.process_id
            self.leases.cancel(self._now(), here, hosting.request_id)
        elif message.kill:
            self._kill(hosting.worker, message.reason)
        else:
            link = self.loop.accepted_link(hosting.worker)
            if link is not None:
                link.send(messages.DrainAndExit(message.reason))

    def _actor_ended(self, process_id: ProcessId, death: Death) -> None:
        hosted = self._actor_of.pop(process_id, None)
        hosting = self._hosted.pop(hosted, None) if hosted is not None else None
        if hosted is not None and hosting is not None:
            if (hosting.intended or hosting.moved) and hosting.reason:
                death = death._replace(text=hosting.reason)
            moved = hosting.moved and not hosting.intended
            self.fact(messages.ActorExited(hosted[0], hosted[1], hosting.intended, death, moved=moved))

    # -- placement groups ----------------------------------------------------------------------------------------------
    def _on_prepare(self, link: Link, message: messages.PrepareBundles) -> None:
        reason = self.leases.prepare_bundles(message.group_id, message.bundles)
        link.send(messages.BundlesPrepared(0, message.group_id, message.attempt, not reason, reason))
        self._changed()

    def _on_commit(self, link: Link, message: messages.CommitBundles) -> None:
        link.send(messages.BundlesPrepared(0, message.group_id, message.attempt, True, ""))
        self.leases.commit_bundles(self._now(), message.group_id)

    def _on_release(self, _: Link, message: messages.ReleaseBundles) -> None:
        view = self._groups.get(message.group_id)
        if view is not None and not message.bundles:
            self._groups[message.group_id] = view._replace(state="REMOVED")
        reason = "its bundle was taken back" if message.bundles else "its placement group was removed"
        for lease in self.leases.release_bundles(self._now(), message.group_id, message.bundles):
            if lease.worker is not None:
                self._revoked[lease.worker] = lease
                self._kill(lease.worker, reason)
        self._changed()

    # -- the end of jobs and of the node -------------------------------------------------------------------------------
    def _on_job_ended(self, _: Link, message: messages.JobEnded) -> None:
        self._end_job(message.job_id, message.reason)

    def _end_job(self, job_id: JobId, reason: str) -> None:
        detached = {
            hosting.worker
            for hosting in self._hosted.values()
            if hosting.order.spec.detached and hosting.worker is not None
        }
        for worker in self.workers.of_job(job_id):
            if worker.process_id not in detached:
                self._kill(worker.process_id, f"its job has ended ({reason})")

    def _on_status(self, link: Link, message: messages.NodeStatus) -> None:
        workers = [
            {"worker_id": w.process_id.hex(), "pid": w.os_pid, "state": w.state.value, "label": w.label}
            for w in self.workers.workers.values()
        ]
        status = {
            "node_id": self.loop.address.node_id.hex(),
            "total": self.pool.total,
            "available": self.pool.visible(),
            "workers": workers,
            "waiting": dict(self.leases.reasons()),
            "store": [service.usage() for service in self._others if hasattr(service, "usage")],
            "leases": self.leases.rows(),
            "drain": self.draining.reason,
        }
        link.send(messages.NodeStatusReply(message.request_id, status))

    def _on_shutdown(self, _: Link, message: messages.ShutdownNode) -> None:
        self.stopping = message.reason

    def stop(self) -> None:
        """End all workers now, with the zygote."""
        self.loop.remove_reader(self._zygote.fileno())
        self.zygotes.remove(self._zygote)
        self._zygote.close()
        self._sweep_orphans()
        for streams in self._streams.values():
            self._close_streams(streams)

    def check(self) -> None:
        self.leases.check()
        self.workers.check()
        self.draining.check()
