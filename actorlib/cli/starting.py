"""Starting and stopping the nodes of this machine."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import click

from actorlib.runtime.drivers.node_process import NodeConfig, NodeHandle, launch_node
from actorlib.runtime.drivers.session_file import SessionFile, remove_leftovers, sessions
from actorlib.transport.drivers.keys import KeyStore
from actorlib.transport.drivers.knock import split_host_port

LOOPBACK = "127.0.0.1"
STOP_TIMEOUT_S = 30.0
FIRST_KEY = "node-1"


def default_directory() -> Path:
    """Where a head keeps its keys and tables unless told otherwise."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state, "actorlib")


def existing(directory: Path) -> Path:
    if not (directory / "keys").is_dir():
        raise click.ClickException(f"{directory} is no head's directory; give the head's own as --dir")
    return directory


def start(
    address: str | None,
    key: Path | None,
    block: bool,
    wait_s: float,
    port: int,
    node_ip: str | None,
    directory: Path,
    drain_deadline: float,
    **resources: Any,
) -> None:
    """Start a node: the head (``address`` None), or one that joins the head at ``address``."""
    if address is not None:
        try:
            split_host_port(address)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--address") from None
    ip = node_ip or (LOOPBACK if address is None else _own_address(address))
    _check_own(ip)
    remove_leftovers()
    config = NodeConfig(
        **resources,
        ip=ip,
        port=port,
        join=address or "",
        key_file=str(key.absolute()) if key is not None else "",
        join_timeout_s=wait_s,
        directory=None if address is not None else str(directory.absolute()),
        durable=True,
        drain_deadline_s=drain_deadline,
        sys_path=list(dict.fromkeys(path or os.getcwd() for path in sys.path)),
        cwd=os.getcwd(),
        is_daemon=not block,
    )
    node = launch_node(config)
    if block:
        _pass_signals_on(node)
    _tell(node, directory if address is None else None)
    if block:
        sys.exit(0 if node.process.wait() == 0 else 1)


def _own_address(head: str) -> str:
    """The address of ours by which we reach the head."""
    host, port = split_host_port(head)
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host.strip("[]"), port))
        except OSError as error:
            raise click.ClickException(f"{host} can't be reached: {error.strerror}") from None
        own: str = probe.getsockname()[0]
        return own


def _check_own(ip: str) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
            probe.bind((ip, 0))
    except OSError as error:
        raise click.BadParameter(
            f"{ip} is no address of this machine ({error.strerror})", param_hint="--node-ip"
        ) from None


def _tell(node: NodeHandle, directory: Path | None) -> None:
    click.echo(f"node {node.address.node_id.hex()} of the cluster at {node.head} is up (pid {node.pid})")
    if node.note:
        click.echo(f"note: {node.note}")
    if directory is None:
        return
    store = KeyStore(directory / "keys")
    if not store.list():
        store.new(FIRST_KEY, "node")
    click.echo("another machine joins with a key file of its own (actorlib keys new NAME) and this line:")
    click.echo(f"  actorlib start --address {node.head} --key {directory / 'keys' / FIRST_KEY}.key")


def _pass_signals_on(node: NodeHandle) -> None:
    """What asks us to end is meant for the node: SIGTERM drains it, Ctrl-C ends it at once."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        node.process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)


def stop(address: str | None, every: bool) -> None:
    """End the nodes of one cluster on this machine, the head last, and what nodes that were killed have left."""
    remove_leftovers()
    running = [session for session in sessions() if address in (None, session.address)]
    heads = dict.fromkeys(session.address for session in running)
    if not running:
        raise click.ClickException("no node runs here" if address is None else f"no node of {address} runs here")
    if len(heads) > 1 and not every:
        raise click.UsageError(f"nodes of several clusters run here ({', '.join(heads)}): say --address or --all")
    for session in sorted(running, key=lambda session: session.is_head):
        _end(session)
        click.echo(f"node {session.node.node_id.hex()} (pid {session.pid}) has ended")
    remove_leftovers()


def _end(session: SessionFile) -> None:
    """That very process, not another one that has got its pid."""
    pidfd = os.pidfd_open(session.pid)
    try:
        if not session.is_alive():
            return
        for number in (signal.SIGINT, signal.SIGKILL):
            signal.pidfd_send_signal(pidfd, number)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while session.is_alive() and time.monotonic() < deadline:
                time.sleep(0.01)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)
