"""What to offer a customer, and everything that is learnt from what became of it.

Rules first (`choice`), then expectation (`uplift`): what may be offered is ranked by what is expected of it, and one
action is chosen to come first, with a known probability. What came of it teaches the bandit (`ledger`), verifies the
remedy (`followup`) and rates who carried it out (`partners`).
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from detectors.remedies import statutory
from detectors.remedies.catalogue import Catalogue, RemedyTerms
from detectors.remedies.choice import REMEDIES_MAX, Assumptions, Situation, Uplift, choose, told_by_law, value_basis
from detectors.remedies.followup import FOLLOW_UP_DAYS, FollowUp, FollowUps
from detectors.remedies.ledger import DAY_MS, Decision, Ledger
from detectors.remedies.partners import Job, Partners
from detectors.remedies.uplift import ALONE, Option, UpliftBandit, uniforms
from detectors.settings import Settings
from schemas.alerts import Choice, Order, Remedy
from schemas.events import Outcome

HOLD_OUT: Final = "hold_out"

NOTHING_GAINED: Final = "No offer is expected to gain more than it costs: repair the fault and leave it at that."
LEFT_BY_CHANCE: Final = (
    "Repair the fault and offer nothing: drawn with a probability of {:.0%}, so that it shows what offers change."
)
HELD_OUT: Final = "This customer is in the comparison group: repairs as usual, and no other offer."


class CaseFacts(Struct, frozen=True):
    """Which case a choice is for.

    Attributes:
        attempt: 1 at first; one more for each remedy that did not help.
    """

    alert_id: str
    customer: int
    customer_id: str
    attempt: int


class Chooser:
    """Ranks remedies, chooses among them, and learns.

    Args:
        settings: what the configuration fixes.
        catalogue: the remedies.

    Attributes:
        follow_ups: the remedies that are being watched.
        partners: who carried them out.
        bandit: what was learnt of uplift.
        ledger: the decisions.
        assumptions: what a kept customer is worth.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        business = settings.business
        self._deployment, self._business, self._catalogue = settings.deployment, business, catalogue
        self._by_law = statutory.terms()
        self._terms = {terms.id: terms for terms in (*catalogue.remedies, self._by_law)}
        self._spent: dict[str, int] = {}
        self._month = 0
        self.assumptions = Assumptions(business.margin_ratio, business.remaining_months)
        self.bandit = UpliftBandit(business.explore_ratio)
        self.ledger = Ledger(self.bandit, business.horizon_days * DAY_MS)
        self.follow_ups = FollowUps()
        self.partners = Partners()

    # Choosing

    def offer(self, facts: CaseFacts, situation: Situation) -> tuple[list[Remedy], Choice]:
        """Return the remedies by expected gain, and which to put first.

        A case keeps its choice until the remedy has failed; what is offered otherwise follows what is known by now.
        """
        held_out = self._is_held_out(facts.customer_id)
        situation = replace(
            situation,
            repairs_only=held_out or self._has_enough(situation),
            room_minor=self._room_minor(situation.priced_in(self._catalogue), situation.now_ms),
        )
        offers = choose(
            self._catalogue,
            situation,
            assumptions=self.assumptions,
            uplift=self._uplift_in(situation),
            limit=None,
            cap_percent=self._business.cap_percent,
        )
        offers = [replace(one, partner_id=self.partners.best(one.remedy_id)) for one in offers]
        decision = self.ledger.of(facts.alert_id)
        if decision is None or decision.attempt != facts.attempt:
            ordered = {} if decision is None else decision.ordered
            decision = self._decide(facts, situation, offers, held_out=held_out)
            decision.ordered = dict(ordered)
        shown = _shortened(offers, decision.action)
        if situation.due_by_law is not None:
            due = told_by_law(self._by_law, situation, situation.due_by_law)
            offers, shown = [*offers, due], [*shown, due]
        # What was offered once may be accepted at that price, though it is offered no more.
        decision.currency = situation.priced_in(self._catalogue)
        decision.prices_minor |= {one.remedy_id: one.cost_minor for one in offers}
        decision.credits |= {one.remedy_id: one.credit for one in offers if one.credit is not None}
        return shown, self._told(decision, offers)

    def _uplift_in(self, situation: Situation) -> Uplift:
        uplift = self.bandit.uplifts(situation.cause.kind, situation.segment or "")
        return lambda terms, _: uplift(Option(terms.id, terms.uplift_prior, 0))

    def _decide(self, facts: CaseFacts, situation: Situation, offers: list[Remedy], *, held_out: bool) -> Decision:
        worth = self._worth(situation)
        options = [Option(one.remedy_id, self._terms[one.remedy_id].uplift_prior, one.cost_minor) for one in offers]
        segment = situation.segment or ""
        probability = situation.churn.probability
        words = (self._deployment, facts.alert_id, str(facts.attempt))
        chosen = self.bandit.choose(options, situation.cause.kind, segment, probability * worth, words)
        decision = Decision(
            alert_id=facts.alert_id,
            customer=facts.customer,
            at_ms=situation.now_ms,
            cause=situation.cause.kind,
            segment=segment,
            action=chosen.action,
            propensity=chosen.propensity,
            actions=chosen.actions,
            ratios=chosen.ratios,
            costs_minor=[0, *(option.cost_minor for option in options)],
            probability=probability,
            worth_minor=worth,
            held_out=held_out,
            attempt=facts.attempt,
        )
        self.ledger.add(decision)
        return decision

    def _told(self, decision: Decision, offers: list[Remedy]) -> Choice:
        action, chance = decision.action, decision.propensity
        if action != ALONE:
            title = self._terms[action].title if action in self._terms else action
            text = f"Offer first: {title}. It was chosen with a probability of {chance:.0%}."
        elif decision.held_out:
            action, text = HOLD_OUT, HELD_OUT
        elif any(one.expected_gain_minor > 0 for one in offers):
            text = LEFT_BY_CHANCE.format(chance)
        else:
            text = NOTHING_GAINED
        return Choice(action, round(chance, 6), text)

    def _worth(self, situation: Situation) -> float:
        if situation.fee_minor is None or situation.currency is None:
            return 0.0
        return max(situation.fee_minor, 0) * self.assumptions.margin_ratio * self.assumptions.remaining_months

    def value_basis(self, probability: float, fee_minor: int | None, currency: str | None) -> str | None:
        """Return the arithmetic behind a value at risk."""
        return value_basis(probability, fee_minor, currency, self.assumptions)

    def _is_held_out(self, customer_id: str) -> bool:
        # By customer, not by case: who gets offers for one case and none for the next is in neither group.
        chance = float(uniforms(1, (self._deployment, "hold-out", customer_id))[0])
        return chance < self._business.hold_out_ratio

    def _has_enough(self, situation: Situation) -> bool:
        since_ms = situation.now_ms - self._business.contact_days * DAY_MS
        # That a job was done is no contact.
        silent = ("unreachable", "fixed")
        spoken = {each.at_ms for each in situation.tried if each.at_ms > since_ms and each.result not in silent}
        return len(spoken) >= self._business.contacts_max

    def _room_minor(self, currency: str, now_ms: int) -> int | None:
        if currency not in self._business.budget_minor:
            return None
        spent = self._spent.get(currency, 0) if month_of(now_ms) == self._month else 0
        return max(self._business.budget_minor[currency] - spent, 0)

    # Learning

    def is_due_by_law(self, remedy_id: str) -> bool:
        """Tell whether this is no remedy, but what law or a scheme pays."""
        return remedy_id == self._by_law.id

    def outcome(self, customer: int, event: Outcome) -> Order | None:
        """Take over what came of an offer; return the order where a remedy was accepted.

        Args:
            customer: whose case it is.
            event: the report; the case is known.
        """
        decision = self.ledger.of(event.alert_id)
        remedy_id = event.remedy_id or (None if decision is None or decision.action == ALONE else decision.action)
        # What is due anyway is no offer: it teaches nothing, and mends nothing that could be watched.
        if event.remedy_id != self._by_law.id:
            self.ledger.reported(event.alert_id, event.result, remedy_id if remedy_id in self._terms else None)
            if event.result in ("accepted", "fixed") and remedy_id is not None:
                terms = self._terms.get(remedy_id)
                self._watch(customer, event, remedy_id, FOLLOW_UP_DAYS if terms is None else terms.follow_up_days)
        if event.result != "accepted" or remedy_id not in self._terms or decision is None:
            return None
        return self._order(decision, event, self._terms[remedy_id])

    def _order(self, decision: Decision, event: Outcome, terms: RemedyTerms) -> Order | None:
        """Return the order for what was accepted; None where there is none, or nothing, to be made."""
        times, by_law = decision.ordered.get(terms.id, 0), self.is_due_by_law(terms.id)
        is_offered = terms.id in decision.prices_minor
        # Told twice it is one order, unless more has come to be due; and no credit is paid that nobody has computed.
        if (times and not by_law) or (not is_offered and (by_law or terms.credit_rule is not None)):
            return None
        cost_minor = decision.prices_minor.get(terms.id, terms.cost_minor.get(decision.currency, 0))
        limit_minor = terms.approval_limit_minor.get(decision.currency)
        room_minor = None if terms.is_repair else self._room_minor(decision.currency, event.at_ms)
        needs_approval = (
            # What was not offered broke a rule, or nobody asked.
            not is_offered
            or (limit_minor is not None and cost_minor > limit_minor)
            or (room_minor is not None and cost_minor > room_minor)
        )
        order = Order(
            order_id=f"{event.alert_id}-{terms.id}" + (f"-{times + 1}" if times else ""),
            remedy_id=terms.id,
            title=terms.title,
            ordered_ms=event.at_ms,
            cost_minor=cost_minor,
            credit=decision.credits.get(terms.id),
            needs_approval=needs_approval,
            partner_id=event.partner_id or self.partners.best(terms.id),
        )
        decision.ordered[terms.id] = times + 1
        if by_law:
            del decision.prices_minor[terms.id], decision.credits[terms.id]
        if not terms.is_repair:
            self._spend(decision.currency, cost_minor, event.at_ms)
        return order

    def _watch(self, customer: int, event: Outcome, remedy_id: str, days: int) -> None:
        partner = event.partner_id or ""
        if event.result == "fixed":
            partner = self.partners.fixed(event.alert_id, remedy_id, event.at_ms, days * DAY_MS) or partner
        elif partner:
            self.partners.ordered(Job(customer, event.alert_id, remedy_id, partner, event.at_ms))
        self.follow_ups.watch(
            FollowUp(event.alert_id, customer, remedy_id, event.at_ms, event.at_ms + days * DAY_MS, partner)
        )

    def _spend(self, currency: str, cost_minor: int, at_ms: int) -> None:
        if month_of(at_ms) > self._month:
            self._month, self._spent = month_of(at_ms), {}
        self._spent[currency] = self._spent.get(currency, 0) + cost_minor

    def forget(self, customer: int) -> int:
        """Forget a customer; return how much there was."""
        self.partners.forget(customer)
        return self.ledger.forget(customer) + self.follow_ups.forget(customer)

    # State

    @property
    def floor(self) -> int:
        """Number of the first checkpoint that is needed beside the newest."""
        return self.ledger.floor

    def changes(self, number: int, *, whole: bool) -> dict[str, Any]:
        """Return what the checkpoint of this number has to hold."""
        return {
            "month": self._month,
            "spent": dict(self._spent),
            "bandit": self.bandit.snapshot(),
            "ledger": self.ledger.changes(number, whole=whole),
            "follow_ups": self.follow_ups.snapshot(),
            "partners": self.partners.snapshot(),
        }

    def take(self, state: Mapping[str, Any], number: int) -> None:
        """Take over the changes of a checkpoint, behind those of the one before it."""
        self._month, self._spent = state["month"], dict(state["spent"])
        self.bandit.restore(state["bandit"])
        self.ledger.take(state["ledger"], number)
        self.follow_ups.restore(state["follow_ups"])
        self.partners.restore(state["partners"])

    def settle(self) -> None:
        """Make ready what was taken over.

        Raises:
            StateError: a decision is missing.
        """
        self.ledger.settle()


def _shortened(offers: list[Remedy], action: str) -> list[Remedy]:
    """Return the best few, the chosen one among them."""
    kept = offers[:REMEDIES_MAX]
    chosen = [one for one in offers[REMEDIES_MAX:] if one.remedy_id == action]
    return [*kept[: REMEDIES_MAX - 1], *chosen] if chosen else kept


def month_of(at_ms: int) -> int:
    """Return the calendar month (UTC) as a number that grows by one a month."""
    day = dt.datetime.fromtimestamp(at_ms // 1000, tz=dt.UTC)
    return 12 * day.year + day.month
