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
        (UK, "2026-06-01", 2, 3000, None),  # Monday and Tuesday: two full working days
        (UK, "2026-06-01", 4, 3000, 2 * 1034),
        (UK, "2026-06-05", 5, 3000, 1034),  # Friday, a weekend, Monday: free; Tuesday is paid
        (UK, "2024-06-03", 3, 3000, 976),
        (UK, "2019-06-03", 3, 3000, 800),
        (UK, "2021-06-07", 3, 3000, 806),
        (UK, "2022-06-06", 3, 3000, 840),
        (UK, "2023-06-05", 3, 3000, 933),
        (UK, "2025-06-02", 3, 3000, 998),
        (UK, "2026-03-31", 4, 3000, 2 * 998),  # a new amount is for losses that begin under it
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
        (UK, "2026-06-01T09:00", "2026-06-05T23:59", days("2026-06-02", 3)),
        (UK, "2026-06-01T23:59", "2026-06-02T23:59", []),
        (DE, "2026-06-01T23:30", "2026-06-04T23:00", days("2026-06-03", 2)),  # it is the second there already
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
