"""Is the world still the one that was learnt? A watch over forecasts and what came of them.

While forecasts are right, the loss of each exceeds what its own probability says by nothing on average, with a known
variance. River's Page-Hinkley test watches that standardised excess for a lasting change of its mean.
"""

import math
from typing import Annotated, Final

from msgspec import Meta, Struct
from river import drift

DELTA: Final = 0.05
"""Changes of the mean below this many standard deviations are none."""

THRESHOLD: Final = 300.0
"""Residuals of rare events are skewed, so this is measured, not derived: at a steady 2% there were two alarms in
360,000 labels, and a base rate that doubled was found after some 2,000."""


class WatchState(Struct, frozen=True, forbid_unknown_fields=True):
    """Counters of alarms, and the test's sums since the last; None: none yet."""

    alarms: int = 0
    labels: int = 0
    last_alarm: int | None = None
    count: Annotated[float, Meta(ge=0.0)] = 0.0
    mean: float = 0.0
    rise: float = 0.0
    fall: float = 0.0
    rise_min: float | None = None
    fall_max: float = -1.0


class DriftWatch:
    """Watches one model's forecasts.

    Attributes:
        alarms: how often the test said that the mean has changed.
        last_alarm: after how many labels it last did; None: never.
    """

    def __init__(self, state: WatchState | None = None) -> None:
        read = WatchState() if state is None else state
        self.alarms, self.last_alarm, self._labels = read.alarms, read.last_alarm, read.labels
        self._test = drift.PageHinkley(delta=DELTA, threshold=THRESHOLD)
        # river offers no public way to put the sums back.
        self._test._x_mean.n, self._test._x_mean._mean = read.count, read.mean  # noqa: SLF001
        self._test._sum_increase, self._test._sum_decrease = read.rise, read.fall  # noqa: SLF001
        self._test._min_increase = math.inf if read.rise_min is None else read.rise_min  # noqa: SLF001
        self._test._max_decrease = read.fall_max  # type: ignore[assignment]  # noqa: SLF001

    def learn(self, probability: float, happened: bool) -> bool:  # noqa: FBT001  the label itself
        """Take one forecast, in (0, 1), and what came of it; return whether this is an alarm."""
        self._labels += 1
        self._test.update(excess_of(probability, happened))  # type: ignore[no-untyped-call]
        if not self._test.drift_detected:
            return False
        self.alarms += 1
        self.last_alarm = self._labels
        self._test._reset()  # type: ignore[no-untyped-call]  # noqa: SLF001  it would do so at the next update; done now, the sums say it all
        return True

    def snapshot(self) -> WatchState:
        """Return the sums."""
        test = self._test
        rise_min = test._min_increase  # noqa: SLF001
        return WatchState(
            alarms=self.alarms,
            labels=self._labels,
            last_alarm=self.last_alarm,
            count=float(test._x_mean.n),  # noqa: SLF001
            mean=float(test._x_mean.get()),  # noqa: SLF001
            rise=float(test._sum_increase),  # noqa: SLF001
            fall=float(test._sum_decrease),  # noqa: SLF001
            rise_min=None if math.isinf(rise_min) else float(rise_min),
            fall_max=float(test._max_decrease),  # noqa: SLF001
        )


def excess_of(probability: float, happened: bool) -> float:  # noqa: FBT001  the label itself
    """Return by how many standard deviations the loss exceeds its expectation under the forecast.

    Loss - entropy = (outcome - p) x -log-odds(p), with a standard deviation of sqrt(p (1 - p)) |log-odds|: their ratio
    is a standardised residual, its sign that of a bad surprise.
    """
    residual = (float(happened) - probability) / math.sqrt(probability * (1 - probability))
    return residual if probability < 0.5 else -residual
