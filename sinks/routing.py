"""Which notifications an output sends, which it leaves out, and which it holds back for a while.

Pure: the decision is a function of the notification, the rule, what the output was told before, and the time. That
time is the wall clock's, not the event's: quiet hours and caps protect people, and whoever is called at three in the
night does not care when the trouble began. Nothing is ever dropped by a hold; it stays in the outbox, counted.
"""

import datetime as dt
import functools
import zoneinfo
from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta, Struct

from schemas.alerts import Band, Notification, Severity
from schemas.errors import StaylineError

DAY_MS = 86_400_000
SEVERITIES: tuple[Severity, ...] = ("minor", "major", "critical")
"""From the least to the worst."""

MAJOR_RATIO, CRITICAL_RATIO = 0.25, 0.5
"""An incident has no severity of its own: it is judged by the share of calls that drop, at the marks that a case has
(`detectors.casebook`). A measurement fault is minor: the calls were fine."""

UNKNOWN = "unknown"
"""Stands for a region or segment that a notification does not tell: a list that names it takes those too."""

HoldReason = Literal["quiet_hours", "contact_cap"]


class UnreadableError(StaylineError):
    """A notification's body is not what the contract promises, so nothing can be decided or made of it."""


class QuietHours(Struct, frozen=True):
    """Hours of every day in which nothing is pushed.

    Attributes:
        begin_minute, end_minute: minutes since midnight, local time; the end is open. An end before the begin lies on
            the next day.
        zone: an IANA time zone.
    """

    begin_minute: int
    end_minute: int
    zone: str


class ContactCap(Struct, frozen=True):
    """At most so many contacts about one customer in any window of so many days.

    A contact is the first push of a case; what follows in the case is none.
    """

    contacts_max: Annotated[int, Meta(ge=1)]
    days: Annotated[int, Meta(ge=1)]


class Rule(Struct, frozen=True):
    """What one output wants. An empty set takes all.

    Attributes:
        types: of the notification.
        severity_min: the least severity.
        regions: of the customer or element; see `UNKNOWN`.
        segments, bands: of the customer. An incident has neither, and passes.
    """

    types: frozenset[str] = frozenset()
    severity_min: Severity = "minor"
    regions: frozenset[str] = frozenset()
    segments: frozenset[str] = frozenset()
    bands: frozenset[Band] = frozenset()
    quiet: QuietHours | None = None
    cap: ContactCap | None = None


class Facts(Struct, frozen=True):
    """What routing must know of a notification.

    Attributes:
        customer_id, segment, band: None for an incident; the segment also where it is not known.
        region: None where it is not known.
    """

    type: str
    severity: Severity
    customer_id: str | None
    region: str | None
    segment: str | None
    band: Band | None


class Standing(Struct, frozen=True):
    """What the output was told before.

    Attributes:
        told: an earlier revision of the case was delivered.
        contacts_ms: when cases of the same customer were first delivered, any order.
    """

    told: bool = False
    contacts_ms: tuple[int, ...] = ()


class Decision(Struct, frozen=True):
    """Send it, skip it for good, or hold it until `until_ms` and decide again."""

    verb: Literal["send", "hold", "skip"]
    until_ms: int = 0
    reason: HoldReason | None = None


SEND, SKIP = Decision("send"), Decision("skip")


def route(facts: Facts, rule: Rule, standing: Standing, now_ms: int) -> Decision:
    """Decide what becomes of a notification at an output.

    `types` is asked of every notification. Everything else is asked of a case only until its first revision is
    delivered: a receiver that knows a case hears how it goes on and ends, whatever it has become meanwhile.

    Args:
        facts: of the notification.
        rule: the output's.
        standing: what the output was told before.
        now_ms: the wall clock, Unix milliseconds.
    """
    if rule.types and facts.type not in rule.types:
        return SKIP
    if not standing.told and not _wanted(facts, rule):
        return SKIP
    if rule.quiet is not None and (end_ms := quiet_until_ms(rule.quiet, now_ms)) > now_ms:
        return Decision("hold", end_ms, "quiet_hours")
    if rule.cap is not None and facts.customer_id is not None and not standing.told:
        free_ms = _cap_until_ms(rule.cap, standing.contacts_ms, now_ms)
        if free_ms > now_ms:
            return Decision("hold", free_ms, "contact_cap")
    return SEND


