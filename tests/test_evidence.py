"""Evidence: a promise about false alarms, kept whatever the customer is like; baselines that learn health alone."""

import numba
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from detectors.evidence import (
    CHANNELS,
    DROP,
    EVIDENCE_MAX,
    LEAP,
    LOCK_SHARE,
    MEMORY_COUNT,
    PRIORS,
    RISES,
    WAIT_COUNT,
    accrue,
    correct,
    expected,
    healthy_mean,
    likelihood_ratio,
    observe,
    observe_nothing,
    remember,
    take_back,
    total,
)
from detectors.notes import NOTE
from detectors.patterns import PLAIN_SHARE
from detectors.roster import ROW

UNIT = st.floats(0, 1, allow_subnormal=False)
RATIOS = st.floats(0.001, 0.9)
CHANNEL = st.sampled_from(range(len(CHANNELS)))


def fresh():
    """One customer's row and note, never seen."""
    return np.zeros(1, ROW)[0], np.zeros(1, NOTE)[0]


# The likelihood ratio


@given(st.lists(st.tuples(UNIT, st.floats(0.01, 1)), min_size=1, max_size=6), RATIOS, RATIOS)
def test_the_likelihood_ratio_has_a_mean_of_at_most_one_for_any_distribution_within_p0(points, p0, rise):
    x, weight = (np.array(values) for values in zip(*points, strict=True))
    share = weight / weight.sum()
    assume((share * x).sum() <= p0)
    p1 = p0 + (1 - p0) * rise
    assert sum(part * likelihood_ratio(value, p0, p1) for part, value in zip(share, x, strict=True)) <= 1 + 1e-9


@given(UNIT, RATIOS, RATIOS)
def test_the_likelihood_ratio_is_that_of_two_coins_and_linear_in_between(x, p0, rise):
    p1 = p0 + (1 - p0) * rise
    assert likelihood_ratio(1.0, p0, p1) == pytest.approx(p1 / p0)
    assert likelihood_ratio(0.0, p0, p1) == pytest.approx((1 - p1) / (1 - p0))
    ends = x * likelihood_ratio(1.0, p0, p1) + (1 - x) * likelihood_ratio(0.0, p0, p1)
    assert likelihood_ratio(x, p0, p1) == pytest.approx(ends)


# The kernels


@given(
    st.lists(st.tuples(st.floats(0, 7), CHANNEL, UNIT, st.floats(0.008, 0.2)), min_size=1, max_size=60),
)
def test_the_kernels_equal_the_definition_in_double_precision(calls):
    evidence = np.zeros((len(CHANNELS), len(RISES)), np.float32)
    wanted = np.zeros(evidence.shape)
    for days, channel, x, p0 in calls:
        accrue(evidence[channel], days)
        observe(evidence[channel], x, p0)
        wanted[channel] += days
        p1 = p0 + (1 - p0) * np.array(RISES)
        wanted[channel] = np.minimum(wanted[channel] * (x * p1 / p0 + (1 - x) * (1 - p1) / (1 - p0)), EVIDENCE_MAX)
    np.testing.assert_allclose(evidence, wanted, rtol=1e-4, atol=1e-30)
    shares = np.array([prior.share / len(RISES) for prior in PRIORS])
    assert total(evidence) == pytest.approx((shares[:, None] * evidence).sum(), rel=1e-5)


def test_the_parts_of_the_evidence_add_up_to_one():
    # An average of evidence keeps the promise; a sum of more than one whole would not.
    assert sum(prior.share for prior in PRIORS) + LOCK_SHARE == pytest.approx(1.0)
    assert total(np.ones((len(CHANNELS), len(RISES)), np.float32)) + LOCK_SHARE == pytest.approx(1.0)


def test_evidence_stays_finite_in_the_worst_of_troubles():
    evidence = np.ones((1, len(RISES)), np.float32)
    for _ in range(500):
        accrue(evidence[0], 7.0)
        observe(evidence[0], 1.0, 0.001)
    assert np.isfinite(evidence).all()
    assert (evidence <= np.float32(EVIDENCE_MAX) * 1.001).all()


# The promise


@numba.njit(cache=True)
def alarm_times(days_a_call, p0, signs, setting_days, days_max, rng):  # pragma: no cover  compiled
    """Return when customers whose every channel stands at its p0 first reach the setting, or `days_max`.

    `signs[channel]` is the x of a bad call; it comes with the chance that makes the mean p0.
    """
    times = np.empty(days_a_call.size)
    for run in range(days_a_call.size):
        evidence = np.zeros((p0.size, len(RISES)), np.float32)
        at = 0.0
        while at < days_max:
            days = days_a_call[run] * rng.exponential()
            at += days
            for channel in range(p0.size):
                accrue(evidence[channel], days)
                bad = rng.random() < p0[channel] / signs[channel]
                observe(evidence[channel], signs[channel] if bad else 0.0, p0[channel])
            if total(evidence) >= setting_days:
                break
        times[run] = at
    return times


