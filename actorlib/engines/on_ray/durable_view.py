"""What can be asked of durable actors on Ray from outside: their checkpoints, their log, a copy of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from actorlib import exceptions
from actorlib.actor import ActorHandle, MethodInfo
from actorlib.engine import ActorOptions, FunctionRecord, MethodOptions, parse_checkpoint_id
from actorlib.engines.on_ray.options import refuse

if TYPE_CHECKING:
    from actorlib.engines.on_ray.engine import RayEngine

READY = "__ray_ready__"
PLAIN = MethodOptions()


class DurableView:
    """Carries out ``engine.DurableActors`` for one process."""

    def __init__(self, engine: RayEngine) -> None:
        self._engine = engine

    def checkpoints(self, handle: ActorHandle[Any]) -> list[dict[str, Any]]:
        """Asked of the actor; of its folder, as far as this host sees it, when the actor is dead."""
        from actorlib.engines.on_ray import durable, journal

        try:
            return self._ask(handle, "checkpoints")
        except exceptions.ActorDiedError as error:
            actor_id = handle._actor_id.hex()
            found = durable.rows(journal.open_journal(handle._extra["checkpoint"], actor_id), actor_id)
            if not found:
                raise exceptions.CheckpointError(
                    f"{handle!r} is dead, and no checkpoint of it can be seen from this host: give durable actors a "
                    "store= that every node sees"
                ) from error
            return found

    def log(self, handle: ActorHandle[Any], limit: int) -> list[dict[str, Any]]:
        return self._ask(handle, "log", limit)

    def restore(
        self,
        record: FunctionRecord,
        methods: dict[str, MethodInfo],
        options: ActorOptions,
        checkpoint_id: str,
        position: int | None,
    ) -> ActorHandle[Any]:
        whose, number = parse_checkpoint_id(checkpoint_id)
        kept = {**(options.checkpoint or {}), "source": (whose.hex(), number, position)}
        copy = self._engine.create_actor(record, methods, (), {}, dataclasses.replace(options, checkpoint=kept))
        try:
            self._engine.get([self._engine.call(copy, READY, (), {}, PLAIN)], None)
        except exceptions.ActorDiedError as error:
            raise exceptions.CheckpointError(str(error)) from error
        return copy

    def upgrade(self, handle: ActorHandle[Any], record: FunctionRecord, methods: dict[str, MethodInfo]) -> None:
        raise refuse("another class for an actor that runs", "restore() its newest checkpoint as the other class")

    def _ask(self, handle: ActorHandle[Any], question: str, *args: Any) -> list[dict[str, Any]]:
        if not handle._extra.get("durable"):
            raise ValueError(f"{handle!r} is not durable: it was made without checkpoint=")
        ref = self._engine.call(handle, "__actorlib_durable__", (question, *args), {}, PLAIN)
        rows: list[dict[str, Any]] = self._engine.get([ref], None)[0]
        return rows
