"""Calls that go bad on one way only: one trunk, one SBC, one codec, one far end."""

import math
from collections import Counter

import numpy as np
import numpy.typing as npt

from detectors.patterns.view import LIFT_LOG10_MAX, Finding, View, element_column, mean_log10
from schemas.alerts import Dimension
from schemas.kernels import kernel
from schemas.text import I64

INSIDE = 0.94
"""Under the pattern, this share of bad calls takes the one way."""

WAYS: tuple[tuple[str, str], ...] = (
    ("trunk", "on trunk {}"),
    ("sbc", "through session border controller {}"),
    ("codec", "with codec {}"),
    ("peer_id", "with one and the same far end"),
)


def _values(calls: npt.NDArray[np.void], way: str) -> npt.NDArray[np.int64]:
    if way == "codec":
        return np.asarray(calls["codec"], np.int64)
    if way == "peer_id":
        return np.asarray(calls["peer"], np.int64)
    return np.asarray(calls["elements"][:, element_column(way)], np.int64)


def _unknown(way: str) -> int:
    return 0 if way == "peer_id" else -1


def _name(view: View, way: str, value: int) -> str:
    if way == "codec":
        return view.names.codec(value)
    if way == "peer_id":
        return f"{value:08x}"
    return view.names.element(element_column(way), value)


@kernel
def _way_log10(bad: I64, good: I64, unknown: int) -> float:
    """Return log10 of the likelihood ratio of one value of a way being the bad one; NaN where nothing can be said."""
    bad, good = bad[bad != unknown], good[good != unknown]
    if len(bad) < 3:
        return math.nan
    taken = np.array([np.count_nonzero(bad == value) for value in bad])
    for value in bad[taken == taken.max()]:
        # A customer whose every call takes this way says nothing about it.
        if np.all(good == value):
            return math.nan
    values = np.unique(np.concatenate((bad, good)))
    lifts = np.full(len(values), -LIFT_LOG10_MAX)
    for k in range(len(values)):
        bad_in = np.count_nonzero(bad == values[k])
        if bad_in > 0:
            good_in = np.count_nonzero(good == values[k])
            calls = len(good) + 0.5 * len(bad) + 2.0
            share = min(max((good_in + 0.5 * bad_in + 1.0) / calls, 0.02), 0.98)
            lifts[k] = bad_in * math.log10(INSIDE / share)
            lifts[k] += (len(bad) - bad_in) * math.log10((1.0 - INSIDE) / (1.0 - share))
    return mean_log10(lifts)


def _most_taken(view: View, way: str) -> str:
    """Return the name of the value that most bad calls have."""
    counts = Counter(_values(view.bad, way).tolist())
    counts.pop(_unknown(way), None)
    most = max(counts.values())
    # Of equals the name decides: codes are given in order of arrival, and must not show.
    return max(_name(view, way, value) for value, count in counts.items() if count == most)


def route(view: View) -> Finding | None:
    """Look for the one value of a dimension that the bad calls share and the good ones do not."""
    if len(view.bad) < 3:
        return None
    lifts = [_way_log10(_values(view.bad, way), _values(view.good, way), _unknown(way)) for way, _ in WAYS]
    known = [(lift, way) for lift, way in zip(lifts, WAYS, strict=True) if not math.isnan(lift)]
    if not known:
        return None
    lift, (way, phrase) = max(known, key=lambda one: one[0])
    name = _most_taken(view, way)
    price = math.log10(len(WAYS))
    return Finding("route", min(lift, LIFT_LOG10_MAX) - price, phrase.format(name), Dimension(way, name))
