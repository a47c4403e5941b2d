"""What is to be known of faults by whoever knows all: which calls each could hit, how, and how often.

A fault of a sort shows in one way: its calls drop, fail, are one-way, of poor sound, made again, or end at its timer.
It can hit all calls that could show it, or those of its hours, its way, or its timer's length alone. What it spoiled
counts as seen, whatever the record says.
"""

from collections.abc import Callable, Sequence
from math import log
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.detection.telcos import BAD, RecordedTelco, Series
from bench.score import Fault
from bench.simulator.spec import HOUR_MS
from schemas.text import F64

Bools = npt.NDArray[np.bool_]

WORN_R = 12.0
"""Poor sound is this far below the customer's own median R."""
AGAIN_MS = 60_000
TIMER_S = 1.5
HELD = 0.95
"""Share of the calls that reach a timer which it cuts."""
BELIEF = 50.0
"""A customer's own rate is drawn towards that of all, which is worth so many calls."""
BEFORE_MIN, DURING_MIN, DURING_MAX = 5e-4, 0.05, 0.97


class Structure(NamedTuple):
    """What one fault hits.

    Attributes:
        pattern: its sort.
        name, value: hours ("18-21"), timer in seconds, or way, and which; None: all calls.
        during: share of those calls that it spoils.
    """

    pattern: str
    name: str | None
    value: Any
    during: float


def known_structure(telco: RecordedTelco) -> dict[str, list[float]]:
    """Return by customer the log-likelihood ratio of each call: with a fault of a known structure, and without."""
    faults = {fault.customer_id: fault for fault in telco.truth.faults}
    healthy = [series for series in telco.series if series.customer_id not in faults]
    rng, usual, ratios = np.random.default_rng(telco.spec.seed), _Usual(healthy), {}
    hit = [one for one in telco.series if one.customer_id in faults]
    structures = [_structure_of(one, faults[one.customer_id]) for one in hit]
    for series, structure in zip(hit, structures, strict=True):
        ratios[series.customer_id] = _ratios(series, structure, usual, faults[series.customer_id])
    for series in healthy:
        structure = (
            structures[int(rng.integers(len(structures)))] if structures else Structure("drop_rate", None, None, 0.3)
        )
        if structure.name in series.facts:
            structure = structure._replace(value=rng.choice(series.facts[structure.name]))
        ratios[series.customer_id] = _ratios(series, structure, usual, None)
    return ratios


def _structure_of(series: Series, fault: Fault) -> Structure:
    name = fault.dimension["name"] if fault.dimension else None
    value = fault.dimension["value"] if fault.dimension else None
    spoiled = np.isin(series.end_ms, fault.bad_end_ms)
    if name in series.facts and spoiled.any():
        taken, counts = np.unique(series.facts[name][spoiled], return_counts=True)
        value = taken[counts.argmax()]
    structure = Structure(fault.pattern, name, value, HELD)
    if fault.pattern == "duration_lock":
        return structure
    exposed = _exposed(series, structure) & (series.facts["start_ms"] >= fault.start_ms)
    exposed &= series.facts["start_ms"] <= fault.end_ms
    during = float((_shown(series, structure) | spoiled)[exposed].mean()) if exposed.any() else DURING_MIN
    return structure._replace(during=min(max(during, DURING_MIN), DURING_MAX))


def _shown(series: Series, structure: Structure) -> Bools:
    """Mark the calls that show trouble of a structure's sort."""
    return _SHOWN.get(structure.pattern, _dropped)(series, structure)


def _dropped(series: Series, _: Structure) -> Bools:
    return np.asarray((series.facts["drop"] >= BAD) & ~np.isnan(series.facts["talk_s"]))


def _failed(series: Series, _: Structure) -> Bools:
    return np.asarray(series.facts["setup"] >= BAD)


def _one_way(series: Series, _: Structure) -> Bools:
    return np.asarray(series.facts["one_way"] & ~np.isnan(series.facts["talk_s"]))


