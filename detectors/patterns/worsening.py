"""Calls that get worse from day to day: a fault that grows."""

import math

import numpy as np

from detectors.patterns.view import DAY_MS, LIFT_LOG10_MAX, Finding, View, mean_log10
from schemas.kernels import kernel
from schemas.text import F64, I64

SPAN_DAYS_MIN = 3.0
SHARES = np.array([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9])
"""Shares of bad calls: of a trouble that stays as it is, and at the height of one that grows."""
GROWS_DAYS = np.array([4.0, 6.0, 9.0, 14.0])
"""How long a trouble grows."""
ROOM_LOG10 = 0.2
"""Kept back: which share to compare with is not known, and the ratio of two mixtures is no ratio at any one of them."""
BEGINS = np.array([0.0, 0.25])
"""The part of its height that it has when its first bad call shows it."""


@kernel
def _fit_log10(calls: I64, bad: I64, share: F64) -> float:
    """Return log10 of the likelihood of each day's bad calls at each day's share."""
    fit = 0.0
    for day in range(len(calls)):
        fit += bad[day] * math.log10(share[day]) + (calls[day] - bad[day]) * math.log10(1.0 - share[day])
    return fit


@kernel
def _weigh(calls: I64, bad: I64) -> float:
    """Return log10 of how much likelier the days are under a trouble that grows than under one that stays."""
    days = np.arange(len(calls)) + 0.5
    steady = np.array([_fit_log10(calls, bad, np.full(len(days), share)) for share in SHARES])
    growing = np.empty(len(SHARES) * len(GROWS_DAYS) * len(BEGINS))
    k = 0
    for height in SHARES:
        for grows_days in GROWS_DAYS:
            for begin in BEGINS:
                share = height * (begin + (1.0 - begin) * np.minimum(days / grows_days, 1.0))
                growing[k] = _fit_log10(calls, bad, share)
                k += 1
    return mean_log10(growing) - mean_log10(steady) - ROOM_LOG10


def worsening(view: View) -> Finding | None:
    """Compare a share of bad calls that grows from day to day with one that stays, day by day since the first one.

    The first bad call defines the beginning and is left out.
    """
    if view.bad_calls < 4 or view.now_ms - view.since_ms < SPAN_DAYS_MIN * DAY_MS:
        return None
    calls, bad = view.day_calls.copy(), view.day_bad.copy()
    first = 1 if bad[0] else 0
    calls[0], bad[0] = calls[0] - first, bad[0] - first
    days = int(np.flatnonzero(calls)[-1]) + 1 if calls.any() else 1
    return Finding(
        "worsening", min(_weigh(calls[:days], bad[:days]), LIFT_LOG10_MAX), "and it gets worse from day to day"
    )
