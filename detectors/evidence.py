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

SKIPPED: tuple[int, ...] = (DROP, QUALITY, REDIAL)
"""Channels that a call may say nothing of. Every attempt is observed for its set-up."""

RISES: tuple[float, ...] = (0.20, 0.50)
"""The alternatives: p1 = p0 + (1 - p0) * rise. One call in five, and half of them."""

EVIDENCE_MAX = 1e30
"""Evidence is kept in float32; beyond this there is nothing left to learn from it."""

LEAP = 5.6
"""The threshold for D healthy days is D / LEAP: at an alarm the evidence stands far above any threshold, since a bad
call multiplies it by twenty to fifty, and by optional stopping it is the mean at the alarm that equals the mean time
until then. For factors of L the mean leap is about (L - 1) / ln L: 6 for 20, 13 for 50; on poor lines factors are
smaller. Of the evidence of a trouble without structure a part is counted (`detectors.patterns.PLAIN_SHARE`):
together they leave it a factor of 3.4. So much is
given away as still leaves lines that drop up to 1.6 % of their calls their D days (measured in `tests/test_evidence.py`
at two, ten and forty calls a day). Where the usual line drops 3 % it does not: in D days there are 3.0, 2.4 and 1.5
false alarms."""

LOW_DAYS, QUIET_CALLS = 1.0, 6.0
"""Evidence below one day's worth, or below what six calls of a light caller accrue, is none: trouble that was counted
is over. Without trouble the processes level off at a few times what passes between two calls."""


class Prior(NamedTuple):
    """What is believed of a channel's healthy mean before a customer has been seen.

    Attributes:
        mean, size: mean of x over healthy lines, and how many observations that belief is worth (a beta
            distribution). Fixed-line VoIP drops 0.5 to 1.5 % of calls once inferred drops count; setup fails for 1 to
            3 % of attempts (NER 97 to 99 %), of which the belief takes the upper end; a call in a hundred lies as far
            below its customer's usual R as poor media does; 2 to 5 % of good calls are made again within a minute for
            no bad reason, which by itself is half a sign. One wide belief tells trouble from a poor line sooner, and is
            wrong less often where lines are poorer than that, than a narrow one mixed with a second for poor lines.
        p0_min, p0_max: p0 stays between these, whatever a customer's history: nobody is held to perfection, and
            nobody's bad service becomes his normal.
        share: the channel's part of the evidence.
    """

    mean: float
    size: float
    p0_min: float
    p0_max: float
    share: float


PRIORS: tuple[Prior, ...] = (
    Prior(mean=0.011, size=60.0, p0_min=0.004, p0_max=0.10, share=0.45),
    Prior(mean=0.030, size=60.0, p0_min=0.006, p0_max=0.20, share=0.15),
    Prior(mean=0.013, size=50.0, p0_min=0.004, p0_max=0.15, share=0.18),
    Prior(mean=0.016, size=50.0, p0_min=0.005, p0_max=0.25, share=0.07),
)

LOCK_SHARE = 0.15
"""The part of the evidence that repeated durations hold (`detectors.locks`); all parts add up to one."""

MEMORY_COUNT = 400
"""A baseline remembers about this many observations; older ones fade by halves."""

CALM_DAYS = 2.0
"""Evidence of the steepest alternative below which a channel is calm."""

WAIT_COUNT = 300
"""So many observations wait at the most."""

_RISE = np.array(RISES, np.float64)
_SHARE = np.array([prior.share / len(RISES) for prior in PRIORS], np.float64)
_SIZE = np.array([prior.size for prior in PRIORS], np.float64)
_ALPHA = np.array([prior.mean * prior.size for prior in PRIORS], np.float64)
_P0_MIN = np.array([prior.p0_min for prior in PRIORS], np.float64)
_P0_MAX = np.array([prior.p0_max for prior in PRIORS], np.float64)


@inlined
def likelihood_ratio(x: float, p0: float, p1: float) -> float:
    """Return L(x): how much likelier x is at a mean of p1 than at p0, never more than 1 in the mean under p0."""
    return x * (p1 / p0) + (1.0 - x) * ((1.0 - p1) / (1.0 - p0))


@inlined
def days_passed(one: Any, channel: int, days: float, observed: bool) -> np.float32:  # noqa: FBT001  # numba takes no keywords here
    """Return the days since a channel was observed last.

    Args:
        one: the customer's row; changed in place.
        channel: index into `CHANNELS`.
        days: since the customer's previous call.
        observed: whether this call says something of the channel: its days begin anew.
    """
    passed = np.float32(days)
    if channel != SETUP:
        at = channel - (channel > SETUP)
        passed = np.float32(one["days"][at] + passed)
        one["days"][at] = np.float32(0.0) if observed else passed
    return passed


@inlined
def accrue(evidence: F32, days: float | np.float32) -> None:
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
def total_of(evidence: F32, channel: int) -> float:
    """Return the part of the evidence that a channel holds, in days."""
    part = 0.0
    for j in range(evidence.shape[1]):
        part += evidence[channel, j]
    return float(_SHARE[channel] * part)


