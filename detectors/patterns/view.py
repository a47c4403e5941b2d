"""What a pattern is read from: the recent calls of one customer, and the words it is told in."""

import datetime as dt
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from detectors.history import ANSWERED, ELEMENTS
from schemas.alerts import Dimension, PatternKind
from schemas.kernels import kernel
from schemas.text import F32, F64, I64

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
LIFT_LOG10_MAX = 12.0
"""No structure in sixteen calls says more than this."""


@dataclass(frozen=True, slots=True)
class View:
    """One customer's recent calls, bad and good apart, oldest first.

    Attributes:
        bad, good: structured arrays of `detectors.history.CALL`; the good ones are a sample of the newest.
        since_ms: end of the first bad call of the trouble.
        now_ms: event time of the call that raised the look.
        attempts, answered, drops, failures, poor, redials, bad_calls: counts since `since_ms`.
        day_calls, day_bad: answered calls, and bad ones, by day since `since_ms`; int64[DAYS_KEPT].
        names: element serial to its name, codec code to its name: what `dimension` shows.
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
    names: "Names"

    def flagged(self, flag: int) -> int:
        """Return how many bad calls carry a flag of `detectors.history`."""
        return int(np.count_nonzero(self.bad["flags"] & flag))

    def bad_durations_s(self) -> npt.NDArray[np.float64]:
        """Return the durations of the answered bad calls, in seconds."""
        answered = self.bad[(self.bad["flags"] & ANSWERED) != 0]
        return np.asarray(answered["duration_ms"] / 1000.0, np.float64)


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


def day_of(time_ms: int) -> str:
    """Write the UTC day of a time as a person says it: Monday, 5 January."""
    moment = dt.datetime.fromtimestamp(time_ms / 1000, tz=dt.UTC)
    return f"{moment:%A}, {moment.day} {moment:%B}"


def share_lift_log10(hits: int, trials: int, usual: float, unusual: float) -> float:
    """Return log10 of the likelihood ratio of `hits` in `trials` at a share of `unusual` against `usual`."""
    return hits * math.log10(unusual / usual) + (trials - hits) * math.log10((1.0 - unusual) / (1.0 - usual))


@kernel
def mean_log10(values_log10: F64) -> float:
    """Return log10 of the mean of numbers given as their log10: the price of having tried them all."""
    top = values_log10.max()
    return float(top + math.log10(np.mean(10.0 ** (values_log10 - top))))


def hours_of(times_ms: I64) -> F32:
    """Return the UTC hour of the day, 0..24, of each time."""
    return np.asarray((times_ms % DAY_MS) / HOUR_MS, np.float32)


def element_column(kind: str) -> int:
    """Return the column of an element kind in a call's `elements`."""
    return ELEMENTS.index(kind)
