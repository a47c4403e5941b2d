"""Calibration of an online score: the correction that makes it a probability, and the measure of how well it does.

A score that learns one customer at a time lags, overshoots and drifts. `OnlinePlatt` corrects slope and offset as
labels come in; `detectors.churn.measures` keeps watching whether of those said to leave with 5% about 5% did.
"""

import math
from typing import Final

from msgspec import Struct

PROBABILITY_MIN: Final = 1e-6
"""Probabilities stay this far from 0 and 1: nobody is certain, and the logarithmic loss stays finite."""

MEMORY_LABELS: Final = 50_000
"""Labels after which one weighs 1/e of the newest: 750 leavers at a base rate of 1.5%. With a fifth of it, several
examples of the same leaver a month made the base rate wander by a third."""

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

    def doubt(self) -> None:
        """Forget how sure the parameters are, not what they are: the next labels then move them as the first did."""
        self.state = PlattState(self.state.slope, self.state.offset)
