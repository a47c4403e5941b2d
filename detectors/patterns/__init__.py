"""What is wrong: each pattern a function of the customer's recent calls.

A new pattern is one file with a function `View -> Finding | None` and an entry in `STRUCTURES` or `SORTS`. One of
`STRUCTURES` computes its likelihood ratio in a compiled function, which `added_log10` calls too: so the hot loop knows
what structure adds without a word being written.
"""

import math

from detectors.history import Counters
from detectors.patterns.composition import (
    one_way_audio,
    one_way_audio_log10,
    quality,
    redial,
    setup_failure,
    sorts_log10,
)
from detectors.patterns.duration_lock import duration_lock, duration_lock_log10, hits_at, named_log10
from detectors.patterns.route import route, route_log10
from detectors.patterns.time_of_day import time_of_day, time_of_day_log10
from detectors.patterns.view import Finding, Kept, Names, PatternTest, View, fill, space
from detectors.patterns.worsening import worsening, worsening_log10
from schemas.alerts import PatternKind
from schemas.kernels import loop

__all__ = [
    "KINDS",
    "LOCK",
    "PATTERNS",
    "PLAIN",
    "QUALITY",
    "REDIAL",
    "SETUP_FAILURE",
    "Finding",
    "Kept",
    "Names",
    "View",
    "added_log10",
    "fill",
    "hits_at",
    "named",
    "read",
    "sort_kind",
    "space",
]

STRUCTURES: tuple[PatternTest, ...] = (duration_lock, time_of_day, route, one_way_audio, worsening)
"""Patterns that chance does not make: their likelihood ratios are evidence of their own."""

SORTS: tuple[PatternTest, ...] = (redial, quality, setup_failure)
"""Patterns that say of what sort the bad calls are: each has its channel in the evidence already, and a customer whose
habit is of that sort must not count twice."""

STRUCTURES_COUNT = len(STRUCTURES)

PATTERNS: tuple[PatternTest, ...] = (*STRUCTURES, *SORTS)

KINDS: tuple[PatternKind, ...] = (
    "duration_lock", "time_of_day", "route", "one_way_audio", "worsening", "redial", "quality", "setup_failure",
    "drop_rate",
)  # fmt: skip
"""What each of `PATTERNS` finds, and plain trouble behind them."""
LOCK, REDIAL, QUALITY, SETUP_FAILURE, PLAIN = (
    KINDS.index(kind) for kind in ("duration_lock", "redial", "quality", "setup_failure", "drop_rate")
)

PLAIN_SHARE = 0.6
"""Most of the belief goes to a plain rise of the rate, which most trouble shows; the patterns share the rest."""

NAME_FROM_LOG10 = 0.9
"""A structure is named where it is eight times likelier, for plain trouble is a few times as common as any one of them
and is held against all of them at each bad call; below, the trouble is a plain `drop_rate`."""


@loop
def lifts_log10(kept: Kept) -> tuple[float, float, float, float, float]:
    """Return log10 of the likelihood ratio of each of `STRUCTURES`; NaN where one says nothing."""
    return (
        duration_lock_log10(kept),
        time_of_day_log10(kept),
        route_log10(kept),
        one_way_audio_log10(kept),
        worsening_log10(kept),
    )


@loop
def added_log10(kept: Kept) -> float:
    """Return log10 of what structure adds to the evidence that calls are bad: the mean of its likelihood ratios.

    A plain rise is one of them at 1: an average of likelihood ratios is one, so that looking for five structures in
    everybody costs no false alarms. It multiplies the evidence of bad calls alone: repeated durations are evidence of
    their own (`detectors.locks`), and would count twice.
    """
    ratios = 0.0
    for lift_log10 in lifts_log10(kept):
        if not math.isnan(lift_log10):
            ratios += 10.0**lift_log10
    return math.log10(PLAIN_SHARE + (1.0 - PLAIN_SHARE) * ratios / STRUCTURES_COUNT)


@loop
def named(kept: Kept) -> int:
    """Return the place in `PATTERNS` of the one that names the trouble: of the structures the likeliest, or a sort.

    Returns:
        PLAIN where none does.
    """
    found, most = PLAIN, NAME_FROM_LOG10
    lifts = lifts_log10(kept)
    for place in range(STRUCTURES_COUNT):
        if lifts[place] > most:
            found, most = place, lifts[place]
    if found == LOCK:
        most = named_log10(kept, most)
    sorts = sorts_log10(kept)
    for place in range(len(sorts)):
        if sorts[place] > most:
            found, most = STRUCTURES_COUNT + place, sorts[place]
    return found


@loop
def sort_kind(counters: Counters) -> int:
    """Return the place in `KINDS` of a plain trouble: what most of its bad calls are, of equals the first."""
    kind, most = PLAIN, counters.drops
    for place, count in ((SETUP_FAILURE, counters.failures), (QUALITY, counters.poor), (REDIAL, counters.redials)):
        if count > most:
            kind, most = place, count
    return kind


def read(view: View) -> Finding:
    """Return the pattern that names the trouble, in words."""
    place = named(view.kept())
    found = None if place == PLAIN else PATTERNS[place](view)
    return Finding("drop_rate", NAME_FROM_LOG10, "") if found is None else found
