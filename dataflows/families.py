"""Metric families from plain values, as both who counts and who reads make them."""

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

Values = Mapping[Any, float] | float
"""Values by label (text, or a tuple of texts where there are several labels), or one value without labels."""


def gauge(name: str, text: str, values: Values, *labels: str) -> GaugeMetricFamily:
    """Return a gauge with all its values."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for given, value in _rows(values):
        family.add_metric(given, value)
    return family


def counter(name: str, text: str, values: Values, *labels: str) -> CounterMetricFamily:
    """Return a counter with all its values; `_total` is added to its name."""
    family = CounterMetricFamily(name, text, labels=labels)
    for given, value in _rows(values):
        family.add_metric(given, value)
    return family


def _rows(values: Values) -> list[tuple[Sequence[str], float]]:
    if not isinstance(values, Mapping):
        return [((), float(values))]
    return [([given] if isinstance(given, str) else given, float(value)) for given, value in values.items()]
