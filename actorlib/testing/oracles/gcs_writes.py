"""No write that the GCS has acknowledged is ever lost.

Four looks: whoever hears an acknowledgement can find the write in the journal's history; a commit that a power cut
undid was acknowledged to nobody; what was refused for lack of room is nowhere, neither then nor later; and what the GCS
believes is what its journal would give it after a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorlib.testing.oracles.oracle import Oracle
from actorlib.transport import codec, messages
from actorlib.transport.link import Link
from actorlib.transport.sim.loop import SimLoop

if TYPE_CHECKING:
    from actorlib.gcs.drivers.service import GcsService
    from actorlib.testing.simulation import Simulation

Row = tuple[str, bytes]
TURNS_BETWEEN_LOOKS = 8
MADE_ONCE = ("actors", "jobs", "groups")  # under an id that nobody else uses


def row_of(message: Any) -> Row | None:
    """The row that a request writes or deletes, if it does."""
    kind = type(message)
    if kind is messages.KvPut:
        return "kv", message.namespace.encode() + b"\0" + message.key
    if kind is messages.ActorRegister:
        return "actors", message.spec.actor_id
    if kind is messages.CheckpointPut:
        return "checkpoints", message.actor_id + message.number.to_bytes(8, "big")
    if kind is messages.GroupCreate:
        return "groups", message.group_id
    if kind is messages.JobStarted:
        return "jobs", message.job_id
    return None


class GcsWrites(Oracle):
    """See the module's docstring."""

    name = "gcs writes"

    def __init__(self, world: Simulation) -> None:
        super().__init__(world)
        self._asked: dict[tuple[bytes, int], Row] = {}
        self._acknowledged: dict[Row, None] = {}
        self._refused: dict[Row, None] = {}

    def heard(self, loop: SimLoop, link: Link, message: Any) -> None:
        gcs_process = self.world.gcs_address.process_id
        if loop.address.process_id == gcs_process:
            row = row_of(message)
            if row is not None:
                self._asked[link.peer.process_id, message.request_id] = row
                self._refused.pop(row, None)
        if link.peer.process_id == gcs_process:
            self._answered(loop, message)

    def _answered(self, loop: SimLoop, message: Any) -> None:
        row = self._asked.pop((loop.address.process_id, getattr(message, "request_id", 0)), None)
        is_refusal = type(message) is messages.Failure and message.kind == "OutOfDiskError"
        if row is not None and row[0] in MADE_ONCE and is_refusal:
            self._refused[row] = None
        if row is None or type(message) is messages.Failure or getattr(message, "existed", False):
            return
        self._acknowledged[row] = None
        was_there = row in self.world.journal.written
        self.see(was_there, f"a write to {row[0]} was acknowledged and was never committed", row[1])

    def turned(self, loop: SimLoop) -> None:
        for row in self.world.journal.take_undone():
            self.see(row not in self._acknowledged, f"a power cut undid an acknowledged write to {row[0]}", row[1])
        is_gcs = loop.address.process_id == self.world.gcs_address.process_id
        if is_gcs and loop.turns % TURNS_BETWEEN_LOOKS == 0:
            self._compare()

    def at_end(self) -> None:
        self._compare()

    def _look_for_refused(self, gcs: GcsService) -> None:
        """Of those that nobody has asked for again."""
        tables: dict[str, Any] = {"actors": gcs.actors.actors, "jobs": gcs.jobs.jobs, "groups": gcs.groups.groups}
        for table, key in self._refused:
            self.see(key not in tables[table], f"a write to {table} was refused, and the GCS has it all the same", key)
            there = key in self.world.journal.tables.get(table, {})
            self.see(not there, f"a write to {table} was refused and came to be all the same", key)

    def _compare(self) -> None:
        gcs = self.world.gcs
        if gcs is not None:
            self._look_for_refused(gcs)
        if gcs is None or gcs._writes or gcs.backlog.writes:
            return
        rows = self.world.journal.tables
        for table, believed in (
            ("kv", {space.encode() + b"\0" + key: value for (space, key), value in gcs.kv.values.items()}),
            ("jobs", gcs.jobs.jobs),
            ("groups", gcs.groups.groups),
            ("actors", gcs.actors.actors),
        ):
            kept = rows.get(table, {})
            for key in believed.keys() ^ kept.keys():
                self.see(False, f"the journal and the GCS differ on whether {table} has a row", key)
        for actor_id, actor in gcs.actors.actors.items():
            update = codec.decode_batch(rows["actors"][actor_id])[1]
            same = (update.state, update.incarnation) == (actor.state.value, actor.incarnation)
            self.see(same, f"the GCS says {actor.state.value}/{actor.incarnation}, its journal {update[1:3]}", actor_id)
