"""Calls that get worse from day to day: a fault that grows."""

import numpy as np

from detectors.patterns.view import DAY_MS, LIFT_LOG10_MAX, Finding, View

SPAN_DAYS_MIN = 3.0


def worsening(view: View) -> Finding | None:
    """Compare a rate that grows linearly from zero with a constant one, over the time since the trouble began.

    Under a constant rate the times of n bad calls are uniform over the span T; under a linear rise their density is
    2 t / T^2. The first bad call defines the beginning and is left out.
    """
    times_ms = view.bad["end_ms"]
    if len(times_ms) < 6:
        return None
    span_ms = float(view.now_ms - times_ms[0])
    if span_ms < SPAN_DAYS_MIN * DAY_MS:
        return None
    place = np.clip((times_ms[1:-1] - times_ms[0]) / span_ms, 0.02, 1.0)
    lift = float(np.log10(2.0 * place).sum())
    return Finding("worsening", min(lift, LIFT_LOG10_MAX), "and it gets worse from day to day")
