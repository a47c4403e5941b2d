"""Calls that go bad on one way only: one trunk, one SBC, one codec, one far end."""

import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.history import BAD_KEPT, GOOD_KEPT
from detectors.patterns.view import (
    LIFT_LOG10_MAX,
    Finding,
    Kept,
    View,
    element_column,
    main_sort,
    mean_log10,
    sort_of,
)
from schemas.alerts import Dimension
from schemas.kernels import inlined, loop
from schemas.text import F64

INSIDE = 0.94
"""Under the pattern, this share of bad calls takes the one way."""

WAYS: tuple[tuple[str, str], ...] = (
    ("trunk", "on trunk {}"),
    ("sbc", "through session border controller {}"),
    ("codec", "with codec {}"),
    ("peer_id", "with one and the same far end"),
)

CODEC, PEER = 2, 3
_COLUMNS = np.array([element_column(name) for name, _ in WAYS[:CODEC]])
_UNKNOWN = -1.0
_PRICE_LOG10 = math.log10(len(WAYS))
"""Of having looked at all of them."""


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


@inlined
def _value(call: Any, way: int) -> float:
    """Return the number of what a call took, or `_UNKNOWN`."""
    if way == CODEC:
        return float(call["codec"])
    if way == PEER:
        return float(call["peer"]) if call["peer"] != 0 else _UNKNOWN
    return float(call["elements"][_COLUMNS[way]])


_ANY_SORT = -1


@loop
def _known(calls: npt.NDArray[np.void], sort: int, way: int, values: F64) -> int:
    """Write what calls of a sort took, where it is known, into `values`; return how many there are."""
    count = 0
    for call in calls:
        value = _value(call, way)
        if value != _UNKNOWN and sort in (_ANY_SORT, sort_of(call)):
            values[count] = value
            count += 1
    return count


@loop
def _count(values: F64, value: float) -> int:
    hits = 0
    for one in values:
        hits += one == value
    return hits


@loop
def _distinct(values: F64, bad: F64, good: F64) -> int:
    """Write each value of bad and good calls once into `values`, in order; return how many there are."""
    count = 0
    for side in (bad, good):
        for value in side:
            at = 0
            while at < count and values[at] < value:
                at += 1
            if at < count and values[at] == value:
                continue
            for k in range(count, at, -1):
                values[k] = values[k - 1]
            values[at] = value
            count += 1
    return count


@loop
def _takes_no_other(bad: F64, good: F64) -> bool:
    """Tell whether all good calls take the way that most bad ones do: nothing is said by it then."""
    most = 0
    for value in bad:
        most = max(most, _count(bad, value))
    one_way = False
    for value in bad:
        one_way |= _count(bad, value) == most and _count(good, value) == len(good)
    return one_way


@loop
def _way_log10(kept: Kept, way: int) -> float:
    """Return log10 of the likelihood ratio of one value of a way being the bad one; NaN where nothing can be said."""
    bad = kept.room[:BAD_KEPT]
    bad = bad[: _known(kept.bad, main_sort(kept.bad), way, bad)]
    good = kept.room[BAD_KEPT : BAD_KEPT + GOOD_KEPT]
    good = good[: _known(kept.good, _ANY_SORT, way, good)]
    if len(bad) < 3 or _takes_no_other(bad, good):
        return math.nan
    values = kept.room[BAD_KEPT + GOOD_KEPT : 2 * (BAD_KEPT + GOOD_KEPT)]
    lifts = kept.room[2 * (BAD_KEPT + GOOD_KEPT) : 3 * (BAD_KEPT + GOOD_KEPT)]
    count = _distinct(values, bad, good)
    for k in range(count):
        lifts[k] = -LIFT_LOG10_MAX
        bad_in = _count(bad, values[k])
        if bad_in > 0:
            calls = len(good) + 0.5 * len(bad) + 2.0
            share = min(max((_count(good, values[k]) + 0.5 * bad_in + 1.0) / calls, 0.02), 0.98)
            lifts[k] = bad_in * math.log10(INSIDE / share)
            lifts[k] += (len(bad) - bad_in) * math.log10((1.0 - INSIDE) / (1.0 - share))
    return mean_log10(lifts[:count])


@loop
def _weigh(kept: Kept) -> tuple[float, int]:
    """Return (log10 of the likelihood ratio of any way, the likeliest one); NaN where nothing can be said."""
    lift, likeliest = math.nan, 0
    for way in range(len(WAYS)):
        one = _way_log10(kept, way)
        if math.isnan(lift) or one > lift:
            lift, likeliest = one, way
    return min(lift, LIFT_LOG10_MAX) - _PRICE_LOG10, likeliest


@loop
def route_log10(kept: Kept) -> float:
    """Return log10 of the likelihood ratio of one bad way; NaN where nothing can be said."""
    return _weigh(kept)[0]


def _most_taken(view: View, way: str) -> str:
    """Return the name of the value that most bad calls have."""
    main = main_sort(view.bad)
    counts = Counter(_values(view.bad[[sort_of(call) == main for call in view.bad]], way).tolist())
    counts.pop(_unknown(way), None)
    most = max(counts.values())
    # Of equals the name decides: codes are given in order of arrival, and must not show.
    return max(_name(view, way, value) for value, count in counts.items() if count == most)


def route(view: View) -> Finding | None:
    """Look for the one value of a dimension that the bad calls share and the good ones do not."""
    lift, likeliest = _weigh(view.kept())
    if math.isnan(lift):
        return None
    way, phrase = WAYS[likeliest]
    name = _most_taken(view, way)
    return Finding("route", lift, phrase.format(name), Dimension(way, name))
