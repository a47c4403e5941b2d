"""The life of a case: held, open, updated, resolved.

A case opens when a customer's evidence reaches the promised number of healthy days. It is held back for a while if
its network elements look suspicious too: an incident found meanwhile takes it over. It is told anew when it becomes
worse or its pattern is known better, and resolved when the calls are good again, by evidence, not by silence.
"""

import math
from typing import Any

from msgspec import Struct

from detectors.changes import Ledger
from detectors.evidence import likelihood_ratio
from schemas.alerts import CallEvidence, Dimension, PatternKind, Severity
from schemas.kernels import loop

DAY_MS = 86_400_000
HOLD_MS = 3_600_000
"""How long a case waits for an incident that would explain it."""

CALLS_SHOWN = 10

CLOSED_MAX = 10_000
"""So many closed cases are remembered: fifty days at two hundred alerts a day."""

HEALTHY_SHARE = 0.03
"""A case is over against this share of bad calls: the upper end of what is called well-run service."""
RECOVERED = math.log(100.0)
"""It is over once that is a hundred times likelier than the trouble going on..."""
QUIET_MS = DAY_MS
"""...and no call was bad for a day;"""
EXPIRE_MS = 14 * DAY_MS
"""or when no call was bad for two weeks."""

RENAME_AFTER = 3
"""A pattern is renamed after so many more bad calls at the earliest: two that explain equally well would take turns.
A plain rise of the rate explains nothing: a pattern that is seen in it is told at once."""

MAJOR_RATIO, CRITICAL_RATIO = 0.25, 0.5
MAJOR_BAD, CRITICAL_BAD = 5, 10
RANK: tuple[Severity, ...] = ("minor", "major", "critical")


@loop
def rank_of(bad: int, trials: int) -> int:
    """Return the place in `RANK` that so many bad calls stand for."""
    share = bad / trials if trials > 0 else 0.0
    if (share >= CRITICAL_RATIO and bad >= MAJOR_BAD) or bad >= CRITICAL_BAD:
        return 2
    return 1 if share >= MAJOR_RATIO or bad >= MAJOR_BAD else 0


@loop
def is_worse(bad: int, trials: int, rank: int, told_bad: int) -> bool:
    """Tell whether a case is worth a new revision: more severe than it was told, or with twice the bad calls."""
    return rank_of(bad, trials) > rank or bad >= 2 * max(told_bad, 3)


@loop
def may_be_renamed(bad: int, told_bad: int, plain: bool) -> bool:  # noqa: FBT001  # numba takes no keywords here
    """Tell whether another pattern would be worth a new revision too."""
    return plain or bad >= told_bad + RENAME_AFTER


@loop
def recovery_step(x: float, bad: int, trials: int) -> float:
    """Return what a call adds to the log-likelihood ratio for "it is over"; x: 1 for a bad one, 0 for a good one."""
    share = bad / trials if trials > 0 else 0.0
    p1 = min(max(0.5 * share, 3.0 * HEALTHY_SHARE), 0.9)
    return -math.log(likelihood_ratio(x, HEALTHY_SHARE, p1))


@loop
def good_calls_needed(recovery: float, bad: int, trials: int) -> int:
    """Return how many more good calls make recovery complete."""
    return max(0, math.ceil((RECOVERED - recovery) / recovery_step(0.0, bad, trials)))


@loop
def is_over(recovery: float, last_bad_ms: int, now_ms: int) -> bool:
    """Tell whether the calls are good again."""
    quiet_ms = now_ms - last_bad_ms
    return (recovery >= RECOVERED and quiet_ms >= QUIET_MS) or quiet_ms >= EXPIRE_MS


class Case(Struct):
    """One customer's trouble while it lasts.

    Attributes:
        customer: the customer's key; `customer_id` its name.
        since_ms, detected_ms: event times.
        kind, phrase, dimension: the pattern as named last.
        bad, trials: bad calls and calls that could be bad, since `since_ms`.
        answered, attempts: counts since `since_ms`.
        evidence_log10: at its highest.
        due_ms: event time until which it is held; 0: told.
        recovery: log-likelihood ratio for "it is over", never below 0.
        told_bad, told_ms: `bad`, and event time, when it was last told.
        evidence_calls: the newest calls that show it, oldest first.
        bad_days: UTC days with bad calls, as day numbers.
        region: where the bad calls ran; None: not known.
        deferred: over today's budget: recorded, not told.
        attempt: 1 at first; one more for each remedy that did not help.
        failed: those remedies.
        previous_alert_id: the case whose remedy did not hold.
    """

    alert_id: str
    customer: int
    customer_id: str
    since_ms: int
    detected_ms: int
    kind: PatternKind
    phrase: str
    dimension: Dimension | None
    baseline_ratio: float
    evidence_log10: float
    severity: Severity = "minor"
    bad: int = 0
    trials: int = 0
    answered: int = 0
    attempts: int = 0
    due_ms: int = 0
    recovery: float = 0.0
    last_bad_ms: int = 0
    told_bad: int = 0
    told_ms: int = 0
    revision: int = 0
    incident_id: str | None = None
    region: str | None = None
    deferred: bool = False
    attempt: int = 1
    failed: list[str] = []
    previous_alert_id: str | None = None
    evidence_calls: list[CallEvidence] = []
    bad_days: list[int] = []

    @property
    def told(self) -> bool:
        """Whether anybody outside knows of it."""
        return self.revision > 0

    def lock_s(self) -> float:
        """Return where its calls are cut; NaN where that is not what it is."""
        if self.kind != "duration_lock" or self.dimension is None:
            return math.nan
        return float(self.dimension.value)

    def judge(self) -> Severity:
        """Return the severity that the counts stand for."""
        return RANK[rank_of(self.bad, self.trials)]

    def see(self, call: CallEvidence) -> None:
        """Count a bad call against recovery and keep it."""
        self.recovery = max(0.0, self.recovery + recovery_step(1.0, self.bad, self.trials))
        self.show(call)

    def show(self, call: CallEvidence) -> None:
        """Keep a bad call."""
        self.last_bad_ms = max(self.last_bad_ms, call.end_ms)
        self.evidence_calls = [*self.evidence_calls, call][-CALLS_SHOWN:]
        day = call.end_ms // DAY_MS
        if day not in self.bad_days:
            self.bad_days = [*self.bad_days, day][-366:]

    def see_good(self, count: int) -> None:
        """Count so many good calls for recovery."""
        self.recovery += count * recovery_step(0.0, self.bad, self.trials)

    def good_calls_needed(self) -> int:
        """Return how many more good calls make recovery complete."""
        return good_calls_needed(self.recovery, self.bad, self.trials)

    def worse(self) -> bool:
        """Whether what is known now is worth a new revision."""
        return is_worse(self.bad, self.trials, RANK.index(self.severity), self.told_bad)

    def may_be_renamed(self) -> bool:
        """Whether another pattern would be worth a new revision too."""
        return may_be_renamed(self.bad, self.told_bad, self.kind == "drop_rate")

    def over(self, now_ms: int) -> bool:
        """Whether the calls are good again."""
        return is_over(self.recovery, self.last_bad_ms, now_ms)


