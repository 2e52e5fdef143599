"""The commands, each a thin layer: options are read and checked here, the work is done elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from actorlib.cli import calls, cluster, draining, starting
from actorlib.cli.values import LABELS, RESOURCES
from actorlib.runtime.drivers.session_file import find
from actorlib.transport import limits
from actorlib.transport.drivers.keys import ROLES, AccessError, KeyStore

DEFAULT_PORT = 6390


class Group(click.Group):
    """Errors that users can mend become one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (AccessError, OSError, RuntimeError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Group, help=(sys.modules["actorlib.cli"].__doc__ or "").split("\n")[0])
def group() -> None:
    return


def directory_option(function: Any) -> Any:
    return click.option(
        "--dir",
        "directory",
        type=click.Path(file_okay=False, path_type=Path),
        default=starting.default_directory,
        help="The head's directory: keys and tables.",
    )(function)


@group.command()
@click.option("--head", is_flag=True, help="Begin a cluster: this node keeps its tables and keys.")
@click.option("--address", metavar="HOST:PORT", help="Join the cluster whose head is there.")
@click.option("--key", type=click.Path(dir_okay=False, path_type=Path), help="This node's key file, to join with.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=DEFAULT_PORT, show_default=True, help="0: any free one."
)
@click.option("--node-ip", help="Address of this machine that others reach; the default for a head is loopback.")
@directory_option
@click.option("--num-cpus", type=click.FloatRange(min=0))
@click.option("--num-gpus", type=click.FloatRange(min=0), default=0)
@click.option("--resources", type=RESOURCES, default="{}", help='As JSON: {"disk": 2}.')
@click.option("--labels", type=LABELS, default="{}", help='As JSON: {"zone": "a"}.')
@click.option("--object-store-memory", type=click.IntRange(min=1), help="In bytes.")
@click.option("--wait", type=click.FloatRange(min=0.1), default=20.0, help="Seconds to wait for a head that isn't up.")
@click.option(
    "--drain-deadline",
    type=click.FloatRange(min=0),
    default=limits.drain_deadline_s,
    show_default=True,
    help="Seconds that the node may take to leave after SIGTERM.",
)
@click.option("--block", is_flag=True, help="Stay in the foreground; SIGTERM drains the node, Ctrl-C ends it at once.")
def start(head: bool, address: str | None, key: Path | None, block: bool, wait: float, **given: Any) -> None:
    """Start a node on this machine: a head, or one that joins a head."""
    if head == (address is not None):
        raise click.UsageError("say either --head, or --address HOST:PORT of the head to join")
    if address is not None and key is None:
        raise click.UsageError("--address needs --key FILE; the head makes one with: actorlib keys new NAME")
    starting.start(None if head else address, key, block, wait, **given)


@group.command()
@click.option("--address", metavar="HOST:PORT", help="Only nodes of that cluster.")
@click.option("--all", "every", is_flag=True, help="Nodes of all clusters.")
def stop(address: str | None, every: bool) -> None:
    """Stop the nodes that this user has started on this machine."""
    starting.stop(address, every)


@group.command()
@click.argument("node")
@click.option(
    "--deadline",
    type=click.FloatRange(min=0),
    default=limits.drain_deadline_s,
    show_default=True,
    help="Seconds after which the node ends, whatever is left on it.",
)
@click.option("--reason", default="asked for on the command line", show_default=True, help="Shown to everybody.")
@click.option("--no-wait", is_flag=True, help="Don't wait until the node has left.")
@click.option("--address", default="auto", metavar="HOST:PORT")
def drain(node: str, deadline: float, reason: str, no_wait: bool, address: str) -> None:
    """Have a node leave: it takes no work any more, its actors and objects go elsewhere, then it ends.

    NODE is the beginning of its id, its host's name, or "here" for the node on this machine. Exit code 0: it has left
    with nothing remaining on it. 1: the deadline ended what was left.
    """
    draining.drain(find(address), node, deadline, reason, not no_wait)


@group.command()
@click.option("--address", default="auto", metavar="HOST:PORT")
def status(address: str) -> None:
    """Show the cluster: its nodes, what they have and have free, what waits and why."""
    cluster.show(find(address))


@group.command()
@click.argument("name")
@click.option("--namespace", help="Of the actor; needed only where several have that name.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--address", default="auto", metavar="HOST:PORT")
def log(name: str, namespace: str | None, limit: int, address: str) -> None:
    """Show the last calls of the durable actor NAME, the newest first: position, method, caller and outcome."""
    calls.show_log(find(address).address, name, namespace, limit)


@group.command(context_settings={"ignore_unknown_options": True})
@click.option("--address", default="auto", metavar="HOST:PORT")
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(address: str, script: str, arguments: Sequence[str]) -> None:
    """Run SCRIPT with a cluster as its session: its init() joins it, without an address."""
    os.environ["ACTORLIB_ADDRESS"] = find(address).address
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, script, *arguments])


# -- keys --------------------------------------------------------------------------------------------------------------
@group.group()
def keys() -> None:
    """Whom the cluster admits: to be run on the head's machine."""


@keys.command("new")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), default="node", show_default=True)
@directory_option
def new_key(name: str, role: str, directory: Path) -> None:
    """Make a key and print the path of its file, which goes to whoever is to join."""
    made = KeyStore(starting.existing(directory) / "keys").new(name, role)
    cluster.keys_changed(directory)
    click.echo(made.path)


@keys.command("list")
@directory_option
def list_keys(directory: Path) -> None:
    """All keys there ever were."""
    cluster.show_keys(KeyStore(starting.existing(directory) / "keys").list())


@keys.command("revoke")
@click.argument("name")
@directory_option
def revoke_key(name: str, directory: Path) -> None:
    """Admit a key no longer, and end the connections that it has."""
    KeyStore(starting.existing(directory) / "keys").revoke(name)
    told = cluster.keys_changed(directory)
    click.echo(f"{name} is revoked" + ("; the cluster has been told" if told else ""))
