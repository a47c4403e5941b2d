"""The models that a churn table is put to: ours as they stream, and others to compare with.

Streamed, a model forecasts each customer before it learns them, in the order of the file. By folds, it learns four
fifths in one pass and forecasts the rest: the only way in which batch models can be asked the same question.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from river import forest

from bench.churn.table import Table
from detectors.churn.calibration import PROBABILITY_MIN, OnlinePlatt, log_odds, logistic
from detectors.churn.measures import LIFT_SHARE
from detectors.churn.model import ADPREDICTOR, LOGISTIC, ChurnModel

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FOLDS = 5

CALIBRATION_BINS = 10
"""Bins with equally many customers, over which the calibration error is taken: no bin is empty, none dominates."""

SEED = 1

MODELS = (LOGISTIC, ADPREDICTOR)
SERVES = "the one that serves"

BASE_RATE = 0.1
"""What is believed of the share of leavers before the first label."""


class Score(Struct, frozen=True):
    """How good forecasts were.

    Attributes:
        auc, log_loss, brier: as usual.
        lift: share of leavers among the highest tenth, over the share among all.
        calibration_error: mean distance between forecast and share that left, over `CALIBRATION_BINS` bins.
        us: processor time per customer, learning included, in microseconds; None: not measured.
    """

    auc: float
    log_loss: float
    brier: float
    lift: float
    calibration_error: float
    us: float | None = None


class Online(Protocol):
    """A model that learns one customer at a time."""

    def forecasts(self, row: dict[str, float]) -> dict[str, float]:
        """Return the probability of leaving, in (0, 1), by each name under which it is told."""

    def learn(self, row: dict[str, float], *, left: bool) -> None:
        """Learn one customer."""


class Ours:
    """The product's models. Before they are ready they forecast the base rate so far."""

    def __init__(self, table: Table) -> None:
        self._model = ChurnModel(BASE_RATE, table.words)

    def forecasts(self, row: dict[str, float]) -> dict[str, float]:
        """Return the probability of leaving by each model, and by the one that serves."""
        report = self._model.score(row)
        if not self._model.is_ready:
            return dict.fromkeys([*MODELS, SERVES], self._model.base_rate)
        return {**self._model.forecasts(row), SERVES: report.probability}

    def learn(self, row: dict[str, float], *, left: bool) -> None:
        """Learn one customer."""
        self._model.learn(row, left)


class BaseRate:
    """The share of leavers so far."""

    def __init__(self) -> None:
        self._labels, self._left = 20.0, 2.0

    @property
    def share(self) -> float:
        """The share so far."""
        return self._left / self._labels

    def forecasts(self, row: dict[str, float]) -> dict[str, float]:  # noqa: ARG002  the same for everybody
        """Return the probability of leaving."""
        return {"constant: base rate so far": self.share}

    def learn(self, row: dict[str, float], *, left: bool) -> None:  # noqa: ARG002  the label alone
        """Learn one customer."""
        self._labels += 1.0
        self._left += left


class CountRule:
    """The rule "more of this means more churn": customers ranked by one column, calibrated like any score.

    The calibrator may shrink the slope to nothing, but never turn the rule around: that is the rule's claim.
    """

    def __init__(self, table: Table, column: str) -> None:
        values = np.array([row.get(column, 0.0) for row in table.rows])
        self._column, self._mean, self._spread = column, float(values.mean()), float(values.std()) + 1e-9
        self._base, self._platt = BaseRate(), OnlinePlatt()

    def rank(self, row: dict[str, float]) -> float:
        """Return the rule's score: the count, in standard deviations."""
        return (row.get(self._column, 0.0) - self._mean) / self._spread

    def forecasts(self, row: dict[str, float]) -> dict[str, float]:
        """Return the probability of leaving."""
        forecast = logistic(self._platt.log_odds(log_odds(self._base.share), self.rank(row)))
        return {f"rule: more {self._column}": forecast}

    def learn(self, row: dict[str, float], *, left: bool) -> None:
        """Learn one customer."""
        self._platt.learn(log_odds(self._base.share), self.rank(row), left)
        self._base.learn(row, left=left)


