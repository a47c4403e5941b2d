"""Statutory daily amounts: dated data, computed by the amounts of the day."""

import datetime as dt
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from detectors.remedies.credits import Measured, credit, find_rule
from detectors.remedies.statutory import days_lost, described, scheme_names, statutory, tables

UK, DE = "uk_automatic_compensation", "de_tkg_58"


def days(first, count):
    return [dt.date.fromisoformat(first) + dt.timedelta(one) for one in range(count)]


def test_every_table_says_where_it_is_from_and_tables_of_a_scheme_do_not_overlap():
    assert scheme_names() == (UK, DE)
    assert all(len(one["source"]) > 20 for one in described())
    for scheme in scheme_names():
        mine = [table for table in tables() if table.id.startswith(f"{scheme}@")]
        for one, following in pairwise(mine):
            assert one.until is not None
            assert one.until < following.begins


def at(text):
    return int(dt.datetime.fromisoformat(f"{text}+00:00").timestamp() * 1_000)


@pytest.mark.parametrize(
    ("scheme", "first", "count", "fee", "amount"),
    [
        (DE, "2026-06-01", 2, 3000, None),  # the first two days are not paid
        (DE, "2026-06-01", 3, 3000, 500),  # 5 EUR is more than 10% of 30 EUR
        (DE, "2026-06-01", 4, 8000, 1600),  # 10% of 80 EUR is more than 5 EUR
        (DE, "2026-06-01", 6, 3000, 500 + 500 + 1000 + 1000),
        (UK, "2026-06-01", 1, 3000, None),  # Monday: one full working day
        (UK, "2026-06-01", 2, 3000, 1034),  # the second one is over, and the initial payment due
        (UK, "2026-06-01", 4, 3000, 3 * 1034),  # and so much for each full day after it
        (UK, "2026-06-05", 5, 3000, 2 * 1034),  # Friday, a weekend, Monday: free; Tuesday is paid by itself
        (UK, "2026-04-02", 5, 3000, None),  # Thursday, Good Friday, a weekend, Easter Monday: one working day
        (UK, "2026-04-02", 6, 3000, 1034),
        (UK, "2024-06-03", 3, 3000, 2 * 976),
        (UK, "2019-06-03", 3, 3000, 2 * 800),
        (UK, "2021-06-07", 3, 3000, 2 * 806),
        (UK, "2022-06-06", 3, 3000, 2 * 840),
        (UK, "2023-06-05", 3, 3000, 2 * 933),
        (UK, "2025-06-02", 3, 3000, 2 * 998),
        (UK, "2026-04-01", 4, 3000, 3 * 998),  # a new amount is for losses that begin under it
        (UK, "2024-02-27", 4, 3000, 3 * 933),  # a leap day counts
        (UK, "2018-06-04", 9, 3000, None),  # before there was a scheme
    ],
)
def test_a_loss_is_paid_by_the_amounts_of_its_day(scheme, first, count, fee, amount):
    found = statutory(scheme, days(first, count), fee, {UK: "GBP", DE: "EUR"}[scheme])
    assert (None if found is None else found.amount_minor) == amount


def test_a_scheme_pays_in_its_own_currency_only():
    assert statutory(DE, days("2026-06-01", 9), 3000, "GBP") is None
    assert statutory(DE, [], 3000, "EUR") is None
    assert statutory("us", days("2026-06-01", 9), 3000, "USD") is None


def test_amounts_of_the_british_scheme_follow_each_other_without_a_gap():
    mine = [table for table in tables() if table.id.startswith(f"{UK}@")]
    assert all(one.until + dt.timedelta(1) == following.begins for one, following in pairwise(mine))


@pytest.mark.parametrize(
    ("scheme", "reported", "until", "expected"),
    [
        (UK, "2026-06-01T09:00", "2026-06-05T00:00", days("2026-06-02", 3)),
        (UK, "2026-06-01T09:00", "2026-06-05T22:59", days("2026-06-02", 3)),
        (UK, "2026-06-01T23:59", "2026-06-02T23:59", []),
        (UK, "2026-06-01T23:30", "2026-06-04T23:30", days("2026-06-03", 2)),  # it is the second there already
        (UK, "2026-01-01T23:30", "2026-01-04T23:30", days("2026-01-02", 2)),  # and in winter it is not
        (DE, "2026-06-01T22:30", "2026-06-04T22:00", days("2026-06-03", 2)),
        (DE, "2026-01-01T22:30", "2026-01-04T22:00", days("2026-01-02", 2)),
        (DE, "2024-02-28T09:00", "2024-03-01T09:00", days("2024-02-29", 1)),
        (DE, "2026-03-28T09:00", "2026-03-30T00:00", days("2026-03-29", 1)),  # a day of 23 hours
    ],
)
def test_days_lost_are_whole_ones_after_that_of_the_report(scheme, reported, until, expected):
    assert days_lost(scheme, at(reported), at(until)) == expected


