"""Detectors that watch one customer's series, each with one knob: strictness, the higher the fewer alarms.

After an alarm a detector is silent for a week and begins anew, as a case would lie with somebody for that long.
"""

from collections.abc import Callable, Iterator
from math import exp, log
from typing import Any

import numpy as np
from river.anomaly import HalfSpaceTrees
from river.drift import ADWIN, PageHinkley
from river.drift.binary import HDDMA, HDDMW

from bench.detection.telcos import BAD, Series
from bench.score import DAY_MS

# These of river have no types.
_ADWIN: Any = ADWIN
_HDDMA: Any = HDDMA
_HDDMW: Any = HDDMW

SILENT_MS = 7 * DAY_MS

FADE = 0.1
"""Weight of the newest call in a faded mean."""
USUAL = 0.02
"""Where every faded mean begins."""

Alarm = Callable[[float], bool]
"""Takes one observation; returns whether it raises the alarm."""


def alarms(series: Series, values: list[float], fresh: Callable[[], Alarm]) -> Iterator[int]:
    """Yield the end of each call at which a detector raises the alarm.

    Args:
        series: whose calls.
        values: one observation a call.
        fresh: makes a detector that has seen nothing.
    """
    alarm, silent_until_ms = fresh(), 0
    for end_ms, value in zip(series.end_ms.tolist(), values, strict=True):
        if end_ms >= silent_until_ms and alarm(value):
            alarm, silent_until_ms = fresh(), end_ms + SILENT_MS
            yield end_ms


def faded_mean(level: float) -> Alarm:
    """Raise the alarm where the faded mean of the observations reaches a level."""
    mean = USUAL

    def alarm(value: float) -> bool:
        nonlocal mean
        mean += FADE * (value - mean)
        return mean >= level

    return alarm


def cusum(level: float, before: float, during: float) -> Alarm:
    """Raise the alarm at a CUSUM's level: the best test for a change between two rates that are known.

    Args:
        level: of the log-likelihood ratio.
        before, during: chance of a spoiled call without and with the fault.

    References:
        Page, "Continuous inspection schemes", Biometrika 41 (1954); Moustakides, "Optimal stopping times for
        detecting changes in distributions", Ann. Statist. 14 (1986).
    """
    spoiled, fine = log(during / before), log((1.0 - during) / (1.0 - before))
    alarm = page(level)
    return lambda value: alarm(spoiled if value >= BAD else fine)


def page(level: float) -> Alarm:
    """Raise the alarm at a CUSUM's level; what it takes are log-likelihood ratios, one a call (Page, 1954)."""
    score = 0.0

    def alarm(value: float) -> bool:
        nonlocal score
        score = max(score, 0.0) + value
        return score >= level

    return alarm


def adwin(strictness: float) -> Alarm:
    """Raise the alarm where ADWIN's window shrinks towards a higher mean; confidence is exp(-strictness)."""
    detector = _ADWIN(delta=exp(-strictness), clock=1, grace_period=5)

    def alarm(value: float) -> bool:
        before = detector.estimation
        detector.update(value)
        return bool(detector.drift_detected) and detector.estimation > before

    return alarm


def page_hinkley(strictness: float) -> Alarm:
    """Raise the alarm where Page-Hinkley's sum of rises reaches the strictness."""
    detector = PageHinkley(min_instances=5, delta=USUAL, threshold=strictness, mode="up")
    return _drift(detector, lambda value: value)


def hddm_a(strictness: float) -> Alarm:
    """Raise the alarm at HDDM_A's drift; confidence is exp(-strictness)."""
    return _drift(_HDDMA(drift_confidence=exp(-strictness), warning_confidence=0.9), lambda value: value >= BAD)


def hddm_w(strictness: float) -> Alarm:
    """Raise the alarm at HDDM_W's drift; confidence is exp(-strictness)."""
    detector = _HDDMW(drift_confidence=exp(-strictness), warning_confidence=0.9, lambda_val=FADE)
    return _drift(detector, lambda value: value >= BAD)


def _drift(detector: Any, see: Callable[[float], float]) -> Alarm:
    def alarm(value: float) -> bool:
        detector.update(see(value))
        return bool(detector.drift_detected)

    return alarm


def half_space_scores(series: Series) -> list[float]:
    """Score each call by half-space trees over the customer's calls before it: its trouble, now and of late."""
    forest: Any = HalfSpaceTrees(n_trees=10, height=5, window_size=25, seed=1)
    scores, lately = [], USUAL
    for value in series.trouble.tolist():
        lately += FADE * (value - lately)
        call = {"trouble": value, "lately": lately}
        scores.append(forest.score_one(call))
        forest.learn_one(call)
    return scores


def chance(share: float, rng: np.random.Generator) -> Alarm:
    """Raise the alarm at a share of all calls, whatever they are."""
    return lambda _: bool(rng.random() < share)
