"""The bandit that learns uplift, the ledger that feeds it, and what the log says of other policies."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from state_kit import take, whole

from bench.churn.market import CREDIT, OPTIONS, draw_market, estimates, fixed_policies, graded, played
from detectors.remedies.ledger import (
    Decision,
    Ledger,
    always,
    by_expectation,
    evaluated,
    leave_alone,
)
from detectors.remedies.uplift import ALONE, CELLS_MAX, Option, UpliftBandit, gamma_quantiles, uniforms

CAUSE, SEGMENT = "access_line_fault", "consumer"
REPAIR, GIFT = Option("line_reprofile", 0.2, 200), Option("retention_offer", 0.2, 3_000)


def taught(ratios, count=4_000, expected=0.1, seed=0):
    """A bandit that has seen so many customers for each action leave at these ratios of what was expected."""
    rng = np.random.default_rng(seed)
    bandit = UpliftBandit()
    for action, ratio in ratios.items():
        for left in (rng.random(count) < ratio * expected).tolist():
            bandit.learn(action, CAUSE, SEGMENT, left=left, expected=expected)
    return bandit


def choose(bandit, at_risk_minor=2_000.0, words=("x",), options=(REPAIR, GIFT)):
    return bandit.choose(options, CAUSE, SEGMENT, at_risk_minor, words)


# What is believed


def test_before_any_outcome_the_catalogue_is_believed():
    bandit = UpliftBandit()
    assert bandit.uplift(REPAIR, CAUSE, SEGMENT) == pytest.approx(0.2)


def test_uplift_is_learnt_against_those_left_alone_whatever_the_calibration():
    # The model says twice what is true of everybody.
    bandit = taught({ALONE: 0.5, "line_reprofile": 0.25})
    assert bandit.uplift(REPAIR, CAUSE, SEGMENT) == pytest.approx(0.5, abs=0.1)


def test_harm_is_learnt_as_negative_uplift():
    assert taught({ALONE: 1.0, "retention_offer": 1.5}).uplift(GIFT, CAUSE, SEGMENT) < -0.3


def test_a_new_cell_starts_from_what_its_remedy_showed_elsewhere():
    bandit = taught({"line_reprofile": 0.3})
    elsewhere = bandit.uplift(REPAIR, "access_congestion", "business")
    assert elsewhere == pytest.approx(0.7, abs=0.1)


def test_what_a_cell_showed_counts_once():
    bandit = UpliftBandit()
    bandit.learn("line_reprofile", CAUSE, SEGMENT, left=True, expected=1.0)
    shape, rate = bandit.gamma(REPAIR, CAUSE, SEGMENT)
    assert (shape, rate) == pytest.approx((0.8 * 10 + 1, 11.0))


# The choice


def test_the_same_words_choose_the_same_and_others_are_free_to_differ():
    bandit = UpliftBandit()
    assert choose(bandit, words=("a", "1")) == choose(bandit, words=("a", "1"))
    assert len({choose(bandit, words=("a", str(index))).action for index in range(50)}) > 1


@given(st.floats(0, 1e7), st.text(max_size=5))
def test_propensities_are_probabilities_and_nothing_is_impossible(at_risk_minor, word):
    bandit = UpliftBandit(explore_ratio=0.03)
    chosen = choose(bandit, at_risk_minor, (word,))
    assert chosen.actions == [ALONE, "line_reprofile", "retention_offer"]
    assert sum(chosen.propensities) == pytest.approx(1.0)
    assert min(chosen.propensities) >= 0.01 - 1e-12
    assert chosen.propensity == chosen.propensities[chosen.actions.index(chosen.action)]


def test_actions_are_taken_as_often_as_their_propensity_says():
    bandit = UpliftBandit()
    choices = [choose(bandit, words=(str(index),)) for index in range(3_000)]
    for place, action in enumerate(choices[0].actions):
        wanted = np.mean([one.propensities[place] for one in choices])
        assert np.mean([one.action == action for one in choices]) == pytest.approx(wanted, abs=0.03)


def test_who_is_better_left_alone_is_left_alone():
    bandit = taught({ALONE: 1.0, "line_reprofile": 1.6, "retention_offer": 1.6})
    assert [choose(bandit, words=(str(index),)).action for index in range(20)].count(ALONE) >= 18


def test_where_nothing_is_at_stake_nothing_is_spent():
    assert [choose(UpliftBandit(), 0.0, (str(index),)).action for index in range(20)].count(ALONE) >= 18


def test_what_was_learnt_survives_a_restart():
    bandit = taught({ALONE: 1.0, "line_reprofile": 0.4}, count=50)
    restored = UpliftBandit()
    restored.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(bandit.snapshot())))
    assert choose(restored) == choose(bandit)
    assert restored.table() == bandit.table()


def test_segments_without_end_are_learnt_together():
    one = UpliftBandit()
    for segment in range(CELLS_MAX + 100):
        one.learn("cpe_swap", "unknown", f"s{segment}", left=False, expected=0.1)
    assert len(one.table()) == CELLS_MAX
    assert one.table()[0][:3] == ("cpe_swap", "*", "*")
    assert one.table()[0][4] == pytest.approx(0.1 * (CELLS_MAX + 100))


def test_a_segment_of_any_name_keeps_its_cell():
    bandit = UpliftBandit()
    bandit.learn("cpe_swap", CAUSE, "a|b", left=True, expected=0.5)
    restored = UpliftBandit()
    restored.restore(bandit.snapshot())
    assert restored.table() == [("cpe_swap", "*", "*", 1, 0.5), ("cpe_swap", CAUSE, "a/b", 1, 0.5)]


def test_digests_look_uniform():
    drawn = uniforms(20_000, ("any", "words"))
    assert stats.kstest(drawn, "uniform").pvalue > 0.001
    assert 0.0 < drawn.min() < drawn.max() < 1.0


@pytest.mark.parametrize("shape", [2.0, 8.0, 200.0])
def test_gamma_quantiles_are_those_of_the_distribution(shape):
    chance = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    found = gamma_quantiles(chance, np.full(5, shape), np.full(5, 3.0))
    assert found == pytest.approx(stats.gamma.ppf(chance, shape, scale=1 / 3.0), rel=0.03)


# The ledger


def decision(alert_id="a", customer=1, at_ms=0, action="line_reprofile", **facts):
    given_facts = {"propensity": 0.5, "probability": 0.1, "worth_minor": 10_000.0, **facts}
    return Decision(
        alert_id=alert_id, customer=customer, at_ms=at_ms, cause=CAUSE, segment=SEGMENT, action=action,
        actions=[ALONE, "line_reprofile"], ratios=[1.0, 0.8], costs_minor=[0, 200], **given_facts,
    )  # fmt: skip


def ledger(horizon_ms=100):
    return Ledger(UpliftBandit(), horizon_ms)


def test_what_was_delivered_is_learnt_and_not_what_was_proposed():
    book = ledger()
    book.add(decision())
    book.reported("a", "accepted", "cpe_swap")
    book.left(1, 50)
    assert [row[0] for row in book._bandit.table()] == ["cpe_swap", "cpe_swap"]
    assert next(iter(book.rows)).left


@pytest.mark.parametrize("result", ["unreachable", "not_needed", None])
def test_who_was_not_reached_teaches_nothing_of_the_remedy(result):
    book = ledger()
    book.add(decision())
    if result is not None:
        book.reported("a", result, None)
    book.mature(100)
    assert book._bandit.table() == []
    assert len(list(book.rows)) == 1


@pytest.mark.parametrize(("result", "learnt"), [("contacted", []), (None, [ALONE, ALONE])])
def test_who_was_spoken_with_was_not_left_alone(result, learnt):
    book = ledger()
    book.add(decision(action=ALONE))
    if result is not None:
        book.reported("a", result, None)
    book.mature(100)
    assert [row[0] for row in book._bandit.table()] == learnt


def test_that_somebody_was_spoken_with_does_not_undo_the_answer():
    book = ledger()
    book.add(decision())
    book.reported("a", "declined", "cpe_swap")
    book.reported("a", "contacted", None)
    book.mature(100)
    assert [row[0] for row in book._bandit.table()] == ["cpe_swap", "cpe_swap"]


def test_who_stayed_is_known_after_the_horizon_and_who_left_later_stayed():
    book = ledger()
    book.add(decision(action=ALONE))
    book.mature(99)
    assert len(book) == 1
    book.left(1, 100)  # after the horizon: not within it
    book.mature(100)
    assert (len(book), [row.left for row in book.rows]) == (0, [False])


def test_an_outcome_of_a_case_that_is_not_known_changes_nothing():
    book = ledger()
    book.reported("nobody", "accepted", "cpe_swap")
    assert (len(book), book._bandit.table()) == (0, [])


def test_a_second_attempt_is_a_decision_of_its_own():
    book = ledger()
    book.add(decision())
    book.reported("a", "fixed", "cpe_swap")
    book.add(decision(at_ms=10, action=ALONE, attempt=2))
    assert (len(book), book.of("a").attempt) == (2, 2)
    restored = take(ledger(), whole(book))
    assert restored.of("a") == book.of("a")
    assert restored.forget(1) == 2
    assert len(restored) == 0


def test_rows_whose_end_is_known_name_nobody():
    book = ledger()
    book.add(decision(alert_id="al_secret", customer=4711))
    book.mature(100)
    assert "secret" not in str(whole(book))
    assert "4711" not in str([msgspec.msgpack.decode(row) for row in whole(book)["rows"]["entries"].values()])


# Off-policy evaluation


def test_without_rows_nothing_is_estimated():
    assert evaluated([], {"nothing": leave_alone}) == []


def test_estimates_come_close_to_what_a_policy_would_truly_have_gained():
    market = draw_market(6_000, 3)
    actions, book = played(market, 3)
    rows = list(book.rows)
    truth = market.gains_minor()[: len(rows)]
    credit = 1 + [option.action for option in OPTIONS].index(CREDIT)
    (found,) = evaluated(rows, {"credit": always(CREDIT)})
    assert abs(found.dr - truth[:, credit].mean()) < 3 * found.dr_error
    assert abs(found.ips - truth[:, credit].mean()) < 3 * found.ips_error
    assert found.dr_error < found.ips_error
    (nothing,) = evaluated(rows, {"nothing": leave_alone})
    assert (nothing.dr, nothing.ips) == (0.0, 0.0)
    assert {one.policy for one in estimates(book)} == {"by expectation", "always a credit"}
    assert by_expectation(rows[0]) in rows[0].actions
    assert len(actions) == 6_000


# The market


def test_the_market_has_customers_who_are_better_left_alone():
    market = draw_market(3_000, 1)
    best = market.gains_minor().argmax(axis=1)
    assert 0.05 < np.mean(best == 0) < 0.6


def test_the_chooser_beats_chance_always_a_credit_and_the_catalogue_and_nears_the_oracle():
    market = draw_market(12_000, 2)
    actions, _ = played(market, 2)
    score = {name: graded(market, name, taken) for name, taken in fixed_policies(market, 2).items()}
    ours = graded(market, "bandit", actions)
    assert score["oracle"].regret == 0.0
    assert ours.late_regret < 0.35 < score["catalogue's estimates"].late_regret
    assert ours.gain_minor > score["catalogue's estimates"].gain_minor > 0.0
    assert score["random"].gain_minor < 0.0
    assert score["always a credit"].gain_minor < 0.0
    assert ours.saved_minor_per_contact > 2 * score["catalogue's estimates"].saved_minor_per_contact * 0.6
    assert math.isclose(score["leave alone"].gain_minor, 0.0)
