"""Records that could not be taken: where they stood, why, and the record itself."""

import base64
from enum import StrEnum

from msgspec import Struct


class DeadReason(StrEnum):
    """Why a record was not taken. A closed set: dashboards and runbooks list it."""

    TOO_LARGE = "too_large"
    """Longer than a record may be."""
    NOT_TEXT = "not_text"
    """Not UTF-8."""
    NOT_JSON = "not_json"
    """Not one JSON object (or, for a vendor format, not the shape of a record at all)."""
    UNKNOWN_TYPE = "unknown_type"
    """No event type of that name."""
    MISSING_FIELD = "missing_field"
    """A required field is absent or null."""
    WRONG_TYPE = "wrong_type"
    """A field has another JSON type than it must have."""
    OUT_OF_RANGE = "out_of_range"
    """A number or a length is outside its limits."""
    UNKNOWN_VALUE = "unknown_value"
    """A field of a closed vocabulary holds another word."""
    INCONSISTENT = "inconsistent"
    """Fields contradict each other, for example an end before its start."""
    TRUNCATED = "truncated"
    """The input ended inside the record or inside its compression."""


class Reject(Struct, frozen=True):
    """A record that a decoder could not take, with its place in the chunk.

    Attributes:
        position: index of the record in its chunk.
        detail: what must hold, what was found, in which field. Never holds an identity.
    """

    position: int
    reason: DeadReason
    detail: str
    record: bytes


class DeadLetter(Struct, frozen=True):
    """A rejected record as it is kept and shown.

    Attributes:
        source: the input's kind: `file`, `http`, `kafka`, `hep`.
        at: `file:line`, `topic[partition]@offset`, or the peer's address and line.
    """

    source: str
    at: str
    reason: DeadReason
    detail: str
    record_b64: str


def dead_letter(source: str, at: str, reject: Reject) -> DeadLetter:
    """Place a reject: `source` and `at` say where the record stood."""
    return DeadLetter(
        source=source,
        at=at,
        reason=reject.reason,
        detail=reject.detail,
        record_b64=base64.b64encode(reject.record).decode("ascii"),
    )
