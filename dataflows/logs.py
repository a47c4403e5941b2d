"""Log lines: one event name each, JSON on standard error where it is no terminal.

A line holds numbers and names that say how, never an identity. What looks like one all the same, or like a secret, is
blanked last, whatever wrote it. An event that comes again and again is told a few times a minute; how many more there
were is told with the next one.
"""

import re
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

LINES_PER_MINUTE = 20
"""Of one event; more of them are counted."""

MINUTE_S = 60.0

BLANK = "(not shown)"

_SECRET_KEY = re.compile(r"secret|passw|token|credential|api_?key|authorization|cookie", re.IGNORECASE)
_IDENTITY = re.compile(
    r"""
    \b(?:sips?|tel|im|pres|xmpp):[^\s"'<>]+        # SIP and telephone URIs (RFC 3261, RFC 3966)
    | \+\d[\d\s().-]{5,}\d                         # international numbers (ITU-T E.123)
    | \bwhsec_[A-Za-z0-9+/=]+                      # a webhook's secret
    | \b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}  # an Authorization header
    | (?<=://)[^/\s@]+@                            # user and password in an address
    | [\w.+-]+@[A-Za-z][\w-]*(?:\.[\w-]+)+         # an address of e-mail or SIP
    """,
    re.IGNORECASE | re.VERBOSE,
)

EventDict = MutableMapping[str, Any]


def redacted(_: Any, __: str, event: EventDict) -> EventDict:
    """Blank what looks like an identity or a secret."""
    for key, value in event.items():
        if _SECRET_KEY.search(key):
            event[key] = BLANK
        elif isinstance(value, str):
            event[key] = _IDENTITY.sub(BLANK, value)
        elif not isinstance(value, bool | int | float | None):
            event[key] = _IDENTITY.sub(BLANK, str(value))
    return event


class Limited:
    """Drops lines of an event that has been told often enough this minute.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._events: dict[str, tuple[float, int]] = {}

    def __call__(self, _: Any, __: str, event: EventDict) -> EventDict:
        """Let a line through, with the number of those that were not told before it.

        Raises:
            structlog.DropEvent: it is not told.
        """
        name, now_s = str(event["event"]), self._clock()
        began_s, count = self._events.get(name, (now_s, 0))
        untold = 0
        if now_s - began_s >= MINUTE_S:
            began_s, count, untold = now_s, 0, max(0, count - LINES_PER_MINUTE)
        self._events[name] = began_s, count + 1
        if count >= LINES_PER_MINUTE:
            raise structlog.DropEvent
        return {**event, "untold": untold} if untold else event


structlog.configure(
    processors=[
        Limited(),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redacted,
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer(sort_keys=True),
    ],
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    cache_logger_on_first_use=False,
)


def log(event: str, **fields: Any) -> None:
    """Write one line: what happened, and numbers and names that say how. Never an identity."""
    structlog.get_logger().info(event, **fields)
