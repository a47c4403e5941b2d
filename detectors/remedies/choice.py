"""Which remedies to offer a customer, best first, and what is at stake.

Expected gain = P(leaves) x remaining value x uplift - cost, in minor units of the customer's currency. What is not
known is not guessed: without fee or currency nothing is claimed to be at risk, no credit is computed, and remedies
rank by what they cost.

What is offered first obeys rules that no gain can outweigh: no upsell while the fault is open, no bandwidth
unless congestion or the codec is the cause, no credit for another network's faults, no more often than agreed, and
nothing that needs a consent which was not given.
"""

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from detectors.remedies.catalogue import BANDWIDTH_CAUSES, NO_CREDIT_CAUSES, Catalogue, RemedyTerms
from detectors.remedies.causes import CAUSE_WORDS
from detectors.remedies.credits import CAP_PERCENT, Measured, credit, find_rule
from schemas.alerts import Cause, ChurnRisk, Credit, Remedy
from schemas.errors import ConfigError
from schemas.events import COUNT_MAX, Result
from schemas.money import money_text, rounded

DAY_MS: Final = 86_400_000

MARGIN_RATIO: Final = 0.5
"""Share of the fee left after the cost of serving the customer. An assumption for the carrier to replace."""

REMAINING_MONTHS: Final = 24.0
"""Months that a customer who is kept goes on paying. An assumption: a steady 1.5% a month would give 66, but who
was about to leave once may be so again."""

REMEDIES_MAX: Final = 5
"""Longer lists are not read during a call."""


FAIR_AMOUNT: Final = {"en": "a fair amount", "de": "einen angemessenen Betrag", "zh": "合理的金额"}
"""What a talk track says instead of a credit whose amount is not known."""

_WORDS: Final[dict[str, str]] = {str(kind): text for kind, text in CAUSE_WORDS.items()}


class Assumptions(Struct, frozen=True):
    """What a kept customer is worth.

    Attributes:
        margin_ratio: share of the monthly fee that is margin, in [0, 1].
        remaining_months: months a kept customer goes on paying, at least 0.

    Raises:
        ConfigError: if one is out of range.
    """

    margin_ratio: float = MARGIN_RATIO
    remaining_months: float = REMAINING_MONTHS

    def __post_init__(self) -> None:
        """Hold both against their ranges."""
        problems = []
        if not 0.0 <= self.margin_ratio <= 1.0:
            problems.append(f"margin_ratio must be in [0, 1], was {self.margin_ratio}")
        if not 0.0 <= self.remaining_months <= 1200.0:
            problems.append(f"remaining_months must be in [0, 1200], was {self.remaining_months}")
        if problems:
            raise ConfigError(problems)


class Tried(Struct, frozen=True):
    """A remedy that was put to the customer before; `result` is None while nobody has reported back."""

    remedy_id: str
    at_ms: int
    result: Result | None = None


class Situation(Struct, frozen=True, kw_only=True):
    """What is known of a customer when remedies are chosen; None where it is not.

    Attributes:
        cause: the likeliest cause of the trouble.
        churn: how likely they are to leave.
        now_ms: event time.
        fault_open: whether the trouble goes on.
        measured: the bad calls, the days that had any, the time they covered.
        fee_minor, currency: the monthly fee.
        credited_minor: what the current bill already credits, but for `by_law_minor`.
        segment: the customer's.
        consent: channels that the customer agreed to; None is no consent.
        language: BCP 47 tag, for the talk track.
        tried: remedies put to them before.
        failed: remedies that this case was given and that did not help: they are not offered again.
        call_ids: the newest bad calls.
        repairs_only: nothing but repairs may be offered: the hold-out, or enough contacts.
        room_minor: what is left of the month's budget; None: no limit.
        is_settled: no goodwill is due now: this case has had its credit, or law may yet pay for a loss that goes on.
        due_by_law: what law or a scheme still has to pay for the trouble, in `currency`, whatever is offered.
        by_law_minor: all that it pays for it, ordered or not.
    """

    cause: Cause
    churn: ChurnRisk
    now_ms: int
    fault_open: bool = True
    measured: Measured = Measured()
    fee_minor: int | None = None
    currency: str | None = None
    credited_minor: int = 0
    segment: str | None = None
    consent: tuple[str, ...] | None = None
    language: str | None = None
    tried: tuple[Tried, ...] = ()
    failed: tuple[str, ...] = ()
    call_ids: tuple[str, ...] = ()
    repairs_only: bool = False
    room_minor: int | None = None
    is_settled: bool = False
    due_by_law: Credit | None = None
    by_law_minor: int = 0

    def priced_in(self, catalogue: Catalogue) -> str:
        """Return the currency of the prices: the customer's, or the catalogue's where that is not known."""
        return catalogue.currency if self.currency is None else self.currency


