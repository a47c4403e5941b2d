"""Calls that go bad on one way only: one trunk, one SBC, one codec, one far end."""

import math
from collections import Counter

import numpy as np
import numpy.typing as npt

from detectors.patterns.view import LIFT_LOG10_MAX, Finding, View, element_column, mean_log10
from schemas.alerts import Dimension
from schemas.kernels import kernel
from schemas.text import F64, I64

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


def _name(view: View, way: str, value: int) -> str:
    if way == "codec":
        return view.names.codec(value)
    if way == "peer_id":
        return f"{value:08x}"
    return view.names.element(element_column(way), value)


@kernel
def _lifts_log10(values: I64, bad: I64, good: I64) -> F64:
    """Return log10 of the likelihood ratio of each value that any call has."""
    lifts = np.empty(len(values))
    for k in range(len(values)):
        bad_in = np.count_nonzero(bad == values[k])
        if bad_in == 0:
            lifts[k] = -LIFT_LOG10_MAX
            continue
        good_in = np.count_nonzero(good == values[k])
        calls = len(good) + 0.5 * len(bad) + 2.0
        share = min(max((good_in + 0.5 * bad_in + 1.0) / calls, 0.02), 0.98)
        lifts[k] = bad_in * math.log10(INSIDE / share)
        lifts[k] += (len(bad) - bad_in) * math.log10((1.0 - INSIDE) / (1.0 - share))
    return lifts


def _most_taken(view: View, way: str, bad: I64) -> int:
    """Return the value that most bad calls have."""
    counts = Counter(bad.tolist())
    most = max(counts.values())
    # Of equals the name decides: codes are given in order of arrival, and must not show.
    most_taken: list[int] = [value for value, count in counts.items() if count == most]
    return max(most_taken, key=lambda value: _name(view, way, value))


def _way_finding(view: View, way: str, phrase: str) -> Finding | None:
    bad, good = _values(view.bad, way), _values(view.good, way)
    unknown = 0 if way == "peer_id" else -1
    bad, good = bad[bad != unknown], good[good != unknown]
    if len(bad) < 3:
        return None
    best = _most_taken(view, way, bad)
    # A customer whose every call takes this way says nothing about it.
    if (good == best).all():
        return None
    lift = mean_log10(_lifts_log10(np.unique(np.concatenate((bad, good))), bad, good))
    name = _name(view, way, best)
    return Finding("route", min(lift, LIFT_LOG10_MAX), phrase.format(name), Dimension(way, name))


def route(view: View) -> Finding | None:
    """Look for the one value of a dimension that the bad calls share and the good ones do not."""
    found = [finding for way, phrase in WAYS if (finding := _way_finding(view, way, phrase)) is not None]
    if not found:
        return None
    best = max(found, key=lambda finding: finding.lift_log10)
    price = math.log10(len(WAYS))
    return Finding("route", best.lift_log10 - price, best.phrase, best.dimension)