@pytest.mark.parametrize("sign", [1.0, 0.5])
@pytest.mark.parametrize(("calls_a_day", "setting_days"), [(0.3, 300.0), (3.0, 100.0), (80.0, 30.0)])
def test_customers_at_the_edge_of_health_are_left_alone_for_as_long_as_promised(calls_a_day, setting_days, sign):
    p0 = np.array([0.02, 0.05, 0.04, 0.03])
    days_a_call = np.full(400, 1.0 / calls_a_day)
    times = alarm_times(days_a_call, p0, np.full(4, sign), setting_days, 20 * setting_days, np.random.default_rng(5))
    # Runs cut off at twenty times the setting can only make the mean smaller.
    assert times.mean() >= setting_days
    assert (times < 20 * setting_days).any(), "an alarm that never comes promises nothing"


def test_customers_of_all_sorts_together_are_left_alone_for_as_long_as_promised():
    rates = np.geomspace(0.2, 80.0, 400)
    times = alarm_times(
        1.0 / rates, np.array([0.01, 0.02, 0.02, 0.02]), np.ones(4), 60.0, 1_200.0, np.random.default_rng(6)
    )
    assert times.mean() >= 60.0


def test_twice_the_setting_comes_later():
    rng = np.random.default_rng(7)
    once, twice = (
        alarm_times(np.full(300, 0.1), np.full(4, 0.02), np.ones(4), setting, 2_000.0, rng).mean()
        for setting in (40.0, 80.0)
    )
    assert twice > once


@numba.njit(cache=True)
def false_alarms(rows, notes, drop_ratio, calls_a_day, days, setting_days, rng):  # pragma: no cover  compiled
    """Count the alarms of healthy customers, each of a drop ratio of his own, with baselines learnt on the way."""
    count = 0
    for run in range(len(rows)):
        one, note = rows[run], notes[run]
        at = 0.0
        while at < days:
            gap = rng.exponential() / calls_a_day
            at += gap
            for channel, ratio in enumerate((drop_ratio[run], 0.012, 0.003, 0.008)):
                accrue(one["evidence"][channel], gap)
                x = 1.0 if rng.random() < ratio else 0.0
                if x > 0.0:
                    observe(one["evidence"][channel], x, expected(one, note, channel))
                else:
                    observe_nothing(one["evidence"][channel])
                remember(one, note, channel, x, gap)
            # What opens a case while its calls show no structure.
            if LEAP * PLAIN_SHARE * total(one["evidence"]) >= setting_days:
                count += 1
                one["evidence"][:, :] = 0.0
    return count


HEALTHY, DAYS, SETTING_DAYS = 8_000, 40.0, 10_000.0


@pytest.mark.parametrize("calls_a_day", [2.0, 10.0, 40.0])
@pytest.mark.parametrize("drop_ratio", [0.004, 0.008, 0.016])
def test_lines_that_differ_and_are_not_known_are_left_alone_for_as_long_as_promised(drop_ratio, calls_a_day):
    rng = np.random.default_rng(9)
    ratios = np.minimum(drop_ratio * rng.gamma(2.5, 1.0 / 2.5, HEALTHY), 0.3)
    alarms = false_alarms(np.zeros(HEALTHY, ROW), np.zeros(HEALTHY, NOTE), ratios, calls_a_day, DAYS, SETTING_DAYS, rng)
    assert alarms <= HEALTHY * DAYS / SETTING_DAYS


def test_service_far_worse_than_p0_is_seen_within_a_few_calls():
    evidence = np.zeros((len(CHANNELS), len(RISES)), np.float32)
    calls = 0
    while total(evidence) < 10_000:
        accrue(evidence[DROP], 0.3)
        observe(evidence[DROP], 1.0, 0.02)
        calls += 1
    # log(D) / KL(1 || p0) bounds the delay from below: two calls and a bit.
    assert np.log(10_000) / np.log(1 / 0.02) <= calls <= 6


# Baselines


@given(CHANNEL, st.floats(0, 1e4), UNIT)
def test_p0_stays_within_what_the_promise_allows(channel, count, ratio):
    p0 = healthy_mean(channel, count, ratio * count)
    assert PRIORS[channel].p0_min <= p0 <= PRIORS[channel].p0_max


@given(CHANNEL, st.floats(0, 1e3), UNIT, UNIT)
def test_p0_rises_with_what_was_learnt(channel, count, one, other):
    less, more = sorted([one, other])
    assert healthy_mean(channel, count, less * count) <= healthy_mean(channel, count, more * count) + 1e-12


@pytest.mark.parametrize("channel", range(len(CHANNELS)))
def test_p0_of_a_long_known_customer_is_nearly_his_own_mean(channel):
    prior = PRIORS[channel]
    mean = (prior.p0_min + prior.p0_max) / 2
    p0 = healthy_mean(channel, MEMORY_COUNT, mean * MEMORY_COUNT)
    assert abs(p0 - mean) < 0.25 * mean


