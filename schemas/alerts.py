"""What Stayline says: alerts and incidents, as `data` of CloudEvents 1.0 notifications.

The structs mirror the contract field by field; `notification` puts one in its envelope.
"""

import datetime as dt
from typing import Any, Literal

import orjson
from msgspec import Struct, to_builtins

Severity = Literal["minor", "major", "critical"]
PatternKind = Literal[
    "drop_rate",
    "duration_lock",
    "time_of_day",
    "route",
    "one_way_audio",
    "redial",
    "quality",
    "setup_failure",
    "worsening",
]
Band = Literal["low", "raised", "high"]
NotificationType = Literal[
    "stayline.alert.opened",
    "stayline.alert.updated",
    "stayline.alert.resolved",
    "stayline.incident.opened",
    "stayline.incident.cleared",
]


class Dimension(Struct, frozen=True):
    """Where a pattern lives: `name` is a field of the call, `value` one of its values."""

    name: str
    value: str


class Pattern(Struct, frozen=True):
    """What is wrong, in numbers and in one sentence.

    Attributes:
        text: one sentence that a representative can read aloud; its numbers are the fields'.
        evidence: log10 of the evidence value.
    """

    kind: PatternKind
    text: str
    attempts: int
    answered: int
    drops: int
    drop_ratio: float
    baseline_ratio: float
    evidence: float
    dimension: Dimension | None = None


class Cause(Struct, frozen=True):
    """The likeliest cause; `alternatives` are other kinds, likeliest first."""

    kind: str
    confidence: float
    alternatives: list[str]


class Driver(Struct, frozen=True):
    """One additive contribution to the churn score, in log-odds, with its words."""

    feature: str
    effect: float
    text: str


class ChurnRisk(Struct, frozen=True):
    """How likely the customer is to leave within the horizon, and what moves it."""

    probability: float
    band: Band
    baseline: float
    drivers: list[Driver]
    model: str


class Credit(Struct, frozen=True):
    """A fair credit: `basis` names the versioned rule and shows its arithmetic.

    Attributes:
        calls: ids of calls that justify it, the newest of them.
    """

    amount_minor: int
    currency: str
    basis: str
    calls: list[str] = []


class Remedy(Struct, frozen=True):
    """Something to offer: what to say, why, what it costs, what it should gain.

    Attributes:
        needs_approval: it costs more than a representative may give without a supervisor.
        partner_id: who carries it out best, where partners are known.
    """

    remedy_id: str
    title: str
    say: str
    why: str
    cost_minor: int
    expected_gain_minor: int
    credit: Credit | None = None
    needs_approval: bool = False
    partner_id: str | None = None


class Choice(Struct, frozen=True):
    """Which of the remedies to put to the customer first, and how that was chosen.

    Attributes:
        action: a remedy's id; `leave_alone`: nothing is offered, because nothing is expected to help more than it
            costs, or because so it was drawn; `hold_out`: the customer is in the comparison group, which is offered
            repairs alone.
        propensity: with what probability this was chosen, for later evaluation.
        text: one sentence for the representative.
    """

    action: str
    propensity: float
    text: str


class FollowUp(Struct, frozen=True):
    """A remedy that was accepted or carried out, and what the customer's calls say of it.

    Attributes:
        verdict: `watching`; `failed`: calls went on being bad, so the next remedy is due.
    """

    remedy_id: str
    since_ms: int
    until_ms: int
    verdict: Literal["watching", "failed"]


class Order(Struct, frozen=True):
    """A remedy that the customer has accepted, to be carried out.

    Attributes:
        order_id: the same for the same case and remedy.
        needs_approval: a supervisor has to agree first.
    """

    order_id: str
    remedy_id: str
    title: str
    ordered_ms: int
    cost_minor: int
    credit: Credit | None = None
    needs_approval: bool = False
    partner_id: str | None = None


class CallEvidence(Struct, frozen=True):
    """One of the calls that show the trouble."""

    call_id: str
    end_ms: int
    outcome: str
    duration_ms: int
    mos: float | None = None


class GoodCall(Struct, frozen=True):
    """One of the answered calls that were fine since the trouble began."""

    end_ms: int
    duration_ms: int
    mos: float | None = None


class Alert(Struct, frozen=True):
    """The life of one case, as it stands at this revision.

    `region` and `segment` say where the customer belongs, so that outputs can be routed by them; None: not known.
    `value_basis` shows the arithmetic and the assumptions behind the value at risk. `previous_alert_id` is the case
    whose remedy did not hold. `good_calls` are the newest, up to 10.
    """

    alert_id: str
    revision: int
    customer_id: str
    severity: Severity
    detected_ms: int
    since_ms: int
    pattern: Pattern
    cause: Cause
    incident_id: str | None
    churn: ChurnRisk
    value_at_risk_minor: int | None
    currency: str | None
    remedies: list[Remedy]
    calls: list[CallEvidence]
    region: str | None = None
    segment: str | None = None
    value_basis: str | None = None
    choice: Choice | None = None
    follow_up: FollowUp | None = None
    order: Order | None = None
    previous_alert_id: str | None = None
    good_calls: list[GoodCall] = []


class Incident(Struct, frozen=True):
    """A shared fault of one network element, or a measurement fault of one probe."""

    incident_id: str
    revision: int
    element_kind: str
    element_id: str
    detected_ms: int
    since_ms: int
    cleared_ms: int | None
    customers_affected: int
    drops: int
    attempts: int
    drop_ratio: float
    baseline_ratio: float
    evidence: float
    text: str


class Notification(Struct, frozen=True):
    """One message to the outside, ready to be sent: the same bytes on every retry and after every restart.

    Attributes:
        id: unique per notification; a function of the case and its revision alone.
        case: `alert_id` or `incident_id`: messages of one case stay in order.
        revision: the case's revision that this message carries.
        time_ms: event time.
        body: the CloudEvents envelope as UTF-8 JSON.
    """

    id: str
    type: NotificationType
    case: str
    revision: int
    time_ms: int
    body: bytes


def rfc3339(time_ms: int) -> str:
    """Write a Unix time in milliseconds as RFC 3339, UTC, with milliseconds."""
    moment = dt.datetime.fromtimestamp(time_ms // 1000, tz=dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


def notification(deployment: str, kind: NotificationType, time_ms: int, data: Alert | Incident) -> Notification:
    """Put an alert or an incident into its envelope.

    Args:
        deployment: the configured name; part of `source`.
        kind: the notification's type.
        time_ms: event time of what caused it.
        data: the case as it stands.
    """
    if isinstance(data, Alert):
        case, subject = data.alert_id, data.customer_id
    else:
        case, subject = data.incident_id, data.element_id
    identity = f"{case}-{data.revision}"
    envelope: dict[str, Any] = {
        "specversion": "1.0",
        "id": identity,
        "source": f"/stayline/{deployment}",
        "type": kind,
        "time": rfc3339(time_ms),
        "subject": subject,
        "datacontenttype": "application/json",
        "data": to_builtins(data),
    }
    return Notification(identity, kind, case, data.revision, time_ms, orjson.dumps(envelope))
