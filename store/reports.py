"""What a node tells the cluster of its objects, for people who look: what has changed since it was last asked.

Bounded in number, and looked at once a heartbeat at most, so it costs nothing where nothing happens and never slows a
call. What comes and goes between two looks is not told.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from actorlib.store.catalog import Catalog, Place
from actorlib.transport import limits
from actorlib.transport.ids import ObjectId

SEALED, COPY, SPILLED, FREED = "SEALED", "COPY", "SPILLED", "FREED"


def state_of(place: Place) -> str:
    if place.spilled is not None:
        return SPILLED
    return COPY if place.is_copy else SEALED


class ObjectReports:
    """What was told of one node's catalog."""

    def __init__(self) -> None:
        self._told: dict[ObjectId, str] = {}
        self._seen: Any = None

    def changes(self, catalog: Catalog) -> tuple[tuple[Any, ...], ...]:
        """Rows of (object id, state, bytes, process id of its owner), of the newest objects only."""
        objects = catalog.objects
        seen = (len(objects), catalog.spilled_bytes, next(reversed(objects), None))
        if seen == self._seen:
            return ()
        self._seen = seen
        newest = dict(islice(reversed(objects.items()), limits.object_records_max))
        gone = [(oid, FREED, 0, b"") for oid in self._told if oid not in newest]
        now = {oid: state_of(place) for oid, place in newest.items()}
        rows = [
            (oid, state, newest[oid].size, newest[oid].owner or oid[:8])
            for oid, state in reversed(now.items())
            if self._told.get(oid) != state
        ]
        self._told = now
        return (*gone, *rows)
