"""What was decided and what came of it: decisions wait here until it is known whether their customer left.

Then the bandit learns from them, and a row without a name stays for off-policy evaluation: what other policies would
have achieved, estimated from what this one did.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
from msgspec import Struct

from detectors import changes
from detectors.remedies.uplift import ALONE, UpliftBandit
from schemas.alerts import Credit
from schemas.events import Result

DAY_MS: Final = 86_400_000

DECISIONS_MAX: Final = 100_000
"""Decisions that wait, at most; beyond, the oldest are dropped and counted."""

ROWS_MAX: Final = 20_000
"""Rows kept for evaluation: a hundred days at two hundred alerts a day."""

WEIGHT_MAX: Final = 50.0
"""An importance weight counts no more than this: a little bias for much less variance (Ionides, 2008)."""


class Decision(Struct):
    """One case and what was chosen for it.

    Attributes:
        customer: key.
        cause, segment: the context.
        action, propensity: what was chosen, how probably.
        actions, ratios, costs_minor: everything that could have been, leaving alone first.
        probability: that the customer leaves, as the model said.
        worth_minor: remaining value of the customer.
        held_out: in the comparison group, which is offered repairs alone.
        attempt: 1 at first; one more for each remedy that did not help.
        prices_minor, credits, currency: of what was offered, as last told.
        ordered: how often each remedy was ordered.
        delivered: the remedy that was put to the customer, as reported; None: nothing reported.
        result: the last report.
    """

    alert_id: str
    customer: int
    at_ms: int
    cause: str
    segment: str
    action: str
    propensity: float
    actions: list[str]
    ratios: list[float]
    costs_minor: list[int]
    probability: float
    worth_minor: float
    held_out: bool = False
    attempt: int = 1
    prices_minor: dict[str, int] = {}
    credits: dict[str, Credit] = {}
    currency: str = ""
    ordered: dict[str, int] = {}
    delivered: str | None = None
    result: Result | None = None

    def done(self) -> str | None:
        """Return what was really done, as far as it teaches anything; None: nothing can be learnt.

        A customer whom nobody reached, or on whom nobody reported, was not left alone on purpose: those are not like
        the others.
        """
        if self.result in ("accepted", "declined", "fixed"):
            return self.delivered
        return ALONE if self.action == ALONE and self.result is None else None


class Row(Struct, frozen=True):
    """A decision whose end is known, without the customer: for evaluation."""

    action: str
    propensity: float
    actions: list[str]
    ratios: list[float]
    costs_minor: list[int]
    probability: float
    worth_minor: float
    left: bool

    def reward_minor(self) -> float:
        """Return what came in: nothing but costs, and the customer's remaining value lost where they left."""
        return -self.worth_minor * self.left - self.cost(self.action)

    def predicted_minor(self, action: str) -> float:
        """Return what was expected of an action when it could have been chosen."""
        ratio = self.ratios[self.actions.index(action)] / self.ratios[0]
        return -self.worth_minor * min(self.probability * ratio, 1.0) - self.cost(action)

    def cost(self, action: str) -> float:
        """Return an action's cost."""
        return float(self.costs_minor[self.actions.index(action)])


class Estimate(Struct, frozen=True):
    """What a policy would have achieved per decision, in minor units, against leaving everybody alone.

    Attributes:
        ips, dr: by inverse propensities; doubly robust (Dudik, Langford and Li, 2011).
        ips_error, dr_error: one standard error.
        matched: decisions in which the policy agrees with what was done.
    """

    policy: str
    decisions: int
    matched: int
    ips: float
    ips_error: float
    dr: float
    dr_error: float


Policy = Callable[[Row], str]