Uplift = Callable[[RemedyTerms, Situation], float]
"""The share of the churn risk that a remedy takes away from this customer: at most 1, negative where it does harm."""


def prior_uplift(terms: RemedyTerms, situation: Situation) -> float:  # noqa: ARG001  the shape of `Uplift`
    """Return the catalogue's estimate: what is believed before outcomes are learnt."""
    return terms.uplift_prior


def value_at_risk(
    probability: float, fee_minor: int | None, currency: str | None, assumptions: Assumptions | None = None
) -> int | None:
    """Return P(leaves) x remaining value in minor units, rounded half up; None where fee or currency is unknown.

    Remaining value = monthly fee x margin ratio x remaining months. A negative fee counts as none.
    """
    at_risk = _at_risk(probability, fee_minor, currency, assumptions)
    return None if at_risk is None else rounded(at_risk)


def value_basis(
    probability: float, fee_minor: int | None, currency: str | None, assumptions: Assumptions | None = None
) -> str | None:
    """Return the arithmetic of `value_at_risk`, assumptions included, as a representative reads it."""
    if fee_minor is None or currency is None:
        return None
    worth = Assumptions() if assumptions is None else assumptions
    return (
        f"{probability:.2%} chance of leaving x {money_text(max(fee_minor, 0), currency)} a month x "
        f"{worth.margin_ratio:.0%} margin (assumed) x {worth.remaining_months:g} months (assumed)"
    )


def choose(
    catalogue: Catalogue,
    situation: Situation,
    *,
    assumptions: Assumptions | None = None,
    uplift: Uplift = prior_uplift,
    limit: int | None = REMEDIES_MAX,
    cap_percent: int = CAP_PERCENT,
) -> list[Remedy]:
    """Return what to offer, by expected gain, best first; equal gains stand in the catalogue's order.

    Args:
        catalogue: what there is.
        situation: what is known of the customer.
        assumptions: what a kept customer is worth; the named defaults where None.
        uplift: how much of the risk a remedy takes away.
        limit: at most so many; None: all.
        cap_percent: most that credits on one bill may come to, in percent of the monthly fee.
    """
    at_risk = _at_risk(situation.churn.probability, situation.fee_minor, situation.currency, assumptions)
    priced_in = situation.priced_in(catalogue)
    offers = []
    for terms in catalogue.remedies:
        if not _may_offer(terms, situation):
            continue
        price_minor = terms.cost_minor.get(priced_in) if terms.cost_minor else 0
        due = _credit(terms, situation, cap_percent)
        # A remedy that has no price in the customer's currency cannot be weighed; a credit of nothing is no offer.
        if price_minor is None or (due is None and _is_credit_known(terms, situation)):
            continue
        cost_minor = price_minor + (0 if due is None else due.amount_minor)
        if not terms.is_repair and situation.room_minor is not None and cost_minor > situation.room_minor:
            continue
        benefit_minor = 0 if at_risk is None else rounded(at_risk * uplift(terms, situation))
        offers.append(_offer(terms, situation, due, (cost_minor, priced_in), benefit_minor - cost_minor))
    offers = _paid_once(offers)
    offers.sort(key=lambda offer: -offer.expected_gain_minor)
    return offers[:limit]


def _paid_once(offers: list[Remedy]) -> list[Remedy]:
    """Leave of several credits for the same trouble the largest."""
    most = max((one.credit.amount_minor for one in offers if one.credit is not None), default=0)
    largest = next((one for one in offers if one.credit is not None and one.credit.amount_minor == most), None)
    return [one for one in offers if one.credit is None or one is largest]


