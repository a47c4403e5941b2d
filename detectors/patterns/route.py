"""Calls that go bad on one way only: one trunk, one SBC, one codec, one far end.

What is made again says nothing: people call those again whom they call most, one after the other.
"""

import math
from collections import Counter

from detectors.history import BAD_KEPT, UNKNOWN, WAY_VALUES, WAYS, way_of
from detectors.patterns.view import (
    AGAIN,
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
from schemas.kernels import loop
from schemas.text import F64, I64

INSIDE = 0.94
"""Under the pattern, this share of bad calls takes the one way."""

PHRASES: dict[str, str] = {
    "trunk": "on trunk {}",
    "sbc": "through session border controller {}",
    "codec": "with codec {}",
    "peer_id": "with one and the same far end",
}

_PRICE_LOG10 = math.log10(len(WAYS))
"""Of having looked at all of them."""


def _name(view: View, way: int, value: int) -> str:
    if WAYS[way] == "codec":
        return view.names.codec(value)
    if WAYS[way] == "peer_id":
        return f"{value:08x}"
    return view.names.element(element_column(WAYS[way]), value)


@loop
def _taken(kept: Kept, way: int, values: F64) -> int:
    """Write what the bad calls of the main sort took, where it is known, into `values`; return how many there are."""
    main, count = main_sort(kept.bad), 0
    for call in kept.bad:
        value = way_of(call, way)
        if value != UNKNOWN and sort_of(call) == main:
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
def _good_in(value: float, values: I64, counts: I64) -> int:
    """Return how many good calls took a value, at the most."""
    rarest = counts[0]
    for slot in range(WAY_VALUES):
        if counts[slot] > 0 and values[slot] == value:
            return int(counts[slot])
        rarest = min(rarest, counts[slot])
    return int(rarest)


@loop
def _takes_no_other(bad: F64, good: int, values: I64, counts: I64) -> bool:
    """Tell whether all good calls take the way that most bad ones do: nothing is said by it then."""
    most = 0
    for value in bad:
        most = max(most, _count(bad, value))
    one_way = False
    for value in bad:
        one_way |= _count(bad, value) == most and _good_in(value, values, counts) == good
    return one_way


@loop
def _way_log10(kept: Kept, way: int) -> float:
    """Return log10 of the likelihood ratio of one value of a way being the bad one; NaN where nothing can be said."""
    bad = kept.room[:BAD_KEPT]
    bad = bad[: _taken(kept, way, bad)]
    values, counts, good = kept.habit.values[way], kept.habit.counts[way], kept.habit.seen[way]
    if len(bad) < 3 or main_sort(kept.bad) == AGAIN or _takes_no_other(bad, good, values, counts):
        return math.nan
    lifts = kept.room[BAD_KEPT : 2 * BAD_KEPT + WAY_VALUES]
    tried = 0
    for k in range(len(bad)):
        if _count(bad[:k], bad[k]) > 0:
            continue
        bad_in = _count(bad, bad[k])
        share = (_good_in(bad[k], values, counts) + 0.5 * bad_in + 1.0) / (good + 0.5 * len(bad) + 2.0)
        share = min(max(share, 0.02), 0.98)
        lifts[tried] = bad_in * math.log10(INSIDE / share)
        lifts[tried] += (len(bad) - bad_in) * math.log10((1.0 - INSIDE) / (1.0 - share))
        tried += 1
    for slot in range(WAY_VALUES):
        if counts[slot] > 0 and _count(bad, values[slot]) == 0:
            lifts[tried] = -LIFT_LOG10_MAX
            tried += 1
    return mean_log10(lifts[:tried])


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


def _most_taken(view: View, way: int) -> str:
    """Return the name of the value that most bad calls have."""
    main = main_sort(view.bad)
    counts = Counter(way_of(call, way) for call in view.bad if sort_of(call) == main)
    counts.pop(UNKNOWN, None)
    most = max(counts.values())
    # Of equals the name decides: codes are given in order of arrival, and must not show.
    return max(_name(view, way, value) for value, count in counts.items() if count == most)


def route(view: View) -> Finding | None:
    """Look for the one value of a dimension that the bad calls share and the good ones do not."""
    lift, likeliest = _weigh(view.kept())
    if math.isnan(lift):
        return None
    name, way = _most_taken(view, likeliest), WAYS[likeliest]
    return Finding("route", lift, PHRASES[way].format(name), Dimension(way, name))
