"""How likely a customer is to leave: an online logistic regression, calibrated, that says what it learnt.

The model is a river pipeline: compress, standardise, clip, weigh. Nothing is built in about what makes customers
leave. Whether drops matter, and which way, is for the labels to say: on one public table of 10,017 mobile
customers the correlation of dropped calls with leaving is -0.03.

Optimiser: AdaGrad (Duchi et al., 2011), rate 0.05. Its steps shrink with the gradients each feature has shown, so
that one rate serves base rates from 1% to 30%; with plain gradient descent the best rate differs tenfold.

Class imbalance: no reweighting and no resampling, both of which spoil probabilities. The weights begin to learn
only once the base rate is roughly known, from an intercept at that base rate; calibration watches the rest.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from river import compose, linear_model, optim, preprocessing, utils

from detectors.calibration import (
    BIN_EDGES,
    MEMORY_LABELS,
    CalibrationMeter,
    CalibrationReport,
    MeterState,
    OnlinePlatt,
    PlattState,
    log_odds,
    logistic,
)
from detectors.churn_features import FEATURES, FeatureWords, checked, compressed, driver_text, expanded
from detectors.snapshots import read_snapshot
from schemas.alerts import Band, ChurnRisk, Driver
from schemas.errors import ConfigError, StateError

MODEL: Final = "online-logistic@1"
LAYOUT: Final = "churn/1"

BASE_RATE_PRIOR: Final = 0.015
"""Share of customers that leave within 30 days, before anything is learnt: about 17% a year."""

BASE_RATE_PRIOR_LABELS: Final = 200
"""How many labels the prior base rate weighs."""

STAYED_START, LEFT_START = 200, 5
"""Labels of each kind before the weights begin to learn; until then only the base rate and the scales do."""

STAYED_SCORE, LEFT_SCORE = 500, 30
"""Labels of each kind before the model's probability is given instead of the prior base rate. Fewer leavers
than two for each of the features would show chance as drivers."""

RAISED_ODDS, HIGH_ODDS = 1.5, 3.0
"""A band begins where the odds of leaving are this many times the base odds."""

DRIVERS_MAX, EFFECT_MIN = 4, 0.05
"""At most so many drivers are named, each moving the odds by at least 5%."""

_LEARNING_RATE, _INTERCEPT_RATE = 0.05, 0.005
# The intercept starts at the base rate and only has to follow it: ten times slower than river's weights begin, it
# wanders by 5% of the odds at a steady base rate.
_DEVIATIONS_MAX = 4.0
# Standard deviations beyond which a value counts as this far out: one wild reading must not swing the weights.


class ChurnState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a `ChurnModel` knows, as numbers: the base rate, the scales, the weights, the calibration."""

    layout: str
    base_rate_prior: float
    labels: int
    left: int
    early: int
    label_weight: float
    left_weight: float
    counts: dict[str, int]
    means: dict[str, float]
    variances: dict[str, float]
    weights: dict[str, float]
    squared_gradients: dict[str, float]
    steps: int
    intercept: float
    platt: PlattState
    meter: MeterState


