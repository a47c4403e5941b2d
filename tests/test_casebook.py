"""The life of a case: how bad, worth telling, over; and when the next decision is due."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from state_kit import take, whole

from detectors.casebook import CALLS_SHOWN, EXPIRE_MS, HOLD_MS, QUIET_MS, RANK, RECOVERED, Case, Casebook
from schemas.alerts import CallEvidence, Dimension

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MONDAY_MS = 1_767_571_200_000
NEVER_MS = 2**62

COUNTS = st.integers(0, 200)


def case(customer=1, **known):
    facts = {
        "alert_id": f"al_{customer}",
        "customer_id": f"c{customer}",
        "since_ms": MONDAY_MS,
        "detected_ms": MONDAY_MS + HOUR_MS,
        "kind": "drop_rate",
        "phrase": "",
        "dimension": None,
        "baseline_ratio": 0.01,
        "evidence_log10": 4.2,
    }
    return Case(customer=customer, **(facts | known))


def seen(one, *, bad, hour):
    if bad:
        one.see(CallEvidence(f"call at {hour}", MONDAY_MS + round(hour * HOUR_MS), "dropped", 0))
    else:
        one.see_good(1)


# How bad


@given(COUNTS, COUNTS, COUNTS)
def test_more_bad_calls_among_as_many_are_never_less_severe(trials, one, other):
    less, more = sorted(min(bad, trials) for bad in (one, other))
    mild, grave = (case(bad=bad, trials=trials).judge() for bad in (less, more))
    assert RANK.index(mild) <= RANK.index(grave)


@given(COUNTS, COUNTS, COUNTS)
def test_as_many_bad_calls_among_fewer_are_never_less_severe(bad, one, other):
    fewer, more = sorted(max(trials, bad) for trials in (one, other))
    assert RANK.index(case(bad=bad, trials=more).judge()) <= RANK.index(case(bad=bad, trials=fewer).judge())


def test_two_bad_calls_in_a_hundred_are_minor_and_half_of_many_critical():
    assert case(bad=2, trials=100).judge() == "minor"
    assert case(bad=20, trials=40).judge() == "critical"
    assert case(bad=0, trials=0).judge() == "minor"


# What shows it


@given(st.lists(st.integers(0, 20 * 24), max_size=60))
def test_the_newest_bad_calls_show_it_oldest_first(hours):
    one = case(bad=3, trials=10)
    for hour in hours:
        seen(one, bad=True, hour=hour)
    assert [call.call_id for call in one.evidence_calls] == [f"call at {hour}" for hour in hours[-CALLS_SHOWN:]]
    assert sorted(one.bad_days) == sorted({(MONDAY_MS + hour * HOUR_MS) // DAY_MS for hour in hours})
    assert one.last_bad_ms == max((MONDAY_MS + hour * HOUR_MS for hour in hours), default=0)


def test_good_calls_show_nothing():
    one = case(bad=3, trials=10)
    seen(one, bad=False, hour=1)
    assert (one.evidence_calls, one.bad_days, one.last_bad_ms) == ([], [], 0)


def test_one_case_does_not_share_its_calls_with_another():
    one, other = case(1), case(2)
    seen(one, bad=True, hour=1)
    assert other.evidence_calls == []
    assert case(3).bad_days == []


# When it is over


@given(st.lists(st.booleans(), max_size=80), COUNTS, COUNTS)
def test_recovery_never_falls_below_nothing_and_bad_calls_never_raise_it(signs, bad, trials):
    one = case(bad=min(bad, trials), trials=trials)
    for hour, sign in enumerate(signs):
        before = one.recovery
        seen(one, bad=sign, hour=hour)
        assert one.recovery >= 0.0
        assert (one.recovery <= before) if sign else (one.recovery > before)


def good_calls_needed(bad, trials):
    one = case(bad=bad, trials=trials)
    seen(one, bad=True, hour=0)
    for count in range(1, 1_000):
        seen(one, bad=False, hour=count)
        if one.recovery >= RECOVERED:
            return count
    raise AssertionError("a thousand good calls must be enough")


def test_the_worse_it_was_the_sooner_good_calls_prove_that_it_is_over():
    assert good_calls_needed(18, 20) < good_calls_needed(5, 20) <= good_calls_needed(3, 60)


def test_good_calls_end_a_case_once_a_day_was_quiet():
    one = case(bad=10, trials=20)
    seen(one, bad=True, hour=0)
    for at in range(200):
        seen(one, bad=False, hour=0.1 + at / 100)
    assert not one.over(MONDAY_MS + QUIET_MS - 1)
    assert one.over(MONDAY_MS + QUIET_MS)


def test_silence_is_no_recovery_until_two_weeks_have_passed():
    one = case(bad=10, trials=20)
    seen(one, bad=True, hour=0)
    assert not one.over(MONDAY_MS + EXPIRE_MS - 1)
    assert one.over(MONDAY_MS + EXPIRE_MS)


# What is worth telling


def test_the_same_again_is_not_worth_telling():
    one = case(bad=3, trials=20, told_bad=3, kind="route")
    assert not one.worse()
    one.bad = 4
    assert not one.worse()
    assert not one.may_be_renamed()


def test_another_pattern_a_graver_trouble_and_twice_the_bad_calls_are_worth_telling():
    assert case(bad=5, trials=40, told_bad=2, kind="route").may_be_renamed()
    assert case(bad=6, trials=12, told_bad=5, severity="minor").worse()
    assert case(bad=20, trials=1_000, told_bad=10, severity="critical").worse()


def test_a_pattern_seen_in_plain_trouble_is_worth_telling_at_once():
    assert case(bad=4, trials=40, told_bad=3, kind="drop_rate").may_be_renamed()


def test_a_trouble_that_grows_less_grave_is_not_worth_telling():
    assert not case(bad=2, trials=100, told_bad=2, severity="critical").worse()


# When the next decision is due


CASES = st.lists(
    st.builds(
        lambda number, due, last: (number, due and MONDAY_MS + due * HOUR_MS, MONDAY_MS + last * HOUR_MS),
        st.integers(1, 50),
        st.integers(0, 40),
        st.integers(0, 400),
    ),
    unique_by=lambda drawn: drawn[0],
    max_size=12,
)


def due_at(one):
    """A held case is decided when its time has come; a told one expires when nothing was bad for long."""
    return one.due_ms or one.last_bad_ms + EXPIRE_MS


@given(CASES, st.integers(0, 800))
def test_decisions_fall_due_in_order_of_time_and_none_before(drawn, hour):
    book = Casebook()
    for number, due_ms, last_bad_ms in drawn:
        book.cases[number] = case(number, due_ms=due_ms, last_bad_ms=last_bad_ms)
    now_ms = MONDAY_MS + hour * HOUR_MS
    wanted = sorted((due_at(one), one.alert_id) for one in book.cases.values() if due_at(one) <= now_ms)
    assert [(due_at(one), one.alert_id) for one in book.due(now_ms)] == wanted
    earliest = min((due_at(one) for one in book.cases.values()), default=NEVER_MS)
    assert book.next_due_ms(NEVER_MS) == earliest


def test_a_case_is_held_for_less_than_the_quiet_that_ends_one():
    # Otherwise a held case could be over before anybody was told of it.
    assert HOLD_MS < QUIET_MS < EXPIRE_MS


@pytest.mark.parametrize("dimension", [None, Dimension("trunk", "t7")])
def test_a_casebook_survives_a_restart(dimension):
    book = Casebook()
    book.taken_over_count = 3
    book.cases[2**63 + 5] = case(2**63 + 5, dimension=dimension, due_ms=MONDAY_MS)
    seen(book.cases[2**63 + 5], bad=True, hour=1.5)
    other = take(Casebook(), whole(book))
    assert other.cases == book.cases
    assert other.taken_over_count == 3
    assert other.next_due_ms(NEVER_MS) == MONDAY_MS


def test_a_snapshot_is_a_copy():
    book = Casebook()
    book.cases[1] = case(1)
    state = whole(book)
    seen(book.cases[1], bad=True, hour=1)
    other = take(Casebook(), state)
    assert other.cases[1].evidence_calls == []
