"""What law or a published scheme pays for a total loss of service: dated tables, as data.

These sums are paid by others' rules, whatever we offer. Goodwill for the same trouble is what it is worth beyond them
(`credits.credit`, `statutory_minor`), so that the two never add up.
"""

import datetime as dt
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from detectors.remedies.catalogue import RemedyTerms
from schemas.alerts import Credit
from schemas.money import money_text, share


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """From day `day` of the paid loss on: so much a day, or `fee_percent` of the monthly fee if that is more."""

    day: int
    amount_minor: int
    fee_percent: int = 0


class StatutoryTable(Struct, frozen=True, forbid_unknown_fields=True):
    """One table; the attributes are explained at the top of `statutory.toml`."""

    id: str
    currency: str
    begins: dt.date = msgspec.field(name="from")
    free_days: int
    working: bool
    zone: str
    step: list[Step]
    source: str
    initial_minor: int = 0
    until: dt.date | None = None

    def holds_on(self, day: dt.date) -> bool:
        """Tell whether a day's loss is paid by this table."""
        return self.begins <= day and (self.until is None or day <= self.until)

    def is_free(self, day: dt.date) -> bool:
        """Tell whether a day counts among the free ones."""
        return not self.working or (day.weekday() < 5 and day not in _holidays(self.zone))

    def daily_minor(self, paid_day: int, fee_minor: int) -> int:
        """Return what the n-th day of loss is worth, counted from 1 after the free ones."""
        due = [step for step in self.step if step.day <= paid_day]
        return max(due[-1].amount_minor, share(max(fee_minor, 0), due[-1].fee_percent, 100)) if due else 0


@cache
def tables() -> tuple[StatutoryTable, ...]:
    """Return every table that is on record, oldest first within a scheme."""
    return tuple(msgspec.convert(_file()["table"], list[StatutoryTable]))


@cache
def _file() -> dict[str, Any]:
    text = resources.files("detectors.remedies").joinpath("statutory.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def _holidays(zone: str) -> frozenset[dt.date]:
    return frozenset(_file()["holidays"].get(zone, ()))


def scheme_names() -> tuple[str, ...]:
    """Return the schemes: the ids without their versions."""
    return tuple(dict.fromkeys(table.id.partition("@")[0] for table in tables()))


def terms() -> RemedyTerms:
    """Return the terms under which what is due is told: like a remedy's, and withheld by nothing."""
    return msgspec.convert(_file()["remedy"], RemedyTerms)


def days_lost(scheme: str, reported_ms: int, until_ms: int, spoke_ms: Sequence[int] = ()) -> list[dt.date]:
    """Return the days that a scheme counts: after the day of the report, wholly within the loss.

    Args:
        scheme: name without version; its tables say when a day begins.
        reported_ms: when the customer reported the loss, which had begun by then.
        until_ms: how long it is known to have lasted.
        spoke_ms: times of calls that got through all the same: the loss was not total until the last of them.
    """
    zone = ZoneInfo(next(one.zone for one in tables() if one.id.startswith(f"{scheme}@")))
    first, behind = (
        dt.datetime.fromtimestamp(at // 1000, zone).toordinal()
        for at in (max([reported_ms, *(at for at in spoke_ms if at <= until_ms)]), until_ms)
    )
    return [dt.date.fromordinal(day) for day in range(first + 1, behind)]


def statutory(scheme: str, lost: list[dt.date], fee_minor: int, currency: str) -> Credit | None:
    """Compute what a scheme pays for a loss of service.

    Args:
        scheme: name without version.
        lost: the days without any service after that of the report, ascending, without gaps.
        fee_minor: the monthly fee.
        currency: the fee's: a scheme pays in its own only.

    Returns:
        The sum with its arithmetic; None: nothing is due, or the amounts of those days are not on record. None is not
        a statement that nothing is owed.
    """
    if not lost:
        return None
    # A new amount is for losses that begin under it, and this one had begun the day before its first whole day.
    begun = lost[0] - dt.timedelta(1)
    table = next((one for one in tables() if one.id.startswith(f"{scheme}@") and one.holds_on(begun)), None)
    if table is None or table.currency != currency:
        return None
    free = counted = paid = total_minor = 0
    for day in lost:
        if free < table.free_days:
            free += table.is_free(day)
            continue
        counted += 1
        amount = table.daily_minor(counted, fee_minor)
        total_minor += amount
        paid += amount > 0
    initial_minor = table.initial_minor if free == table.free_days else 0
    total_minor += initial_minor
    if total_minor == 0:
        return None
    first = f"{money_text(initial_minor, currency)} at once, " if initial_minor else ""
    days = f"{paid} day{'s' if paid != 1 else ''} of total loss"
    return Credit(total_minor, currency, f"{table.id}: {first}{days} = {money_text(total_minor, currency)}")


def described() -> list[dict[str, Any]]:
    """Return the tables as plain values, sources included: what a page or a command shows."""
    return [msgspec.to_builtins(table) for table in tables()]
