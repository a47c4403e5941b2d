"""What the business knows of each customer, and the churn features that follow from it."""

from operator import attrgetter

from msgspec import Struct

from detectors.changes import Ledger
from detectors.churn.features import FEATURE_MAX
from schemas.events import Contact, Outcome, Profile, Result, Usage
from schemas.money import decimals

DAY_MS = 86_400_000
CONTACTS_KEPT = 16
REMEDIES_KEPT = 64
"""No limit on how often something is offered is higher."""

CONTACTS_COUNTED: dict[str, tuple[str, int]] = {
    "quality": ("contacts_quality_30d", 30),
    "billing": ("contacts_billing_30d", 30),
    "cancel": ("contacts_cancel_90d", 90),
}
"""By topic: the feature that counts contacts about it, and for how many days."""

NOTHING_HAPPENED: dict[str, float] = {
    **dict.fromkeys((name for name, _ in CONTACTS_COUNTED.values()), 0.0),
    "offers_accepted_180d": 0.0,
    "offers_declined_180d": 0.0,
    "cases_30d": 0.0,
    "cases_solved_30d": 0.0,
}

BACK_MS = 7 * DAY_MS
"""Calls so long after somebody left are a customer's again; before, they are the line's last ones."""

_PROFILE = (
    "plan", "plan_down_mbps", "monthly_fee_minor", "currency", "tenure_days", "contract_end_ms", "segment", "consent",
    "access_node", "language",
)  # fmt: skip
_said = attrgetter(*_PROFILE)


class Paid(Struct, frozen=True, gc=False):
    """A credit that was ordered for a customer."""

    at_ms: int
    alert_id: str
    amount_minor: int
    currency: str


class Relation(Struct, gc=False):
    """One customer's relationship with the carrier; every field may be unknown.

    Attributes:
        profile_ms: when `tenure_days` was true.
        usage_ms: when usage was last reported.
        minutes_per_day, minutes_per_day_before: of the newest usage report and of the one before it.
        bill_minor, bill_currency: the newest bill; compared with the fee only in the same currency.
        contacts: (time, topic), newest last.
        cases, solved: times at which cases were opened, and at which calls were good again, newest last.
        remedies: (time, remedy_id, result), newest last.
        credits: those that were ordered, goodwill and what law pays, newest last.
        left_ms: when they were last reported to have left; None: never.
    """

    profile_ms: int = 0
    plan: str | None = None
    plan_down_mbps: float | None = None
    monthly_fee_minor: int | None = None
    currency: str | None = None
    tenure_days: int | None = None
    contract_end_ms: int | None = None
    segment: str | None = None
    consent: list[str] | None = None
    access_node: str | None = None
    language: str | None = None
    usage_ms: int = 0
    minutes_per_day: float | None = None
    minutes_per_day_before: float | None = None
    bill_minor: int | None = None
    bill_currency: str | None = None
    contacts: list[tuple[int, str]] = []
    cases: list[int] = []
    remedies: list[tuple[int, str, Result]] = []
    credits: list[Paid] = []
    solved: list[int] = []
    left_ms: int | None = None

    def features(self, now_ms: int) -> dict[str, float]:
        """Return the churn features that the relationship gives; what is not known is absent."""
        known = self._counts(now_ms)
        if self.tenure_days is not None:
            known["tenure_days"] = self.tenure_days + max(0, now_ms - self.profile_ms) / DAY_MS
        if self.contract_end_ms is not None:
            known["contract_days_left"] = (self.contract_end_ms - now_ms) / DAY_MS
        if self.monthly_fee_minor is not None:
            known["monthly_fee"] = self.monthly_fee_minor / 10.0 ** decimals(self.currency or "")
        if self.plan_down_mbps is not None:
            known["plan_down_mbps"] = self.plan_down_mbps
        if self.minutes_per_day is not None:
            known["minutes_per_day"] = self.minutes_per_day
            if self.minutes_per_day_before:
                known["usage_change_ratio"] = self.minutes_per_day / self.minutes_per_day_before
        if self.bill_minor is not None and self.monthly_fee_minor and self.bill_currency == self.currency:
            known["bill_ratio"] = self.bill_minor / self.monthly_fee_minor
        if min(known.values()) >= -FEATURE_MAX and max(known.values()) <= FEATURE_MAX:
            return known
        # What the contract allows and no customer has (a plan of 1e16 Mbit/s) says nothing about leaving.
        return {name: value for name, value in known.items() if -FEATURE_MAX <= value <= FEATURE_MAX}

    def _counts(self, now_ms: int) -> dict[str, float]:
        """Return the features that count what has happened; of most customers nothing has."""
        known = NOTHING_HAPPENED.copy()
        for at_ms, topic in self.contacts:
            name, days = CONTACTS_COUNTED.get(topic, ("", 0))
            if name and now_ms - at_ms <= days * DAY_MS:
                known[name] += 1.0
        if self.contacts:
            known["days_since_contact"] = max(0, now_ms - self.contacts[-1][0]) / DAY_MS
        for at_ms, _, said in self.remedies:
            if said in ("accepted", "declined") and now_ms - at_ms <= 180 * DAY_MS:
                known[f"offers_{said}_180d"] += 1.0
        if self.cases:
            known["cases_30d"] = float(sum(now_ms - at <= 30 * DAY_MS for at in self.cases))
            known["days_since_case"] = max(0, now_ms - self.cases[-1]) / DAY_MS
        known["cases_solved_30d"] = float(sum(now_ms - at <= 30 * DAY_MS for at in self.solved))
        return known

    def is_gone(self, last_call_ms: int | None) -> bool:
        """Tell whether they left and have not called as a customer since."""
        return self.left_ms is not None and (last_call_ms is None or last_call_ms < self.left_ms + BACK_MS)

    def credited_minor(self, since_ms: int, currency: str | None) -> int:
        """Return what was credited since a time, in one currency."""
        return sum(one.amount_minor for one in self.credits if one.at_ms > since_ms and one.currency == currency)


