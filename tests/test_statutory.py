"""Statutory daily amounts: dated data, computed by the amounts of the day."""

import datetime as dt
from itertools import pairwise

import pytest

from detectors.remedies.credits import Measured, credit, find_rule
from detectors.remedies.statutory import described, scheme_names, statutory, tables

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
        (UK, "2022-06-06", 9, 3000, None),  # the amounts of 2022 are not on record
    ],
)
def test_a_loss_is_paid_by_the_amounts_of_its_day(scheme, first, count, fee, amount):
    found = statutory(scheme, days(first, count), fee, {UK: "GBP", DE: "EUR"}[scheme])
    assert (None if found is None else found.amount_minor) == amount


def test_a_scheme_pays_in_its_own_currency_only():
    assert statutory(DE, days("2026-06-01", 9), 3000, "GBP") is None
    assert statutory(DE, [], 3000, "EUR") is None
    assert statutory("us", days("2026-06-01", 9), 3000, "USD") is None


def test_goodwill_and_statutory_pay_on_one_bill_stay_under_the_cap_together():
    paid = statutory(DE, days("2026-06-01", 4), 3000, "EUR").amount_minor
    assert paid == 1000
    goodwill = credit(find_rule("per_bad_day@1"), 3000, "EUR", Measured(bad_days=12), credited_minor=paid)
    assert goodwill.amount_minor == 500  # half of the fee, less what was paid
    assert credit(find_rule("per_bad_day@1"), 3000, "EUR", Measured(bad_days=12), credited_minor=1500) is None
