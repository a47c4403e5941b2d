"""Credits: what was measured, the rules, the cap, and the arithmetic that is shown."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.remedies.credits import (
    CAP_PERCENT,
    DAY_MS,
    HOUR_MS,
    RULES,
    Interruption,
    Measured,
    credit,
    find_rule,
    measure,
)
from schemas.alerts import Credit
from schemas.errors import ConfigError
from schemas.money import money_text, rounded, share

PER_DAY, PRO_RATA, PER_CALL = (RULES[name] for name in ("per_bad_day@1", "pro_rata@1", "per_call@1"))

rules = st.sampled_from(list(RULES.values()))
fees = st.integers(0, 10**9)
amounts = st.builds(Measured, st.integers(0, 5000), st.integers(0, 400), st.integers(0, 400 * DAY_MS))


def paid(rule, fee_minor, measured, **options):
    found = credit(rule, fee_minor, "EUR", measured, **options)
    return 0 if found is None else found.amount_minor


# The rules


@pytest.mark.parametrize(
    ("rule", "measured", "amount", "basis"),
    [
        (PER_DAY, Measured(9, 3, 0), 300, "per_bad_day@1: 3 days with bad calls x 29.99 EUR / 30 = 3.00 EUR"),
        (PER_DAY, Measured(1, 1, 0), 100, "per_bad_day@1: 1 day with bad calls x 29.99 EUR / 30 = 1.00 EUR"),
        (PER_CALL, Measured(5, 1, 0), 50, "per_call@1: 5 bad calls x 29.99 EUR / 300 = 0.50 EUR"),
        (
            PRO_RATA,
            Measured(1, 1, 36 * HOUR_MS + HOUR_MS // 2),
            152,
            "pro_rata@1: 36.50 hours of interruption x 29.99 EUR / 720 = 1.52 EUR",
        ),
    ],
)
def test_a_credit_shows_its_rule_and_its_arithmetic(rule, measured, amount, basis):
    assert credit(rule, 2999, "EUR", measured) == Credit(amount, "EUR", basis)


def test_a_whole_month_of_bad_days_is_the_whole_fee_before_the_cap():
    assert paid(PER_DAY, 2999, Measured(bad_days=30), cap_percent=100) == 2999
    assert paid(PRO_RATA, 2999, Measured(interrupted_ms=720 * HOUR_MS), cap_percent=100) == 2999


def test_less_than_an_hour_of_interruption_is_not_paid_pro_rata():
    assert credit(PRO_RATA, 720_000, "EUR", Measured(4, 1, HOUR_MS - 1)) is None
    assert paid(PRO_RATA, 720_000, Measured(4, 1, HOUR_MS)) == 1000


def test_a_capped_credit_says_so():
    found = credit(PER_DAY, 3001, "GBP", Measured(bad_days=20))
    assert found.amount_minor == 1500
    assert found.basis == (
        "per_bad_day@1: 20 days with bad calls x 30.01 GBP / 30 = 20.01 GBP, "
        "capped at 15.00 GBP: 50% of the monthly fee a bill"
    )


def test_the_cap_is_of_the_bill_and_counts_what_it_already_credits():
    found = credit(PER_DAY, 3000, "EUR", Measured(bad_days=10), credited_minor=900)
    assert found.amount_minor == 600
    assert found.basis.endswith("capped at 6.00 EUR: 50% of the monthly fee a bill, less 9.00 EUR already credited")
    assert credit(PER_DAY, 3000, "EUR", Measured(bad_days=10), credited_minor=1500) is None


@pytest.mark.parametrize(("fee", "currency"), [(None, "EUR"), (2999, None), (None, None), (0, "EUR"), (-500, "EUR")])
def test_without_a_fee_or_its_currency_there_is_no_credit(fee, currency):
    assert credit(PER_DAY, fee, currency, Measured(3, 3, DAY_MS)) is None


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_nothing_measured_is_nothing_credited(rule):
    assert credit(rule, 2999, "EUR", Measured()) is None


def test_rules_are_found_by_name_and_version_and_others_refused():
    assert find_rule("per_bad_day@1") is PER_DAY
    with pytest.raises(ConfigError, match=r"one of per_bad_day@1, pro_rata@1, per_call@1, was 'per_bad_day@7'"):
        find_rule("per_bad_day@7")


# Properties


@given(rules, fees, amounts, st.integers(0, 10**9), st.integers(0, 100))
def test_a_credit_is_a_positive_integer_and_never_above_what_is_left_of_the_cap(rule, fee, measured, before, percent):
    found = credit(rule, fee, "EUR", measured, credited_minor=before, cap_percent=percent)
    if found is None:
        return
    assert type(found.amount_minor) is int
    assert found.amount_minor > 0
    assert Fraction(found.amount_minor + before) <= Fraction(fee * percent, 100)


@given(rules, fees, amounts, amounts)
def test_more_bad_service_is_never_credited_less(rule, fee, one, other):
    more = Measured(
        one.bad_calls + other.bad_calls,
        one.bad_days + other.bad_days,
        one.interrupted_ms + other.interrupted_ms,
    )
    assert paid(rule, fee, more) >= paid(rule, fee, one)


@given(rules, fees, fees, amounts)
def test_a_higher_fee_is_never_credited_less(rule, fee, extra, measured):
    assert paid(rule, fee + extra, measured) >= paid(rule, fee, measured)


@given(rules, fees, amounts)
def test_below_the_cap_the_amount_is_the_fraction_rounded_half_up(rule, fee, measured):
    units = getattr(measured, rule.unit)
    exact = Fraction(fee * units, rule.parts) if units >= rule.least else Fraction(0)
    expected = min((exact + Fraction(1, 2)).__floor__(), fee * CAP_PERCENT // 100)
    assert paid(rule, fee, measured) == expected


@given(rules, st.integers(1, 10**7), amounts)
def test_the_basis_can_be_computed_again_from_its_text(rule, fee, measured):
    found = credit(rule, fee, "JPY", measured, cap_percent=100_000)
    if found is None or rule is PRO_RATA:  # hours are written with two decimals, rounded
        return
    units, shown_fee, parts, total = map(
        int, re.fullmatch(r"\S+: (\d+) .* x (\d+) JPY / (\d+) = (\d+) JPY", found.basis).groups()
    )
    assert shown_fee == fee
    assert total == found.amount_minor == share(shown_fee, units, parts)


# What is measured

moments = st.integers(0, 40)
spans = st.lists(st.tuples(moments, moments).map(sorted).map(lambda each: Interruption(*each)), max_size=12)


@given(spans)
def test_time_that_calls_share_counts_once(interruptions):
    covered = {moment for each in interruptions for moment in range(each.start_ms, each.end_ms)}
    found = measure(interruptions)
    assert (found.bad_calls, found.interrupted_ms) == (len(interruptions), len(covered))
    assert measure(reversed(interruptions)) == found


@given(st.lists(st.integers(0, 10 * DAY_MS), max_size=12), st.integers(-14 * 60, 14 * 60))
def test_days_are_those_of_the_local_calendar(ends, offset_minutes):
    found = measure([Interruption(max(end - 1000, 0), end) for end in ends], offset_minutes)
    assert found.bad_days == len({(end + offset_minutes * 60_000) // DAY_MS for end in ends})


def test_a_call_over_midnight_belongs_to_the_day_it_ended_on():
    evening = 5 * DAY_MS - 10 * 60_000
    assert measure([Interruption(evening, evening + 20 * 60_000)]).bad_days == 1
    two = [Interruption(evening, evening + 60_000), Interruption(evening, evening + 20 * 60_000)]
    assert measure(two).bad_days == 2
    assert measure(two, utc_offset_minutes=60).bad_days == 1


def test_an_interruption_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValueError, match="end_ms must be at least start_ms 5, was 4"):
        measure([Interruption(5, 4)])


# Money


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (2999, "EUR", "29.99 EUR"),
        (5, "USD", "0.05 USD"),
        (300, "JPY", "300 JPY"),
        (12345, "KWD", "12.345 KWD"),
        (-150, "EUR", "-1.50 EUR"),
        (-7, "JPY", "-7 JPY"),
    ],
)
def test_amounts_are_written_with_the_decimals_of_their_currency(amount, currency, text):
    assert money_text(amount, currency) == text


@pytest.mark.parametrize(("amount", "whole"), [(0.0, 0), (0.49, 0), (0.5, 1), (1.5, 2), (2.5, 3)])
def test_halves_are_rounded_up(amount, whole):
    assert rounded(amount) == whole
    assert share(int(amount * 100), 1, 100) == whole
