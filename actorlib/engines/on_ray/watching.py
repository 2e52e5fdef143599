"""Monitors, links and dead letters on Ray.

One actor of ours for the whole cluster, the watcher, asks Ray's tables what became of those that somebody monitors or
has linked. It is detached, so that links hold when whoever made them is gone; it keeps no actor alive; links stand in
Ray's key-value table, so that the watcher's own death loses none; and it ends when all jobs are over and nothing is
left to watch.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from actorlib import serialization
from actorlib.engine import DeadLetter, Down
from actorlib.engines.on_ray import ends

NAME, NAMESPACE = "actorlib:watcher", "actorlib"
LINKS = b"actorlib-links"
LOOK_EVERY_S = 0.2
JOBS_EVERY_LOOKS = 25
ONE_BY_ONE_MAX = 10  # above that, all of Ray's table is cheaper
MONITORS_MAX = 100_000
STARTS_MAX = 3
OUT_MAX = 1000  # monitors of one process that are kept for cancelling before those that have told are dropped
Body = tuple[str, str, Any]  # id, class name, and what makes a handle that does not count


class Watcher:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[dict[str, Any]]]] = {}
        self._bodies: dict[str, Body] = {}
        self._links: dict[str, dict[str, None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._jobs: dict[str, None] = {}

    async def begin(self) -> None:
        """Asked by each process before it relies on this actor."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
            for first, second in _kept_links():
                self._tie(first, second)

    # -- what others ask -----------------------------------------------------------------------------------------------
    async def down(self, actor_id: str, class_name: str) -> Down:
        await self.begin()
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(actor_id, []).append(future)
        return ends.down(actor_id, class_name, await future)

    async def relay(self, target: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Call an actor in its own place: Ray never ends an actor while a call that it has made of itself waits."""
        getattr(_uncounted(target), method).remote(*args, **kwargs)

    async def link(self, first: Body, second: Body) -> None:
        await self.begin()
        for actor_id, _, _ in (first, second):
            if not _rows([actor_id]).get(actor_id):
                raise ValueError(f"no such actor is known: {actor_id}")
        _keep_link(first, second)
        self._tie(first, second)

    def _tie(self, first: Body, second: Body) -> None:
        for one, other in ((first, second), (second, first)):
            self._bodies[one[0]] = one
            self._links.setdefault(one[0], {})[other[0]] = None

    # -- what became of them -------------------------------------------------------------------------------------------
    async def _look(self) -> None:
        looks = 0
        while True:
            watched = list(dict.fromkeys([*self._waiting, *self._links]))
            for actor_id, row in _rows(watched).items():
                if not row or row.get("State") == "DEAD":
                    self._ended(actor_id, row)
            if looks % JOBS_EVERY_LOOKS == 0:
                self._look_at_jobs()
            looks += 1
            await asyncio.sleep(LOOK_EVERY_S)

    def _ended(self, actor_id: str, row: dict[str, Any]) -> None:
        for future in self._waiting.pop(actor_id, ()):
            if not future.done():
                future.set_result(row)
        others = self._links.pop(actor_id, {})
        body = self._bodies.pop(actor_id, None)
        if not others or body is None:
            return
        told = ends.down(actor_id, body[1], row)
        for other in others:
            self._links.get(other, {}).pop(actor_id, None)
            if not told.normal:
                self._take_along(other, told)
            _drop_link(actor_id, other)
            if not self._links.get(other):
                self._links.pop(other, None)

    def _take_along(self, actor_id: str, told: Down) -> None:
        """End one that was linked with one that is dead; it is found dead at the next look, and takes its own along."""
        import ray

        if (_rows([actor_id]).get(actor_id) or {}).get("State", "DEAD") == "DEAD":
            return
        reason = f"it was linked with {told.class_name} ({told.actor_id}), which is dead: {told.reason}"
        ends.note(actor_id, "linked", reason)
        ray.kill(_uncounted(self._bodies[actor_id][2]), no_restart=True)

    def _look_at_jobs(self) -> None:
        import ray

        alive = {row["JobID"]: None for row in ray._private.state.jobs() if not row["IsDead"]}
        for job_id in self._jobs:
            if job_id not in alive:
                ends.forget_job(job_id)
        self._jobs = alive
        if not alive and not self._waiting and not self._links:
            ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


def _rows(actor_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Ray's rows about these actors; empty ones for those that it does not know."""
    import ray

    if len(actor_ids) <= ONE_BY_ONE_MAX:
        return {actor_id: ray._private.state.actors(actor_id) or {} for actor_id in actor_ids}
    everything = ray._private.state.actors()
    return {actor_id: everything.get(actor_id) or {} for actor_id in actor_ids}


# -- links in Ray's key-value table ------------------------------------------------------------------------------------
def _link_key(first: str, second: str) -> bytes:
    return "-".join(sorted((first, second))).encode()


def _keep_link(first: Body, second: Body) -> None:
    from ray.experimental.internal_kv import _internal_kv_put

    packed = serialization.serialize((first, second), in_band=True).data
    _internal_kv_put(_link_key(first[0], second[0]), packed, namespace=LINKS)


def _drop_link(first: str, second: str) -> None:
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(_link_key(first, second), namespace=LINKS)


def _kept_links() -> list[tuple[Body, Body]]:
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

    found = [_internal_kv_get(key, namespace=LINKS) for key in _internal_kv_list(b"", namespace=LINKS)]
    return [serialization.deserialize(packed) for packed in found if packed is not None]


def _uncounted(state: Any) -> Any:
    """A handle of Ray's that keeps nobody alive."""
    import ray

    return ray.actor.ActorHandle._deserialization_helper(state, True, None)


class Watching:
    """A process's way to the watcher, and those in it who listen for dead letters."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._host: Any = None
        self._out: list[Any] = []
        self.listeners: list[Callable[[DeadLetter], None]] = []

    def monitor(self, handle: Any) -> Any:
        """Ray's reference to a Down."""
        rays = self._watcher().down.remote(handle._actor_id.hex(), handle._class_name)
        self._out.append(rays)
        if len(self._out) > OUT_MAX:
            self._out = self._ray.wait(self._out, num_returns=len(self._out), timeout=0)[1]
        return rays

    def relay(self, handle: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._watcher().relay.remote(self._body(handle)[2], method, args, kwargs)

    def give_up(self) -> None:
        """Cancel this process's monitors: Ray does not end an actor while calls that it has made are out."""
        out, self._out = self._out, []
        for rays in self._ray.wait(out, num_returns=len(out), timeout=0)[1] if out else ():
            self._ray.cancel(rays)

    def link(self, first: Any, second: Any) -> None:
        if first._actor_id == second._actor_id:
            raise ValueError("an actor can't be linked with itself")
        self._ray.get(self._watcher().link.remote(self._body(first), self._body(second)))

    @staticmethod
    def _body(handle: Any) -> Body:
        state, *_ = handle._rays._serialization_helper()
        return handle._actor_id.hex(), handle._class_name, state

    def _watcher(self) -> Any:
        """The one that there is, or a new one. One that is just ending is not relied on."""
        if self._host is not None:
            return self._host
        remote = self._ray.remote(
            num_cpus=0,
            name=NAME,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_concurrency=MONITORS_MAX,
            max_restarts=-1,
            max_task_retries=-1,
        )(Watcher)
        for attempt in range(STARTS_MAX):
            host = remote.remote()
            try:
                self._ray.get(host.begin.remote())
                break
            except self._ray.exceptions.RayActorError:
                if attempt == STARTS_MAX - 1:
                    raise
        self._host = host
        return host

    # -- dead letters --------------------------------------------------------------------------------------------------
    def listen(self, listener: Callable[[DeadLetter], None]) -> Callable[[], None]:
        self.listeners = [*self.listeners, listener]

        def stop() -> None:
            self.listeners = [each for each in self.listeners if each is not listener]

        return stop

    def look_for_dead_letter(self, handle: Any, method: str) -> None:
        """Tell the listeners if a call is made of an actor that is dead."""
        row = self._ray._private.state.actors(handle._actor_id.hex())
        if not row or row.get("State") != "DEAD":
            return
        told = ends.down(handle._actor_id.hex(), handle._class_name, row)
        for listener in self.listeners:
            try:
                listener(DeadLetter(told.actor_id, told.class_name, method, told.reason))
            except Exception as error:
                print(f"actorlib: a listener of dead letters raised {error!r}", file=sys.stderr, flush=True)
