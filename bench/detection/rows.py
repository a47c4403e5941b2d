"""The rows of the scoreboard: each turns telcos and one knob into cases."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.detection.alarms import (
    USUAL,
    Alarm,
    adwin,
    alarms,
    chance,
    cusum,
    faded_mean,
    half_space_scores,
    hddm_a,
    hddm_w,
    page,
    page_hinkley,
)
from bench.detection.structure import known_structure
from bench.detection.telcos import RecordedTelco, Series
from bench.score import Case, Marks, Tally, conclude, tally
from bench.simulator import TelcoSpec

Find = Callable[[RecordedTelco, float], Iterable[Case]]
"""A detector: its cases on one telco, at a strictness."""

BISECTIONS = 9
ANSWERED_SHARE = 0.66
"""Of the simulator's attempts; its drop ratios are of answered calls."""
DURING_MIN = 0.05


@dataclass(slots=True)
class Tuned:
    """A detector at several strictnesses.

    Attributes:
        points: strictness -> marks over all telcos.
    """

    name: str
    telcos: Sequence[RecordedTelco]
    find: Find
    points: dict[float, Marks] = field(default_factory=dict)

    def at(self, strictness: float) -> Marks:
        """Return the marks at one strictness."""
        if strictness not in self.points:
            self.points[strictness] = conclude(self._tallies(strictness))
        return self.points[strictness]

    def _tallies(self, strictness: float) -> list[Tally]:
        return [tally(telco.truth, list(self.find(telco, strictness))) for telco in self.telcos]

    def tune(self, loose: float, strict: float, false_per_10k_days: float) -> Marks:
        """Return the marks at the lowest strictness found, by bisection, that keeps to a rate of false alerts."""
        for _ in range(BISECTIONS):
            middle = (loose + strict) / 2.0
            rate = self.at(middle).false_per_10k_days
            if rate is None or rate <= false_per_10k_days:
                strict = middle
            else:
                loose = middle
        return self.at(strict)


def watch(values: Callable[[Series], list[float]], fresh: Callable[[float], Alarm]) -> Find:
    """Watch each customer's series with a detector of its own."""

    def find(telco: RecordedTelco, strictness: float) -> Iterator[Case]:
        for series in telco.series:
            for end_ms in alarms(series, values(series), lambda: fresh(strictness)):
                yield Case(series.customer_id, end_ms)

    return find


def trouble(series: Series) -> list[float]:
    """Return how much each call by itself looks spoiled."""
    some: list[float] = series.trouble.tolist()
    return some


def at_random(telco: RecordedTelco, strictness: float) -> Iterator[Case]:
    """Raise the alarm at calls picked by chance; their share is exp(-strictness)."""
    rng = np.random.default_rng(telco.spec.seed)
    share = float(np.exp(-strictness))
    yield from watch(trouble, lambda _: chance(share, rng))(telco, strictness)


class KnownRates:
    """The bound for tests of rates: a CUSUM that knows how often each customer's calls are spoiled, before and during.

    It also sees every call that a fault spoiled, whatever the record says. A healthy customer is tested against a
    rate that another customer's fault had. It knows no structure: not which hours, durations or ways are hit.
    """

    def __init__(self) -> None:
        self._rates: dict[TelcoSpec, dict[str, tuple[float, float]]] = {}

    def __call__(self, telco: RecordedTelco, strictness: float) -> Iterator[Case]:
        """Yield the cases on one telco."""
        rates = self._rates.setdefault(telco.spec, _known_rates(telco))
        for series in telco.series:
            before, during = rates[series.customer_id]
            fresh = _fresh_cusum(strictness, before, during)
            for end_ms in alarms(series, series.spoiled.astype(float).tolist(), fresh):
                yield Case(series.customer_id, end_ms)


def _fresh_cusum(level: float, before: float, during: float) -> Callable[[], Alarm]:
    return lambda: cusum(level, before, during)


def _known_rates(telco: RecordedTelco) -> dict[str, tuple[float, float]]:
    """Return each customer's chance of a spoiled call without and with a fault."""
    faults = {fault.customer_id: fault for fault in telco.truth.faults}
    during: dict[str, float] = {}
    for series in telco.series:
        if (fault := faults.get(series.customer_id)) is not None:
            inside = (series.end_ms >= fault.start_ms) & (series.end_ms <= fault.end_ms)
            if inside.any():
                during[series.customer_id] = max(float(series.spoiled[inside].mean()), DURING_MIN)
    usual = sorted(during.values()) or [0.3]
    rng = np.random.default_rng(telco.spec.seed)
    healthy = [series for series in telco.series if series.customer_id not in faults]
    calls = sum(len(series.end_ms) for series in healthy) or 1
    # What is spoiled without being a drop (failed set-ups, poor media) is taken as everybody's alike.
    drops = sum(ANSWERED_SHARE * series.drop_ratio * len(series.end_ms) for series in healthy)
    other = max(0.0, (sum(float(series.spoiled.sum()) for series in healthy) - drops) / calls)
    rates = {}
    for series in telco.series:
        before = max(ANSWERED_SHARE * series.drop_ratio + other, 1e-3)
        rate = during.get(series.customer_id, float(rng.choice(usual)))
        rates[series.customer_id] = (before, min(max(rate, 2.0 * before), 0.99))
    return rates


class KnownStructure:
    """The bound for any test: a CUSUM that knows the sort of each fault too, and which hours, way or timer it hits.

    It counts the calls that the fault could have hit and those alone, against how often they go bad in that one way
    without it. A healthy customer is tested for one fault that another customer had.
    """

    def __init__(self) -> None:
        self._ratios: dict[TelcoSpec, dict[str, list[float]]] = {}

    def __call__(self, telco: RecordedTelco, strictness: float) -> Iterator[Case]:
        """Yield the cases on one telco."""
        ratios = self._ratios.get(telco.spec) or self._ratios.setdefault(telco.spec, known_structure(telco))
        for series in telco.series:
            for end_ms in alarms(series, ratios[series.customer_id], lambda: page(strictness)):
                yield Case(series.customer_id, end_ms)


def half_space() -> Find:
    """Watch a faded mean of half-space trees' scores; the scores are computed once."""
    known: dict[tuple[TelcoSpec, str], list[float]] = {}

    def find(telco: RecordedTelco, strictness: float) -> Iterator[Case]:
        for series in telco.series:
            place = telco.spec, series.customer_id
            scores = known.get(place) or known.setdefault(place, half_space_scores(series))
            for end_ms in alarms(series, scores, lambda: faded_mean(strictness)):
                yield Case(series.customer_id, end_ms)

    return find


KNOBS: tuple[tuple[str, Callable[[], Find], float, float], ...] = (
    ("random", lambda: at_random, 3.0, 16.0),
    ("threshold", lambda: watch(trouble, faded_mean), USUAL, 1.0),
    ("ADWIN", lambda: watch(trouble, adwin), 1.0, 60.0),
    ("PageHinkley", lambda: watch(trouble, page_hinkley), 0.2, 20.0),
    ("HDDM_A", lambda: watch(trouble, hddm_a), 1.0, 60.0),
    ("HDDM_W", lambda: watch(trouble, hddm_w), 1.0, 60.0),
    ("HalfSpaceTrees", half_space, 0.1, 1.0),
    ("known rates", KnownRates, 1.0, 25.0),
    ("known structure", KnownStructure, 1.0, 25.0),
)
"""Rows with a knob: name, detector, and the strictnesses to search between."""