class ChurnModel:
    """Probability that a customer leaves within the horizon, learnt one customer at a time.

    Args:
        base_rate_prior: share of customers that leave within the horizon, as far as known beforehand, in (0, 1).
        features: the features that are taken, with their words.

    Raises:
        ConfigError: if `base_rate_prior` is out of range.
    """

    def __init__(
        self, base_rate_prior: float = BASE_RATE_PRIOR, features: Mapping[str, FeatureWords] = FEATURES
    ) -> None:
        if not 0.0 < base_rate_prior < 1.0:
            raise ConfigError([f"base_rate_prior must be in (0, 1), was {base_rate_prior}"])
        self._features = features
        self._install(_fresh(base_rate_prior))

    def score(self, features: Mapping[str, float]) -> ChurnRisk:
        """Return the calibrated risk of one customer. Changes nothing.

        Before `STAYED_SCORE` and `LEFT_SCORE` labels the probability is the prior base rate, without drivers.

        Raises:
            ValueError: if a feature is unknown or not finite; the text names it.
        """
        known = checked(features, self._features)
        name = f"{MODEL} after {self._labels} labels"
        if not self._is_ready:
            prior = self._base_rate_prior
            return ChurnRisk(probability=prior, band="low", baseline=prior, drivers=[], model=name)
        effects = self._effects(known)
        probability = logistic(self._platt.log_odds(self._weigh.intercept, sum(effects.values())))
        return ChurnRisk(
            probability=round(probability, 6),
            band=_band(probability, self.base_rate),
            baseline=round(self.base_rate, 6),
            drivers=self._drivers(known, effects),
            model=name,
        )

    def contributions(self, features: Mapping[str, float]) -> dict[str, float]:
        """Return what each feature adds to the calibrated log-odds, against an average customer. Changes nothing.

        The log-odds of the score are those of an average customer plus the sum of these. A feature that is absent,
        or of which nothing is known yet, adds nothing.

        Raises:
            ValueError: if a feature is unknown or not finite.
        """
        slope = self._platt.slope
        return {name: slope * effect for name, effect in self._effects(checked(features, self._features)).items()}

    def learn(self, features: Mapping[str, float], left: bool) -> None:  # noqa: FBT001  the label itself
        """Learn what became of one customer, whose features were `features` at the time of scoring.

        That somebody stayed is known a whole horizon after the first score, that somebody left at once. Leavers
        known before the first who stayed are counted as `early` and not learnt: a model that starts with a month
        of leavers alone believes for months that most people leave.

        Raises:
            ValueError: if a feature is unknown or not finite; nothing is learnt then.
        """
        known = checked(features, self._features)
        if left and self._stayed == 0:
            self._early += 1
            return
        had_started = self._has_started
        if had_started:
            self._learn_calibration(known, left)
            self._pipeline.learn_one(known, left)
        else:
            self._scale.learn_one(compressed(known))
        keep = 1 - 1 / MEMORY_LABELS
        self._label_weight = keep * self._label_weight + 1.0
        self._left_weight = keep * self._left_weight + left
        self._labels += 1
        self._left += left
        if self._has_started and not had_started:
            self._weigh.intercept = log_odds(self.base_rate)

    def report(self) -> CalibrationReport:
        """Return how good the probabilities have lately been, each measured before its label was learnt."""
        return self._meter.report(
            labels=self._labels,
            left=self._left,
            early=self._early,
            base_rate=self.base_rate,
            platt=self._platt.state,
        )

    @property
    def base_rate(self) -> float:
        """The share of customers that leave within the horizon: the prior, moved by the labels of late."""
        prior_left = BASE_RATE_PRIOR_LABELS * self._base_rate_prior
        return (prior_left + self._left_weight) / (BASE_RATE_PRIOR_LABELS + self._label_weight)

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain numbers, strings, lists and dicts, with its layout."""
        weights = self._weigh.weights
        state: dict[str, Any] = msgspec.to_builtins(
            ChurnState(
                layout=LAYOUT,
                base_rate_prior=self._base_rate_prior,
                labels=self._labels,
                left=self._left,
                early=self._early,
                label_weight=self._label_weight,
                left_weight=self._left_weight,
                counts=dict(self._scale.counts),
                means={name: self._scale.means[name] for name in self._scale.counts},
                variances={name: self._scale.vars[name] for name in self._scale.counts},
                weights={name: weights[name] for name in self._features},
                squared_gradients={name: self._optimizer.g2[name] for name in self._features},
                steps=self._optimizer.n_iterations,
                intercept=self._weigh.intercept,
                platt=self._platt.state,
                meter=self._meter.snapshot(),
            )
        )
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot, exactly as if there had been no stop.

        Raises:
            StateError: if the layout is unknown or the state damaged; the model is then as before.
        """
        read = read_snapshot(state, ChurnState, LAYOUT)
        problem = _inconsistency(read, self._features)
        if problem is not None:
            raise StateError(f"the state {LAYOUT} {problem}")
        self._install(read)

    @property
    def _stayed(self) -> int:
        return self._labels - self._left

    @property
    def _has_started(self) -> bool:
        return self._stayed >= STAYED_START and self._left >= LEFT_START

    @property
    def _is_ready(self) -> bool:
        return self._stayed >= STAYED_SCORE and self._left >= LEFT_SCORE

    def _install(self, state: ChurnState) -> None:
        self._base_rate_prior = state.base_rate_prior
        self._labels, self._left, self._early = state.labels, state.left, state.early
        self._label_weight, self._left_weight = state.label_weight, state.left_weight
        self._scale = preprocessing.StandardScaler()
        self._scale.counts.update(state.counts)
        self._scale.means.update(state.means)
        self._scale.vars.update(state.variances)
        self._optimizer = optim.AdaGrad(_LEARNING_RATE)
        self._optimizer.g2.update({name: state.squared_gradients.get(name, 0.0) for name in self._features})
        self._optimizer.n_iterations = state.steps
        self._weigh = linear_model.LogisticRegression(self._optimizer, intercept_lr=_INTERCEPT_RATE)
        self._weigh.intercept = state.intercept
        # Every feature has its weight from the start, in one order: river then adds up in that order, so that a
        # restored model gives the same last bit. river offers no public way to set weights.
        weights = {name: state.weights.get(name, 0.0) for name in self._features}
        self._weigh._weights = utils.VectorDict(weights)  # noqa: SLF001
        self._pipeline = compose.Pipeline(
            ("compress", compose.FuncTransformer(compressed)),
            ("scale", self._scale),
            ("clip", compose.FuncTransformer(_clipped)),
            ("weigh", self._weigh),
        )
        self._platt = OnlinePlatt(state.platt)
        self._meter = CalibrationMeter(state.meter)

    def _effects(self, known: Mapping[str, float]) -> dict[str, float]:
        # A name the scaler has not met would be entered into its tables: scoring must change nothing.
        met = {name: value for name, value in known.items() if name in self._scale.counts}
        weights = self._weigh.weights
        standard = _clipped(self._scale.transform_one(compressed(met)))
        return {name: weights[name] * value for name, value in standard.items()}

    def _learn_calibration(self, known: Mapping[str, float], left: bool) -> None:  # noqa: FBT001  the label
        centre, deviation = self._weigh.intercept, sum(self._effects(known).values())
        if self._is_ready:
            self._meter.learn(logistic(self._platt.log_odds(centre, deviation)), left)
        self._platt.learn(centre, deviation, left)

    def _drivers(self, known: Mapping[str, float], effects: Mapping[str, float]) -> list[Driver]:
        slope = self._platt.slope
        scaled = [(name, slope * effect) for name, effect in effects.items()]
        told = [(name, effect) for name, effect in scaled if abs(effect) >= EFFECT_MIN]
        told.sort(key=lambda item: (-abs(item[1]), item[0]))
        return [
            Driver(
                feature=name,
                effect=round(effect, 4),
                text=driver_text(
                    self._features[name], known[name], expanded(self._scale.means[name]), effect
                ),
            )
            for name, effect in told[:DRIVERS_MAX]
        ]


