"""The churn model, its calibration, and the labels that come late."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import compose, linear_model, optim, preprocessing
from state_kit import take, whole

from detectors.churn.calibration import (
    MEMORY_LABELS,
    OnlinePlatt,
    PlattState,
    log_odds,
    logistic,
)
from detectors.churn.features import FEATURE_MAX, FEATURES, known_in, packed, row_of
from detectors.churn.labels import DAY_MS, Example, LabelDesk
from detectors.churn.measures import BIN_EDGES, Meter
from detectors.churn.model import (
    LEFT_SCORE,
    LEFT_START,
    LOGISTIC,
    STAYED_SCORE,
    STAYED_START,
    ChurnModel,
)
from detectors.churn.regression import (
    INTERCEPT_RATE,
    LEARNING_RATE,
    OnlineRegression,
    RegressionState,
    compressed,
)
from schemas.errors import ConfigError, StateError

BASE_RATE = 0.1
TRUE_WEIGHTS = {"tenure_days": -0.8, "contacts_quality_30d": 0.6, "drops_7d": 0.0, "monthly_fee": 0.0}


def examples(count, seed=0, weights=TRUE_WEIGHTS):
    """Customers whose log-odds of leaving are linear in the standardised logarithms of their features."""
    rng = np.random.default_rng(seed)
    standard = rng.standard_normal((count, len(weights)))
    chance = 1 / (1 + np.exp(-(log_odds(BASE_RATE) - 0.4 + standard @ np.array(list(weights.values())))))
    left = rng.random(count) < chance
    values = np.expm1(np.array([5.0, 2.0, 2.0, 3.0]) + 0.5 * standard)
    rows = [dict(zip(weights, row, strict=True)) for row in values.tolist()]
    return list(zip(rows, left.tolist(), chance.tolist(), strict=True))


def taught(rows, base_rate=BASE_RATE):
    model = ChurnModel(base_rate)
    for features, left, _ in rows:
        model.learn(features, left)
    return model


@pytest.fixture(scope="module")
def rows():
    return examples(8000)


@pytest.fixture(scope="module")
def state(rows):
    return taught(rows).snapshot()


@pytest.fixture
def model(state):
    restored = ChurnModel(BASE_RATE)
    restored.restore(state)
    return restored


# The score


def test_before_enough_labels_the_probability_is_the_prior_base_rate_without_drivers():
    model = ChurnModel()
    features = {"tenure_days": 10.0}
    for index in range(STAYED_SCORE + LEFT_SCORE):
        risk = model.score(features)
        assert (risk.probability, risk.baseline, risk.band, risk.drivers) == (0.015, 0.015, "low", [])
        model.learn({"tenure_days": float(index % 7)}, STAYED_SCORE <= index + 1 < STAYED_SCORE + LEFT_SCORE)
    assert (
        model.report().served.measures.weight == 0.0
    )  # the prior is no forecast of the model: it is not measured as one
    assert model.score(features).probability != 0.015


def test_one_kind_of_label_however_often_is_not_enough_to_give_a_score():
    model = ChurnModel()
    for _ in range(2 * (STAYED_SCORE + LEFT_SCORE)):
        model.learn({"tenure_days": 10.0}, False)
    assert model.score({"tenure_days": 10.0}).probability == 0.015


def test_leavers_known_before_anybody_stayed_are_counted_and_not_learnt():
    model, other = ChurnModel(), ChurnModel()
    for _ in range(300):
        model.learn({"drops_7d": 9.0}, True)
    for features, left, _ in examples(1500):
        model.learn(features, left)
        other.learn(features, left)
    assert model.report().early == 300 + other.report().early
    assert {**model.snapshot(), "early": 0} == {**other.snapshot(), "early": 0}


def test_the_model_learns_which_features_matter_and_which_way(model):
    effects = {
        name: model.contributions({name: math.expm1(mean + 0.5)})[name]
        for name, mean in (("tenure_days", 5), ("contacts_quality_30d", 2), ("drops_7d", 2), ("monthly_fee", 3))
    }
    assert effects["tenure_days"] == pytest.approx(-0.8, abs=0.15)
    assert effects["contacts_quality_30d"] == pytest.approx(0.6, abs=0.15)
    assert effects["drops_7d"] == pytest.approx(0.0, abs=0.1)
    assert effects["monthly_fee"] == pytest.approx(0.0, abs=0.1)


def test_where_drops_went_with_staying_that_is_what_is_learnt():
    model = taught(examples(4000, weights={**TRUE_WEIGHTS, "drops_7d": -0.7}))
    assert model.contributions({"drops_7d": 100.0})["drops_7d"] < -0.5
    (driver,) = model.score({"drops_7d": 100.0}).drivers
    assert "left less often" in driver.text


def test_a_model_that_learnt_nothing_of_drops_is_not_moved_by_them():
    model = ChurnModel(BASE_RATE)
    for features, left, _ in examples(2000):
        model.learn({name: value for name, value in features.items() if name != "drops_7d"}, left)
    assert model.score({"drops_7d": 500.0}).probability == model.score({}).probability
    assert model.contributions({"drops_7d": 500.0}) == {}


def test_contributions_and_the_average_customer_add_up_to_the_log_odds_of_the_score(model, rows):
    average = log_odds(model.score({}).probability)
    for features, _, _ in rows[:50]:
        found = log_odds(model.score(features).probability)
        assert found == pytest.approx(average + sum(model.contributions(features).values()), abs=1e-3)


def test_drivers_are_the_largest_contributions_largest_first(model):
    features = {"drops_7d": 6.4, "contacts_quality_30d": 15.0, "monthly_fee": 19.0, "tenure_days": 3000.0}
    drivers = model.score(features).drivers
    contributions = model.contributions(features)
    assert [driver.feature for driver in drivers][:2] == ["tenure_days", "contacts_quality_30d"]
    assert drivers[0].effect < 0 < drivers[1].effect
    assert all(driver.effect == round(contributions[driver.feature], 4) for driver in drivers)
    assert all(abs(driver.effect) >= 0.05 for driver in drivers)


def test_a_driver_says_how_the_customer_differs_and_what_went_with_it_and_claims_no_cause(model):
    drivers = model.score({"tenure_days": 3.0, "contacts_quality_30d": 30.0}).drivers
    assert drivers[0].text.startswith("Time as a customer: 3 days, below the typical 14")
    assert drivers[1].text.startswith("Contacts about quality in 30 days: 30, above the typical")
    for driver in drivers:
        assert "customers seen so far with this left more often" in driver.text
        assert not any(word in driver.text for word in ("because", "cause", "due to", "leads to", "will leave"))


def test_bands_follow_the_odds_against_the_base_rate(model, rows):
    bands = set()
    for features, _, _ in rows[:500]:
        risk = model.score(features)
        ratio = math.exp(log_odds(risk.probability) - log_odds(risk.baseline))
        expected = "high" if ratio >= 3 else "raised" if ratio >= 1.5 else "low"
        if min(abs(ratio - 3), abs(ratio - 1.5)) > 0.01:
            assert risk.band == expected
        bands.add(risk.band)
    assert bands == {"low", "raised", "high"}


def test_the_model_is_named_with_its_version_and_the_labels_it_learnt(model):
    labels = model.report().labels
    assert model.score({}).model == f"online-logistic@1 after {labels} labels"


def test_scoring_changes_nothing_not_even_with_a_feature_never_met(model, state):
    model.score(dict.fromkeys(FEATURES, 1.0))
    model.contributions(dict.fromkeys(FEATURES, 1.0))
    model.report()
    assert model.snapshot() == state


def test_the_order_in_which_features_are_given_changes_no_bit(rows):
    forward, backward = ChurnModel(BASE_RATE), ChurnModel(BASE_RATE)
    for features, left, _ in rows[:1500]:
        forward.learn(features, left)
        backward.learn(dict(reversed(features.items())), left)
    assert forward.snapshot() == backward.snapshot()


# What is refused


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -2 * FEATURE_MAX])
@pytest.mark.parametrize("act", ["score", "learn", "contributions"])
def test_a_feature_that_is_not_finite_is_refused_by_name_and_changes_nothing(model, state, act, value):
    arguments = (False,) if act == "learn" else ()
    with pytest.raises(ValueError, match="feature drops_7d must be finite"):
        getattr(model, act)({"tenure_days": 5.0, "drops_7d": value}, *arguments)
    assert model.snapshot() == state


def test_a_feature_of_another_name_is_refused(model):
    with pytest.raises(ValueError, match="was 'drop_7d'"):
        model.score({"drop_7d": 1.0})


@pytest.mark.parametrize("base_rate", [0.0, 1.0, -0.1, math.nan])
def test_a_base_rate_outside_its_range_is_refused(base_rate):
    with pytest.raises(ConfigError, match="base_rate_prior must be in"):
        ChurnModel(base_rate)


any_features = st.dictionaries(
    st.sampled_from(list(FEATURES)), st.floats(-FEATURE_MAX, FEATURE_MAX, allow_nan=False), max_size=16
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(any_features, st.booleans()), min_size=1, max_size=25))
def test_whatever_finite_features_come_no_number_turns_into_nan(state, learnt):
    model = ChurnModel(BASE_RATE)
    model.restore(state)
    for features, left in learnt:
        risk = model.score(features)
        assert 0.0 < risk.probability < 1.0
        assert all(math.isfinite(driver.effect) for driver in risk.drivers)
        model.learn(features, left)
    restored = ChurnModel(BASE_RATE)
    restored.restore(model.snapshot())  # refuses what is not finite


# Snapshot


@pytest.mark.parametrize("stop", [0, 3, STAYED_START + 40, 700, 1999])
def test_a_restored_model_scores_and_learns_to_the_last_bit_like_one_never_stopped(rows, stop):
    never_stopped = taught(rows[:stop])
    restored = ChurnModel(0.5)
    restored.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(never_stopped.snapshot())))
    for features, left, _ in rows[stop:2000]:
        assert restored.score(features) == never_stopped.score(features)
        restored.learn(features, left)
        never_stopped.learn(features, left)
    assert restored.snapshot() == never_stopped.snapshot()
    assert restored.report() == never_stopped.report()


def test_a_snapshot_holds_plain_data_and_shares_nothing_with_the_model(model):
    def plain(value):
        if isinstance(value, dict):
            return all(type(key) is str and plain(inner) for key, inner in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in (int, float, str)

    before = model.snapshot()
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(before))
    assert plain(before)
    for _ in range(10):
        model.learn({"tenure_days": 1.0, "evidence": 3.0}, True)
    assert before == copy


def damaged(state, path, value):
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(state))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (["layout"], "churn/9", "the layout of the state must be churn/2, was 'churn/9'"),
        (["layout"], None, "was None"),
        (["labels"], None, "must hold every field"),
        (["standings", LOGISTIC, "meter", "losses"], None, "must hold every field"),
        (["regression"], None, "missing required field"),
        (["labels"], "many", "Expected `int`"),
        (["labels"], -1, ">= 0"),
        (["labels"], 3, "left <= labels"),
        (["label_weight"], 1e12, "label_weight <= labels"),
        (["left_weight"], 1e12, "left_weight <= label_weight"),
        (["surprise"], 1, "unknown field"),
        (["base_rate_prior"], 2.0, "base_rate_prior in"),
        (["regression", "intercept"], math.nan, "finite"),
        (["regression", "weights", "shoe_size"], 1.0, "known features only, found shoe_size"),
        (["regression", "means", "tenure_days"], None, "of the same features"),
        (["regression", "variances", "tenure_days"], -1.0, ">= 0"),
        (["standings", LOGISTIC, "platt", "slope_information"], -1.0, "positive definite"),
        (["standings", LOGISTIC, "meter", "weights"], [1.0], "12 bins"),
        (["constant", "left_by_rank"], [1.0], "120 ranks"),
        (["bins", "weights", "tenure_days"], [1.0], "9 bins a feature"),
        (["bins", "seen", "shoe_size"], [1] * 9, "known features only, found shoe_size"),
        (["standings", "oracle@1"], {}, "Object missing|every field|known models"),
        (["champion"], "oracle@1", "Invalid enum value"),
    ],
)
def test_a_state_that_is_unknown_or_damaged_is_refused_and_the_model_goes_on(model, state, path, value, text):
    with pytest.raises(StateError, match=text):
        model.restore(damaged(state, path, value))
    assert model.snapshot() == state


# Calibration


def test_probabilities_are_calibrated_and_beat_the_base_rate(model):
    report = model.report().served.measures
    assert report.weight > 5000
    assert report.calibration_error < 0.015
    assert report.brier < report.brier_base


def test_probabilities_come_close_to_the_true_ones(model):
    fresh = examples(2000, seed=9)
    gaps = [log_odds(model.score(features).probability) - log_odds(true) for features, _, true in fresh]
    spread = np.std([log_odds(true) for _, _, true in fresh])
    assert np.sqrt(np.mean(np.square(gaps))) < 0.3 * spread


def test_a_prior_that_was_far_off_is_corrected(rows):
    model = taught(rows, base_rate=0.005)
    assert model.base_rate == pytest.approx(np.mean([left for _, left, _ in rows]), rel=0.05)
    mean = np.mean([model.score(features).probability for features, _, _ in rows[:1000]])
    assert mean == pytest.approx(np.mean([true for _, _, true in rows]), rel=0.2)


def test_the_regression_is_river_s_pipeline(rows):
    def clipped(values):
        return {name: max(-4.0, min(4.0, value)) for name, value in values.items()}

    pipeline = compose.Pipeline(
        compose.FuncTransformer(compressed),
        preprocessing.StandardScaler(),
        compose.FuncTransformer(clipped),
        linear_model.LogisticRegression(optim.AdaGrad(LEARNING_RATE), intercept_lr=INTERCEPT_RATE),
    )
    ours = OnlineRegression(tuple(TRUE_WEIGHTS), RegressionState(0.0))
    for features, left, _ in rows[:1000]:
        theirs = pipeline.predict_proba_one(features)[True]
        assert logistic(ours.intercept + sum(ours.effects(features).values())) == pytest.approx(theirs, rel=1e-12)
        pipeline.learn_one(features, left)
        ours.learn(features, left)


def test_the_online_calibrator_comes_close_to_the_batch_fit():
    rng = np.random.default_rng(4)
    deviations = rng.standard_normal(4000)
    happened = rng.random(4000) < 1 / (1 + np.exp(-(-2.0 + 0.7 + 0.5 * deviations)))
    platt = OnlinePlatt()
    for deviation, label in zip(deviations.tolist(), happened.tolist(), strict=True):
        platt.learn(-2.0, deviation, label)
    design = np.column_stack([deviations, np.ones(4000)])
    batch, prior = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    for _ in range(20):
        p = 1 / (1 + np.exp(-(-2.0 + design @ batch)))
        gradient = design.T @ (happened - p) - 4.0 * (batch - prior)
        batch = batch + np.linalg.solve((design.T * (p * (1 - p))) @ design + 4.0 * np.eye(2), gradient)
    assert [platt.state.slope, platt.state.offset] == pytest.approx(batch.tolist(), abs=0.03)


def test_a_ranking_that_proved_wrong_is_ignored_and_not_turned_around():
    platt = OnlinePlatt(PlattState(slope=-0.4, offset=0.1))
    assert platt.log_odds(-3.0, 5.0) == pytest.approx(-2.9)


def test_the_calibrator_s_memory_fades_to_its_prior():
    platt = OnlinePlatt(PlattState(0.2, 1.5, 400.0, 10.0, 500.0))
    for _ in range(8 * MEMORY_LABELS):
        platt.learn(-40.0, 0.0, False)  # a label that tells nothing
    assert (platt.state.slope, platt.state.offset) == pytest.approx((1.0, 0.0), abs=0.05)
    assert platt.state.slope_information == pytest.approx(4.0, rel=0.05)


@given(st.lists(st.tuples(st.floats(1e-6, 1 - 1e-6), st.booleans()), min_size=1, max_size=60))
def test_the_meter_reports_what_the_definitions_say(forecasts):
    meter = Meter()
    for probability, happened in forecasts:
        meter.learn(probability, happened)
    report = meter.report()
    fade = (1 - 1 / MEMORY_LABELS) ** np.arange(len(forecasts))[::-1]
    p = np.array([probability for probability, _ in forecasts])
    y = np.array([float(happened) for _, happened in forecasts])
    bins = np.digitize(p, BIN_EDGES)
    error = sum(abs((fade * (p - y))[bins == index].sum()) for index in range(len(BIN_EDGES) + 1))
    assert report.weight == pytest.approx(fade.sum())
    assert report.brier == pytest.approx((fade * (p - y) ** 2).sum() / fade.sum())
    assert report.log_loss == pytest.approx(-(fade * (y * np.log(p) + (1 - y) * np.log1p(-p))).sum() / fade.sum())
    assert report.calibration_error == pytest.approx(error / fade.sum(), abs=1e-12)


def test_a_meter_that_saw_nothing_reports_none():
    report = ChurnModel().report().served.measures
    assert (report.brier, report.log_loss, report.calibration_error, report.weight) == (None, None, None, 0.0)
    assert (report.auc, report.lift, report.gains) == (None, None, [])
    assert [each.upper for each in report.bins] == [*BIN_EDGES, 1.0]


@given(st.floats(1e-6, 1 - 1e-6))
def test_log_odds_and_logistic_undo_each_other(probability):
    assert logistic(log_odds(probability)) == pytest.approx(probability, rel=1e-9)


@pytest.mark.parametrize(("extreme", "bound"), [(-1e9, 1e-6), (1e9, 1 - 1e-6), (-745.0, 1e-6)])
def test_nobody_is_certain(extreme, bound):
    assert logistic(extreme) == bound


# Labels

HORIZON, GAP = 30, 7
CUSTOMERS = ("ada", "bo", "cy")


class NaiveDesk:
    """A list of what was remembered, searched from the start each time."""

    def __init__(self, pending_max):
        self.pending, self.pending_max, self.dropped, self.discarded = [], pending_max, 0, 0

    def remember(self, customer, at, features):
        mine = [each for each in self.pending if each[1] == customer]
        if mine and at - mine[-1][0] < GAP:
            return False
        self.pending.append((at, customer, features))
        while len(self.pending) > self.pending_max:
            self.pending.remove(min(self.pending, key=lambda each: each[0]))
            self.dropped += 1
        return True

    def left(self, customer, at):
        mine = [each for each in self.pending if each[1] == customer and at - each[0] < HORIZON]
        self.pending = [each for each in self.pending if each not in mine]
        self.discarded += sum(each[0] > at for each in mine)
        return [Example(customer, each[0], each[2], left=True) for each in mine if each[0] <= at]

    def mature(self, now):
        due = sorted((each for each in self.pending if now - each[0] >= HORIZON), key=lambda each: each[0])
        self.pending = [each for each in self.pending if each not in due]
        return [Example(each[1], each[0], each[2], left=False) for each in due]


@given(st.dictionaries(st.sampled_from(list(FEATURES)), st.floats(-FEATURE_MAX, FEATURE_MAX)))
def test_features_wait_as_a_row_of_numbers_and_come_back_as_they_were(features):
    row = packed.pack(*row_of(features))
    assert len(row) == 8 * len(FEATURES)
    assert known_in(packed.unpack(row)) == features
    desk = LabelDesk()
    desk.remember("ada", 0, features)
    features.clear()  # what is kept is of the time of scoring
    assert desk.left("ada", 1)[0].features == known_in(packed.unpack(row))


def test_a_feature_that_nobody_knows_is_not_kept():
    with pytest.raises(ValueError, match=r"must be one of tenure_days, .* was 'dorps_7d'"):
        LabelDesk().remember("ada", 0, {"dorps_7d": 1.0})


actions = st.lists(
    st.tuples(
        st.sampled_from(["remember", "remember", "remember", "left", "mature", "restart"]),
        st.sampled_from(CUSTOMERS),
        st.integers(-3, 20),
    ),
    max_size=60,
)


@given(actions, st.integers(1, 8))
def test_the_desk_does_what_a_list_searched_from_the_start_would(steps, pending_max):
    desk, naive, now = LabelDesk(HORIZON, GAP, pending_max), NaiveDesk(pending_max), 100
    for index, (act, customer, ahead) in enumerate(steps):
        now += ahead  # sometimes backwards: events come late
        if act == "remember":
            features = {"drops_7d": float(index)}
            assert desk.remember(customer, now, features) == naive.remember(customer, now, features)
        elif act == "left":
            assert desk.left(customer, now) == naive.left(customer, now)
        elif act == "mature":
            assert desk.mature(now) == naive.mature(now)
        else:
            desk = take(LabelDesk(HORIZON, GAP, pending_max), whole(desk))
        assert desk.pending_count == len(naive.pending)
        assert (desk.dropped_count, desk.discarded_count) == (naive.dropped, naive.discarded)
    assert desk.mature(10_000) == naive.mature(10_000)
    assert desk.pending_count == 0


@given(actions, st.sets(st.integers(0, 60)))
def test_how_often_examples_are_collected_changes_no_label(steps, collected):
    outcomes = []
    for moments in (set(range(61)), collected):
        desk, now, positives, negatives = LabelDesk(HORIZON, GAP), 100, [], []
        for index, (act, customer, ahead) in enumerate(steps):
            now += abs(ahead)
            if index in moments:
                negatives += desk.mature(now)
            if act == "left":
                positives += desk.left(customer, now)
            else:
                desk.remember(customer, now, {"drops_7d": float(index)})
        outcomes.append((positives, negatives + desk.mature(10_000)))
    assert outcomes[0] == outcomes[1]


def test_a_leaver_s_examples_of_the_horizon_are_positive_at_once_and_older_ones_negative():
    desk = LabelDesk()
    for day in (0, 20, 29):
        assert desk.remember("ada", day * DAY_MS, {"drops_7d": float(day)})
    assert [each.at_ms // DAY_MS for each in desk.left("ada", 35 * DAY_MS)] == [20, 29]
    (negative,) = desk.mature(35 * DAY_MS)
    assert negative == Example("ada", 0, {"drops_7d": 0.0}, left=False)


def test_what_was_scored_after_the_customer_left_is_about_nobody():
    desk = LabelDesk()
    desk.remember("ada", 0, {})
    desk.remember("ada", 9 * DAY_MS, {})
    assert [each.at_ms for each in desk.left("ada", 8 * DAY_MS)] == [0]
    assert (desk.discarded_count, desk.pending_count) == (1, 0)


def test_nobody_has_stayed_before_the_horizon_has_passed():
    desk = LabelDesk()
    desk.remember("ada", 5, {})
    assert desk.mature(30 * DAY_MS + 4) == []
    assert desk.mature(30 * DAY_MS + 5) == [Example("ada", 5, {}, left=False)]


def test_a_customer_has_one_example_a_week_with_the_features_of_the_scoring():
    desk = LabelDesk()
    features = {"drops_7d": 1.0}
    assert desk.remember("ada", 0, features)
    features["drops_7d"] = 9.0
    assert not desk.remember("ada", 7 * DAY_MS - 1, features)
    assert desk.remember("bo", 1, features)
    assert desk.remember("ada", 7 * DAY_MS, features)
    assert [each.features["drops_7d"] for each in desk.left("ada", 8 * DAY_MS)] == [1.0, 9.0]


def test_a_full_desk_drops_the_oldest_and_counts_it():
    desk = LabelDesk(pending_max=2)
    for day, customer in enumerate(CUSTOMERS):
        desk.remember(customer, day, {})
    assert (desk.pending_count, desk.dropped_count) == (2, 1)
    assert desk.left("ada", 10) == []


def test_a_customer_who_is_forgotten_leaves_no_example():
    desk = LabelDesk()
    desk.remember("ada", 0, {})
    desk.remember("bo", 0, {})
    assert desk.forget("ada") == 1
    assert desk.forget("ada") == 0
    assert "ada" not in str(whole(desk))
    assert [each.customer for each in desk.mature(40 * DAY_MS)] == ["bo"]


def test_the_queue_of_a_desk_does_not_grow_with_those_who_left():
    desk = LabelDesk()
    desk.remember("bo", 0, {})
    for moment in range(2000):
        desk.remember("ada", moment, {})
        assert len(desk.left("ada", moment)) == 1
    assert len(desk._queue) < 100
    assert len(desk.mature(40 * DAY_MS)) == 1


def test_arguments_of_a_desk_are_refused_all_at_once():
    with pytest.raises(ConfigError) as caught:
        LabelDesk(horizon_ms=0, gap_ms=-1, pending_max=0)
    assert len(caught.value.problems) == 3


# Both together


def live(days, restart_at=()):
    """Score each customer once a week, let some leave, learn each label when it is known."""
    rng = np.random.default_rng(11)
    model, desk = ChurnModel(0.05), LabelDesk()
    contacts = rng.poisson(2.0, 200)
    for day in range(days):
        if day in restart_at:
            stopped = msgspec.msgpack.encode(model.snapshot())
            model, desk = ChurnModel(), take(LabelDesk(), whole(desk))
            model.restore(msgspec.msgpack.decode(stopped))
        now_ms = day * DAY_MS
        labelled = desk.mature(now_ms)
        for index in range(day % 7, 200, 7):
            desk.remember(f"c{index}", now_ms, {"contacts_quality_30d": float(contacts[index])})
        for index in np.flatnonzero(rng.random(200) < 0.0008 * contacts):
            labelled += desk.left(f"c{index}", now_ms)
        for each in labelled:
            model.learn(each.features, each.left)
    return model, desk


def test_restarts_at_any_day_change_no_bit_of_what_is_learnt():
    steady, restarted = live(80), live(80, restart_at={1, 29, 30, 31, 60, 79})
    assert steady[0].snapshot() == restarted[0].snapshot()
    assert whole(steady[1]) == whole(restarted[1])


def test_the_first_month_of_leavers_alone_does_not_raise_the_base_rate():
    model, _ = live(45)
    report = model.report()
    assert report.early > LEFT_START
    assert 0.02 < report.base_rate < 0.08
