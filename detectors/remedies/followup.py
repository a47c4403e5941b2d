"""Did it help? After a remedy the customer's calls are watched: a repair is verified by calls, not believed.

A remedy that was accepted, or reported as done, is watched for its follow-up period. It has failed where calls go on
being bad, or trouble comes back after the case was closed; it has worked where there were calls and none was bad.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct, convert, to_builtins

DAY_MS: Final = 86_400_000

GOOD_MIN: Final = 3
"""Without so many good calls nothing is proven: somebody who does not call has no bad calls either."""

FOLLOW_UP_DAYS: Final = 7
"""For a remedy that is not in the catalogue."""

Verdict = Literal["worked", "failed", "unproven"]


class FollowUp(Struct):
    """One remedy that is being watched.

    Attributes:
        customer: key.
        begun_ms, due_ms: event times.
        partner: who carries it out; "" where not told.
        bad, good: calls since `begun_ms`.
        is_over: the case was closed since.
        relapsed: trouble came back after that.
        extended: the period was doubled once for want of calls.
    """

    alert_id: str
    customer: int
    remedy_id: str
    begun_ms: int
    due_ms: int
    partner: str = ""
    bad: int = 0
    good: int = 0
    is_over: bool = False
    relapsed: bool = False
    extended: bool = False

    def is_same(self, other: "FollowUp") -> bool:
        """Tell whether both are of the same report."""
        return (self.alert_id, self.remedy_id, self.begun_ms) == (other.alert_id, other.remedy_id, other.begun_ms)

    def verdict(self) -> Verdict:
        """Say what the calls say at the end of the period."""
        if self.relapsed or (self.bad and not self.is_over):
            return "failed"
        return "worked" if self.is_over or self.good >= GOOD_MIN else "unproven"


class FollowUps:
    """All remedies that are being watched, one a customer: the newest."""

    def __init__(self) -> None:
        self._watched: dict[int, FollowUp] = {}
        self._next_due_ms: int | None = None

    def of(self, customer: int) -> FollowUp | None:
        """Return what is being watched of a customer."""
        return self._watched.get(customer)

    def watch(self, follow_up: FollowUp) -> None:
        """Begin to watch a remedy; what was watched of this customer before is watched no more.

        The same report told again changes nothing.
        """
        before = self._watched.get(follow_up.customer)
        if before is not None and before.is_same(follow_up):
            return
        self._watched[follow_up.customer] = follow_up
        self._next_due_ms = None

    def bad_call(self, customer: int, end_ms: int) -> None:
        """Count a bad call."""
        watched = self._watched.get(customer)
        if watched is not None and end_ms > watched.begun_ms:
            watched.bad += 1

    def good_calls(self, customer: int, count: int) -> None:
        """Count good calls."""
        watched = self._watched.get(customer)
        if watched is not None:
            watched.good += count

    def case_closed(self, customer: int) -> None:
        """Learn that the calls are good again."""
        watched = self._watched.get(customer)
        if watched is not None:
            watched.is_over = True

    def case_opened(self, customer: int, since_ms: int) -> FollowUp | None:
        """Learn of new trouble; return the remedy that did not hold, where one is being watched."""
        watched = self._watched.get(customer)
        if watched is None or since_ms <= watched.begun_ms:
            return None
        watched.relapsed = True
        return watched

    def next_due_ms(self, never: int) -> int:
        """Return the time of the next verdict."""
        if self._next_due_ms is None:
            self._next_due_ms = min((one.due_ms for one in self._watched.values()), default=never)
        return self._next_due_ms

    def due(self, now_ms: int) -> list[FollowUp]:
        """Return those whose period is over, in order of time, and watch them no more."""
        found = sorted(
            (one for one in self._watched.values() if one.due_ms <= now_ms), key=lambda one: (one.due_ms, one.alert_id)
        )
        for one in found:
            del self._watched[one.customer]
        self._next_due_ms = None
        return found

    def extend(self, follow_up: FollowUp) -> bool:
        """Watch for another period, once; return whether that is done."""
        if follow_up.extended:
            return False
        follow_up.extended = True
        follow_up.due_ms += follow_up.due_ms - follow_up.begun_ms
        self.watch(follow_up)
        return True

    def wait_for(self, customers: set[int]) -> None:
        """Forget all customers but these."""
        self._watched = {customer: one for customer, one in self._watched.items() if customer in customers}
        self._next_due_ms = None

    def forget(self, customer: int) -> int:
        """Forget a customer; return how much there was."""
        self._next_due_ms = None
        return int(self._watched.pop(customer, None) is not None)

    def snapshot(self) -> list[Any]:
        """Return the state as plain values: a copy."""
        return [to_builtins(one) for one in self._watched.values()]

    def restore(self, state: list[Mapping[str, Any]]) -> None:
        """Take over a snapshot."""
        self._watched = {one.customer: one for one in convert(state, list[FollowUp])}
        self._next_due_ms = None
