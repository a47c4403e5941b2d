"""Champion and challenger: measured before they learn, the better one serves, and a world that changes is noticed."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import linear_model

from detectors.churn.bins import ABSENT, BIN_COUNT, BinnedPredictor, BinsState
from detectors.churn.calibration import OnlinePlatt, PlattState, log_odds, logistic
from detectors.churn.drift import DriftWatch, WatchState
from detectors.churn.measures import LIFT_SHARE, Meter, auc_of, gains_of, lift_of, rank_of
from detectors.churn.model import ADPREDICTOR, CHANGE_LABELS, LOGISTIC, ChurnModel
from schemas.errors import ConfigError

NAMES = ("tenure_days", "monthly_fee", "drops_7d")


def bent(count, seed=0):
    """Customers who leave when their tenure is near the middle: no straight line sees it."""
    rng = np.random.default_rng(seed)
    standard = rng.standard_normal((count, 3))
    chance = np.where(np.abs(standard[:, 0]) < 0.5, 0.5, 0.05)
    values = np.expm1(5.0 + 0.5 * standard)
    rows = [dict(zip(NAMES, row, strict=True)) for row in values.tolist()]
    return list(zip(rows, (rng.random(count) < chance).tolist(), strict=True))


@pytest.fixture(scope="module")
def bent_model():
    model = ChurnModel(0.2)
    for features, left in bent(6000):
        model.learn(features, left)
    return model


def test_the_challenger_takes_over_where_it_is_clearly_better(bent_model):
    report = bent_model.report()
    by_name = {one.name: one.measures for one in report.contenders}
    assert report.serves == ADPREDICTOR
    assert by_name[ADPREDICTOR].auc > by_name[LOGISTIC].auc + 0.2
    assert by_name[ADPREDICTOR].log_loss < report.constant.log_loss - 0.05
    assert bent_model.score(bent(1)[0][0]).model.startswith(ADPREDICTOR)


def test_the_first_champion_serves_until_there_is_enough_to_compare():
    model = ChurnModel(0.2)
    for features, left in bent(int(CHANGE_LABELS)):  # the first hundreds are not measured
        model.learn(features, left)
    assert model.report().serves == LOGISTIC


def test_configuration_can_fix_who_serves_and_both_go_on_learning(bent_model):
    fixed = ChurnModel(0.2, serve="logistic")
    fixed.restore(bent_model.snapshot())
    features = bent(1, seed=5)[0][0]
    assert fixed.report().serves == LOGISTIC
    assert fixed.forecasts(features) == bent_model.forecasts(features)
    assert fixed.score(features).probability == pytest.approx(fixed.forecasts(features)[LOGISTIC], abs=1e-6)


def test_a_model_of_another_name_cannot_serve():
    with pytest.raises(ConfigError, match="serve must be one of best, logistic, adpredictor, was oracle"):
        ChurnModel(serve="oracle")


def test_who_serves_is_calibrated(bent_model):
    assert (
        bent_model.report().served.measures.calibration_error < 0.06
    )  # the first hundreds, forecast with weights near nothing, included


def test_drivers_of_either_model_add_up_to_its_score(bent_model):
    features = bent(1, seed=7)[0][0]
    probability = bent_model.forecasts(features)[ADPREDICTOR]
    contender = bent_model._served
    centre = contender.scorer.intercept + contender.platt.state.offset
    assert log_odds(probability) == pytest.approx(centre + sum(bent_model.contributions(features).values()), abs=1e-9)


def test_what_is_not_known_has_a_weight_and_no_driver():
    rng = np.random.default_rng(3)
    model = ChurnModel(0.2, serve="adpredictor")
    for _ in range(4000):
        known = bool(rng.random() < 0.5)
        left = bool(rng.random() < (0.05 if known else 0.35))
        model.learn(
            {"tenure_days": 100.0, **({"contract_days_left": float(rng.integers(1, 500))} if known else {})}, left
        )
    without, with_end = (
        model.score({"tenure_days": 100.0}),
        model.score({"tenure_days": 100.0, "contract_days_left": 90.0}),
    )
    assert without.probability > 3 * with_end.probability
    assert [driver.feature for driver in without.drivers] == []
    assert model.contributions({"tenure_days": 100.0})["contract_days_left"] > 0.5


def test_the_binned_model_is_river_s_predictor_over_bins():
    ours = BinnedPredictor(NAMES, BinsState(-0.5))
    theirs = linear_model.AdPredictor(beta=1.0, epsilon=0.0)
    theirs.means["__bias__"], theirs.variances["__bias__"] = -0.5, 0.01
    for name in NAMES:
        for place in range(BIN_COUNT):
            theirs.means[name, place], theirs.variances[name, place] = 0.0, 0.01
    for features, left in bent(500):
        ours.learn(features, left)
        theirs.learn_one(dict.fromkeys(ours._places(features).items(), 1), left)
    assert ours._predictor.means == theirs.means
    assert ours._predictor.variances == theirs.variances
    assert ours._places({}) == dict.fromkeys(NAMES, ABSENT)


def test_effects_are_told_from_an_average_example():
    model = BinnedPredictor(NAMES, BinsState(-0.5))
    rows = bent(2000)
    for features, left in rows:
        model.learn(features, left)
    mean = np.mean([sum(model.effects(features).values()) for features, _ in rows])
    assert mean == pytest.approx(0.0, abs=0.02)


# Measures

forecasts = st.lists(st.tuples(st.floats(1e-5, 1 - 1e-5), st.booleans()), min_size=2, max_size=80)


@given(forecasts)
def test_auc_is_the_share_of_pairs_in_the_right_order(given_forecasts):
    meter = Meter()
    for probability, left in given_forecasts:
        meter.learn(probability, left)
    ranks = [(rank_of(probability), left) for probability, left in given_forecasts]
    pairs = [(one, other) for one, left in ranks if left for other, gone in ranks if not gone]
    wanted = np.mean([(one > other) + 0.5 * (one == other) for one, other in pairs]) if pairs else None
    found = meter.report().auc
    assert (
        found is None if wanted is None else found == pytest.approx(wanted, abs=0.002)
    )  # the oldest have faded a little


def test_lift_of_a_perfect_order_is_the_most_there_can_be_and_of_none_it_is_one():
    stayed, left = np.array([90.0, 0.0]), np.array([0.0, 10.0])
    assert lift_of(gains_of(stayed, left), LIFT_SHARE) == pytest.approx(10.0)
    assert auc_of(stayed, left) == 1.0
    assert lift_of(gains_of(np.array([45.0, 45.0]), np.array([5.0, 5.0])), LIFT_SHARE) == pytest.approx(1.0)
    assert lift_of([], LIFT_SHARE) is None


# Drift


def forecasted(count, true, told, seed=0):
    left = np.random.default_rng(seed).random(count) < true
    return [(told, one) for one in left.tolist()]


def test_right_forecasts_raise_no_alarm():
    watch = DriftWatch()
    for probability, left in forecasted(50_000, 0.02, 0.02):
        watch.learn(probability, left)
    assert (watch.alarms, watch.last_alarm) == (0, None)


@pytest.mark.parametrize("true", [0.04, 0.08])
def test_a_base_rate_that_changes_is_an_alarm(true):
    watch = DriftWatch()
    for probability, left in [*forecasted(20_000, 0.02, 0.02), *forecasted(6_000, true, 0.02, seed=1)]:
        watch.learn(probability, left)
    assert watch.alarms >= 1
    assert watch.last_alarm > 20_000


def test_an_alarm_makes_the_calibrator_learn_as_fast_as_at_first():
    sure = OnlinePlatt(PlattState(0.9, 0.1, 900.0, 5.0, 800.0))
    doubting = OnlinePlatt(sure.state)
    doubting.doubt()
    for one in (sure, doubting):
        one.learn(-3.0, 0.5, True)
    assert (doubting.state.slope, doubting.state.offset) != (sure.state.slope, sure.state.offset)
    assert abs(doubting.state.offset - 0.1) > 10 * abs(sure.state.offset - 0.1)


@pytest.mark.parametrize("stop", [0, 1, 29, 500])
def test_a_restored_watch_goes_on_like_one_never_stopped(stop):
    stream = [*forecasted(1_500, 0.1, 0.1), *forecasted(3_000, 0.6, 0.1)]
    never_stopped = DriftWatch()
    for probability, left in stream[:stop]:
        never_stopped.learn(probability, left)
    restored = DriftWatch(msgspec.convert(msgspec.to_builtins(never_stopped.snapshot()), WatchState))
    for probability, left in stream[stop:]:
        assert restored.learn(probability, left) == never_stopped.learn(probability, left)
    assert restored.snapshot() == never_stopped.snapshot()
    assert never_stopped.alarms > 0


def test_scores_are_never_certain_whatever_was_learnt():
    model = ChurnModel(0.5)
    for index in range(3000):
        model.learn({"drops_7d": 1e9 * (index % 2)}, index % 2 == 0)
    found = [model.score({"drops_7d": value}).probability for value in (0.0, 1e9, -1e12)]
    assert all(0.0 < one < 1.0 and math.isfinite(log_odds(one)) for one in found)
    assert logistic(1e4) < 1.0
