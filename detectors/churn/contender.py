"""One model in the contest: a scorer with additive effects, its calibration, its measure and its watch."""

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

from detectors.churn.calibration import OnlinePlatt, PlattState, logistic
from detectors.churn.drift import DriftWatch, WatchState
from detectors.churn.measures import Measures, Meter, MeterState


class Scorer(Protocol):
    """What a model does: log-odds of leaving = intercept + sum of effects, both learnt online."""

    intercept: float

    def effects(self, features: Mapping[str, float]) -> dict[str, float]:
        """Return what each feature adds to the log-odds of an average example. Changes nothing."""

    def learn_scale(self, features: Mapping[str, float]) -> None:
        """Learn where and how wide the features lie, and no weight."""

    def learn(self, features: Mapping[str, float], positive: bool) -> None:  # noqa: FBT001  the label itself
        """Learn one example."""

    def snapshot(self) -> Any:
        """Return everything learnt."""


class StandingState(Struct, frozen=True, forbid_unknown_fields=True):
    """What is known about a scorer, beside what it learnt."""

    platt: PlattState = PlattState()
    meter: MeterState = MeterState()
    watch: WatchState = WatchState()

    def inconsistency(self) -> str | None:
        """Say what does not hold, or None."""
        return self.platt.inconsistency() or self.meter.inconsistency()


class ContenderReport(Struct, frozen=True):
    """How a model does.

    Attributes:
        name: with its version.
        serves: whether its probabilities are the ones given.
        slope, offset: the calibrator's correction; 1 and 0 correct nothing.
        alarms, last_alarm: of the drift watch; the latter as a number of labels.
    """

    name: str
    serves: bool
    measures: Measures
    slope: float
    offset: float
    alarms: int
    last_alarm: int | None


class Contender:
    """A scorer, calibrated and measured.

    Args:
        name: with its version.
        scorer: the model itself.
        state: what was known of it before.
    """

    def __init__(self, name: str, scorer: Scorer, state: StandingState) -> None:
        self.name = name
        self.scorer = scorer
        self.platt = OnlinePlatt(state.platt)
        self.meter = Meter(state.meter)
        self._watch = DriftWatch(state.watch)

    def effects(self, known: Mapping[str, float]) -> dict[str, float]:
        """Return what each feature adds to the calibrated log-odds of an average customer. Changes nothing."""
        slope = self.platt.slope
        return {name: slope * effect for name, effect in self.scorer.effects(known).items()}

    def probability(self, known: Mapping[str, float]) -> float:
        """Return the calibrated probability. Changes nothing."""
        return logistic(self.platt.log_odds(self.scorer.intercept, sum(self.scorer.effects(known).values())))

    def learn(self, known: Mapping[str, float], left: bool, *, measured: bool) -> None:  # noqa: FBT001  the label
        """Forecast, be measured if there is something to measure yet, then learn."""
        deviation = sum(self.scorer.effects(known).values())
        if measured:
            probability = logistic(self.platt.log_odds(self.scorer.intercept, deviation))
            self.meter.learn(probability, left)
            if self._watch.learn(probability, left):
                self.platt.doubt()
        self.platt.learn(self.scorer.intercept, deviation, left)
        self.scorer.learn(known, left)

    def report(self, *, serves: bool) -> ContenderReport:
        """Return how it does."""
        return ContenderReport(
            name=self.name,
            serves=serves,
            measures=self.meter.report(),
            slope=self.platt.slope,
            offset=self.platt.state.offset,
            alarms=self._watch.alarms,
            last_alarm=self._watch.last_alarm,
        )

    def snapshot(self) -> StandingState:
        """Return what is known about the scorer, beside what it learnt."""
        return StandingState(self.platt.state, self.meter.snapshot(), self._watch.snapshot())
