"""Metrics: values by tags, refusals, sharing, travelling, and the export."""

from __future__ import annotations

import itertools
import pickle
import sys
from typing import Any

import pytest

from actorlib.exceptions import NotSupportedByEngineError
from actorlib.util import metrics
from actorlib.util.metrics import Counter, Gauge, Histogram

numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"test_metric_{next(numbers)}"


def test_counter(name: str) -> None:
    counter = Counter(name, description="calls", tag_keys=("route",))
    counter.inc(tags={"route": "a"})
    counter.inc(2.5, tags={"route": "a"})
    counter.set_default_tags({"route": "b"}).inc()  # type: ignore[attr-defined]
    assert counter.values() == {("a",): 3.5, ("b",): 1.0}
    assert counter.info == {
        "name": name,
        "description": "calls",
        "tag_keys": ("route",),
        "default_tags": {"route": "b"},
    }


def test_gauge(name: str) -> None:
    gauge = Gauge(name)
    gauge.set(3)
    gauge.set(-2)
    assert gauge.values() == {(): -2.0}


def test_histogram(name: str) -> None:
    histogram = Histogram(name, boundaries=[1, 10], tag_keys=("k",))
    for value in (0.5, 1, 5, 50, 60):
        histogram.observe(value, {"k": "x"})
    assert histogram.counts() == {("x",): [2, 1, 2]}
    assert histogram.values() == {("x",): 116.5}
    assert histogram.info["boundaries"] == [1, 10]


def test_one_name_is_one_metric(name: str) -> None:
    Counter(name).inc()
    Counter(name, description="later").inc()
    assert Counter(name).values() == {(): 2.0}
    with pytest.raises(ValueError, match="already"):
        Gauge(name)
    with pytest.raises(ValueError, match="already"):
        Counter(name, tag_keys=("a",))


def test_it_can_be_pickled(name: str) -> None:
    histogram = Histogram(name, boundaries=[1], tag_keys=("k",))
    histogram.set_default_tags({"k": "v"})
    again = pickle.loads(pickle.dumps(histogram))
    again.observe(2)
    assert histogram.counts() == {("v",): [0, 1]}


def test_refusals(name: str) -> None:
    counter = Counter(name, tag_keys=("a",))
    with pytest.raises(ValueError, match="needs a value"):
        counter.inc()
    with pytest.raises(ValueError, match="no tag 'b'"):
        counter.inc(tags={"a": "1", "b": "2"})
    with pytest.raises(TypeError, match="string"):
        counter.inc(tags={"a": 1})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="no tag 'b'"):
        counter.set_default_tags({"b": "2"})
    with pytest.raises(ValueError, match="above 0"):
        counter.inc(0, {"a": "1"})
    with pytest.raises(TypeError, match="number"):
        counter.inc("1", {"a": "1"})  # type: ignore[arg-type]
    assert counter.values() == {}


@pytest.mark.parametrize("boundaries", [None, [], [0, 1], [-1, 1], [1, 1], [2, 1]])
def test_wrong_boundaries(name: str, boundaries: Any) -> None:
    with pytest.raises(ValueError, match="boundaries"):
        Histogram(name, boundaries=boundaries)


def test_wrong_names_and_keys(name: str) -> None:
    with pytest.raises(ValueError, match="non-empty"):
        Counter("")
    with pytest.raises(TypeError, match="tag_keys"):
        Counter(name, tag_keys="route")
    with pytest.raises(TypeError, match="tag_keys"):
        Counter(name, tag_keys=(1,))  # type: ignore[arg-type]


def test_export_without_prometheus_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(NotSupportedByEngineError, match="pip install"):
        metrics.export_to_prometheus()


def test_export(name: str) -> None:
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    metrics.export_to_prometheus(registry)
    Counter(f"{name}.calls", tag_keys=("k",)).inc(3, {"k": "v"})
    Gauge(f"{name}_level").set(7)
    histogram = Histogram(f"{name}_size", boundaries=[1, 10])
    for value in (0.5, 5, 50):
        histogram.observe(value)
    assert registry.get_sample_value(f"{name}_calls_total", {"k": "v"}) == 3
    assert registry.get_sample_value(f"{name}_level") == 7
    assert registry.get_sample_value(f"{name}_size_bucket", {"le": "10"}) == 2
    assert registry.get_sample_value(f"{name}_size_bucket", {"le": "+Inf"}) == 3
    assert registry.get_sample_value(f"{name}_size_sum") == 55.5
