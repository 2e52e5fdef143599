"""Words for people, on stderr."""

from __future__ import annotations

import sys


def notice(text: str) -> None:
    """Print a line on stderr. Where that is closed or full nobody can hear it, and the loop goes on all the same."""
    try:
        print(f"actorlib: {text}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return
