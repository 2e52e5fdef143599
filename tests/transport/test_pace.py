"""How often is spoken of what is free."""

from __future__ import annotations

from actorlib.transport import limits
from actorlib.transport.pace import report_period_s


def test_a_small_cluster_speaks_as_often_as_it_may():
    assert report_period_s(0) == report_period_s(1_000) == limits.node_report_period_s


def test_reports_in_a_second_do_not_grow_with_the_nodes():
    for nodes in (2_000, 10_000, 50_000):
        assert nodes / report_period_s(nodes) <= limits.views_told_per_s_max