def test_whoever_got_through_was_not_without_service_until_then():
    spoke = [at("2026-05-01T00:00"), at("2026-06-03T12:00"), at("2026-06-20T12:00")]
    assert days_lost(UK, at("2026-06-01T09:00"), at("2026-06-06T00:00"), spoke) == days("2026-06-04", 2)


def test_of_goodwill_what_is_due_by_law_is_taken_away_and_the_two_never_add_up():
    rule = find_rule("pro_rata@1")
    lost = Measured(interrupted_ms=240 * 3_600_000)
    assert credit(rule, 3000, "EUR", lost).amount_minor == 1000
    assert credit(rule, 3000, "EUR", lost, statutory_minor=1000) is None
    more = credit(rule, 3000, "EUR", lost, statutory_minor=700)
    assert more.amount_minor == 300
    assert more.basis.endswith("= 10.00 EUR, less 7.00 EUR due by law")


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 800), st.integers(0, 100))
def test_law_and_goodwill_together_are_the_larger_of_the_two(fee, due_minor, hours, percent):
    lost = Measured(interrupted_ms=hours * 3_600_000)
    alone = credit(find_rule("pro_rata@1"), fee, "EUR", lost, cap_percent=percent)
    beside = credit(find_rule("pro_rata@1"), fee, "EUR", lost, cap_percent=percent, statutory_minor=due_minor)
    together = due_minor + (0 if beside is None else beside.amount_minor)
    assert together == max(due_minor, 0 if alone is None else alone.amount_minor)


def test_goodwill_and_statutory_pay_on_one_bill_stay_under_the_cap_together():
    paid = statutory(DE, days("2026-06-01", 4), 3000, "EUR").amount_minor
    assert paid == 1000
    goodwill = credit(find_rule("per_bad_day@1"), 3000, "EUR", Measured(bad_days=12), credited_minor=paid)
    assert goodwill.amount_minor == 500  # half of the fee, less what was paid
    assert credit(find_rule("per_bad_day@1"), 3000, "EUR", Measured(bad_days=12), credited_minor=1500) is None


EASTER = {
    2019: "04-21", 2020: "04-12", 2021: "04-04", 2022: "04-17", 2023: "04-09", 2024: "03-31", 2025: "04-20",
    2026: "04-05", 2027: "03-28",
}  # fmt: skip


def first_monday(year, month, day):
    return next(one for one in days(f"{year}-{month:02d}-{day:02d}", 7) if one.weekday() == 0)


def bank_holidays(year):
    """Holidays of England and Wales by their rules, but for those proclaimed once."""
    easter = dt.date.fromisoformat(f"{year}-{EASTER[year]}")
    found = {easter - dt.timedelta(2), easter + dt.timedelta(1)}
    found |= {first_monday(year, month, day) for month, day in ((5, 1), (5, 25), (8, 25))}
    for month, day in ((1, 1), (12, 25), (12, 26)):
        # A holiday on a weekend, or on another one, is made up for on the next working day.
        candidates = days(f"{year}-{month:02d}-{day:02d}", 6)
        found.add(next(one for one in candidates if one.weekday() < 5 and one not in found))
    return found


PROCLAIMED = {
    2020: ({dt.date(2020, 5, 8)}, {dt.date(2020, 5, 4)}),
    2022: ({dt.date(2022, 6, 2), dt.date(2022, 6, 3), dt.date(2022, 9, 19)}, {dt.date(2022, 5, 30)}),
    2023: ({dt.date(2023, 5, 8)}, set()),
}


@pytest.mark.parametrize("year", range(2019, 2028))
def test_british_holidays_are_those_of_the_rules_and_the_proclamations(year):
    table = tables()[0]
    added, moved = PROCLAIMED.get(year, (set(), set()))
    listed = {one for one in days(f"{year}-01-01", 365) if one.weekday() < 5 and not table.is_free(one)}
    assert listed == (bank_holidays(year) | added) - moved


def test_a_payment_at_once_is_named_beside_the_days():
    found = statutory(UK, days("2026-06-01", 4), 3000, "GBP")
    assert found.basis == "uk_automatic_compensation@2026: 10.34 GBP at once, 2 days of total loss = 31.02 GBP"
    found = statutory(DE, days("2026-06-01", 4), 3000, "EUR")
    assert found.basis == "de_tkg_58@2021: 2 days of total loss = 10.00 EUR"
