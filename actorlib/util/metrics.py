"""Counters, gauges and histograms with tags, kept in the process that counts.

``metric.values()`` gives what was counted so far. Where prometheus_client is installed, ``export_to_prometheus()`` lets
its registry read all metrics of the process. Metrics of one name in one process share their values.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actorlib.exceptions import NotSupportedByEngineError

Tags = tuple[str, ...]  # values of the tags, in the order of tag_keys

_lock = threading.Lock()
_registered: dict[str, _Series] = {}


class _Series:
    """The values of all metrics of one name."""

    def __init__(self, kind: str, tag_keys: Tags, boundaries: tuple[float, ...]) -> None:
        self.kind = kind
        self.tag_keys = tag_keys
        self.boundaries = boundaries
        self.description = ""
        self.numbers: dict[Tags, float] = {}
        self.buckets: dict[Tags, list[int]] = {}  # of a histogram; the last has what is above all boundaries

    def shape(self) -> tuple[Any, ...]:
        return self.kind, self.tag_keys, self.boundaries


class Metric:
    """Base of the three kinds of metrics."""

    kind = ""

    def __init__(self, name: str, description: str = "", tag_keys: Sequence[str] | None = None) -> None:
        self._set_up(name, description, tag_keys, ())

    def _set_up(
        self, name: str, description: str, tag_keys: Sequence[str] | None, boundaries: tuple[float, ...]
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"the name of a metric is a non-empty string, not {name!r}")
        keys = tuple(tag_keys or ())
        if isinstance(tag_keys, str) or not all(isinstance(key, str) for key in keys):
            raise TypeError(f"tag_keys is a tuple of strings, not {tag_keys!r}")
        self._name = name
        self._description = description
        self._tag_keys = keys
        self._default_tags: dict[str, str] = {}
        made = _Series(self.kind, keys, boundaries)
        with _lock:
            self._series = _registered.setdefault(name, made)
            self._series.description = description or self._series.description
        if self._series.shape() != made.shape():
            raise ValueError(f"there is a metric {name!r} already, with another kind, tag_keys or boundaries")

    def set_default_tags(self, default_tags: Mapping[str, str]) -> Metric:
        """Tags for calls that don't give them. Returns the metric."""
        self._check_tags(default_tags)
        self._default_tags = dict(default_tags)
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": dict(self._default_tags),
        }

    def values(self) -> dict[Tags, float]:
        """The values by the values of the tags, in the order of ``tag_keys``. For a histogram: the sums."""
        with _lock:
            return dict(self._series.numbers)

    def _check_tags(self, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"metric {self._name!r} has no tag {key!r}; its tag_keys are {self._tag_keys}")
            if not isinstance(value, str):
                raise TypeError(f"the value of tag {key!r} is a string, not {type(value).__name__}")

    def _tags(self, given: Mapping[str, str] | None) -> Tags:
        if given:
            self._check_tags(given)
        tags = {**self._default_tags, **(given or {})}
        missing = [key for key in self._tag_keys if key not in tags]
        if missing:
            raise ValueError(f"metric {self._name!r} needs a value for the tags {missing}")
        return tuple(tags[key] for key in self._tag_keys)

    @staticmethod
    def _check_number(value: float) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"the value of a metric is a number, not {type(value).__name__}")

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self._arguments(), self._default_tags)

    def _arguments(self) -> dict[str, Any]:
        return {"name": self._name, "description": self._description, "tag_keys": self._tag_keys}


def _rebuild(cls: type[Metric], arguments: dict[str, Any], default_tags: dict[str, str]) -> Metric:
    return cls(**arguments).set_default_tags(default_tags)


class Counter(Metric):
    """A number that only grows."""

    kind = "counter"

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Add ``value``, which is above 0."""
        self._check_number(value)
        if value <= 0:
            raise ValueError(f"a counter grows by a number above 0, not {value}")
        key = self._tags(tags)
        with _lock:
            self._series.numbers[key] = self._series.numbers.get(key, 0.0) + value


class Gauge(Metric):
    """A number that is set."""

    kind = "gauge"

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Set the value."""
        self._check_number(value)
        key = self._tags(tags)
        with _lock:
            self._series.numbers[key] = float(value)


class Histogram(Metric):
    """How often values fell between ``boundaries``, which rise and are above 0."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: Sequence[str] | None = None,
    ) -> None:
        limits = tuple(boundaries or ())
        if not limits:
            raise ValueError("a histogram needs boundaries, such as [0.1, 1, 10]")
        if limits[0] <= 0 or any(low >= high for low, high in itertools.pairwise(limits)):
            raise ValueError(f"boundaries must be above 0 and rise, not {list(limits)}")
        self._set_up(name, description, tag_keys, limits)

    @property
    def info(self) -> dict[str, Any]:
        return {**super().info, "boundaries": list(self._series.boundaries)}

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Count a value."""
        self._check_number(value)
        key = self._tags(tags)
        limits = self._series.boundaries
        with _lock:
            buckets = self._series.buckets.setdefault(key, [0] * (len(limits) + 1))
            buckets[bisect.bisect_left(limits, value)] += 1
            self._series.numbers[key] = self._series.numbers.get(key, 0.0) + value

    def counts(self) -> dict[Tags, list[int]]:
        """For each set of tags how many values were at most each boundary and above the one before; the rest last."""
        with _lock:
            return {key: list(buckets) for key, buckets in self._series.buckets.items()}

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), "boundaries": self._series.boundaries}


def export_to_prometheus(registry: Any = None) -> Any:
    """Let a registry of prometheus_client (None: its default one) read this process's metrics. Returns the collector.

    Raises NotSupportedByEngineError if prometheus_client is not installed.
    """
    try:
        import prometheus_client
    except ImportError as error:
        what = "exporting metrics, which needs prometheus_client"
        raise NotSupportedByEngineError("local", what, "pip install prometheus_client") from error
    collector = _Collector()
    (prometheus_client.REGISTRY if registry is None else registry).register(collector)
    return collector


class _Collector:
    """What prometheus_client asks for the metrics."""

    def describe(self) -> list[Any]:
        """Nothing in advance: metrics come and go, and registering must not read them."""
        return []

    def collect(self) -> Iterator[Any]:
        with _lock:
            families = [self._family(name, series) for name, series in _registered.items()]
        yield from families

    def _family(self, name: str, series: _Series) -> Any:
        from prometheus_client import core

        safe = "".join(char if char.isalnum() or char in "_:" else "_" for char in name)
        if series.kind == "histogram":
            family = core.HistogramMetricFamily(safe, series.description, labels=series.tag_keys)
            for tags, buckets in series.buckets.items():
                family.add_metric(tags, _cumulative(series.boundaries, buckets), series.numbers[tags])
            return family
        kinds = {"counter": core.CounterMetricFamily, "gauge": core.GaugeMetricFamily}
        family = kinds[series.kind](safe, series.description, labels=series.tag_keys)
        for tags, number in series.numbers.items():
            family.add_metric(tags, number)
        return family


def _cumulative(boundaries: tuple[float, ...], buckets: list[int]) -> list[tuple[str, int]]:
    """Buckets as Prometheus wants them: how many values are at most each boundary."""
    total, rows = 0, []
    for label, count in zip([*map(str, boundaries), "+Inf"], buckets, strict=True):
        total += count
        rows.append((label, total))
    return rows


__all__ = ["Counter", "Gauge", "Histogram", "Metric", "export_to_prometheus"]
