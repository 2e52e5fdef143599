"""Asking a running cluster, from a process that is neither a node nor a driver of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from actorlib.engine import resource_map
from actorlib.runtime.drivers.session_file import SessionFile, sessions
from actorlib.transport import messages
from actorlib.transport.drivers.credentials import Credentials
from actorlib.transport.drivers.keys import Key
from actorlib.transport.drivers.loop import Loop
from actorlib.transport.ids import JobId, new_process_id
from actorlib.transport.link import Address

ANSWER_TIMEOUT_S = 10.0
ROWS_MAX = 10_000
NOT_PLACED = ("PENDING", "RESTARTING", "RESCHEDULING")


class Asker:
    """A process with a loop and questions, for as long as a ``with`` block takes. It uses the key of the node here."""

    def __init__(self, session: SessionFile) -> None:
        process_id = new_process_id()
        credentials = Credentials.load(session.credentials)
        endpoint = credentials.inbox(f"ipc://{session.directory}/{process_id.hex()}")
        address = Address(process_id, session.node.node_id, endpoint)
        access, _ = credentials.open()
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        hello = messages.Hello(messages.PROTOCOL_VERSION, address, "asker", os.getpid(), JobId(b""), python)
        self._answers: dict[int, Any] = {}
        take = self._take
        kinds = (messages.Done, messages.Failure, messages.NodeRegistered, messages.StateRows, messages.NodeStatusReply)
        self._loop = Loop(address, hello, {kind: take for kind in kinds}, lambda _, __: None, access=access)
        self._next = 0

    def _take(self, _: Any, message: Any) -> None:
        self._answers[message.request_id] = message

    def ask(self, address: Address, message: Callable[[int], tuple[Any, ...]]) -> Any:
        """Raises ConnectionError without an answer in time, RuntimeError with a Failure's text."""
        self._next += 1
        number = self._next
        self._loop.link(address).send(message(number))
        if not self._loop.drive(lambda: number in self._answers, ANSWER_TIMEOUT_S):
            raise ConnectionError(f"no answer within {ANSWER_TIMEOUT_S:.0f} s")
        answer = self._answers.pop(number)
        if type(answer) is messages.Failure:
            raise RuntimeError(f"{answer.kind}: {answer.text}")
        return answer

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: Any) -> None:
        self._loop.close()


def keys_changed(directory: Path) -> bool:
    """Have the head look at its register now, if one runs here on that directory."""
    wanted = str(directory.absolute())
    for session in sessions():
        if session.is_head and session.head_directory == wanted:
            with Asker(session) as asker:
                asker.ask(session.gcs, messages.KeysChanged)
            return True
    return False


def show_keys(keys: Sequence[Key]) -> None:
    table = Table("name", "role", "made", "state", "public key", box=None)
    for key in keys:
        table.add_row(key.name, key.role, _when(key.created_at), _state(key), key.public)
    Console().print(table)


def _state(key: Key) -> str:
    return f"revoked {_when(key.revoked_at)}" if key.revoked_at else "in force"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def show(session: SessionFile) -> None:
    """Nodes, their resources, and what waits."""
    with Asker(session) as asker:
        views = asker.ask(session.gcs, messages.NodesList).nodes
        actors = asker.ask(session.gcs, lambda rid: messages.StateQuery(rid, "actors", ROWS_MAX)).rows
        groups = asker.ask(session.gcs, lambda rid: messages.StateQuery(rid, "groups", ROWS_MAX)).rows
    console = Console()
    console.print(f"the cluster at {session.address}")
    table = Table("node", "host", "state", "in use", box=None)
    for view in views:
        table.add_row(view.address.node_id.hex(), view.hostname, _life(view), _use(view))
    console.print(table)
    waiting = [f"{count} x {reason}" for view in views for reason, count in view.waiting]
    waiting += [f"actor {row['class_name']}: {row['reason']}" for row in actors if row["state"] in NOT_PLACED]
    waiting += [f"placement group {_name(row)}: {row['reason']}" for row in groups if row["state"] in NOT_PLACED]
    console.print("nothing waits" if not waiting else "waiting:\n" + "\n".join(f"  {line}" for line in waiting))


def _name(group: dict[str, Any]) -> str:
    return str(group["name"] or group["placement_group_id"])


def _life(view: messages.NodeView) -> str:
    if view.alive:
        return f"draining: {view.drain}" if view.drain else "alive"
    return f"{view.state.lower()}: {view.death}"


def _use(view: messages.NodeView) -> str:
    if not view.alive:
        return ""
    total, free = resource_map(view.total.items()), resource_map(view.available.items())
    used = (f"{total[name] - free.get(name, 0):g}/{total[name]:g} {name}" for name in total if ":" not in name)
    return ", ".join(used)