class Ledger:
    """Keeps decisions until their end is known.

    Args:
        bandit: learns from them.
        horizon_ms: time within which leaving counts.

    Attributes:
        dropped_count: decisions dropped for want of room.
    """

    def __init__(self, bandit: UpliftBandit, horizon_ms: int) -> None:
        self._bandit = bandit
        self._horizon_ms = horizon_ms
        self._waiting: changes.Ledger[str, Decision] = changes.Ledger("decisions", Decision)
        self._attempts: dict[str, int] = {}
        self._rows: changes.Ledger[int, Row] = changes.Ledger("rows of decisions", Row)
        self._serial = 0
        self.dropped_count = 0

    def __len__(self) -> int:
        """Count the decisions that wait."""
        return len(self._waiting)

    @property
    def rows(self) -> Iterable[Row]:
        """The decisions whose end is known, oldest first."""
        return tuple(self._rows.values())

    def of(self, alert_id: str) -> Decision | None:
        """Return the decision on a case, while it waits; what is written to it stays."""
        key = _key(alert_id, self._attempts.get(alert_id, 1))
        if key in self._waiting:
            self._waiting.touch(key)
        return self._waiting.get(key)

    def add(self, decision: Decision) -> None:
        """Keep a decision."""
        self._waiting[_key(decision.alert_id, decision.attempt)] = decision
        if decision.attempt > 1:
            self._attempts[decision.alert_id] = decision.attempt
        while len(self._waiting) > DECISIONS_MAX:
            self._drop(next(iter(self._waiting.values())))
            self.dropped_count += 1

    def reported(self, alert_id: str, result: Result, remedy_id: str | None) -> None:
        """Take over what was reported of a remedy, or of none that is known; of a case not known here, nothing."""
        decision = self.of(alert_id)
        # That they were spoken with says less than what they answered.
        if decision is not None and (result != "contacted" or decision.result is None):
            decision.result, decision.delivered = result, remedy_id

    def left(self, customer: int, at_ms: int) -> None:
        """Learn that a customer left."""
        for decision in [one for one in self._waiting.values() if one.customer == customer]:
            if 0 <= at_ms - decision.at_ms < self._horizon_ms:
                self._learn(decision, left=True)

    def mature(self, now_ms: int) -> None:
        """Learn of those whose horizon has passed that they stayed."""
        while self._waiting:
            decision = next(iter(self._waiting.values()))
            if now_ms - decision.at_ms < self._horizon_ms:
                return
            self._learn(decision, left=False)

    def wait_for(self, customers: set[int]) -> None:
        """Erase the decisions on all customers but these."""
        for decision in [one for one in self._waiting.values() if one.customer not in customers]:
            self._drop(decision)

    def forget(self, customer: int) -> int:
        """Erase a customer's decisions; return how many waited. Rows whose end is known name nobody."""
        mine = [one for one in self._waiting.values() if one.customer == customer]
        for decision in mine:
            self._drop(decision)
        return len(mine)

    def _drop(self, decision: Decision) -> None:
        del self._waiting[_key(decision.alert_id, decision.attempt)]
        if self._attempts.get(decision.alert_id) == decision.attempt:
            del self._attempts[decision.alert_id]

    def _learn(self, decision: Decision, *, left: bool) -> None:
        self._drop(decision)
        done = decision.done()
        if done is not None:
            self._bandit.learn(done, decision.cause, decision.segment, left=left, expected=decision.probability)
        self._rows[self._serial] = Row(
            decision.action,
            decision.propensity,
            decision.actions,
            decision.ratios,
            decision.costs_minor,
            decision.probability,
            decision.worth_minor,
            left,
        )
        self._serial += 1
        while len(self._rows) > ROWS_MAX:
            self._rows.drop_oldest()

    @property
    def floor(self) -> int:
        """Number of the first checkpoint that is needed beside the newest."""
        return min(self._waiting.floor, self._rows.floor)

    def changes(self, number: int, *, whole: bool) -> dict[str, Any]:
        """Return what the checkpoint of this number has to hold."""
        return {
            "waiting": self._waiting.changes(number, whole=whole),
            "rows": self._rows.changes(number, whole=whole),
            "serial": self._serial,
            "dropped": self.dropped_count,
        }

    def reset(self) -> None:
        """Hold nothing, with nothing written yet."""
        self.__init__(self._bandit, self._horizon_ms)  # type: ignore[misc]  # begin empty

    def take(self, state: Mapping[str, Any], number: int) -> None:
        """Take over the changes of a checkpoint, behind those of the one before it."""
        self._waiting.take(state["waiting"], number)
        self._rows.take(state["rows"], number)
        self._serial, self.dropped_count = state["serial"], state["dropped"]

    def settle(self) -> None:
        """Make ready what was taken over.

        Raises:
            StateError: a decision or a row is missing.
        """
        self._waiting.settle()
        self._rows.settle()
        self._attempts = {one.alert_id: one.attempt for one in self._waiting.values() if one.attempt > 1}


def _key(alert_id: str, attempt: int) -> str:
    return f"{alert_id}/{attempt}"


def by_expectation(row: Row) -> str:
    """Take the action of which most was expected."""
    return max(row.actions, key=row.predicted_minor)


def leave_alone(row: Row) -> str:  # noqa: ARG001  a policy
    """Do nothing."""
    return ALONE


def always(action: str) -> Policy:
    """Take one action wherever it can be taken."""
    return lambda row: action if action in row.actions else ALONE


def evaluated(rows: Iterable[Row], policies: Mapping[str, Policy]) -> list[Estimate]:
    """Estimate what other policies would have achieved, from what was done with known propensities."""
    kept = list(rows)
    if not kept:
        return []
    base_ips, base_dr, _ = _values(kept, leave_alone)
    estimates = []
    for name, policy in policies.items():
        ips, dr, matched = _values(kept, policy)
        estimates.append(Estimate(name, len(kept), matched, *_mean(ips - base_ips), *_mean(dr - base_dr)))
    return estimates


def _values(rows: list[Row], policy: Policy) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    ips, dr, matched = np.zeros(len(rows)), np.zeros(len(rows)), 0
    for index, row in enumerate(rows):
        wanted = policy(row)
        dr[index] = row.predicted_minor(wanted)
        if wanted == row.action:
            matched += 1
            weight = min(1.0 / row.propensity, WEIGHT_MAX)
            ips[index] = weight * row.reward_minor()
            dr[index] += weight * (row.reward_minor() - row.predicted_minor(wanted))
    return ips, dr, matched


def _mean(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))