class Forest:
    """River's adaptive random forest, its votes calibrated like any score."""

    def __init__(self, table: Table) -> None:
        self._forest = forest.ARFClassifier(n_models=10, seed=SEED)
        self._base, self._platt = BaseRate(), OnlinePlatt()
        self._names = tuple(table.words)

    def forecasts(self, row: dict[str, float]) -> dict[str, float]:
        """Return the probability of leaving."""
        centre = log_odds(self._base.share)
        return {"river's adaptive random forest": logistic(self._platt.log_odds(centre, self._vote(row) - centre))}

    def learn(self, row: dict[str, float], *, left: bool) -> None:
        """Learn one customer."""
        centre = log_odds(self._base.share)
        self._platt.learn(centre, self._vote(row) - centre, left)
        self._base.learn(row, left=left)
        self._forest.learn_one(self._whole(row), left)

    def _vote(self, row: dict[str, float]) -> float:
        share = self._forest.predict_proba_one(self._whole(row)).get(True, self._base.share)
        return log_odds(min(max(share, 0.01), 0.99))

    def _whole(self, row: dict[str, float]) -> dict[str, float]:
        return {name: row.get(name, 0.0) for name in self._names}


def streamed(table: Table, model: Online) -> tuple[dict[str, Floats], float]:
    """Forecast and learn every customer in the order of the file.

    Returns:
        The forecasts, by name, and seconds of processor time.
    """
    told = []
    begun = time.process_time()
    for row, left in zip(table.rows, table.left.tolist(), strict=True):
        told.append(model.forecasts(row))
        model.learn(row, left=left)
    return _columns(told), time.process_time() - begun


def folds(left: Bools) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Give the rows to learn and those to forecast, in the order of the file, leavers spread evenly over the folds."""
    rng = np.random.default_rng(SEED)
    fold = np.empty(len(left), np.int64)
    for kind in (True, False):
        members = np.flatnonzero(left == kind)
        fold[rng.permutation(members)] = np.arange(len(members)) % FOLDS
    for one in range(FOLDS):
        yield np.flatnonzero(fold != one), np.flatnonzero(fold == one)


def by_folds(table: Table, make: Callable[[], Online]) -> dict[str, Floats]:
    """Return each customer's forecasts by a model that learnt the other folds in one pass, in shuffled order.

    Shuffled, because a file's order may drift, and a batch model would know the end of it.
    """
    told: dict[int, dict[str, float]] = {}
    for one, (learnt, asked) in enumerate(folds(table.left)):
        model = make()
        for index in np.random.default_rng(SEED + one).permutation(learnt).tolist():
            model.learn(table.rows[index], left=bool(table.left[index]))
        told |= {index: model.forecasts(table.rows[index]) for index in asked.tolist()}
    return _columns([told[index] for index in range(len(table.rows))])


def _columns(told: list[dict[str, float]]) -> dict[str, Floats]:
    return {name: np.array([one[name] for one in told]) for name in told[0]}


def batch_by_folds(table: Table, make: Callable[[], Any]) -> Floats:
    """Return each customer's forecast by a model with scikit-learn's interface that was fitted to the other folds."""
    matrix = table.matrix()
    forecasts = np.empty(len(table.rows))
    for learnt, asked in folds(table.left):
        model = make()
        model.fit(matrix[learnt], table.left[learnt])
        forecasts[asked] = model.predict_proba(matrix[asked])[:, 1]
    return forecasts


def graded(forecasts: Floats, left: Bools, seconds: float | None = None) -> Score:
    """Measure forecasts against what came of them."""
    p = np.clip(forecasts, PROBABILITY_MIN, 1 - PROBABILITY_MIN)
    order = np.argsort(p, kind="stable")
    parts = np.array_split(order, CALIBRATION_BINS)
    gaps = [abs(p[part].mean() - left[part].mean()) * len(part) for part in parts]
    return Score(
        auc=auc(p, left),
        log_loss=float(-np.where(left, np.log(p), np.log1p(-p)).mean()),
        brier=float(((p - left) ** 2).mean()),
        lift=lift(p, left),
        calibration_error=float(sum(gaps)) / len(p),
        us=None if seconds is None else 1e6 * seconds / len(p),
    )


def auc(scores: Floats, left: Bools) -> float:
    """Return the area under the ROC curve: ranks of the leavers (Mann and Whitney), ties counting half."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    many, few = int(left.sum()), int((~left).sum())
    return float((ranks[left].sum() - many * (many + 1) / 2) / (many * few))


def lift(scores: Floats, left: Bools, share: float = LIFT_SHARE) -> float:
    """Return the share of leavers among the highest scores over that among all; equal scores share what is left."""
    called = share * len(scores)
    values, places, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    found = np.bincount(places, weights=left, minlength=len(values))
    taken = np.clip(called - (np.cumsum(counts) - counts), 0, counts)
    return float((found * taken / counts).sum() / called / left.mean())