def _worn(series: Series, _: Structure) -> Bools:
    rating: Any = series.facts["rating"]
    known = rating[~np.isnan(rating)]
    return np.asarray(rating < (np.median(known) - WORN_R if len(known) else 0.0))


def _made_again(series: Series, _: Structure) -> Bools:
    peer, start_ms = series.facts["peer_id"], series.facts["start_ms"]
    again = np.zeros(len(peer), bool)
    again[:-1] = (peer[1:] == peer[:-1]) & (start_ms[1:] - series.end_ms[:-1] <= AGAIN_MS)
    return np.asarray(again & ~np.isnan(series.facts["talk_s"]) & (series.facts["drop"] < BAD))


def _cut(series: Series, structure: Structure) -> Bools:
    return np.asarray(np.abs(series.facts["talk_s"] - float(structure.value)) <= TIMER_S)


_SHOWN: dict[str, Callable[[Series, Structure], Bools]] = {
    "setup_failure": _failed,
    "one_way_audio": _one_way,
    "quality": _worn,
    "redial": _made_again,
    "duration_lock": _cut,
}


def _exposed(series: Series, structure: Structure) -> Bools:
    """Mark the calls that a fault of a structure could hit."""
    if structure.pattern == "setup_failure":
        return np.ones(len(series.end_ms), bool)
    talk_s: Any = series.facts["talk_s"]
    exposed = ~np.isnan(talk_s)
    if structure.name == "duration_s":
        exposed &= talk_s >= float(structure.value) - TIMER_S
    elif structure.name == "hours_utc":
        first, end = (int(hour) for hour in structure.value.split("-"))
        hour = series.facts["start_ms"] // HOUR_MS % 24
        exposed &= (hour - first) % 24 < (end - first) % 24
    elif structure.name in series.facts:
        exposed &= series.facts[structure.name] == structure.value
    return np.asarray(exposed)


class _Usual:
    """How often calls show trouble of a sort while nobody has a fault: everybody's rate, computed once a sort."""

    def __init__(self, healthy: Sequence[Series]) -> None:
        self._healthy = healthy
        self._known: dict[tuple[str, str | None], float] = {}

    def before(self, series: Series, structure: Structure, fault: Fault | None) -> float:
        """Return a customer's rate without the fault."""
        timer = structure.value if structure.name == "duration_s" else None
        everywhere = structure if timer is not None else structure._replace(name=None)
        if (structure.pattern, timer) not in self._known:
            bad, calls = np.sum([_counts(one, everywhere, None) for one in self._healthy], axis=0)
            self._known[structure.pattern, timer] = (bad + 1.0) / (calls + 20.0)
        usual = self._known[structure.pattern, timer]
        if timer is not None:
            return usual
        bad, calls = _counts(series, everywhere, fault)
        return max((BELIEF * usual + bad) / (BELIEF + calls), BEFORE_MIN)


def _counts(series: Series, structure: Structure, fault: Fault | None) -> tuple[float, float]:
    """Return (calls that show trouble of a sort, calls that could), outside the time of a fault."""
    exposed = _exposed(series, structure)
    if fault is not None:
        exposed &= (series.end_ms < fault.start_ms) | (series.end_ms > fault.end_ms)
    return float((_shown(series, structure) & exposed).sum()), float(exposed.sum())


def _ratios(series: Series, structure: Structure, usual: _Usual, fault: Fault | None) -> list[float]:
    before = usual.before(series, structure, fault)
    during = max(structure.during, min(2.0 * before, DURING_MAX))
    exposed, bad = _exposed(series, structure), _shown(series, structure)
    if fault is not None:
        bad |= np.isin(series.end_ms, fault.bad_end_ms)
    told: F64 = np.where(bad, log(during / before), log((1.0 - during) / (1.0 - before)))
    ratios: list[float] = np.where(exposed, told, 0.0).tolist()
    return ratios
