"""Sequential evidence that something has got worse, with a promise about false alarms.

Each observation x in [0, 1] says how much one call looks like trouble. While the true mean of x is at most p0,

    L(x) = x * p1 / p0 + (1 - x) * (1 - p1) / (1 - p0),     p1 > p0,

has a mean of at most 1, whatever the distribution of x. The evidence is the Shiryaev-Roberts process

    M <- (M + w) * L(x),

where w is the time in days since the previous observation, known before x is. M minus the days that passed is then
a supermartingale, so the mean time until M first reaches D is at least D days (optional stopping): `D` is a number
of healthy customer-days per false alarm, for a caller of eighty calls a day and for one of a call a week alike.
An average of such processes keeps the promise, so several alternatives p1 and several channels share one D.

References:
    Shiryaev, "On optimum methods in quickest detection problems", Theory Probab. Appl. 8 (1963).
    Roberts, "A comparison of some control chart procedures", Technometrics 8 (1966).
    Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for sequential change detection",
    New England J. Stat. Data Sci. 2 (2024).
"""

from typing import Any, NamedTuple

import numpy as np

from schemas.kernels import inlined
from schemas.text import F32

CHANNELS: tuple[str, ...] = ("drop", "setup", "quality", "redial")
"""What can get worse: answered calls that end badly, attempts that fail, media that degrades, calls made again."""

DROP, SETUP, QUALITY, REDIAL = range(4)

RISES: tuple[float, ...] = (0.08, 0.25, 0.60)
"""The alternatives: p1 = p0 + (1 - p0) * rise. A little worse, a quarter of calls, most calls."""

EVIDENCE_MAX = 1e30
"""Evidence is kept in float32; beyond this there is nothing left to learn from it."""


class Prior(NamedTuple):
    """What is believed of a channel's healthy mean before a customer has been seen.

    Attributes:
        mean: healthy mean of x. Fixed-line VoIP drops 0.5 to 1.5 % of calls once inferred drops count; setup fails
            for 1 to 2 % of attempts (NER 98 to 99 %); a call in a hundred lies as far below its customer's usual R as
            poor media does; 3 % of calls are made again at once for no bad reason, which by itself is half a sign.
        strength: how many observations the belief is worth.
        p0_min, p0_max: p0 stays between these, whatever a customer's history: nobody is held to perfection, and
            nobody's bad service becomes his normal.
        share: the channel's part of the evidence.
    """

    mean: float
    strength: float
    p0_min: float
    p0_max: float
    share: float


PRIORS: tuple[Prior, ...] = (
    Prior(mean=0.010, strength=60.0, p0_min=0.005, p0_max=0.06, share=0.45),
    Prior(mean=0.015, strength=60.0, p0_min=0.006, p0_max=0.20, share=0.15),
    Prior(mean=0.012, strength=30.0, p0_min=0.004, p0_max=0.15, share=0.15),
    Prior(mean=0.014, strength=60.0, p0_min=0.006, p0_max=0.15, share=0.10),
)

LOCK_SHARE = 0.15
"""The part of the evidence that repeated durations hold (`detectors.locks`); all parts add up to one."""

DOUBT = 0.7
"""So many standard errors p0 lies above the mean."""

MEMORY_COUNT = 400.0
"""A baseline remembers about this many observations; older ones fade by halves."""

CALM_DAYS = 2.0
"""Evidence of the middle alternative below which a channel is calm."""

WAIT_COUNT = 300.0
"""So many observations wait at the most."""

_RISE = np.array(RISES, np.float64)
_SHARE = np.array([prior.share / len(RISES) for prior in PRIORS], np.float64)
_MEAN = np.array([prior.mean for prior in PRIORS], np.float64)
_STRENGTH = np.array([prior.strength for prior in PRIORS], np.float64)
_P0_MIN = np.array([prior.p0_min for prior in PRIORS], np.float64)
_P0_MAX = np.array([prior.p0_max for prior in PRIORS], np.float64)


