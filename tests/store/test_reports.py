"""Reports of objects: what has changed, each change once, bounded."""

from __future__ import annotations

from actorlib.store.catalog import Place, Slab
from actorlib.store.reports import COPY, FREED, SEALED, SPILLED, ObjectReports
from actorlib.transport import limits

OWNER = b"process1"


def object_of(number):
    return OWNER + number.to_bytes(12, "big")


class Lying:
    """What the reports look at of a catalog."""

    def __init__(self, count):
        self.spilled_bytes = 0
        self.objects = {}
        for number in range(count):
            self.add(number)

    def add(self, number):
        self.objects[object_of(number)] = Place(Slab(0, "slab", 1000), 0, 100)

    def spill(self, number):
        place = self.objects[object_of(number)]
        place.slab, place.spilled = None, "file"
        self.spilled_bytes += place.size


def sealed(number):
    return (object_of(number), SEALED, 100, OWNER)


def test_each_change_is_told_once():
    catalog, reports = Lying(2), ObjectReports()
    assert reports.changes(catalog) == (sealed(0), sealed(1))
    assert reports.changes(catalog) == ()
    catalog.add(2)
    del catalog.objects[object_of(0)]
    assert reports.changes(catalog) == ((object_of(0), FREED, 0, b""), sealed(2))
    assert reports.changes(catalog) == ()


def test_what_comes_and_goes_between_two_looks_is_not_told():
    catalog, reports = Lying(0), ObjectReports()
    catalog.add(1)
    del catalog.objects[object_of(1)]
    assert reports.changes(catalog) == ()


def test_spilled_ones_copies_and_those_that_were_taken_over_say_so():
    catalog, reports = Lying(2), ObjectReports()
    reports.changes(catalog)
    catalog.spill(0)
    assert reports.changes(catalog) == ((object_of(0), SPILLED, 100, OWNER),)
    catalog.add(2)
    catalog.objects[object_of(2)].is_copy = True
    catalog.objects[object_of(2)].owner = b"process2"
    assert reports.changes(catalog) == ((object_of(2), COPY, 100, b"process2"),)


def test_only_the_newest_are_told(monkeypatch):
    monkeypatch.setattr(limits, "object_records_max", 3)
    catalog, reports = Lying(5), ObjectReports()
    assert reports.changes(catalog) == (sealed(2), sealed(3), sealed(4))
    catalog.add(5)
    assert reports.changes(catalog) == ((object_of(2), FREED, 0, b""), sealed(5))
