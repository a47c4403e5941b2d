"""How likely a customer is to leave: two online models side by side, calibrated, of which the better one serves.

Nothing is built in about what makes customers leave. Whether drops matter, and which way, is for the labels to say:
on one public table of 10,017 mobile customers the correlation of dropped calls with leaving is -0.03.

Leaving is rare, and examples are neither reweighted nor resampled: both spoil probabilities. Instead the weights
begin to learn only once the base rate is roughly known, from an intercept at that base rate, with steps that suit
rare positives; a calibrator follows, and its work is measured.

Champion and challenger see the same examples in the same order and are measured on each before they learn it. Both
are additive, so whichever serves says what moved a score.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, get_args

import msgspec

from detectors.churn.bins import BinnedPredictor, BinsState
from detectors.churn.calibration import MEMORY_LABELS, log_odds
from detectors.churn.contender import Contender, ContenderReport, Scorer, StandingState
from detectors.churn.features import FEATURES, FeatureWords, checked, driver_text
from detectors.churn.measures import Measures, Meter, MeterState
from detectors.churn.regression import Count, NonNegative, OnlineRegression, RegressionState
from detectors.settings import Serve
from detectors.snapshots import read_snapshot
from schemas.alerts import Band, ChurnRisk, Driver
from schemas.errors import ConfigError, StateError

LAYOUT: Final = "churn/2"

ModelName = Literal["online-logistic@1", "binned-adpredictor@1"]
LOGISTIC: Final = "online-logistic@1"
ADPREDICTOR: Final = "binned-adpredictor@1"

SERVED: Final[Mapping[str, ModelName]] = {"logistic": LOGISTIC, "adpredictor": ADPREDICTOR}

CHANGE_LABELS, CHANGE_RATIO = 2_000.0, 0.995
"""A challenger takes over where its log loss over so many labels is below so much of the champion's: half a percent is
more than two models that are equally good differ by, so they do not take turns."""

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
        base_rate_prior: see `ChurnModel`.
        champion: name of the better one of late.
        labels, left: learnt in all, and how many of them left.
        early: leavers not learnt, reported before anybody could be known to have stayed.
        label_weight, left_weight: the same counts as `labels` and `left`, faded.
        regression, bins: what the models learnt.
        standings: model -> how it does.
        constant: how the base rate alone does as a forecast.
    """

    layout: str
    base_rate_prior: float
    regression: RegressionState
    bins: BinsState
    champion: ModelName = LOGISTIC
    labels: Count = 0
    left: Count = 0
    early: Count = 0
    label_weight: NonNegative = 0.0
    left_weight: NonNegative = 0.0
    standings: dict[str, StandingState] = {}
    constant: MeterState = MeterState()

    def inconsistency(self, names: Collection[str]) -> str | None:
        """Say what does not hold for a model of the features `names`, or None."""
        if self.left > self.labels:
            return f"must hold left <= labels, found {self.left} of {self.labels}"
        if self.left_weight > self.label_weight:
            return f"must hold left_weight <= label_weight, found {self.left_weight} of {self.label_weight}"
        for name, faded, whole in (
            ("label_weight <= labels", self.label_weight, self.labels),
            ("left_weight <= left", self.left_weight, self.left),
        ):
            if faded > whole:
                return f"must hold {name}, found {faded} of {whole}"
        if not 0.0 < self.base_rate_prior < 1.0:
            return f"must hold base_rate_prior in (0, 1), found {self.base_rate_prior}"
        unknown = self.standings.keys() - {LOGISTIC, ADPREDICTOR}
        if unknown:
            return f"must hold standings of known models, found {', '.join(sorted(unknown))}"
        parts = [standing.inconsistency() for standing in self.standings.values()]
        parts += [self.regression.inconsistency(names), self.bins.inconsistency(names), self.constant.inconsistency()]
        return next((problem for problem in parts if problem is not None), None)


class ModelReport(msgspec.Struct, frozen=True):
    """How good the probabilities have lately been, each measured before its label was learnt.

    Attributes:
        labels, left: labels learnt in all, and how many of them left.
        early: leavers reported before anybody could be known to have stayed; not learnt.
        base_rate: the learnt share of customers that leave.
        serves: name of the model whose probabilities are given.
        contenders: the models.
        constant: what the base rate alone would have achieved.
    """

    labels: int
    left: int
    early: int
    base_rate: float
    serves: str
    contenders: list[ContenderReport]
    constant: Measures

    @property
    def served(self) -> ContenderReport:
        """The model whose probabilities are given."""
        return next(one for one in self.contenders if one.serves)