@inlined
def likelihood_ratio(x: float, p0: float, p1: float) -> float:
    """Return L(x): how much likelier x is at a mean of p1 than at p0, never more than 1 in the mean under p0."""
    return x * (p1 / p0) + (1.0 - x) * ((1.0 - p1) / (1.0 - p0))


@inlined
def accrue(evidence: F32, days: float) -> None:
    """Add the days that passed since a channel was observed to its processes: M + w."""
    for j in range(evidence.shape[0]):
        evidence[j] = np.float32(evidence[j] + days)


@inlined
def observe(evidence: F32, x: float, p0: float) -> None:
    """Multiply one channel's processes by the likelihood ratio of x.

    Args:
        evidence: float32, one value an alternative; changed in place.
        x: how much the call looks like trouble, 0..1.
        p0: the healthy mean.
    """
    # With p1 = p0 + (1 - p0) * rise, L(x) is x * (1 + rise * (1 - p0) / p0) + (1 - x) * (1 - rise): one division.
    odds = (1.0 - p0) / p0
    for j in range(evidence.shape[0]):
        ratio = x * (1.0 + _RISE[j] * odds) + (1.0 - x) * (1.0 - _RISE[j])
        evidence[j] = np.float32(min(evidence[j] * ratio, EVIDENCE_MAX))


@inlined
def observe_nothing(evidence: F32) -> None:
    """Do what `observe` does for x = 0, as most calls have it: L(0) = 1 - rise, whatever p0 is."""
    for j in range(evidence.shape[0]):
        evidence[j] = np.float32(evidence[j] * (1.0 - _RISE[j]))


@inlined
def total(evidence: F32) -> float:
    """Return the average of all processes, channels weighed by their share: compare it with D."""
    value = 0.0
    for channel in range(evidence.shape[0]):
        part = 0.0
        for j in range(evidence.shape[1]):
            part += evidence[channel, j]
        value += _SHARE[channel] * part
    return value


@inlined
def healthy_mean(channel: int, count: float, weight: float) -> float:
    """Return p0 of one customer: his own mean shrunk to the prior, plus room for what is not known of it.

    Args:
        channel: index into `CHANNELS`.
        count: observations learnt.
        weight: sum of their x.
    """
    size = _STRENGTH[channel] + count
    mean = (_STRENGTH[channel] * _MEAN[channel] + weight) / size
    p0 = mean + DOUBT * np.sqrt(mean * (1.0 - mean) / size)
    return float(min(max(p0, _P0_MIN[channel]), _P0_MAX[channel]))


@inlined
def remember(one: Any, channel: int, x: float, days: float) -> None:
    """Learn one observation into a customer's baseline, once it is known to have been healthy.

    Observations wait while the channel's evidence is up; when it has come down again, they were chance and are
    learnt, bad ones and good ones alike. Were they learnt at once, trouble would become normal while it grows; were
    they left out, everybody's normal would be too good. A wait of `WAIT_COUNT` without a case ends in learning too:
    a level that stayed is the new normal.

    Args:
        one: the customer's row; changed in place.
        channel: index into `CHANNELS`.
        x: the observation.
        days: since the customer's previous call.
    """
    count = one["waiting_count"][channel] + np.float32(1.0)
    weight = np.float32(one["waiting_weight"][channel] + x)
    # The middle process forgets within a few calls; its level without trouble is some six times what a call accrues.
    calm = one["evidence"][channel, 1] < max(CALM_DAYS, 6.0 * days)
    if not calm and count < WAIT_COUNT:
        one["waiting_count"][channel] = count
        one["waiting_weight"][channel] = weight
        return
    if one["count"][channel] >= MEMORY_COUNT:
        one["count"][channel] *= np.float32(0.5)
        one["weight"][channel] *= np.float32(0.5)
    one["count"][channel] += count
    one["weight"][channel] += weight
    one["waiting_count"][channel] = 0.0
    one["waiting_weight"][channel] = 0.0
