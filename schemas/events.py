"""The events Stayline takes: their fields, limits and closed vocabularies.

One struct a type; the class is the contract, and `decode` holds every record against it. Times are integer
Unix milliseconds (UTC), ratios are 0..1, money is an integer in minor units. `None` and absent mean the same:
not known.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

TIME_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999: the last one that RFC 3339 can write."""

COUNT_MAX = 2**53 - 1
"""The largest integer that every JSON reader agrees on (RFC 8259, section 6)."""

TimeMs = Annotated[int, Meta(ge=0, le=TIME_MS_MAX)]
Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
MoneyMinor = Annotated[int, Meta(ge=-COUNT_MAX, le=COUNT_MAX)]
Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]
Measure = Annotated[float, Meta(ge=0.0)]
Mos = Annotated[float, Meta(ge=1.0, le=5.0)]
CallId = Annotated[str, Meta(min_length=1, max_length=128)]
CustomerId = Annotated[str, Meta(min_length=1, max_length=64)]
Place = Annotated[str, Meta(min_length=1, max_length=128)]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]

Direction = Literal["out", "in"]
Releaser = Literal["customer", "peer", "network", "unknown"]
ElementKind = Literal["customer_line", "access_node", "trunk", "sbc", "cell", "region", "probe"]
Metric = Literal[
    "snr_margin_db",
    "sync_kbps",
    "crc_errors",
    "errored_seconds",
    "retrains",
    "rx_power_dbm",
    "utilization_ratio",
    "latency_ms",
    "loss_ratio",
    "registered",
    "packets_dropped_ratio",
]
Topic = Literal["quality", "billing", "cancel", "other"]
ChurnKind = Literal["port_out", "closed"]
Result = Literal[
    "accepted", "declined", "unreachable", "not_needed", "fixed", "contacted", "taken", "released", "snoozed"
]
"""What came of an alert. The last four are what a desk says besides: they were spoken with and there is no answer yet;
somebody has the case, nobody has it any more, it was put off."""
HANDLED: frozenset[Result] = frozenset({"taken", "released", "snoozed"})
"""Results that say who has a case and when: nothing was said to the customer, so there is nothing to learn."""
IncidentStatus = Literal["open", "cleared"]


class Call(Struct, tag_field="type", tag="call", gc=False):
    """One finished call leg of one customer."""

    call_id: CallId
    customer_id: CustomerId
    start_ms: TimeMs
    end_ms: TimeMs
    answer_ms: TimeMs | None = None
    direction: Direction | None = None
    peer_id: str | None = None
    sip_status: Annotated[int, Meta(ge=100, le=699)] | None = None
    q850: Annotated[int, Meta(ge=0, le=1023)] | None = None
    reason: str | None = None
    released_by: Releaser | None = None
    codec: str | None = None
    mos: Mos | None = None
    loss_ratio: Ratio | None = None
    discard_ratio: Ratio | None = None
    burst_ratio: Measure | None = None
    jitter_ms: Measure | None = None
    rtt_ms: Measure | None = None
    packets_received: Count | None = None
    packets_sent: Count | None = None
    silence_ms: Count | None = None
    access_node: Place | None = None
    access_tech: Place | None = None
    cpe_model: Place | None = None
    cpe_firmware: Place | None = None
    trunk: Place | None = None
    sbc: Place | None = None
    region: Place | None = None
    probe_id: Place | None = None


class Media(Struct, tag_field="type", tag="media", gc=False):
    """One report during a call: RTCP XR (RFC 3611), RFC 6035 interval, or a probe's chunk."""

    call_id: CallId
    customer_id: CustomerId
    at_ms: TimeMs
    interval_ms: Count
    codec: str | None = None
    mos: Mos | None = None
    loss_ratio: Ratio | None = None
    discard_ratio: Ratio | None = None
    burst_ratio: Measure | None = None
    jitter_ms: Measure | None = None
    rtt_ms: Measure | None = None
    probe_id: Place | None = None


class Link(Struct, tag_field="type", tag="link", gc=False):
    """One reading of network telemetry."""

    element_kind: ElementKind
    element_id: Place
    at_ms: TimeMs
    metric: Metric
    value: float
    customer_id: CustomerId | None = None


class Profile(Struct, tag_field="type", tag="profile", gc=False):
    """What the business knows of a customer's relationship."""

    customer_id: CustomerId
    at_ms: TimeMs
    plan: str | None = None
    plan_down_mbps: Measure | None = None
    monthly_fee_minor: MoneyMinor | None = None
    currency: Currency | None = None
    tenure_days: Count | None = None
    contract_end_ms: TimeMs | None = None
    segment: str | None = None
    consent: list[str] | None = None
    access_node: Place | None = None
    language: str | None = None


class Contact(Struct, tag_field="type", tag="contact", gc=False):
    """The customer spoke to the carrier."""

    customer_id: CustomerId
    at_ms: TimeMs
    channel: str | None = None
    topic: Topic | None = None


class Usage(Struct, tag_field="type", tag="usage", gc=False):
    """What a customer used and was billed in a period."""

    customer_id: CustomerId
    at_ms: TimeMs
    period_days: Count | None = None
    minutes: Measure | None = None
    data_mb: Measure | None = None
    bill_minor: MoneyMinor | None = None
    currency: Currency | None = None


class Churn(Struct, tag_field="type", tag="churn", gc=False):
    """The customer left: a label."""

    customer_id: CustomerId
    at_ms: TimeMs
    kind: ChurnKind | None = None


class Outcome(Struct, tag_field="type", tag="outcome", gc=False):
    """What came of an alert."""

    alert_id: Place
    at_ms: TimeMs
    result: Result
    remedy_id: str | None = None
    agent_id: str | None = None
    note: str | None = None
    partner_id: str | None = None


class KnownIncident(Struct, tag_field="type", tag="incident", gc=False):
    """A network alarm known to somebody else: a network's management, or another process of the same deployment."""

    incident_id: Place
    element_kind: ElementKind | Literal["cpe_firmware"]
    element_id: Place
    at_ms: TimeMs
    status: IncidentStatus


Business = Profile | Contact | Usage | Churn | Outcome | KnownIncident
"""The rare events, kept as objects: a few a month for each customer."""

Event = Call | Media | Link | Business

TYPES: tuple[str, ...] = (
    "call", "media", "link", "profile", "contact", "usage", "churn", "outcome", "incident",
)  # fmt: skip