class ChurnModel:
    """Probability that a customer leaves within the horizon, learnt one customer at a time.

    Args:
        base_rate_prior: share of customers that leave within the horizon, as far as known beforehand, in (0, 1).
        features: the features that are taken, with their words.
        serve: which model's probabilities are given.

    Raises:
        ConfigError: if an argument is out of range.
    """

    def __init__(
        self,
        base_rate_prior: float = BASE_RATE_PRIOR,
        features: Mapping[str, FeatureWords] = FEATURES,
        serve: Serve = "best",
    ) -> None:
        problems = []
        if not 0.0 < base_rate_prior < 1.0:
            problems.append(f"base_rate_prior must be in (0, 1), was {base_rate_prior}")
        if serve not in get_args(Serve):
            problems.append(f"serve must be one of {', '.join(get_args(Serve))}, was {serve}")
        if problems:
            raise ConfigError(problems)
        self._features = features
        self._serve = serve
        self._label_weight: float
        self._left_weight: float
        start = log_odds(base_rate_prior)
        self._install(ChurnState(LAYOUT, base_rate_prior, RegressionState(start), BinsState(start)))

    def score(self, features: Mapping[str, float]) -> ChurnRisk:
        """Return the calibrated risk of one customer. Changes nothing.

        Before `STAYED_SCORE` and `LEFT_SCORE` labels the probability is the prior base rate, without drivers.

        Raises:
            ValueError: if a feature is unknown or not finite; the text names it.
        """
        known = checked(features, self._features)
        contender = self._served
        model = f"{contender.name} after {self._labels} labels"
        if not self.is_ready:
            prior = self._base_rate_prior
            return ChurnRisk(probability=prior, band="low", baseline=prior, drivers=[], model=model)
        probability = contender.probability(known)
        return ChurnRisk(
            probability=round(probability, 6),
            band=_band(probability, self.base_rate),
            baseline=round(self.base_rate, 6),
            drivers=self._drivers(known, contender.effects(known)),
            model=model,
        )

    def forecasts(self, features: Mapping[str, float]) -> dict[str, float]:
        """Return the calibrated probability of each model, champion or not. Changes nothing.

        Raises:
            ValueError: if a feature is unknown or not finite.
        """
        known = checked(features, self._features)
        return {name: one.probability(known) for name, one in self._contenders.items()}

    def contributions(self, features: Mapping[str, float]) -> dict[str, float]:
        """Return what each feature adds to the calibrated log-odds of an average customer. Changes nothing.

        `score` names the largest of those that are known as drivers.

        Raises:
            ValueError: if a feature is unknown or not finite.
        """
        return self._served.effects(checked(features, self._features))

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
        if self.is_ready:
            self._constant.learn(self.base_rate, left)
        for contender in self._contenders.values():
            if had_started:
                contender.learn(known, left, measured=self.is_ready)
            else:
                contender.scorer.learn_scale(known)
        self._count(left)
        if self._has_started and not had_started:
            for contender in self._contenders.values():
                contender.scorer.intercept = log_odds(self.base_rate)
        self._crown()

    def report(self) -> ModelReport:
        """Return how good the probabilities have lately been."""
        return ModelReport(
            labels=self._labels,
            left=self._left,
            early=self._early,
            base_rate=self.base_rate,
            serves=self._served.name,
            contenders=[one.report(serves=one is self._served) for one in self._contenders.values()],
            constant=self._constant.report(),
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
                regression=self._contenders[LOGISTIC].scorer.snapshot(),
                bins=self._contenders[ADPREDICTOR].scorer.snapshot(),
                champion=self._champion,
                labels=self._labels,
                left=self._left,
                early=self._early,
                label_weight=self._label_weight,
                left_weight=self._left_weight,
                standings={name: one.snapshot() for name, one in self._contenders.items()},
                constant=self._constant.snapshot(),
            )
        )
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot, exactly as if there had been no stop; its prior base rate holds.

        Raises:
            StateError: if the layout is unknown or the state damaged; the model is then as before.
        """
        read = read_snapshot(state, ChurnState, LAYOUT)
        problem = read.inconsistency(self._features)
        if problem is not None:
            raise StateError(f"the state {LAYOUT} {problem}")
        self._install(read)

    def _install(self, state: ChurnState) -> None:
        self._base_rate_prior = state.base_rate_prior
        self._labels, self._left, self._early = state.labels, state.left, state.early
        self._label_weight, self._left_weight = state.label_weight, state.left_weight
        self._regression = OnlineRegression(self._features, state.regression)
        scorers: dict[str, Scorer] = {
            LOGISTIC: self._regression,
            ADPREDICTOR: BinnedPredictor(self._features, state.bins),
        }
        self._contenders = {
            name: Contender(name, scorer, state.standings.get(name, StandingState()))
            for name, scorer in scorers.items()
        }
        self._champion = state.champion
        self._constant = Meter(state.constant)

    @property
    def _served(self) -> Contender:
        return self._contenders[SERVED.get(self._serve, self._champion)]

    def _crown(self) -> None:
        """Make the challenger champion where it has been clearly better."""
        champion = self._contenders[self._champion].meter
        name: ModelName = ADPREDICTOR if self._champion == LOGISTIC else LOGISTIC
        challenger = self._contenders[name].meter
        if challenger.weight >= CHANGE_LABELS and challenger.log_loss < CHANGE_RATIO * champion.log_loss:
            self._champion = name

    def _count(self, left: bool) -> None:  # noqa: FBT001  the label
        keep = 1 - 1 / MEMORY_LABELS
        self._label_weight = keep * self._label_weight + 1.0
        self._left_weight = keep * self._left_weight + left
        self._labels += 1
        self._left += left

    @property
    def _stayed(self) -> int:
        return self._labels - self._left

    @property
    def _has_started(self) -> bool:
        return self._stayed >= STAYED_START and self._left >= LEFT_START

    @property
    def is_ready(self) -> bool:
        """Whether enough labels are known for the probability to be the model's own."""
        return self._stayed >= STAYED_SCORE and self._left >= LEFT_SCORE

    def _drivers(self, known: Mapping[str, float], effects: Mapping[str, float]) -> list[Driver]:
        told = [
            (name, effect) for name, effect in effects.items() if name in known and abs(effect) >= EFFECT_MIN
        ]  # what is not known has no words
        told.sort(key=lambda item: -abs(item[1]))
        return [
            Driver(
                feature=name,
                effect=round(effect, 4),
                text=driver_text(self._features[name], known[name], self._regression.typical(name), effect),
            )
            for name, effect in told[:DRIVERS_MAX]
        ]


def _band(probability: float, base_rate: float) -> Band:
    ratio = probability * (1 - base_rate) / (base_rate * (1 - probability))
    if ratio >= HIGH_ODDS:
        return "high"
    return "raised" if ratio >= RAISED_ODDS else "low"
