"""What can be asked of durable actors from outside: their checkpoints, their log, a copy of them, another class."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from actorlib import exceptions
from actorlib.actor import ActorHandle, MethodInfo, methods_to_wire
from actorlib.engine import ActorOptions, FunctionRecord, MethodOptions, parse_checkpoint_id
from actorlib.runtime import checkpoint
from actorlib.runtime.checkpoint import TornCheckpoint
from actorlib.transport import messages
from actorlib.transport.ids import ActorId

if TYPE_CHECKING:
    from actorlib.runtime.drivers.cluster_view import ClusterView

LOG_METHOD = "__actorlib_log__"
UPGRADE_METHOD = "__actorlib_upgrade__"
LOOK = MethodOptions(readonly=True)


class DurableView:
    """Carries out ``engine.DurableActors`` for one process."""

    def __init__(self, process: ClusterView) -> None:
        self._process = process

    def checkpoints(self, handle: ActorHandle[Any]) -> list[dict[str, Any]]:
        _must_be_durable(handle)
        actor_id = ActorId(handle._actor_id)
        newest = self._read(actor_id, -1)
        rows = []
        for number in sorted(newest.numbers):
            row: dict[str, Any] = {"id": f"{actor_id.hex()}/{number}", "number": number, "is_good": False}
            answer = newest if number == newest.number else self._read(actor_id, number)
            if answer.number >= 0:
                with contextlib.suppress(TornCheckpoint):  # the row says so
                    row.update(checkpoint.meta_of(bytes(answer.state))._asdict(), is_good=True)
            rows.append(row)
        return rows

    def _read(self, actor_id: ActorId, number: int) -> messages.CheckpointReply:
        answer: messages.CheckpointReply = self._process.ask(
            self._process.gcs, lambda request_id: messages.CheckpointGet(request_id, actor_id, number)
        )
        return answer

    def restore(
        self,
        record: FunctionRecord,
        methods: dict[str, MethodInfo],
        options: ActorOptions,
        checkpoint_id: str,
        position: int | None,
    ) -> ActorHandle[Any]:
        whose, number = parse_checkpoint_id(checkpoint_id)
        actor_id = ActorId(whose)
        answer = self._read(actor_id, number)
        if answer.number < 0:
            kept = ", ".join(f"{actor_id.hex()}/{kept}" for kept in answer.numbers) or "none"
            raise exceptions.CheckpointError(f"there is no good checkpoint {checkpoint_id!r}; those kept: {kept}")
        source = (actor_id, number, -1 if position is None else position)
        kept_options = {**(options.checkpoint or {}), "source": source}
        return self._process.create_actor(
            record, methods, (), {}, dataclasses.replace(options, checkpoint=kept_options)
        )

    def log(self, handle: ActorHandle[Any], limit: int) -> list[dict[str, Any]]:
        _must_be_durable(handle)
        rows: list[dict[str, Any]] = self._call(handle, LOG_METHOD, limit)
        return rows

    def upgrade(self, handle: ActorHandle[Any], record: FunctionRecord, methods: dict[str, MethodInfo]) -> None:
        _must_be_durable(handle)
        if record.engine_token is not self._process:
            self._process.export(record)
        name = record.name.rsplit(".", 1)[-1]
        self._call(handle, UPGRADE_METHOD, record.function_id, name, methods_to_wire(methods))

    def _call(self, handle: ActorHandle[Any], method: str, *args: Any) -> Any:
        return self._process.get([self._process.call(handle, method, args, {}, LOOK)], None)[0]


def _must_be_durable(handle: ActorHandle[Any]) -> None:
    if not handle._extra.get("durable"):
        raise ValueError(f"{handle!r} is not durable: it was made without checkpoint=")
