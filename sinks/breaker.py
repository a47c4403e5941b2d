"""A circuit breaker: a receiver that keeps failing is left alone, and tried with one probe at a time.

Nygard, *Release It!* (2nd ed., 2018), "Circuit Breaker". It is a value, kept in the outbox, so a restart does not
forget that a receiver is down.
"""

import random
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from sinks.outputs import Health, Outcome

WAIT_MS = 1_000
"""Longest wait before the first probe."""

WAIT_MS_MAX = 60_000
"""Longest wait before any probe: a minute's silence is long for an alert, and one call a minute harms nobody."""

HOLD_MS_MAX = 3_600_000
"""Longest that anything opens a breaker for (`Retry-After`): a later time was set by a clock that has been put back."""

BreakerState = Literal["closed", "open", "disabled"]


class Breaker(Struct, frozen=True):
    """What is known of a receiver's health.

    Attributes:
        state: `closed` lets all through; `open` nothing until `until_ms`, then one probe; `disabled` nothing.
        failures: failures in a row.
    """

    state: BreakerState = "closed"
    failures: int = 0
    until_ms: int = 0

    def room(self, now_ms: int, concurrency: int) -> int:
        """Return how many attempts may run at once now."""
        if self.state == "closed":
            return concurrency
        return int(self.state == "open" and not self.shut(now_ms))

    def shut(self, now_ms: int) -> bool:
        """Whether it is open and nothing may run before `until_ms`."""
        return self.state == "open" and now_ms < self.until_ms <= now_ms + HOLD_MS_MAX

    def after(self, outcome: Outcome, now_ms: int, failures_max: int, rng: random.Random) -> "Breaker":
        """Return the breaker as it stands after an attempt ended.

        Args:
            outcome: what the attempt told; its `hold_ms` opens the breaker at the first failure.
            now_ms: when it ended.
            failures_max: how many failures in a row open the breaker.
            rng: draws the wait.
        """
        if self.state == "disabled" or outcome.health is Health.GONE:
            return Breaker("disabled")
        if outcome.health is Health.WELL:
            return Breaker()
        if self.shut(now_ms):
            # The attempt began before the breaker opened: old news, which lengthens no wait but the receiver's own.
            return replace(self, until_ms=max(self.until_ms, outcome.hold_ms))
        failures = self.failures + 1
        if failures >= failures_max:
            ceiling_ms = min(WAIT_MS << min(failures - failures_max, 16), WAIT_MS_MAX)
            # Half fixed, half random: probes of many senders spread, and none comes at once.
            wait_ms = rng.randint(ceiling_ms // 2, ceiling_ms)
            return Breaker("open", failures, max(now_ms + wait_ms, outcome.hold_ms))
        if outcome.hold_ms > now_ms:
            return Breaker("open", failures, outcome.hold_ms)
        return Breaker("closed", failures)
