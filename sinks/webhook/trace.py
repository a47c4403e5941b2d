"""Trace context of a request: which trace it belongs to, by W3C Trace Context (2021), section 3.2.

A notification is a trace of its own, its delivery to one output a span in it, and each attempt a span in that. All ids
are digests of the notification's id, so that what a receiver records of it, attempt by attempt, hangs together and can
be looked up by that id, after a restart too. Spans are made only where somebody wants to see them (`Seen`).
"""

import hashlib
from collections.abc import Callable

from msgspec import Struct

from schemas.alerts import NotificationType
from sinks.outputs import Outcome


class Attempt(Struct, frozen=True):
    """One attempt, as a tracer is told of it.

    Attributes:
        output: the output's name.
        identity, type: the notification's.
        attempts: how many were made before.
        put_ms: when the notification was put into the outbox.
        begun_ms, ended_ms: of this attempt.
        status: the HTTP status; None where no answer came.
        outcome: what it means.
    """

    output: str
    identity: str
    type: NotificationType
    attempts: int
    put_ms: int
    begun_ms: int
    ended_ms: int
    status: int | None
    outcome: Outcome


Seen = Callable[[Attempt], None]
"""Is told of each attempt when it has ended."""


def trace_of(identity: str) -> str:
    """Return the trace of a notification: 16 bytes as hexadecimal digits."""
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def delivery_of(identity: str, output: str) -> str:
    """Return the span of a notification's delivery to an output: 8 bytes as hexadecimal digits."""
    return _span(f"{identity}/{output}")


def attempt_of(identity: str, output: str, attempts: int) -> str:
    """Return the span of one attempt of it, before which so many were made."""
    return _span(f"{identity}/{output}/{attempts}")


def traceparent(identity: str, output: str, attempts: int) -> str:
    """Return the `traceparent` header of one attempt.

    Args:
        identity: the notification's id; it alone decides the trace.
        output: the output's name; with the id and the attempts it decides the parent.
        attempts: how many attempts were made before.

    Returns:
        Version, trace (16 bytes), parent (8 bytes) and flags. The flag says `sampled`: a receiver whose tracer follows
        its caller would otherwise record nothing.
    """
    return f"00-{trace_of(identity)}-{attempt_of(identity, output, attempts)}-01"


def _span(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
