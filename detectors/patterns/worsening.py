"""Calls that get worse from day to day: a fault that grows."""

import math

import numpy as np

from detectors.history import DAYS_KEPT
from detectors.patterns.view import DAY_MS, LIFT_LOG10_MAX, Finding, Kept, View, mean_log10
from schemas.kernels import loop
from schemas.text import F64

SPAN_DAYS_MIN = 3.0
SHARES = np.array([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9])
"""Shares of bad calls: of a trouble that stays as it is, and at the height of one that grows."""
GROWS_DAYS = np.array([4.0, 6.0, 9.0, 14.0])
"""How long a trouble grows."""
ROOM_LOG10 = 0.2
"""Kept back: which share to compare with is not known, and the ratio of two mixtures is no ratio at any one of them."""
BEGINS = np.array([0.0, 0.25])
"""The part of its height that it has when its first bad call shows it."""

_DAYS = np.arange(DAYS_KEPT) + 0.5
_GROWING = np.array(
    [
        height * (begin + (1.0 - begin) * np.minimum(_DAYS / grows_days, 1.0))
        for height in SHARES
        for grows_days in GROWS_DAYS
        for begin in BEGINS
    ]
)
"""Each course that a trouble may take: its share of bad calls, day by day."""


def _logs(shares: F64) -> F64:
    """Return log10 of each share and of what is left of it: float64[..., 2]."""
    return np.array([[[math.log10(share), math.log10(1.0 - share)] for share in course] for course in shares.tolist()])


_GROWING_LOG10 = _logs(_GROWING)
_STEADY_LOG10 = _logs(SHARES[:, None])


@loop
def _fit_log10(kept: Kept, days: int, first: int, course_log10: F64) -> float:
    """Return log10 of the likelihood of each day's bad calls under a course; one of a single share keeps it."""
    fit = 0.0
    for day in range(days):
        share = min(day, len(course_log10) - 1)
        left_out = first if day == 0 else 0
        bad = kept.day_bad[day] - left_out
        calls = kept.day_calls[day] - left_out
        fit += bad * course_log10[share, 0] + (calls - bad) * course_log10[share, 1]
    return fit


@loop
def worsening_log10(kept: Kept) -> float:
    """Return log10 of how much likelier the days are under a trouble that grows than under one that stays; or NaN.

    The first bad call defines the beginning and is left out.
    """
    if kept.bad_calls < 4 or kept.now_ms - kept.since_ms < SPAN_DAYS_MIN * DAY_MS:
        return math.nan
    first = 1 if kept.day_bad[0] != 0 else 0
    days = 1
    for day in range(1, len(kept.day_calls)):
        if kept.day_calls[day] != 0:
            days = day + 1
    for k in range(len(_STEADY_LOG10)):
        kept.room[k] = _fit_log10(kept, days, first, _STEADY_LOG10[k])
    steady = mean_log10(kept.room[: len(_STEADY_LOG10)])
    for k in range(len(_GROWING_LOG10)):
        kept.room[k] = _fit_log10(kept, days, first, _GROWING_LOG10[k])
    return min(mean_log10(kept.room[: len(_GROWING_LOG10)]) - steady - ROOM_LOG10, LIFT_LOG10_MAX)


def worsening(view: View) -> Finding | None:
    """Compare a share of bad calls that grows from day to day with one that stays, day by day since the first one."""
    lift = worsening_log10(view.kept())
    return None if math.isnan(lift) else Finding("worsening", lift, "and it gets worse from day to day")
