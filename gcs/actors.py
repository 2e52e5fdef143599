"""Actors: their specs, where each lives, how often each may start again, and who wants to know.

States: PENDING (to be placed), ALIVE, RESTARTING (its worker was lost, to be placed again), DEAD. ``incarnation``
counts starts from 0; what speaks of another incarnation than the current one is stale and ignored, so nothing that an
old worker does can reach the record.

Linked actors end together: when one is DEAD for another reason than that it wanted to or was let go, so are those that
it is linked with, and those that they are.

Names are unique in a namespace among actors that are not DEAD; claiming a name and creating the record is one step.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Any

from actorlib.gcs.journal import Port, Stories
from actorlib.transport import codec, limits, messages
from actorlib.transport.ids import ActorId, GroupId, JobId, NodeId, ProcessId
from actorlib.transport.link import NOWHERE, Address, Link
from actorlib.transport.messages import ActorEnd, ActorSpec, ActorUpdate, Death

TABLE = "actors"
PLACE_AGAIN_S = 0.2


class ActorState(enum.Enum):
    PENDING = "PENDING"
    ALIVE = "ALIVE"
    RESTARTING = "RESTARTING"
    DEAD = "DEAD"


MOVES = {
    ActorState.PENDING: {ActorState.ALIVE, ActorState.DEAD, ActorState.RESTARTING},
    ActorState.ALIVE: {ActorState.RESTARTING, ActorState.DEAD},
    ActorState.RESTARTING: {ActorState.ALIVE, ActorState.DEAD, ActorState.RESTARTING},
    ActorState.DEAD: set(),
}


class IllegalMove(Exception):
    """A lifecycle went where it must not; the story tells how."""


class Actor:
    """The record of one actor."""

    __slots__ = (
        "death",
        "end",
        "error",
        "hops",
        "incarnation",
        "links",
        "moved",
        "node",
        "reason",
        "released",
        "restarts",
        "spec",
        "state",
        "subscribers",
        "worker",
    )

    def __init__(self, spec: ActorSpec) -> None:
        self.spec = spec
        self.state = ActorState.PENDING
        self.incarnation = 0
        self.restarts = 0
        self.worker = NOWHERE
        self.node: NodeId | None = None
        self.reason = "waiting to be placed"
        self.death: Death | None = None
        self.error: Any = None
        self.end = ""
        self.links: dict[ActorId, None] = {}
        self.released = False
        self.moved = False  # its last incarnation left a node that drains, in good order
        self.hops = 0
        self.subscribers: dict[ProcessId, Link] = {}

    def update(self) -> ActorUpdate:
        left = -1 if self.spec.max_restarts < 0 else max(0, self.spec.max_restarts - self.restarts)
        return ActorUpdate(
            self.spec.actor_id,
            self.incarnation,
            self.state.value,
            self.worker,
            self.reason,
            self.death,
            self.error,
            left,
            self.end,
            self.moved,
        )


class Actors:
    """All actors. See the module's docstring."""

    def __init__(
        self,
        port: Port,
        place: Callable[[Address], NodeId | None],
        bundle_node: Callable[[GroupId, int], NodeId | str | None],
        can_grow: bool = True,
        ended: Callable[[Actor, bool], None] = lambda _actor, _is_dropped: None,
    ) -> None:
        """``ended``: an actor is dead for good; again when its record is dropped."""
        self._port = port
        self._place = place
        self._bundle_node = bundle_node
        self._can_grow = can_grow
        self._on_ended = ended
        self.actors: dict[ActorId, Actor] = {}
        self.names: dict[tuple[str, str], ActorId] = {}
        self._dead: dict[ActorId, None] = {}
        self._homeless: dict[ActorId, None] = {}
        self._ending: deque[Actor] = deque()
        self._unsettled: dict[ActorId, None] = {}  # placed before a restart: some node that is awaited may be at it
        self._early: dict[ActorId, list[Link]] = {}  # who asked for an actor that is not registered yet
        self.stories = Stories()

    # -- records -------------------------------------------------------------------------------------------------------
    def load(self, _key: bytes, value: bytes) -> None:
        registered, update, *more = codec.decode_batch(value)
        actor = Actor(registered.spec)
        extra = {type(message): message for message in more}
        actor.released = messages.ActorReleased in extra
        actor.state = ActorState(update.state)
        actor.incarnation, actor.reason = update.incarnation, update.reason
        actor.death, actor.error, actor.worker = update.death, update.error, update.worker
        actor.node = update.worker.node_id or None
        actor.end, actor.moved = update.end, update.moved
        if messages.ActorLinks in extra:
            actor.links = dict.fromkeys(extra[messages.ActorLinks].others)
        if update.restarts_left >= 0:
            actor.restarts = actor.spec.max_restarts - update.restarts_left
        self.actors[actor.spec.actor_id] = actor
        if actor.state is ActorState.DEAD:
            self._dead[actor.spec.actor_id] = None
            return
        if actor.spec.name:
            self.names[actor.spec.namespace, actor.spec.name] = actor.spec.actor_id
        if actor.state is not ActorState.ALIVE:
            self._unsettled[actor.spec.actor_id] = None

    def _persist(self, actor: Actor) -> None:
        record: list[Any] = [messages.ActorRegister(0, actor.spec, False), actor.update()]
        if actor.links:
            record.append(messages.ActorLinks(tuple(actor.links)))
        if actor.released:
            record.append(messages.ActorReleased(actor.spec.actor_id))
        self._port.persist(TABLE, actor.spec.actor_id, codec.encode_batch(record)[0])

    def _changed(self, actor: Actor) -> None:
        self._persist(actor)
        update = actor.update()
        for link in actor.subscribers.values():
            self._port.send(link, update)

    def _move(self, actor: Actor, state: ActorState, reason: str) -> None:
        self.stories.tell(actor.spec.actor_id, f"{state.value}/{actor.incarnation} ({reason})")
        if state not in MOVES[actor.state]:
            raise IllegalMove(
                f"actor {actor.spec.actor_id.hex()}: {actor.state.value} -> {state.value}: "
                f"{self.stories.story(actor.spec.actor_id)}"
            )
        actor.state = state
        actor.reason = reason

    # -- registering ---------------------------------------------------------------------------------------------------
    def register(self, link: Link, message: messages.ActorRegister) -> None:
        spec = message.spec
        known = self.actors.get(spec.actor_id)
        if known is not None:  # the same request again, maybe of a durable actor in its next incarnation
            if known.spec.owner != spec.owner and self._has_living_parent(known):
                known.spec = known.spec._replace(owner=spec.owner)
                self._persist(known)
            self._port.send(link, messages.ActorRegistered(message.request_id, False, known.spec))
            return
        if spec.name and not self._claim(link, message):
            return
        actor = Actor(spec)
        self.actors[spec.actor_id] = actor
        self.stories.tell(spec.actor_id, "registered")
        self._persist(actor)
        self._port.send(link, messages.ActorRegistered(message.request_id, False, spec))
        for early in self._early.pop(spec.actor_id, ()):
            actor.subscribers[early.peer.process_id] = early
            self._port.send(early, actor.update())
        self._start(actor)

    def _claim(self, link: Link, message: messages.ActorRegister) -> bool:
        spec = message.spec
        holder = self.names.get((spec.namespace, spec.name))
        if holder is None:
            self.names[spec.namespace, spec.name] = spec.actor_id
            return True
        existing = self.actors[holder].spec
        if message.get_if_exists:
            self._port.send(link, messages.ActorRegistered(message.request_id, True, existing))
        else:
            text = (
                f"the name {spec.name!r} is taken in namespace {spec.namespace!r} by a {existing.class_name}; choose "
                "another name, pass get_if_exists=True to use that actor, or kill it first"
            )
            self._port.send(link, messages.Failure(message.request_id, "ValueError", text))
        return False

    def take_back(self, key: bytes, kept: bytes | None) -> bool:
        """The disk refused a write: an actor that was to be registered is not. What has happened to others has."""
        actor_id = ActorId(key)
        if kept is not None or actor_id not in self.actors:
            return kept is None and actor_id not in self.actors
        actor = self.actors.pop(actor_id)
        if self.names.get((actor.spec.namespace, actor.spec.name)) == actor_id:
            del self.names[actor.spec.namespace, actor.spec.name]
        for where in (self._dead, self._homeless, self._unsettled):
            where.pop(actor_id, None)
        for link in actor.subscribers.values():
            self.subscribe(link, messages.ActorSubscribe(actor_id))
        return True

    def subscribe(self, link: Link, message: messages.ActorSubscribe) -> None:
        actor = self.actors.get(message.actor_id)
        if actor is None:
            if message.actor_id not in self._early:
                self._port.call_later(limits.unknown_actor_grace_s, lambda: self._stay_unknown(message.actor_id))
            self._early.setdefault(message.actor_id, []).append(link)
            return
        actor.subscribers[link.peer.process_id] = link
        self._port.send(link, actor.update())

    def _stay_unknown(self, actor_id: ActorId) -> None:
        text = (
            "the GCS does not know this actor: it belonged to another session, or its record was dropped; take a "
            "handle of this session, from get_actor(name) or from whoever made the actor"
        )
        for link in self._early.pop(actor_id, ()):
            self._port.send(link, ActorUpdate(actor_id, 0, "DEAD", NOWHERE, text, None, None, 0))

    def find(self, link: Link, message: messages.ActorFind) -> None:
        actor_id = self.names.get((message.namespace, message.name))
        if actor_id is None:
            text = (
                f"there is no actor named {message.name!r} in namespace {message.namespace!r}: it was never created, "
                "has died, or lives in another namespace"
            )
            self._port.send(link, messages.Failure(message.request_id, "ValueError", text))
        else:
            found = messages.ActorRegistered(message.request_id, True, self.actors[actor_id].spec)
            self._port.send(link, found)

    def list_all(self, link: Link, message: messages.ActorList) -> None:
        names = tuple(key for key in self.names if message.namespace in ("", key[0]))
        self._port.send(link, messages.ActorNames(message.request_id, names))

    # -- placing -------------------------------------------------------------------------------------------------------
    def _start(self, actor: Actor, node_id: NodeId | None = None) -> None:
        """Order a node to start the current incarnation; without a node, wait for one."""
        strategy = actor.spec.strategy
        if node_id is None and strategy and strategy[0] == "group":
            found = self._bundle_node(strategy[1], strategy[2])
            if isinstance(found, str):
                actor.reason = found
                self._homeless[actor.spec.actor_id] = None
                return
            node_id = found
            if node_id is None:
                self._die(actor, "its placement group was removed", None, ActorEnd.UNPLACEABLE)
                return
        if node_id is None:
            node_id = self._place(actor.spec.owner)
        order = messages.StartActor(actor.spec, actor.incarnation, actor.hops)
        if node_id is None or not self._port.to_node(node_id, order):
            actor.reason = "no node is alive that could host it"
            self._homeless[actor.spec.actor_id] = None
            if node_id is not None:  # whoever named that node has not heard yet that it is gone
                self._port.call_later(PLACE_AGAIN_S, self.place_homeless)
            return
        actor.node = node_id

    def place_homeless(self) -> None:
        """Nodes or placement groups have changed: try again to place what could not be placed."""
        homeless, self._homeless = self._homeless, {}
        for actor_id in homeless:
            actor = self.actors.get(actor_id)
            if actor is not None and actor.state in (ActorState.PENDING, ActorState.RESTARTING):
                self._start(actor)

    def _current(self, actor_id: ActorId, incarnation: int) -> Actor | None:
        actor = self.actors.get(actor_id)
        if actor is None or actor.incarnation != incarnation or actor.state is ActorState.DEAD:
            return None
        return actor

    def created(self, link: Link, message: messages.ActorCreated) -> None:
        actor = self._current(message.actor_id, message.incarnation)
        if actor is None:
            stop = messages.StopActor(message.actor_id, message.incarnation, True, "this incarnation is not wanted")
            self._port.send(link, stop)
            return
        if actor.state is ActorState.ALIVE:
            if actor.worker.process_id != message.worker.process_id:
                stop = messages.StopActor(message.actor_id, message.incarnation, True, "it lives elsewhere already")
                self._port.send(link, stop)
            return
        self._unsettled.pop(message.actor_id, None)
        self._homeless.pop(message.actor_id, None)
        self._move(actor, ActorState.ALIVE, "")
        actor.worker = message.worker
        actor.node = message.worker.node_id
        actor.hops = 0
        self._changed(actor)
        if actor.released:
            self._stop(actor, False, "no handle to it is left")

    def waits(self, _: Link, message: messages.ActorWaits) -> None:
        actor = self.actors.get(message.actor_id)
        if actor is None or actor.state not in (ActorState.PENDING, ActorState.RESTARTING):
            return
        actor.reason = message.reason
        if message.infeasible:
            actor.reason = messages.INFEASIBLE + message.reason.removeprefix(messages.INFEASIBLE)
            if not self._can_grow:
                self._stop(actor, True, actor.reason)
                self._die(actor, actor.reason, None, ActorEnd.UNPLACEABLE)
                return
        for link in actor.subscribers.values():
            self._port.send(link, actor.update())

    def spilled(self, _: Link, message: messages.ActorSpilled) -> None:
        actor = self._current(message.actor_id, message.incarnation)
        if actor is not None and actor.state is not ActorState.ALIVE:
            actor.hops = message.hops
            self._start(actor, message.node.node_id)

    def failed(self, _: Link, message: messages.ActorFailed) -> None:
        actor = self._current(message.actor_id, message.incarnation)
        if actor is not None and actor.state is not ActorState.ALIVE:
            actor.error = message.error
            self._stop(actor, True, message.reason)
            self._die(actor, message.reason, None, ActorEnd.FAILED)

    def gives_up(self, link: Link, message: messages.ActorGivesUp) -> None:
        actor = self._current(message.actor_id, message.incarnation)
        if actor is not None:
            actor.error = message.error
            self._stop(actor, True, message.reason)
            self._die(actor, message.reason, None, ActorEnd.FAILED)
        self._port.send(link, messages.Done(message.request_id))

    def upgrade(self, link: Link, message: messages.ActorUpgrade) -> None:
        """The next incarnation is made of another class."""
        actor = self._current(message.actor_id, message.incarnation)
        if actor is None:
            text = f"incarnation {message.incarnation} of this actor is not the current one"
            self._port.send(link, messages.Failure(message.request_id, "ActorDiedError", text))
            return
        actor.spec = actor.spec._replace(
            class_id=message.class_id, class_name=message.class_name, methods=message.methods
        )
        self.stories.tell(message.actor_id, f"upgraded to {message.class_name}")
        self._persist(actor)
        self._port.send(link, messages.Done(message.request_id))

    # -- ending --------------------------------------------------------------------------------------------------------
    def exited(self, _: Link | None, message: messages.ActorExited) -> None:
        actor = self._current(message.actor_id, message.incarnation)
        if actor is not None:
            actor.moved = message.moved
            self._exited(actor, message.intended, message.death, message.moved)

    def _exited(self, actor: Actor, intended: bool, death: Death, planned: bool = False) -> None:
        """Its worker is gone. ``planned``: by no fault of its own, which does not count as a restart."""
        limit = actor.spec.max_restarts
        if intended or actor.released:
            end = ActorEnd.RELEASED if actor.released else ActorEnd.EXITED
            self._die(actor, actor.reason or death.text, None if intended and not death.text else death, end)
        elif planned and (
            actor.spec.detached or limit != 0 or actor.spec.checkpoint or actor.state is ActorState.PENDING
        ):
            self._restart(actor, death, counts=False)
        elif limit < 0 or actor.restarts < limit:
            self._restart(actor, death)
        else:
            tried = "" if limit == 0 else f" (restarted {actor.restarts} times, max_restarts={limit})"
            self._die(actor, f"its process ended{tried}", death, ActorEnd.CRASHED)

    def _restart(self, actor: Actor, death: Death, counts: bool = True) -> None:
        actor.restarts += counts
        actor.incarnation += 1
        actor.death = death
        actor.worker = NOWHERE
        reason = "its process ended and it is being restarted" if counts else f"it is on its way: {death.text}"
        self._move(actor, ActorState.RESTARTING, reason)
        self._changed(actor)
        self._start(actor)

    def _die(self, actor: Actor, reason: str, death: Death | None, end: str) -> None:
        self._move(actor, ActorState.DEAD, reason)
        actor.death = death
        actor.end = end
        actor.worker = NOWHERE
        if actor.spec.name and self.names.get((actor.spec.namespace, actor.spec.name)) == actor.spec.actor_id:
            del self.names[actor.spec.namespace, actor.spec.name]
        self._changed(actor)
        actor.subscribers.clear()
        self._unsettled.pop(actor.spec.actor_id, None)
        self._homeless.pop(actor.spec.actor_id, None)
        self._dead[actor.spec.actor_id] = None
        self._on_ended(actor, False)
        while len(self._dead) > limits.dead_actors_kept_max:
            oldest = next(iter(self._dead))
            del self._dead[oldest]
            self._on_ended(self.actors.pop(oldest), True)
            self._port.persist(TABLE, oldest, None)
        parent_id = actor.spec.actor_id
        self.end_where(
            lambda a: (a.spec.extra or {}).get("parent_actor") == parent_id and not a.spec.detached,
            f"the durable actor that made it is gone ({reason})",
        )
        if end not in ActorEnd.NORMAL:
            self._end_linked(actor)

    def _end_linked(self, actor: Actor) -> None:
        """Those that this one is linked with; they queue up here, since a chain of links may be long."""
        self._ending.append(actor)
        if len(self._ending) == 1:
            while self._ending:
                self._end_neighbours(self._ending[0])
                self._ending.popleft()

    def _end_neighbours(self, actor: Actor) -> None:
        how = f"{actor.reason}: {actor.death.text}" if actor.death is not None else actor.reason
        reason = f"it was linked with {actor.spec.class_name} ({actor.spec.actor_id.hex()}), which is dead: {how}"
        for actor_id in actor.links:
            other = self.actors.get(actor_id)
            if other is not None and other.state is not ActorState.DEAD:
                self._stop(other, True, reason)
                self._die(other, reason, None, ActorEnd.LINKED)

    def link(self, link: Link, message: messages.ActorLink) -> None:
        """Tie two actors together. One that is dead already takes the other with it, unless its end was normal."""
        first, second = self.actors.get(message.first), self.actors.get(message.second)
        if first is None or second is None or first is second:
            text = "an actor can't be linked with itself" if first is second and first else "no such actor is known"
            self._port.send(link, messages.Failure(message.request_id, "ValueError", f"link(): {text}"))
            return
        for actor, other in ((first, second), (second, first)):
            if actor.state is not ActorState.DEAD and other.spec.actor_id not in actor.links:
                actor.links[other.spec.actor_id] = None
                self._persist(actor)
        for actor, other in ((first, second), (second, first)):
            if actor.state is ActorState.DEAD and actor.end not in ActorEnd.NORMAL:
                actor.links[other.spec.actor_id] = None
                self._end_linked(actor)
        self._port.send(link, messages.Done(message.request_id))

    def _stop(self, actor: Actor, kill: bool, reason: str) -> None:
        if actor.node is not None:
            order = messages.StopActor(actor.spec.actor_id, actor.incarnation, kill, reason)
            self._port.to_node(actor.node, order)

    def kill(self, link: Link, message: messages.ActorKill) -> None:
        actor = self.actors.get(message.actor_id)
        meant = actor is not None and message.incarnation in (-1, actor.incarnation)
        if actor is not None and meant and actor.state is not ActorState.DEAD:
            self._stop(actor, True, message.reason or "killed with kill()")
            if message.no_restart or actor.restarts >= actor.spec.max_restarts >= 0:
                self._die(actor, f"it was {message.reason or 'killed with kill(handle)'}", None, ActorEnd.KILLED)
            else:
                death = Death(
                    actor.worker.process_id,
                    actor.worker.node_id,
                    0,
                    None,
                    9,
                    False,
                    message.reason or "killed with kill(no_restart=False)",
                    "",
                )
                actor.moved = False
                self._restart(actor, death)
        self._port.send(link, messages.Done(message.request_id))

    def released(self, _: Link | None, message: messages.ActorReleased) -> None:
        """The last handle is gone: it ends when its queue is drained. A pending one ends once it is there."""
        actor = self.actors.get(message.actor_id)
        if actor is None or actor.state is ActorState.DEAD or actor.spec.detached or actor.released:
            return
        actor.released = True
        actor.reason = "no handle to it is left"
        self._persist(actor)
        if actor.state is ActorState.ALIVE:
            self._stop(actor, False, actor.reason)

    def end_where(self, condition: Callable[[Actor], bool], reason: str) -> None:
        """Kill all actors that ``condition`` picks (the end of a job, of an owner)."""
        for actor in list(self.actors.values()):
            if actor.state is not ActorState.DEAD and condition(actor):
                self._stop(actor, True, reason)
                self._die(actor, reason, None, ActorEnd.OWNERLESS)

    def job_ended(self, job_id: JobId) -> None:
        self.end_where(lambda a: a.spec.job_id == job_id and not a.spec.detached, "its job has ended")

    def process_died(self, process_id: ProcessId, text: str) -> None:
        reason = (
            f"its owner, process {process_id.hex()[:8]}, is gone ({text}); an actor that is to outlive who made it "
            "needs a name and lifetime='detached'"
        )
        self.end_where(
            lambda a: a.spec.owner.process_id == process_id and not a.spec.detached and not self._has_living_parent(a),
            reason,
        )
        for actor in self.actors.values():
            actor.subscribers.pop(process_id, None)

    def _has_living_parent(self, actor: Actor) -> bool:
        """Whether a durable actor made it, which comes back when its process ends and knows it then as before."""
        parent = self.actors.get((actor.spec.extra or {}).get("parent_actor", b""))
        return parent is not None and parent.state is not ActorState.DEAD

    def node_lost(self, node_id: NodeId, reason: str, planned: bool = False) -> None:
        for actor in list(self.actors.values()):
            if actor.node == node_id and actor.state is not ActorState.DEAD:
                self._lost_with(actor, f"its node is gone: {reason}", planned)

    def _lost_with(self, actor: Actor, text: str, planned: bool) -> None:
        node_id = actor.node or NodeId(b"")
        death = Death(actor.worker.process_id, node_id, 0, None, None, False, text, "")
        actor.node = None
        actor.moved = False
        self._exited(actor, False, death, planned)

    # -- after a restart of the GCS ------------------------------------------------------------------------------------
    def homes(self) -> dict[NodeId, None]:
        """The nodes that actors are thought to live on."""
        living = (actor.node for actor in self.actors.values() if actor.state is not ActorState.DEAD)
        return {node_id: None for node_id in living if node_id is not None}

    def owners_where(self, is_meant: Callable[[NodeId], bool]) -> list[ProcessId]:
        """Processes on such nodes that own actors which end with them."""
        living = (a for a in self.actors.values() if a.state is not ActorState.DEAD and not a.spec.detached)
        return list({a.spec.owner.process_id: None for a in living if is_meant(a.spec.owner.node_id)})

    def settle(self) -> None:
        """No node is awaited any more: what none of them is at is placed anew."""
        unsettled, self._unsettled = self._unsettled, {}
        self._homeless.update(unsettled)
        self.place_homeless()

    def reconcile(self, link: Link, node_id: NodeId, hosted: tuple[messages.Hosted, ...]) -> None:
        """A node says what it is at: what it should not be at is stopped, what it should be and is not has ended."""
        at: dict[ActorId, None] = {}
        for actor_id, incarnation, worker in hosted:
            actor = self._current(actor_id, incarnation)
            if actor is None:
                self._port.send(link, messages.StopActor(actor_id, incarnation, True, "this incarnation is not wanted"))
                continue
            at[actor_id] = None
            if worker != NOWHERE:
                self.created(link, messages.ActorCreated(actor_id, incarnation, worker))
                if actor.released:  # the order to end may have been lost
                    self._stop(actor, False, actor.reason)
            elif actor.state is not ActorState.ALIVE:
                self._unsettled.pop(actor_id, None)
                self._homeless.pop(actor_id, None)
                actor.node = node_id
            else:
                self._port.send(link, messages.StopActor(actor_id, incarnation, True, "it lives elsewhere already"))
        for actor in list(self.actors.values()):
            if actor.node != node_id or actor.spec.actor_id in at:
                continue
            if actor.state is ActorState.ALIVE:
                self._lost_with(actor, "its worker ended while its node and the GCS could not talk", False)
            elif actor.state is not ActorState.DEAD and actor.spec.actor_id not in self._homeless:
                self._start(actor, node_id)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "actor_id": actor.spec.actor_id.hex(),
                "class_name": actor.spec.class_name,
                "state": actor.state.value,
                "name": actor.spec.name,
                "namespace": actor.spec.namespace,
                "job_id": actor.spec.job_id.hex(),
                "node_id": (actor.node or b"").hex(),
                "worker_id": actor.worker.process_id.hex(),
                "restarts": actor.restarts,
                "reason": actor.reason,
                "death": actor.death.text if actor.death is not None else "",
            }
            for actor in reversed(self.actors.values())
        ]

    def check(self) -> None:
        for key, actor_id in self.names.items():
            actor = self.actors[actor_id]
            assert (actor.spec.namespace, actor.spec.name) == key, "a name that leads to another actor"
            assert actor.state is not ActorState.DEAD, "a name of a dead actor"
        for actor in self.actors.values():
            limit = actor.spec.max_restarts
            assert limit < 0 or actor.restarts <= limit or actor.state is ActorState.DEAD, "restarted too often"
            assert actor.state is not ActorState.ALIVE or actor.worker is not NOWHERE, "alive nowhere"