class Relations(Ledger[int, Relation]):
    """All relationships, by customer key.

    Args:
        customers_max: so many are kept; beyond, the one told of first gives way.
    """

    def __init__(self, customers_max: int) -> None:
        super().__init__("relations", Relation)
        self._customers_max = customers_max

    def of(self, customer: int) -> Relation:
        """Return what is known of a customer: an empty relation for one never told of."""
        return self.get(customer) or Relation()

    def ensure(self, customer: int) -> Relation:
        """Return a customer's relation, to be changed."""
        relation = self.get(customer)
        if relation is None:
            return self._begin(customer, Relation())
        self.touch(customer)
        return relation

    def _begin(self, customer: int, relation: Relation) -> Relation:
        while len(self) >= self._customers_max:
            self.drop_oldest()
        self[customer] = relation
        return relation

    def learn(self, customer: int, event: Profile | Usage | Contact) -> None:
        """Take over what the business says of a customer."""
        if isinstance(event, Profile):
            self.profile(customer, event)
        elif isinstance(event, Usage):
            self.usage(customer, event)
        else:
            self.contact(customer, event)

    def profile(self, customer: int, event: Profile) -> None:
        """Take over a profile: what it does not say stays as it was."""
        if customer not in self:
            self._begin(customer, Relation(event.at_ms, *_said(event)))
            return
        relation = self.ensure(customer)
        if event.at_ms < relation.profile_ms:
            return
        relation.profile_ms = event.at_ms
        for name, value in zip(_PROFILE, _said(event), strict=True):
            if value is not None:
                setattr(relation, name, value)

    def usage(self, customer: int, event: Usage) -> None:
        """Take over a usage report, unless a newer one is known."""
        relation = self.ensure(customer)
        if event.at_ms < relation.usage_ms:
            return
        relation.usage_ms = event.at_ms
        if event.bill_minor is not None:
            relation.bill_minor, relation.bill_currency = event.bill_minor, event.currency
        if event.minutes is None or not event.period_days:
            return
        relation.minutes_per_day_before = relation.minutes_per_day
        relation.minutes_per_day = event.minutes / event.period_days

    def contact(self, customer: int, event: Contact) -> None:
        """Take over a contact; the same one told again is one."""
        relation = self.ensure(customer)
        told = (event.at_ms, event.topic or "other")
        relation.contacts = sorted({*relation.contacts, told})[-CONTACTS_KEPT:]

    def case_opened(self, customer: int, at_ms: int) -> None:
        """Remember that a case was opened."""
        relation = self.ensure(customer)
        relation.cases = [*relation.cases, at_ms][-CONTACTS_KEPT:]

    def case_solved(self, customer: int, at_ms: int) -> None:
        """Remember that the calls of a case are good again."""
        relation = self.ensure(customer)
        relation.solved = [*relation.solved, at_ms][-CONTACTS_KEPT:]

    def outcome(self, customer: int, event: Outcome) -> None:
        """Remember what came of an offer; the same report told again is one."""
        relation = self.ensure(customer)
        tried = (event.at_ms, event.remedy_id or "", event.result)
        relation.remedies = sorted({*relation.remedies, tried})[-REMEDIES_KEPT:]

    def credited(self, customer: int, paid: Paid) -> None:
        """Remember that a credit was ordered."""
        relation = self.ensure(customer)
        relation.credits = [*relation.credits, paid][-REMEDIES_KEPT:]

    def left(self, customer: int, at_ms: int) -> None:
        """Remember that a customer left."""
        relation = self.ensure(customer)
        relation.left_ms = at_ms if relation.left_ms is None else max(at_ms, relation.left_ms)

    def forget(self, customer: int) -> bool:
        """Forget a customer; return whether anything was known."""
        return self.take_out(customer) is not None