@inlined
def total(evidence: F32) -> float:
    """Return the average of all processes, channels weighed by their share: compare it with D."""
    value = 0.0
    for channel in range(evidence.shape[0]):
        value += total_of(evidence, channel)
    return value


@inlined
def healthy_mean(channel: int, count: float, weight: float) -> float:
    """Return p0 of one customer: the mean of x to be expected of the next call of a line that has shown this.

    It is the Bayesian prediction (beta-binomial), so that ratios against it have a mean of at most 1 over all lines
    that the prior describes, without knowing which sort one is. What is under suspicion counts here too (`expected`):
    trouble is measured against the best that chance could make of it, itself included.

    Args:
        channel: index into `CHANNELS`.
        count: observations.
        weight: sum of their x.
    """
    p0 = (_ALPHA[channel] + weight) / (_SIZE[channel] + count)
    return float(min(max(p0, _P0_MIN[channel]), _P0_MAX[channel]))


@inlined
def expected(one: Any, note: Any, channel: int) -> float:
    """Return p0 of a customer's next call: from what was learnt of him, and from what still waits to be."""
    count = float(one["count"][channel]) + float(note["waiting_count"][channel])
    return healthy_mean(channel, count, float(one["weight"][channel]) + float(note["waiting_weight"][channel]))


@inlined
def correct(one: Any, note: Any, channel: int, x_before: float, x: float) -> None:
    """Take back the newest observation of a channel and observe another in its place: more has become known of it.

    Args:
        one, note: the customer's row and note; changed in place.
        channel: index into `CHANNELS`.
        x_before: the observation as it was taken.
        x: what it turned out to be.
    """
    waits = note["waiting_count"][channel] > 0
    count = float(one["count"][channel]) + float(note["waiting_count"][channel]) - 1.0
    weight = float(one["weight"][channel]) + float(note["waiting_weight"][channel]) - x_before
    p0 = healthy_mean(channel, max(count, 0.0), max(weight, 0.0))
    odds = (1.0 - p0) / p0
    for j in range(len(_RISE)):
        before = x_before * (1.0 + _RISE[j] * odds) + (1.0 - x_before) * (1.0 - _RISE[j])
        after = x * (1.0 + _RISE[j] * odds) + (1.0 - x) * (1.0 - _RISE[j])
        one["evidence"][channel, j] = np.float32(min(one["evidence"][channel, j] * after / before, EVIDENCE_MAX))
    if waits:
        note["waiting_weight"][channel] += np.float32(x - x_before)
    else:
        one["weight"][channel] += np.float32(x - x_before)


@inlined
def take_back(one: Any, note: Any, channel: int, x: float) -> None:
    """Take an observation back that turned out not to be the customer's own trouble.

    Divided by its ratio, the evidence is at most what it would have been without it.

    Args:
        one, note: the customer's row and note; changed in place.
        channel: index into `CHANNELS`.
        x: the observation.
    """
    note["waiting_count"][channel] = max(int(note["waiting_count"][channel]) - 1, 0)
    note["waiting_weight"][channel] = max(note["waiting_weight"][channel] - np.float32(x), np.float32(0.0))
    p0 = expected(one, note, channel)
    odds = (1.0 - p0) / p0
    for j in range(len(_RISE)):
        ratio = x * (1.0 + _RISE[j] * odds) + (1.0 - x) * (1.0 - _RISE[j])
        one["evidence"][channel, j] = np.float32(one["evidence"][channel, j] / max(ratio, 1.0))


@inlined
def remember(one: Any, note: Any, channel: int, x: float, days: float) -> None:
    """Learn one observation into a customer's baseline, once it is known to have been healthy.

    Observations wait while the channel's evidence is up; when it has come down again, they were chance and are
    learnt, bad ones and good ones alike. Were they learnt at once, trouble would become normal while it grows; were
    they left out, everybody's normal would be too good. A wait of `WAIT_COUNT` without a case ends in learning too:
    a level that stayed is the new normal.

    Args:
        one, note: the customer's row and note; changed in place.
        channel: index into `CHANNELS`.
        x: the observation.
        days: since the customer's previous call.
    """
    count = int(note["waiting_count"][channel]) + 1
    weight = np.float32(note["waiting_weight"][channel] + x)
    # The steepest process forgets within a few calls; its level without trouble is that which a call accrues.
    calm = one["evidence"][channel, 1] < max(CALM_DAYS, 6.0 * days)
    if not calm and count < WAIT_COUNT:
        note["waiting_count"][channel] = count
        note["waiting_weight"][channel] = weight
        return
    known = int(one["count"][channel])
    if known >= MEMORY_COUNT:
        # The odd one is dropped: of two wholes, the one that makes the line look the worse raises fewer alarms.
        known //= 2
        one["weight"][channel] *= np.float32(0.5)
    one["count"][channel] = known + count
    one["weight"][channel] += weight
    note["waiting_count"][channel] = 0
    note["waiting_weight"][channel] = 0.0
