"""What was told: the cases and incidents in a file of notifications."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.score.truth import lines_of
from schemas.alerts import NotificationType
from schemas.errors import InputError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Case:
    """An alert: when it opened, and the pattern it named at each revision (revision, time, kind)."""

    customer_id: str
    opened_ms: int
    kinds: list[tuple[int, int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Incident:
    """A shared fault as it was reported: on which element, when."""

    element_kind: str
    element_id: str
    opened_ms: int


class _Envelope(Struct):
    type: NotificationType
    time: datetime
    data: msgspec.Raw


class _Pattern(Struct):
    kind: str


class _AlertData(Struct):
    alert_id: str
    revision: int
    customer_id: str
    pattern: _Pattern


class _IncidentData(Struct):
    element_kind: str
    element_id: str


def read_alerts(path: Path) -> tuple[list[Case], list[Incident]]:
    """Read notifications; later revisions of an alert belong to the case that its opening began."""
    cases: dict[str, Case] = {}
    incidents: list[Incident] = []
    for place, line in lines_of(path):
        try:
            envelope = msgspec.json.decode(line, type=_Envelope)
            time_ms = (envelope.time.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)
            if envelope.type == "stayline.incident.opened":
                shared = msgspec.json.decode(envelope.data, type=_IncidentData)
                incidents.append(Incident(shared.element_kind, shared.element_id, time_ms))
            elif envelope.type != "stayline.incident.cleared":
                own = msgspec.json.decode(envelope.data, type=_AlertData)
                _note_revision(cases, envelope.type, time_ms, own)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{place}: must be a notification: {error}") from error
        except KeyError as error:
            raise InputError(f"{place}: must belong to an alert opened before, found {error}") from error
    return list(cases.values()), incidents


def _note_revision(cases: dict[str, Case], kind: str, time_ms: int, data: _AlertData) -> None:
    """Add a revision to its case; an opening that is repeated (at least once is the promise) counts once."""
    if kind == "stayline.alert.opened":
        cases.setdefault(data.alert_id, Case(data.customer_id, time_ms))
    cases[data.alert_id].kinds.append((data.revision, time_ms, data.pattern.kind))
