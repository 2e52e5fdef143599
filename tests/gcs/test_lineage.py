"""Lineage of objects whose owners may die: who may take them over, and what is kept."""

from __future__ import annotations

from actorlib.gcs.lineage import Lineages
from actorlib.transport import limits
from actorlib.transport.link import NOWHERE
from actorlib.transport.messages import NOT_MADE_AGAIN, LineageFind, LineageFound, LineageKept

DEAD = b"owner..."


def kept(lineages, link, *rows, dropped=(), job=b"job"):
    lineages.keep(link, LineageKept(job, rows, dropped))
    lineages.check()


def find(lineages, link, object_id=b"x", dead=DEAD):
    lineages.find(link, LineageFind(7, object_id, link.peer, dead))
    (answer,) = link.take()
    return answer


def test_the_first_that_asks_takes_over_and_the_others_are_sent_to_it(make, port):
    lineages, owner, a, b = Lineages(port), make.link("owner"), make.link("a"), make.link("b")
    kept(lineages, owner, (b"x", b"recipe"))
    assert find(lineages, a) == LineageFound(7, a.peer, b"recipe", "")
    assert find(lineages, b) == LineageFound(7, a.peer, b"", "")
    assert find(lineages, a) == LineageFound(7, a.peer, b"recipe", "")  # asked again: the same answer
    assert find(lineages, b, dead=a.peer.process_id) == LineageFound(7, b.peer, b"recipe", "")  # it died as well


def test_what_is_not_kept_is_told_with_the_reason(make, port, monkeypatch):
    lineages, link = Lineages(port), make.link("a")
    answer = find(lineages, link)
    assert answer.owner == NOWHERE and "died before it could tell" in answer.reason
    monkeypatch.setattr(limits, "lineage_rows_bytes_max", 10)
    kept(lineages, link, (b"x", b"123456"), (b"y", b"123456"))
    assert list(lineages.rows) == [b"y"] and "for lack of room" in find(lineages, link).reason


def test_why_something_cannot_be_made_again_is_kept_and_told_and_costs_no_write(make, port):
    lineages, link = Lineages(port), make.link("a")
    kept(lineages, link, *((b"x" + code, code) for code in NOT_MADE_AGAIN))
    for code in NOT_MADE_AGAIN:
        answer = find(lineages, link, b"x" + code)
        assert (answer.owner, answer.payload, answer.reason) == (NOWHERE, b"", NOT_MADE_AGAIN[code])
    assert not port.rows
    kept(lineages, link, (b"xa", b"its value, which is there now"))
    assert find(lineages, link, b"xa").payload == b"its value, which is there now" and len(port.rows) == 1
    kept(lineages, link, dropped=tuple(b"x" + code for code in NOT_MADE_AGAIN))
    assert not lineages.rows and not port.rows


def test_rows_are_durable_and_go_when_they_are_dropped_or_their_job_ends(make, port):
    lineages, link = Lineages(port), make.link("a")
    kept(lineages, link, (b"x", b"old"), (b"y", b"recipe"))
    kept(lineages, link, (b"x", b"new"))
    kept(lineages, link, (b"z", b"of another job"), job=b"other")
    again = Lineages(port)
    for key, value in port.rows.items():
        again.load(key[1] if type(key) is tuple else key, value)
    again.check()
    assert {object_id: row.payload for object_id, row in again.rows.items()} == {
        b"x": b"new",
        b"y": b"recipe",
        b"z": b"of another job",
    }
    kept(lineages, link, dropped=(b"y",))
    lineages.job_ended(b"job")
    assert list(lineages.rows) == [b"z"] and len(port.rows) == 1
