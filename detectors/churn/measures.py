"""How good forecasts have lately been, each measured before its label was learnt (Dawid, 1984: prequential).

Everything fades at the rate of `MEMORY_LABELS`, so that a model that has become worse shows it. Ranking and lift are
read off a histogram of scores, which needs neither the forecasts themselves nor a window of them.
"""

import math
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from detectors.churn.calibration import MEMORY_LABELS, log_odds

Floats = npt.NDArray[np.float64]

BIN_EDGES: Final = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Upper edges of the bins of probability, all but the last. Fine where churn lives: ten equal bins would put
nearly every customer of a 1.5% base rate into the first."""

RANK_STEP, RANK_MIN, RANK_COUNT = 0.1, -8.0, 120
"""Bins of log-odds for ranking: two scores within a tenth count as equal. From 0.03% to 98%."""

LIFT_SHARE: Final = 0.1
"""Lift is told for this share of customers, those of the highest scores: what a team can call."""

_BIN_COUNT: Final = len(BIN_EDGES) + 1


class ReliabilityBin(Struct, frozen=True):
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


class Measures(Struct, frozen=True):
    """How good a model's probabilities have lately been; None while there is nothing to measure.

    Attributes:
        weight: labels behind the measures, faded.
        left_weight: those of them that left.
        log_loss: mean negative log-likelihood, in nats.
        brier: mean squared distance between probability and outcome (Brier, 1950).
        brier_base: the same for a forecast that always says the mean outcome; a useful model stays below.
        auc: chance that somebody who left had the higher score than somebody who stayed (Hanley and McNeil, 1982).
        calibration_error: expected calibration error: mean distance between predicted and observed share over
            the bins, weighted by their labels (Naeini et al., 2015).
        lift: how many times as often as all did those of the highest tenth of scores leave.
        bins: the reliability table.
        gains: (share of customers called, share of leavers among them), by falling score.
    """

    weight: float
    left_weight: float
    log_loss: float | None
    brier: float | None
    brier_base: float | None
    auc: float | None
    calibration_error: float | None
    lift: float | None
    bins: list[ReliabilityBin]
    gains: list[tuple[float, float]]


def _bins() -> list[float]:
    return [0.0] * _BIN_COUNT


def _ranks() -> list[float]:
    return [0.0] * RANK_COUNT


class MeterState(Struct, frozen=True, forbid_unknown_fields=True):
    """Faded sums: of squares and losses; per bin labels, probabilities and leavers; per rank who stayed and left."""

    squares: float = 0.0
    losses: float = 0.0
    weights: list[float] = field(default_factory=_bins)
    predicted: list[float] = field(default_factory=_bins)
    observed: list[float] = field(default_factory=_bins)
    stayed_by_rank: list[float] = field(default_factory=_ranks)
    left_by_rank: list[float] = field(default_factory=_ranks)

    def inconsistency(self) -> str | None:
        """Say what does not hold, or None."""
        if {len(self.weights), len(self.predicted), len(self.observed)} != {_BIN_COUNT}:
            return f"must hold {_BIN_COUNT} bins of calibration"
        if {len(self.stayed_by_rank), len(self.left_by_rank)} != {RANK_COUNT}:
            return f"must hold {RANK_COUNT} ranks"
        return None


class Meter:
    """Measures a stream of forecasts."""

    def __init__(self, state: MeterState | None = None) -> None:
        read = MeterState() if state is None else state
        self._sums = np.array([read.squares, read.losses])
        self._bins = np.array([read.weights, read.predicted, read.observed])
        self._ranks = np.array([read.stayed_by_rank, read.left_by_rank])

    def learn(self, probability: float, happened: bool) -> None:  # noqa: FBT001  the label itself
        """Take one forecast, in (0, 1), and what came of it."""
        keep = 1 - 1 / MEMORY_LABELS
        outcome = float(happened)
        self._sums *= keep
        self._bins *= keep
        self._ranks *= keep
        self._sums += (probability - outcome) ** 2, -math.log(probability if happened else 1 - probability)
        self._bins[:, sum(probability >= edge for edge in BIN_EDGES)] += 1.0, probability, outcome
        self._ranks[int(happened), rank_of(probability)] += 1.0

    def snapshot(self) -> MeterState:
        """Return the sums."""
        return MeterState(*self._sums.tolist(), *self._bins.tolist(), *self._ranks.tolist())

    @property
    def weight(self) -> float:
        """Labels behind the measures, faded."""
        return float(self._bins[0].sum())

    @property
    def log_loss(self) -> float:
        """Mean loss in nats; infinite while nothing was measured."""
        return float(self._sums[1]) / self.weight if self.weight else math.inf

    def report(self) -> Measures:
        """Return the measures."""
        weights, predicted, observed = self._bins
        weight, left = self.weight, float(observed.sum())
        mean = left / weight if weight else 0.0
        gains = gains_of(*self._ranks)
        return Measures(
            weight=weight,
            left_weight=left,
            log_loss=self.log_loss if weight else None,
            brier=float(self._sums[0]) / weight if weight else None,
            brier_base=mean * (1 - mean) if weight else None,
            auc=auc_of(*self._ranks),
            calibration_error=float(np.abs(predicted - observed).sum()) / weight if weight else None,
            lift=lift_of(gains, LIFT_SHARE),
            bins=[
                ReliabilityBin(upper, w, p / w if w else None, o / w if w else None)
                for upper, w, p, o in zip(
                    (*BIN_EDGES, 1.0), weights.tolist(), predicted.tolist(), observed.tolist(), strict=True
                )
            ],
            gains=gains,
        )


def rank_of(probability: float) -> int:
    """Return the bin of log-odds of a probability in (0, 1)."""
    return min(max(int((log_odds(probability) - RANK_MIN) / RANK_STEP), 0), RANK_COUNT - 1)


def auc_of(stayed: Floats, left: Floats) -> float | None:
    """Return the area under the ROC curve of a histogram by rising score; None where one kind is missing.

    Within a bin everybody has the same score, and a tie counts half.
    """
    pairs = float(stayed.sum() * left.sum())
    if pairs <= 0.0:
        return None
    below = np.cumsum(stayed) - 0.5 * stayed
    return float((left * below).sum()) / pairs


def gains_of(stayed: Floats, left: Floats) -> list[tuple[float, float]]:
    """Return the curve of cumulative gains of a histogram by rising score: from (0, 0) to (1, 1), ranks with labels."""
    all_left = float(left.sum())
    if all_left <= 0.0:
        return []
    both = (stayed + left)[::-1]
    held = both > 0.0
    called, found = np.cumsum(both)[held] / both.sum(), np.cumsum(left[::-1])[held] / all_left
    return [(0.0, 0.0), *zip(called.tolist(), found.tolist(), strict=True)]


def lift_of(gains: list[tuple[float, float]], share: float) -> float | None:
    """Return found / called at a share of customers, in a straight line between the curve's points."""
    for (called, found), (called_next, found_next) in pairwise(gains):
        if called_next >= share:
            part = (share - called) / (called_next - called)
            return (found + part * (found_next - found)) / share
    return None
