"""Calls that go bad in the same hours of the day: congestion of the access or the backhaul.

Trouble that began two hours ago also lies in two hours; so at least two days must show it, and good calls at other
hours weigh as much as bad calls in the window.
"""

import math

import numpy as np

from detectors.patterns.view import DAY_MS, LIFT_LOG10_MAX, Finding, View, hours_of, mean_log10
from schemas.alerts import Dimension
from schemas.kernels import kernel
from schemas.text import F32, F64

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


@kernel
def _by_hour(hours: F32) -> F64:
    """Return how many calls fall into each hour of the day."""
    counts = np.zeros(24)
    for hour in hours:
        counts[int(hour)] += 1.0
    return counts


@kernel
def _lifts_log10(bad_h: F32, good_h: F32) -> F64:
    """Return log10 of the likelihood ratio of the pattern for each window."""
    bad, good = _by_hour(bad_h), _by_hour(good_h)
    lifts = np.empty(len(_START))
    for k in range(len(_START)):
        bad_in, good_in = 0.0, 0.0
        for hour in range(_START[k], _START[k] + _WIDTH[k]):
            bad_in += bad[hour % 24]
            good_in += good[hour % 24]
        # The bad calls themselves are calls too: half of them speak for the customer's hours.
        calls = len(good_h) + 0.5 * len(bad_h) + GENERAL_CALLS
        share = min(max((good_in + 0.5 * bad_in + GENERAL_CALLS * _GENERAL[k]) / calls, 0.02), 0.98)
        lifts[k] = bad_in * math.log10(INSIDE / share)
        lifts[k] += (len(bad_h) - bad_in) * math.log10((1.0 - INSIDE) / (1.0 - share))
    return lifts


def time_of_day(view: View) -> Finding | None:
    """Look for the hours that hold the bad calls and not the good ones."""
    bad_ms = view.bad["end_ms"]
    if len(bad_ms) < 3 or len(np.unique(bad_ms // DAY_MS)) < 2:
        return None
    bad_h, good_h = hours_of(bad_ms), hours_of(view.good["end_ms"])
    lifts = _lifts_log10(bad_h, good_h)
    best = int(np.argmax(lifts))
    start = int(_START[best])
    end = (start + int(_WIDTH[best])) % 24
    return Finding(
        "time_of_day",
        min(mean_log10(lifts), LIFT_LOG10_MAX),
        f"mostly between {start:02d}:00 and {end:02d}:00 UTC",
        Dimension("hour", f"{start:02d}-{end:02d}"),
    )
