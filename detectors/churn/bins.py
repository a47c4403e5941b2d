"""AdPredictor over binned features: river's Bayesian probit model, which may bend where regression is straight.

Each feature falls into one of a few bins of its standardised scale, or into the bin of what is not known: that a
contract has no end on record may say as much as its end. Each bin has a weight with an uncertainty of its own, so
steps are large where little was seen and small where much was (Graepel et al., 2010).
"""

import math
from bisect import bisect
from collections.abc import Collection, Mapping
from typing import Final

from msgspec import Struct
from river import linear_model, preprocessing

from detectors.churn.regression import Count, Mean, NonNegative, compressed

EDGES: Final = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
"""Between bins, in standard deviations from the mean."""

ABSENT: Final = len(EDGES) + 1
BIN_COUNT: Final = ABSENT + 1

NOISE: Final = 1.0
"""Standard deviation of an example's noise (beta): the scale on which weights are told."""

WEIGHT_VARIANCE: Final = 0.01
"""Of a weight before anything is learnt: a bin moves the odds by some 16%. On one public table 0.01 ranked better
than 0.001, 0.003 and 0.05."""

LOGIT_PER_PROBIT: Final = 1.6
"""Slope of a logistic curve that follows the normal one where forecasts of churn lie; the calibrator corrects the rest
(Amemiya, 1981)."""

_BIAS: Final = "__bias__"


class BinsState(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything learnt. Weights, variances and seen are by feature, one entry a bin, the last for "not known".

    Attributes:
        bias, bias_variance: of the weight that every example has.
        weights, variances: of the bins, on the probit scale.
        seen: how many examples fell into them.
        sums: by feature, weights of its bins times how often they were seen.
        counts, means, spreads: of the features' compressed scale: how often seen, mean, variance.
    """

    bias: float
    bias_variance: NonNegative = WEIGHT_VARIANCE
    weights: dict[str, list[float]] = {}
    variances: dict[str, list[NonNegative]] = {}
    seen: dict[str, list[Count]] = {}
    sums: dict[str, float] = {}
    counts: dict[str, Count] = {}
    means: dict[str, Mean] = {}
    spreads: dict[str, NonNegative] = {}

    def inconsistency(self, names: Collection[str]) -> str | None:
        """Say what does not hold for a model of the features `names`, or None."""
        tables = (self.weights, self.variances, self.seen)
        unknown = {name for table in (*tables, self.sums, self.counts) for name in table} - set(names)
        if unknown:
            return f"must hold known features only, found {', '.join(sorted(unknown))}"
        if not self.counts.keys() == self.means.keys() == self.spreads.keys():
            return "must hold counts, means and variances of the same features"
        if any(len(row) != BIN_COUNT for table in tables for row in table.values()):
            return f"must hold {BIN_COUNT} bins a feature"
        return None


class BinnedPredictor:
    """River's AdPredictor that learns one example at a time, with additive effects.

    Args:
        names: every feature, in the order in which sums are taken.
        state: what was learnt before.
    """

    def __init__(self, names: Collection[str], state: BinsState) -> None:
        self._names = tuple(names)
        self._scale = preprocessing.StandardScaler()
        self._scale.counts.update(state.counts)
        self._scale.means.update(state.means)
        self._scale.vars.update(state.spreads)
        self._predictor = linear_model.AdPredictor(beta=NOISE, epsilon=0.0)
        means, variances = self._predictor.means, self._predictor.variances
        means[_BIAS], variances[_BIAS] = state.bias, state.bias_variance
        fresh = [WEIGHT_VARIANCE] * BIN_COUNT
        for name in self._names:
            means.update(zip(_bins(name), state.weights.get(name, [0.0] * BIN_COUNT), strict=True))
            variances.update(zip(_bins(name), state.variances.get(name, fresh), strict=True))
        self._seen = {name: list(state.seen.get(name, [0] * BIN_COUNT)) for name in self._names}
        self._totals = {name: sum(self._seen[name]) for name in self._names}
        self._sums = {name: state.sums.get(name, 0.0) for name in self._names}

    @property
    def intercept(self) -> float:
        """Log-odds of an average example."""
        return self._logit(self._predictor.means[_BIAS] + sum(map(self._typical, self._names)))

    @intercept.setter
    def intercept(self, log_odds: float) -> None:
        at = log_odds / LOGIT_PER_PROBIT * self._spread()
        self._predictor.means[_BIAS] = at - sum(map(self._typical, self._names))

    def effects(self, features: Mapping[str, float]) -> dict[str, float]:
        """Return what each feature, known or not, adds to the log-odds of an average example. Changes nothing."""
        means = self._predictor.means
        return {
            name: self._logit(means[name, place] - self._typical(name))
            for name, place in self._places(features).items()
        }

    def learn_scale(self, features: Mapping[str, float]) -> None:
        """Learn where and how wide the features lie, and no weight."""
        self._scale.learn_one(compressed(features))  # type: ignore[no-untyped-call]

    def learn(self, features: Mapping[str, float], positive: bool) -> None:  # noqa: FBT001  the label itself
        """Learn one example: scale and weights."""
        self.learn_scale(features)
        places = self._places(features)
        means = self._predictor.means
        before = [means[one] for one in places.items()]
        self._predictor.learn_one(dict.fromkeys(places.items(), 1), positive)  # type: ignore[no-untyped-call]
        for (name, place), weight in zip(places.items(), before, strict=True):
            self._sums[name] += self._seen[name][place] * (means[name, place] - weight) + means[name, place]
            self._seen[name][place] += 1
            self._totals[name] += 1

    def snapshot(self) -> BinsState:
        """Return everything learnt."""
        means, variances = self._predictor.means, self._predictor.variances
        known = [name for name in self._names if name in self._scale.counts]
        return BinsState(
            bias=means[_BIAS],
            bias_variance=variances[_BIAS],
            weights={name: [means[one] for one in _bins(name)] for name in self._names},
            variances={name: [variances[one] for one in _bins(name)] for name in self._names},
            seen={name: list(self._seen[name]) for name in self._names},
            sums=dict(self._sums),
            counts={name: self._scale.counts[name] for name in known},
            means={name: self._scale.means[name] for name in known},
            spreads={name: self._scale.vars[name] for name in known},
        )

    def _places(self, features: Mapping[str, float]) -> dict[str, int]:
        # The scaler enters a name that it does not know into its tables: such names must not reach it.
        known = {name: value for name, value in features.items() if name in self._scale.counts}
        standard: dict[str, float] = self._scale.transform_one(compressed(known))  # type: ignore[no-untyped-call]
        return {name: bisect(EDGES, standard[name]) if name in standard else ABSENT for name in self._names}

    def _typical(self, name: str) -> float:
        """Return the mean weight of a feature over the examples."""
        return self._sums[name] / max(self._totals[name], 1)

    def _spread(self) -> float:
        # Of the noise and the weights of an example; those of bins shrink together, so the bias stands for each.
        return math.sqrt(NOISE**2 + (len(self._names) + 1) * WEIGHT_VARIANCE)

    def _logit(self, probit: float) -> float:
        return LOGIT_PER_PROBIT * probit / self._spread()


def _bins(name: str) -> list[tuple[str, int]]:
    return [(name, place) for place in range(BIN_COUNT)]
