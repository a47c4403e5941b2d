"""What a pattern is read from: the recent calls of one customer, and the words it is told in."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from detectors.history import (
    ANSWERED,
    BAD,
    BAD_KEPT,
    CALL,
    COUNTERS,
    DAYS_KEPT,
    ELEMENTS,
    GOOD_KEPT,
    LOCKED,
    POOR,
    Counters,
    Habit,
    copy_habit,
    no_habit,
)
from detectors.zone import LocalTime
from schemas.alerts import Dimension, PatternKind
from schemas.kernels import inlined, loop
from schemas.text import F64, I16, I64

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
LIFT_LOG10_MAX = 12.0
"""No structure in sixteen calls says more than this."""
ROOM = 160
"""So many numbers a pattern may write down while it weighs."""


class Kept(NamedTuple):
    """What likelihood ratios are computed from: one customer's recent calls, as compiled functions see them.

    Attributes:
        bad, good: structured arrays of `detectors.history.CALL`, oldest first.
        since_ms: end of the first bad call of the trouble.
        now_ms: event time of the call that raised the look.
        bad_calls: answered calls that were bad, since `since_ms`.
        day_calls, day_bad: answered calls, and bad ones, by day since `since_ms`; int64[DAYS_KEPT].
        habit: how all good calls are spread since the history began.
        room: float64[ROOM], to write in: these functions make no arrays.
        ahead_min: of `detectors.zone.LocalTime`.
    """

    bad: npt.NDArray[np.void]
    good: npt.NDArray[np.void]
    since_ms: int
    now_ms: int
    bad_calls: int
    day_calls: I64
    day_bad: I64
    habit: Habit
    room: F64
    ahead_min: I16


def space(ahead_min: I16) -> Kept:
    """Return room for the calls of any one customer at a time, in the time of `detectors.zone.LocalTime`."""
    days = np.zeros((2, DAYS_KEPT), np.int64)
    return Kept(
        np.zeros(BAD_KEPT, CALL),
        np.zeros(GOOD_KEPT, CALL),
        0,
        0,
        0,
        days[0],
        days[1],
        no_habit(),
        np.empty(ROOM),
        ahead_min,
    )


@loop
def fill(within: Kept, history: Any, since_ms: int) -> tuple[int, int]:
    """Copy what a history holds of a trouble: the calls since it began, oldest first, its days, and the habit.

    Args:
        within: from `space`; written to.
        history: a row of `detectors.history.HISTORY`.
        since_ms: end of the first bad call of the trouble.

    Returns:
        How many bad calls there are, and how many good ones.
    """
    for day in range(DAYS_KEPT):
        within.day_calls[day] = history["day_calls"][day]
        within.day_bad[day] = history["day_bad"][day]
    copy_habit(history, within.habit)
    bad = _newest(history["bad"], history["bad_count"], since_ms, within.bad)
    return bad, _newest(history["good"], history["good_count"], since_ms, within.good)


@inlined
def _newest(ring: npt.NDArray[np.void], count: int, since_ms: int, calls: npt.NDArray[np.void]) -> int:
    """Write the calls of a ring since a time into `calls`, oldest first; return how many there are."""
    taken = 0
    for place in range(max(0, count - len(ring)), count):
        if ring[place % len(ring)]["end_ms"] >= since_ms:
            calls[taken] = ring[place % len(ring)]
            taken += 1
    return taken


@dataclass(frozen=True, slots=True)
class View:
    """One customer's recent calls, bad and good apart, oldest first.

    Attributes:
        bad, good: structured arrays of `detectors.history.CALL`; the good ones are a sample of the newest.
        since_ms: end of the first bad call of the trouble.
        now_ms: event time of the call that raised the look.
        attempts, answered, drops, failures, poor, redials, bad_calls: counts since `since_ms`.
        day_calls, day_bad: answered calls, and bad ones, by day since `since_ms`; int64[DAYS_KEPT].
        habit: how all good calls are spread since the history began.
        names: element serial to its name, codec code to its name: what `dimension` shows.
        zone: what hours are told in.
    """

    bad: npt.NDArray[np.void]
    good: npt.NDArray[np.void]
    since_ms: int
    now_ms: int
    attempts: int
    answered: int
    drops: int
    failures: int
    poor: int
    redials: int
    bad_calls: int
    day_calls: I64
    day_bad: I64
    habit: Habit
    names: "Names"
    zone: LocalTime

    def bad_durations_s(self) -> npt.NDArray[np.float64]:
        """Return the durations of the answered bad calls, in seconds."""
        answered = self.bad[(self.bad["flags"] & ANSWERED) != 0]
        return np.asarray(answered["duration_ms"] / 1000.0, np.float64)

    def counters(self) -> Counters:
        """Return what was counted since `since_ms`."""
        return Counters(*(getattr(self, name) for name in COUNTERS))

    def kept(self) -> Kept:
        """Return what of it likelihood ratios are computed from."""
        return Kept(
            self.bad,
            self.good,
            self.since_ms,
            self.now_ms,
            self.bad_calls,
            self.day_calls,
            self.day_bad,
            self.habit,
            np.empty(ROOM),
            self.zone.ahead_min,
        )


class Names(Protocol):
    """Looks up what a code in a call stands for."""

    def element(self, column: int, serial: int) -> str:
        """Return the name of an element of kind `ELEMENTS[column]`."""

    def codec(self, code: int) -> str:
        """Return the name of a codec."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A structure in the bad calls.

    Attributes:
        lift_log10: log10 of how much likelier these calls are with the structure than without; multiplicity within
            the pattern (values, windows, timers tried) is already paid.
        phrase: completes "7 of your last 11 calls since Monday, 5 January were cut off".
    """

    kind: PatternKind
    lift_log10: float
    phrase: str
    dimension: Dimension | None = None


class PatternTest(Protocol):
    """A pattern: one file, one function of this shape, listed in `detectors.patterns`."""

    def __call__(self, view: View) -> Finding | None:
        """Return what was found, or None where the pattern does not apply."""


@loop
def share_lift_log10(hits: int, trials: int, usual: float, unusual: float) -> float:
    """Return log10 of the likelihood ratio of `hits` in `trials` at a share of `unusual` against `usual`."""
    return hits * math.log10(unusual / usual) + (trials - hits) * math.log10((1.0 - unusual) / (1.0 - usual))


@loop
def mean_log10(values_log10: F64) -> float:
    """Return log10 of the mean of numbers given as their log10: the price of having tried them all."""
    top = values_log10[0]
    for value in values_log10:
        top = max(top, value)
    parts = 0.0
    for value in values_log10:
        parts += 10.0 ** (value - top)
    return float(top + math.log10(parts / len(values_log10)))


CUT, FAILED, WORN, AGAIN = range(4)
"""Sorts of bad calls: cut off, not set up, of poor sound, made again with nothing else wrong."""


@inlined
def sort_of(call: Any) -> int:
    """Return of what sort a bad call is."""
    if call["setup"] >= BAD:
        return FAILED
    if call["drop"] >= BAD or (call["flags"] & LOCKED) != 0:
        return CUT
    return WORN if (call["flags"] & POOR) != 0 else AGAIN


@loop
def main_sort(bad: npt.NDArray[np.void]) -> int:
    """Return the sort of which there are most; of equals the first.

    What one trouble has in common, hours or a way, its own calls show; those of other sorts that fall among them are
    what everybody has.
    """
    counts = (0, 0, 0, 0)
    for call in bad:
        sort = sort_of(call)
        counts = (
            counts[CUT] + (sort == CUT),
            counts[FAILED] + (sort == FAILED),
            counts[WORN] + (sort == WORN),
            counts[AGAIN] + (sort == AGAIN),
        )
    main = CUT
    for sort in range(4):
        if counts[sort] > counts[main]:
            main = sort
    return main


@loop
def flagged(calls: npt.NDArray[np.void], flag: int) -> int:
    """Return how many calls carry a flag of `detectors.history`."""
    hits = 0
    for one in calls:
        hits += (one["flags"] & flag) != 0
    return hits


def element_column(kind: str) -> int:
    """Return the column of an element kind in a call's `elements`."""
    return ELEMENTS.index(kind)
