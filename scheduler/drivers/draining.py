"""How a node drains: what it looks at, what it tells its actors, the owners of its objects, and the GCS.

``scheduler/drain.py`` decides. ``NodeService`` derives from this; what it hosts is in ``node.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorlib.scheduler import policy
from actorlib.scheduler.drain import Drain, End, Leave, Remaining, Resident
from actorlib.scheduler.drivers.membership import Member
from actorlib.transport import limits, messages
from actorlib.transport.ids import ActorId, NodeId, ProcessId
from actorlib.transport.link import Handler, Link
from actorlib.transport.messages import Resources

if TYPE_CHECKING:
    from actorlib.scheduler.drivers.node import Hosted, Hosting


class Draining(Member):
    """A node that can be asked to leave. See the module's docstring."""

    _hosted: dict[Hosted, Hosting]
    _actor_of: dict[ProcessId, Hosted]
    _drivers: dict[ProcessId, Any]
    workers: Any

    def init_draining(self) -> None:
        self.draining = Drain()
        # Actors that have left, and whose next incarnation isn't there yet, or hasn't got its checkpoint from here:
        self._underway: dict[ActorId, tuple[int, bool]] = {}  # its incarnation here, and whether its files are needed
        self._objects_told_at = -limits.drain_objects_told_every_s

    @property
    def draining_handlers(self) -> dict[type, Handler]:
        m = messages
        return {
            m.MustDrain: lambda _, message: self.drain(message.deadline_s, message.reason),
            m.WorkerMoves: self._on_worker_moves,
            m.ActorUpdate: self._on_moved_actor,
            m.CheckpointTaken: self._on_checkpoint_taken,
            m.ObjectsLeave: self._on_objects_leave,
        }

    def drain(self, deadline_s: float, reason: str) -> None:
        """Take nothing any more and leave within ``deadline_s``. Again: the earlier deadline counts."""
        now = self._now()
        if self.draining.begin(now, min(max(0.0, deadline_s), limits.drain_deadline_s_max), reason):
            self.fact(messages.NodeDrains(self.epoch, deadline_s, reason))
            self._give_back_tasks()
            self.leases.begin_drain(now, reason)
            self._look()

    def _why(self) -> str:
        return f"node {self.loop.address.node_id.hex()[:8]} drains ({self.draining.reason})"

    def _give_back_tasks(self) -> None:
        """What workers have not started goes back to its callers, who send it elsewhere."""
        for lease in self.leases.leases.values():
            link = self.loop.accepted_link(lease.worker) if lease.worker is not None else None
            if link is not None and not lease.is_actor:
                link.send(messages.LeaveNode(self._why()))

    def _look(self) -> None:
        if not self.draining.is_on or self.stopping is not None:
            return
        for effect in self.draining.look(self._now(), self._remaining()):
            if type(effect) is Leave:
                self._send_off(self._hosted[effect.actor_id, effect.incarnation])
            elif type(effect) is End:
                self._end(effect)
        self.loop.call_later(limits.drain_look_period_s, self._look)

    # -- what is left --------------------------------------------------------------------------------------------------
    def _remaining(self) -> Remaining:
        actors = tuple(self._resident(hosting) for hosting in self._hosted.values() if hosting.worker is not None)
        tasks = sum(not lease.is_actor for lease in self.leases.leases.values())
        return Remaining(actors, tasks, len(self._drivers), self._tell_owners(), len(self._underway))

    def _resident(self, hosting: Hosting) -> Resident:
        spec = hosting.order.spec
        can_leave = bool(spec.checkpoint) or spec.detached or spec.max_restarts != 0
        room = self._room_for(hosting) if can_leave else None
        return Resident(
            spec.actor_id, hosting.order.incarnation, spec.name or spec.class_name, can_leave, room is not None
        )

    def _room_for(self, hosting: Hosting) -> NodeId | None:
        """A node that could take the actor at once. Those of a placement group go where that goes, when we are gone."""
        spec = hosting.order.spec
        if spec.strategy and spec.strategy[0] == "group":
            return None
        return policy.has_room_elsewhere(
            self.views(), self.loop.address.node_id, spec.resources_to_place, spec.strategy
        )

    def _tell_owners(self) -> int:
        """How many objects must be kept elsewhere; from time to time their owners are told."""
        ours = {self.loop.address.process_id, *self.workers.workers, *self._drivers}
        by_owner: dict[ProcessId, list[Any]] = {}
        for service in self._others:
            if hasattr(service, "kept_for_others"):
                by_owner.update(service.kept_for_others(ours))
        count = sum(map(len, by_owner.values()))
        if count and self._now() - self._objects_told_at >= limits.drain_objects_told_every_s:
            self._objects_told_at = self._now()
            most = limits.drain_objects_per_message_max
            rows = tuple((owner, tuple(ids[:most])) for owner, ids in by_owner.items())
            for address in self.node_addresses():
                if address.node_id != self.loop.address.node_id:
                    self.loop.link(address).send(messages.ObjectsLeave(self.loop.address, rows))
        return count

    def _on_objects_leave(self, _: Link, message: messages.ObjectsLeave) -> None:
        """Another node drains: those of our processes whose objects lie there must hear of it."""
        for owner, object_ids in message.objects:
            link = self.loop.accepted_link(owner)
            if link is not None:
                link.send(message._replace(objects=((owner, object_ids),)))

    # -- actors that leave ---------------------------------------------------------------------------------------------
    def _send_off(self, hosting: Hosting) -> None:
        link = self.loop.accepted_link(hosting.worker) if hosting.worker is not None else None
        if link is None:
            return  # it is dead; its end will be reported
        room = self._room_for(hosting)
        if room is not None:
            self.spilled(room, hosting.order.spec.resources_to_place)
        link.send(messages.LeaveNode(f"{self._why()}, so its actor goes on elsewhere"))

    def spilled(self, node_id: NodeId, demand: Resources) -> None:
        raise NotImplementedError

    def _on_worker_moves(self, link: Link, message: messages.WorkerMoves) -> None:
        """It runs nothing any more. A durable actor may go on elsewhere at once: its callers will ask again for what
        they lack. What another one has said last must get there first, so the end of its process is waited for.
        """
        link.send(messages.Done(message.request_id))
        self.workers.stopping(link.peer.process_id, message.reason)
        hosted = self._actor_of.get(link.peer.process_id)
        if hosted is None:
            return
        hosting = self._hosted[hosted]
        hosting.moved, hosting.reason = True, message.reason
        if hosting.order.spec.checkpoint and not hosting.intended:
            actor_id, incarnation = hosted
            self._underway[actor_id] = (incarnation, message.is_apart)
            del self._hosted[hosted], self._actor_of[link.peer.process_id]
            here, worker = self.loop.address.node_id, link.peer.process_id
            death = messages.Death(worker, here, link.hello.os_pid, None, None, False, message.reason, "")
            self.fact(messages.ActorExited(actor_id, incarnation, False, death, moved=True))
            self.to_gcs(messages.ActorSubscribe(actor_id))

    def _on_moved_actor(self, _: Link, message: messages.ActorUpdate) -> None:
        """One that has left is there again, or never will be: nobody asks for its state here any more."""
        if message.actor_id not in self._underway:
            return
        incarnation, needs_files = self._underway[message.actor_id]
        is_there = message.state == "ALIVE" and message.incarnation > incarnation
        if message.state == "DEAD" or (is_there and not needs_files):
            del self._underway[message.actor_id]

    def _on_checkpoint_taken(self, _: Link, message: messages.CheckpointTaken) -> None:
        self._underway.pop(message.actor_id, None)

    # -- the end -------------------------------------------------------------------------------------------------------
    def _end(self, end: End) -> None:
        self.fact(messages.NodeDrained(self.epoch, end.is_empty, end.text))
        give_up_at = self._now() + limits.last_word_s

        def leave_once_heard() -> None:
            if self._facts and self._now() < give_up_at:
                self.loop.call_later(limits.drain_look_period_s, leave_once_heard)
            elif self.stopping is None:
                self.leave_cluster(end.text)

        leave_once_heard()

    def leave_cluster(self, reason: str) -> None:
        """The process is to end."""
        self.stopping = reason
