"""Log lines: one event name each, JSON on standard error where it is no terminal.

A line holds numbers and names that say how, never an identity. What looks like one all the same, or like a secret, is
blanked last, whatever wrote it. An event that comes again and again is told a few times a minute; how many more there
were is told with the next one. What libraries log, and threads that end by an error, are lines like all others.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from dataflows import redaction
from dataflows.redaction import BLANK, SECRET_NAME

LINES_PER_MINUTE = 20
"""Of one event; more of them are counted."""

MINUTE_S = 60.0

EventDict = MutableMapping[str, Any]


def redacted(_: Any, __: str, event: EventDict) -> EventDict:
    """Blank what looks like an identity or a secret."""
    for key, value in event.items():
        if SECRET_NAME.search(key):
            event[key] = BLANK
        elif not isinstance(value, bool | int | float | None):
            event[key] = redaction.redacted(str(value))
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


class Libraries(logging.Handler):
    """Writes what libraries have to say as lines of ours: warnings and what is worse."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        raised = record.exc_info[1] if record.exc_info else None
        trace = {} if raised is None else {"trace": "".join(traceback.format_exception(raised))}
        log("library.problem", library=record.name, problem=record.getMessage(), **trace)


def _thread_ended(told: threading.ExceptHookArgs) -> None:
    trace = "".join(traceback.format_exception(told.exc_type, told.exc_value, told.exc_traceback))
    log("thread.ended", thread="" if told.thread is None else told.thread.name, trace=trace)


logging.getLogger().addHandler(Libraries())
threading.excepthook = _thread_ended
