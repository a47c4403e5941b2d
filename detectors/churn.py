"""How likely a customer is to leave: an online logistic regression, calibrated, that says what it learnt.

Nothing is built in about what makes customers leave. Whether drops matter, and which way, is for the labels to say:
on one public table of 10,017 mobile customers the correlation of dropped calls with leaving is -0.03.

Leaving is rare, and examples are neither reweighted nor resampled: both spoil probabilities. Instead the weights
begin to learn only once the base rate is roughly known, from an intercept at that base rate, with an optimiser
whose steps suit rare positives; a calibrator follows, and its work is measured.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from detectors.calibration import (
    MEMORY_LABELS,
    CalibrationMeter,
    CalibrationReport,
    MeterState,
    OnlinePlatt,
    PlattState,
    log_odds,
    logistic,
)
from detectors.churn_features import FEATURES, FeatureWords, checked, driver_text
from detectors.logistic_regression import Count, NonNegative, OnlineRegression, RegressionState
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
"""Labels of each kind before the model's probability is given instead of the prior base rate. With fewer leavers
than two for each feature, the drivers would be chance."""

RAISED_ODDS, HIGH_ODDS = 1.5, 3.0
"""A band begins where the odds of leaving are this many times the base odds."""

DRIVERS_MAX, EFFECT_MIN = 4, 0.05
"""At most so many drivers are named, each moving the odds by at least 5%."""


class ChurnState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a `ChurnModel` knows, as numbers.

    Attributes:
        labels, left: learnt in all, and how many of them left.
        early: leavers not learnt, reported before anybody could be known to have stayed.
        label_weight, left_weight: the same counts as `labels` and `left`, faded.
    """

    layout: str
    base_rate_prior: float
    regression: RegressionState
    labels: Count = 0
    left: Count = 0
    early: Count = 0
    label_weight: NonNegative = 0.0
    left_weight: NonNegative = 0.0
    platt: PlattState = PlattState()
    meter: MeterState = MeterState()


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
        self._label_weight: float
        self._left_weight: float
        self._install(ChurnState(LAYOUT, base_rate_prior, RegressionState(log_odds(base_rate_prior))))

    def score(self, features: Mapping[str, float]) -> ChurnRisk:
        """Return the calibrated risk of one customer. Changes nothing.

        Before `STAYED_SCORE` and `LEFT_SCORE` labels the probability is the prior base rate, without drivers.

        Raises:
            ValueError: if a feature is unknown or not finite; the text names it.
        """
        known = checked(features, self._features)
        model = f"{MODEL} after {self._labels} labels"
        if not self._is_ready:
            prior = self._base_rate_prior
            return ChurnRisk(probability=prior, band="low", baseline=prior, drivers=[], model=model)
        effects = self._regression.effects(known)
        probability = self._probability(effects)
        return ChurnRisk(
            probability=round(probability, 6),
            band=_band(probability, self.base_rate),
            baseline=round(self.base_rate, 6),
            drivers=self._drivers(known, effects),
            model=model,
        )

    def contributions(self, features: Mapping[str, float]) -> dict[str, float]:
        """Return what each feature adds to the calibrated log-odds of an average customer. Changes nothing.

        A feature that is absent, or of which nothing is learnt yet, adds nothing. `score` names the largest as
        drivers.

        Raises:
            ValueError: if a feature is unknown or not finite.
        """
        effects = self._regression.effects(checked(features, self._features))
        return {name: self._platt.slope * effect for name, effect in effects.items()}

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
            self._regression.learn(known, left)
        else:
            self._regression.learn_scale(known)
        keep = 1 - 1 / MEMORY_LABELS
        self._label_weight = keep * self._label_weight + 1.0
        self._left_weight = keep * self._left_weight + left
        self._labels += 1
        self._left += left
        if self._has_started and not had_started:
            self._regression.intercept = log_odds(self.base_rate)

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
        state: dict[str, Any] = msgspec.to_builtins(
            ChurnState(
                layout=LAYOUT,
                base_rate_prior=self._base_rate_prior,
                regression=self._regression.snapshot(),
                labels=self._labels,
                left=self._left,
                early=self._early,
                label_weight=self._label_weight,
                left_weight=self._left_weight,
                platt=self._platt.state,
                meter=self._meter.snapshot(),
            )
        )
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot, exactly as if there had been no stop; its prior base rate holds.

        Raises:
            StateError: if the layout is unknown or the state damaged; the model is then as before.
        """
        read = read_snapshot(state, ChurnState, LAYOUT)
        problem = read.regression.inconsistency(self._features) or _inconsistency(read)
        if problem is not None:
            raise StateError(f"the state {LAYOUT} {problem}")
        self._install(read)

    def _install(self, state: ChurnState) -> None:
        self._base_rate_prior = state.base_rate_prior
        self._labels, self._left, self._early = state.labels, state.left, state.early
        self._label_weight, self._left_weight = state.label_weight, state.left_weight
        self._regression = OnlineRegression(self._features, state.regression)
        self._platt = OnlinePlatt(state.platt)
        self._meter = CalibrationMeter(state.meter)

    @property
    def _stayed(self) -> int:
        return self._labels - self._left

    @property
    def _has_started(self) -> bool:
        return self._stayed >= STAYED_START and self._left >= LEFT_START

    @property
    def _is_ready(self) -> bool:
        return self._stayed >= STAYED_SCORE and self._left >= LEFT_SCORE

    def _probability(self, effects: Mapping[str, float]) -> float:
        return logistic(self._platt.log_odds(self._regression.intercept, sum(effects.values())))

    def _learn_calibration(self, known: Mapping[str, float], left: bool) -> None:  # noqa: FBT001  the label
        effects = self._regression.effects(known)
        if self._is_ready:
            self._meter.learn(self._probability(effects), left)
        self._platt.learn(self._regression.intercept, sum(effects.values()), left)

    def _drivers(self, known: Mapping[str, float], effects: Mapping[str, float]) -> list[Driver]:
        scaled = [(name, self._platt.slope * effect) for name, effect in effects.items()]
        told = [(name, effect) for name, effect in scaled if abs(effect) >= EFFECT_MIN]
        told.sort(key=lambda item: -abs(item[1]))
        return [
            Driver(
                feature=name,
                effect=round(effect, 4),
                text=driver_text(self._features[name], known[name], self._regression.typical(name), effect),
            )
            for name, effect in told[:DRIVERS_MAX]
        ]


def _inconsistency(state: ChurnState) -> str | None:
    if state.left > state.labels:
        return f"must hold left <= labels, found {state.left} of {state.labels}"
    if not 0.0 < state.base_rate_prior < 1.0:
        return f"must hold base_rate_prior in (0, 1), found {state.base_rate_prior}"
    return state.platt.inconsistency() or state.meter.inconsistency()


def _band(probability: float, base_rate: float) -> Band:
    ratio = probability * (1 - base_rate) / (base_rate * (1 - probability))
    if ratio >= HIGH_ODDS:
        return "high"
    return "raised" if ratio >= RAISED_ODDS else "low"
