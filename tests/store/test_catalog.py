"""The node's catalog against fake files."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorlib.store.catalog import Catalog, SlabState, StoreFull

MIB = 1 << 20


class Files:
    """Fake files: which slabs have readers, what was spilled."""

    def __init__(self):
        self.readers = set()
        self.spilled = {}
        self.slabs = {}
        self.log = []

    def create(self, number, size):
        path = f"slab-{number}.0"
        self.slabs[path] = size
        self.log.append(("create", size))
        return path

    def renew(self, slab):
        if slab.path in self.readers:
            return None
        base, _, generation = slab.path.rpartition(".")
        path = f"{base}.{int(generation) + 1}"
        self.slabs[path] = self.slabs.pop(slab.path)
        return path

    def unlink(self, slab):
        del self.slabs[slab.path]

    def spill(self, slab, object_id, place):
        self.spilled[object_id.hex()] = place.size
        return object_id.hex()

    def unspill(self, path):
        del self.spilled[path]


def oid(n, owner=b"ownerrrr"):
    return owner + n.to_bytes(12, "big")


def store(catalog, n, size):
    slab = catalog.grant(b"writer..", size)
    catalog.sealed(oid(n), slab.path, 0, size)
    return slab


def test_what_is_made_here_again_lies_in_its_new_place_only():
    catalog = Catalog(64 * MIB, 64 * MIB, Files())
    first, second = store(catalog, 1, 9 * MIB), store(catalog, 1, 9 * MIB)
    assert not first.objects and catalog.objects[oid(1)].slab is second
    catalog.check()


def test_a_freed_slab_is_granted_again_under_a_new_path():
    files = Files()
    catalog = Catalog(100 * MIB, 100 * MIB, files)
    first = store(catalog, 1, 20 * MIB)
    path = first.path
    catalog.freed(oid(1))
    second = catalog.grant(b"writer..", 20 * MIB)
    assert second is first and second.path != path
    assert files.log == [("create", first.size)]


def test_a_slab_with_a_reader_is_left_alone():
    files = Files()
    catalog = Catalog(100 * MIB, 0, files)
    first = store(catalog, 1, 20 * MIB)
    files.readers.add(first.path)
    catalog.freed(oid(1))
    assert catalog.grant(b"writer..", 20 * MIB) is not first
    files.readers.clear()
    assert catalog.grant(b"writer..", 20 * MIB) is first


def test_the_least_recently_used_is_spilled_and_comes_back():
    files = Files()
    catalog = Catalog(60 * MIB, 100 * MIB, files)
    for n in range(2):
        store(catalog, n, 24 * MIB)
    catalog.find(oid(0))
    store(catalog, 2, 24 * MIB)
    assert list(files.spilled) == [oid(1).hex()]
    catalog.check()
    into = catalog.grant(b"node....", 24 * MIB)
    catalog.restored(oid(1), into, 0)
    assert oid(1).hex() not in files.spilled and catalog.find(oid(1)).slab is into
    catalog.check()


def test_full_names_the_largest_objects():
    catalog = Catalog(60 * MIB, 0, Files())
    for n in range(2):
        store(catalog, n, 24 * MIB)
    with pytest.raises(StoreFull, match=oid(0).hex()[:16]):
        catalog.grant(b"writer..", 24 * MIB)
    with pytest.raises(StoreFull, match="does not fit"):
        catalog.grant(b"writer..", 70 * MIB)


def test_an_object_freed_before_its_writer_has_reported_it():
    catalog = Catalog(100 * MIB, 0, Files())
    slab = catalog.grant(b"writer..", 20 * MIB)
    catalog.freed(oid(1))
    catalog.sealed(oid(1), slab.path, 0, 20 * MIB)
    assert not catalog.objects
    assert catalog.grant(b"writer..", 20 * MIB) is slab


def test_a_dead_process_takes_its_objects_and_leaves_those_of_others():
    catalog = Catalog(100 * MIB, 0, Files())
    slab = catalog.grant(b"writer..", 1000)
    catalog.sealed(oid(1, b"writer.."), slab.path, 0, 1000)
    catalog.sealed(oid(2), slab.path, 1024, 1000)
    catalog.process_died(b"writer..")
    assert list(catalog.objects) == [oid(2)] and slab.state is SlabState.SEALED
    catalog.check()


def test_what_comes_when_its_owner_is_gone_is_an_orphan_unless_it_is_claimed():
    catalog = Catalog(64 * MIB, 64 * MIB, Files())
    late, claimed, other = oid(1), oid(2), oid(3, b"anotherr")
    catalog.process_died(b"ownerrrr")
    for object_id in (late, claimed, other):
        slab = catalog.grant(b"writer..", 2 * MIB)
        catalog.sealed(object_id, slab.path, 0, 2 * MIB)
    catalog.claimed(claimed, b"borrower")
    assert catalog.orphans([late, claimed, other, oid(4)]) == [late]
    catalog.process_died(b"borrower")
    assert list(catalog.objects) == [late, other]


class CatalogMachine(RuleBasedStateMachine):
    """Random use: the invariants hold, and what was stored and not freed is always somewhere."""

    def __init__(self):
        super().__init__()
        self.files = Files()
        self.catalog = Catalog(200 * MIB, 150 * MIB, self.files)
        self.living = {}
        self.next = 0

    @rule(size=st.integers(1, 60 * MIB))
    def put(self, size):
        try:
            slab = self.catalog.grant(b"writer..", size)
        except StoreFull:
            return
        self.catalog.sealed(oid(self.next), slab.path, 0, size)
        if slab.size == 8 * MIB:
            self.catalog.returned(slab.path)
        self.living[self.next] = size
        self.next += 1

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def free(self, data):
        n = data.draw(st.sampled_from(sorted(self.living)))
        self.catalog.freed(oid(n))
        del self.living[n]

    @rule(data=st.data())
    def read_or_leave(self, data):
        paths = sorted(self.files.slabs)
        if paths:
            path = data.draw(st.sampled_from(paths))
            self.files.readers.symmetric_difference_update({path})

    @invariant()
    def everything_is_somewhere(self):
        self.catalog.check()
        assert set(self.catalog.objects) == {oid(n) for n in self.living}


TestCatalogMachine = CatalogMachine.TestCase
TestCatalogMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None, database=None)
