"""Calls that go bad on one way only: one trunk, one SBC, one codec, one far end."""

import numpy as np
import numpy.typing as npt

from detectors.patterns.view import LIFT_LOG10_MAX, Finding, View, element_column, mean_log10
from schemas.alerts import Dimension

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


def _value_log10(bad: npt.NDArray[np.int64], good: npt.NDArray[np.int64], value: int) -> float:
    bad_in = int(np.count_nonzero(bad == value))
    good_in = int(np.count_nonzero(good == value))
    share = (good_in + 0.5 * bad_in + 1.0) / (len(good) + 0.5 * len(bad) + 2.0)
    share = min(max(share, 0.02), 0.98)
    return float(bad_in * np.log10(INSIDE / share) + (len(bad) - bad_in) * np.log10((1.0 - INSIDE) / (1.0 - share)))


def _way_finding(view: View, way: str, phrase: str) -> Finding | None:
    bad, good = _values(view.bad, way), _values(view.good, way)
    unknown = 0 if way == "peer_id" else -1
    bad, good = bad[bad != unknown], good[good != unknown]
    if len(bad) < 3:
        return None
    values, counts = np.unique(bad, return_counts=True)
    # Of equals the name decides: codes are given in order of arrival, and must not show.
    best = int(max(zip(counts, values, strict=True), key=lambda one: (one[0], _name(view, way, int(one[1]))))[1])
    # A customer whose every call takes this way says nothing about it.
    if not len(good) or np.count_nonzero(good == best) == len(good):
        return None
    tried = len(np.unique(np.concatenate([bad, good])))
    lifts = [_value_log10(bad, good, int(value)) for value in values]
    lifts += [-LIFT_LOG10_MAX] * (tried - len(values))
    name = _name(view, way, best)
    return Finding("route", min(mean_log10(lifts), LIFT_LOG10_MAX), phrase.format(name), Dimension(way, name))


def route(view: View) -> Finding | None:
    """Look for the one value of a dimension that the bad calls share and the good ones do not."""
    found = [finding for way, phrase in WAYS if (finding := _way_finding(view, way, phrase)) is not None]
    if not found:
        return None
    best = max(found, key=lambda finding: finding.lift_log10)
    price = float(np.log10(len(WAYS)))
    return Finding("route", best.lift_log10 - price, best.phrase, best.dimension)
