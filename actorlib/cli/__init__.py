"""The command ``actorlib``: starts and stops nodes of a cluster, shows it, keeps its keys, runs scripts on it.

Exit codes: 0 all went well; 1 it could not be done, and the last line says why; 2 the command was written wrongly.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point; says what to install where the packages of the extra ``cli`` are missing."""
    try:
        from actorlib.cli.commands import group
    except ImportError as error:
        print(f"actorlib: the command line needs more packages ({error.name}): pip install 'actorlib[cli]'")
        sys.exit(1)
    group(prog_name="actorlib")


__all__ = ["main"]
