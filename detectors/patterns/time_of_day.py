"""Calls that go bad in the same hours of the day: congestion of the access or the backhaul.

Trouble that began two hours ago also lies in two hours; so at least two days must show it, and good calls at other
hours weigh as much as bad calls in the window. What is made again says nothing: people do so in their busy hours.
"""

import math

import numpy as np

from detectors.patterns.view import AGAIN, LIFT_LOG10_MAX, Finding, Kept, View, main_sort, mean_log10, sort_of
from detectors.zone import DAY_MS, hour_of, local_ms
from schemas.alerts import Dimension
from schemas.kernels import loop
from schemas.text import F64

WIDTHS_HOURS: tuple[int, ...] = (2, 3, 4, 6)
INSIDE = 0.92
"""Under the pattern, this share of bad calls falls into the window."""
GENERAL_CALLS = 6.0
"""What is known of everybody's hours counts as this many good calls, spread over `GENERAL_HOURS`."""
GENERAL_HOURS = np.array(
    [1, 1, 1, 1, 1, 1, 2, 4, 6, 7, 7, 7, 6, 6, 6, 6, 7, 8, 9, 9, 8, 6, 3, 2], np.float64
)  # fmt: skip
"""Call attempts by hour, in parts of their sum: low at night, two humps by day (a generic residential profile)."""


_START = np.tile(np.arange(24), len(WIDTHS_HOURS))
_WIDTH = np.repeat(WIDTHS_HOURS, 24)
_GENERAL = np.array(
    [
        GENERAL_HOURS[(start + np.arange(width)) % 24].sum() / GENERAL_HOURS.sum()
        for start, width in zip(_START, _WIDTH, strict=True)
    ]
)
"""Each window's share of everybody's calls."""
_WINDOWS = len(_START)


@loop
def _count_hours(kept: Kept, by_hour: F64) -> bool:
    """Count bad calls of each hour, then good ones; return whether the bad ones are of several days."""
    by_hour[:] = 0.0
    first, last = local_ms(kept.now_ms, kept.ahead_min), local_ms(kept.since_ms, kept.ahead_min)
    main = main_sort(kept.bad)
    for call in kept.bad:
        if sort_of(call) == main:
            by_hour[hour_of(call["end_ms"], kept.ahead_min)] += 1.0
            end_ms = local_ms(call["end_ms"], kept.ahead_min)
            first, last = min(first, end_ms), max(last, end_ms)
    for hour in range(24):
        by_hour[24 + hour] = kept.habit.hours[hour]
    return first // DAY_MS < last // DAY_MS


@loop
def _lift_log10(bad: float, good: float, by_hour: F64, k: int) -> float:
    """Return log10 of the likelihood ratio of the pattern for one window, of so many bad and good calls."""
    bad_in, good_in = 0.0, 0.0
    for hour in range(_START[k], _START[k] + _WIDTH[k]):
        bad_in += by_hour[hour % 24]
        good_in += by_hour[24 + hour % 24]
    # The bad calls themselves are calls too: half of them speak for the customer's hours.
    calls = good + 0.5 * bad + GENERAL_CALLS
    share = min(max((good_in + 0.5 * bad_in + GENERAL_CALLS * _GENERAL[k]) / calls, 0.02), 0.98)
    lift = (bad - bad_in) * math.log10((1.0 - INSIDE) / (1.0 - share))
    # Most windows hold no bad call.
    return lift + bad_in * math.log10(INSIDE / share) if bad_in > 0.0 else lift


@loop
def _weigh(kept: Kept) -> tuple[float, int]:
    """Return (log10 of the likelihood ratio of any window, the likeliest one); NaN where too few days show one."""
    by_hour = kept.room[_WINDOWS : _WINDOWS + 48]
    several_days = _count_hours(kept, by_hour)
    bad = by_hour[:24].sum()
    if bad < 3.0 or not several_days or main_sort(kept.bad) == AGAIN:
        return math.nan, 0
    best, good = 0, by_hour[24:].sum()
    for k in range(_WINDOWS):
        kept.room[k] = _lift_log10(bad, good, by_hour, k)
        if kept.room[k] > kept.room[best]:
            best = k
    return min(mean_log10(kept.room[:_WINDOWS]), LIFT_LOG10_MAX), best


@loop
def time_of_day_log10(kept: Kept) -> float:
    """Return log10 of the likelihood ratio of bad hours; NaN where nothing can be said."""
    return _weigh(kept)[0]


def time_of_day(view: View) -> Finding | None:
    """Look for the hours that hold the bad calls and not the good ones."""
    lift, best = _weigh(view.kept())
    if math.isnan(lift):
        return None
    start = int(_START[best])
    end = (start + int(_WIDTH[best])) % 24
    return Finding(
        "time_of_day",
        lift,
        f"mostly between {start:02d}:00 and {end:02d}:00{' UTC' if view.zone.name == 'UTC' else ''}",
        Dimension("hour", f"{start:02d}-{end:02d}"),
    )
