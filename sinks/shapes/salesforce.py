"""Salesforce: a platform event, and a case.

Sources: REST API Developer Guide, API version 57.0, "Upsert Records Using sObject Collections" and "HTTP method
override"; Platform Events Developer Guide, "Publish Event Messages with Salesforce APIs"; Object Reference, "Case".

`salesforce_event` is for `POST .../services/data/vXX.X/sobjects/Stayline_Event__e`. A platform event has no id to
upsert by; who handles it upserts by `Case_Id__c` and knows a repeat by `Notification_Id__c`.

`salesforce_case` is for an upsert by external id: `PATCH`, or `POST` with `?_HttpMethod=PATCH`, to
`.../composite/sobjects/Case/Stayline_Alert_Id__c`, where that field is an external id, unique. Salesforce answers
200 to a request whose record it refused, with `success: false` in the body; put an Apex REST resource or a gateway
in between that answers 4xx then, so that a refusal is seen here.

| | salesforce_event | salesforce_case |
|---|---|---|
| carries | alerts, incidents | alerts |
| opened | | Status New |
| updated | | Status as the agents have it |
| resolved | | Status Closed |
| critical, major, minor | Severity__c | Priority High, Medium, Low |

Fields ending `__c` are custom and must exist there with these names.
"""

from typing import Any

import orjson
from msgspec import to_builtins

from schemas.alerts import Alert, Severity, rfc3339
from sinks.routing import UnreadableError
from sinks.shapes.reading import Message, Shape, cut, describe, of_alerts, of_all

PRIORITIES: dict[Severity, str] = {"critical": "High", "major": "Medium", "minor": "Low"}

SUBJECT_CHARS_MAX = 255
"""Case.Subject (Object Reference)."""
DESCRIPTION_CHARS_MAX = 32_000
"""Case.Description (Object Reference)."""
LONG_TEXT_CHARS_MAX = 131_072
"""The largest long text area, which `Data__c` must be."""


def _event(message: Message) -> dict[str, Any]:
    data = orjson.dumps(to_builtins(message.data)).decode()
    if len(data) > LONG_TEXT_CHARS_MAX:
        raise UnreadableError(f"data must be at most {LONG_TEXT_CHARS_MAX} characters as JSON, was {len(data)}")
    alert = message.data if isinstance(message.data, Alert) else None
    return {
        "Notification_Id__c": message.id,
        "Type__c": message.type,
        "Case_Id__c": message.case,
        "Revision__c": message.revision,
        "Occurred_At__c": message.time,
        "Source__c": message.source,
        "Subject_Id__c": message.subject,
        "Severity__c": message.severity,
        "Churn_Band__c": None if alert is None else alert.churn.band,
        "Text__c": message.text,
        "Data__c": data,
    }


def _case(message: Message, alert: Alert) -> dict[str, Any]:
    """One record of an upsert; `Status` is told when the case opens and when it ends, and in between the agents'."""
    record = {
        "attributes": {"type": "Case"},
        "Stayline_Alert_Id__c": message.case,
        "Stayline_Notification_Id__c": message.id,
        "Stayline_Revision__c": message.revision,
        "Stayline_Customer_Id__c": alert.customer_id,
        "Stayline_Since__c": rfc3339(alert.since_ms),
        "Stayline_Pattern__c": alert.pattern.kind,
        "Stayline_Cause__c": alert.cause.kind,
        "Stayline_Churn_Band__c": alert.churn.band,
        "Stayline_Churn_Probability__c": alert.churn.probability,
        "Stayline_Incident_Id__c": alert.incident_id,
        "Origin": "Stayline",
        "Priority": PRIORITIES[alert.severity],
        "Status": {"opened": "New", "resolved": "Closed"}.get(message.change),
        "Subject": cut(alert.pattern.text, SUBJECT_CHARS_MAX),
        "Description": cut(describe(alert), DESCRIPTION_CHARS_MAX),
    }
    return {"allOrNone": True, "records": [record]}


SALESFORCE_EVENT: Shape = of_all("salesforce_event", _event)
SALESFORCE_CASE: Shape = of_alerts("salesforce_case", _case)
