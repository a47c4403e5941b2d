"""Credits for bad service: named, versioned rules over what was measured.

No surveyed tariff or law pays for isolated dropped calls, so these are goodwill, patterned on what exists for
interruptions: a thirtieth of the monthly rate a day, a 720th an hour. Statutory compensation is somebody else's
sum; what it paid on the same bill counts against the cap, so that the two never add up.
"""

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

from schemas.alerts import Credit
from schemas.errors import ConfigError
from schemas.money import money_text, share

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

CAP_PERCENT: Final = 50
"""Credits on one bill reach at most half of the monthly fee: the rest of the service, most days and the data, was
there. An assumption; a deployment's tariff may say otherwise."""


class Interruption(Struct, frozen=True):
    """One bad call, from its start to its end, or one outage. Unix milliseconds, `start_ms` <= `end_ms`."""

    start_ms: int
    end_ms: int


class Measured(Struct, frozen=True):
    """How much bad service there was.

    Attributes:
        bad_calls: how many bad calls.
        bad_days: days on which at least one of them ended.
        interrupted_ms: time covered by them; where they overlap it counts once.
    """

    bad_calls: int = 0
    bad_days: int = 0
    interrupted_ms: int = 0


def measure(interruptions: Iterable[Interruption], utc_offset_minutes: int = 0) -> Measured:
    """Count calls, days and time.

    A call belongs to the day on which it ended, as that is when it went bad.

    Args:
        interruptions: in any order.
        utc_offset_minutes: local time minus UTC; local midnight parts the days. One fixed offset: on the two days
            of a clock change a call within an hour of midnight may fall on the neighbouring day.

    Raises:
        ValueError: if an interruption ends before it starts.
    """
    found = sorted(interruptions, key=lambda each: (each.start_ms, each.end_ms))
    covered_ms, until_ms = 0, None
    for each in found:
        if each.end_ms < each.start_ms:
            raise ValueError(f"end_ms must be at least start_ms {each.start_ms}, was {each.end_ms}")
        begin_ms = each.start_ms if until_ms is None else max(each.start_ms, until_ms)
        covered_ms += max(each.end_ms - begin_ms, 0)
        until_ms = each.end_ms if until_ms is None else max(each.end_ms, until_ms)
    days = {(each.end_ms + utc_offset_minutes * 60_000) // DAY_MS for each in found}
    return Measured(len(found), len(days), covered_ms)


class CreditRule(Struct, frozen=True):
    """What a unit of bad service is worth: one part in `parts` of the monthly fee.

    Attributes:
        name, version: together the rule's id; a changed amount is a new version.
        unit: the field of `Measured` that is paid for.
        parts: units that are worth the whole monthly fee.
        least: below so many units nothing is paid.
    """

    name: str
    version: int
    unit: Literal["bad_calls", "bad_days", "interrupted_ms"]
    parts: int
    least: int = 1

    @property
    def rule_id(self) -> str:
        """The id under which catalogues and credits name the rule."""
        return f"{self.name}@{self.version}"


RULES: Final = {
    rule.rule_id: rule
    for rule in (
        CreditRule("per_bad_day", 1, "bad_days", 30),
        # One thirtieth of the monthly rate a day: the form US operators' tariffs use per 24 h or fraction.
        CreditRule("pro_rata", 1, "interrupted_ms", 720 * HOUR_MS, least=HOUR_MS),
        # 720 hours in 30 days, paid from one hour of interruption: the common pro-rata clause of service contracts.
        CreditRule("per_call", 1, "bad_calls", 300),
        # A tenth of a day's fee a call: an assumption, no published amount for single calls is in force.
    )
}
"""Every rule by its id. Old versions stay, so that an old credit can be computed again."""


def find_rule(rule_id: str) -> CreditRule:
    """Return the rule with this id.

    Raises:
        ConfigError: if there is none.
    """
    rule = RULES.get(rule_id)
    if rule is None:
        raise ConfigError([f"a credit rule must be one of {', '.join(RULES)}, was {rule_id!r}"])
    return rule


def credit(
    rule: CreditRule,
    fee_minor: int | None,
    currency: str | None,
    measured: Measured,
    *,
    credited_minor: int = 0,
    statutory_minor: int = 0,
    cap_percent: int = CAP_PERCENT,
    call_ids: tuple[str, ...] = (),
) -> Credit | None:
    """Compute a fair credit.

    The amount is units x fee / parts, rounded half up to the minor unit, and never above what is left of the cap,
    which is rounded down.

    Args:
        rule: how it is computed.
        fee_minor: the monthly fee; a negative one counts as none.
        currency: the fee's.
        measured: the bad service.
        credited_minor: what the same bill already credits, statutory compensation included.
        statutory_minor: what law or a scheme pays for this very trouble: of the rule's amount what is beyond it is due.
        cap_percent: most that one bill may credit, in percent of the monthly fee.
        call_ids: the calls that justify it.

    Returns:
        The credit with its arithmetic, or None: the fee or its currency is not known, or nothing is due.
    """
    if fee_minor is None or currency is None:
        return None
    units = getattr(measured, rule.unit)
    if units < rule.least:
        return None
    full_minor = share(max(fee_minor, 0), units, rule.parts)
    beyond_minor = full_minor - statutory_minor
    room_minor = max(max(fee_minor, 0) * cap_percent // 100 - max(credited_minor, 0) - statutory_minor, 0)
    amount_minor = min(beyond_minor, room_minor)
    if amount_minor <= 0:
        return None
    basis = f"{rule.rule_id}: {_arithmetic(rule, units, fee_minor, currency)} = {money_text(full_minor, currency)}"
    if statutory_minor > 0:
        basis += f", less {money_text(statutory_minor, currency)} due by law"
    if amount_minor < beyond_minor:
        basis += f", capped at {money_text(amount_minor, currency)}: {cap_percent}% of the monthly fee a bill"
        if credited_minor > 0:
            basis += f", less {money_text(credited_minor, currency)} already credited"
    return Credit(amount_minor=amount_minor, currency=currency, basis=basis, calls=list(call_ids))


_WORDS: Final = {"bad_calls": ("bad call", "bad calls"), "bad_days": ("day with bad calls", "days with bad calls")}


def _arithmetic(rule: CreditRule, units: int, fee_minor: int, currency: str) -> str:
    fee = money_text(fee_minor, currency)
    if rule.unit == "interrupted_ms":
        return f"{units / HOUR_MS:.2f} hours of interruption x {fee} / {rule.parts // HOUR_MS}"
    return f"{units} {_WORDS[rule.unit][units > 1]} x {fee} / {rule.parts}"
