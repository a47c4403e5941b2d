"""TM Forum Open APIs: trouble ticket, alarm, party interaction, event.

Sources: TMF621 Trouble Ticket v5.0.0, TMF642 Alarm Management v4.0.0, TMF683 Party Interaction v5.0.0, TMF688 Event
Management v4.0.0, all with the common types of TMF630 REST API Design Guidelines; ITU-T X.733 (02/92), sections 8.1.1
to 8.1.2.3, for alarm types, causes and severities.

Each body is the whole resource as it stands, for one `POST` a revision. These APIs know no upsert: a receiver finds
the resource of an earlier revision by the external id, which is the case's, and sees a repeat by the notification's.

| | tmf621 | tmf642 | tmf683 | tmf688 |
|---|---|---|---|---|
| carries | alerts | incidents | alerts | both |
| external id | `externalIdentifier` | `externalAlarmId` | `externalIdentifier` | `correlationId`, `eventId` |
| opened | acknowledged | raised | opened | |
| updated | as the agents have it | | inProgress | |
| resolved, cleared | resolved | cleared | completed | |
| critical, major, minor | severity; priority High, Medium, Low | perceivedSeverity | | priority as TMF621 |
"""

from typing import Any

from msgspec import to_builtins

from schemas.alerts import Alert, Incident, Severity, rfc3339
from sinks.shapes.reading import SYSTEM, Message, Shape, cut, describe, of_alerts, of_all, of_incidents, offers, words

PRIORITIES: dict[Severity, str] = {"critical": "High", "major": "Medium", "minor": "Low"}

NAME_CHARS_MAX = 255
"""TMF sets no bound; most systems keep names in so much."""


CHANNEL = {"@type": "ChannelRef", "id": SYSTEM, "name": "Stayline"}


def _role(customer_id: str) -> dict[str, Any]:
    return {"@type": "PartyRoleRef", "@referredType": "Customer", "id": customer_id}


def _customer(customer_id: str) -> dict[str, Any]:
    return {"id": customer_id, "role": "customer", "@type": "RelatedParty", "@referredType": "Customer"}


def _external(message: Message) -> list[dict[str, Any]]:
    """Return the ids to upsert by, and to see repeats by (TMF630, ExternalIdentifier)."""
    return [
        {"@type": "ExternalIdentifier", "owner": SYSTEM, "externalIdentifierType": kind, "id": identity}
        for kind, identity in (("alert", message.case), ("notification", message.id))
    ]


def _notes(message: Message, alert: Alert) -> list[dict[str, Any]]:
    return [
        {"@type": "Note", "id": f"{message.id}-{rank}", "author": SYSTEM, "date": message.time, "text": text}
        for rank, text in enumerate(offers(alert), start=1)
    ]


def _characteristics(alert: Alert) -> list[dict[str, Any]]:
    values: dict[str, tuple[str, Any]] = {
        "revision": ("IntegerCharacteristic", alert.revision),
        "since": ("StringCharacteristic", rfc3339(alert.since_ms)),
        "pattern": ("StringCharacteristic", alert.pattern.kind),
        "cause": ("StringCharacteristic", alert.cause.kind),
        "causeConfidence": ("NumberCharacteristic", alert.cause.confidence),
        "churnBand": ("StringCharacteristic", alert.churn.band),
        "churnProbability": ("NumberCharacteristic", alert.churn.probability),
        "valueAtRiskMinor": ("IntegerCharacteristic", alert.value_at_risk_minor),
        "currency": ("StringCharacteristic", alert.currency),
    }
    return [
        {"@type": kind, "name": name, "value": value} for name, (kind, value) in values.items() if value is not None
    ]


