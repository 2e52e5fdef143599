"""The test of the tests: faults planted in the protocols, one at a time; the swarm must find each.

``python tests/sim/planted.py`` (``make sim-planted``) plants each and prints how many seeds and seconds of processor
time it took to be found, and which oracle saw it. ``--only NAME`` plants one. Some of these were ours before the swarm
found them.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))

import swarm

from actorlib.gcs.actors import Actors
from actorlib.gcs.drivers.service import GcsService
from actorlib.gcs.nodes import Nodes
from actorlib.gcs.placement_groups import PlacementGroups
from actorlib.runtime.actor_client import ActorClients
from actorlib.runtime.call_log import CallLog, Known
from actorlib.runtime.completion import Completion
from actorlib.runtime.drivers.calls import Calls
from actorlib.runtime.drivers.durability import Durability
from actorlib.runtime.drivers.execution import Execution
from actorlib.runtime.drivers.process import Process
from actorlib.runtime.mailbox import Mailbox
from actorlib.runtime.submitter import Submitter
from actorlib.scheduler.drivers.node import NodeService
from actorlib.scheduler.lease import LeaseTable
from actorlib.scheduler.resources import Pool
from actorlib.scheduler.worker_pool import WorkerPool
from actorlib.store.catalog import Catalog
from actorlib.store.drivers.service import StoreService
from actorlib.store.owner import OwnerTable
from actorlib.testing.oracles import Violation
from actorlib.testing.simulation import Stuck
from actorlib.transport.session import HEADER, VERSION, Session

SEED_LIMIT_S = 12
FAULT_LIMIT_S = 120.0


def nothing(*_: Any, **__: Any) -> None:
    """In place of what should have been done."""


def gives(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def every(n: int, method: Callable[..., Any], instead: Any = None) -> Callable[..., Any]:
    """The method, but each ``n``-th call of it is lost."""
    calls = [0]

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return instead if calls[0] % n == 0 else method(*args, **kwargs)

    return sometimes


def _deliver_again(self: Session, now: float, first: bytes, batch: Any, real: Any = Session.incoming) -> Any:
    out = real(self, now, first, batch)
    return out or ([] if first[1] & 1 else [batch])


def _no_resend(self: Session, now: float, real: Any = Session.on_timer) -> Any:
    return real(self, now)[:0]


def _claim_always(self: Actors, link: Any, message: Any) -> bool:
    self.names[message.spec.namespace, message.spec.name] = message.spec.actor_id
    return True


def _current_any(self: Actors, actor_id: Any, _incarnation: int) -> Any:
    return self.actors.get(actor_id)


def _requeue_backwards(client: Any, tasks: Any, real: Any = ActorClients._requeue) -> None:
    real(client, list(reversed(tasks)))


def _forget_cancelled(self: Submitter, lease: Any, task_ids: Any, real: Any = Submitter.returned) -> None:
    kept = tuple(t for t in task_ids if not (t in lease.in_flight and lease.in_flight[t].cancelled))
    for task_id in set(task_ids) - set(kept):
        lease.in_flight.pop(task_id, None)
    real(self, lease, kept)


def _lost_calls_vanish(self: ActorClients, client: Any, update: Any, real: Any = ActorClients._lost) -> None:
    client.in_flight.clear()
    real(self, client, update)


def _pop_newest(self: Mailbox, real: Any = Mailbox.pop) -> Any:
    for lane in self.lanes.values():
        lane.queue.rotate(1)
    return real(self)


def _freed_here_only(self: StoreService, _link: Any, message: Any) -> None:
    for object_id in message.object_ids:
        self.catalog.freed(object_id)


def _holders_unwatched(self: NodeService, link: Any, message: Any) -> None:
    self.leases.request(self._now(), link.peer.process_id, message, link.send)


def _group_at_once(self: PlacementGroups, group: Any, phase: str, real: Any = PlacementGroups._ask) -> None:
    group.state, group.reason = "CREATED", ""
    real(self, group, phase)


def _take_more(self: Pool, holder: bytes, demand: Any, real: Any = Pool.take) -> Any:
    had = dict(self.available)
    taken = real(self, holder, demand)
    self.available.update(had)
    return taken


def _deaths_untold(self: NodeService, process_id: Any, death: Any, real: Any = NodeService._process_died) -> None:
    self._watchers.pop(process_id, None)
    real(self, process_id, death)


def _lease_lost_untold(self: LeaseTable, now: float, worker: Any, real: Any = LeaseTable.worker_died) -> Any:
    real(self, now, worker)


def _window_ignores_recall(self: Submitter, lease: Any, task: Any, real: Any = Submitter._room) -> Any:
    lease.recalled = False
    return real(self, lease, task)


def _write_after(self: Durability, real: Any = Durability.write_log) -> bool:
    """What is in the log lags behind what others have seen."""
    late, self.late = getattr(self, "late", []), self.log.take()  # type: ignore[attr-defined, union-attr]
    if late:
        self.log_file.append(late)
    return True


def _forget_the_table(self: CallLog, rows: Any) -> None:
    return


def _always_new(self: CallLog, caller: bytes, sequence: int) -> Known:
    return Known.NEW


def _skip_items(self: Completion, message: Any, real: Any = Completion.item) -> Any:
    if message.index % 3 == 2:
        return self.streams.get(message.task_id)
    return real(self, message)


def _returned_stays_leased(self: WorkerPool, process_id: Any, now: float) -> None:
    return


def _answer_without_registering(self: OwnerTable, references: Any, receiver: Any, then: Any) -> None:
    then()


def _share_a_slab(self: Catalog, wanted: int, real: Any = Catalog._free_slab) -> Any:
    filling = [s for s in self.slabs.values() if s.size >= wanted and s.objects]
    if filling:
        filling[0].state = type(filling[0].state).FREE
        return filling[0]
    return real(self, wanted)


def _acknowledge_too_much(self: Session, now: float, frames: Any, size: int, real: Any = Session.outgoing) -> Any:
    ready = real(self, now, frames, size)
    header = HEADER.pack(VERSION, 0, 0, self.nonce, self._sequence, self._received + 1)
    return [header + ready[0][HEADER.size :], *ready[1:]]


def _speak_first(self: GcsService) -> None:
    """The replies leave, the commit follows a moment later."""
    self._scheduled = False
    writes, self._writes = self._writes, []
    outgoing, self._outgoing = self._outgoing, []
    for link, message in outgoing:
        link.send(message)
    if writes:
        self.call_later(0.01, lambda: self._journal.commit(writes))


def _persist_some(self: GcsService, table: str, key: bytes, value: Any, calls: list[int] = [0]) -> None:  # noqa: B006
    calls[0] += 1
    if table != "actors" or calls[0] % 5:
        self._writes.append((table, key, value))
    self._schedule()


PLANTED: dict[str, tuple[type, str, Any]] = {
    "acknowledgements are ignored": (Session, "_acknowledge", nothing),
    "a repeated batch is delivered again": (Session, "incoming", _deliver_again),
    "nothing is sent again": (Session, "on_timer", _no_resend),
    "kept arguments are not registered": (OwnerTable, "retained", gives(([], {}))),
    "receivers are not registered": (OwnerTable, "register_receiver", _answer_without_registering),
    "releases are forgotten": (OwnerTable, "release", every(7, OwnerTable.release)),
    "holds of arguments are forgotten": (Calls, "_take_holds", every(5, Calls._take_holds)),
    "dead borrowers stay registered": (OwnerTable, "process_died", nothing),
    "values are not asked for": (OwnerTable, "want", nothing),
    "releases of borrowers are ignored": (OwnerTable, "unregister", nothing),
    "what a call held is not let go": (Completion, "let_go", nothing),
    "items of streams are lost": (Completion, "item", _skip_items),
    "resources are not subtracted": (Pool, "take", _take_more),
    "blocked workers don't lend their CPU": (LeaseTable, "blocked", nothing),
    "CPU is lent and not taken back": (Pool, "reclaim_cpu", nothing),
    "leases of dead holders stay": (LeaseTable, "holder_died", gives([])),
    "holders on other nodes are not watched": (NodeService, "_on_lease_request", _holders_unwatched),
    "lost leases are not told": (LeaseTable, "worker_died", _lease_lost_untold),
    "returned leases are forgotten": (LeaseTable, "returned", every(4, LeaseTable.returned)),
    "returned workers are never used again": (WorkerPool, "returned", _returned_stays_leased),
    "requests are lost": (LeaseTable, "request", every(6, LeaseTable.request)),
    "grants are lost": (Submitter, "granted", every(6, Submitter.granted)),
    "tasks of dead workers vanish": (Submitter, "_after_death", nothing),
    "cancelled and given back is forgotten": (Submitter, "returned", _forget_cancelled),
    "brief leases are kept": (Submitter, "_room", _window_ignores_recall),
    "calls of a lost actor vanish": (ActorClients, "_lost", _lost_calls_vanish),
    "calls are put back in the wrong order": (ActorClients, "_requeue", staticmethod(_requeue_backwards)),
    "news of actors are lost": (ActorClients, "updated", every(3, ActorClients.updated)),
    "a name is claimed twice": (Actors, "_claim", _claim_always),
    "stale incarnations are accepted": (Actors, "_current", _current_any),
    "released actors live on": (Actors, "released", nothing),
    "replies leave before the log is written": (Durability, "write_log", _write_after),
    "a checkpoint has no table of callers": (CallLog, "load_table", _forget_the_table),
    "calls that come again run again": (CallLog, "known", _always_new),
    "the newest call runs first": (Mailbox, "pop", _pop_newest),
    "freed objects stay on other nodes": (StoreService, "_on_freed", _freed_here_only),
    "objects are never freed": (Catalog, "freed", nothing),
    "a slab is granted twice": (Catalog, "_free_slab", _share_a_slab),
    "bundles are not given back": (LeaseTable, "release_bundles", gives([])),
    "a group is created before it is prepared": (PlacementGroups, "_ask", _group_at_once),
    "a lost node is not told": (Nodes, "lost", nothing),
    "deaths are not told to watchers": (NodeService, "_process_died", _deaths_untold),
    "lost objects are not recovered": (Process, "recover", nothing),
    "results are lost": (Execution, "_send_finished", every(9, Execution._send_finished)),
    "watches are forgotten": (NodeService, "_on_watch", nothing),
    "one batch too many is acknowledged": (Session, "outgoing", _acknowledge_too_much),
    "the GCS speaks before it commits": (GcsService, "_commit", _speak_first),
    "changes of actors are not all persisted": (GcsService, "persist", _persist_some),
}


class TooLong(Exception):
    """The run makes no progress in real time."""


@dataclass
class Found:
    """How soon a fault was found; ``oracle`` is empty if it was not."""

    seeds: int
    seconds: float
    oracle: str
    text: str


@contextlib.contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """An exception after so much processor time."""

    def bark(*_: Any) -> None:
        raise TooLong(f"no end within {seconds} seconds")

    before = signal.signal(signal.SIGPROF, bark)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def hunt(name: str, first: int, limit_s: float) -> Found:
    """Plant one fault and run seeds until an oracle sees it."""
    owner, method, faulty = PLANTED[name]
    began, seeds = time.process_time(), 0
    kept = io.StringIO()
    while time.process_time() - began < limit_s:
        seeds += 1
        try:
            with (
                mock.patch.object(owner, method, faulty),
                contextlib.redirect_stderr(kept),
                contextlib.redirect_stdout(kept),
                watchdog(SEED_LIMIT_S),
            ):
                swarm.run_seed(first + seeds, collections.Counter())
        except Exception as seen:
            text = f"{type(seen).__name__}: {seen}".splitlines()[0][:150]
            return Found(seeds, time.process_time() - began, who_saw(seen), text)
    return Found(seeds, time.process_time() - began, "", "")


def who_saw(seen: Exception) -> str:
    """An oracle; else what the workload itself checks, an error that no fault of the plan allows, or no progress."""
    if isinstance(seen, Violation):
        return seen.oracle
    if isinstance(seen, Stuck):
        return "world"
    if isinstance(seen, AssertionError):
        return "workload"
    return "real time" if isinstance(seen, TooLong) else "errors"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=None)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--limit", type=float, default=FAULT_LIMIT_S, help="seconds of processor time for each")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(PLANTED)
    with contextlib.redirect_stderr(io.StringIO()):
        swarm.run_seed(arguments.first, collections.Counter())  # without any: else each would be "found" at once
    missed = []
    print("| planted | seeds | seconds | seen by | what it said |\n|---|--:|--:|---|---|")
    for name in names:
        found = hunt(name, arguments.first, arguments.limit)
        seen_by = found.oracle or "NOT FOUND"
        print(f"| {name} | {found.seeds} | {found.seconds:.1f} | {seen_by} | {found.text} |", flush=True)
        if not found.oracle:
            missed.append(name)
    print(f"\n{len(names) - len(missed)} of {len(names)} found; missed: {missed}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
