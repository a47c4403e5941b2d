"""Total losses of service, as readings of customers' own lines show them: from when until when.

A line is lost while its newest readings say that the equipment is not registered, or that the line has no sync. What
nobody read is not claimed: where readings are further than a day apart, the loss is taken to have ended with the last
one that showed it.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from detectors.changes import Ledger

DAY_MS: Final = 86_400_000

SILENT_MS: Final = DAY_MS
"""Two readings further apart prove nothing of the time between."""

KEPT_MS: Final = 60 * DAY_MS
LOSSES_KEPT: Final = 16

SHOWING: Final = frozenset({"registered", "sync_kbps"})
"""The metrics that show a loss."""


class Span(Struct):
    """One loss: from the first reading that showed it to the newest one, or to the one that showed its end.

    Attributes:
        due_minor: what law or a scheme pays for it, as last told.
        paid_minor: what was ordered of that.
    """

    began_ms: int
    until_ms: int
    is_over: bool = False
    due_minor: int = 0
    paid_minor: int = 0

    def goes_on(self, now_ms: int) -> bool:
        """Tell whether the service is lost at a time, as far as is known."""
        return not self.is_over and now_ms - self.until_ms <= SILENT_MS


class Losses(Ledger[int, list[Span]]):
    """The losses of all customers that had any, by customer key.

    Args:
        customers_max: so many customers are kept; beyond, the one whose first loss is the oldest gives way.
    """

    def __init__(self, customers_max: int) -> None:
        super().__init__("losses", list[Span])
        self._customers_max = customers_max

    def read(self, customer: int, at_ms: int, readings: Mapping[str, float]) -> None:
        """Take over what a customer's line shows at a time."""
        spans = self.get(customer)
        last = None if spans is None else spans[-1]
        if last is not None and at_ms < last.until_ms:
            return
        lost = readings.get("registered", 1.0) < 0.5 or readings.get("sync_kbps", 1.0) <= 0.0
        goes_on = last is not None and not last.is_over and at_ms - last.until_ms <= SILENT_MS
        if last is not None and not last.is_over:
            if goes_on:
                last.until_ms = at_ms
            last.is_over = not (lost and goes_on)
            self.touch(customer)
        if lost and not goes_on:
            self._begin(customer, at_ms)

    def _begin(self, customer: int, at_ms: int) -> None:
        while customer not in self and len(self) >= self._customers_max:
            self.drop_oldest()
        spans = [one for one in self.get(customer, ()) if at_ms - one.until_ms < KEPT_MS]
        self[customer] = [*spans[1 - LOSSES_KEPT :], Span(at_ms, at_ms)]

    def since(self, customer: int, from_ms: int) -> list[Span]:
        """Return a customer's losses that lasted beyond a time, oldest first."""
        return [one for one in self.get(customer, ()) if one.until_ms > from_ms]

    def owed(self, customer: int, span: Span, due_minor: int) -> int:
        """Remember what is due for one of a customer's losses; return what is left of it to be paid."""
        span.due_minor = due_minor
        self.touch(customer)
        return max(due_minor - span.paid_minor, 0)

    def paid(self, customer: int, amount_minor: int) -> None:
        """Learn that so much of what is due was ordered, the oldest loss first."""
        for span in self.get(customer, ()):
            part = min(max(span.due_minor - span.paid_minor, 0), amount_minor)
            span.paid_minor += part
            amount_minor -= part
            self.touch(customer)

    def forget(self, customer: int) -> int:
        """Forget a customer's losses; return how many there were."""
        return len(self.take_out(customer) or ())
