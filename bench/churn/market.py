"""A market in which the true effect of every remedy is known: how well is chosen, and what is that worth?

Customers have a cause of trouble, a segment, a chance of leaving if left alone, and a value. Every remedy multiplies
that chance by a true ratio that depends on cause and segment. Some customers are better left alone: contact wakes
them up. The chooser sees none of these ratios; it sees who left, a horizon later.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from detectors.remedies.ledger import Decision, Estimate, Ledger, always, by_expectation, evaluated
from detectors.remedies.uplift import ALONE, Choice, Option, UpliftBandit

Floats = npt.NDArray[np.float64]

CAUSES: Final = ("access_line_fault", "access_congestion", "sip_timer_or_nat", "unknown")
SEGMENTS: Final = ("consumer", "business", "dormant")
SEGMENT_SHARES: Final = (0.6, 0.25, 0.15)

OPTIONS: Final = (
    Option("line_reprofile", 0.20, 200),
    Option("technician_visit", 0.35, 9_000),
    Option("sip_timer_fix", 0.35, 300),
    Option("qos_marking", 0.20, 150),
    Option("service_credit", 0.10, 300),
    Option("retention_offer", 0.20, 3_000),
)
CREDIT: Final = "service_credit"

TRUE_UPLIFT: Final[dict[str, dict[str, float]]] = {
    "line_reprofile": {"access_line_fault": 0.45},
    "technician_visit": {"access_line_fault": 0.60, "unknown": 0.25},
    "sip_timer_fix": {"sip_timer_or_nat": 0.65},
    "qos_marking": {"access_congestion": 0.40, "sip_timer_or_nat": 0.0},
    "service_credit": dict.fromkeys(CAUSES, 0.08),
    "retention_offer": dict.fromkeys(CAUSES, 0.22),
}
"""Share of the risk that a remedy takes away, by cause; what is not listed takes nothing."""

DORMANT_HARM: Final = 0.35
"""To a dormant customer every contact adds so much of the risk: better left alone. Repairs need no contact."""

CONTACT: Final = frozenset({"service_credit", "retention_offer", "technician_visit"})
BUSINESS_FACTOR: Final = 1.2
"""Repairs keep a business better than a household."""

HORIZON: Final = 1_500
"""So many cases later it is known who left."""

DAY_MS: Final = 86_400_000


class Market(Struct, frozen=True):
    """Cases, one a row.

    Attributes:
        cause, segment: as indices.
        chance: of leaving if left alone; the model's forecast is this with noise.
        forecast: what the model says.
        worth_minor: remaining value.
        ratios: by case and action, true ratio of the chance of leaving; `ALONE` first.
        fate: uniform numbers: a customer leaves where theirs is below their chance.
    """

    cause: npt.NDArray[np.int64]
    segment: npt.NDArray[np.int64]
    chance: Floats
    forecast: Floats
    worth_minor: Floats
    ratios: Floats
    fate: Floats

    @property
    def costs_minor(self) -> Floats:
        """Costs of the actions."""
        return np.array([0.0, *(float(option.cost_minor) for option in OPTIONS)])

    def gains_minor(self) -> Floats:
        """Return the true expected gain of every action in every case, against leaving alone."""
        saved = self.chance[:, None] * (1.0 - self.ratios) * self.worth_minor[:, None]
        return np.asarray(saved - self.costs_minor)


def draw_market(cases: int, seed: int) -> Market:
    """Draw a market."""
    rng = np.random.default_rng(seed)
    cause = rng.integers(0, len(CAUSES), cases)
    segment = rng.choice(len(SEGMENTS), cases, p=SEGMENT_SHARES)
    chance = np.clip(rng.beta(1.5, 12.0, cases), 0.002, 0.9)
    odds = chance / (1 - chance) * np.exp(rng.normal(0.0, 0.3, cases))
    fee_minor = np.where(segment == 1, rng.integers(5_000, 12_000, cases), rng.integers(1_500, 5_000, cases))
    return Market(
        cause, segment, chance, odds / (1 + odds), 12.0 * fee_minor, _ratios(cause, segment), rng.random(cases)
    )


def _ratios(cause: npt.NDArray[np.int64], segment: npt.NDArray[np.int64]) -> Floats:
    ratios = np.ones((len(cause), 1 + len(OPTIONS)))
    for column, option in enumerate(OPTIONS, start=1):
        by_cause = np.array([TRUE_UPLIFT[option.action].get(name, 0.0) for name in CAUSES])
        uplift = by_cause[cause]
        if option.action not in CONTACT:
            uplift = np.minimum(np.where(segment == 1, BUSINESS_FACTOR, 1.0) * uplift, 0.9)
        else:
            uplift = np.where(segment == 2, -DORMANT_HARM, uplift)
        ratios[:, column] = 1.0 - uplift
    return ratios


class Played(Struct, frozen=True):
    """What a policy achieved.

    Attributes:
        gain_minor: true expected gain over all cases, against leaving everybody alone.
        regret: share of the oracle's gain that was missed.
        late_regret: the same over the last quarter of the cases.
        contacts: cases in which something was done.
        saved_minor_per_contact: gain per contact.
        saved: customers kept, in expectation.
    """

    policy: str
    gain_minor: float
    regret: float
    late_regret: float
    contacts: int
    saved_minor_per_contact: float
    saved: float


def graded(market: Market, policy: str, actions: npt.NDArray[np.int64]) -> Played:
    """Grade actions by the truth."""
    gains = market.gains_minor()
    rows = np.arange(len(actions))
    taken, best = gains[rows, actions], gains.max(axis=1)
    late = rows >= 3 * len(rows) // 4
    contacts = int(np.count_nonzero(actions))
    return Played(
        policy=policy,
        gain_minor=float(taken.sum()),
        regret=1.0 - float(taken.sum() / best.sum()),
        late_regret=1.0 - float(taken[late].sum() / best[late].sum()),
        contacts=contacts,
        saved_minor_per_contact=float(taken.sum()) / max(contacts, 1),
        saved=float((market.chance * (1.0 - market.ratios[rows, actions])).sum()),
    )


def played(market: Market, seed: int) -> tuple[npt.NDArray[np.int64], Ledger]:
    """Let the bandit choose case by case; labels come `HORIZON` cases later. Return its actions and its ledger."""
    bandit = UpliftBandit()
    ledger = Ledger(bandit, HORIZON)
    names = [ALONE, *(option.action for option in OPTIONS)]
    actions = np.zeros(len(market.cause), np.int64)
    left: deque[tuple[int, int]] = deque()
    for case in range(len(actions)):
        while left and left[0][0] <= case:
            ledger.left(left.popleft()[1], case - 1)
        ledger.mature(case)
        cause, segment = CAUSES[market.cause[case]], SEGMENTS[market.segment[case]]
        forecast, worth = float(market.forecast[case]), float(market.worth_minor[case])
        choice = bandit.choose(OPTIONS, cause, segment, forecast * worth, (str(seed), str(case)))
        actions[case] = names.index(choice.action)
        ledger.add(_decision(case, cause, segment, choice, forecast, worth))
        if choice.action != ALONE:
            ledger.reported(str(case), "accepted", choice.action)
        if market.fate[case] < market.chance[case] * market.ratios[case, actions[case]]:
            left.append((case + HORIZON, case))
    return actions, ledger


def _decision(case: int, cause: str, segment: str, choice: Choice, forecast: float, worth: float) -> Decision:
    return Decision(
        alert_id=str(case),
        customer=case,
        at_ms=case,
        cause=cause,
        segment=segment,
        action=choice.action,
        propensity=choice.propensity,
        actions=choice.actions,
        ratios=choice.ratios,
        costs_minor=[0, *(option.cost_minor for option in OPTIONS)],
        probability=forecast,
        worth_minor=worth,
    )


def fixed_policies(market: Market, seed: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return what other policies would do: the oracle, the catalogue's estimates, chance, always a credit, nothing."""
    cases = len(market.cause)
    estimated = np.array([0.0, *(option.uplift_prior for option in OPTIONS)])
    expected = market.forecast[:, None] * market.worth_minor[:, None] * estimated - market.costs_minor
    credit = 1 + [option.action for option in OPTIONS].index(CREDIT)
    return {
        "oracle": market.gains_minor().argmax(axis=1),
        "catalogue's estimates": expected.argmax(axis=1),
        "random": np.random.default_rng(seed).integers(0, 1 + len(OPTIONS), cases),
        "always a credit": np.full(cases, credit),
        "leave alone": np.zeros(cases, np.int64),
    }


def estimates(ledger: Ledger) -> list[Estimate]:
    """Return what the log says of other policies."""
    policies: dict[str, Callable[..., str]] = {"by expectation": by_expectation, "always a credit": always(CREDIT)}
    return evaluated(ledger.rows, policies)
