"""What the business knows of each customer, and the churn features that follow from it."""

import math
from collections.abc import Sequence
from operator import attrgetter

from msgspec import Struct

from detectors.changes import Ledger
from detectors.churn.features import EXPERIENCE, FEATURE_MAX, known_in
from schemas.events import Contact, Outcome, Profile, Result, Usage
from schemas.money import decimals

DAY_MS = 86_400_000
CONTACTS_KEPT = 16
REMEDIES_KEPT = 64
"""No limit on how often something is offered is higher."""

_NO_CONTACT, _NO_OFFER = (0.0, 0.0, 0.0, math.nan), (0.0, 0.0)
"""What most customers' contacts and offers come to."""

_STRANGER = (math.nan,) * len(EXPERIENCE)
"""What is known of the calls of somebody who never called."""

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

    Tuples, for the garbage collector passes over those that hold numbers and strings alone.

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
    contacts: tuple[tuple[int, str], ...] = ()
    cases: tuple[int, ...] = ()
    remedies: tuple[tuple[int, str, Result], ...] = ()
    credits: tuple[Paid, ...] = ()
    solved: tuple[int, ...] = ()
    left_ms: int | None = None

    def features(self, now_ms: int, experience: Sequence[float] = _STRANGER) -> dict[str, float]:
        """Return a customer's churn features that are known (see `row`)."""
        return known_in(self.row(now_ms, experience))

    def row(self, now_ms: int, experience: Sequence[float]) -> list[float]:
        """Return a customer's churn features, one for each of `FEATURES`, in their order; NaN where it is not known.

        Args:
            now_ms: event time.
            experience: `EXPERIENCE`.
        """
        evidence, drop_ratio, bad_quality_ratio, days_since_call, drops_7d, cases_open = experience
        quality, billing, cancel, days_since_contact = self._contacted(now_ms) if self.contacts else _NO_CONTACT
        accepted, declined = self._offered(now_ms) if self.remedies else _NO_OFFER
        fee_minor, minutes, before = self.monthly_fee_minor, self.minutes_per_day, self.minutes_per_day_before
        bill_minor = self.bill_minor if self.bill_currency == self.currency else None
        return [
            _known(self.tenure_days, max(0, now_ms - self.profile_ms) / DAY_MS),
            math.nan if self.contract_end_ms is None else (self.contract_end_ms - now_ms) / DAY_MS,
            math.nan if fee_minor is None else _known(fee_minor / _MINOR_UNITS[decimals(self.currency or "")]),
            _known(self.plan_down_mbps),
            quality,
            billing,
            cancel,
            _known(minutes),
            _known(minutes / before) if minutes is not None and before else math.nan,
            _known(bill_minor / fee_minor) if bill_minor is not None and fee_minor else math.nan,
            days_since_contact,
            accepted,
            declined,
            drops_7d,
            drop_ratio,
            bad_quality_ratio,
            days_since_call,
            cases_open,
            _lately(self.cases, now_ms) if self.cases else 0.0,
            max(0, now_ms - self.cases[-1]) / DAY_MS if self.cases else math.nan,
            evidence,
            _lately(self.solved, now_ms) if self.solved else 0.0,
        ]

    def _contacted(self, now_ms: int) -> tuple[float, float, float, float]:
        """Return the features of contacts: how many about quality, billing, cancelling; days since the last."""
        times = {topic: [now_ms - at_ms for at_ms, about in self.contacts if about == topic] for topic in _TOPICS}
        quality, billing, cancel = (
            float(sum(passed <= days * DAY_MS for passed in times[topic])) for topic, days in _TOPICS.items()
        )
        return quality, billing, cancel, max(0, now_ms - self.contacts[-1][0]) / DAY_MS

    def _offered(self, now_ms: int) -> tuple[float, float]:
        """Return the features of offers: how many were accepted, how many declined."""
        said = [result for at_ms, _, result in self.remedies if now_ms - at_ms <= 180 * DAY_MS]
        return float(said.count("accepted")), float(said.count("declined"))

    def is_gone(self, last_call_ms: int | None) -> bool:
        """Tell whether they left and have not called as a customer since."""
        return self.left_ms is not None and (last_call_ms is None or last_call_ms < self.left_ms + BACK_MS)

    def credited_minor(self, since_ms: int, currency: str | None) -> int:
        """Return what was credited since a time, in one currency."""
        return sum(one.amount_minor for one in self.credits if one.at_ms > since_ms and one.currency == currency)


_TOPICS = {"quality": 30, "billing": 30, "cancel": 90}
"""What contacts are counted that are about one of these, and for how many days."""

_MINOR_UNITS = tuple(10.0**digits for digits in range(5))


def _known(value: float | None, more: float = 0.0) -> float:
    """Return a feature; NaN where it is not known, or is one that the contract allows and no customer has."""
    if value is None:
        return math.nan
    # A plan of 1e16 Mbit/s says nothing about leaving.
    return value + more if -FEATURE_MAX <= value + more <= FEATURE_MAX else math.nan


def _lately(times_ms: tuple[int, ...], now_ms: int) -> float:
    return float(sum(now_ms - at_ms <= 30 * DAY_MS for at_ms in times_ms))


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
        relation.contacts = tuple(sorted({*relation.contacts, told})[-CONTACTS_KEPT:])

    def case_opened(self, customer: int, at_ms: int) -> None:
        """Remember that a case was opened."""
        relation = self.ensure(customer)
        relation.cases = (*relation.cases, at_ms)[-CONTACTS_KEPT:]

    def case_solved(self, customer: int, at_ms: int) -> None:
        """Remember that the calls of a case are good again."""
        relation = self.ensure(customer)
        relation.solved = (*relation.solved, at_ms)[-CONTACTS_KEPT:]

    def outcome(self, customer: int, event: Outcome) -> None:
        """Remember what came of an offer; the same report told again is one."""
        relation = self.ensure(customer)
        tried = (event.at_ms, event.remedy_id or "", event.result)
        relation.remedies = tuple(sorted({*relation.remedies, tried})[-REMEDIES_KEPT:])

    def credited(self, customer: int, paid: Paid) -> None:
        """Remember that a credit was ordered."""
        relation = self.ensure(customer)
        relation.credits = (*relation.credits, paid)[-REMEDIES_KEPT:]

    def left(self, customer: int, at_ms: int) -> None:
        """Remember that a customer left."""
        relation = self.ensure(customer)
        relation.left_ms = at_ms if relation.left_ms is None else max(at_ms, relation.left_ms)

    def forget(self, customer: int) -> bool:
        """Forget a customer; return whether anything was known."""
        return self.take_out(customer) is not None