def _at_risk(
    probability: float, fee_minor: int | None, currency: str | None, assumptions: Assumptions | None
) -> float | None:
    if fee_minor is None or currency is None:
        return None
    worth = Assumptions() if assumptions is None else assumptions
    return min(probability * max(fee_minor, 0) * worth.margin_ratio * worth.remaining_months, COUNT_MAX)


def _may_offer(terms: RemedyTerms, situation: Situation) -> bool:
    cause = situation.cause.kind
    if cause not in terms.causes or (terms.is_upsell and situation.fault_open):
        return False
    if terms.id in situation.failed or (situation.repairs_only and not terms.is_repair):
        return False
    # The catalogue was checked for these two; a table made by hand must not get around them.
    if terms.adds_bandwidth and cause not in BANDWIDTH_CAUSES:
        return False
    if terms.credit_rule is not None:
        rule = find_rule(terms.credit_rule)
        if situation.is_settled or cause in NO_CREDIT_CAUSES or getattr(situation.measured, rule.unit) < rule.least:
            return False
    return _is_eligible(terms, situation)


def _is_eligible(terms: RemedyTerms, situation: Situation) -> bool:
    allowed = terms.eligibility
    if allowed.segments and situation.segment not in allowed.segments:
        return False
    if allowed.consent and not set(allowed.consent).intersection(situation.consent or ()):
        return False
    since_ms = situation.now_ms - allowed.limit_days * DAY_MS
    results = [each.result for each in situation.tried if each.remedy_id == terms.id and each.at_ms > since_ms]
    # Somebody who could not be reached has not been offered anything; what was accepted and then done is one.
    done = results.count("fixed")
    return max(done, len(results) - done - results.count("unreachable")) < allowed.limit_count


def _is_credit_known(terms: RemedyTerms, situation: Situation) -> bool:
    known = situation.fee_minor is not None and situation.currency is not None
    return terms.credit_rule is not None and known


def _credit(terms: RemedyTerms, situation: Situation, cap_percent: int) -> Credit | None:
    if terms.credit_rule is None:
        return None
    return credit(
        find_rule(terms.credit_rule),
        situation.fee_minor,
        situation.currency,
        situation.measured,
        credited_minor=situation.credited_minor,
        statutory_minor=situation.by_law_minor,
        cap_percent=cap_percent,
        call_ids=situation.call_ids,
    )


def _offer(
    terms: RemedyTerms, situation: Situation, due: Credit | None, cost: tuple[int, str], gain_minor: int
) -> Remedy:
    approval = _approval(terms, *cost)
    return Remedy(
        remedy_id=terms.id,
        title=terms.title,
        say=_talk_track(terms, situation, due),
        why=terms.why + approval,
        needs_approval=bool(approval),
        cost_minor=cost[0],
        expected_gain_minor=gain_minor,
        credit=due,
    )


def told_by_law(terms: RemedyTerms, situation: Situation, due: Credit) -> Remedy:
    """Return what is due by law as a card tells it; it costs what it is, and nothing is gained by withholding it."""
    return _offer(terms, situation, due, (due.amount_minor, due.currency), 0)


def _talk_track(terms: RemedyTerms, situation: Situation, due: Credit | None) -> str:
    language = "" if situation.language is None else situation.language.split("-")[0].lower()
    say = terms.say_in.get(language, terms.say)
    amount = FAIR_AMOUNT.get(language, FAIR_AMOUNT["en"])
    if due is not None:
        amount = money_text(due.amount_minor, due.currency)
    return say.format(
        bad_calls=situation.measured.bad_calls,
        bad_days=situation.measured.bad_days,
        cause=_WORDS.get(situation.cause.kind, CAUSE_WORDS["unknown"]),
        credit=amount,
        follow_up_days=terms.follow_up_days,
    )


def _approval(terms: RemedyTerms, cost_minor: int, currency: str) -> str:
    limit_minor = terms.approval_limit_minor.get(currency)
    if limit_minor is None or cost_minor <= limit_minor:
        return ""
    return f" Needs a supervisor's approval: it costs more than {money_text(limit_minor, currency)}."