def _ticket(message: Message, alert: Alert) -> dict[str, Any]:
    """TroubleTicket_FVO. `status` is told when the case opens and when it ends; in between it is the agents'."""
    status = {"opened": "acknowledged", "resolved": "resolved"}.get(message.change)
    incident = {"@type": "EntityRef", "@referredType": "Alarm", "id": alert.incident_id}
    return {
        "@type": "TroubleTicket",
        "externalIdentifier": _external(message),
        "name": cut(alert.pattern.text, NAME_CHARS_MAX),
        "description": describe(alert),
        "ticketType": "serviceQuality",
        "severity": alert.severity,
        "priority": PRIORITIES[alert.severity],
        "status": status,
        "statusChangeDate": None if status is None else message.time,
        "statusChangeReason": "the calls are good again" if message.is_over else None,
        "resolutionDate": message.time if message.is_over else None,
        "channel": CHANNEL,
        "relatedParty": [
            {
                "@type": "RelatedPartyRefOrPartyRoleRef",
                "role": "customer",
                "partyOrPartyRole": _role(alert.customer_id),
            },
        ],
        "relatedEntity": None
        if alert.incident_id is None
        else [{"@type": "RelatedEntity", "role": "sharedFault", "entity": incident}],
        "note": _notes(message, alert),
        "troubleTicketCharacteristic": _characteristics(alert),
    }


def _alarm(message: Message, incident: Incident) -> dict[str, Any]:
    """Alarm_Create. A measurement fault is a processing error, corrupt data: the service was fine (X.733, 8.1.1)."""
    is_probe = incident.element_kind == "probe"
    return {
        "@type": "Alarm",
        "externalAlarmId": message.case,
        "alarmType": "processingErrorAlarm" if is_probe else "qualityOfServiceAlarm",
        "probableCause": "corruptData" if is_probe else "performanceDegraded",
        "specificProblem": incident.text,
        # X.733, 8.1.2.3: the probe's fault says nothing of the service, hence a warning.
        "perceivedSeverity": "cleared" if message.is_over else "warning" if is_probe else message.severity,
        "state": "cleared" if message.is_over else "raised",
        "alarmRaisedTime": rfc3339(incident.since_ms),
        "alarmReportingTime": rfc3339(incident.detected_ms),
        "alarmChangedTime": message.time,
        "alarmClearedTime": None if incident.cleared_ms is None else rfc3339(incident.cleared_ms),
        "alarmedObject": {"@type": "AlarmedObject", "id": incident.element_id},
        "alarmedObjectType": incident.element_kind,
        "serviceAffecting": not is_probe,
        "sourceSystemId": message.source,
        "reportingSystemId": SYSTEM,
        "alarmDetails": (
            f"{incident.drops} of {incident.attempts} calls dropped ({incident.drop_ratio:.1%}, usual "
            f"{incident.baseline_ratio:.1%}); {incident.customers_affected} customers; notification {message.id}"
        ),
    }


def _interaction(message: Message, alert: Alert) -> dict[str, Any]:
    """PartyInteraction_FVO: the contact that is to be made."""
    return {
        "@type": "PartyInteraction",
        "externalIdentifier": _external(message),
        "direction": "outbound",
        "reason": words(alert.pattern.kind),
        "status": {"opened": "opened", "resolved": "completed"}.get(message.change, "inProgress"),
        "lastUpdate": message.time,
        "description": describe(alert),
        "interactionDate": {
            "startDateTime": rfc3339(alert.detected_ms),
            "endDateTime": message.time if message.is_over else None,
        },
        "relatedChannel": [{"@type": "RelatedChannel", "role": "origin", "channel": CHANNEL}],
        "relatedParty": [
            {"@type": "RelatedPartyOrPartyRole", "role": "customer", "partyOrPartyRole": _role(alert.customer_id)}
        ],
        "note": _notes(message, alert),
    }


def _event(message: Message) -> dict[str, Any]:
    """Event_Create; `event` is the notification's `data` as it stands."""
    alert = message.data if isinstance(message.data, Alert) else None
    return {
        "@type": "Event",
        "eventId": message.id,
        "eventTime": message.time,
        "eventType": message.type,
        "correlationId": message.case,
        "domain": "voice",
        "title": f"{'Call quality' if alert is not None else 'Shared fault'} {message.change}",
        "description": message.text,
        "priority": PRIORITIES[message.severity],
        "source": {"@type": "EntityRef", "@referredType": "Deployment", "id": message.source},
        "reportingSystem": {"@type": "EntityRef", "@referredType": "System", "id": SYSTEM, "name": "Stayline"},
        "relatedParty": None if alert is None else [_customer(alert.customer_id)],
        "event": to_builtins(message.data),
    }


TMF621: Shape = of_alerts("tmf621", _ticket)
TMF642: Shape = of_incidents("tmf642", _alarm)
TMF683: Shape = of_alerts("tmf683", _interaction)
TMF688: Shape = of_all("tmf688", _event)
