"""The wall clock: for deliveries and for what is seen from outside, never for detection."""

import time


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds: for deliveries alone, never for detection."""
    return time.time_ns() // 1_000_000