class Casebook:
    """All open cases by customer key, and the event times at which one of them needs a decision.

    Attributes:
        closed: the latest cases that were told and are over, by alert: what is reported of them can still be told.
        taken_over_count: cases that an incident took over before they were told.
    """

    def __init__(self) -> None:
        # Whose case changes, whose row does: the engine touches both.
        self.cases: Ledger[int, Case] = Ledger("cases", Case)
        self.closed: Ledger[str, Case] = Ledger("closed cases", Case)
        self.taken_over_count = 0
        self._next_due_ms: int | None = None

    def close(self, case: Case) -> None:
        """Take a case off the open ones; one that was told is remembered for a while."""
        del self.cases[case.customer]
        self.reschedule()
        if case.told:
            self.closed[case.alert_id] = case
            while len(self.closed) > CLOSED_MAX:
                self.closed.drop_oldest()

    def find(self, customer: int, alert_id: str) -> Case | None:
        """Return a case by its customer and alert, open or lately closed; what is written to it stays."""
        case = self.cases.get(customer)
        if case is not None and case.alert_id == alert_id:
            return case
        if alert_id in self.closed:
            self.closed.touch(alert_id)
        return self.closed.get(alert_id)

    def forget(self, customer: int) -> int:
        """Erase a customer's cases; return how many there were."""
        mine = [alert_id for alert_id, case in self.closed.items() if case.customer == customer]
        for alert_id in mine:
            del self.closed[alert_id]
        self.reschedule()
        return len(mine) + int(self.cases.take_out(customer) is not None)

    def leave(self, customers: set[int]) -> None:
        """Leave some customers' cases, open and closed, to somebody else."""
        for customer in customers & self.cases.keys():
            del self.cases[customer]
        for alert_id in [name for name, case in self.closed.items() if case.customer in customers]:
            del self.closed[alert_id]
        self.reschedule()

    def due(self, now_ms: int) -> list[Case]:
        """Return the cases whose decision is due, in order of time and id."""
        late = [case for case in self.cases.values() if self._due_of(case) <= now_ms]
        return sorted(late, key=lambda case: (self._due_of(case), case.alert_id))

    @staticmethod
    def _due_of(case: Case) -> int:
        return case.due_ms or case.last_bad_ms + EXPIRE_MS

    def next_due_ms(self, never: int) -> int:
        """Return an event time up to which no decision is due.

        A time given before stays good while cases only move their decisions back: a bad call does just that. Call
        `reschedule` when one may have moved forward.
        """
        if self._next_due_ms is None:
            self._next_due_ms = min((self._due_of(case) for case in self.cases.values()), default=never)
        return self._next_due_ms

    def reschedule(self) -> None:
        """Compute the next decision anew when it is asked for: a case was opened, told or closed, or time passed."""
        self._next_due_ms = None

    @property
    def floor(self) -> int:
        """Number of the first checkpoint that is needed beside the newest."""
        return min(self.cases.floor, self.closed.floor)

    def changes(self, number: int, *, whole: bool) -> dict[str, Any]:
        """Return what the checkpoint of this number has to hold."""
        return {
            "taken_over": self.taken_over_count,
            "cases": self.cases.changes(number, whole=whole),
            "closed": self.closed.changes(number, whole=whole),
        }

    def take(self, state: dict[str, Any], number: int) -> None:
        """Take over the changes of a checkpoint, behind those of the one before it."""
        self.taken_over_count = state["taken_over"]
        self.cases.take(state["cases"], number)
        self.closed.take(state["closed"], number)

    def settle(self) -> None:
        """Make ready what was taken over.

        Raises:
            StateError: a case is missing.
        """
        self.cases.settle()
        self.closed.settle()
        self.reschedule()

    def reset(self) -> None:
        """Hold no case, with nothing written yet."""
        self.__init__()  # type: ignore[misc]  # begin empty, whatever was there
