"""Numbers for Prometheus: requests of this API, and whatever counters other parts of the broker keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Readings = Mapping[str, int | float | Mapping[str, int | float]]
"""By name a number, or numbers by the value of one label (`kind`)."""


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
            kind = GaugeMetricFamily if name in self._gauges else CounterMetricFamily
            full = f"tokenbroker_{self._part}_{name}"
            text = f"{self._part}: {name.replace('_', ' ')}"
            if isinstance(value, Mapping):
                family = kind(full, text, labels=("kind",))
                for label, number in value.items():
                    family.add_metric((label,), float(number))
            else:
                family = kind(full, text, value=float(value))
            yield family
