"""Calls that are cut after the same time: timers, NAT bindings, session refresh.

Three drops at 900 s are no accident whatever the drop rate. Durations of calls spread over decades; the chance that a
drop falls within a second and a half of a given value is small and known, so each one that does multiplies.
"""

import math

import numpy as np

from detectors.history import LOCKED
from detectors.locks import TIMERS_S, TOLERANCE_S, density
from detectors.patterns.view import LIFT_LOG10_MAX, Finding, View, mean_log10
from schemas.alerts import Dimension
from schemas.kernels import kernel
from schemas.text import F64

_TIMERS_S = np.array(TIMERS_S, np.float64)

NAMED_LOG10 = 1.5
"""The lift of a lock that `detectors.locks` has seen already."""

HIT_SHARE = 0.8
"""Under a lock, this share of bad calls lies on it: others have other reasons."""
OUTLIVED = 0.15
"""A good call that outlived the lock by three tolerances makes the lock this much less likely."""


@kernel
def _lifts_log10(values_s: F64, bad_s: F64, good_s: F64, given: int) -> F64:
    """Return log10 of the likelihood ratio of a lock at each value; `given` hits were used up to find the value."""
    lifts = np.empty(len(values_s))
    for k in range(len(values_s)):
        value_s = values_s[k]
        # Rounding to whole seconds or minutes piles durations up: never trust the density below one in two thousand.
        chance = min(max(2.0 * TOLERANCE_S * density(value_s), 5e-4), 0.5)
        hits = np.count_nonzero(np.abs(bad_s - value_s) <= TOLERANCE_S) - given
        others = len(bad_s) - hits - given
        outlived = np.count_nonzero(good_s > value_s + 3.0 * TOLERANCE_S)
        lifts[k] = hits * math.log10(HIT_SHARE / chance) + others * math.log10((1.0 - HIT_SHARE) / (1.0 - chance))
        lifts[k] += outlived * math.log10(OUTLIVED)
    return lifts


@kernel
def _weigh(bad_s: F64, good_s: F64) -> tuple[float, float]:
    """Return (log10 of the likelihood ratio of any lock, the duration that most calls ended at)."""
    known = mean_log10(_lifts_log10(_TIMERS_S, bad_s, good_s, 0))
    lift = known - math.log10(2.0)
    own_s = bad_s[bad_s > 4.0 * TOLERANCE_S]
    if len(own_s):
        lift = mean_log10(np.array([known, mean_log10(_lifts_log10(own_s, bad_s, good_s, 1))]))
    most, best = -1, 0.0
    for value_s in np.concatenate((_TIMERS_S, bad_s)):
        hits = int(np.count_nonzero(np.abs(bad_s - value_s) <= TOLERANCE_S))
        if hits > most:
            most, best = hits, value_s
    return lift, best


def duration_lock(view: View) -> Finding | None:
    """Look for one duration at which calls end: any of the known timers, or any value that repeats."""
    bad_s = view.bad_durations_s()
    if len(bad_s) < 2:
        return None
    lift, best = _weigh(bad_s, view.good["duration_ms"] / 1000.0)
    on_lock = bad_s[np.abs(bad_s - best) <= TOLERANCE_S]
    if len(on_lock) < 2:
        return None
    if 2 * view.flagged(LOCKED) >= len(view.bad):
        # The evidence process found it before the bad calls here did; they need only bear its name.
        lift = max(lift, NAMED_LOG10)
    value_s = round(float(np.median(on_lock)))
    length = f"{value_s // 60} minutes" if value_s % 60 == 0 and value_s >= 120 else f"{value_s} seconds"
    often = "always" if len(on_lock) == len(bad_s) else "mostly"
    phrase = f"{often} after {length}"
    return Finding("duration_lock", min(lift, LIFT_LOG10_MAX), phrase, Dimension("duration_s", str(value_s)))
