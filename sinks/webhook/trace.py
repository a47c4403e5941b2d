"""Trace context of a request: which trace it belongs to, by W3C Trace Context (2021), section 3.2.

Stayline keeps no spans. It gives its notification's own trace, so that what a receiver records of it, attempt by
attempt, hangs together and can be looked up by the notification's id: the ids are digests of it.
"""

import hashlib


def traceparent(identity: str, attempts: int) -> str:
    """Return the `traceparent` header of one attempt.

    Args:
        identity: the notification's id; it alone decides the trace.
        attempts: how many attempts were made before; with the id it decides the parent.

    Returns:
        Version, trace (16 bytes), parent (8 bytes) and flags. The flag says `sampled`: a receiver whose tracer follows
        its caller would otherwise record nothing.
    """
    trace = hashlib.sha256(identity.encode()).hexdigest()[:32]
    parent = hashlib.sha256(f"{identity}/{attempts}".encode()).hexdigest()[:16]
    return f"00-{trace}-{parent}-01"
