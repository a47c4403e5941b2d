"""Calibration of an online score: the correction that makes it a probability, and the measure of how well it does.

A score that learns one customer at a time lags, overshoots and drifts. `OnlinePlatt` corrects slope and offset as
labels come in; `CalibrationMeter` keeps watching whether of those said to leave with 5% about 5% did.
"""

import math
from typing import Final

from msgspec import Struct, field

PROBABILITY_MIN: Final = 1e-6
"""Probabilities stay this far from 0 and 1: nobody is certain, and the logarithmic loss stays finite."""

MEMORY_LABELS: Final = 50_000
"""Labels after which one weighs 1/e of the newest: 750 leavers at a base rate of 1.5%. With a fifth of it, several
examples of the same leaver a month made the base rate wander by a third."""

BIN_EDGES: Final = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Upper edges of the bins of probability, all but the last. Fine where churn lives: ten equal bins would put
nearly every customer of a 1.5% base rate into the first."""

_SLOPE_PRIOR, _SLOPE_PRECISION = 1.0, 4.0
_OFFSET_PRIOR, _OFFSET_PRECISION = 0.0, 4.0
# A standard deviation of one half in slope and in offset: the score is believed until a few leavers say otherwise.


def logistic(log_odds: float) -> float:
    """Turn log-odds into a probability, kept `PROBABILITY_MIN` away from 0 and 1."""
    if log_odds < 0:
        odds = math.exp(max(log_odds, -700.0))
        probability = odds / (1 + odds)
    else:
        probability = 1 / (1 + math.exp(-log_odds))
    return min(max(probability, PROBABILITY_MIN), 1 - PROBABILITY_MIN)


def log_odds(probability: float) -> float:
    """Turn a probability in (0, 1) into log-odds."""
    return math.log(probability / (1 - probability))


class PlattState(Struct, frozen=True, forbid_unknown_fields=True):
    """What `OnlinePlatt` has learnt: the two parameters and the three entries of their information matrix."""

    slope: float = _SLOPE_PRIOR
    offset: float = _OFFSET_PRIOR
    slope_information: float = _SLOPE_PRECISION
    cross_information: float = 0.0
    offset_information: float = _OFFSET_PRECISION

    def inconsistency(self) -> str | None:
        """Say what does not hold, or None."""
        determinant = self.slope_information * self.offset_information - self.cross_information**2
        if determinant <= 0.0 or self.slope_information <= 0.0:
            return "must hold a positive definite information matrix"
        return None


class OnlinePlatt:
    """Slope and offset of a score, learnt label by label.

    Platt (1999) fits P(y) = 1 / (1 + exp(-(a s + b))) to held-out scores. Here the two parameters follow the labels
    by one Newton step each, with the information matrix summed over the labels seen: logistic regression by the
    extended Kalman filter (Fahrmeir, 1992). Old information fades towards the prior (slope 1, offset 0), so that
    the matrix neither freezes nor vanishes.

    The score comes in two parts, `centre` (the log-odds of an average customer) and `deviation` from it, because
    the parameters are nearly independent that way: log-odds = centre + offset + slope x deviation.
    """

    def __init__(self, state: PlattState | None = None) -> None:
        self.state = PlattState() if state is None else state

    @property
    def slope(self) -> float:
        """Factor on every deviation, at least 0: a ranking that proved wrong is ignored, not turned around."""
        return max(self.state.slope, 0.0)

    def log_odds(self, centre: float, deviation: float) -> float:
        """Return the calibrated log-odds. Changes nothing."""
        return centre + self.state.offset + self.slope * deviation

    def learn(self, centre: float, deviation: float, happened: bool) -> None:  # noqa: FBT001  the label itself
        """Learn one label for a score given before the label was known."""
        old = self.state
        p = logistic(self.log_odds(centre, deviation))
        error = float(happened) - p
        weight = p * (1 - p)
        pull = 1 / MEMORY_LABELS
        keep = 1 - pull
        a = keep * old.slope_information + pull * _SLOPE_PRECISION + weight * deviation * deviation
        b = keep * old.cross_information + weight * deviation
        d = keep * old.offset_information + pull * _OFFSET_PRECISION + weight
        slope_gradient = error * deviation - pull * _SLOPE_PRECISION * (old.slope - _SLOPE_PRIOR)
        offset_gradient = error - pull * _OFFSET_PRECISION * (old.offset - _OFFSET_PRIOR)
        determinant = a * d - b * b
        self.state = PlattState(
            old.slope + (d * slope_gradient - b * offset_gradient) / determinant,
            old.offset + (a * offset_gradient - b * slope_gradient) / determinant,
            a,
            b,
            d,
        )


class CalibrationBin(Struct, frozen=True):
    """Customers whose probability fell into one bin.

    Attributes:
        upper: upper edge of the bin.
        weight: labels in it, faded.
        predicted: their mean probability; None where there were none.
        observed: the share of them that left; None where there were none.
    """

    upper: float
    weight: float
    predicted: float | None
    observed: float | None


class CalibrationReport(Struct, frozen=True):
    """How good the probabilities have been lately, each measured before its label was learnt.

    Attributes:
        labels, left: labels learnt in all, and how many of them left.
        early: leavers reported before anybody could be known to have stayed; not learnt.
        base_rate: the learnt share of customers that leave.
        weight: labels behind the measures, faded; 0 leaves them None.
        brier: mean squared distance between probability and outcome (Brier, 1950).
        brier_base: the same for a forecast that always says the mean outcome; a useful model stays below.
        log_loss: mean negative log-likelihood, in nats.
        calibration_error: expected calibration error: mean distance between predicted and observed share over
            the bins, weighted by their labels (Naeini et al., 2015).
        slope, offset: the calibrator's correction; 1 and 0 correct nothing.
        bins: the reliability table.
    """

    labels: int
    left: int
    early: int
    base_rate: float
    weight: float
    brier: float | None
    brier_base: float | None
    log_loss: float | None
    calibration_error: float | None
    slope: float
    offset: float
    bins: list[CalibrationBin]


_BIN_COUNT: Final = len(BIN_EDGES) + 1


def _empty() -> list[float]:
    return [0.0] * _BIN_COUNT


class MeterState(Struct, frozen=True, forbid_unknown_fields=True):
    """Faded sums: of squared errors, of losses, and per bin of labels, probabilities and leavers."""

    squares: float = 0.0
    losses: float = 0.0
    weights: list[float] = field(default_factory=_empty)
    predicted: list[float] = field(default_factory=_empty)
    observed: list[float] = field(default_factory=_empty)

    def inconsistency(self) -> str | None:
        """Say what does not hold, or None."""
        if {len(self.weights), len(self.predicted), len(self.observed)} != {_BIN_COUNT}:
            return f"must hold {_BIN_COUNT} bins of calibration"
        return None


class CalibrationMeter:
    """Faded Brier score, logarithmic loss and reliability table of a stream of forecasts."""

    def __init__(self, state: MeterState | None = None) -> None:
        read = MeterState() if state is None else state
        self._squares, self._losses = read.squares, read.losses
        self._weights, self._predicted = list(read.weights), list(read.predicted)
        self._observed = list(read.observed)

    def learn(self, probability: float, happened: bool) -> None:  # noqa: FBT001  the label itself
        """Take one forecast and what came of it."""
        keep = 1 - 1 / MEMORY_LABELS
        for sums in (self._weights, self._predicted, self._observed):
            sums[:] = [keep * value for value in sums]
        outcome = float(happened)
        index = sum(probability >= edge for edge in BIN_EDGES)
        self._weights[index] += 1.0
        self._predicted[index] += probability
        self._observed[index] += outcome
        self._squares = keep * self._squares + (probability - outcome) ** 2
        self._losses = keep * self._losses - math.log(probability if happened else 1 - probability)

    def snapshot(self) -> MeterState:
        """Return the sums."""
        return MeterState(self._squares, self._losses, list(self._weights), list(self._predicted), list(self._observed))

    def report(self, *, labels: int, left: int, early: int, base_rate: float, platt: PlattState) -> CalibrationReport:
        """Return the measures, beside the counts and parameters that belong in the same table."""
        weight = sum(self._weights)
        mean = sum(self._observed) / weight if weight else 0.0
        gap = sum(abs(p - o) for p, o in zip(self._predicted, self._observed, strict=True))
        return CalibrationReport(
            labels=labels,
            left=left,
            early=early,
            base_rate=base_rate,
            weight=weight,
            brier=self._squares / weight if weight else None,
            brier_base=mean * (1 - mean) if weight else None,
            log_loss=self._losses / weight if weight else None,
            calibration_error=gap / weight if weight else None,
            slope=platt.slope,
            offset=platt.offset,
            bins=[
                CalibrationBin(upper, w, p / w if w else None, o / w if w else None)
                for upper, w, p, o in zip(
                    (*BIN_EDGES, 1.0), self._weights, self._predicted, self._observed, strict=True
                )
            ],
        )
