"""How often nodes and the GCS speak of what is free, by how many nodes there are.

In a small cluster every change is told within ``limits.node_report_period_s``. What the GCS handles in a second must
not grow with the nodes, so from ``limits.views_told_per_s_max`` times that period on everybody speaks more rarely.
"""

from __future__ import annotations

from actorlib.transport import limits


def report_period_s(nodes: int) -> float:
    """Seconds between two reports of one node, which is also how often the GCS tells it of the others.

    Example:
        >>> report_period_s(10), report_period_s(10_000)
        (0.1, 1.0)
    """
    return max(limits.node_report_period_s, nodes / limits.views_told_per_s_max)
