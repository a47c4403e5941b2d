"""One chunk of events as NumPy columns: what every later step works on.

A column that can be unknown says so in its own way: -1 for integers and codes, NaN for measures, the empty span
for identities.
"""

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np

from schemas.deadletters import Reject
from schemas.events import Business
from schemas.text import F32, I8, I16, I64, CodeColumn, TextColumn

PLACES: tuple[str, ...] = (
    "access_node",
    "access_tech",
    "cpe_model",
    "cpe_firmware",
    "trunk",
    "sbc",
    "region",
    "probe_id",
)
"""The fields of a call that say where it ran and who measured it."""

DIRECTIONS: tuple[str, ...] = ("out", "in")
RELEASERS: tuple[str, ...] = ("customer", "peer", "network", "unknown")


@dataclass(frozen=True, slots=True)
class CallColumns:
    """Finished call legs, one a row, in order of arrival.

    Attributes:
        position: int64, index of the record in its chunk.
        answer_ms: -1 where never answered.
        direction: code into `DIRECTIONS`.
        released_by: code into `RELEASERS`.
        places: a dictionary-coded column for each name in `PLACES`.
    """

    position: I64
    call_id: TextColumn
    customer_id: TextColumn
    peer_id: TextColumn
    start_ms: I64
    end_ms: I64
    answer_ms: I64
    direction: I8
    sip_status: I16
    q850: I16
    released_by: I8
    reason: CodeColumn
    codec: CodeColumn
    mos: F32
    loss_ratio: F32
    discard_ratio: F32
    burst_ratio: F32
    jitter_ms: F32
    rtt_ms: F32
    packets_received: I64
    packets_sent: I64
    silence_ms: I64
    places: dict[str, CodeColumn]

    def __len__(self) -> int:
        return len(self.position)


@dataclass(frozen=True, slots=True)
class MediaColumns:
    """Reports during calls, one a row, in order of arrival."""

    position: I64
    call_id: TextColumn
    customer_id: TextColumn
    at_ms: I64
    interval_ms: I64
    codec: CodeColumn
    mos: F32
    loss_ratio: F32
    discard_ratio: F32
    burst_ratio: F32
    jitter_ms: F32
    rtt_ms: F32
    probe_id: CodeColumn

    def __len__(self) -> int:
        return len(self.position)


@dataclass(frozen=True, slots=True)
class LinkColumns:
    """Readings of network telemetry, one a row, in order of arrival."""

    position: I64
    element_kind: CodeColumn
    element_id: CodeColumn
    at_ms: I64
    metric: CodeColumn
    value: F32
    customer_id: TextColumn

    def __len__(self) -> int:
        return len(self.position)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """What one chunk of records held.

    Attributes:
        records: how many records were read; equals calls + media + links + business + rejects.
        business: (position in the chunk, event): the rare types, as objects.
        rejects: what could not be taken.
    """

    records: int
    calls: CallColumns
    media: MediaColumns
    links: LinkColumns
    business: list[tuple[int, Business]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


Columns = TypeVar("Columns", CallColumns, MediaColumns, LinkColumns)


def join(one: Columns, other: Columns) -> Columns:
    """Return the rows of both, in order of their positions."""
    if not len(other):
        return one
    if not len(one):
        return other
    order = np.argsort(np.concatenate([one.position, other.position]), kind="stable")
    joined = {
        column.name: _joined(getattr(one, column.name), getattr(other, column.name), order) for column in fields(one)
    }
    return type(one)(**joined)


def take(columns: Columns, rows: I64) -> Columns:
    """Return some rows, in the order given."""
    if len(rows) == len(columns):
        return columns
    taken = {column.name: _taken(getattr(columns, column.name), rows) for column in fields(columns)}
    return type(columns)(**taken)


def _taken(column: Any, rows: I64) -> Any:
    if isinstance(column, dict):
        return {name: _taken(one, rows) for name, one in column.items()}
    return column.take(rows)


def _joined(one: Any, other: Any, order: I64) -> Any:
    if isinstance(one, dict):
        return {name: _joined(column, other[name], order) for name, column in one.items()}
    if isinstance(one, TextColumn | CodeColumn):
        return one.join(other).take(order)
    return np.concatenate([one, other])[order]
