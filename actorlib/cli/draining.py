"""Having a node leave, and waiting until it has."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from actorlib.cli.cluster import ANSWER_TIMEOUT_S, Asker
from actorlib.runtime.drivers.session_file import SessionFile
from actorlib.transport import messages
from actorlib.transport.ids import NodeId
from actorlib.transport.messages import NodeView

LOOK_EVERY_S = 0.1
HERE = "here"


def drain(session: SessionFile, node: str, deadline_s: float, reason: str, wait: bool) -> None:
    """Ask for it by the GCS; with ``wait``, until the node has left or ought to have."""
    with Asker(session) as asker:
        chosen = _choose(asker.ask(session.gcs, messages.NodesList).nodes, node, session.node.node_id)
        node_id = chosen.address.node_id
        asker.ask(session.gcs, lambda rid: messages.DrainNode(rid, node_id, deadline_s, reason))
        click.echo(f"node {node_id.hex()} on {chosen.hostname} is to leave within {deadline_s:g} s")
        if wait:
            _wait(asker, session, node_id, time.monotonic() + deadline_s + ANSWER_TIMEOUT_S)


def _choose(views: Sequence[NodeView], node: str, here: NodeId) -> NodeView:
    alive = [view for view in views if view.alive]
    if node == HERE:
        found = [view for view in alive if view.address.node_id == here]
    else:
        found = [view for view in alive if view.address.node_id.hex().startswith(node) or view.hostname == node]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{view.address.node_id.hex()} on {view.hostname}" for view in found or alive)
    problem = "is no living node" if not found else "could be any of several nodes"
    raise click.ClickException(f"{node!r} {problem}; there are {shown}")


def _wait(asker: Asker, session: SessionFile, node_id: NodeId, until: float) -> None:
    while time.monotonic() < until:
        try:
            views = asker.ask(session.gcs, messages.NodesList).nodes
        except ConnectionError:
            if session.is_alive():
                raise
            click.echo("it has left, and the cluster's tables with it: it was the head")
            return
        view = next((view for view in views if view.address.node_id == node_id), None)
        if view is None or not view.alive:
            text = f"{view.state.lower()}: {view.death}" if view is not None else "gone"
            if view is None or view.drained:
                click.echo(text)
                return
            raise click.ClickException(text)
        time.sleep(LOOK_EVERY_S)
    raise click.ClickException(f"node {node_id.hex()} is still there; look at: actorlib status")
