"""A node that also hosts the GCS: which of the two gets a message that both know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actorlib.gcs.drivers.service import GcsService
from actorlib.scheduler.drivers.node import NodeService
from actorlib.transport import messages
from actorlib.transport.ids import NodeId


def join_gcs(loop: Any, node: NodeService, gcs: GcsService, watch_node: Callable[[NodeId, int], None]) -> None:
    """Give the loop the handlers of both. ``watch_node`` is called for each other node that registers."""
    node_handlers, gcs_handlers = node.handlers, gcs.handlers
    own = loop.address.process_id
    for kind, handler in gcs_handlers.items():
        if kind not in node_handlers:
            loop.handlers[kind] = handler
    for kind in (messages.ActorCreated, messages.ActorFailed):
        loop.handlers[kind] = _route(node_handlers[kind], gcs_handlers[kind], own)

    def node_registers(link: Any, message: Any) -> None:
        gcs_handlers[messages.NodeRegister](link, message)
        if link.peer.process_id != own:
            watch_node(link.peer.node_id, message.os_pid)

    def job_ended(link: Any, message: Any) -> None:
        node_handlers[messages.JobEnded](link, message)
        gcs_handlers[messages.JobEnded](link, message)

    loop.handlers[messages.NodeRegister] = node_registers
    loop.handlers[messages.JobEnded] = job_ended


def _route(from_worker: Any, at_gcs: Any, own: bytes) -> Callable[[Any, Any], None]:
    """A worker's word is for its node; a node's word, our own included, is for the GCS."""

    def route(link: Any, message: Any) -> None:
        role = getattr(link.hello, "role", "node")
        (at_gcs if role == "node" or link.peer.process_id == own else from_worker)(link, message)

    return route
