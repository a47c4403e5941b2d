"""ServiceNow: an incident of IT service management for a shared fault, a case of customer service for an alert.

Sources: ServiceNow REST API reference (Xanadu), "Import Set API" and "Table API"; product documentation, "Incident
Management: incident state model" and "Customer Service Management: case states". States and priorities are the
numbers of the base system.

Both are for `POST .../api/now/import/<staging table>`, whose transform map coalesces on `correlation_id`: that is
ServiceNow's upsert. (The Table API makes a new record each time.) Fields beginning `u_` are the staging table's own:
the transform map says what they become, for instance which consumer has the customer's id. The Import Set API answers
201 to a row that its transform refused, with `status: error` in the body; where that must be seen here, put a scripted
REST resource in between that answers 4xx then.

| | servicenow_incident | servicenow_case |
|---|---|---|
| carries | incidents | alerts |
| table | `incident` | `sn_customerservice_case` |
| opened | state 1 New | state 1 New |
| updated | | state as the agents have it |
| cleared, resolved | state 6 Resolved, with `close_code` and `close_notes` | state 6 Resolved, with `close_notes` |
| critical, major, minor | urgency 1, 2, 3; impact by customers affected | priority 1, 2, 3 |
"""

from typing import Any

from schemas.alerts import Alert, Incident, Severity, rfc3339
from sinks.shapes.reading import Message, Shape, cut, describe, of_alerts, of_incidents

RANKS: dict[Severity, str] = {"critical": "1", "major": "2", "minor": "3"}
"""1 High (priority: Critical), 2 Medium (High), 3 Low (Moderate)."""

NEW, RESOLVED = "1", "6"
"""The same in both tables."""

IMPACT_CUSTOMERS: tuple[tuple[int, str], ...] = ((100, "1"), (10, "2"))
"""Customers affected from which the impact is high, medium; below it is low."""

SHORT_CHARS_MAX = 160
"""`task.short_description` in the base system."""
LONG_CHARS_MAX = 4_000
"""`task.description` in the base system."""


def _common(message: Message, text: str, description: str) -> dict[str, Any]:
    return {
        "correlation_id": message.case,
        "correlation_display": "Stayline",
        "u_notification_id": message.id,
        "u_revision": message.revision,
        "short_description": cut(text, SHORT_CHARS_MAX),
        "description": cut(description, LONG_CHARS_MAX),
        "state": RESOLVED if message.is_over else NEW if message.change == "opened" else None,
    }


def _incident(message: Message, incident: Incident) -> dict[str, Any]:
    details = (
        f"{incident.text}\n{incident.drops} of {incident.attempts} calls dropped ({incident.drop_ratio:.1%}, "
        f"usual {incident.baseline_ratio:.1%}).\nCustomers affected: {incident.customers_affected}.\n"
        f"Since {rfc3339(incident.since_ms)}, found {rfc3339(incident.detected_ms)}."
    )
    over = {
        "close_code": "No resolution provided",
        "close_notes": f"Cleared at {message.time}: the calls are good again.",
    }
    return {
        **_common(message, incident.text, details),
        "category": "network",
        "urgency": RANKS[message.severity],
        "impact": next((rank for least, rank in IMPACT_CUSTOMERS if incident.customers_affected >= least), "3"),
        "u_element_kind": incident.element_kind,
        "u_element_id": incident.element_id,
        **(over if message.is_over else {}),
    }


def _case(message: Message, alert: Alert) -> dict[str, Any]:
    return {
        **_common(message, alert.pattern.text, describe(alert)),
        "priority": RANKS[alert.severity],
        "u_customer_id": alert.customer_id,
        "u_since": rfc3339(alert.since_ms),
        "u_pattern": alert.pattern.kind,
        "u_cause": alert.cause.kind,
        "u_churn_band": alert.churn.band,
        "u_churn_probability": alert.churn.probability,
        "u_incident_id": alert.incident_id,
        "close_notes": f"Resolved at {message.time}: the calls are good again." if message.is_over else None,
    }


SERVICENOW_INCIDENT: Shape = of_incidents("servicenow_incident", _incident)
SERVICENOW_CASE: Shape = of_alerts("servicenow_case", _case)
