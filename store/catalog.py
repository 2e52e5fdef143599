"""What lies in a node's shared memory, and what has to go when it is full.

The catalog knows each slab (who fills it, which objects lie in it) and each object (in a slab or spilled to disk). It
decides: which free slab serves a request, which slabs are given back to the system, which are spilled, least recently
used first. Files and locks are the driver's: the catalog asks through ``Port`` whether a slab is free of readers.

States of a slab: FILLING (granted to a process) -> SEALED (nobody adds to it) -> FREE (no object, no reader) -> FILLING
again, or unlinked. Copies of objects that another node keeps go first: they are dropped, since they can be had again.
A slab whose objects are all freed but which a reader still maps stays SEALED and is looked at again
when room is needed.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from typing import Protocol

from actorlib.store import slab
from actorlib.transport import limits
from actorlib.transport.ids import ObjectId, ProcessId


class SlabState(enum.Enum):
    FILLING = "filling"
    SEALED = "sealed"
    FREE = "free"


MOVES = {
    SlabState.FILLING: {SlabState.SEALED},
    SlabState.SEALED: {SlabState.FREE},
    SlabState.FREE: {SlabState.FILLING},
}


class Slab:
    __slots__ = ("filler", "number", "objects", "path", "size", "state", "used_at")

    def __init__(self, number: int, path: str, size: int) -> None:
        self.number = number
        self.path = path
        self.size = size
        self.state = SlabState.FREE
        self.filler: ProcessId | None = None
        self.objects: dict[ObjectId, None] = {}
        self.used_at = 0

    def move(self, state: SlabState) -> None:
        assert state in MOVES[self.state], f"slab {self.number}: {self.state.value} -> {state.value}"
        self.state = state


class Place:
    """Where an object lies: in a slab, or in a spill file."""

    __slots__ = ("is_copy", "offset", "owner", "size", "slab", "spilled")

    def __init__(self, slab_of: Slab | None, offset: int, size: int) -> None:
        self.slab = slab_of
        self.offset = offset
        self.size = size
        self.spilled: str | None = None
        self.owner: ProcessId | None = None  # who has taken it over from the process that its id names
        self.is_copy = False  # another node has it too, and keeps it


class Port(Protocol):
    """Files and locks."""

    def create(self, number: int, size: int) -> str:
        """A new slab file with all of its pages there. Raises OSError (ENOSPC)."""

    def renew(self, slab_of: Slab) -> str | None:
        """Take the slab's lock and give it a new path, so that old places are void; None if a reader maps it."""

    def unlink(self, slab_of: Slab) -> None: ...

    def spill(self, slab_of: Slab, object_id: ObjectId, place: Place) -> str:
        """Write an object to disk; gives the file's path. Raises OSError."""

    def unspill(self, path: str) -> None:
        """Delete a spill file."""


class StoreFull(Exception):
    """There is no room and none can be made."""


