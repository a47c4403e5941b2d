"""Calls that are cut after the same time: timers, NAT bindings, session refresh.

Three drops at 900 s are no accident whatever the drop rate. Durations of calls spread over decades; the chance that a
drop falls within a second and a half of a given value is small and known, so each one that does multiplies.
"""

import math
from typing import Any

import numpy as np

from detectors.history import ANSWERED, LOCKED
from detectors.locks import TIMERS_S, TOLERANCE_S, density
from detectors.patterns.view import LIFT_LOG10_MAX, Finding, Kept, View, flagged, mean_log10
from schemas.alerts import Dimension
from schemas.kernels import inlined, loop

_TIMERS_S = np.array(TIMERS_S, np.float64)

NAMED_LOG10 = 1.5
"""The lift of a lock that `detectors.locks` has seen already."""

HIT_SHARE = 0.8
"""Under a lock, this share of bad calls lies on it: others have other reasons."""
OUTLIVED = 0.15
"""A good call that outlived the lock by three tolerances makes the lock this much less likely."""


@inlined
def _duration_s(call: Any) -> float:
    return float(call["duration_ms"] / 1000.0)


@loop
def hits_at(kept: Kept, value_s: float) -> int:
    """Return how many answered bad calls ended at a value."""
    hits = 0
    for call in kept.bad:
        hits += (call["flags"] & ANSWERED) != 0 and abs(_duration_s(call) - value_s) <= TOLERANCE_S
    return hits


@loop
def _lift_log10(kept: Kept, answered: int, value_s: float, given: int) -> float:
    """Return log10 of the likelihood ratio of a lock at a value; `given` hits were used up to find the value."""
    # Rounding to whole seconds or minutes piles durations up: never trust the density below one in two thousand.
    chance = min(max(2.0 * TOLERANCE_S * density(value_s), 5e-4), 0.5)
    hits = hits_at(kept, value_s) - given
    others = answered - hits - given
    outlived = 0
    for call in kept.good:
        outlived += _duration_s(call) > value_s + 3.0 * TOLERANCE_S
    lift = hits * math.log10(HIT_SHARE / chance) + others * math.log10((1.0 - HIT_SHARE) / (1.0 - chance))
    return lift + outlived * math.log10(OUTLIVED)


@loop
def _most_ended_at(kept: Kept) -> tuple[int, float]:
    """Return (most bad calls that ended at one value, that value): a known timer before others."""
    most, best = -1, 0.0
    for k in range(len(_TIMERS_S)):
        hits = hits_at(kept, _TIMERS_S[k])
        if hits > most:
            most, best = hits, _TIMERS_S[k]
    for call in kept.bad:
        hits = hits_at(kept, _duration_s(call)) if (call["flags"] & ANSWERED) != 0 else 0
        if hits > most:
            most, best = hits, _duration_s(call)
    return most, best


@loop
def _any_log10(kept: Kept) -> float:
    """Return log10 of the likelihood ratio of a lock anywhere: at a known timer, or where a call ended."""
    answered = flagged(kept.bad, ANSWERED)
    for k in range(len(_TIMERS_S)):
        kept.room[k] = _lift_log10(kept, answered, _TIMERS_S[k], 0)
    known = mean_log10(kept.room[: len(_TIMERS_S)])
    own = 0
    for call in kept.bad:
        if (call["flags"] & ANSWERED) != 0 and _duration_s(call) > 4.0 * TOLERANCE_S:
            kept.room[own] = _lift_log10(kept, answered, _duration_s(call), 1)
            own += 1
    if own == 0:
        return known - math.log10(2.0)
    kept.room[0], kept.room[1] = known, mean_log10(kept.room[:own])
    return mean_log10(kept.room[:2])


@loop
def duration_lock_log10(kept: Kept) -> float:
    """Return log10 of the likelihood ratio of a lock; NaN where no two calls ended alike."""
    return min(_any_log10(kept), LIFT_LOG10_MAX) if _most_ended_at(kept)[0] >= 2 else math.nan


@loop
def named_log10(kept: Kept, lift_log10: float) -> float:
    """Return the lift that a lock is named by, given its likelihood ratio."""
    # The evidence of repeated durations found it before the bad calls here did; they need only bear its name.
    return max(lift_log10, NAMED_LOG10) if 2 * flagged(kept.bad, LOCKED) >= len(kept.bad) else lift_log10


def duration_lock(view: View) -> Finding | None:
    """Look for one duration at which calls end: any of the known timers, or any value that repeats."""
    kept = view.kept()
    lift, best = duration_lock_log10(kept), _most_ended_at(kept)[1]
    if math.isnan(lift):
        return None
    bad_s = view.bad_durations_s()
    on_lock = bad_s[np.abs(bad_s - best) <= TOLERANCE_S]
    value_s = round(float(np.median(on_lock)))
    length = f"{value_s // 60} minutes" if value_s % 60 == 0 and value_s >= 120 else f"{value_s} seconds"
    often = "always" if len(on_lock) == len(bad_s) else "mostly"
    phrase = f"{often} after {length}"
    return Finding("duration_lock", named_log10(kept, lift), phrase, Dimension("duration_s", str(value_s)))
