"""What every shape starts from: the notification, read, and the few words and rules that the shapes share."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from schemas.alerts import Alert, Incident, Notification, Severity
from sinks.routing import UnreadableError, incident_severity

JSON = "application/json"

SYSTEM = "stayline"
"""Who speaks, where a receiver asks for the name of the source system."""


class Shape(Struct, frozen=True):
    """What an output sends of a notification.

    Attributes:
        name: as in `shape = "..."`.
        content_type: of what `render` gives.
        render: notification -> bytes, the same for the same notification; None: the shape has no place for such a
            one, and it is left out as a whole. Raises `UnreadableError` where it cannot be made.
    """

    name: str
    content_type: str
    render: Callable[[Notification], bytes | None]


class Message(Struct, frozen=True):
    """A notification, read.

    Attributes:
        change: `opened`, `updated`, `resolved` or `cleared`: the last part of its type.
        time: event time, RFC 3339.
        body: the envelope as it is.
    """

    id: str
    type: str
    change: str
    case: str
    revision: int
    time: str
    time_ms: int
    source: str
    subject: str
    data: Alert | Incident
    body: bytes

    @property
    def is_over(self) -> bool:
        """Whether the trouble has ended."""
        return self.change in {"resolved", "cleared"}

    @property
    def severity(self) -> Severity:
        """The alert's own; an incident's by its drops."""
        if isinstance(self.data, Alert):
            return self.data.severity
        return incident_severity(self.data.element_kind, self.data.drop_ratio)

    @property
    def text(self) -> str:
        """What is wrong, in one sentence."""
        return self.data.pattern.text if isinstance(self.data, Alert) else self.data.text


class _AlertEnvelope(Struct):
    source: str
    time: str
    subject: str
    data: Alert


class _IncidentEnvelope(Struct):
    source: str
    time: str
    subject: str
    data: Incident


_ALERT = msgspec.json.Decoder(_AlertEnvelope)
_INCIDENT = msgspec.json.Decoder(_IncidentEnvelope)


def read(notification: Notification) -> Message:
    """Read a notification.

    Raises:
        UnreadableError: its body is not what the contract promises.
    """
    decoder: msgspec.json.Decoder[Any] = _ALERT if notification.type.startswith("stayline.alert.") else _INCIDENT
    try:
        envelope = decoder.decode(notification.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableError(f"body must be a notification of the contract, found: {error}") from error
    return Message(
        id=notification.id,
        type=notification.type,
        change=notification.type.rpartition(".")[2],
        case=notification.case,
        revision=notification.revision,
        time=envelope.time,
        time_ms=notification.time_ms,
        source=envelope.source,
        subject=envelope.subject,
        data=envelope.data,
        body=notification.body,
    )


def of_alerts(name: str, build: Callable[[Message, Alert], Mapping[str, Any]]) -> Shape:
    """Return a shape that carries alerts, about one customer each, and leaves incidents out."""

    def render(notification: Notification) -> bytes | None:
        message = read(notification)
        return encode(build(message, message.data)) if isinstance(message.data, Alert) else None

    return Shape(name, JSON, render)


def of_incidents(name: str, build: Callable[[Message, Incident], Mapping[str, Any]]) -> Shape:
    """Return a shape that carries incidents, about one network element each, and leaves alerts out."""

    def render(notification: Notification) -> bytes | None:
        message = read(notification)
        return encode(build(message, message.data)) if isinstance(message.data, Incident) else None

    return Shape(name, JSON, render)


def of_all(name: str, build: Callable[[Message], Any]) -> Shape:
    """Return a shape that carries alerts and incidents."""
    return Shape(name, JSON, lambda notification: encode(build(read(notification))))


def encode(value: Any) -> bytes:
    """Write JSON on one line, without the keys of an object whose value is not known."""
    return orjson.dumps(without_none(value))


def without_none(value: Any) -> Any:
    """Return a copy without the keys whose value is None: not known is absent."""
    if isinstance(value, Mapping):
        return {key: without_none(one) for key, one in value.items() if one is not None}
    return [without_none(one) for one in value] if isinstance(value, list) else value


def cut(text: str, chars_max: int) -> str:
    """Shorten a text to what a field takes."""
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def words(name: str) -> str:
    """Write a name of the contract for people: `one_way_audio` as `one way audio`."""
    return name.replace("_", " ")


def describe(alert: Alert) -> str:
    """Write an alert as a page of plain text: what happened, why, who may leave, what helps."""
    lines = [
        alert.pattern.text,
        f"Likely cause: {words(alert.cause.kind)} ({alert.cause.confidence:.0%}).",
        f"Risk of leaving: {alert.churn.band} ({alert.churn.probability:.0%}).",
    ]
    lines += [f"Because: {driver.text}" for driver in alert.churn.drivers]
    lines += [f"{rank}. {remedy}" for rank, remedy in enumerate(offers(alert), start=1)]
    return "\n".join(lines)


def offers(alert: Alert) -> list[str]:
    """Write each remedy in one line, the best first."""
    return [f"{remedy.title}. Say: {remedy.say} Why: {remedy.why}" for remedy in alert.remedies]