def _wanted(facts: Facts, rule: Rule) -> bool:
    if SEVERITIES.index(facts.severity) < SEVERITIES.index(rule.severity_min):
        return False
    if rule.regions and _known(facts.region) not in rule.regions:
        return False
    if facts.customer_id is None:
        return True
    if rule.segments and _known(facts.segment) not in rule.segments:
        return False
    return not rule.bands or facts.band in rule.bands


def _known(name: str | None) -> str:
    return UNKNOWN if name is None else name


def _cap_until_ms(cap: ContactCap, contacts_ms: tuple[int, ...], now_ms: int) -> int:
    """Return when one more contact is allowed: `now_ms` or later."""
    window_ms = cap.days * DAY_MS
    recent = sorted(at_ms for at_ms in contacts_ms if at_ms > now_ms - window_ms)
    return now_ms if len(recent) < cap.contacts_max else recent[-cap.contacts_max] + window_ms


def quiet_until_ms(quiet: QuietHours, now_ms: int) -> int:
    """Return the first time from `now_ms` on that is not quiet."""
    minute = now_ms // 60_000
    end = _quiet_until_minute(quiet, minute)
    return now_ms if end == minute else 60_000 * end


@functools.lru_cache(maxsize=64)
def _quiet_until_minute(quiet: QuietHours, minute: int) -> int:
    # Minute by minute: right by construction on days that have 23 or 25 hours, and asked once a minute.
    while _is_quiet(quiet, minute):
        minute += 1
    return minute


def _is_quiet(quiet: QuietHours, minute: int) -> bool:
    local = _local_minute(quiet.zone, minute)
    if quiet.begin_minute <= quiet.end_minute:
        return quiet.begin_minute <= local < quiet.end_minute
    return local >= quiet.begin_minute or local < quiet.end_minute


def _local_minute(zone: str, minute: int) -> int:
    """Return the minute of the local day at a Unix minute."""
    moment = dt.datetime.fromtimestamp(60 * minute, tz=zoneinfo.ZoneInfo(zone))
    return 60 * moment.hour + moment.minute


class _Churn(Struct):
    band: Band


class _Dimension(Struct):
    name: str
    value: str


class _Pattern(Struct):
    dimension: _Dimension | None = None


class _Data(Struct):
    customer_id: str | None = None
    severity: Severity | None = None
    region: str | None = None
    segment: str | None = None
    churn: _Churn | None = None
    pattern: _Pattern | None = None
    element_kind: str | None = None
    element_id: str | None = None
    drop_ratio: float = 0.0


class _Envelope(Struct):
    data: _Data


_DECODER = msgspec.json.Decoder(_Envelope)


def facts_of(notification: Notification) -> Facts:
    """Read what routing must know.

    Raises:
        UnreadableError: the body is not what the contract promises.
    """
    try:
        data = _DECODER.decode(notification.body).data
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableError(f"body must be a notification of the contract, found: {error}") from error
    is_alert = notification.type.startswith("stayline.alert.")
    if is_alert and (data.customer_id is None or data.severity is None):
        raise UnreadableError("data of an alert must have customer_id and severity, found none")
    return Facts(
        type=notification.type,
        severity=cast("Severity", data.severity)
        if is_alert
        else incident_severity(data.element_kind or "", data.drop_ratio),
        customer_id=data.customer_id if is_alert else None,
        region=_region(data),
        segment=data.segment if is_alert else None,
        band=data.churn.band if is_alert and data.churn is not None else None,
    )


def incident_severity(element_kind: str, drop_ratio: float) -> Severity:
    """Judge an incident: see `MAJOR_RATIO`."""
    if element_kind == "probe" or drop_ratio < MAJOR_RATIO:
        return "minor"
    return "critical" if drop_ratio >= CRITICAL_RATIO else "major"


def _region(data: _Data) -> str | None:
    """Return the region told, or the one that the pattern or the incident lives in."""
    if data.region is not None:
        return data.region
    if data.element_kind == "region":
        return data.element_id
    where = None if data.pattern is None else data.pattern.dimension
    return where.value if where is not None and where.name == "region" else None
