"""Online logistic regression over named features: a river pipeline whose numbers can be taken out and put back.

Compress, standardise, clip, weigh. The optimiser is AdaGrad (Duchi et al., 2011): its steps shrink with the
gradients that each feature has shown, so that one rate serves shares of positives from 1% to 30%; with plain
gradient descent the best rate differs tenfold between them.
"""

import math
from collections.abc import Collection, Mapping
from typing import Annotated, Final

from msgspec import Meta, Struct
from river import compose, linear_model, optim, preprocessing, utils

LEARNING_RATE: Final = 0.05

INTERCEPT_RATE: Final = 0.005
"""The intercept starts where it belongs and only has to follow: at this rate a steady base rate makes it wander by
some 5% of the odds, at 0.01 by twice as much."""

DEVIATIONS_MAX: Final = 4.0
"""Standard deviations beyond which a value counts as this far out: one wild reading must not swing the weights."""

MEAN_MAX: Final = 100.0
"""Far above the logarithm of the largest feature."""

Mean = Annotated[float, Meta(ge=-MEAN_MAX, le=MEAN_MAX)]
NonNegative = Annotated[float, Meta(ge=0.0)]
Count = Annotated[int, Meta(ge=0)]


class RegressionState(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything learnt.

    Attributes:
        intercept: log-odds of an average example.
        steps: how many examples moved the weights.
        counts: by feature, how often it was seen.
        means: by feature, on the compressed scale.
        variances: the same.
        weights: by feature, log-odds per standard deviation.
        squared_gradients: by feature, the sum that AdaGrad divides by.
    """

    intercept: float
    steps: Count = 0
    counts: dict[str, Count] = {}
    means: dict[str, Mean] = {}
    variances: dict[str, NonNegative] = {}
    weights: dict[str, float] = {}
    squared_gradients: dict[str, NonNegative] = {}

    def inconsistency(self, names: Collection[str]) -> str | None:
        """Say what does not hold for a model of the features `names`, or None."""
        tables = (self.counts, self.means, self.variances, self.weights, self.squared_gradients)
        unknown = {name for table in tables for name in table} - set(names)
        if unknown:
            return f"must hold known features only, found {', '.join(sorted(unknown))}"
        if not self.counts.keys() == self.means.keys() == self.variances.keys():
            return "must hold counts, means and variances of the same features"
        return None


class OnlineRegression:
    """Logistic regression that learns one example at a time.

    Args:
        names: every feature, in the order in which river is given them; sums of floats then have one order, and a
            restored model the same last bit as one never stopped.
        state: what was learnt before.
    """

    def __init__(self, names: Collection[str], state: RegressionState) -> None:
        self._names = tuple(names)
        self._scale = preprocessing.StandardScaler()
        self._scale.counts.update(state.counts)
        self._scale.means.update(state.means)
        self._scale.vars.update(state.variances)
        self._optimizer = optim.AdaGrad(LEARNING_RATE)
        self._optimizer.n_iterations = state.steps
        self._optimizer.g2.update({name: state.squared_gradients.get(name, 0.0) for name in self._names})
        self._weigh = linear_model.LogisticRegression(self._optimizer, intercept_lr=INTERCEPT_RATE)
        self.intercept = state.intercept
        # river offers no public way to set weights.
        weights = {name: state.weights.get(name, 0.0) for name in self._names}
        self._weigh._weights = utils.VectorDict(weights)  # noqa: SLF001
        self._pipeline = compose.Pipeline(
            ("compress", compose.FuncTransformer(compressed)),
            ("scale", self._scale),
            ("clip", compose.FuncTransformer(_clipped)),
            ("weigh", self._weigh),
        )

    @property
    def intercept(self) -> float:
        """Log-odds of an average example."""
        return float(self._weigh.intercept)

    @intercept.setter
    def intercept(self, log_odds: float) -> None:
        self._weigh.intercept = log_odds

    def effects(self, features: Mapping[str, float]) -> dict[str, float]:
        """Return what each feature adds to the log-odds of an average example. Changes nothing.

        A feature that was never learnt is left out, as one that is absent would be.
        """
        # The scaler enters a name that it does not know into its tables: such names must not reach it.
        known = {name: value for name, value in features.items() if name in self._scale.counts}
        standard: dict[str, float] = self._scale.transform_one(compressed(known))  # type: ignore[no-untyped-call]
        weights = self._weigh.weights
        return {name: weights[name] * value for name, value in _clipped(standard).items()}

    def typical(self, name: str) -> float:
        """Return the mean of a feature that was learnt, taken on the compressed scale, on its own scale."""
        mean = float(self._scale.means[name])
        return math.copysign(math.expm1(abs(mean)), mean)

    def learn_scale(self, features: Mapping[str, float]) -> None:
        """Learn where and how wide the features lie, and no weight."""
        self._scale.learn_one(compressed(features))  # type: ignore[no-untyped-call]

    def learn(self, features: Mapping[str, float], positive: bool) -> None:  # noqa: FBT001  the label itself
        """Learn one example: scale and weights."""
        self._pipeline.learn_one(dict(features), positive)

    def snapshot(self) -> RegressionState:
        """Return everything learnt."""
        weights = self._weigh.weights
        seen = [name for name in self._names if name in self._scale.counts]
        return RegressionState(
            intercept=self.intercept,
            steps=self._optimizer.n_iterations,
            counts={name: self._scale.counts[name] for name in seen},
            means={name: self._scale.means[name] for name in seen},
            variances={name: self._scale.vars[name] for name in seen},
            weights={name: weights[name] for name in self._names},
            squared_gradients={name: self._optimizer.g2[name] for name in self._names},
        )


def compressed(features: Mapping[str, float]) -> dict[str, float]:
    """Return sign(x) log(1 + |x|) of each feature.

    Counts, days and money have long tails: on the raw scale one heavy caller outweighs a thousand others.
    """
    return {name: math.copysign(math.log1p(abs(value)), value) for name, value in features.items()}


def _clipped(standard: Mapping[str, float]) -> dict[str, float]:
    return {name: min(max(value, -DEVIATIONS_MAX), DEVIATIONS_MAX) for name, value in standard.items()}