class Catalog:
    """Slabs and objects of one node. See the module's docstring."""

    def __init__(self, capacity_bytes: int, spill_bytes_max: int, port: Port) -> None:
        self.capacity_bytes = capacity_bytes
        self.spill_bytes_max = spill_bytes_max
        self.spilled_bytes = 0
        self.slabs: dict[int, Slab] = {}
        self.by_path: dict[str, Slab] = {}
        self.objects: dict[ObjectId, Place] = {}
        self._port = port
        self._next_number = 0
        self._clock = 0
        self._freed_early: dict[ObjectId, None] = {}
        self._gone: dict[ProcessId, None] = {}  # processes that have died: what comes of theirs later is an orphan

    # -- granting ------------------------------------------------------------------------------------------------------
    def grant(self, process_id: ProcessId, size: int) -> Slab:
        """A slab with room for an object of ``size`` bytes. Raises StoreFull."""
        wanted = slab.slab_bytes(size)
        if wanted > self.capacity_bytes:
            raise StoreFull(
                f"an object of {size} bytes does not fit into an object store of {self.capacity_bytes} bytes; "
                "start with a larger object_store_memory"
            )
        chosen = self._free_slab(wanted)
        if chosen is None and self._bytes() + wanted > self.capacity_bytes:
            self._make_room(wanted)
            chosen = self._free_slab(wanted)
        if chosen is None:
            chosen = self._create_with_room(wanted)
        chosen.move(SlabState.FILLING)
        chosen.filler = process_id
        self._touch(chosen)
        return chosen

    def _free_slab(self, wanted: int) -> Slab | None:
        self._sweep()
        fits = [s for s in self.slabs.values() if s.state is SlabState.FREE and wanted <= s.size <= wanted * 2]
        if slab.is_shared(wanted):
            fits = [s for s in fits if s.size == wanted]
        else:
            fits = [s for s in fits if not slab.is_shared(s.size)]
        return max(fits, key=lambda s: s.used_at, default=None)

    def _sweep(self) -> None:
        """Slabs without objects become free, unless a reader still maps them."""
        for candidate in self.slabs.values():
            if candidate.state is SlabState.SEALED and not candidate.objects:
                self._free(candidate)

    def _free(self, candidate: Slab) -> bool:
        path = self._port.renew(candidate)
        if path is None:
            return False
        del self.by_path[candidate.path]
        candidate.path = path
        self.by_path[path] = candidate
        candidate.move(SlabState.FREE)
        candidate.filler = None
        return True

    def _create_with_room(self, size: int) -> Slab:
        """A new slab. Where others have filled the memory that we count on, ours gives way until there is room."""
        while True:
            try:
                return self._create(size)
            except OSError as error:
                if not self._give_way():
                    text = f"shared memory is full of other things ({error.strerror}); {self._largest()}"
                    raise StoreFull(text) from error

    def _give_way(self) -> bool:
        by_age = sorted(self.slabs.values(), key=lambda s: (s.state is not SlabState.FREE, s.used_at))
        for old in by_age:
            if old.state is SlabState.FREE or (old.state is SlabState.SEALED and self._spill(old)):
                self._unlink(old)
                return True
        return False

    def _create(self, size: int) -> Slab:
        number, self._next_number = self._next_number, self._next_number + 1
        path = self._port.create(number, size)
        made = Slab(number, path, size)
        self.slabs[number] = made
        self.by_path[path] = made
        return made

    def _bytes(self) -> int:
        return sum(s.size for s in self.slabs.values())

    def _touch(self, used: Slab) -> None:
        self._clock += 1
        used.used_at = self._clock

    # -- making room ---------------------------------------------------------------------------------------------------
    def _make_room(self, wanted: int) -> None:
        """Give free slabs back to the system, then spill sealed ones, until ``wanted`` more bytes fit."""
        by_age = sorted(self.slabs.values(), key=lambda s: s.used_at)
        for old in by_age:
            if self._bytes() + wanted <= self.capacity_bytes:
                return
            if old.state is SlabState.FREE:
                self._unlink(old)
        for make_free in (self._drop_copies, self._spill):
            for old in by_age:
                if self._bytes() + wanted <= self.capacity_bytes:
                    return
                if old.state is SlabState.SEALED and old.number in self.slabs and make_free(old):
                    self._unlink(old)
        if self._bytes() + wanted > self.capacity_bytes:
            raise StoreFull(
                f"the object store ({self.capacity_bytes} bytes) is full of objects that are in use, "
                f"{self.spilled_bytes} of {self.spill_bytes_max} bytes are spilled to disk; {self._largest()}"
            )

    def _unlink(self, old: Slab) -> None:
        self._port.unlink(old)
        del self.slabs[old.number]
        del self.by_path[old.path]

    def _drop_copies(self, old: Slab) -> bool:
        """Make a slab free in which only copies lie. False if it has others, or a reader maps it."""
        if not all(self.objects[oid].is_copy for oid in old.objects) or not self._free(old):
            return False
        for oid in old.objects:
            del self.objects[oid]
        old.objects.clear()
        return True

    def _spill(self, old: Slab) -> bool:
        """Write a slab's objects to disk and make it free. False if a reader maps it or the quota is used up."""
        if self._drop_copies(old):
            return True
        size = sum(self.objects[oid].size for oid in old.objects)
        if self.spilled_bytes + size > self.spill_bytes_max:
            return False
        written: dict[ObjectId, str] = {}
        try:
            for oid in old.objects:
                written[oid] = self._port.spill(old, oid, self.objects[oid])
        except OSError as error:
            for path in written.values():
                self._port.unspill(path)
            raise StoreFull(f"spilling to disk failed ({error.strerror}); {self._largest()}") from error
        if not self._free(old):
            for path in written.values():
                self._port.unspill(path)
            return False
        for oid, path in written.items():
            place = self.objects[oid]
            place.slab, place.spilled = None, path
            self.spilled_bytes += place.size
        old.objects.clear()
        return True

    def _largest(self) -> str:
        top = sorted(self.objects.items(), key=lambda item: -item[1].size)[:5]
        shown = ", ".join(f"{oid.hex()[:16]} ({place.size} bytes, owner {oid[:8].hex()})" for oid, place in top)
        return f"largest objects: {shown or 'none'}; drop references to them, or raise object_store_memory"

    # -- what processes tell -------------------------------------------------------------------------------------------
    def sealed(self, object_id: ObjectId, path: str, offset: int, size: int) -> None:
        holder = self.by_path.get(path)
        if holder is None:
            return
        if not slab.is_shared(holder.size) and holder.state is SlabState.FILLING:
            holder.move(SlabState.SEALED)
        if self._freed_early.pop(object_id, 0) is None:
            return
        self._leave(object_id)
        self.objects[object_id] = Place(holder, offset, size)
        holder.objects[object_id] = None
        self._touch(holder)

    def _leave(self, object_id: ObjectId) -> None:
        """It does not lie any more where it did, if it did: it was freed, or made here once more."""
        place = self.objects.pop(object_id, None)
        if place is None:
            return
        if place.slab is not None:
            place.slab.objects.pop(object_id, None)
        if place.spilled is not None:
            self._port.unspill(place.spilled)
            self.spilled_bytes -= place.size

    def copied(self, object_id: ObjectId, path: str, offset: int, size: int) -> None:
        """A copy of an object that another node keeps is here now."""
        self._freed_early.pop(object_id, None)
        self.sealed(object_id, path, offset, size)
        self.objects[object_id].is_copy = True

    def claimed(self, object_id: ObjectId, owner: ProcessId) -> None:
        """It ends with ``owner``, not with the process that made its reference."""
        place = self.objects.get(object_id)
        if place is not None and owner != object_id[:8]:
            place.owner = owner

    def owned_by(self, process_id: ProcessId) -> list[ObjectId]:
        return [oid for oid, place in self.objects.items() if (place.owner or oid[:8]) == process_id]

    def orphans(self, object_ids: Iterable[ObjectId]) -> list[ObjectId]:
        """Those of them that are here and whose owner was gone before they came, if nobody claims them."""
        places = [(oid, self.objects.get(oid)) for oid in object_ids]
        return [oid for oid, place in places if place is not None and (place.owner or oid[:8]) in self._gone]

    def promoted(self, object_id: ObjectId) -> None:
        """What it is a copy of is lost: this one is kept."""
        place = self.objects.get(object_id)
        if place is not None:
            place.is_copy = False

    def demoted(self, object_id: ObjectId) -> None:
        """Another node keeps it now: this one is a copy."""
        place = self.objects.get(object_id)
        if place is not None:
            place.is_copy = True

    def kept_for_others(self, ours: Collection[ProcessId]) -> dict[ProcessId, list[ObjectId]]:
        """What is lost to its owner if we go: objects that only we keep, by owners who are not among ``ours``."""
        by_owner: dict[ProcessId, list[ObjectId]] = {}
        for object_id, place in self.objects.items():
            owner = place.owner or ProcessId(object_id[:8])
            if not place.is_copy and owner not in ours:
                by_owner.setdefault(owner, []).append(object_id)
        return by_owner

    def free_copy(self, object_id: ObjectId) -> bool:
        """Drop an object that was copied here. False if it is here no more."""
        if object_id not in self.objects:
            return False
        self.freed(object_id)
        return True

    def returned(self, path: str) -> None:
        holder = self.by_path.get(path)
        if holder is not None and holder.state is SlabState.FILLING:
            holder.move(SlabState.SEALED)

    def freed(self, object_id: ObjectId) -> None:
        if object_id in self.objects:
            self._leave(object_id)
            return
        # Another process wrote it and its word is still on the way.
        self._freed_early[object_id] = None
        if len(self._freed_early) > 10_000:
            del self._freed_early[next(iter(self._freed_early))]

    def process_died(self, process_id: ProcessId) -> None:
        """Its own objects go; slabs that it filled are closed; objects that it wrote for others stay."""
        self._gone[process_id] = None
        while len(self._gone) > limits.dead_owners_kept_max:
            del self._gone[next(iter(self._gone))]
        for oid in self.owned_by(process_id):
            self.freed(oid)
        for holder in self.slabs.values():
            if holder.filler == process_id and holder.state is SlabState.FILLING:
                holder.move(SlabState.SEALED)

    def find(self, object_id: ObjectId) -> Place | None:
        place = self.objects.get(object_id)
        if place is not None and place.slab is not None:
            self._touch(place.slab)
        return place

    def restored(self, object_id: ObjectId, into: Slab, offset: int) -> None:
        place = self.objects[object_id]
        if place.spilled is not None:
            self._port.unspill(place.spilled)
            self.spilled_bytes -= place.size
        place.spilled, place.slab, place.offset = None, into, offset
        into.objects[object_id] = None
        if into.state is SlabState.FILLING:
            into.move(SlabState.SEALED)

    def usage(self) -> dict[str, int]:
        return {
            "capacity_bytes": self.capacity_bytes,
            "slab_bytes": self._bytes(),
            "objects": len(self.objects),
            "object_bytes": sum(place.size for place in self.objects.values()),
            "spilled_bytes": self.spilled_bytes,
        }

    def check(self) -> None:
        for holder in self.slabs.values():
            assert self.by_path.get(holder.path) is holder, "a slab that can't be found by its path"
            assert holder.state is not SlabState.FREE or not holder.objects, "a free slab with objects"
            for oid in holder.objects:
                assert self.objects[oid].slab is holder, f"{oid.hex()} lies elsewhere"
        for oid, place in self.objects.items():
            assert (place.slab is None) != (place.spilled is None), f"{oid.hex()} must lie in exactly one place"
        assert self._bytes() <= self.capacity_bytes, "more slabs than the capacity"
        spilled = sum(place.size for place in self.objects.values() if place.spilled is not None)
        assert spilled == self.spilled_bytes, "spilled bytes miscounted"
