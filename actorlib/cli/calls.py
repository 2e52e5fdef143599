"""What a durable actor did last. Asking an actor takes a driver, so this process is one meanwhile."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

import actorlib
from actorlib.util import list_named_actors
from actorlib.util.state import actor_log


def show_log(address: str, name: str, namespace: str | None, limit: int) -> None:
    """Print the last calls of a named durable actor, the newest first."""
    with actorlib.init(address=address, log_to_driver=False):
        try:
            handle = actorlib.get_actor(name, namespace=namespace or _namespace_of(name))
            rows = actor_log(handle, limit)
        except (ValueError, actorlib.exceptions.ActorlibError) as error:
            raise click.ClickException(str(error)) from error
    table = Table("position", "method", "caller", "call", "outcome", box=None)
    for row in rows:
        table.add_row(str(row.position), row.method, row.caller, str(row.sequence), row.outcome)
    Console().print(table if rows else "it has run no call since it came to its process")


def _namespace_of(name: str) -> str:
    """The one in which there is an actor of that name."""
    found = [row["namespace"] for row in list_named_actors(all_namespaces=True) if row["name"] == name]
    if len(found) == 1:
        return str(found[0])
    if not found:
        raise click.ClickException(f"there is no actor named {name!r}")
    raise click.ClickException(f"there is a {name!r} in several namespaces; say --namespace: {', '.join(found)}")
