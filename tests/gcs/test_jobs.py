"""Jobs: started once, forgotten when they end."""

from __future__ import annotations

from actorlib.gcs.jobs import Jobs
from actorlib.transport.messages import Done


def test_a_job_is_persisted_then_acknowledged(make, port):
    jobs, link = Jobs(port), make.link("driver")
    jobs.started(link, make.job("a", request_id=5))
    assert port.effects == [("persist", "jobs", make.job_id("a")), ("send", "Done")]
    assert link.take() == [Done(5)]


def test_a_start_that_arrives_twice_counts_once_and_both_are_answered(make, port):
    jobs, link = Jobs(port), make.link("driver")
    jobs.started(link, make.job("a", request_id=5))
    jobs.started(link, make.job("a", request_id=6))
    assert [effect[0] for effect in port.effects] == ["persist", "send", "send"]
    assert link.take() == [Done(5), Done(6)]
    assert jobs.jobs[make.job_id("a")].request_id == 5


def test_a_job_ends_once(make, port):
    jobs, link = Jobs(port), make.link("driver")
    jobs.started(link, make.job("a"))
    jobs.started(link, make.job("b"))
    assert jobs.ended(make.job_id("a"))
    assert not jobs.ended(make.job_id("a"))
    assert not jobs.ended(make.job_id("never"))
    assert list(jobs.jobs) == [make.job_id("b")]
    assert list(port.rows) == [("jobs", make.job_id("b"))]


def test_the_newest_job_is_listed_first(make, port):
    jobs, link = Jobs(port), make.link("driver")
    jobs.started(link, make.job("a"))
    jobs.started(link, make.job("b"))
    rows = jobs.rows()
    assert [row["entrypoint"] for row in rows] == ["python b.py", "python a.py"]
    assert rows[1] == {
        "job_id": make.job_id("a").hex(),
        "driver": make.address("d-a").process_id.hex(),
        "namespace": "space",
        "entrypoint": "python a.py",
    }


def test_a_job_comes_back_from_its_record_as_it_was(make, port):
    jobs, link = Jobs(port), make.link("driver")
    jobs.started(link, make.job("a"))
    again = Jobs(port)
    for (_, key), value in port.rows.items():
        again.load(key, value)
    assert again.jobs == jobs.jobs and again.jobs[make.job_id("a")] == make.job("a")
