"""Numbers for Prometheus: requests of this API, and whatever counters other parts of the broker keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Labels = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """Numbers by the values of `labels`, whose combinations are few."""

    labels: Labels
    rows: Mapping[Labels, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """How many measurements were at most each of the bounds, and above the last; and their sum."""

    counts: Sequence[int]
    sum: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Spreads:
    """Measurements by the values of `labels`, whose combinations are few, all counted by the same bounds."""

    labels: Labels
    bounds: Sequence[float]
    rows: Mapping[Labels, Spread]


Readings = Mapping[str, float | Mapping[str, float] | Labelled | Spreads]
"""By name a number, numbers by the value of one label (`kind`), numbers by several labels, or a histogram."""


class RequestMetrics:
    """Counts requests by method, route and status. Routes are templates, so their number is bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route", "status")
        self._requests = Counter("tokenbroker_api_requests", "Admin API requests.", labels, registry=registry)
        self._seconds = Histogram(
            "tokenbroker_api_request_seconds",
            "Time to answer an admin API request.",
            ("method", "route"),
            buckets=BUCKETS_S,
            registry=registry,
        )

    def observe(self, *, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one finished request."""
        self._requests.labels(method, route or "unmatched", str(status)).inc()
        self._seconds.labels(method, route or "unmatched").observe(duration_s)


class Readout(Collector):
    """Reads another part's counters when Prometheus asks. gauges: the names of those that may fall."""

    def __init__(self, *, part: str, read: Callable[[], Readings], gauges: frozenset[str] = frozenset()) -> None:
        self._part = part
        self._read = read
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """One family for each name, `tokenbroker_PART_NAME`."""
        for name, value in self._read().items():
            full, text = f"tokenbroker_{self._part}_{name}", f"{self._part}: {name.replace('_', ' ')}"
            if isinstance(value, Spreads):
                yield _histogram(full, text, value)
                continue
            kind = GaugeMetricFamily if name in self._gauges else CounterMetricFamily
            numbers = _labelled(value)
            family = kind(full, text, labels=numbers.labels)
            for labels, number in numbers.rows.items():
                family.add_metric(labels, float(number))
            yield family


def _labelled(value: float | Mapping[str, float] | Labelled) -> Labelled:
    if isinstance(value, Labelled):
        return value
    if isinstance(value, Mapping):
        return Labelled(labels=("kind",), rows={(kind,): number for kind, number in value.items()})
    return Labelled(labels=(), rows={(): value})


def _histogram(full: str, text: str, spreads: Spreads) -> Metric:
    family = HistogramMetricFamily(full, text, labels=spreads.labels)
    bounds = [*(f"{bound:g}" for bound in spreads.bounds), "+Inf"]
    for labels, spread in spreads.rows.items():
        counted = zip(bounds, map(float, accumulate(spread.counts)), strict=True)
        family.add_metric(labels, buckets=list(counted), sum_value=spread.sum)
    return family
