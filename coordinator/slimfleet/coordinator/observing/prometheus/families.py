"""Metric families: the table of metrics as prometheus_client's objects, in one registry."""

from __future__ import annotations

import re
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from slimfleet.coordinator.observing.prometheus.names import METRICS, OPEN, OTHER, Metric

MOST_DEVICE_CLASSES = 16
PLAIN_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}")


class Families:
    """All metrics of `METRICS`, under one federation's name.

    Raises ValueError where the registry has them already.
    """

    def __init__(self, registry: CollectorRegistry, federation: str) -> None:
        self._federation = federation
        self._device_classes: set[str] = set()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in METRICS:
            self._add(metric, registry)
            if OPEN not in metric.labels.values():
                self._from_zero(metric)

    def counter(self, name: str, **labels: str) -> Counter:
        """The counter of this name at these labels."""
        return self._counters[name].labels(federation=self._federation, **labels)

    def gauge(self, name: str, **labels: str) -> Gauge:
        """The gauge of this name at these labels."""
        return self._gauges[name].labels(federation=self._federation, **labels)

    def histogram(self, name: str, **labels: str) -> Histogram:
        """The histogram of this name at these labels."""
        return self._histograms[name].labels(federation=self._federation, **labels)

    def device_class(self, name: str) -> str:
        """The label for a device class: its own name for the first sixteen plain ones, else `other`.

        Devices name their class themselves, and a label must not grow with what they say.
        """
        known = self._device_classes
        full = len(known - {OTHER}) >= MOST_DEVICE_CLASSES
        if name not in known and (full or not PLAIN_WORD.fullmatch(name)):
            name = OTHER
        if name not in known:
            known.add(name)
            for metric in METRICS:
                if "device_class" in metric.labels:
                    self._from_zero(metric, device_class=name)
        return name

    def _add(self, metric: Metric, registry: CollectorRegistry) -> None:
        name, text, labels = metric.name, metric.help, ("federation", *metric.labels)
        if metric.kind == "counter":
            self._counters[name] = Counter(name, text, labels, registry=registry)
        elif metric.kind == "gauge":
            self._gauges[name] = Gauge(name, text, labels, registry=registry)
        else:
            self._histograms[name] = Histogram(name, text, labels, registry=registry, buckets=metric.buckets)

    def _from_zero(self, metric: Metric, **given: str) -> None:
        """Make the series of a metric, so that `increase()` sees the first event."""
        if not metric.from_zero:
            return
        child = {"counter": self.counter, "gauge": self.gauge, "histogram": self.histogram}[metric.kind]
        allowed = [(given[label],) if label in given else values for label, values in metric.labels.items()]
        for values in product(*allowed):
            child(metric.name, **dict(zip(metric.labels, values, strict=True)))
