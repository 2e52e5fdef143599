"""The GCS as a service on a loop: routes messages to the tables, commits what they write, then lets them speak.

All requests of one turn share one transaction. Replies and publications wait for it. If it fails (the disk is full)
the replies become typed errors, so that nobody believes in what a restart would not find.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from actorlib.gcs.actors import Actor, Actors
from actorlib.gcs.answers import Answers
from actorlib.gcs.backlog import Asked, Backlog, Said, Write
from actorlib.gcs.checkpoints import Checkpoints
from actorlib.gcs.jobs import Jobs
from actorlib.gcs.kv import KeyValues
from actorlib.gcs.lineage import Lineages
from actorlib.gcs.membership import BOOT, META, Membership
from actorlib.gcs.nodes import Nodes
from actorlib.gcs.placement_groups import Place, PlacementGroups
from actorlib.gcs.records import Records
from actorlib.transport import limits, messages
from actorlib.transport.ids import ActorId, JobId, NodeId, ProcessId
from actorlib.transport.link import Address, Handler, Host, Link

ROOM = b"room"  # a row that is written to see whether anything can be


class Journal(Protocol):
    def commit(self, writes: list[tuple[str, bytes, bytes | None]]) -> None: ...

    def read(self, table: str, key: bytes) -> bytes | None: ...

    def rows(self, table: str) -> Any: ...


class KeepsAnswer:
    """The link of somebody whose question is answered once; what is sent on it is kept."""

    __slots__ = ("_answers", "_link", "_request_id", "hello", "is_down", "peer")

    def __init__(self, link: Link, answers: Answers, request_id: int) -> None:
        self._link = link
        self._answers = answers
        self._request_id = request_id
        self.peer, self.is_down, self.hello = link.peer, link.is_down, None

    def keep(self, message: tuple[Any, ...]) -> Link:
        """Keep the answer; the link to send it on."""
        if type(message) is not messages.Failure:
            self._answers.keep(self.peer.process_id, self._request_id, message)
        return self._link

    def send(self, message: tuple[Any, ...]) -> None:
        raise AssertionError("answers leave through the GCS's port, after the commit")


class GcsService:
    """The cluster's tables. See the module's docstring."""

    def __init__(
        self, host: Host, journal: Journal, place_bundles: Place, full: type[Exception], can_grow: bool = True
    ) -> None:
        """``can_grow``: whether further nodes may join, so that what no node can do now waits instead of failing."""
        self._host = host
        self._journal = journal
        self._full = full
        self._writes: list[Write] = []
        self._outgoing: list[Said] = []
        self._facts: dict[Asked, None] = {}  # of this turn: what only the truth may answer
        self.backlog = Backlog()
        self._scheduled = False
        self.kv = KeyValues(self)
        self.jobs = Jobs(self)
        self.nodes = Nodes(self, self._nodes_changed, self._node_lost)
        self.answers = Answers(self)
        self.groups = PlacementGroups(self, place_bundles, lambda: self.nodes.alive(), self._groups_changed)
        self.actors = Actors(self, self._home, self.groups.bundle_node, can_grow, self._actor_ended)
        self.checkpoints = Checkpoints(self, self._incarnation, journal.read)
        self.records = Records()
        self.lineages = Lineages(self)
        self.membership = Membership(self, self.nodes, self.actors, self.groups)
        self._undoing: dict[str, Callable[[bytes, bytes | None], bool]] = {
            "kv": self.kv.take_back,
            "answers": self.answers.take_back,
            "jobs": self.jobs.take_back,
            "actors": self.actors.take_back,
            "groups": self.groups.take_back,
            "checkpoints": self.checkpoints.take_back,
        }
        """By table: makes it as the journal has that row; False where what has happened can't be taken back."""
        self.handlers = self._handlers()
        self.handlers_alone: dict[type, Handler] = {
            messages.ProcessDied: self._on_process_died,
            messages.Goodbye: self._on_goodbye,
        }
        """What it also takes when its loop is its own: a node that hosts it hears of these first."""
        self._load()

    def _handlers(self) -> dict[type, Handler]:
        m, actors, groups, once, door = messages, self.actors, self.groups, self._once, self._door
        put_once = once(self.kv.put)
        return {
            m.KvPut: door(lambda link, message: (self.kv.put if message.overwrite else put_once)(link, message)),
            m.KvGet: self.kv.get,
            m.KvDelete: door(once(self.kv.delete)),
            m.KvKeys: self.kv.keys,
            m.LineageKept: self.lineages.keep,
            m.LineageFind: self.lineages.find,
            m.JobStarted: door(self.jobs.started, lambda message: ("jobs", message.job_id)),
            m.JobEnded: self._acknowledged(lambda _, message: self.job_ended(message.job_id, message.reason)),
            m.NodeRegister: self._on_register,
            m.NodeReport: self.nodes.report,
            m.Heartbeat: lambda link, message: self.membership.heartbeat(self._host.now(), link, message),
            m.NodesList: self.nodes.list_all,
            m.DrainNode: self._on_drain_node,
            m.NodeDrains: self._acknowledged(self.nodes.drains),
            m.NodeDrained: self._acknowledged(self.nodes.drained),
            m.ActorRegister: door(actors.register, lambda message: ("actors", message.spec.actor_id)),
            m.ActorSubscribe: actors.subscribe,
            m.ActorFind: actors.find,
            m.ActorList: actors.list_all,
            m.ActorKill: door(once(actors.kill)),
            m.ActorLink: door(actors.link),
            m.ActorGivesUp: actors.gives_up,
            m.ActorReleased: self._acknowledged(actors.released),
            m.ActorCreated: actors.created,
            m.ActorFailed: self._acknowledged(actors.failed),
            m.ActorWaits: actors.waits,
            m.ActorSpilled: actors.spilled,
            m.ActorExited: self._acknowledged(actors.exited),
            m.ActorUpgrade: door(actors.upgrade),
            m.CheckpointPut: door(self.checkpoints.put),
            m.CheckpointGet: self.checkpoints.get,
            m.LogsHeld: self._on_logs_held,
            m.GroupCreate: door(groups.create, lambda message: ("groups", message.group_id)),
            m.GroupRemove: door(groups.remove),
            m.GroupFind: groups.find,
            m.GroupList: groups.list_all,
            m.GroupSubscribe: groups.subscribe,
            m.BundlesPrepared: groups.prepared,
            m.TaskEvents: lambda _, message: self.records.add(message),
            m.ObjectEvents: self.records.add_objects,
            m.StateQuery: self._on_query,
        }

    def _load(self) -> None:
        for table, core in (
            ("kv", self.kv),
            ("jobs", self.jobs),
            ("actors", self.actors),
            ("groups", self.groups),
            ("checkpoints", self.checkpoints),
            ("lineage", self.lineages),
            ("nodes", self.nodes),
            ("answers", self.answers),
        ):
            for key, value in self._journal.rows(table):
                core.load(key, value)

    def begin(self) -> None:
        """Take up where the last life of the GCS ended (see ``gcs/membership.py``), and watch the nodes from now on."""
        for job in list(self.jobs.jobs.values()):
            if not self.nodes.is_known(job.driver.node_id):
                self.job_ended(job.job_id, "its driver is gone, with the cluster it ran on")
        for owner in self.actors.owners_where(lambda node_id: not self.nodes.is_known(node_id)):
            self.process_died(owner, "it is gone, with the cluster it ran on")
        self.membership.begin(self._host.now(), self._journal.read(META, BOOT))
        for node_id in list(self.nodes.awaited):
            view = self.nodes.views[node_id]
            self.send(self._host.link(view.address), messages.GcsStarted(self.membership.boot))
        self._commit()
        self._tick()

    def _tick(self) -> None:
        self.membership.tick(self._host.now())
        self._host.call_later(limits.heartbeat_period_s, self._tick)

    # -- on a loop of its own ------------------------------------------------------------------------------------------
    def _on_process_died(self, _: Link, message: messages.ProcessDied) -> None:
        self.process_died(message.process_id, message.death)

    def _on_goodbye(self, link: Link, message: messages.Goodbye) -> None:
        if link.hello.role == "node":
            self.nodes.lost(link.peer.node_id, f"it has left ({message.reason})", planned=True)
        self._host.drop_link(link.peer.process_id, message.reason)

    # -- wrappers of handlers ------------------------------------------------------------------------------------------
    def _acknowledged(self, handle: Handler) -> Handler:
        """What is said again until it is answered by Done."""

        def handler(link: Link, message: Any) -> None:
            handle(link, message)
            if message.request_id:
                self._facts[link.peer.process_id, message.request_id] = None
                self.send(link, messages.Done(message.request_id))

        return handler

    def _door(self, handle: Handler, row: Callable[[Any], tuple[str, bytes]] | None = None) -> Handler:
        """What writes on demand: refused before anything has moved while the disk takes nothing.

        Unless it was done before and is only asked again: then ``row`` is in the journal, or the answer is kept.
        """

        def handler(link: Link, message: Any) -> None:
            asker = link.peer.process_id
            if row is not None and self._journal.read(*row(message)) is not None:
                self._facts[asker, message.request_id] = None
            elif self.backlog.reason and self.answers.find(asker, message.request_id) is None:
                link.send(self.backlog.error(message.request_id))
                return
            handle(link, message)

        return handler

    def _once(self, handle: Handler) -> Handler:
        """What has an effect only the first time that it is asked."""

        def handler(link: Link, message: Any) -> None:
            answer = self.answers.find(link.peer.process_id, message.request_id)
            if answer is None:
                handle(KeepsAnswer(link, self.answers, message.request_id), message)
            else:
                self.send(link, answer)

        return handler

    def _on_register(self, link: Link, message: messages.NodeRegister) -> None:
        here = {*message.holds.processes, message.address.process_id}
        node_id = message.address.node_id
        if not self.membership.registered(self._host.now(), link, message):
            return
        for job in self.jobs.on_node(node_id):
            if job.driver.process_id not in here:
                self.job_ended(job.job_id, "its driver ended while its node and the GCS could not talk")
        for owner in self.actors.owners_where(lambda where: where == node_id):
            if owner not in here:
                self.process_died(owner, "it ended while its node and the GCS could not talk")

    # -- the way out ---------------------------------------------------------------------------------------------------
    def persist(self, table: str, key: bytes, value: bytes | None) -> None:
        self._writes.append((table, key, value))
        self._schedule()

    def send(self, link: Link, message: tuple[Any, ...]) -> None:
        if type(link) is KeepsAnswer:
            link = link.keep(message)
        self._outgoing.append((link, message))
        self._schedule()

    def to_node(self, node_id: NodeId, message: tuple[Any, ...]) -> bool:
        link = self.nodes.links.get(node_id)
        if link is None:
            return False
        self.send(link, message)
        return True

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        return self._host.call_later(delay_s, callback)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._host.call_soon(self._commit)

    def _commit(self) -> None:
        self._scheduled = False
        writes, self._writes = self._writes, []
        said, self._outgoing = self._outgoing, []
        facts, self._facts = self._facts, {}
        if writes:
            said = self._write(writes, said, facts)
        elif self.backlog.reason:
            said = self.backlog.hold(said, facts)
        for link, message in said:
            link.send(message)

    def _write(self, writes: list[Write], said: list[Said], facts: dict[Asked, None]) -> list[Said]:
        """Commit; gives what may be said now."""
        try:
            self._journal.commit([*self.backlog.writes, *writes])
        except self._full as error:
            if not self.backlog.reason:
                self._host.call_later(limits.journal_retry_s, self._write_again)
            return self._refused(writes, said, facts, str(error))
        self.checkpoints.committed()
        return [*self.backlog.written(), *said]

    def _write_again(self) -> None:
        """There may be room by now."""
        if not self.backlog.reason:
            return
        try:
            self._journal.commit([*self.backlog.writes, (META, ROOM, str(self._host.now()).encode())])
        except self._full as error:
            self.backlog.reason = str(error)
            self._host.call_later(limits.journal_retry_s, self._write_again)
            return
        for link, message in self.backlog.written():
            link.send(message)

    def _refused(self, writes: list[Write], said: list[Said], facts: dict[Asked, None], reason: str) -> list[Said]:
        """See ``gcs/backlog.py``: what was to be made is taken back, what has happened is kept for later."""
        kept: list[Write] = []
        taken_back: dict[bytes, None] = {}
        for table, key, value in writes:
            undo = self._undoing.get(table)
            if undo is None or not undo(key, self._journal.read(table, key)):
                kept.append((table, key, value))
            else:
                taken_back[key] = None
        return self.backlog.refused(reason, kept, said, taken_back, facts)

    # -- between tables ------------------------------------------------------------------------------------------------
    def _incarnation(self, actor_id: ActorId) -> int | None:
        actor = self.actors.actors.get(actor_id)
        return None if actor is None or actor.state.value == "DEAD" else actor.incarnation

    def _actor_ended(self, actor: Actor, is_dropped: bool) -> None:
        """What a durable actor has left on the nodes' disks. Checkpoints can be asked for as long as its record is."""
        if not actor.spec.checkpoint or not (is_dropped or self._is_log_done_with(actor)):
            return
        if is_dropped:
            self.checkpoints.forget(actor.spec.actor_id)
        for node_id in list(self.nodes.links):
            self.to_node(node_id, messages.LogForget(actor.spec.actor_id, is_dropped))

    @staticmethod
    def _is_log_done_with(actor: Actor) -> bool:
        return bool(actor.end) and actor.end not in messages.ActorEnd.LOOKED_INTO

    def _on_logs_held(self, link: Link, message: messages.LogsHeld) -> None:
        for actor_id in message.actor_ids:
            actor = self.actors.actors.get(actor_id)
            if actor is None or self._is_log_done_with(actor):
                self.send(link, messages.LogForget(actor_id, actor is None))

    def _home(self, owner: Address) -> NodeId | None:
        """Where an actor's placement starts: the node of its creator, else any (nodes pass it on from there)."""
        if self.nodes.takes_work(owner.node_id):
            return owner.node_id
        return next((view.address.node_id for view in self.nodes.alive()), None)

    def _on_drain_node(self, link: Link, message: messages.DrainNode) -> None:
        if self.membership.drain(self._host.now(), message.node_id, message.deadline_s, message.reason):
            self.send(link, messages.Done(message.request_id))
            return
        known = "can't be reached now" if self.nodes.is_known(message.node_id) else "is not alive"
        text = f"node {message.node_id.hex()[:8]} can't be drained: it {known}"
        self.send(link, messages.Failure(message.request_id, "ValueError", text))

    def _nodes_changed(self) -> None:
        self.actors.place_homeless()
        self.groups.retry()

    def _groups_changed(self) -> None:
        self.actors.place_homeless()

    def _node_lost(self, node_id: NodeId, reason: str, planned: bool) -> None:
        self.records.node_lost(node_id)
        self.membership.node_lost(self._host.now(), node_id, reason, planned)
        for job in self.jobs.on_node(node_id):
            self.job_ended(job.job_id, f"its driver's node is gone: {reason}")
        for owner in self.actors.owners_where(lambda where: where == node_id):
            self.process_died(owner, f"its node is gone: {reason}")

    def job_ended(self, job_id: JobId, reason: str) -> None:
        if self.jobs.ended(job_id):
            self.actors.job_ended(job_id)
            self.groups.job_ended(job_id)
            self.lineages.job_ended(job_id)
            for node_id in list(self.nodes.links):
                self.to_node(node_id, messages.JobEnded(job_id, reason))

    def process_died(self, process_id: ProcessId, reason: Any) -> None:
        self.actors.process_died(process_id, getattr(reason, "text", str(reason)))
        self.answers.forget(process_id)

    def link_down(self, link: Link, _reason: str) -> None:
        """A session with a node has ended. The node registers again, or is declared lost."""
        self.nodes.cut_off(link)

    # -- asking --------------------------------------------------------------------------------------------------------
    def _on_query(self, link: Link, message: messages.StateQuery) -> None:
        tables: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "nodes": self._node_rows,
            "jobs": self.jobs.rows,
            "actors": self.actors.rows,
            "groups": lambda: [self._group_row(g.view()) for g in self.groups.groups.values()],
            "tasks": self.records.rows,
            "objects": self.records.object_rows,
            "lineage": self.lineages.table,
        }
        if message.table not in tables:
            text = f"there is no table {message.table!r}; there are {', '.join(tables)}"
            link.send(messages.Failure(message.request_id, "ValueError", text))
            return
        rows = tables[message.table]()
        shown = tuple(rows[: message.limit])
        link.send(messages.StateRows(message.request_id, shown, len(rows) - len(shown)))

    def _node_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "node_id": view.address.node_id.hex(),
                "alive": view.alive,
                "state": view.state,
                "drain": view.drain,
                "hostname": view.hostname,
                "total": view.total,
                "available": view.available,
                "labels": view.labels,
                "death": view.death,
            }
            for view in self.nodes.views.values()
        ]

    @staticmethod
    def _group_row(view: messages.GroupView) -> dict[str, Any]:
        return {
            "placement_group_id": view.group_id.hex(),
            "name": view.name,
            "state": view.state,
            "strategy": view.strategy,
            "reason": view.reason,
        }

    def check(self) -> None:
        self.nodes.check()
        self.membership.check()
        self.actors.check()
        self.groups.check()
        self.lineages.check()
