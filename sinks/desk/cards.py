"""What the desk's store gives and takes: cases, changes, contacts, and what can be asked for."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.alerts import Alert, Band, Incident, Notification, NotificationType, PatternKind, Severity
from schemas.events import Result

SEVERITIES: tuple[Severity, ...] = ("minor", "major", "critical")
"""From least to worst; the index is what the store ranks by."""

RESULTS_OPEN: tuple[Result, ...] = ("unreachable",)
"""After these the customer is still to be called."""

Show = Literal["to_call", "contacted", "resolved", "all"]
"""Open and not spoken to yet; open and spoken to; over; everything."""


class Filter(Struct, frozen=True, kw_only=True):
    """Which cases to list; None is any.

    Attributes:
        customer: beginning of the customer's token.
    """

    show: Show = "to_call"
    severity: Severity | None = None
    kind: PatternKind | None = None
    band: Band | None = None
    customer: Annotated[str, Meta(max_length=64)] | None = None


class Card(Struct, frozen=True):
    """A case as it is shown: its newest revision.

    Attributes:
        seq: feed sequence; drawn anew whenever something about the case changes.
        type: of the newest notification.
        time_ms: event time of the newest notification.
        last_result: how the last contact ended, None before any.
    """

    seq: int
    type: NotificationType
    time_ms: int
    last_result: Result | None
    alert: Alert

    @property
    def is_open(self) -> bool:
        """Whether the trouble goes on."""
        return is_open(self.type)


class Contact(Struct, frozen=True):
    """One outcome that was recorded on a case; `number` counts 1, 2, 3... within the case."""

    number: int
    at_ms: int
    result: Result
    remedy_id: str | None


class Revision(Struct, frozen=True):
    """A case as one notification told it."""

    type: NotificationType
    time_ms: int
    alert: Alert


class CaseFile(Struct, frozen=True):
    """All that is kept of one case: `revisions` newest first, `contacts` in the order they were recorded."""

    card: Card
    revisions: list[Revision]
    contacts: list[Contact]


class Change(Struct, frozen=True):
    """A case or an incident that changed, for the live feed. `severity` is None for an incident."""

    seq: int
    case_id: str
    type: NotificationType
    revision: int
    severity: Severity | None


class Counts(Struct, frozen=True):
    """The desk in numbers.

    Attributes:
        severity: cases to call, by severity.
        value_minor: what is at risk in the cases to call, by currency.
        customers_affected: by the open incidents.
    """

    to_call: int
    contacted: int
    resolved: int
    incidents: int
    customers_affected: int
    severity: dict[Severity, int]
    value_minor: dict[str, int]


class _Envelope(Struct):
    """The part of the CloudEvents envelope that the desk needs."""

    data: msgspec.Raw


_envelopes = msgspec.json.Decoder(_Envelope)
_alerts = msgspec.json.Decoder(Alert)
_incidents = msgspec.json.Decoder(Incident)


def is_open(kind: str) -> bool:
    """Return whether a notification of this type leaves its case open."""
    return kind not in {"stayline.alert.resolved", "stayline.incident.cleared"}


def read_data(notification: Notification) -> tuple[Alert | Incident, bytes]:
    """Return what a notification carries, and the bytes of its `data`.

    Raises:
        ValueError: the body is no envelope of such a notification; the text says why.
    """
    try:
        raw = bytes(_envelopes.decode(notification.body).data)
        data = read_alert(raw) if notification.type.startswith("stayline.alert.") else read_incident(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"body must be an envelope of {notification.type}: {error}") from error
    case = data.alert_id if isinstance(data, Alert) else data.incident_id
    if (case, data.revision) != (notification.case, notification.revision):
        expected, found = f"{notification.case}, {notification.revision}", f"{case}, {data.revision}"
        raise ValueError(f"data must be of case and revision {expected}, was of {found}")
    return data, raw


def read_alert(data: bytes) -> Alert:
    """Decode the `data` of an alert."""
    return _alerts.decode(data)


def read_incident(data: bytes) -> Incident:
    """Decode the `data` of an incident."""
    return _incidents.decode(data)


def columns_of(data: Alert | Incident) -> dict[str, Any]:
    """Return what the store ranks, filters and counts by."""
    if isinstance(data, Incident):
        return {"is_alert": 0, "detected_ms": data.detected_ms}
    return {
        "is_alert": 1,
        "detected_ms": data.detected_ms,
        "customer_id": data.customer_id,
        "severity": SEVERITIES.index(data.severity),
        "kind": data.pattern.kind,
        "band": data.churn.band,
        "value_minor": data.value_at_risk_minor,
        "currency": data.currency,
    }
