"""What the desk's store gives and takes: cases, changes, what representatives did, and what can be asked for."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.alerts import Alert, Band, Incident, Notification, NotificationType, PatternKind, Severity

SEVERITIES: tuple[Severity, ...] = ("minor", "major", "critical")
"""From least to worst; the index is what the store ranks by."""

Show = Literal["to_call", "contacted", "snoozed", "over", "all"]
"""Open and not spoken to yet; open and spoken to; put off until later; over; everything."""

Token = Annotated[str, Meta(max_length=64)]


class Filter(Struct, frozen=True, kw_only=True):
    """Which cases to list; None is any.

    Attributes:
        customer: beginning of the customer's token.
        incident: identity of the incident that covers the case.
        owner: who took the case.
    """

    show: Show = "to_call"
    severity: Severity | None = None
    kind: PatternKind | None = None
    band: Band | None = None
    region: Annotated[str, Meta(max_length=128)] | None = None
    customer: Token | None = None
    incident: Annotated[str, Meta(max_length=128)] | None = None
    owner: Annotated[str, Meta(max_length=256)] | None = None


class Rank(Struct, frozen=True, array_like=True):
    """The place of a case in a list: where the next page goes on."""

    value: int
    severity: int
    detected_ms: int
    case_id: str


class Card(Struct, frozen=True):
    """A case as it is shown: its newest revision, and how it stands with the team.

    Attributes:
        seq: feed sequence; drawn anew whenever something about the case changes.
        type: of the newest notification.
        time_ms: event time of the newest notification.
        stage: `to_call`, `contacted` or `over`.
        snoozed_ms: not to be called before this time; 0: at once.
        owner: who took it; empty: nobody.
        actions: how many actions were recorded.
        last_action: the latest one, empty before any.
    """

    seq: int
    type: NotificationType
    time_ms: int
    stage: str
    snoozed_ms: int
    owner: str
    actions: int
    last_action: str
    alert: Alert

    @property
    def is_open(self) -> bool:
        """Whether the trouble goes on."""
        return is_open(self.type)

    @property
    def rank(self) -> Rank:
        """Its place in a list."""
        value = self.alert.value_at_risk_minor
        severity = SEVERITIES.index(self.alert.severity)
        return Rank(-1 if value is None else value, severity, self.alert.detected_ms, self.alert.alert_id)


class Revision(Struct, frozen=True):
    """A case as one notification told it."""

    type: NotificationType
    time_ms: int
    alert: Alert


class Action(Struct, frozen=True):
    """What somebody did about a case.

    Attributes:
        number: counts 1, 2, 3... within the case.
        who: the person's or the key's name.
        until_ms: of a snooze, its end; else 0.
    """

    seq: int
    alert_id: str
    number: int
    at_ms: int
    who: str
    what: str
    remedy_id: str | None
    until_ms: int


class CaseFile(Struct, frozen=True):
    """All that is kept of one case: `revisions` newest first, `actions` in the order they were done."""

    card: Card
    revisions: list[Revision]
    actions: list[Action]


class Change(Struct, frozen=True):
    """A case or an incident that changed, for the live feed. `severity` is None for an incident."""

    seq: int
    case_id: str
    type: NotificationType
    revision: int
    severity: Severity | None
    last_action: str
    owner: str


class Counts(Struct, frozen=True):
    """The desk in numbers.

    Attributes:
        stages: cases by stage, the snoozed ones apart.
        mine: cases to call that the asking person took.
        facets: cases to call by severity, kind, band and region.
        value_minor: what is at risk in the cases to call, by currency.
        customers_affected: by the open incidents.
    """

    stages: dict[str, int]
    mine: int
    facets: dict[str, dict[str, int]]
    value_minor: dict[str, int]
    incidents: int
    customers_affected: int

    @property
    def to_call(self) -> int:
        """Cases to call."""
        return self.stages.get("to_call", 0)


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
        empty = dict.fromkeys(("customer_id", "kind", "band", "region", "incident_id", "currency"), "")
        return {**empty, "is_alert": 0, "severity": -1, "value_rank": -1, "detected_ms": data.detected_ms}
    value = data.value_at_risk_minor
    return {
        "is_alert": 1,
        "detected_ms": data.detected_ms,
        "customer_id": _searchable(data.customer_id),
        "severity": SEVERITIES.index(data.severity),
        "kind": data.pattern.kind,
        "band": data.churn.band,
        "region": _searchable(data.region),
        "incident_id": _searchable(data.incident_id),
        "value_rank": -1 if value is None or data.currency is None else value,
        "currency": _searchable(data.currency),
    }


def _searchable(text: str | None) -> str:
    """Return a text as a column holds it: PostgreSQL's has no NUL. Such a case is shown, and not found by it."""
    return "" if text is None else text.replace("\0", "\N{REPLACEMENT CHARACTER}")
