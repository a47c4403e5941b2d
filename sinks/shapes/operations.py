"""Tools of those who run the network: PagerDuty and Alertmanager. Both carry alerts and incidents.

Sources: PagerDuty developer documentation, "Events API v2 overview" and "Send an alert event"; Alertmanager's
`api/v2/openapi.yaml`, definition `postableAlerts` (API version 0.0.1).

`pagerduty` is for `POST https://events.pagerduty.com/v2/enqueue`. The case is `dedup_key`: a revision joins the alert
that the first one opened, the end resolves it.

`alertmanager` is for `POST .../api/v2/alerts`. Labels are an alert's identity there, so they hold only what never
changes in a case; severity, which may rise, is an annotation. Alertmanager forgets an alert whose end has come, and
takes one without an end for over after `resolve_timeout`; nothing is sent again while a case stands still, so an open
one is given an end `FIRING_MS` ahead of its newest revision. It keeps alerts in memory alone: use it to notify.

| | pagerduty | alertmanager |
|---|---|---|
| opened, updated | trigger | firing |
| resolved, cleared | resolve | `endsAt` is the event's time |
| critical, major, minor, a lying probe | critical, error, warning, info | annotation `severity` |
"""

from typing import Any

from schemas.alerts import Alert, Severity, rfc3339
from sinks.shapes.reading import JSON, Message, Shape, cut, encode, of_all, read

DAY_MS = 86_400_000
FIRING_MS = 30 * DAY_MS
"""Twice as long as a case goes on without a bad call (`detectors.casebook`)."""

SUMMARY_CHARS_MAX = 1_024
DEDUP_KEY_CHARS_MAX = 255
"""PagerDuty, "Send an alert event"."""

SEVERITIES: dict[Severity, str] = {"critical": "critical", "major": "error", "minor": "warning"}


def pagerduty(routing_key: str) -> Shape:
    """Return the shape for one integration of PagerDuty.

    Args:
        routing_key: its integration key: a secret, which the body holds.
    """

    def build(message: Message) -> dict[str, Any]:
        return {"routing_key": routing_key, **_event(message)}

    return Shape("pagerduty", JSON, lambda notification: encode(build(read(notification))))


def _event(message: Message) -> dict[str, Any]:
    data = message.data
    kind: str
    if isinstance(data, Alert):
        kind, dimension = data.pattern.kind, data.pattern.dimension
        component = None if dimension is None else f"{dimension.name} {dimension.value}"
        details: dict[str, Any] = {"cause": data.cause.kind, "churn_band": data.churn.band}
        is_probe = False
    else:
        kind, component = data.element_kind, data.element_id
        details = {"customers_affected": data.customers_affected, "drop_ratio": data.drop_ratio}
        is_probe = data.element_kind == "probe"
    return {
        "event_action": "resolve" if message.is_over else "trigger",
        "dedup_key": cut(message.case, DEDUP_KEY_CHARS_MAX),
        "client": "Stayline",
        "payload": {
            "summary": cut(message.text, SUMMARY_CHARS_MAX),
            "source": message.subject,
            "severity": "info" if is_probe else SEVERITIES[message.severity],
            "timestamp": message.time,
            "component": component,
            "group": message.source,
            "class": kind,
            "custom_details": {
                "notification_id": message.id,
                "revision": message.revision,
                "type": message.type,
                "since": rfc3339(data.since_ms),
                **details,
            },
        },
    }


def _alerts(message: Message) -> list[dict[str, Any]]:
    data = message.data
    if isinstance(data, Alert):
        labels = {"alertname": "StaylineAlert", "alert_id": data.alert_id, "customer_id": data.customer_id}
        more = {"cause": data.cause.kind, "churn_band": data.churn.band, "pattern": data.pattern.kind}
    else:
        labels = {
            "alertname": "StaylineIncident",
            "incident_id": data.incident_id,
            "element_kind": data.element_kind,
            "element_id": data.element_id,
        }
        more = {"customers_affected": str(data.customers_affected), "drop_ratio": str(data.drop_ratio)}
    ends_ms = message.time_ms if message.is_over else message.time_ms + FIRING_MS
    return [
        {
            "labels": {**labels, "source": message.source},
            "annotations": {
                "summary": message.text,
                "severity": message.severity,
                "notification_id": message.id,
                "revision": str(message.revision),
                **more,
            },
            "startsAt": rfc3339(data.since_ms),
            # Alertmanager refuses an end before the start.
            "endsAt": rfc3339(max(ends_ms, data.since_ms)),
        }
    ]


ALERTMANAGER: Shape = of_all("alertmanager", _alerts)
