"""Log lines: one event name each, JSON on standard error where it is no terminal."""

import sys
from typing import Any

import structlog

structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer(sort_keys=True),
    ],
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    cache_logger_on_first_use=False,
)


def log(event: str, **fields: Any) -> None:
    """Write one line: what happened, and numbers and names that say how. Never an identity."""
    structlog.get_logger().info(event, **fields)