@given(CHANNEL, st.integers(0, 300), st.floats(0, 1))
def test_p0_is_the_share_that_a_line_drawn_from_the_prior_shows_next(channel, count, share):
    # The definition: over a fine grid of true means, weighed by the prior and by what was seen.
    prior, weight = PRIORS[channel], share * 0.1 * count
    mean = (np.arange(20_000) + 0.5) / 20_000
    alpha, beta = prior.size * prior.mean + weight, prior.size * (1 - prior.mean) + count - weight
    logs = (alpha - 1) * np.log(mean) + (beta - 1) * np.log1p(-mean)
    density = np.exp(logs - logs.max())
    wanted = (density * mean).sum() / density.sum()
    assert healthy_mean(channel, count, weight) == pytest.approx(np.clip(wanted, prior.p0_min, prior.p0_max), rel=0.03)


@given(CHANNEL, st.integers(0, 700), st.floats(0.0, 1.0))
def test_p0_does_not_fall_where_half_an_observation_is_forgotten(channel, count, ratio):
    # What an odd number loses when it is halved: evidence against a p0 that is too high keeps its promise.
    less, more = (healthy_mean(channel, known, ratio * count) for known in (float(count), count + 0.5))
    assert less >= more * (1.0 - 1e-9)


def live(one, note, xs, days, channel=DROP):
    """Let a customer's channel go through calls as the hot loop does."""
    for x in xs:
        accrue(one["evidence"][channel], days)
        observe(one["evidence"][channel], x, expected(one, note, channel))
        remember(one, note, channel, x, days)


@given(st.lists(st.booleans(), max_size=150).map(lambda bits: np.array(bits, float)), CHANNEL)
def test_no_observation_is_lost_or_learnt_twice(xs, channel):
    one, note = fresh()
    live(one, note, xs, 0.1, channel)
    assert one["count"][channel] + note["waiting_count"][channel] == len(xs)
    assert one["weight"][channel] + note["waiting_weight"][channel] == pytest.approx(xs.sum())


def test_bad_luck_that_passed_is_learnt_like_good_luck():
    one, note = fresh()
    luck = np.zeros(120)
    luck[40] = 1.0
    live(one, note, luck, 0.1)
    assert (one["count"][DROP], one["weight"][DROP]) == (120, 1)
    assert note["waiting_count"][DROP] == 0


def test_while_it_may_be_trouble_nothing_is_learnt():
    one, note = fresh()
    live(one, note, np.zeros(60), 0.1)
    before = healthy_mean(DROP, one["count"][DROP], one["weight"][DROP])
    learnt = float(one["weight"][DROP])
    live(one, note, np.tile([1.0, 0.0, 0.0], 10), 0.1)
    assert one["weight"][DROP] == learnt
    assert note["waiting_weight"][DROP] == 10
    assert healthy_mean(DROP, one["count"][DROP], one["weight"][DROP]) == before


def test_a_wait_has_an_end():
    one, note = fresh()
    live(one, note, np.zeros(60), 0.1)
    live(one, note, np.tile([1.0, 0.0], round(WAIT_COUNT)), 0.1)
    assert one["weight"][DROP] >= WAIT_COUNT / 2
    assert note["waiting_count"][DROP] < WAIT_COUNT


def test_old_observations_fade():
    one, note = fresh()
    live(one, note, np.zeros(2_000), 0.1)
    assert MEMORY_COUNT / 2 <= one["count"][DROP] <= MEMORY_COUNT + WAIT_COUNT


@pytest.mark.parametrize("days", [0.0, 0.01, 1.0, 7.0])
def test_customers_of_any_pace_learn(days):
    one, note = fresh()
    rng = np.random.default_rng(3)
    live(one, note, (rng.random(300) < 0.01).astype(float), days)
    assert one["count"][DROP] >= 200


# Second thoughts


@given(st.lists(st.booleans(), max_size=40), st.floats(0.1, 0.9), st.floats(0.1, 1.0))
def test_a_corrected_observation_is_as_if_it_had_been_right_at_once(before, guessed, right):
    both = fresh(), fresh()
    for (one, note), x in zip(both, (guessed, right), strict=True):
        live(one, note, np.array([*before, x], float), 0.1)
    # What waits after one may be learnt after the other: compared is what both together know.
    correct(*both[0], DROP, guessed, right)
    np.testing.assert_allclose(both[0][0]["evidence"][DROP], both[1][0]["evidence"][DROP], rtol=1e-3)
    know = [float(one["weight"][DROP] + note["waiting_weight"][DROP]) for one, note in both]
    assert know[0] == pytest.approx(know[1], abs=1e-4)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_what_is_taken_back_leaves_at_most_the_evidence_that_there_would_be_without(luck):
    (one, note), (other, others) = fresh(), fresh()
    live(one, note, np.array([*luck, 1.0], float), 0.1)
    live(other, others, np.array(luck, float), 0.1)
    accrue(other["evidence"][DROP], 0.1)
    take_back(one, note, DROP, 1.0)
    assert (one["evidence"][DROP] <= other["evidence"][DROP] * 1.001).all()
