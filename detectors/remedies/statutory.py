"""What law or a published scheme pays for a total loss of service: dated tables, as data.

These sums are paid by others' rules, whatever we offer; goodwill for the same bill is what remains under its cap
(`credits.credit`, `credited_minor`), so that the two never add up.
"""

import datetime as dt
import tomllib
from functools import cache
from importlib import resources
from typing import Any

import msgspec
from msgspec import Struct

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
    step: list[Step]
    source: str
    until: dt.date | None = None

    def holds_on(self, day: dt.date) -> bool:
        """Tell whether a day's loss is paid by this table."""
        return self.begins <= day and (self.until is None or day <= self.until)

    def daily_minor(self, paid_day: int, fee_minor: int) -> int:
        """Return what the n-th day of loss is worth, counted from 1 after the free ones."""
        due = [step for step in self.step if step.day <= paid_day]
        return max(due[-1].amount_minor, share(max(fee_minor, 0), due[-1].fee_percent, 100)) if due else 0


@cache
def tables() -> tuple[StatutoryTable, ...]:
    """Return every table that is on record, oldest first within a scheme."""
    text = resources.files("detectors.remedies").joinpath("statutory.toml").read_text(encoding="utf-8")
    return tuple(msgspec.convert(tomllib.loads(text)["table"], list[StatutoryTable]))


def scheme_names() -> tuple[str, ...]:
    """Return the schemes: the ids without their versions."""
    return tuple(dict.fromkeys(table.id.partition("@")[0] for table in tables()))


def statutory(scheme: str, lost: list[dt.date], fee_minor: int, currency: str) -> Credit | None:
    """Compute what a scheme pays for a loss of service.

    Args:
        scheme: name without version.
        lost: the days without any service, ascending, without gaps.
        fee_minor: the monthly fee.
        currency: the fee's: a scheme pays in its own only.

    Returns:
        The sum with its arithmetic; None: nothing is due, or the amounts of those days are not on record. None is not
        a statement that nothing is owed.
    """
    total_minor, used = 0, dict[str, int]()
    whole = counted = 0
    for day in lost:
        table = next((one for one in tables() if one.id.startswith(f"{scheme}@") and one.holds_on(day)), None)
        if table is None or table.currency != currency:
            return None
        counts_as_free = not table.working or day.weekday() < 5
        if whole < table.free_days:
            whole += counts_as_free
            continue
        counted += 1
        amount = table.daily_minor(counted, fee_minor)
        if amount:
            total_minor += amount
            used[table.id] = used.get(table.id, 0) + 1
    if total_minor == 0:
        return None
    days = ", ".join(f"{name}: {count} day{'s' if count > 1 else ''}" for name, count in used.items())
    return Credit(total_minor, currency, f"{days} of total loss = {money_text(total_minor, currency)}")


def described() -> list[dict[str, Any]]:
    """Return the tables as plain values, sources included: what a page or a command shows."""
    return [msgspec.to_builtins(table) for table in tables()]