def _fresh(base_rate_prior: float) -> ChurnState:
    return ChurnState(
        layout=LAYOUT,
        base_rate_prior=base_rate_prior,
        labels=0,
        left=0,
        early=0,
        label_weight=0.0,
        left_weight=0.0,
        counts={},
        means={},
        variances={},
        weights={},
        squared_gradients={},
        steps=0,
        intercept=log_odds(base_rate_prior),
        platt=PlattState(),
        meter=CalibrationMeter().snapshot(),
    )


def _inconsistency(state: ChurnState, features: Mapping[str, FeatureWords]) -> str | None:
    unknown = {*state.counts, *state.weights, *state.squared_gradients} - set(features)
    if unknown:
        return f"must hold known features only, found {', '.join(sorted(unknown))}"
    if not state.counts.keys() == state.means.keys() == state.variances.keys():
        return "must hold counts, means and variances of the same features"
    if not 0 <= state.left <= state.labels:
        return f"must hold 0 <= left <= labels, found {state.left} of {state.labels}"
    if {len(state.meter.weights), len(state.meter.predicted), len(state.meter.observed)} != {len(BIN_EDGES) + 1}:
        return f"must hold {len(BIN_EDGES) + 1} bins of calibration"
    sums = (*state.variances.values(), *state.squared_gradients.values(), state.label_weight, state.left_weight)
    if min(sums) < 0.0 or state.platt.determinant <= 0.0:
        return "must hold no negative sum of squares"
    return None


def _clipped(standard: Mapping[str, float]) -> dict[str, float]:
    return {name: min(max(value, -_DEVIATIONS_MAX), _DEVIATIONS_MAX) for name, value in standard.items()}


def _band(probability: float, base_rate: float) -> Band:
    ratio = probability * (1 - base_rate) / (base_rate * (1 - probability))
    if ratio >= HIGH_ODDS:
        return "high"
    return "raised" if ratio >= RAISED_ODDS else "low"
